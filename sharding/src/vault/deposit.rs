//! Depositing: extent by extent, each to all backends, the manifest last.
//!
//! A seed makes the random shares of one extent of one attempt and is then forgotten. Nothing is
//! resumed: an attempt that fails or dies is begun anew under another attempt's name, so that no
//! seed and no key ever meets two plaintexts.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::try_join_all;
use model::{BackendId, Entropy, EntropyError, ObjectId};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::Vault;
use super::pool::{Pool, PutError};
use crate::codec::{CodecError, RandomStream, Splitter, Threshold};
use crate::format::{
    AttemptId, AttemptKeys, BLOCK, Deposit, EXTENT, Header, KeyShare, Kind, MAX_EXTENTS, Manifest, MasterKey,
    Root, TagTable, extent_name, manifest_name,
};

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
        let threshold = self.threshold.ok_or(DepositError::ReadOnly)?;
        let attempt = Attempt::begin(self.pool.clone(), object, threshold, entropy)?;
        let mut written = 0;
        let result = attempt.run(source, entropy, progress, &mut written).await;
        if result.is_err() {
            let patience = 2 * self.pool.options.read_timeout;
            let _ = tokio::time::timeout(patience, attempt.forget(written)).await;
        }
        result
    }
}

/// What all extents of one attempt need.
struct Attempt {
    pool: Arc<Pool>,
    deposit: Deposit,
    splitter: Splitter,
    keys: Arc<AttemptKeys>,
    key_shares: Vec<KeyShare>,
}

/// What one extent came to: its digest for the manifest, and its share for every backend.
struct Shared {
    digest: [u8; 32],
    table: Bytes,
    shares: Vec<Bytes>,
    len: u64,
}

impl Attempt {
    fn begin(
        pool: Arc<Pool>,
        object: &ObjectId,
        threshold: Threshold,
        entropy: &dyn Entropy,
    ) -> Result<Attempt, DepositError> {
        let attempt = AttemptId::random(entropy)?;
        let deposit = Deposit { object: object.clone(), epoch: 1, attempt, threshold };
        let splitter = Splitter::new(threshold);
        let master = MasterKey::random(entropy)?;
        let key_shares = master.split(&splitter, &mut RandomStream::fresh(entropy)?)?;
        let keys = Arc::new(master.attempt_keys(&deposit));
        Ok(Attempt { pool, deposit, splitter, keys, key_shares })
    }

    /// While the backends take one extent, the next is read and shared.
    async fn run(
        &self,
        mut source: impl AsyncRead + Unpin + Send,
        entropy: &dyn Entropy,
        progress: impl Fn(u64) + Send,
        written: &mut u64,
    ) -> Result<Deposited, DepositError> {
        let (mut size, mut acknowledged, mut extents) = (0, 0, Vec::new());
        let mut under_way: Option<(u64, Writes)> = None;
        loop {
            let plaintext = read_extent(&mut source).await?;
            let shared = if plaintext.is_empty() {
                None
            } else if extents.len() as u64 == MAX_EXTENTS {
                return Err(DepositError::TooLarge);
            } else {
                Some(self.share(extents.len() as u64, plaintext, RandomStream::fresh(entropy)?).await?)
            };
            if let Some((len, writes)) = under_way.take() {
                writes.acknowledged().await?;
                acknowledged += len;
                progress(acknowledged);
            }
            let Some(shared) = shared else { break };
            size += shared.len;
            *written += 1;
            under_way = Some((shared.len, self.write(extents.len() as u64, &shared)));
            extents.push(shared.digest);
        }
        let root = self.write_manifest(size, extents).await?;
        Ok(Deposited { size, root: root.0 })
    }

    /// Splits and tags an extent, away from the tasks that wait for the network.
    async fn share(
        &self,
        extent: u64,
        plaintext: Zeroizing<Vec<u8>>,
        mut random: RandomStream,
    ) -> Result<Shared, DepositError> {
        let (splitter, keys) = (self.splitter.clone(), self.keys.clone());
        let work =
            tokio::task::spawn_blocking(move || share(&splitter, &keys, extent, &plaintext, &mut random));
        work.await.map_err(|_| DepositError::Interrupted)?.map_err(DepositError::Codec)
    }

    fn write(&self, extent: u64, shared: &Shared) -> Writes {
        let name = extent_name(&self.deposit.object, self.deposit.attempt, extent);
        let kind = Kind::Extent { extent, len: shared.len };
        self.write_everywhere(&name, kind, |place| vec![shared.shares[place].clone(), shared.table.clone()])
    }

    async fn write_manifest(&self, size: u64, extents: Vec<[u8; 32]>) -> Result<Root, DepositError> {
        let attempt = self.deposit.attempt;
        let commitments = self.deposit.threshold.shares().zip(&self.key_shares);
        let commitments = commitments.map(|(x, share)| share.commitment(x, attempt)).collect();
        let manifest = Manifest { deposit: self.deposit.clone(), size, commitments, extents };
        let bytes = Bytes::from(manifest.encode());
        let root = Root::of(&bytes);
        let name = manifest_name(&self.deposit.object, &root);
        let kind = Kind::Manifest { len: bytes.len() as u64 };
        let writes = self.write_everywhere(&name, kind, |_| vec![bytes.clone()]);
        if let Err(error) = writes.acknowledged().await {
            // Some may have taken it. Nobody keeps this root, but a reader without one would find it.
            self.forget_everywhere(&name).await;
            return Err(error);
        }
        Ok(root)
    }

    fn write_everywhere(&self, name: &str, kind: Kind, parts: impl Fn(usize) -> Vec<Bytes>) -> Writes {
        let shares = self.deposit.threshold.shares().zip(&self.key_shares);
        Writes(
            shares
                .map(|(share, key_share)| {
                    let (deposit, key_share) = (self.deposit.clone(), key_share.clone());
                    let header = Header { deposit, share, kind, key_share }.encode();
                    let parts =
                        [vec![Bytes::from_owner(Zeroizing::new(header))], parts(share.place())].concat();
                    tokio::spawn(put(self.pool.clone(), share.place(), name.to_owned(), parts))
                })
                .collect(),
        )
    }

    /// Takes back what no root will ever name. Best effort: what stays is unreadable garbage.
    async fn forget(&self, extents: u64) {
        for extent in 0..extents {
            self.forget_everywhere(&extent_name(&self.deposit.object, self.deposit.attempt, extent)).await;
        }
    }

    async fn forget_everywhere(&self, name: &str) {
        let forget = (0..self.pool.remotes.len()).map(|remote| self.pool.forget(remote, name));
        futures::future::join_all(forget).await;
    }
}

async fn put(pool: Arc<Pool>, remote: usize, name: String, parts: Vec<Bytes>) -> Result<(), DepositError> {
    pool.put(remote, &name, parts).await.map_err(|error| {
        let backend = &pool.remotes[remote].backend;
        let (backend, institution) = (backend.id.clone(), backend.institution.clone());
        match error {
            PutError::Refused(source) => DepositError::Backend { backend, institution, source },
            PutError::Timeout => DepositError::Timeout { backend, institution },
        }
    })
}

/// Writes of one file to all backends; dropped, they are given up.
struct Writes(Vec<JoinHandle<Result<(), DepositError>>>);

impl Writes {
    async fn acknowledged(mut self) -> Result<(), DepositError> {
        let all = self.0.iter_mut().map(async |write| write.await.unwrap_or(Err(DepositError::Interrupted)));
        try_join_all(all).await.map(drop)
    }
}

impl Drop for Writes {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// Up to 4 MiB; fewer only at the end.
async fn read_extent(source: &mut (impl AsyncRead + Unpin)) -> Result<Zeroizing<Vec<u8>>, DepositError> {
    let mut plaintext = Zeroizing::new(vec![0; EXTENT as usize]);
    let mut filled = 0;
    while filled < plaintext.len() {
        match source.read(&mut plaintext[filled..]).await.map_err(DepositError::Source)? {
            0 => break,
            count => filled += count,
        }
    }
    plaintext.truncate(filled);
    Ok(plaintext)
}

fn share(
    splitter: &Splitter,
    keys: &AttemptKeys,
    extent: u64,
    plaintext: &[u8],
    random: &mut RandomStream,
) -> Result<Shared, CodecError> {
    let threshold = splitter.threshold();
    let mut shares = vec![Zeroizing::new(vec![0; plaintext.len()]); threshold.n()];
    let mut tags = Vec::new();
    // Block by block, so that what was split is still in the cache when it is tagged.
    for (at, block) in plaintext.chunks(BLOCK as usize).enumerate() {
        let number = extent * (EXTENT / BLOCK) + at as u64;
        let range = at * BLOCK as usize..at * BLOCK as usize + block.len();
        let mut slices: Vec<&mut [u8]> = shares.iter_mut().map(|share| &mut share[range.clone()]).collect();
        splitter.split(block, random, &mut slices)?;
        tags.push(keys.plain_tag(number, block));
        tags.extend(threshold.shares().zip(&slices).map(|(x, share)| keys.share_tag(x, number, share)));
    }
    let table = TagTable::from_tags(threshold, &tags);
    let len = plaintext.len() as u64;
    Ok(Shared {
        digest: table.digest(extent, len),
        table: Bytes::copy_from_slice(table.as_bytes()),
        shares: shares.into_iter().map(Bytes::from_owner).collect(),
        len,
    })
}
