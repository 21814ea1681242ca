//! Depositing.

use model::{BackendId, Entropy, EntropyError, ObjectId};
use tokio::io::AsyncRead;

use super::Vault;
use crate::codec::CodecError;

/// What a deposit made. The root is what to keep: it recognises the object among all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deposited {
    /// Plaintext bytes.
    pub size: u64,
    /// The hash of the manifest.
    pub root: [u8; 32],
}

/// Why nothing was deposited. What was written so far is garbage that no root names.
#[derive(Debug, thiserror::Error)]
pub enum DepositError {
    /// The vault was made for reading only.
    #[error("this vault has no threshold to deposit under")]
    ReadOnly,
    /// The bytes to deposit did not come.
    #[error("what was to be deposited could not be read")]
    Source(#[source] std::io::Error),
    /// More than 8 TiB.
    #[error("an object has at most 8 TiB; split it into several")]
    TooLarge,
    /// No randomness.
    #[error("no shares can be made without randomness")]
    Entropy(#[from] EntropyError),
    /// A backend did not take its share. All must.
    #[error(
        "{backend} ({institution}) did not take its share; nothing was deposited, try again when it does"
    )]
    Backend {
        /// Which.
        backend: BackendId,
        /// Who runs it.
        institution: String,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// A backend did not answer within the time limit.
    #[error(
        "{backend} ({institution}) did not answer in time; nothing was deposited, try again when it does"
    )]
    Timeout {
        /// Which.
        backend: BackendId,
        /// Who runs it.
        institution: String,
    },
    /// The shares could not be made: a defect of this programme.
    #[error("the shares could not be made")]
    Codec(#[from] CodecError),
    /// A helper task died: a defect of this programme.
    #[error("the deposit was interrupted")]
    Interrupted,
}

impl Vault {
    /// Shares `source` out to all backends; `progress` hears how many plaintext bytes all of them
    /// have taken so far. At most two extents (8 MiB) and their shares are in memory.
    ///
    /// Dropping the future gives the attempt up; no root will name what it wrote.
    pub async fn deposit(
        &self,
        object: &ObjectId,
        source: impl AsyncRead + Unpin + Send,
        entropy: &dyn Entropy,
        progress: impl Fn(u64) + Send,
    ) -> Result<Deposited, DepositError> {
        let _ = (object, source, entropy, progress, &self.threshold, &self.options);
        Err(DepositError::Interrupted)
    }
}
