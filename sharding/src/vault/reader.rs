//! Reading: the manifest that the root names, then the blocks that a range touches.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use model::ObjectId;

use super::pool::{Failure, Pool};
use super::{Fault, Vault, Wiped};
use crate::codec::ShareIndex;
use crate::format::{
    BLOCK, Deposit, EXTENT, ExtentEntry, ExtentKeys, File, HEADER, Header, KeyFile, KeyShare, Kind, Manifest,
    MasterKey, Root, Scheme, SetId, TagTable, extent_len,
};

/// The most bytes one read returns.
pub const MAX_READ: usize = 64 << 20;
/// Extents that one read works on at once.
const EXTENTS_AT_ONCE: usize = 2;
/// Extents that a stream fetches before they are asked for.
const EXTENTS_AHEAD: usize = 4;
/// Bytes of tag tables that a reader remembers, with the keys of their extents: those of 5 GiB of
/// plaintext in five shares. A table has 16·(n+1) bytes per block, 6 KiB for five shares.
const TABLES_KNOWN: usize = 8 << 20;

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
    /// A helper task died: a defect of this programme.
    #[error("the read was interrupted")]
    Interrupted,
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
pub struct ObjectReader(Arc<Mutex<Arc<Opened>>>);

pub(super) struct Opened {
    pub(super) pool: Arc<Pool>,
    pub(super) described: Arc<Described>,
    pub(super) master: MasterKey,
    /// Which share each backend holds, once its key file was checked.
    pub(super) shares: Mutex<Vec<Option<ShareIndex>>>,
    extents: Mutex<Extents>,
}

/// A manifest, where it lies and how long it is.
pub(super) struct Described {
    pub(super) manifest: Manifest,
    pub(super) root: Root,
    pub(super) len: u64,
}

/// What it takes to read from an extent.
pub(super) struct Extent {
    pub(super) number: u64,
    pub(super) entry: ExtentEntry,
    /// Bytes of its plaintext.
    pub(super) len: u64,
    pub(super) keys: ExtentKeys,
    pub(super) table: TagTable,
}

/// Extents that are remembered, the oldest of which are forgotten first.
#[derive(Default)]
struct Extents {
    known: HashMap<u64, Arc<Extent>>,
    oldest: VecDeque<u64>,
    bytes: usize,
}

impl Extents {
    fn get(&self, number: u64) -> Option<Arc<Extent>> {
        self.known.get(&number).cloned()
    }

    fn keep(&mut self, extent: &Arc<Extent>) {
        if self.known.insert(extent.number, extent.clone()).is_some() {
            return;
        }
        self.oldest.push_back(extent.number);
        self.bytes += extent.table.as_bytes().len();
        while self.bytes > TABLES_KNOWN
            && let Some(oldest) = self.oldest.pop_front()
        {
            let forgotten = self.known.remove(&oldest);
            self.bytes -= forgotten.map_or(0, |extent| extent.table.as_bytes().len());
        }
    }
}

impl Vault {
    /// Finds the manifest that `root` names and enough key shares to check blocks.
    pub async fn open(&self, object: &ObjectId, root: &[u8; 32]) -> Result<ObjectReader, ReadError> {
        let pool = self.pool.clone();
        let described = Arc::new(find_manifest(&pool, object, Root(*root)).await?);
        let threshold = described.deposit().scheme.threshold;

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
        let (shares, extents) = (Mutex::new(shares), Mutex::default());
        let opened = Opened { pool, described, master, shares, extents };
        Ok(ObjectReader(Arc::new(Mutex::new(Arc::new(opened)))))
    }
}

/// Any backend will do: the manifest is the same everywhere, and the root recognises it.
pub(super) async fn find_manifest(
    pool: &Arc<Pool>,
    object: &ObjectId,
    root: Root,
) -> Result<Described, ReadError> {
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
    let name = File::Manifest(root).name(object);
    let bytes = pool.whole(remote, &name, (HEADER + Manifest::MAX_LEN) as u64).await?;
    check_manifest(&bytes, object, root)
}

/// The manifest behind its header, if it is the one that `root` names.
pub(super) fn check_manifest(file: &[u8], object: &ObjectId, root: Root) -> Result<Described, Failure> {
    let bytes = file.get(HEADER..).ok_or_else(|| Failure::corrupt("the manifest is cut short"))?;
    let manifest = Manifest::parse(bytes).map_err(Failure::corrupt)?;
    if manifest.root() != root {
        return Err(Failure::corrupt("the manifest is not the one that the root names"));
    }
    if manifest.deposit.object != *object {
        return Err(Failure::corrupt(format!("the root names {}", manifest.deposit.object)));
    }
    Ok(Described { manifest, root, len: bytes.len() as u64 })
}

/// The number and the key share of a backend.
pub(super) async fn key_share(
    pool: Arc<Pool>,
    described: Arc<Described>,
    remote: usize,
) -> Result<(ShareIndex, KeyShare), Fault> {
    let deposit = described.deposit();
    let len = HEADER + KeyFile::len(deposit.scheme.threshold);
    let name = File::Key(deposit.set, deposit.epoch).name(&deposit.object);
    let file = pool.range(remote, &name, 0..len as u64).await;
    file.and_then(|bytes| described.check_key(&bytes))
        .map_err(|failure| pool.report(remote, &deposit.object, None, failure))
}

impl Described {
    pub(super) fn deposit(&self) -> &Deposit {
        &self.manifest.deposit
    }

    /// Which share a file is of. Everything else in its header is known.
    pub(super) fn check_header(&self, bytes: &[u8], kind: Kind) -> Result<ShareIndex, Failure> {
        let header = Header::parse(bytes).map_err(Failure::corrupt)?;
        let mut expected = self.manifest.deposit.clone();
        if matches!(kind, Kind::Extent { .. }) {
            // An extent outlives an epoch that only shares the master key anew.
            expected.epoch = header.deposit.epoch.min(expected.epoch);
        }
        if header.deposit != expected || header.kind != kind {
            return Err(Failure::corrupt("the header contradicts the manifest"));
        }
        Ok(header.share)
    }

    /// A key file's share, which must bear its commitment.
    pub(super) fn check_key(&self, bytes: &[u8]) -> Result<(ShareIndex, KeyShare), Failure> {
        let share = self.check_header(bytes, Kind::Key)?;
        let Manifest { deposit, commitments, .. } = &self.manifest;
        let file = bytes.get(HEADER..).and_then(|bytes| KeyFile::parse(deposit.scheme.threshold, bytes));
        match (file, commitments.get(share.place())) {
            (Some(file), Some(commitment))
                if file.share.bears(deposit, share, commitment) && file.commitments == *commitments =>
            {
                Ok((share, file.share))
            }
            _ => Err(Failure::corrupt("the key share is not the one that was deposited")),
        }
    }
}

impl ObjectReader {
    /// Plaintext bytes.
    pub fn size(&self) -> u64 {
        self.opened().described.manifest.size
    }

    /// How the object is shared.
    pub fn scheme(&self) -> Scheme {
        self.opened().described.deposit().scheme
    }

    /// How many times it has been shared.
    pub fn epoch(&self) -> u64 {
        self.opened().described.deposit().epoch
    }

    /// The share set that is read.
    pub fn set(&self) -> SetId {
        self.opened().described.deposit().set
    }

    /// The root that is read.
    pub fn root(&self) -> Root {
        self.opened().described.root
    }

    /// The public key that signed the root, if one did.
    pub fn signer(&self) -> Option<[u8; 32]> {
        self.opened().described.manifest.signature.map(|signature| signature.key)
    }

    /// Goes on reading under another root of the same object, as [`Vault::refresh`] makes it. Reads
    /// that are under way end under the old one, or begin again if its shares are gone by then.
    pub async fn advance(&self, vault: &Vault, root: &[u8; 32]) -> Result<(), ReadError> {
        let next = vault.open(&self.opened().described.deposit().object, root).await?;
        let next = next.opened();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    /// The bytes from `offset` on, `len` of them or as many as there are before the end.
    pub async fn read_at(&self, offset: u64, len: usize) -> Result<Wiped, ReadError> {
        loop {
            let opened = self.opened();
            match opened.read_at(offset, len).await {
                Err(_) if !Arc::ptr_eq(&opened, &self.opened()) => {}
                result => return result,
            }
        }
    }

    /// The bytes of `range`, cut at the end of the object, in pieces of at most an extent, in
    /// order. A few pieces are fetched ahead; after an error nothing follows.
    pub fn stream(
        &self,
        range: std::ops::Range<u64>,
    ) -> impl Stream<Item = Result<Wiped, ReadError>> + Send + use<> {
        let end = range.end.min(self.size());
        let starts = std::iter::successors(Some(range.start), |at| Some((at / EXTENT + 1) * EXTENT));
        let reader = self.clone();
        let pieces = stream::iter(starts.take_while(move |at| *at < end)).map(move |at| {
            let (reader, len) = (reader.clone(), ((at / EXTENT + 1) * EXTENT).min(end) - at);
            let piece = tokio::spawn(async move { reader.read_at(at, len as usize).await });
            async move { piece.await.unwrap_or(Err(ReadError::Interrupted)) }
        });
        pieces.buffered(EXTENTS_AHEAD).scan(false, |failed, piece| {
            let before = std::mem::replace(failed, piece.is_err());
            std::future::ready((!before).then_some(piece))
        })
    }

    pub(super) fn opened(&self) -> Arc<Opened> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Opened {
    async fn read_at(&self, offset: u64, len: usize) -> Result<Wiped, ReadError> {
        let end = self.described.manifest.size.min(offset.saturating_add(len as u64));
        if end <= offset {
            return Ok(Wiped::default());
        }
        let wanted = usize::try_from(end - offset).unwrap_or(usize::MAX);
        if wanted > MAX_READ {
            return Err(ReadError::TooLong);
        }
        let mut out = Wiped::default();
        let mut parts = stream::iter(offset / EXTENT..=(end - 1) / EXTENT)
            .map(|extent| {
                let begin = extent * EXTENT;
                self.part(extent, offset.max(begin) - begin, end.min(begin + EXTENT) - begin)
            })
            .buffered(EXTENTS_AT_ONCE);
        while let Some((skip, mut part)) = parts.try_next().await? {
            if out.is_empty() {
                if skip == 0 && part.len() >= wanted {
                    part.truncate(wanted);
                    return Ok(part);
                }
                out = Wiped::with_room_for(wanted);
            }
            let take = (part.len() - skip).min(wanted - out.len());
            out.extend(&part[skip..skip + take]);
        }
        Ok(out)
    }

    /// The blocks of an extent that bytes `from..to` of it touch, and how many bytes precede `from`.
    async fn part(&self, extent: u64, from: u64, to: u64) -> Result<(usize, Wiped), ReadError> {
        let begin = from / BLOCK * BLOCK;
        let end = to.next_multiple_of(BLOCK).min(extent_len(self.described.manifest.size, extent));
        let blocks = self.blocks(extent, begin..end).await?;
        Ok(((from - begin) as usize, blocks))
    }

    /// The tag table and the keys of an extent, from memory or with the help of any backend.
    pub(super) async fn extent(&self, number: u64) -> Result<Arc<Extent>, ReadError> {
        if let Some(extent) = self.extents.lock().unwrap_or_else(PoisonError::into_inner).get(number) {
            return Ok(extent);
        }
        let deposit = self.described.deposit();
        let mut asking = self.pool.asking(self.pool.order(), {
            let (pool, described) = (self.pool.clone(), self.described.clone());
            move |remote| {
                let (pool, described) = (pool.clone(), described.clone());
                async move {
                    let table = fetch_table(&pool, remote, &described, number).await;
                    let block = Some(number * (EXTENT / BLOCK));
                    table.map_err(|failure| pool.report(remote, &described.deposit().object, block, failure))
                }
            }
        });
        let mut faults = Vec::new();
        loop {
            match asking.next(1).await {
                Some(Ok((_, (entry, table)))) => {
                    let keys = ExtentKeys::derive(&self.master, deposit, number, entry.attempt);
                    let len = extent_len(self.described.manifest.size, number);
                    let extent = Arc::new(Extent { number, entry, len, keys, table });
                    self.extents.lock().unwrap_or_else(PoisonError::into_inner).keep(&extent);
                    return Ok(extent);
                }
                Some(Err(fault)) => faults.push(fault),
                None => {
                    let (object, needed) = (deposit.object.clone(), deposit.scheme.threshold.k());
                    return Err(ReadError::TooFew { object, needed, good: 0, faults });
                }
            }
        }
    }
}

async fn fetch_table(
    pool: &Pool,
    remote: usize,
    described: &Described,
    number: u64,
) -> Result<(ExtentEntry, TagTable), Failure> {
    let Manifest { deposit, extents, size, .. } = &described.manifest;
    let entry = extents.get(number as usize).ok_or_else(|| Failure::corrupt("no such extent"))?;
    let len = extent_len(*size, number);
    let name = File::Extent(deposit.set, number, entry.attempt).name(&deposit.object);
    let bytes = pool.range(remote, &name, deposit.scheme.table_at(len)).await?;
    let table = TagTable::parse(deposit.scheme, number, len, &bytes, &entry.digest);
    Ok((*entry, table.map_err(Failure::corrupt)?))
}
