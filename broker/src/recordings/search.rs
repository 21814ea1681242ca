//! Finding recordings by what was to be read on their terminals.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use intake::crypt4gh::PublicKey;
use model::SessionId;
use recording::cast::{Event, Reader};
use recording::lines::{Line, Lines};
use serde::Serialize;
use store::Recording;

use super::tape::Tape;
use super::{ReadError, Recordings, read};

/// The most text that is kept of one recording for searching, in bytes.
const TEXT_MAX: u64 = 8 << 20;
/// Hits that are told of one recording.
const HITS: usize = 5;
/// Recordings that are looked through for one question.
const LOOKED_THROUGH: usize = 2_000;
/// The longest line that is told.
const LINE_SHOWN: usize = 300;

/// A line that fits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hit {
    /// When, in milliseconds of the session.
    pub millis: u64,
    /// What it says, cut if it is long.
    pub line: String,
}

/// A recording, with the lines that fit.
#[derive(Debug, Clone, Serialize)]
pub struct Found {
    /// Which.
    #[serde(flatten)]
    pub recording: Recording,
    /// Some of the lines that fit.
    pub hits: Vec<Hit>,
    /// How many there are.
    pub count: u64,
}

impl Recordings {
    /// Those of `among` in which `text` was to be read, upper and lower case alike; and how many were
    /// not looked through, because they are too many or cannot be read.
    pub async fn search(&self, among: Vec<Recording>, text: &str) -> (Vec<Found>, usize) {
        let wanted = text.to_lowercase();
        let mut skipped = among.len().saturating_sub(LOOKED_THROUGH);
        let mut found = Vec::new();
        for recording in among.into_iter().take(LOOKED_THROUGH) {
            let Ok(_turn) = self.inner.reading.acquire().await else { break };
            let (here, wanted) = (self.clone(), wanted.clone());
            let looked = tokio::task::spawn_blocking(move || {
                let hits = here.look(&recording.session, &wanted);
                (recording, hits)
            });
            match looked.await {
                Ok((recording, Ok((hits, count)))) if count > 0 => {
                    found.push(Found { recording, hits, count });
                }
                Ok((_, Ok(_))) => {}
                Ok((recording, Err(error))) => {
                    tracing::error!(session = %recording.session, %error, "a recording cannot be searched");
                    skipped += 1;
                }
                Err(_) => skipped += 1,
            }
        }
        (found, skipped)
    }

    fn look(&self, session: &SessionId, wanted: &str) -> Result<(Vec<Hit>, u64), ReadError> {
        let (mut hits, mut count) = (Vec::new(), 0);
        self.each_line(session, |line| {
            if line.text.to_lowercase().contains(wanted) {
                count += 1;
                if hits.len() < HITS {
                    let shown = line.text.chars().take(LINE_SHOWN).collect();
                    hits.push(Hit { millis: line.millis, line: shown });
                }
            }
            Ok(())
        })?;
        Ok((hits, count))
    }

    /// Every line of a recording: from its text, or else from itself.
    fn each_line(
        &self,
        session: &SessionId,
        mut take: impl FnMut(&Line) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        match File::open(self.path(session, "text")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.each_line_of_cast(session, take),
            Err(error) => Err(error.into()),
            Ok(mut file) => {
                let (mut opener, mut held) = (self.opener(), Vec::new());
                read(&mut file, |piece| {
                    held.extend_from_slice(&opener.push(piece)?);
                    let mut rest = held.as_slice();
                    while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                        let line = serde_json::from_slice(&rest[..end]).map_err(io::Error::other)?;
                        take(&line)?;
                        rest = &rest[end + 1..];
                    }
                    let left = rest.len();
                    held.drain(..held.len() - left);
                    Ok(())
                })
            }
        }
    }

    fn each_line_of_cast(
        &self,
        session: &SessionId,
        mut take: impl FnMut(&Line) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let (mut opener, mut reader, mut lines) = (self.opener(), Reader::new(), Lines::default());
        read(&mut File::open(self.path(session, "cast"))?, |piece| {
            for at in reader.push(&opener.push(piece)?).map_err(io::Error::other)? {
                if let Event::Output(text) = &at.event {
                    lines.push(at.millis, text.as_bytes()).iter().try_for_each(&mut take)?;
                }
            }
            Ok(())
        })?;
        lines.end().iter().try_for_each(take)
    }

    /// Writes the text of a recording beside it. Blocks on the disk.
    pub(super) fn write_text(&self, session: &SessionId) -> Result<(), ReadError> {
        let (being, path) = (self.path(session, "text-new"), self.path(session, "text"));
        let reader: PublicKey = self.inner.secret.public();
        let mut tape = Tape::begin(private(&being)?, &reader, &*self.inner.entropy)?;
        let mut size = 0;
        self.each_line_of_cast(session, |line| {
            let mut text = serde_json::to_string(line).map_err(io::Error::other)?;
            text.push('\n');
            size += text.len() as u64;
            if size <= TEXT_MAX {
                tape.put(text.as_bytes())?;
            }
            Ok(())
        })?;
        if size > TEXT_MAX {
            // Half a text would hide what is in the other half: such a recording is searched itself.
            fs::remove_file(&being)?;
            return Ok(());
        }
        tape.end()?;
        Ok(fs::rename(&being, &path)?)
    }
}

/// A new file that only this process's user reads; one that was left half-written gives way.
fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}
