use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why an event was not recorded. Whatever depended on the record must not happen.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// Writing failed, now or earlier; the log takes nothing more until it is opened again.
    #[error(
        "the audit log cannot write ({0}); nothing is permitted until the node is restarted with working storage"
    )]
    Failed(#[source] Arc<io::Error>),
    /// The log was closed.
    #[error("the audit log is closed: the node is shutting down")]
    Closed,
    /// The event is larger than an entry can be, even with its texts cut.
    #[error("the event has {0} bytes, more than an entry of the audit log can hold (65535)")]
    TooLarge(usize),
}

/// Why entries, tiles or proofs could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The operating system did not give the bytes.
    #[error("cannot read {path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What the file holds is not what was written.
    #[error("{path} is damaged: {what}; run `sekisho audit verify` and restore from a copy", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The entry is not here any more: it lies in the vault.
    #[error(
        "entry {index} was moved to the vault, as all that is missing before entry {from}; `sekisho audit fetch` brings it back"
    )]
    Removed {
        /// What was to be read.
        index: u64,
        /// From here on every entry is here.
        from: u64,
    },
    /// Nothing is there under this number.
    #[error("the log has {size} entries under its last checkpoint; {asked} lies outside")]
    Outside {
        /// What was asked for.
        asked: u64,
        /// How many there are.
        size: u64,
    },
}

/// Why a log could not be opened for writing.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operating system refused something.
    #[error("cannot {doing} {path}: {source}", path = path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process has it open.
    #[error("the audit log in {path} is open in another process; stop that one first", path = .0.display())]
    Busy(PathBuf),
    /// It belongs to another key or origin.
    #[error("the audit log in {path} belongs to {found}, not to {expected}; use the key it was begun with, or another folder", path = path.display())]
    OtherLog {
        /// The folder.
        path: PathBuf,
        /// The key it names.
        found: String,
        /// The key it was to be opened with.
        expected: String,
    },
    /// Entries are missing or changed. Going on would hide it.
    #[error(
        "the audit log is not what its last checkpoint promised: {what}. Nothing was changed; keep the folder as evidence, run `sekisho audit verify` on it, and restore the log from a copy"
    )]
    Inconsistent {
        /// What does not fit, naming the file.
        what: String,
    },
    /// A file could not be read back.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What is wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct VerifyError {
    /// The sentence for a person; it names the file.
    pub what: String,
    /// The first entry concerned, where one can be named.
    pub index: Option<u64>,
}

pub(crate) fn fault(what: impl Into<String>, index: Option<u64>) -> VerifyError {
    VerifyError { what: what.into(), index }
}
