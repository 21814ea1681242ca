//! Blocks of an extent, from the shares of `k` backends.

use std::ops::Range;
use std::sync::PoisonError;

use bytes::Bytes;
use zeroize::Zeroize;

use super::asking::Asking;
use super::pool::Failure;
use super::reader::{Extent, Opened, ReadError, key_share};
use super::{Fault, Wiped};
use crate::codec::ShareIndex;
use crate::format::{BLOCK, BlockDecoder, EXTENT, File, Scheme};

struct Share {
    remote: usize,
    x: ShareIndex,
    bytes: Bytes,
}

impl Opened {
    /// Plaintext bytes `range` of an extent, which are whole blocks.
    pub(super) async fn blocks(&self, number: u64, range: Range<u64>) -> Result<Wiped, ReadError> {
        let deposit = self.described.deposit();
        let object = &deposit.object;
        let first_block = number * (EXTENT / BLOCK) + range.start / BLOCK;
        let forged = |block| ReadError::Forged { object: object.clone(), block };
        let entry =
            self.described.manifest.extents.get(number as usize).ok_or_else(|| forged(first_block))?;
        let name = File::Extent(deposit.set, number, entry.attempt).name(object);
        let within = deposit.scheme.shares_at(range.clone());
        let known = self.shares.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut asking = self.pool.asking(self.pool.order(), {
            let (pool, described) = (self.pool.clone(), self.described.clone());
            move |remote| {
                let (pool, described, name, x, within) =
                    (pool.clone(), described.clone(), name.clone(), known[remote], within.clone());
                async move {
                    let x = match x {
                        Some(x) => x,
                        None => key_share(pool.clone(), described.clone(), remote).await?.0,
                    };
                    let bytes = pool.range(remote, &name, within).await.map_err(|failure| {
                        pool.report(remote, &described.deposit().object, Some(first_block), failure)
                    })?;
                    Ok(Share { remote, x, bytes })
                }
            }
        });

        let (mut shares, mut faults) = (Vec::<Share>::new(), Vec::new());
        // What checks the shares is mostly known; where it is not it comes along with them.
        let table = self.extent(number);
        let (extent, ()) = futures::try_join!(table, self.fill(&mut asking, &mut shares, &mut faults))?;
        let len = (range.end - range.start) as usize;
        let wanted = Wanted { extent: &extent, first_block, len, scheme: deposit.scheme };
        loop {
            let bad = match wanted.rebuild(&shares) {
                Ok(plaintext) => {
                    shares.into_iter().for_each(wipe);
                    return Ok(plaintext);
                }
                Err(bad) => bad,
            };
            // Something is wrong from block `bad` on: whoever's share lacks its tag lied.
            let before = shares.len();
            shares.retain(|share| match wanted.first_lie(share) {
                Some(block) => {
                    let failure = Failure::corrupt(format!("share {}", share.x));
                    faults.push(self.pool.report(share.remote, object, Some(block), failure));
                    false
                }
                None => true,
            });
            if shares.len() == before {
                return Err(forged(bad));
            }
            self.fill(&mut asking, &mut shares, &mut faults).await?;
        }
    }

    /// Goes on asking until there are `k` different shares.
    async fn fill<A, F>(
        &self,
        asking: &mut Asking<A, Share>,
        shares: &mut Vec<Share>,
        faults: &mut Vec<Fault>,
    ) -> Result<(), ReadError>
    where
        A: Fn(usize) -> F,
        F: Future<Output = Result<Share, Fault>> + Send + 'static,
    {
        let deposit = self.described.deposit();
        let needed = deposit.scheme.threshold.k();
        while shares.len() < needed {
            match asking.next(needed - shares.len()).await {
                Some(Ok((remote, share))) => {
                    self.shares.lock().unwrap_or_else(PoisonError::into_inner)[remote] = Some(share.x);
                    if shares.iter().all(|known| known.x != share.x) {
                        shares.push(share);
                    }
                }
                Some(Err(fault)) => faults.push(fault),
                None => {
                    let (object, good) = (deposit.object.clone(), shares.len());
                    return Err(ReadError::TooFew { object, needed, good, faults: std::mem::take(faults) });
                }
            }
        }
        Ok(())
    }
}

/// Some blocks of an extent that were asked for.
struct Wanted<'a> {
    extent: &'a Extent,
    first_block: u64,
    /// Bytes of their plaintext.
    len: usize,
    scheme: Scheme,
}

impl Wanted<'_> {
    /// The plaintext that `k` shares make, or the first block that does not bear its tag.
    fn rebuild(&self, shares: &[Share]) -> Result<Wiped, u64> {
        let points: Vec<ShareIndex> = shares.iter().map(|share| share.x).collect();
        let mut rests: Vec<&[u8]> = shares.iter().map(|share| share.bytes.as_ref()).collect();
        let decoder = BlockDecoder::new(self.scheme, &points).map_err(|_| self.first_block)?;
        let mut plaintext = Wiped::zeros(self.len);
        // Block by block, so that what was rebuilt is still in the cache when it is checked.
        for (block, bytes) in (self.first_block..).zip(plaintext.chunks_mut(BLOCK as usize)) {
            let len = self.scheme.share_len(bytes.len());
            let tag = self.extent.table.block((block % (EXTENT / BLOCK)) as usize).ok_or(block)?;
            let mut here = Vec::with_capacity(rests.len());
            for rest in &mut rests {
                let (share, others) = rest.split_at_checked(len).ok_or(block)?;
                here.push(share);
                *rest = others;
            }
            if !decoder.decode(&self.extent.keys, block, &here, tag, bytes).unwrap_or(false) {
                return Err(block);
            }
        }
        Ok(plaintext)
    }

    /// The first block of a share that does not bear its tag.
    fn first_lie(&self, share: &Share) -> Option<u64> {
        let len = self.scheme.share_len(BLOCK as usize);
        (self.first_block..).zip(share.bytes.chunks(len)).find_map(|(block, bytes)| {
            let tag = self.extent.table.share((block % (EXTENT / BLOCK)) as usize, share.x);
            let honest = tag.is_some_and(|tag| self.extent.keys.share_matches(share.x, block, bytes, tag));
            (!honest).then_some(block)
        })
    }
}

/// Shares together are the plaintext: none outlives its use, where the buffer is ours alone.
fn wipe(share: Share) {
    if let Ok(mut bytes) = share.bytes.try_into_mut() {
        bytes.zeroize();
    }
}
