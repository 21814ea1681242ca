//! What the write-ahead log says of the entries that it still has.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{VerifyError, fault};
use crate::tree::{Hash, leaf_hash};
use crate::wal::{BatchFault, Segment, Tail, segments_in};
use crate::{Checkpoint, ReadError};

/// How often the write-ahead log of a live log is listed anew before a missing file counts.
const LISTINGS: u32 = 100;

/// The leaf hashes of what the write-ahead log still has.
pub(super) struct WalHashes {
    first: u64,
    hashes: Vec<Hash>,
    /// How many bytes were read.
    pub(super) bytes: u64,
    /// Bytes at the end of a write that was not completed.
    pub(super) unfinished: u64,
}

/// Why the write-ahead log could not be read.
enum WalFault {
    /// A file of the listing was not there any more.
    Gone(VerifyError),
    Found(VerifyError),
}

impl From<VerifyError> for WalFault {
    fn from(fault: VerifyError) -> WalFault {
        WalFault::Found(fault)
    }
}

impl WalHashes {
    pub(super) fn read(dir: &Path, checkpoint: &Checkpoint, live: bool) -> Result<WalHashes, VerifyError> {
        let mut listing = 1;
        loop {
            let paths = segments_in(&dir.join("wal"))
                .map_err(|e| fault(format!("wal cannot be listed: {e}"), None))?;
            match WalHashes::read_listed(dir, &paths, checkpoint, live) {
                // A live log drops its oldest files once bundles hold what is in them.
                Err(WalFault::Gone(_)) if live && listing < LISTINGS => listing += 1,
                Err(WalFault::Gone(fault) | WalFault::Found(fault)) => return Err(fault),
                Ok(wal) => return Ok(wal),
            }
        }
    }

    fn read_listed(
        dir: &Path,
        paths: &[PathBuf],
        checkpoint: &Checkpoint,
        live: bool,
    ) -> Result<WalHashes, WalFault> {
        let mut wal = WalHashes { first: 0, hashes: Vec::new(), bytes: 0, unfinished: 0 };
        for (i, path) in paths.iter().enumerate() {
            let name = path.strip_prefix(dir).unwrap_or(path).display();
            let hashes = &mut wal.hashes;
            let (segment, tail) = Segment::scan::<ReadError>(path, |_, entry| {
                hashes.push(leaf_hash(entry));
                Ok(())
            })
            .map_err(|e| {
                let gone =
                    matches!(&e, ReadError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound);
                let fault = fault(e.to_string(), None);
                if gone { WalFault::Gone(fault) } else { WalFault::Found(fault) }
            })?;
            if i == 0 {
                wal.first = segment.first;
            }
            if wal.first + wal.hashes.len() as u64 != segment.next {
                let what = format!("entries are missing between {name} and the file before it");
                return Err(fault(what, Some(segment.first)).into());
            }
            wal.bytes += segment.len;
            match tail {
                Tail::Clean => {}
                // A write that was cut short began with a batch's first bytes; they lie in one sector.
                // Anything else behind the last batch nobody wrote, unless it is being written now.
                Tail::Torn(cause)
                    if i + 1 == paths.len()
                        && segment.next >= checkpoint.size
                        && (live || matches!(cause, BatchFault::Short | BatchFault::Check)) =>
                {
                    let len = fs::metadata(path).map_or(segment.len, |m| m.len());
                    wal.unfinished = len.saturating_sub(segment.len);
                }
                Tail::Torn(cause) | Tail::Damaged(cause) => {
                    let what = format!("{name}, byte {}: {cause}", segment.len);
                    return Err(fault(what, Some(segment.next)).into());
                }
            }
        }
        if !live && wal.end() < checkpoint.size {
            let (end, size) = (wal.end(), checkpoint.size);
            let what = format!("wal ends after {end} entries, the checkpoint covers {size}");
            return Err(fault(what, Some(end)).into());
        }
        Ok(wal)
    }

    fn end(&self) -> u64 {
        self.first + self.hashes.len() as u64
    }

    pub(super) fn at(&self, index: u64) -> Option<&Hash> {
        self.hashes.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }
}
