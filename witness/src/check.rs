//! Is the log that lies here the one that the witness knows?

use audit::{Checkpoint, Cosignature, Hash, Log, NoteError, ReadError, Reader};

use crate::client::{Answer, Client, ClientError};
use crate::protocol::AddCheckpoint;

/// How often the witness may name another size before that counts as a fault: it answers others
/// meanwhile.
const ATTEMPTS: usize = 4;

/// Why a log is not what its witness knows, or why that cannot be said.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The log has lost what the witness has signed.
    #[error(
        "the witness {witness} has signed this audit log with {signed} entries, but here it has only {here}: \
         it was set back to an older copy, or its key is used elsewhere. Nothing was changed. Keep the \
         folder as evidence and restore the newest copy; the collector has the entries from {here} on. If \
         they are lost for good, begin a new log with a new key and have the witness told"
    )]
    Behind {
        /// The name of the witness.
        witness: String,
        /// The size it has signed.
        signed: u64,
        /// The size of the checkpoint here.
        here: u64,
    },
    /// The log has another history than the one the witness has signed.
    #[error(
        "the witness {witness} has signed another history of this audit log ({reason}): entries were changed, \
         or its key is used elsewhere. Nothing was changed. Keep the folder as evidence, compare it with the \
         collector's copy, and restore the log that the witness knows"
    )]
    Split {
        /// The name of the witness.
        witness: String,
        /// What it said.
        reason: String,
    },
    /// The witness does not serve this log.
    #[error(
        "the witness {witness} does not accept this audit log (status {status}: {reason}): have its operator \
         put the log's key.pub into its configuration"
    )]
    NotServed {
        /// The name of the witness.
        witness: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        reason: String,
    },
    /// Nothing is known.
    #[error("the witness {witness} cannot be asked: {source}")]
    Unreachable {
        /// The name of the witness.
        witness: String,
        /// Why.
        #[source]
        source: ClientError,
    },
    /// The log here cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The checkpoint here is none.
    #[error("the checkpoint of the audit log cannot be used: {0}")]
    Note(#[from] NoteError),
}

impl CheckError {
    /// Whether it shows a fault of the log, and not of the way to the witness.
    pub fn is_fault_of_the_log(&self) -> bool {
        match self {
            CheckError::Behind { .. }
            | CheckError::Split { .. }
            | CheckError::Read(_)
            | CheckError::Note(_) => true,
            CheckError::NotServed { .. } | CheckError::Unreachable { .. } => false,
        }
    }
}

/// A checkpoint that the witness has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Its size.
    pub size: u64,
    /// The note of the log, with the signature of the witness.
    pub note: String,
    /// The signature.
    pub cosignature: Cosignature,
}

/// Where a log is looked at.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// Nowhere: there is none yet. This is the checkpoint over nothing with which it would begin.
    Nothing(&'a str),
    /// Its folder, which nobody has open.
    Folder(&'a Reader),
    /// This process has it open.
    Running(&'a Log),
}

impl Source<'_> {
    /// The last checkpoint: its size, its note, and the proof that it continues the log of `old`
    /// entries; no proof if it is smaller.
    async fn continued(self, old: u64) -> Result<(u64, String, Vec<Hash>), CheckError> {
        match self {
            Source::Nothing(note) => Ok((0, note.to_owned(), Vec::new())),
            Source::Folder(reader) => {
                let (last, note) = reader.checkpoint()?;
                if old > last.size {
                    return Ok((last.size, note, Vec::new()));
                }
                let (last, note, proof) = reader.consistency(old)?;
                Ok((last.size, note, proof))
            }
            Source::Running(log) => loop {
                let note = log.checkpoint();
                let size = Checkpoint::parse_unverified(note.as_bytes())?.size;
                if old > size {
                    return Ok((size, note, Vec::new()));
                }
                let proving = log.clone();
                let proof = tokio::task::spawn_blocking(move || proving.consistency_proof(old, size)).await;
                let broke_off = |e| ReadError::Io { path: "tile".into(), source: std::io::Error::other(e) };
                match proof.map_err(broke_off)? {
                    // Partial tiles of a checkpoint go away some time after the next.
                    Err(ReadError::Io { source, .. })
                        if source.kind() == std::io::ErrorKind::NotFound && log.checkpoint_size() != size => {
                    }
                    proof => return Ok((size, note, proof?)),
                }
            },
        }
    }
}

/// Has the witness sign the last checkpoint. `known` is the size that it signed last, as far as is
/// known; where it names another, that is proved to be continued.
pub(crate) async fn check(client: &Client, known: u64, source: Source<'_>) -> Result<Signed, CheckError> {
    let witness = || client.name().to_owned();
    let mut old = known;
    let mut said = String::new();
    for _ in 0..ATTEMPTS {
        let (size, note, proof) = source.continued(old).await?;
        if old > size {
            return Err(CheckError::Behind { witness: witness(), signed: old, here: size });
        }
        let request = AddCheckpoint { old, proof, note };
        let answer = client.add_checkpoint(&request).await;
        let answer = answer.map_err(|source| CheckError::Unreachable { witness: witness(), source })?;
        match answer {
            Answer::Signed(cosignature) => {
                let note = format!("{}{}", request.note, cosignature.line);
                return Ok(Signed { size, note, cosignature });
            }
            Answer::OtherSize(signed) if signed > size => {
                return Err(CheckError::Behind { witness: witness(), signed, here: size });
            }
            Answer::OtherSize(signed) => {
                said = format!("it knows {signed} entries");
                old = signed;
            }
            Answer::Refused { status: status @ (409 | 422), reason } => {
                return Err(CheckError::Split { witness: witness(), reason: format!("{status}: {reason}") });
            }
            Answer::Refused { status, reason } => {
                return Err(CheckError::NotServed { witness: witness(), status, reason });
            }
        }
    }
    Err(CheckError::Split { witness: witness(), reason: said })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use audit::{Event, EventKind, LogKey, Options, verify_consistency};
    use model::{ManualClock, SeededEntropy, Timestamp};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_log_that_grows_while_it_is_looked_at_is_no_fault() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::from_secs(1_790_000_000);
        let key = LogKey::generate("sekisho.test/audit", &SeededEntropy::new(1)).unwrap();
        let mut options = Options::default();
        options.checkpoint_every = Duration::ZERO;
        let log = Log::open(dir.path(), key, Arc::new(ManualClock::at(now)), options).unwrap();
        let growing = tokio::spawn({
            let log = log.clone();
            async move {
                for i in 0..1_500 {
                    let kind = EventKind::Stopped { process: "p".to_owned(), reason: format!("{i}") };
                    log.append(&Event::new(now, kind)).await.unwrap();
                }
            }
        });
        let mut last = None::<Checkpoint>;
        let mut seen = 0;
        while !growing.is_finished() {
            let old = last.as_ref().map_or(0, |last| last.size);
            let (size, note, proof) = Source::Running(&log).continued(old).await.unwrap();
            let new = Checkpoint::parse_unverified(note.as_bytes()).unwrap();
            assert_eq!(new.size, size);
            if let Some(last) = &last {
                assert!(verify_consistency(last.size, &last.root, size, &new.root, &proof));
                seen += usize::from(size > last.size);
            }
            last = Some(new);
        }
        assert!(seen > 50, "{seen}");
        growing.await.unwrap();
        log.close().await;
    }
}
