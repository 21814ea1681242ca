//! Depositing: extent by extent, each to all backends, the manifest last.
//!
//! A seed makes the random shares of one attempt at one extent and is then forgotten; it is never
//! stored, and an extent whose attempt failed or died is begun anew under another attempt's number.
//! Hence no seed and no key ever meets two plaintexts. What a deposit that died had already
//! brought to all backends is found again by [`Vault::resume`]: nothing but the backends' own files
//! tells of it, and an extent counts only if the plaintext at hand bears the tags that lie there.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::future::{join_all, try_join_all};
use model::{BackendId, Entropy, EntropyError, ObjectId};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::JoinHandle;

use super::pool::{Failure, Pool, PutError};
use super::reader::{ObjectReader, ReadError};
use super::{Fault, FaultKind, Vault, Wiped};
use crate::codec::{CodecError, RandomStream};
use crate::format::{
    AttemptId, BLOCK, BlockEncoder, Deposit, EXTENT, ExtentEntry, ExtentKeys, File, Header, KeyFile,
    KeyShare, Kind, MAX_EXTENTS, Manifest, MasterKey, Root, Scheme, SetId, TagTable,
};

/// The most extents under way at once, however much memory there is.
const WINDOW: usize = 8;

/// What a deposit made. The root is what to keep: it recognises the object among all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deposited {
    /// Plaintext bytes.
    pub size: u64,
    /// The root of the manifest.
    pub root: [u8; 32],
    /// Plaintext bytes that an earlier, unfinished deposit had already brought to all backends.
    pub resumed: u64,
    /// Backends that did not take their shares, if the vault's options let some be missing. They
    /// want repair.
    pub missing: Vec<Fault>,
}

/// Why nothing was deposited.
#[derive(Debug, thiserror::Error)]
pub enum DepositError {
    /// The vault was made for reading only.
    #[error("this vault has no threshold to deposit under")]
    ReadOnly,
    /// The bytes to deposit did not come.
    #[error("what was to be deposited could not be read")]
    Source(#[source] std::io::Error),
    /// The object to share anew could not be read.
    #[error("the object could not be read to be shared anew")]
    Object(#[source] Box<ReadError>),
    /// More than 8 TiB.
    #[error("an object has at most 8 TiB; split it into several")]
    TooLarge,
    /// No randomness.
    #[error("no shares can be made without randomness")]
    Entropy(#[from] EntropyError),
    /// A backend did not take its share.
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
    /// There is nothing to go on with.
    #[error(
        "no unfinished deposit {set} of {object} can be taken up: {needed} backends must give their key shares and {good} did; begin anew"
    )]
    NothingToResume {
        /// Of what.
        object: ObjectId,
        /// The share set that was named.
        set: SetId,
        /// How many backends must answer.
        needed: usize,
        /// How many did.
        good: usize,
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
    /// have taken so far. Memory: see [`super::Options::memory`].
    ///
    /// If it fails, what was written is taken back as far as the backends answer. Dropping the
    /// future gives the attempt up; no root names what it wrote, and [`Vault::collect`] removes it.
    pub async fn deposit(
        &self,
        object: &ObjectId,
        source: impl AsyncRead + Unpin + Send,
        entropy: &dyn Entropy,
        progress: impl Fn(u64) + Send,
    ) -> Result<Deposited, DepositError> {
        let depositing = self.begin(object, entropy).await?;
        let set = depositing.set();
        let result = depositing.run(source, entropy, progress).await;
        if result.is_err() {
            self.take_back(object, set).await;
        }
        result
    }

    /// Abandons a set as far as the backends answer soon; what stays is there to be collected.
    async fn take_back(&self, object: &ObjectId, set: SetId) {
        let patience = 2 * self.pool.options.read_timeout;
        let _ = tokio::time::timeout(patience, self.abandon(object, set)).await;
    }

    /// Begins a deposit that can be taken up again if it fails or dies: note [`Depositing::set`].
    pub async fn begin(&self, object: &ObjectId, entropy: &dyn Entropy) -> Result<Depositing, DepositError> {
        self.begin_epoch(object, 1, None, entropy).await
    }

    pub(super) async fn begin_epoch(
        &self,
        object: &ObjectId,
        epoch: u64,
        scheme: Option<Scheme>,
        entropy: &dyn Entropy,
    ) -> Result<Depositing, DepositError> {
        let scheme = scheme.or(self.scheme).ok_or(DepositError::ReadOnly)?;
        let set = SetId::random(entropy)?;
        let deposit = Deposit { object: object.clone(), set, epoch, scheme };
        let master = MasterKey::random(entropy)?;
        let writer = Writer::new(self.pool.clone(), deposit, master, entropy)?;
        if let Err(error) = writer.write_key().await {
            self.take_back(object, set).await;
            return Err(error);
        }
        Ok(Depositing { writer: Arc::new(writer), found: HashMap::new() })
    }
}

/// A deposit that was begun. What it writes stays when it fails, so that it can be taken up again.
pub struct Depositing {
    writer: Arc<Writer>,
    /// Extents that all backends list already.
    found: HashMap<u64, Vec<(AttemptId, u64)>>,
}

impl Depositing {
    pub(super) fn resuming(writer: Writer, found: HashMap<u64, Vec<(AttemptId, u64)>>) -> Depositing {
        Depositing { writer: Arc::new(writer), found }
    }

    /// What to call it when taking it up again.
    pub fn set(&self) -> SetId {
        self.writer.deposit.set
    }

    /// Deposits `source`, from its beginning; `progress` as in [`Vault::deposit`].
    pub async fn run(
        self,
        mut source: impl AsyncRead + Unpin + Send,
        entropy: &dyn Entropy,
        progress: impl Fn(u64) + Send,
    ) -> Result<Deposited, DepositError> {
        self.run_from(&mut FromRead(&mut source), entropy, progress).await
    }

    pub(super) async fn run_from(
        mut self,
        source: &mut impl Source,
        entropy: &dyn Entropy,
        progress: impl Fn(u64) + Send,
    ) -> Result<Deposited, DepositError> {
        let scheme = self.writer.deposit.scheme;
        let shares = scheme.threshold.n() * scheme.share_len(EXTENT as usize);
        let window = (self.writer.pool.options.memory / (EXTENT as usize + shares)).clamp(1, WINDOW);
        let (mut size, mut acknowledged, mut resumed) = (0, 0, 0);
        let mut extents = Vec::new();
        let mut under_way = VecDeque::<UnderWay>::new();
        loop {
            let plaintext = match source.next().await {
                Ok(plaintext) => plaintext,
                Err(error) => {
                    // What was given so far shall be there when the deposit is taken up again.
                    for mut one in under_way {
                        let _ = (&mut one.task).await;
                    }
                    return Err(error);
                }
            };
            let ended = plaintext.is_empty();
            if !ended {
                let extent = extents.len() as u64 + under_way.len() as u64;
                if extent == MAX_EXTENTS {
                    return Err(DepositError::TooLarge);
                }
                size += plaintext.len() as u64;
                let (attempt, random) = (AttemptId::random(entropy)?, RandomStream::fresh(entropy)?);
                let found = self.found.remove(&extent).unwrap_or_default();
                let writer = self.writer.clone();
                under_way.push_back(UnderWay {
                    len: plaintext.len() as u64,
                    task: tokio::spawn(async move {
                        writer.extent(extent, plaintext, found, attempt, random).await
                    }),
                });
            }
            while under_way.len() >= window || (ended && !under_way.is_empty()) {
                let Some(mut first) = under_way.pop_front() else { break };
                let written = (&mut first.task).await.map_err(|_| DepositError::Interrupted)??;
                extents.push(written.entry);
                acknowledged += first.len;
                resumed += if written.resumed { first.len } else { 0 };
                progress(acknowledged);
            }
            if ended {
                break;
            }
        }
        let root = self.writer.write_manifest(size, extents).await?;
        let missing = self.writer.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = missing.values().cloned().collect();
        Ok(Deposited { size, root: root.0, resumed, missing })
    }
}

/// Where the plaintext comes from, an extent at a time; nothing at its end.
pub(super) trait Source {
    async fn next(&mut self) -> Result<Wiped, DepositError>;
}

struct FromRead<'a, R>(&'a mut R);

impl<R: AsyncRead + Unpin + Send> Source for FromRead<'_, R> {
    async fn next(&mut self) -> Result<Wiped, DepositError> {
        let mut plaintext = Wiped::zeros(EXTENT as usize);
        let mut filled = 0;
        while filled < plaintext.len() {
            match self.0.read(&mut plaintext[filled..]).await.map_err(DepositError::Source)? {
                0 => break,
                count => filled += count,
            }
        }
        plaintext.truncate(filled);
        Ok(plaintext)
    }
}

/// An object that is there already.
pub(super) struct FromObject<'a> {
    pub(super) reader: &'a ObjectReader,
    pub(super) at: u64,
}

impl Source for FromObject<'_> {
    async fn next(&mut self) -> Result<Wiped, DepositError> {
        let read = self.reader.read_at(self.at, EXTENT as usize).await;
        let plaintext = read.map_err(|error| DepositError::Object(Box::new(error)))?;
        self.at += plaintext.len() as u64;
        Ok(plaintext)
    }
}

/// One extent under way; dropped, it is given up.
struct UnderWay {
    len: u64,
    task: JoinHandle<Result<Written, DepositError>>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Written {
    entry: ExtentEntry,
    resumed: bool,
}

/// What all extents of one share set need.
pub(super) struct Writer {
    pool: Arc<Pool>,
    deposit: Deposit,
    encoder: BlockEncoder,
    master: MasterKey,
    key_shares: Vec<KeyShare>,
    commitments: Vec<[u8; 32]>,
    /// Backends that failed to take a share and are not asked again.
    lost: Mutex<HashMap<usize, Fault>>,
}

impl Writer {
    /// Shares the master key out anew.
    pub(super) fn new(
        pool: Arc<Pool>,
        deposit: Deposit,
        master: MasterKey,
        entropy: &dyn Entropy,
    ) -> Result<Writer, DepositError> {
        let threshold = deposit.scheme.threshold;
        let key_shares = master.split(threshold, &mut RandomStream::fresh(entropy)?)?;
        let commitments = threshold.shares().zip(&key_shares);
        let commitments = commitments.map(|(x, share)| share.commitment(&deposit, x)).collect();
        Ok(Writer::with_shares(pool, deposit, master, key_shares, commitments))
    }

    pub(super) fn with_shares(
        pool: Arc<Pool>,
        deposit: Deposit,
        master: MasterKey,
        key_shares: Vec<KeyShare>,
        commitments: Vec<[u8; 32]>,
    ) -> Writer {
        let encoder = BlockEncoder::new(deposit.scheme);
        Writer { pool, deposit, encoder, master, key_shares, commitments, lost: Mutex::default() }
    }

    /// Makes sure that all backends have the extent.
    async fn extent(
        self: Arc<Writer>,
        extent: u64,
        plaintext: Wiped,
        found: Vec<(AttemptId, u64)>,
        attempt: AttemptId,
        random: RandomStream,
    ) -> Result<Written, DepositError> {
        let plaintext = Arc::new(plaintext);
        let len = plaintext.len() as u64;
        for (attempt, file_len) in found {
            if file_len == self.deposit.scheme.file_len(len)
                && let Some(digest) = self.already_there(extent, attempt, &plaintext).await
            {
                return Ok(Written { entry: ExtentEntry { attempt, digest }, resumed: true });
            }
        }
        let shared = {
            let (writer, plaintext) = (self.clone(), plaintext.clone());
            tokio::task::spawn_blocking(move || writer.share(extent, attempt, &plaintext, random))
        };
        let shared = shared.await.map_err(|_| DepositError::Interrupted)??;
        drop(plaintext);
        let file = File::Extent(self.deposit.set, extent, attempt);
        let parts = |place: usize| vec![shared.shares[place].clone(), shared.table.as_bytes().clone()];
        self.write_everywhere(file, Kind::Extent { extent, len, attempt }, parts).await?;
        let digest = shared.table.digest(extent, len);
        Ok(Written { entry: ExtentEntry { attempt, digest }, resumed: false })
    }

    /// The digest of the tag table of an attempt that all backends hold alike and that has this
    /// plaintext.
    async fn already_there(
        self: &Arc<Writer>,
        extent: u64,
        attempt: AttemptId,
        plaintext: &Arc<Wiped>,
    ) -> Option<[u8; 32]> {
        let Deposit { object, set, scheme, .. } = &self.deposit;
        let (scheme, len) = (*scheme, plaintext.len() as u64);
        let name = File::Extent(*set, extent, attempt).name(object);
        let remotes = 0..self.pool.remotes.len();
        let tables = remotes.map(|remote| self.pool.range(remote, &name, scheme.table_at(len)));
        let tables = try_join_all(tables).await.ok()?;
        let (first, others) = tables.split_first()?;
        if others.iter().any(|table| table != first) {
            return None;
        }
        let table = TagTable::unpinned(scheme, len, first).ok()?;
        let (writer, plaintext) = (self.clone(), plaintext.clone());
        let check = tokio::task::spawn_blocking(move || {
            let keys = ExtentKeys::derive(&writer.master, &writer.deposit, extent, attempt);
            let first = extent * (EXTENT / BLOCK);
            let same = plaintext.chunks(BLOCK as usize).enumerate().all(|(at, block)| {
                table.block(at).is_some_and(|tag| keys.block_matches(first + at as u64, block, tag))
            });
            same.then(|| table.digest(extent, len))
        });
        check.await.ok()?
    }

    /// Shares and tags an extent; block by block, so that what was split is still in the cache when
    /// it is tagged.
    fn share(
        &self,
        extent: u64,
        attempt: AttemptId,
        plaintext: &[u8],
        mut random: RandomStream,
    ) -> Result<Shared, CodecError> {
        let scheme = self.deposit.scheme;
        let keys = ExtentKeys::derive(&self.master, &self.deposit, extent, attempt);
        let whole = scheme.table_at(plaintext.len() as u64).start as usize - crate::format::HEADER;
        let mut shares: Vec<Wiped> = scheme.threshold.shares().map(|_| Wiped::zeros(whole)).collect();
        let mut tags = Vec::with_capacity(scheme.table_len(plaintext.len() as u64) / crate::format::TAG_LEN);
        let first = extent * (EXTENT / BLOCK);
        let mut slices: Vec<&mut [u8]> = shares.iter_mut().map(|share| &mut **share).collect();
        self.encoder.encode(&keys, first, plaintext, &mut random, &mut slices, &mut tags)?;
        let table = TagTable::from_tags(scheme, &tags);
        Ok(Shared { table, shares: shares.into_iter().map(Bytes::from_owner).collect() })
    }

    pub(super) async fn write_key(&self) -> Result<(), DepositError> {
        let file = File::Key(self.deposit.set, self.deposit.epoch);
        self.write_everywhere(file, Kind::Key, |place| {
            let (share, commitments) = (self.key_shares[place].clone(), self.commitments.clone());
            vec![Bytes::from_owner(KeyFile { share, commitments }.encode())]
        })
        .await
    }

    pub(super) async fn write_manifest(
        &self,
        size: u64,
        extents: Vec<ExtentEntry>,
    ) -> Result<Root, DepositError> {
        let (deposit, commitments) = (self.deposit.clone(), self.commitments.clone());
        let mut manifest = Manifest { deposit, size, commitments, extents, signature: None };
        if let Some(signer) = &self.pool.options.signer {
            manifest.sign(signer);
        }
        let (root, bytes) = (manifest.root(), Bytes::from(manifest.encode()));
        let kind = Kind::Manifest { len: bytes.len() as u64 };
        if let Err(error) = self.write_everywhere(File::Manifest(root), kind, |_| vec![bytes.clone()]).await {
            // Some may have taken it. Nobody keeps this root, but a reader without one would find it.
            let name = File::Manifest(root).name(&self.deposit.object);
            join_all((0..self.pool.remotes.len()).map(|remote| self.pool.forget(remote, &name))).await;
            return Err(error);
        }
        Ok(root)
    }

    /// Returns when every backend that is not given up has acknowledged.
    async fn write_everywhere(
        &self,
        file: File,
        kind: Kind,
        parts: impl Fn(usize) -> Vec<Bytes>,
    ) -> Result<(), DepositError> {
        let name = file.name(&self.deposit.object);
        let writes = self.deposit.scheme.threshold.shares().map(|share| {
            let remote = share.place();
            let header = Header { deposit: self.deposit.clone(), share, kind }.encode();
            let parts = [vec![Bytes::from(header)], parts(remote)].concat();
            let name = &name;
            async move {
                if self.is_lost(remote) {
                    return Ok(());
                }
                self.pool.put(remote, name, parts).await.or_else(|error| self.lose(remote, error))
            }
        });
        try_join_all(writes).await.map(drop)
    }

    fn is_lost(&self, remote: usize) -> bool {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&remote)
    }

    /// Goes on without a backend, if the options let so many be missing.
    fn lose(&self, remote: usize, error: PutError) -> Result<(), DepositError> {
        let failure = match &error {
            PutError::Refused(source) => Failure { kind: FaultKind::Unreachable, detail: source.to_string() },
            PutError::Timeout => Failure { kind: FaultKind::Timeout, detail: "while writing".to_owned() },
        };
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = self.pool.report(remote, &self.deposit.object, None, failure);
        if lost.contains_key(&remote) || lost.len() < self.pool.options.may_miss {
            lost.entry(remote).or_insert(fault);
            return Ok(());
        }
        let (backend, institution) = (fault.backend, fault.institution);
        Err(match error {
            PutError::Refused(source) => DepositError::Backend { backend, institution, source },
            PutError::Timeout => DepositError::Timeout { backend, institution },
        })
    }
}

/// An extent's share for every backend, and its tags.
struct Shared {
    table: TagTable,
    shares: Vec<Bytes>,
}
