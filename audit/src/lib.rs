//! What happened: typed events, and the log that keeps them so that nobody can change them later
//! without being found out.
//!
//! [`Log::append`] answers once the entry is on disk; whatever waits at the same time shares one
//! fsync. Entries lie first in a write-ahead log (`wal/`), and within a second also under `tile/`, in
//! the layout of C2SP tlog-tiles: bundles of entries, and the hashes of the Merkle tree of RFC 6962
//! over them. A signed checkpoint (a C2SP signed note, `checkpoint`) then commits to their number and
//! to the root. From there on every entry can be proven to anybody with the public key (`key.pub`)
//! alone, and [`verify_dir`] finds any changed byte.
//!
//! It fails closed. When a write, or the publishing behind it, has failed, nothing is taken any more:
//! without a record there must be no permit. A reserve on disk, taken in advance, still holds that the
//! log has stopped, and what ends then. Opened again, the log must hold at least what the last
//! checkpoint promised.
//!
//! What this does not defend against: whoever holds the signing key can write another history, and
//! who can write to the folder can set it back to an older copy of itself. Both show only against a
//! checkpoint kept elsewhere: by a collector, or by a witness (the room `witness`), whose signature is a
//! [`Cosignature`]. Entries of
//! the last second before a loss of power stand in no checkpoint yet: damage to the very last batch
//! among them cannot be told from a write that was never completed.

mod cosign;
mod disk;
mod entry;
mod error;
mod event;
mod integrator;
mod local;
mod locks;
mod log;
mod note;
mod ocsf;
mod proof;
mod reader;
mod recover;
mod removal;
mod segment;
mod shared;
mod space;
mod sweep;
mod tiles;
mod tree;
mod verify;
mod wal;
mod witnessed;
mod writer;

pub use cosign::{Cosignature, WitnessKey, WitnessPublicKey};
pub use entry::{export, severity_of, uid, write_canonical};

pub use error::{AppendError, OpenError, ReadError, VerifyError};
pub use event::{
    AuthFault, CertificateKind, Change, ChannelKind, DecisionRecord, Direction, Door, EndCause, Event,
    EventKind, FindingLevel, FindingReaction, KeptKind, ReadFaultKind, RecordKind, RecordingMode,
    RecordingOutcome, SessionExit, TransferOutcome,
};
pub use log::{Index, Log};
pub use note::{Checkpoint, KeyError, LogKey, LogPublicKey, NoteError};
pub use ocsf::{Sensitivity, event_fields, event_kinds, sensitivity};
pub use proof::{Proof, ProofError};
pub use reader::Reader;
pub use segment::{
    PackError, SegmentBundle, SegmentFault, SegmentHeader, SegmentRange, SegmentReader, prepare_folder,
    write_bundle,
};
pub use tiles::{BundleFault, TilePath, parse_bundle};
pub use tree::{Hash, leaf_hash, verify_consistency, verify_inclusion};
pub use verify::{VerifyReport, verify_dir, verify_with, verify_witnessed};
pub use wal::{Batch, BatchFault, parse_batch};
pub use witnessed::Witnessed;

/// How a log behaves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// How long entries may wait for a checkpoint over them.
    pub checkpoint_every: std::time::Duration,
    /// When a file of the write-ahead log is full, in bytes.
    pub segment_bytes: u64,
    /// How many bytes each of them has beyond that, for the last records of a log that must stop.
    pub reserve_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            checkpoint_every: std::time::Duration::from_millis(500),
            segment_bytes: 8 << 20,
            reserve_bytes: 1 << 20,
        }
    }
}
