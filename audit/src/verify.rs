mod wal;
mod walk;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::error::{VerifyError, fault};
use crate::local::local_from;
use crate::space::spare_path;
use crate::tree::Hash;
use crate::witnessed::{Kept, Witnessed};
use crate::{Checkpoint, LogPublicKey, WitnessPublicKey};
use wal::WalHashes;
use walk::{Elsewhere, Walk};

/// What a log was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyReport {
    /// How many entries the checkpoint covers.
    pub size: u64,
    /// How many entries there are, those with it that no checkpoint covers yet.
    pub entries: u64,
    /// The root over the first `size` of them, recomputed from their bytes.
    pub root: Hash,
    /// The signed checkpoint.
    pub checkpoint: String,
    /// How many bytes were read and found to be what they should.
    pub bytes: u64,
    /// Bytes at the end of the write-ahead log of a write that was not completed. Such a write was
    /// not acknowledged; opening the log cuts it off.
    pub unfinished: u64,
    /// Whether a process has the log open.
    pub live: bool,
    /// How far a witness has come, if the log has one.
    pub witnessed: Option<Witnessed>,
    /// Entries that were moved to the vault and are not here: their hashes were compared, their bytes
    /// were not.
    pub removed: u64,
    /// Entries that were moved to the vault, and were fetched and compared.
    pub fetched: u64,
}

/// How often a log that changes while it is read is looked at before a fault counts.
const ATTEMPTS: u32 = 5;

/// Reads every byte of the log in `dir`: recomputes all hashes from the entries, and compares the
/// write-ahead log, the bundles, the tiles and the signed checkpoint with one another and `key`.
///
/// It changes nothing and may run while the log grows. It reads on all processors, and needs memory
/// for the write-ahead log (a few megabytes), however long the log is.
///
/// Where a witness has signed, `checkpoint.witnessed` must be signed by the log, too, and the log must
/// continue it. Whether the witness signed it is for [`verify_witnessed`].
pub fn verify_dir(dir: &Path, key: &LogPublicKey) -> Result<VerifyReport, VerifyError> {
    verify_with(dir, None, key, None)
}

/// The same, and the last checkpoint that a witness has signed must be there and be signed by
/// `witness`. It says how far the log was shown to the witness; only the witness itself knows whether
/// it has signed more since.
pub fn verify_witnessed(
    dir: &Path,
    key: &LogPublicKey,
    witness: &WitnessPublicKey,
) -> Result<VerifyReport, VerifyError> {
    verify_with(dir, None, key, Some(witness))
}

/// Either, where bundles that were moved to the vault are looked for in the folder `kept`, as
/// [`crate::write_bundle`] puts them there. What is in neither counts by the hashes that stayed.
pub fn verify_with(
    dir: &Path,
    kept: Option<&Path>,
    key: &LogPublicKey,
    witness: Option<&WitnessPublicKey>,
) -> Result<VerifyReport, VerifyError> {
    let mut attempt = 1;
    loop {
        let moving = || (fs::read(dir.join("checkpoint")).ok(), local_from(dir).ok());
        let before = moving();
        let live = is_live(dir);
        let result = verify_once(dir, kept, key, witness, live);
        let moved = moving() != before;
        if result.is_ok() || !moved || attempt == ATTEMPTS {
            return result;
        }
        attempt += 1;
        thread::sleep(Duration::from_millis(50));
    }
}

fn verify_once(
    dir: &Path,
    kept: Option<&Path>,
    key: &LogPublicKey,
    witness: Option<&WitnessPublicKey>,
    live: bool,
) -> Result<VerifyReport, VerifyError> {
    let key_file = read(dir, Path::new("key.pub"))?;
    if key_file != format!("{key}\n").as_bytes() {
        return Err(fault("key.pub is not the key that was expected", None));
    }
    // Before the log's own, which was there first.
    let witnessed = Kept::read(dir, key, witness)?;
    let note = read(dir, Path::new("checkpoint"))?;
    let checkpoint = Checkpoint::open(&note, key).map_err(|e| fault(format!("checkpoint: {e}"), None))?;
    let wal = WalHashes::read(dir, &checkpoint, live)?;
    let removed = local_from(dir).map_err(|e| fault(e.to_string(), None))?;
    let read_before =
        (key_file.len() + note.len()) as u64 + wal.bytes + witnessed.as_ref().map_or(0, Kept::bytes);
    let elsewhere = Elsewhere { below: removed, kept };
    let walked = Walk::new(dir, live, elsewhere, checkpoint.size)?.through(&wal)?;
    let (entries, size) = (walked.entries, checkpoint.size);
    if walked.root != Some(checkpoint.root) {
        let what = match walked.root {
            Some(_) => format!("the {size} entries have another root than the checkpoint says"),
            None => format!("there are {entries} entries, the checkpoint covers {size}"),
        };
        return Err(fault(what, None));
    }
    let witnessed = witnessed.map(|kept| kept.compare(dir, &checkpoint)).transpose()?;
    if let Some(tile) = walked.stray {
        return Err(fault(format!("{} does not belong to the log", tile.path().display()), None));
    }
    if !live {
        check_spare(dir)?;
    }
    Ok(VerifyReport {
        size: checkpoint.size,
        entries,
        root: checkpoint.root,
        checkpoint: String::from_utf8_lossy(&note).into_owned(),
        bytes: read_before + walked.bytes,
        unfinished: wal.unfinished,
        live,
        witnessed,
        removed: walked.removed,
        fetched: walked.fetched,
    })
}

fn read(dir: &Path, path: &Path) -> Result<Vec<u8>, VerifyError> {
    fs::read(dir.join(path)).map_err(|e| fault(format!("{} cannot be read: {e}", path.display()), None))
}

/// The segment that is to be the next: zeros, if a log that was not closed left one.
fn check_spare(dir: &Path) -> Result<(), VerifyError> {
    let path = spare_path(&dir.join("wal"));
    let bytes = match fs::read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        bytes => bytes.map_err(|e| fault(format!("{} cannot be read: {e}", path.display()), None))?,
    };
    match bytes.iter().position(|byte| *byte != 0) {
        Some(at) => {
            let name = path.strip_prefix(dir).unwrap_or(&path).display();
            Err(fault(format!("{name}, byte {at}: not the zero that was put there"), None))
        }
        None => Ok(()),
    }
}

fn is_live(dir: &Path) -> bool {
    // The lock is given back at once, so that a node can start while its log is verified.
    File::open(dir.join("lock")).is_ok_and(|f| matches!(f.try_lock_shared(), Err(TryLockError::WouldBlock)))
}
