//! Rebuilding what backends lost or spoilt.
//!
//! A lost share is the value of the same polynomial at its point, so it comes out byte for byte and
//! must bear the tag that the manifest pins: repair needs no new tags, no new manifest and, though
//! it could, makes no plaintext. Whoever repairs sees `k` shares at once and belongs inside an
//! enclave; in mode `compact` they are ciphertext.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::future::join_all;
use model::{BackendId, ObjectId};

use super::examine::{self, Seen};
use super::pool::{Failure, PutError};
use super::reader::{Extent, Opened, ReadError, key_share};
use super::verify::weakest_block;
use super::{Fault, FaultKind, Vault};
use crate::codec::{Rebuilder, ShareIndex};
use crate::format::{
    BLOCK, EXTENT, File, HEADER, Header, KeyFile, KeyShare, Kind, Scheme, extent_count, extent_len,
};

/// What was repaired.
#[derive(Debug, Clone)]
pub struct Repaired {
    /// Plaintext bytes.
    pub size: u64,
    /// How the object is shared.
    pub scheme: Scheme,
    /// The fewest different shares that any block had before.
    pub weakest: usize,
    /// What became of each backend.
    pub backends: Vec<RepairedBackend>,
    /// Extents that cannot be rebuilt, because fewer than `k` good shares of some block are left.
    pub lost: Vec<u64>,
}

/// What was repaired on one backend.
#[derive(Debug, Clone)]
pub struct RepairedBackend {
    /// Which.
    pub backend: BackendId,
    /// Who runs it.
    pub institution: String,
    /// The share that it holds now; `None` if there was none left to give it.
    pub share: Option<ShareIndex>,
    /// Files that were written anew.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Faults that were found and could not be mended, for instance because it does not answer.
    pub left: Vec<Fault>,
}

impl Repaired {
    /// Whether all `n` shares are there and whole now.
    pub fn whole(&self) -> bool {
        let mut shares: Vec<_> = self.backends.iter().filter_map(|backend| backend.share).collect();
        shares.sort_unstable();
        shares.dedup();
        shares.len() == self.scheme.threshold.n()
            && self.lost.is_empty()
            && self.backends.iter().all(|backend| backend.left.is_empty())
    }
}

impl Vault {
    /// Checks every share of an object and writes anew what is missing or wrong; `progress` hears
    /// of plaintext bytes covered. A backend that holds nothing is given a share that is missing.
    ///
    /// It may be interrupted at any point and begun again: it replaces only what is wrong, the
    /// manifest last.
    pub async fn repair(
        &self,
        object: &ObjectId,
        root: &[u8; 32],
        progress: impl Fn(u64) + Send,
    ) -> Result<Repaired, ReadError> {
        let opened = self.open(object, root).await?.opened();
        let (size, scheme) = (opened.described.manifest.size, opened.described.deposit().scheme);
        let mut mending = Mending::begin(&opened).await?;
        let (mut weakest, mut lost) = (scheme.threshold.n(), Vec::new());
        for number in 0..extent_count(size) {
            let extent = opened.extent(number).await?;
            let seen = examine::extent(&opened, &extent, |_| true).await;
            weakest = weakest.min(weakest_block(&seen, extent.len));
            if !mending.extent(&extent, &seen).await {
                lost.push(number);
            }
            progress((number + 1) * EXTENT - (EXTENT - extent_len(size, number)));
        }
        mending.keys_and_manifests().await;
        Ok(Repaired { size, scheme, weakest, backends: mending.backends, lost })
    }
}

struct Mending<'a> {
    opened: &'a Opened,
    /// `k` key shares.
    known: Vec<(ShareIndex, KeyShare)>,
    key_is_whole: Vec<bool>,
    manifest_is_whole: Vec<bool>,
    backends: Vec<RepairedBackend>,
}

impl<'a> Mending<'a> {
    /// Looks at keys and manifests, and gives each backend without a share one that nobody has.
    async fn begin(opened: &'a Opened) -> Result<Mending<'a>, ReadError> {
        let (pool, described) = (&opened.pool, &opened.described);
        let deposit = described.deposit();
        let threshold = deposit.scheme.threshold;
        let looks = (0..pool.remotes.len()).map(async |remote| {
            let key = key_share(pool.clone(), described.clone(), remote).await;
            // A file with something behind its share serves, and yet wants repair.
            let key_is_whole = examine::key(pool, described, remote).await.is_ok();
            (key, key_is_whole, examine::manifest(pool, described, remote).await)
        });
        let looks = join_all(looks).await;
        let mut taken = BTreeSet::new();
        let mut shares: Vec<Option<ShareIndex>> = Vec::new();
        // A key file says which share a backend holds; without one its manifest's header does.
        for (key, ..) in &looks {
            shares.push(key.as_ref().ok().map(|(x, _)| *x).filter(|x| taken.insert(*x)));
        }
        for (share, (.., manifest)) in shares.iter_mut().zip(&looks) {
            if share.is_none() {
                *share = manifest.as_ref().ok().copied().filter(|x| taken.insert(*x));
            }
        }
        let mut free = threshold.shares().filter(|x| !taken.contains(x)).collect::<Vec<_>>().into_iter();
        for share in &mut shares {
            *share = share.or_else(|| free.next());
        }
        let mut known: Vec<(ShareIndex, KeyShare)> = Vec::new();
        for (key, ..) in &looks {
            if let Ok((x, share)) = key
                && known.iter().all(|(other, _)| other != x)
                && known.len() < threshold.k()
            {
                known.push((*x, share.clone()));
            }
        }
        if known.len() < threshold.k() {
            let faults = looks.iter().filter_map(|(key, ..)| key.as_ref().err().cloned()).collect();
            let (object, needed, good) = (deposit.object.clone(), threshold.k(), known.len());
            return Err(ReadError::TooFew { object, needed, good, faults });
        }
        let backends = shares.iter().zip(&pool.remotes).map(|(share, remote)| RepairedBackend {
            backend: remote.backend.id.clone(),
            institution: remote.backend.institution.clone(),
            share: *share,
            files: 0,
            bytes: 0,
            left: Vec::new(),
        });
        let whole = looks.iter().zip(&shares);
        Ok(Mending {
            opened,
            known,
            backends: backends.collect(),
            key_is_whole: whole
                .clone()
                .map(|((key, whole, _), share)| *whole && key.as_ref().ok().map(|(x, _)| *x) == *share)
                .collect(),
            manifest_is_whole: whole
                .map(|((.., manifest), share)| manifest.as_ref().ok().copied() == *share)
                .collect(),
        })
    }

    /// Writes anew what is wrong with an extent; `false` if it cannot be rebuilt.
    async fn extent(&mut self, extent: &Extent, seen: &[Option<Result<Seen, Failure>>]) -> bool {
        let deposit = self.opened.described.deposit();
        let file = File::Extent(deposit.set, extent.number, extent.entry.attempt);
        let kind = Kind::Extent { extent: extent.number, len: extent.len, attempt: extent.entry.attempt };
        let mut rebuilt = true;
        let mut writes = Vec::new();
        for (remote, seen_here) in seen.iter().enumerate() {
            let Some(x) = self.backends[remote].share else { continue };
            let failure = match seen_here {
                Some(Ok(Seen { failure: None, x: said, .. })) if *said == x => continue,
                Some(Ok(Seen { failure: Some((_, failure)), .. }) | Err(failure)) => failure.clone(),
                _ => Failure::corrupt("it is another backend's share"),
            };
            let block = Some(extent.number * (EXTENT / BLOCK));
            let fault = self.opened.pool.report(remote, &deposit.object, block, failure);
            match rebuild(deposit.scheme, extent, seen, x) {
                Some(data) => writes.push((remote, x, data)),
                None => {
                    self.backends[remote].left.push(fault);
                    rebuilt = false;
                }
            }
        }
        for (remote, x, data) in writes {
            let header = Header { deposit: deposit.clone(), share: x, kind }.encode();
            let parts = vec![Bytes::from(header), data, extent.table.as_bytes().clone()];
            self.write(remote, file, parts).await;
        }
        rebuilt
    }

    /// The key first, so that whoever finds the manifest can read.
    async fn keys_and_manifests(&mut self) {
        let described = &self.opened.described;
        let (deposit, manifest) = (described.deposit(), &described.manifest);
        for remote in 0..self.backends.len() {
            let Some(x) = self.backends[remote].share else { continue };
            if !self.key_is_whole[remote] {
                let share = KeyShare::rebuild(deposit.scheme.threshold, &self.known, x).ok();
                let share = share.or_else(|| {
                    self.known.iter().find(|(known, _)| *known == x).map(|(_, share)| share.clone())
                });
                let bears = |share: &KeyShare| {
                    manifest.commitments.get(x.place()).is_some_and(|known| share.bears(deposit, x, known))
                };
                match share.filter(bears) {
                    Some(share) => {
                        let header = Header { deposit: deposit.clone(), share: x, kind: Kind::Key }.encode();
                        let file = KeyFile { share, commitments: manifest.commitments.clone() };
                        let parts = vec![Bytes::from(header), Bytes::from_owner(file.encode())];
                        self.write(remote, File::Key(deposit.set, deposit.epoch), parts).await;
                    }
                    None => self.leave(remote, Failure::corrupt("its key share cannot be rebuilt")),
                }
            }
            if !self.manifest_is_whole[remote] && self.backends[remote].left.is_empty() {
                let kind = Kind::Manifest { len: described.len };
                let header = Header { deposit: deposit.clone(), share: x, kind }.encode();
                let parts = vec![Bytes::from(header), Bytes::from(manifest.encode())];
                self.write(remote, File::Manifest(described.root), parts).await;
            }
        }
    }

    async fn write(&mut self, remote: usize, file: File, parts: Vec<Bytes>) {
        let bytes: usize = parts.iter().map(Bytes::len).sum();
        let name = file.name(&self.opened.described.deposit().object);
        match self.opened.pool.put(remote, &name, parts).await {
            Ok(()) => {
                self.backends[remote].files += 1;
                self.backends[remote].bytes += bytes as u64;
            }
            Err(PutError::Refused(error)) => self.leave(remote, Failure::of(&error)),
            Err(PutError::Timeout) => {
                let detail = "while writing".to_owned();
                self.leave(remote, Failure { kind: FaultKind::Timeout, detail });
            }
        }
    }

    fn leave(&mut self, remote: usize, failure: Failure) {
        let fault = self.opened.pool.report(remote, &self.opened.described.deposit().object, None, failure);
        self.backends[remote].left.push(fault);
    }
}

/// All blocks of share `x` of an extent, each from any `k` good shares of it.
fn rebuild(
    scheme: Scheme,
    extent: &Extent,
    seen: &[Option<Result<Seen, Failure>>],
    x: ShareIndex,
) -> Option<Bytes> {
    let (stride, first) = (scheme.share_len(BLOCK as usize), extent.number * (EXTENT / BLOCK));
    let table = scheme.table_at(extent.len);
    let mut data = vec![0; table.start as usize - HEADER];
    let mut last: Option<(Vec<ShareIndex>, Rebuilder)> = None;
    for (at, block) in data.chunks_mut(stride).enumerate() {
        let range = at * stride..at * stride + block.len();
        let mut good: Vec<(ShareIndex, &[u8])> = Vec::new();
        for seen in seen.iter().flatten().flatten() {
            if good.len() < scheme.threshold.k()
                && seen.bad.get(at) == Some(&false)
                && good.iter().all(|(known, _)| *known != seen.x)
            {
                good.push((seen.x, seen.data.get(range.clone())?));
            }
        }
        let tag = extent.table.share(at, x)?;
        if let Some((_, same)) = good.iter().find(|(known, _)| *known == x) {
            block.copy_from_slice(same);
        } else {
            let points: Vec<ShareIndex> = good.iter().map(|(known, _)| *known).collect();
            if last.as_ref().is_none_or(|(known, _)| *known != points) {
                last = Some((points.clone(), Rebuilder::new(scheme.threshold, &points, x).ok()?));
            }
            let shares: Vec<&[u8]> = good.iter().map(|(_, share)| *share).collect();
            last.as_ref()?.1.rebuild(&shares, block).ok()?;
        }
        if !extent.keys.share_matches(x, first + at as u64, block, tag) {
            return None;
        }
    }
    Some(Bytes::from(data))
}
