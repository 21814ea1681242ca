//! Looking at everything: which backend still holds what it was given, and what is found without
//! a root.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use model::{BackendId, ObjectId};
use object_store::ObjectStore;
use object_store::path::Path;

use super::pool::{Failure, Pool};
use super::reader::{Described, ObjectReader, ReadError, check_manifest};
use super::{Fault, FaultKind, Vault};
use crate::codec::{ShareIndex, Threshold};
use crate::format::{
    BLOCK, EXTENT, HEADER, Kind, Manifest, Root, TagTable, extent_count, extent_len, extent_name,
    manifest_name,
};

/// Faults of one backend that are kept word for word; more are counted.
const FAULTS_KEPT: usize = 16;
/// After so many time-outs in a row a backend is not asked again.
const PATIENCE: u32 = 3;

/// What a look at every byte of every share found.
#[derive(Debug, Clone)]
pub struct Verification {
    /// Plaintext bytes.
    pub size: u64,
    /// How the object is shared.
    pub threshold: Threshold,
    /// How many extents there are.
    pub extents: u64,
    /// The fewest different shares that any part of the object has left.
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
    /// Its share, if its manifest is whole.
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
        self.weakest >= self.threshold.k()
    }

    /// Whether all `n` shares are there and whole.
    pub fn whole(&self) -> bool {
        self.weakest == self.threshold.n() && self.backends.iter().all(|backend| backend.faults == 0)
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
        let reader = self.open(object, root).await?;
        let (pool, size, threshold) = (&self.pool, reader.size(), reader.threshold());
        let mut backends: Vec<BackendState> = join_all((0..pool.remotes.len()).map(|remote| {
            let described = reader.described().clone();
            async move {
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
                match manifest(pool, remote, &described).await {
                    Ok(share) => state.share = Some(share),
                    Err(failure) => state.blame(pool.report(remote, object, None, failure)),
                }
                state
            }
        }))
        .await;

        let distinct = |shares: &mut dyn Iterator<Item = ShareIndex>| {
            let mut shares: Vec<ShareIndex> = shares.collect();
            shares.sort_unstable();
            shares.dedup();
            shares.len()
        };
        let mut weakest = distinct(&mut backends.iter().filter_map(|state| state.share));
        for number in 0..extent_count(size) {
            let checks = backends.iter().enumerate().map(|(remote, state)| {
                let (reader, given_up) = (&reader, state.silent >= PATIENCE);
                async move { if given_up { None } else { Some(extent(pool, remote, reader, number).await) } }
            });
            let checks = join_all(checks).await;
            let mut good = Vec::new();
            for (remote, (state, check)) in backends.iter_mut().zip(checks).enumerate() {
                match check {
                    Some(Ok(share)) => {
                        (state.good, state.silent) = (state.good + 1, 0);
                        good.push(share);
                    }
                    Some(Err((block, failure))) => {
                        state.blame(pool.report(remote, object, Some(block), failure));
                    }
                    None => state.faults += 1,
                }
            }
            weakest = weakest.min(distinct(&mut good.into_iter()));
            progress((number + 1) * EXTENT - (EXTENT - extent_len(size, number)));
        }
        Ok(Verification { size, threshold, extents: extent_count(size), weakest, backends })
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
    fn blame(&mut self, fault: Fault) {
        self.silent = if fault.kind == FaultKind::Timeout { self.silent + 1 } else { 0 };
        self.faults += 1;
        if self.first.len() < FAULTS_KEPT {
            self.first.push(fault);
        }
    }
}

async fn manifest(pool: &Pool, remote: usize, described: &Described) -> Result<ShareIndex, Failure> {
    let object = &described.manifest.deposit.object;
    let name = manifest_name(object, &described.root);
    let file = pool.whole(remote, &name, (HEADER + Manifest::MAX_LEN) as u64).await?;
    check_manifest(&file, object, described.root)?;
    Ok(described.check_header(&file, Kind::Manifest { len: described.len })?.0)
}

/// Which share of an extent a backend holds, or from which block on it does not.
async fn extent(
    pool: &Arc<Pool>,
    remote: usize,
    reader: &ObjectReader,
    number: u64,
) -> Result<ShareIndex, (u64, Failure)> {
    let first = number * (EXTENT / BLOCK);
    let Described { manifest: Manifest { deposit, size, extents, .. }, .. } = &**reader.described();
    let len = extent_len(*size, number);
    let whole = HEADER as u64 + len + TagTable::encoded_len(deposit.threshold, len) as u64;
    let check = async {
        let name = extent_name(&deposit.object, deposit.attempt, number);
        let file = pool.whole(remote, &name, whole).await?;
        if (file.len() as u64) < whole {
            let detail = format!("{} of {whole} bytes", file.len());
            return Err(Failure { kind: FaultKind::Short, detail });
        }
        let kind = Kind::Extent { extent: number, len };
        let (share, _) = reader.described().check_header(&file, kind)?;
        let (data, table) = file[HEADER..].split_at(len as usize);
        let digest = extents.get(number as usize).ok_or_else(|| Failure::corrupt("no such extent"))?;
        let table =
            TagTable::parse(deposit.threshold, number, len, table, digest).map_err(Failure::corrupt)?;
        Ok((share, file.slice(HEADER..HEADER + data.len()), table))
    };
    let (share, data, table) = check.await.map_err(|failure| (first, failure))?;
    for (at, block) in data.chunks(BLOCK as usize).enumerate() {
        let number = first + at as u64;
        let honest =
            table.share(at, share).is_some_and(|tag| reader.keys().share_matches(share, number, block, tag));
        if !honest {
            return Err((number, Failure::corrupt(format!("share {share}"))));
        }
    }
    Ok(share)
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
        let root = |file: &Path| file.filename()?.strip_suffix(".manifest")?.parse::<Root>().ok();
        found.extend(files.objects.iter().filter_map(|meta| Some((object.clone(), root(&meta.location)?))));
    }
    Ok(found)
}
