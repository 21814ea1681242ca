//! Reading: the manifest that the root names, then the blocks that a range touches.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use model::ObjectId;
use zeroize::{Zeroize, Zeroizing};

use super::pool::{Failure, Pool};
use super::{Fault, Vault};
use crate::codec::{Combiner, ShareIndex, Threshold};
use crate::format::{
    AttemptKeys, BLOCK, EXTENT, HEADER, Header, KeyShare, Kind, Manifest, MasterKey, Root, TagTable,
    extent_len, extent_name, manifest_name,
};

/// The most bytes one read returns.
pub const MAX_READ: usize = 64 << 20;
/// Extents that one read works on at once.
const EXTENTS_AT_ONCE: usize = 2;
/// Tag tables that a reader remembers; one has 16·(n+1) bytes per block, 6 KiB for five shares.
const TABLES: usize = 64;

/// Why a read returned nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No backend has the manifest that the root names.
    #[error(
        "no backend that answered holds {object} with that root; check the root, or try again when more answer{}",
        listed(faults)
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
        listed(faults)
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

/// An object whose manifest matched its root. Clones share what they learn.
#[derive(Clone)]
pub struct ObjectReader(Arc<Opened>);

struct Opened {
    pool: Arc<Pool>,
    manifest: Arc<Described>,
    keys: AttemptKeys,
    /// Which share each backend holds, once its header was checked.
    shares: Mutex<Vec<Option<ShareIndex>>>,
    tables: Mutex<VecDeque<(u64, Arc<TagTable>)>>,
}

/// A manifest, where it lies and how long it is.
pub(super) struct Described {
    pub(super) manifest: Manifest,
    pub(super) root: Root,
    pub(super) len: u64,
}

struct Share {
    remote: usize,
    x: ShareIndex,
    bytes: Bytes,
}

impl Vault {
    /// Finds the manifest that `root` names and enough key shares to check blocks.
    pub async fn open(&self, object: &ObjectId, root: &[u8; 32]) -> Result<ObjectReader, ReadError> {
        let pool = self.pool.clone();
        let described = Arc::new(find_manifest(&pool, object, Root(*root)).await?);
        let threshold = described.manifest.deposit.threshold;

        let mut asking = pool.asking(pool.order(), {
            let (pool, described) = (pool.clone(), described.clone());
            move |remote| key_share(pool.clone(), described.clone(), remote)
        });
        let (mut found, mut shares, mut faults) = (Vec::new(), vec![None; pool.remotes.len()], Vec::new());
        while found.len() < threshold.k() {
            match asking.next(threshold.k() - found.len()).await {
                Some(Ok((remote, (x, share)))) => {
                    shares[remote] = Some(x);
                    if found.iter().all(|(known, _)| *known != x) {
                        found.push((x, share));
                    }
                }
                Some(Err(fault)) => faults.push(fault),
                None => {
                    let (needed, good) = (threshold.k(), found.len());
                    return Err(ReadError::TooFew { object: object.clone(), needed, good, faults });
                }
            }
        }
        // Number and order of the shares were seen to above.
        let master = MasterKey::combine(threshold, &found)
            .map_err(|_| ReadError::Forged { object: object.clone(), block: 0 })?;
        let keys = master.attempt_keys(&described.manifest.deposit);
        let (shares, tables) = (Mutex::new(shares), Mutex::default());
        Ok(ObjectReader(Arc::new(Opened { pool, manifest: described, keys, shares, tables })))
    }
}

/// Any backend will do: the manifest is the same everywhere, and the root recognises it.
async fn find_manifest(pool: &Arc<Pool>, object: &ObjectId, root: Root) -> Result<Described, ReadError> {
    let mut asking = pool.asking(pool.order(), {
        let (pool, object) = (pool.clone(), object.clone());
        move |remote| {
            let (pool, object) = (pool.clone(), object.clone());
            async move {
                let found = fetch_manifest(&pool, remote, &object, root).await;
                found.map_err(|failure| pool.report(remote, &object, None, failure))
            }
        }
    });
    let mut faults = Vec::new();
    loop {
        match asking.next(1).await {
            Some(Ok((_, found))) => return Ok(found),
            Some(Err(fault)) => faults.push(fault),
            None => return Err(ReadError::NoManifest { object: object.clone(), faults }),
        }
    }
}

async fn fetch_manifest(
    pool: &Pool,
    remote: usize,
    object: &ObjectId,
    root: Root,
) -> Result<Described, Failure> {
    let bytes =
        pool.whole(remote, &manifest_name(object, &root), (HEADER + Manifest::MAX_LEN) as u64).await?;
    check_manifest(&bytes, object, root)
}

/// The manifest behind its header, if it is the one that `root` names.
pub(super) fn check_manifest(file: &[u8], object: &ObjectId, root: Root) -> Result<Described, Failure> {
    let bytes = file.get(HEADER..).ok_or_else(|| Failure::corrupt("the manifest is cut short"))?;
    if Root::of(bytes) != root {
        return Err(Failure::corrupt("the manifest is not the one that the root names"));
    }
    let manifest = Manifest::parse(bytes).map_err(Failure::corrupt)?;
    if manifest.deposit.object != *object {
        return Err(Failure::corrupt(format!("the root names {}", manifest.deposit.object)));
    }
    Ok(Described { manifest, root, len: bytes.len() as u64 })
}

/// The number and the key share of a backend, from the header of its manifest.
async fn key_share(
    pool: Arc<Pool>,
    described: Arc<Described>,
    remote: usize,
) -> Result<(ShareIndex, KeyShare), Fault> {
    let object = &described.manifest.deposit.object;
    let header = pool.range(remote, &manifest_name(object, &described.root), 0..HEADER as u64).await;
    header
        .and_then(|bytes| described.check_header(&bytes, Kind::Manifest { len: described.len }))
        .map_err(|failure| pool.report(remote, object, None, failure))
}

impl Described {
    /// Everything in a header but two fields is known from the manifest, and of those the manifest
    /// has a commitment.
    pub(super) fn check_header(&self, bytes: &[u8], kind: Kind) -> Result<(ShareIndex, KeyShare), Failure> {
        let Header { deposit, share, kind: said, key_share } =
            Header::parse(bytes).map_err(Failure::corrupt)?;
        if deposit != self.manifest.deposit || said != kind {
            return Err(Failure::corrupt("the header contradicts the manifest"));
        }
        let commitment = key_share.commitment(share, deposit.attempt);
        if self.manifest.commitments.get(share.place()) != Some(&commitment) {
            return Err(Failure::corrupt("the key share is not the one that was deposited"));
        }
        Ok((share, key_share))
    }
}

impl ObjectReader {
    /// Plaintext bytes.
    pub fn size(&self) -> u64 {
        self.0.manifest.manifest.size
    }

    /// How the object is shared.
    pub fn threshold(&self) -> Threshold {
        self.0.manifest.manifest.deposit.threshold
    }

    /// The bytes from `offset` on, `len` of them or as many as there are before the end.
    pub async fn read_at(&self, offset: u64, len: usize) -> Result<Zeroizing<Vec<u8>>, ReadError> {
        let end = self.size().min(offset.saturating_add(len as u64));
        if end <= offset {
            return Ok(Zeroizing::default());
        }
        let wanted = usize::try_from(end - offset).unwrap_or(usize::MAX);
        if wanted > MAX_READ {
            return Err(ReadError::TooLong);
        }
        let mut out = Zeroizing::new(Vec::with_capacity(wanted));
        let mut parts = stream::iter(offset / EXTENT..=(end - 1) / EXTENT)
            .map(|extent| {
                let begin = extent * EXTENT;
                self.0.part(extent, offset.max(begin) - begin, end.min(begin + EXTENT) - begin)
            })
            .buffered(EXTENTS_AT_ONCE);
        while let Some((skip, part)) = parts.try_next().await? {
            let take = (part.len() - skip).min(wanted - out.len());
            out.extend_from_slice(&part[skip..skip + take]);
        }
        Ok(out)
    }

    pub(super) fn described(&self) -> &Arc<Described> {
        &self.0.manifest
    }

    pub(super) fn keys(&self) -> &AttemptKeys {
        &self.0.keys
    }
}

impl Opened {
    /// The blocks of an extent that bytes `from..to` of it touch, and how many bytes precede `from`.
    async fn part(&self, extent: u64, from: u64, to: u64) -> Result<(usize, Zeroizing<Vec<u8>>), ReadError> {
        let len = extent_len(self.manifest.manifest.size, extent);
        let begin = from / BLOCK * BLOCK;
        let end = to.next_multiple_of(BLOCK).min(len);
        let table = self.table(extent, len).await?;
        let blocks = self.blocks(extent, begin, end, &table).await?;
        Ok(((from - begin) as usize, blocks))
    }

    /// The tag table of an extent, from memory or from any backend.
    async fn table(&self, extent: u64, len: u64) -> Result<Arc<TagTable>, ReadError> {
        let known = |tables: &VecDeque<(u64, Arc<TagTable>)>| {
            tables.iter().find(|(of, _)| *of == extent).map(|(_, table)| table.clone())
        };
        if let Some(table) = known(&self.tables.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(table);
        }
        let deposit = &self.manifest.manifest.deposit;
        let mut asking = self.pool.asking(self.pool.order(), {
            let (pool, described) = (self.pool.clone(), self.manifest.clone());
            move |remote| {
                let (pool, described) = (pool.clone(), described.clone());
                async move {
                    let object = &described.manifest.deposit.object;
                    let table = fetch_table(&pool, remote, &described, extent, len).await;
                    let block = Some(extent * (EXTENT / BLOCK));
                    table.map_err(|failure| pool.report(remote, object, block, failure))
                }
            }
        });
        let mut faults = Vec::new();
        loop {
            match asking.next(1).await {
                Some(Ok((_, table))) => {
                    let table = Arc::new(table);
                    let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
                    if known(&tables).is_none() {
                        tables.push_front((extent, table.clone()));
                        tables.truncate(TABLES);
                    }
                    return Ok(table);
                }
                Some(Err(fault)) => faults.push(fault),
                None => {
                    let (object, needed) = (deposit.object.clone(), deposit.threshold.k());
                    return Err(ReadError::TooFew { object, needed, good: 0, faults });
                }
            }
        }
    }

    /// Plaintext bytes `begin..end` of an extent, which are whole blocks.
    async fn blocks(
        &self,
        extent: u64,
        begin: u64,
        end: u64,
        table: &TagTable,
    ) -> Result<Zeroizing<Vec<u8>>, ReadError> {
        let deposit = &self.manifest.manifest.deposit;
        let (object, threshold) = (&deposit.object, deposit.threshold);
        let name = extent_name(object, deposit.attempt, extent);
        let first_block = extent * (EXTENT / BLOCK) + begin / BLOCK;
        let known = self.shares.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut asking = self.pool.asking(self.pool.order(), {
            let (pool, described) = (self.pool.clone(), self.manifest.clone());
            move |remote| {
                let (pool, described, name, x) =
                    (pool.clone(), described.clone(), name.clone(), known[remote]);
                async move {
                    let x = match x {
                        Some(x) => x,
                        None => key_share(pool.clone(), described.clone(), remote).await?.0,
                    };
                    let range = HEADER as u64 + begin..HEADER as u64 + end;
                    let bytes = pool.range(remote, &name, range).await.map_err(|failure| {
                        pool.report(remote, &described.manifest.deposit.object, Some(first_block), failure)
                    })?;
                    Ok(Share { remote, x, bytes })
                }
            }
        });

        let (mut shares, mut faults) = (Vec::<Share>::new(), Vec::new());
        loop {
            while shares.len() < threshold.k() {
                match asking.next(threshold.k() - shares.len()).await {
                    Some(Ok((remote, share))) => {
                        self.shares.lock().unwrap_or_else(PoisonError::into_inner)[remote] = Some(share.x);
                        if shares.iter().all(|known| known.x != share.x) {
                            shares.push(share);
                        }
                    }
                    Some(Err(fault)) => faults.push(fault),
                    None => {
                        let (needed, good) = (threshold.k(), shares.len());
                        return Err(ReadError::TooFew { object: object.clone(), needed, good, faults });
                    }
                }
            }
            let bad = match self.rebuild(&shares, first_block, table) {
                Ok(plaintext) => {
                    shares.into_iter().for_each(wipe);
                    return Ok(plaintext);
                }
                Err(bad) => bad,
            };
            // Something is wrong from block `bad` on: whoever's share lacks its tag lied.
            let before = shares.len();
            shares.retain(|share| match self.first_lie(share, first_block, table) {
                Some(block) => {
                    let failure = Failure::corrupt(format!("share {}", share.x));
                    faults.push(self.pool.report(share.remote, object, Some(block), failure));
                    false
                }
                None => true,
            });
            if shares.len() == before {
                return Err(ReadError::Forged { object: object.clone(), block: bad });
            }
        }
    }

    /// The plaintext that `k` shares make, or the first block that does not bear its tag.
    fn rebuild(
        &self,
        shares: &[Share],
        first_block: u64,
        table: &TagTable,
    ) -> Result<Zeroizing<Vec<u8>>, u64> {
        let threshold = self.manifest.manifest.deposit.threshold;
        let points: Vec<ShareIndex> = shares.iter().map(|share| share.x).collect();
        let slices: Vec<&[u8]> = shares.iter().map(|share| share.bytes.as_ref()).collect();
        let mut plaintext = Zeroizing::new(vec![0; slices.first().map_or(0, |share| share.len())]);
        Combiner::new(threshold, &points)
            .and_then(|combiner| combiner.combine(&slices, &mut plaintext))
            .map_err(|_| first_block)?;
        for (block, bytes) in (first_block..).zip(plaintext.chunks(BLOCK as usize)) {
            let tag = table.plain((block % (EXTENT / BLOCK)) as usize);
            if !tag.is_some_and(|tag| self.keys.plain_matches(block, bytes, tag)) {
                return Err(block);
            }
        }
        Ok(plaintext)
    }

    /// The first block of a share that does not bear its tag.
    fn first_lie(&self, share: &Share, first_block: u64, table: &TagTable) -> Option<u64> {
        (first_block..).zip(share.bytes.chunks(BLOCK as usize)).find_map(|(block, bytes)| {
            let tag = table.share((block % (EXTENT / BLOCK)) as usize, share.x);
            let honest = tag.is_some_and(|tag| self.keys.share_matches(share.x, block, bytes, tag));
            (!honest).then_some(block)
        })
    }
}

async fn fetch_table(
    pool: &Pool,
    remote: usize,
    described: &Described,
    extent: u64,
    len: u64,
) -> Result<TagTable, Failure> {
    let Manifest { deposit, extents, .. } = &described.manifest;
    let begin = HEADER as u64 + len;
    let end = begin + TagTable::encoded_len(deposit.threshold, len) as u64;
    let bytes =
        pool.range(remote, &extent_name(&deposit.object, deposit.attempt, extent), begin..end).await?;
    let digest = extents.get(extent as usize).ok_or_else(|| Failure::corrupt("no such extent"))?;
    TagTable::parse(deposit.threshold, extent, len, &bytes, digest).map_err(Failure::corrupt)
}

/// Shares together are the plaintext: none outlives its use, where the buffer is ours alone.
fn wipe(share: Share) {
    if let Ok(mut bytes) = share.bytes.try_into_mut() {
        bytes.zeroize();
    }
}
