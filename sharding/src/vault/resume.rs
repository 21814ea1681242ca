//! Taking up a deposit that failed or died.

use std::collections::{BTreeMap, HashMap};

use futures::future::join_all;
use model::ObjectId;

use super::deposit::{DepositError, Depositing, Writer};
use super::files::Listing;
use super::pool::{Failure, Pool};
use super::reader::find_manifest;
use super::{FaultKind, Vault};
use crate::codec::ShareIndex;
use crate::format::{AttemptId, Deposit, File, HEADER, Header, KeyFile, KeyShare, Kind, MasterKey, SetId};

/// A share set that backends hold and for which they have no manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// Which.
    pub set: SetId,
    /// How many backends list it.
    pub held_by: usize,
    /// How many extents some backend lists.
    pub extents: u64,
}

impl Vault {
    /// Share sets of `object` that no manifest names: deposits that died, or are still under way.
    pub async fn unfinished(&self, object: &ObjectId) -> Vec<Unfinished> {
        let listings = Listing::all(&self.pool, object).await;
        let mut sets = BTreeMap::<SetId, (usize, Vec<u64>)>::new();
        for listing in listings.iter().flatten() {
            let mut here = Vec::new();
            for (file, _) in &listing.files {
                match file {
                    File::Extent(set, extent, _) => {
                        here.push(*set);
                        sets.entry(*set).or_default().1.push(*extent);
                    }
                    File::Key(set, _) => here.push(*set),
                    File::Manifest(_) => {}
                }
            }
            here.sort_unstable();
            here.dedup();
            for set in here {
                sets.entry(set).or_default().0 += 1;
            }
        }
        for found in self.manifests(Some(object)).await {
            // Whether it can be read just now does not matter: it was acknowledged.
            if let Ok(described) = find_manifest(&self.pool, object, found.root).await {
                sets.remove(&described.deposit().set);
            }
        }
        let unfinished = sets.into_iter().map(|(set, (held_by, mut extents))| {
            extents.sort_unstable();
            extents.dedup();
            Unfinished { set, held_by, extents: extents.len() as u64 }
        });
        unfinished.collect()
    }

    /// Takes up share set `set` of `object`: run it with the same plaintext from its beginning.
    /// Extents that all backends hold already are only compared.
    pub async fn resume(&self, object: &ObjectId, set: SetId) -> Result<Depositing, DepositError> {
        let scheme = self.scheme.ok_or(DepositError::ReadOnly)?;
        let deposit = Deposit { object: object.clone(), set, epoch: 1, scheme };
        let threshold = scheme.threshold;
        let keys =
            join_all((0..self.pool.remotes.len()).map(|remote| key_file(&self.pool, remote, &deposit)));
        let mut keys: Vec<(ShareIndex, KeyFile)> = keys.await.into_iter().flatten().collect();
        // No manifest says which commitments count: those do on which k backends agree.
        let agreed = keys.iter().map(|(_, file)| file.commitments.clone()).find(|commitments| {
            keys.iter().filter(|(_, file)| file.commitments == *commitments).count() >= threshold.k()
        });
        let commitments = agreed.unwrap_or_default();
        keys.retain(|(x, file)| {
            commitments.get(x.place()).is_some_and(|commitment| file.share.bears(&deposit, *x, commitment))
        });
        keys.sort_by_key(|(x, _)| *x);
        keys.dedup_by_key(|(x, _)| *x);
        let (needed, good) = (threshold.k(), keys.len());
        if good < needed {
            return Err(DepositError::NothingToResume { object: object.clone(), set, needed, good });
        }
        let known: Vec<(ShareIndex, KeyShare)> =
            keys.into_iter().take(needed).map(|(x, file)| (x, file.share)).collect();
        let master = MasterKey::combine(threshold, &known)?;
        let key_shares = threshold.shares().map(|wanted| match known.iter().find(|(x, _)| *x == wanted) {
            Some((_, share)) => Ok(share.clone()),
            None => KeyShare::rebuild(threshold, &known, wanted),
        });
        let key_shares = key_shares.collect::<Result<Vec<_>, _>>()?;
        let writer = Writer::with_shares(self.pool.clone(), deposit, master, key_shares, commitments);
        writer.write_key().await?;
        Ok(Depositing::resuming(writer, self.held_by_all(object, set).await))
    }

    /// The attempts at each extent of a set that every backend lists, with the length of the file.
    async fn held_by_all(&self, object: &ObjectId, set: SetId) -> HashMap<u64, Vec<(AttemptId, u64)>> {
        let listings = Listing::all(&self.pool, object).await;
        let mut counts = HashMap::<(u64, AttemptId, u64), usize>::new();
        for listing in listings.iter().flatten() {
            for (file, len) in &listing.files {
                if let File::Extent(of, extent, attempt) = file
                    && *of == set
                {
                    *counts.entry((*extent, *attempt, *len)).or_default() += 1;
                }
            }
        }
        let mut found = HashMap::<u64, Vec<(AttemptId, u64)>>::new();
        for ((extent, attempt, len), count) in counts {
            if count == self.pool.remotes.len() {
                found.entry(extent).or_default().push((attempt, len));
            }
        }
        found
    }
}

/// What a backend's key file says, unless it is another's.
async fn key_file(pool: &Pool, remote: usize, deposit: &Deposit) -> Option<(ShareIndex, KeyFile)> {
    let name = File::Key(deposit.set, deposit.epoch).name(&deposit.object);
    let len = HEADER + KeyFile::len(deposit.scheme.threshold);
    let read = async {
        let bytes = pool.range(remote, &name, 0..len as u64).await?;
        let header = Header::parse(&bytes).map_err(Failure::corrupt)?;
        let file = KeyFile::parse(deposit.scheme.threshold, &bytes[HEADER..]);
        match file {
            Some(file) if header.deposit == *deposit && header.kind == Kind::Key => Ok((header.share, file)),
            _ => Err(Failure::corrupt("the key file is another's")),
        }
    };
    match read.await {
        Ok(found) if found.0.place() == remote => Some(found),
        Ok(_) => {
            pool.report(
                remote,
                &deposit.object,
                None,
                Failure::corrupt("the key share is another backend's"),
            );
            None
        }
        Err(failure) => {
            if failure.kind != FaultKind::Missing {
                pool.report(remote, &deposit.object, None, failure);
            }
            None
        }
    }
}
