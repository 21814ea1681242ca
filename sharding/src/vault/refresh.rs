//! Sharing an object anew, so that shares stolen before are worth nothing afterwards.
//!
//! Whoever collects shares over the years must collect `k` of one epoch. A refresh makes an epoch
//! whose shares fit to no earlier one; the earlier one stays readable until the caller has noted
//! the new root and calls [`Vault::collect`], which removes it. At no moment is the object not
//! readable under the root that the caller knows.

use std::sync::Arc;

use model::{Entropy, ObjectId};

use super::Vault;
use super::deposit::{DepositError, Deposited, FromObject, Writer};
use super::files::Listing;
use super::reader::ReadError;
use super::verify::Verification;
use crate::format::{Deposit, File, Mode, Root};

/// More refreshes than anybody makes from one root.
const LIKELY: u64 = 1 << 20;

/// What is made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Refresh {
    /// All shares, under a new master key: every byte is read, shared and written again.
    #[default]
    Everything,
    /// In mode `compact` the shares of the master key alone; the ciphertext stays. It is enough
    /// unless `k` key shares may have leaked. In mode `shamir` it is no refresh, and refused.
    Keys,
}

/// Why an object was not shared anew. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// It could not be opened.
    #[error("the object cannot be read to be shared anew")]
    Open(#[source] Box<ReadError>),
    /// Sharing only the key anew would leave all shares of the data as they are.
    #[error("in mode shamir every byte is a share: refresh everything")]
    KeysAlone,
    /// The new shares were not taken.
    #[error("the object could not be shared anew; it is as it was")]
    Deposit(#[source] Box<DepositError>),
    /// The new shares were taken and are not what was given.
    #[error("the new shares do not read back as they were written; keep to the root that you have")]
    Unsound {
        /// What was found.
        found: Box<Verification>,
    },
}

impl Vault {
    /// Shares `object` anew and reads every new share back. Returns the new root; note it durably,
    /// tell readers ([`super::ObjectReader::advance`]), and then call [`Vault::collect`] with it.
    ///
    /// `progress` hears of plaintext bytes written.
    pub async fn refresh(
        &self,
        object: &ObjectId,
        root: &[u8; 32],
        what: Refresh,
        entropy: &dyn Entropy,
        progress: impl Fn(u64) + Send,
    ) -> Result<Deposited, RefreshError> {
        let reader = self.open(object, root).await.map_err(|error| RefreshError::Open(Box::new(error)))?;
        let failed = |error| RefreshError::Deposit(Box::new(error));
        let deposited = match what {
            Refresh::Everything => {
                let (epoch, scheme) = (reader.epoch() + 1, reader.scheme());
                let depositing =
                    self.begin_epoch(object, epoch, Some(scheme), entropy).await.map_err(failed)?;
                let set = depositing.set();
                let mut source = FromObject { reader: &reader, at: 0 };
                let result = depositing.run_from(&mut source, entropy, progress).await;
                if result.is_err() {
                    self.abandon(object, set).await;
                }
                result.map_err(failed)?
            }
            Refresh::Keys if reader.scheme().mode == Mode::Compact => {
                let opened = reader.opened();
                let manifest = &opened.described.manifest;
                let epoch = self.unused_epoch(&manifest.deposit).await;
                let deposit = Deposit { epoch, ..manifest.deposit.clone() };
                let writer = Writer::new(self.pool.clone(), deposit, opened.master.clone(), entropy);
                let writer = Arc::new(writer.map_err(failed)?);
                writer.write_key().await.map_err(failed)?;
                let extents = manifest.extents.clone();
                let Root(root) = writer.write_manifest(manifest.size, extents).await.map_err(failed)?;
                progress(manifest.size);
                Deposited { size: manifest.size, root, resumed: 0, missing: Vec::new() }
            }
            Refresh::Keys => return Err(RefreshError::KeysAlone),
        };
        let found = self.verify(object, &deposited.root, |_| {}).await;
        let found = found.map_err(|error| RefreshError::Open(Box::new(error)))?;
        if found.whole() || !deposited.missing.is_empty() && found.readable() {
            Ok(deposited)
        } else {
            Err(RefreshError::Unsound { found: Box::new(found) })
        }
    }
    /// An epoch of a share set that no backend has a key file of. The next one may have been written
    /// by an earlier refresh from the same root, and its keys must not be replaced.
    async fn unused_epoch(&self, deposit: &Deposit) -> u64 {
        let listings = Listing::all(&self.pool, &deposit.object).await;
        let epochs = listings.iter().flatten().flat_map(|listing| &listing.files);
        // A liar shall not make it overflow.
        let likely = deposit.epoch..deposit.epoch.saturating_add(LIKELY);
        let epochs = epochs.filter_map(|(file, _)| match file {
            File::Key(set, epoch) if *set == deposit.set && likely.contains(epoch) => Some(*epoch),
            _ => None,
        });
        epochs.fold(deposit.epoch, u64::max).saturating_add(1)
    }
}
