//! Recordings of sessions: made ([`recorder`]), kept in a folder of this broker, found and shown.
//!
//! A recording is sealed ([`recording::sealed`]) from its first byte, for a key in a file of this
//! folder that only the broker's user reads. While it grows it is `NAME.open`; once the log has sealed
//! it by its hash it is `NAME.cast`, and `NAME.text` beside it, sealed alike, holds its lines for
//! searching. What an earlier process left open is read as far as it is whole, and sealed as
//! interrupted before anything else happens to the session ([`Recordings::left_open`]).
//!
//! Once its session is closed it is kept as secret shares too ([`keeper`]), and may leave the folder then;
//! it is found and shown all the same ([`vault`]).
//!
//! What this does not defend against: whoever has the broker's folder has both the key and what it
//! opens. They cannot change a recording without the log telling.

pub mod keeper;
mod recorder;
mod search;
mod tape;
pub mod vault;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use gate::{Recorded, RecordingOrder};
use intake::crypt4gh::SecretKey;
use model::{Clock, Entropy, SessionId, Timestamp};
use recording::cast::{Event, Header, Reader};
use recording::elide::Elided;
use recording::sealed::{Ending, OpenError, Opener};
use sha2::{Digest, Sha256};
use store::{Recording, RecordingOutcome};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use crate::keeping::fetch::FetchError;
use crate::private;
pub use recorder::{Recorder, Sheet};
pub use search::{Found, Hit, Searched};

/// The folder, within the broker's.
const FOLDER: &str = "recordings";
/// The file of the key, within the broker's folder.
const KEY: &str = "recordings.key";
/// How much is read at once.
const PIECE: usize = 64 << 10;

/// The recordings of this broker. Cheap to clone.
#[derive(Clone)]
pub struct Recordings {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    secret: SecretKey,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    /// Readers of whole recordings at a time: they wait for the disk, and there may be many.
    reading: Semaphore,
    tasks: TaskTracker,
    /// A session was closed.
    closed: Notify,
    /// A recording is kept as secret shares.
    kept: Notify,
    status: watch::Sender<keeper::Status>,
    /// One text is written at a time: two of one recording would be in each other's way.
    writing: Mutex<()>,
}

impl std::fmt::Debug for Recordings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recordings").field("dir", &self.inner.dir).finish_non_exhaustive()
    }
}

/// Why a recording cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no such file here: it may be in the vault.
    #[error("the file of the recording is not here")]
    NotHere,
    /// The file cannot be read.
    #[error("the file of the recording cannot be read: {0}")]
    Io(io::Error),
    /// It is not what the log has sealed.
    #[error("the file of the recording is not the one that the log has sealed")]
    Altered,
    /// It cannot be opened.
    #[error("the recording cannot be opened: {0}")]
    Sealed(#[from] OpenError),
    /// It does not come back from the vault, or no further.
    #[error("the recording could not be had back from the vault: {0}")]
    Vault(#[from] FetchError),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> ReadError {
        match error.kind() {
            io::ErrorKind::NotFound => ReadError::NotHere,
            _ => ReadError::Io(error),
        }
    }
}

impl Recordings {
    /// Those in the folder of a broker, which is made if it is not there.
    pub fn open(
        broker: &Path,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        tasks: TaskTracker,
    ) -> io::Result<Recordings> {
        let dir = broker.join(FOLDER);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let text = private::read_or_make(&broker.join(KEY), || {
            let secret = SecretKey::generate(&*entropy).map_err(io::Error::other)?;
            Ok(Zeroizing::new(format!("{}\n", HEXLOWER.encode(&*secret.to_bytes()))))
        })?;
        let bad = || io::Error::other("recordings.key is not the key of recordings");
        let bytes = Zeroizing::new(HEXLOWER.decode(text.trim().as_bytes()).map_err(|_| bad())?);
        let bytes: Zeroizing<[u8; 32]> = Zeroizing::new(bytes.as_slice().try_into().map_err(|_| bad())?);
        let secret = SecretKey::from_bytes(&bytes);
        let inner = Inner {
            dir,
            secret,
            clock,
            entropy,
            reading: Semaphore::new(2),
            tasks,
            closed: Notify::new(),
            kept: Notify::new(),
            status: watch::Sender::default(),
            writing: Mutex::new(()),
        };
        Ok(Recordings { inner: Arc::new(inner) })
    }

    /// What an earlier process left open, read as far as it is whole. Blocks on the disk.
    pub fn left_open(&self) -> io::Result<Vec<(SessionId, Recorded)>> {
        let mut left = Vec::new();
        for entry in fs::read_dir(&self.inner.dir)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "open") {
                continue;
            }
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            let Ok(session) = SessionId::from_name(name) else { continue };
            match self.examine(&path) {
                Ok(recorded) => left.push((session, recorded)),
                Err(error) => {
                    // Nothing of it was on the disk, or it is no recording: kept, out of the way.
                    tracing::error!(%session, %error, "what was left of a recording cannot be read");
                    fs::rename(&path, path.with_extension("unreadable"))?;
                }
            }
        }
        Ok(left)
    }

    /// Begins the recording of a session. Blocks on the disk for a moment.
    pub fn begin(&self, sheet: &Sheet, order: RecordingOrder) -> io::Result<Recorder> {
        let path = self.path(&sheet.session, "open");
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let begun = tape::Tape::begin(file, &self.inner.secret.public(), &*self.inner.entropy)
            .and_then(|tape| recorder::Recorder::begin(sheet, order, tape, Arc::clone(&self.inner.clock)));
        if begun.is_err() {
            let _ = fs::remove_file(&path);
        }
        begun
    }

    /// The log has sealed the recording of this session: it is kept for good, and made ready for
    /// searching.
    pub fn keep(&self, session: &SessionId) {
        let (from, to) = (self.path(session, "open"), self.path(session, "cast"));
        if let Err(error) = fs::rename(&from, &to) {
            tracing::error!(%session, %error, "a finished recording could not be put in its place");
            return;
        }
        let (recordings, session) = (self.clone(), session.clone());
        self.inner.tasks.spawn(async move {
            let Ok(_turn) = recordings.inner.reading.acquire().await else { return };
            let (here, of) = (recordings.clone(), session.clone());
            let written = tokio::task::spawn_blocking(move || here.write_text(&of)).await;
            if let Ok(Err(error)) = written {
                tracing::warn!(%session, %error, "the text of a recording could not be kept apart; it is searched itself");
            }
        });
    }

    /// A session is closed, and nothing more is said about it: its recording is due to be kept.
    pub fn session_closed(&self) {
        self.inner.closed.notify_one();
    }

    /// Waits until a session was closed since this was asked last.
    async fn closed(&self) {
        self.inner.closed.notified().await;
    }

    /// How the keeping of recordings is.
    pub fn kept_status(&self) -> keeper::Status {
        self.inner.status.borrow().clone()
    }

    /// The recording as asciicast, in pieces, once its file was held against what the log says. A
    /// reader that stops reading holds up one thread and no memory.
    pub async fn show(
        &self,
        recording: &Recording,
    ) -> Result<mpsc::Receiver<Result<Bytes, ReadError>>, ReadError> {
        let (here, wanted) = (self.clone(), recording.clone());
        let file = tokio::task::spawn_blocking(move || {
            let mut file = here.file(&wanted.session)?;
            let (bytes, hash) = hashed(&mut file)?;
            if bytes != wanted.stored_bytes || hash != wanted.stored_sha256 {
                return Err(ReadError::Altered);
            }
            io::Seek::rewind(&mut file)?;
            Ok(file)
        });
        let mut file = file.await.map_err(io::Error::other)??;
        let (sender, receiver) = mpsc::channel(4);
        let mut opener = self.opener();
        tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; PIECE];
            loop {
                let shown = match file.read(&mut piece) {
                    Ok(0) => return,
                    Ok(n) => opener.push(&piece[..n]).map(|plain| Bytes::copy_from_slice(&plain)),
                    Err(error) => {
                        let _ = sender.blocking_send(Err(error.into()));
                        return;
                    }
                };
                let failed = shown.is_err();
                if sender.blocking_send(shown.map_err(ReadError::from)).is_err() || failed {
                    return;
                }
            }
        });
        Ok(receiver)
    }

    /// Reads a recording to its end and tells what is in it.
    fn examine(&self, path: &Path) -> Result<Recorded, ReadError> {
        let (mut opener, mut reader) = (self.opener(), Reader::new());
        let (mut sha256, mut stored_sha256) = (Sha256::new(), Sha256::new());
        let (mut bytes, mut stored_bytes, mut events, mut millis, mut elided) = (0, 0, 0, 0, 0);
        let mut good = true;
        read(&mut File::open(path)?, |piece| {
            stored_sha256.update(piece);
            stored_bytes += piece.len() as u64;
            let plain = opener.push(piece)?;
            sha256.update(&*plain);
            bytes += plain.len() as u64;
            // What was written whole is a recording; it is hashed in any case.
            let more = if good { reader.push(&plain) } else { Ok(Vec::new()) };
            good = more.is_ok();
            for at in more.unwrap_or_default() {
                events += 1;
                millis = at.millis;
                if let Event::Marker(label) = &at.event {
                    elided += Elided::bytes_in(label).unwrap_or(0);
                }
            }
            Ok(())
        })?;
        let ending = opener.finish()?;
        let header = reader.header().ok_or(ReadError::Sealed(OpenError::NotSealed))?;
        Ok(Recorded {
            begun: Timestamp::from_secs(header.timestamp.unwrap_or(0)),
            command: header.command.clone(),
            millis,
            events,
            bytes,
            sha256: sha256.finalize().into(),
            stored_bytes,
            stored_sha256: stored_sha256.finalize().into(),
            elided,
            outcome: match ending {
                Ending::Whole => RecordingOutcome::Whole,
                Ending::CutOff => RecordingOutcome::Interrupted,
            },
        })
    }

    fn opener(&self) -> Opener {
        Opener::new(SecretKey::from_bytes(&self.inner.secret.to_bytes()))
    }

    /// The file of a recording that the log has sealed. It may not have been put in its place yet.
    fn file(&self, session: &SessionId) -> Result<File, ReadError> {
        match File::open(self.path(session, "cast")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(File::open(self.path(session, "open"))?)
            }
            opened => Ok(opened?),
        }
    }

    fn path(&self, session: &SessionId, extension: &str) -> PathBuf {
        self.inner.dir.join(format!("{}.{extension}", session.name()))
    }
}

/// The header of a recording that begins.
fn header(sheet: &Sheet) -> Header {
    Header {
        version: 3,
        term: recording::cast::Term { cols: sheet.cols, rows: sheet.rows, kind: sheet.term.clone() },
        timestamp: Some(sheet.begun.as_secs()),
        command: sheet.command.clone(),
        title: None,
    }
}

/// Reads to the end, in pieces.
fn read(file: &mut File, mut take: impl FnMut(&[u8]) -> Result<(), ReadError>) -> Result<(), ReadError> {
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(()),
            n => take(&piece[..n])?,
        }
    }
}

fn hashed(file: &mut File) -> Result<(u64, [u8; 32]), ReadError> {
    let (mut bytes, mut hash) = (0, Sha256::new());
    read(file, |piece| {
        bytes += piece.len() as u64;
        hash.update(piece);
        Ok(())
    })?;
    Ok((bytes, hash.finalize().into()))
}
