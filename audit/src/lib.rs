//! What happened: typed events, and the log that keeps them so that nobody can change them later
//! without being found out.

mod disk;
mod entry;
mod error;
mod event;
mod integrator;
mod log;
mod note;
mod ocsf;
mod proof;
mod reader;
mod recover;
mod shared;
mod tiles;
mod tree;
mod verify;
mod wal;
mod writer;

pub use entry::{export, severity_of, uid, write_canonical};

pub use error::{AppendError, OpenError, ReadError};
pub use event::{
    AuthFault, CertificateKind, Change, ChannelKind, DecisionRecord, Door, EndCause, Event, EventKind,
    ReadFaultKind, RecordKind, SessionExit,
};
pub use log::{Index, Log};
pub use note::{Checkpoint, KeyError, LogKey, LogPublicKey, NoteError};
pub use proof::{Proof, ProofError};
pub use reader::Reader;
pub use tiles::{BundleFault, parse_bundle};
pub use tree::{Hash, leaf_hash, verify_consistency, verify_inclusion};
pub use verify::{VerifyError, VerifyReport, verify_dir};
pub use wal::{Batch, BatchFault, parse_batch};

/// How a log behaves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// How long entries may wait for a checkpoint over them.
    pub checkpoint_every: std::time::Duration,
    /// When a file of the write-ahead log is full, in bytes.
    pub segment_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { checkpoint_every: std::time::Duration::from_millis(500), segment_bytes: 4 << 20 }
    }
}
