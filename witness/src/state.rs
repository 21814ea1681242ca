//! What a witness remembers, and what it therefore signs.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use audit::{Checkpoint, LogPublicKey, NoteError, WitnessKey, verify_consistency};
use data_encoding::HEXLOWER;
use model::{Clock, Entropy};
use sha2::{Digest, Sha256};

use crate::counts::{Counted, Counts};
use crate::protocol::AddCheckpoint;

/// A witness: its key, the logs it knows, and what it has signed of each.
pub struct Witness {
    key: WitnessKey,
    dir: PathBuf,
    logs: Mutex<BTreeMap<String, Known>>,
    counts: Counts,
    _lock: File,
}

struct Known {
    key: LogPublicKey,
    /// The last checkpoint that was signed, with the note as the log signed it.
    last: Option<(Checkpoint, String)>,
}

/// What a request comes to. The numbers are the status codes of C2SP tlog-witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// 200: the signature line.
    Signed(String),
    /// 400: it makes no sense.
    Malformed(String),
    /// 404: the log is not in the configuration.
    UnknownLog,
    /// 403: it is not signed by the log.
    NotSigned(String),
    /// 409: the last checkpoint signed has another size, this one.
    OtherSize(u64),
    /// 409: the last checkpoint signed has this size and another root. Both are signed by the log:
    /// that is proof of two histories.
    OtherRoot,
    /// 422: the new checkpoint does not continue the last one, as far as the proof shows.
    NotProven,
    /// 500: the state could not be written, so nothing was signed.
    NotKept(String),
}

impl Decision {
    /// The stable word for it.
    const fn code(&self) -> &'static str {
        match self {
            Decision::Signed(_) => "signed",
            Decision::Malformed(_) => "malformed",
            Decision::UnknownLog => "unknown-log",
            Decision::NotSigned(_) => "not-signed",
            Decision::OtherSize(_) => "other-size",
            Decision::OtherRoot => "other-root",
            Decision::NotProven => "not-proven",
            Decision::NotKept(_) => "not-kept",
        }
    }
}

/// Why a witness cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operating system refused something.
    #[error("cannot use {path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process serves this folder.
    #[error("the folder {path} is in use by another witness; stop that one first", path = .0.display())]
    Busy(PathBuf),
    /// The key cannot be read.
    #[error("{path} is not the key of a witness: {source}", path = path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: audit::KeyError,
    },
    /// The key bears another name than the configuration.
    #[error(
        "the key in this folder is that of {found}, the configuration names {expected}; put the name back"
    )]
    OtherName {
        /// Whose key it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// There is a key, so something was signed; but what is not known any more.
    #[error(
        "{path} is gone, but the key of this witness is there: what it has signed is not known any more, \
         and signing again could vouch for a second history. Restore the folder as it was last, or retire \
         this witness: begin in an empty folder with a new key and a new name, and have the logs \
         configured anew", path = .0.display()
    )]
    Lost(PathBuf),
    /// A remembered checkpoint is not what was written.
    #[error("{path} is damaged: {source}; restore it as it was last, or retire this witness", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: NoteError,
    },
}

impl Witness {
    /// Opens the witness `name` in `dir`, for the logs with these keys; on the first start it makes
    /// its key. The public half lies in `key.pub`.
    pub fn open(
        dir: &Path,
        name: &str,
        logs: &[LogPublicKey],
        entropy: &(impl Entropy + ?Sized),
    ) -> Result<Witness, OpenError> {
        let lock = lock_dir(dir)?;
        let key = read_or_make_key(dir, name, entropy)?;
        let mut known = BTreeMap::new();
        for log in logs {
            let last = read_last(&dir.join("state").join(file_of(log.origin())), log)?;
            known.insert(log.origin().to_owned(), Known { key: log.clone(), last });
        }
        let (logs, counts) = (Mutex::new(known), Counts::default());
        Ok(Witness { key, dir: dir.to_owned(), logs, counts, _lock: lock })
    }

    /// What verifies its signatures.
    pub fn key(&self) -> &audit::WitnessPublicKey {
        self.key.public()
    }

    /// Decides about a request, in the order the specification gives. What it signs is on disk
    /// before. Blocks on the disk.
    pub fn add_checkpoint(&self, request: &AddCheckpoint, clock: &dyn Clock) -> Decision {
        let decision = self.decide(request, clock);
        self.counts.decided(decision.code());
        match &decision {
            Decision::Signed(_) => self.counts.kept(None),
            Decision::NotKept(cause) => self.counts.kept(Some(cause.clone())),
            _ => {}
        }
        decision
    }

    /// What was decided since the start.
    pub(crate) fn counted(&self) -> Counted {
        self.counts.now()
    }

    fn decide(&self, request: &AddCheckpoint, clock: &dyn Clock) -> Decision {
        let note = request.note.as_bytes();
        let named = match Checkpoint::parse_unverified(note) {
            Ok(checkpoint) => checkpoint,
            Err(fault) => return Decision::Malformed(fault.to_string()),
        };
        // Looking and remembering must be one step, or two requests could pass each other.
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(log) = logs.get_mut(&named.origin) else { return Decision::UnknownLog };
        let new = match Checkpoint::open(note, &log.key) {
            Ok(checkpoint) => checkpoint,
            Err(fault) => return Decision::NotSigned(fault.to_string()),
        };
        if request.old > new.size {
            return Decision::Malformed("the old size is larger than the new one".to_owned());
        }
        let empty: audit::Hash = Sha256::digest([]).into();
        let (size, root) = log.last.as_ref().map_or((0, empty), |(last, _)| (last.size, last.root));
        if request.old != size {
            return Decision::OtherSize(size);
        }
        if new.size == size && new.root != root {
            return Decision::OtherRoot;
        }
        if !verify_consistency(size, &root, new.size, &new.root, &request.proof) {
            return Decision::NotProven;
        }
        let path = self.dir.join("state").join(file_of(&new.origin));
        if let Err(cause) = replace(&path, request.note.as_bytes(), 0o600) {
            return Decision::NotKept(cause.to_string());
        }
        log.last = Some((new, request.note.clone()));
        match self.key.cosign(note, clock.now()) {
            Ok(line) => Decision::Signed(line),
            Err(fault) => Decision::Malformed(fault.to_string()),
        }
    }

    /// The names of the logs it knows, and how many entries stand under what it signed last of each.
    pub fn sizes(&self) -> Vec<(String, u64)> {
        let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let size = |known: &Known| known.last.as_ref().map_or(0, |(checkpoint, _)| checkpoint.size);
        logs.iter().map(|(origin, known)| (origin.clone(), size(known))).collect()
    }

    /// The last checkpoint that was signed of the log whose origin has this SHA-256 (hexadecimal).
    pub fn last(&self, origin_hash: &str) -> Option<String> {
        let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let log = logs.iter().find(|(origin, _)| file_of(origin) == origin_hash)?.1;
        log.last.as_ref().map(|(_, note)| note.clone())
    }
}

fn file_of(origin: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(origin.as_bytes()))
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { path, source }
}

fn lock_dir(dir: &Path) -> Result<File, OpenError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_at(dir))?;
    let path = dir.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(io_at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Busy(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(OpenError::Io { path, source }),
    }
}

/// The folder for the state is made before the key, so that a key without it means a loss.
fn read_or_make_key(
    dir: &Path,
    name: &str,
    entropy: &(impl Entropy + ?Sized),
) -> Result<WitnessKey, OpenError> {
    let (path, state) = (dir.join("witness.key"), dir.join("state"));
    let bad_key = |source| OpenError::Key { path: path.clone(), source };
    let key = match fs::read_to_string(&path) {
        Ok(text) => {
            let text = zeroize::Zeroizing::new(text);
            let key = WitnessKey::from_secret_text(text.trim_end()).map_err(bad_key)?;
            if !state.is_dir() {
                return Err(OpenError::Lost(state));
            }
            key
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(&state).map_err(io_at(&state))?;
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_at(dir))?;
            let key = WitnessKey::generate(name, entropy).map_err(bad_key)?;
            replace(&path, key.to_secret_text().as_bytes(), 0o600).map_err(io_at(&path))?;
            key
        }
        Err(source) => return Err(OpenError::Io { path, source }),
    };
    if key.public().name() != name {
        let found = key.public().name().to_owned();
        return Err(OpenError::OtherName { found, expected: name.to_owned() });
    }
    let public = dir.join("key.pub");
    replace(&public, format!("{}\n", key.public()).as_bytes(), 0o644).map_err(io_at(&public))?;
    Ok(key)
}

fn read_last(path: &Path, key: &LogPublicKey) -> Result<Option<(Checkpoint, String)>, OpenError> {
    let note = match fs::read(path) {
        Ok(note) => note,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(OpenError::Io { path: path.to_owned(), source }),
    };
    let checkpoint = Checkpoint::open(&note, key)
        .map_err(|source| OpenError::Damaged { path: path.to_owned(), source })?;
    Ok(Some((checkpoint, String::from_utf8_lossy(&note).into_owned())))
}

/// Writes a file so that a crash leaves the old one or the new one, and returns once that is certain.
fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
