//! Looking at everything: which backend still holds what it was given, and what is found without
//! a root.

use std::collections::BTreeMap;

use futures::future::join_all;
use model::{BackendId, ObjectId};
use object_store::ObjectStore;
use object_store::path::Path;

use super::examine::{self, Seen};
use super::pool::{Failure, Pool};
use super::reader::{Opened, ReadError};
use super::{Fault, FaultKind, Vault};
use crate::codec::ShareIndex;
use crate::format::{BLOCK, EXTENT, File, Root, Scheme, extent_count, extent_len};

/// Faults of one backend that are kept word for word; more are counted.
const FAULTS_KEPT: usize = 16;
/// What a backend holds has the number of another share than its key file.
const ANOTHERS: &str = "it is another backend's share";
/// After so many time-outs in a row a backend is not asked again.
const PATIENCE: u32 = 3;

/// What a look at every byte of every share found.
#[derive(Debug, Clone)]
pub struct Verification {
    /// Plaintext bytes.
    pub size: u64,
    /// How the object is shared.
    pub scheme: Scheme,
    /// How many extents there are.
    pub extents: u64,
    /// The fewest different shares that any block of the object, or its key, has left.
    pub weakest: usize,
    /// What each backend holds.
    pub backends: Vec<BackendState>,
}

/// What one backend holds of an object.
#[derive(Debug, Clone)]
pub struct BackendState {
    /// Which.
    pub backend: BackendId,
    /// Who runs it.
    pub institution: String,
    /// Its share, if its key file is whole.
    pub share: Option<ShareIndex>,
    /// How many extents are as they were deposited.
    pub good: u64,
    /// How many faults there are.
    pub faults: u64,
    /// The first of them.
    pub first: Vec<Fault>,
    silent: u32,
}

impl Verification {
    /// Whether the object can be read whole.
    pub fn readable(&self) -> bool {
        self.weakest >= self.scheme.threshold.k()
    }

    /// Whether all `n` shares are there and whole.
    pub fn whole(&self) -> bool {
        self.weakest == self.scheme.threshold.n() && self.backends.iter().all(|backend| backend.faults == 0)
    }
}

/// A manifest that backends hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Of which object.
    pub object: ObjectId,
    /// Its root, as its name says.
    pub root: Root,
    /// How many backends list it.
    pub held_by: usize,
}

impl Vault {
    /// Reads and checks every share of an object; `progress` hears of plaintext bytes covered.
    pub async fn verify(
        &self,
        object: &ObjectId,
        root: &[u8; 32],
        progress: impl Fn(u64) + Send,
    ) -> Result<Verification, ReadError> {
        let opened = self.open(object, root).await?.opened();
        let (described, size) = (&opened.described, opened.described.manifest.size);
        let scheme = described.deposit().scheme;
        let mut backends =
            join_all((0..self.pool.remotes.len()).map(|remote| BackendState::of(&opened, remote))).await;

        let mut weakest = distinct(backends.iter().filter_map(|state| state.share));
        for number in 0..extent_count(size) {
            let extent = opened.extent(number).await?;
            let patient: Vec<bool> = backends.iter().map(|state| state.silent < PATIENCE).collect();
            let seen = examine::extent(&opened, &extent, |remote| patient[remote]).await;
            weakest = weakest.min(weakest_block(&seen, extent.len));
            for (remote, (state, seen)) in backends.iter_mut().zip(seen).enumerate() {
                match seen {
                    Some(Ok(Seen { failure: None, x, .. })) if state.share.is_none_or(|known| known == x) => {
                        (state.good, state.silent) = (state.good + 1, 0);
                    }
                    Some(Ok(Seen { failure: None, .. })) => {
                        let block = Some(number * (EXTENT / BLOCK));
                        state.blame(self.pool.report(remote, object, block, Failure::corrupt(ANOTHERS)));
                    }
                    Some(Ok(Seen { failure: Some((at, failure)), .. })) => {
                        let block = number * (EXTENT / BLOCK) + at;
                        state.blame(self.pool.report(remote, object, Some(block), failure));
                    }
                    Some(Err(failure)) => {
                        let block = number * (EXTENT / BLOCK);
                        state.blame(self.pool.report(remote, object, Some(block), failure));
                    }
                    None => state.faults += 1,
                }
            }
            progress((number + 1) * EXTENT - (EXTENT - extent_len(size, number)));
        }
        Ok(Verification { size, scheme, extents: extent_count(size), weakest, backends })
    }

    /// The manifests that the backends list, of one object or of all: for recovery without a
    /// root. Backends may list what they like; open what is found to know.
    pub async fn manifests(&self, object: Option<&ObjectId>) -> Vec<Found> {
        let listings = join_all((0..self.pool.remotes.len()).map(|remote| list(&self.pool, remote, object)));
        let mut held = BTreeMap::<(ObjectId, Root), usize>::new();
        for found in listings.await.into_iter().flatten().flatten() {
            *held.entry(found).or_default() += 1;
        }
        held.into_iter().map(|((object, root), held_by)| Found { object, root, held_by }).collect()
    }
}

impl BackendState {
    async fn of(opened: &Opened, remote: usize) -> BackendState {
        let (pool, described) = (&opened.pool, &opened.described);
        let backend = &pool.remotes[remote].backend;
        let mut state = BackendState {
            backend: backend.id.clone(),
            institution: backend.institution.clone(),
            share: None,
            good: 0,
            faults: 0,
            first: Vec::new(),
            silent: 0,
        };
        let object = &described.deposit().object;
        match examine::key(pool, described, remote).await {
            Ok(share) => state.share = Some(share),
            Err(failure) => state.blame(pool.report(remote, object, None, failure)),
        }
        match examine::manifest(pool, described, remote).await {
            Ok(share) if state.share.is_none_or(|known| known == share) => {}
            Ok(_) => state.blame(pool.report(remote, object, None, Failure::corrupt(ANOTHERS))),
            Err(failure) => state.blame(pool.report(remote, object, None, failure)),
        }
        state
    }

    fn blame(&mut self, fault: Fault) {
        self.silent = if fault.kind == FaultKind::Timeout { self.silent + 1 } else { 0 };
        self.faults += 1;
        if self.first.len() < FAULTS_KEPT {
            self.first.push(fault);
        }
    }
}

/// The fewest different good shares that any block of an extent of `len` bytes has.
pub(super) fn weakest_block(seen: &[Option<Result<Seen, Failure>>], len: u64) -> usize {
    let blocks = len.div_ceil(BLOCK) as usize;
    let good = |block: usize| {
        let seen = seen.iter().flatten().flatten();
        distinct(seen.filter(|seen| seen.bad.get(block) == Some(&false)).map(|seen| seen.x))
    };
    (0..blocks).map(good).min().unwrap_or(0)
}

fn distinct(shares: impl Iterator<Item = ShareIndex>) -> usize {
    let mut shares: Vec<ShareIndex> = shares.collect();
    shares.sort_unstable();
    shares.dedup();
    shares.len()
}

/// The manifests that one backend lists; nothing if it does not answer.
async fn list(
    pool: &Pool,
    remote: usize,
    object: Option<&ObjectId>,
) -> Result<Vec<(ObjectId, Root)>, Failure> {
    let objects = match object {
        Some(object) => vec![object.clone()],
        None => {
            let folders =
                pool.timed(remote, |store| async move { store.list_with_delimiter(None).await }).await?;
            let named = |folder: &Path| ObjectId::from_name(folder.filename()?).ok();
            folders.common_prefixes.iter().filter_map(named).collect()
        }
    };
    let mut found = Vec::new();
    for object in objects {
        let folder = Path::from(object.name());
        let files =
            pool.timed(remote, |store| async move { store.list_with_delimiter(Some(&folder)).await }).await?;
        let root = |file: &Path| match File::parse(file.filename()?)? {
            File::Manifest(root) => Some(root),
            File::Extent(..) | File::Key(..) => None,
        };
        found.extend(files.objects.iter().filter_map(|meta| Some((object.clone(), root(&meta.location)?))));
    }
    Ok(found)
}
