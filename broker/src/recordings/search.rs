//! Finding recordings by what was to be read on their terminals.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::PoisonError;

use intake::crypt4gh::PublicKey;
use model::SessionId;
use recording::cast::{Event, Reader};
use recording::lines::{Line, Lines};
use serde::Serialize;
use store::Recording;

use super::tape::Tape;
use super::vault::{RetrieveError, Retriever};
use super::{ReadError, Recordings, read};

/// The most text that is kept of one recording for searching, in bytes.
const TEXT_MAX: u64 = 8 << 20;
/// Hits that are told of one recording.
const HITS: usize = 5;
/// Recordings that are looked through for one question.
const LOOKED_THROUGH: usize = 2_000;
/// Recordings that are had back from the vault for one question.
const FETCHED: usize = 50;
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

/// What a search found, and what it could not look at.
#[derive(Debug, Default)]
pub struct Searched {
    /// Recordings with lines that fit.
    pub found: Vec<Found>,
    /// How many were had back from the vault for it.
    pub fetched: usize,
    /// How many were not looked through: too many, or they cannot be read.
    pub skipped: usize,
}

impl Recordings {
    /// Those of `among` in which `text` was to be read, upper and lower case alike. Those whose lines
    /// are not here are had back from the vault, the newest first, a bounded number of them.
    pub async fn search(&self, among: Vec<Recording>, text: &str, by: Retriever<'_>) -> Searched {
        let wanted = text.to_lowercase();
        let mut searched =
            Searched { skipped: among.len().saturating_sub(LOOKED_THROUGH), ..Searched::default() };
        for recording in among.into_iter().take(LOOKED_THROUGH) {
            let Ok(_turn) = self.inner.reading.acquire().await else { break };
            let looked = self.look(&recording.session, &wanted).await;
            let looked = match looked {
                Err(ReadError::NotHere) if searched.fetched < FETCHED => {
                    searched.fetched += 1;
                    self.look_in_the_vault(&recording, &wanted, by).await
                }
                looked => looked.map_err(RetrieveError::from),
            };
            match looked {
                Ok(Hits { count: 0, .. }) => {}
                Ok(Hits { hits, count, .. }) => searched.found.push(Found { recording, hits, count }),
                Err(error) => {
                    tracing::error!(session = %recording.session, %error, "a recording cannot be searched");
                    searched.skipped += 1;
                }
            }
        }
        searched
    }

    async fn look(&self, session: &SessionId, wanted: &str) -> Result<Hits, ReadError> {
        let (here, session, mut hits) = (self.clone(), session.clone(), Hits::of(wanted));
        let looking = tokio::task::spawn_blocking(move || {
            here.each_line(&session, |line| hits.take(line)).map(|()| hits)
        });
        looking.await.map_err(io::Error::other)?
    }

    async fn look_in_the_vault(
        &self,
        recording: &Recording,
        wanted: &str,
        by: Retriever<'_>,
    ) -> Result<Hits, RetrieveError> {
        let mut pieces = self.retrieve(recording, by).await?;
        let mut hits = Hits::of(wanted);
        let looking = tokio::task::spawn_blocking(move || {
            let mut unrolled = Unrolled::default();
            while let Some(piece) = pieces.blocking_recv() {
                unrolled.push(&piece?, |line| hits.take(line))?;
            }
            unrolled.end(|line| hits.take(line)).map(|()| hits)
        });
        Ok(looking.await.map_err(|died| ReadError::Io(io::Error::other(died)))??)
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
        let (mut opener, mut unrolled) = (self.opener(), Unrolled::default());
        read(&mut self.file(session)?, |piece| unrolled.push(&opener.push(piece)?, &mut take))?;
        unrolled.end(take)
    }

    /// Writes the text of a recording beside it. Blocks on the disk.
    pub(super) fn write_text(&self, session: &SessionId) -> Result<(), ReadError> {
        let _one = self.inner.writing.lock().unwrap_or_else(PoisonError::into_inner);
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

/// The lines of one recording that fit.
#[derive(Debug)]
struct Hits {
    wanted: String,
    hits: Vec<Hit>,
    count: u64,
}

impl Hits {
    fn of(wanted: &str) -> Hits {
        Hits { wanted: wanted.to_owned(), hits: Vec::new(), count: 0 }
    }

    fn take(&mut self, line: &Line) -> Result<(), ReadError> {
        if line.text.to_lowercase().contains(&self.wanted) {
            self.count += 1;
            if self.hits.len() < HITS {
                let shown = line.text.chars().take(LINE_SHOWN).collect();
                self.hits.push(Hit { millis: line.millis, line: shown });
            }
        }
        Ok(())
    }
}

/// An asciicast that becomes lines.
#[derive(Default)]
struct Unrolled {
    reader: Reader,
    lines: Lines,
}

impl Unrolled {
    fn push(
        &mut self,
        cast: &[u8],
        mut take: impl FnMut(&Line) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        for at in self.reader.push(cast).map_err(io::Error::other)? {
            if let Event::Output(text) = &at.event {
                self.lines.push(at.millis, text.as_bytes()).iter().try_for_each(&mut take)?;
            }
        }
        Ok(())
    }

    fn end(mut self, take: impl FnMut(&Line) -> Result<(), ReadError>) -> Result<(), ReadError> {
        self.lines.end().iter().try_for_each(take)
    }
}

/// A new file that only this process's user reads; one that was left half-written gives way.
fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}
