//! Recordings on their way to the vault, out of this folder, and back.
//!
//! What is kept as secret shares is the file as it lies here, sealed: a holder of shares, and an agent
//! that rebuilds it, have nothing without this broker's `recordings.key`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use gate::{Entry, Gate, Refusal};
use model::SessionId;
use sha2::{Digest, Sha256};
use store::Recording;
use tokio::sync::mpsc;

use super::{ReadError, Recordings, read};
use crate::keeping::{Keeping, Source, SourceError};

/// Opened pieces that may wait for whoever reads them.
const WAITING: usize = 4;

/// Why a recording cannot be had back.
#[derive(Debug, thiserror::Error)]
pub enum RetrieveError {
    /// The gate said no.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// It did not come, or no further.
    #[error("{0}")]
    Read(#[from] ReadError),
}

/// Has recordings back from the vault, for one person. Each is an act of its own.
#[derive(Clone, Copy)]
pub struct Retriever<'a> {
    /// Who decides.
    pub gate: &'a Gate,
    /// What carries.
    pub keeping: &'a Keeping,
    /// Who wants to see.
    pub by: &'a Entry,
}

/// A recording on its way to somebody, opened, piece by piece.
pub type Opened = mpsc::Receiver<Result<Bytes, ReadError>>;

impl Recordings {
    /// A recording, as it is stored, to be kept elsewhere too.
    pub(super) fn source(&self, recording: &Recording) -> Arc<dyn Source> {
        Arc::new(Reel { recordings: self.clone(), recording: recording.clone() })
    }

    /// A recording that is not here, from the vault. The last of it is given out only once all of it
    /// was what the log has sealed.
    pub async fn retrieve(&self, recording: &Recording, by: Retriever<'_>) -> Result<Opened, RetrieveError> {
        let permit = by.gate.fetch_recording(by.by, recording).await?;
        let mut sealed = by.keeping.fetch(permit);
        let (sender, opened) = mpsc::channel(WAITING);
        let mut opener = self.opener();
        tokio::spawn(async move {
            while let Some(piece) = sealed.recv().await {
                let plain = piece.map_err(ReadError::from).and_then(|sealed| Ok(opener.push(&sealed)?));
                let plain = match plain {
                    Ok(plain) if plain.is_empty() => continue,
                    plain => plain.map(|plain| Bytes::copy_from_slice(&plain)),
                };
                let failed = plain.is_err();
                if sender.send(plain).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(opened)
    }

    /// Takes the copy of a recording out of this folder; with `keep_text` its lines stay, sealed, so that
    /// it can still be searched at once. What is gone already is gone. Blocks on the disk.
    pub(super) fn let_go(&self, session: &SessionId, keep_text: bool) -> Result<(), ReadError> {
        let text = self.path(session, "text");
        if keep_text && !text.exists() {
            match self.write_text(session) {
                Err(ReadError::NotHere) => {}
                written => written?,
            }
        }
        let more = if keep_text { None } else { Some(text) };
        for path in more.into_iter().chain(["cast", "open"].map(|extension| self.path(session, extension))) {
            gone(&path)?;
        }
        Ok(File::open(&self.inner.dir)?.sync_all()?)
    }
}

fn gone(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A recording as it is stored.
struct Reel {
    recordings: Recordings,
    recording: Recording,
}

impl Source for Reel {
    fn write_to(&self, to: &mut dyn Write) -> Result<Option<[u8; 32]>, SourceError> {
        let broken = SourceError::Broken;
        let mut file =
            self.recordings.file(&self.recording.session).map_err(|error| broken(error.to_string()))?;
        let sealed = (self.recording.stored_bytes, self.recording.stored_sha256);
        let (mut size, mut hash, mut refused) = (0, Sha256::new(), None);
        let copied = read(&mut file, |piece| {
            size += piece.len() as u64;
            hash.update(piece);
            to.write_all(piece).map_err(|error| {
                let kind = error.kind();
                refused = Some(SourceError::from(error));
                ReadError::Io(kind.into())
            })
        });
        match (copied, refused) {
            (_, Some(refused)) => Err(refused),
            (Err(error), None) => Err(broken(error.to_string())),
            (Ok(()), None) if (size, hash.finalize().into()) != sealed => {
                Err(broken(ReadError::Altered.to_string()))
            }
            (Ok(()), None) => Ok(None),
        }
    }
}
