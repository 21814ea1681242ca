//! Keys: one master per share set, shared like the data; everything else derived.

use std::fmt;

use model::{Entropy, EntropyError};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{AttemptId, Deposit};
use crate::codec::{CodecError, Combiner, RandomStream, ShareIndex, Splitter, Threshold};

const COMMITMENT: &str = "sekisho sharding v2 key share commitment";
const BLOCKS: &str = "sekisho sharding v2 key of blocks";
const SHARES: &str = "sekisho sharding v2 key of shares";

/// What all keys of one share set come from: 256 random bits that exist whole only while an object
/// is being deposited or read.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MasterKey(pub(super) [u8; 32]);

/// A backend's share of the master key.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct KeyShare(pub(super) [u8; 32]);

impl MasterKey {
    /// A fresh one.
    pub fn random(entropy: &(impl Entropy + ?Sized)) -> Result<MasterKey, EntropyError> {
        let mut key = MasterKey([0; 32]);
        entropy.fill(&mut key.0)?;
        Ok(key)
    }

    /// Its `n` shares, in order. Every epoch shares it anew.
    pub fn split(
        &self,
        threshold: Threshold,
        random: &mut RandomStream,
    ) -> Result<Vec<KeyShare>, CodecError> {
        let mut shares = vec![KeyShare([0; 32]); threshold.n()];
        let mut slices: Vec<&mut [u8]> = shares.iter_mut().map(|share| share.0.as_mut_slice()).collect();
        Splitter::new(threshold).split(&self.0, random, &mut slices)?;
        Ok(shares)
    }

    /// From `k` shares.
    pub fn combine(threshold: Threshold, shares: &[(ShareIndex, KeyShare)]) -> Result<MasterKey, CodecError> {
        let points: Vec<ShareIndex> = shares.iter().map(|(point, _)| *point).collect();
        let slices: Vec<&[u8]> = shares.iter().map(|(_, share)| share.0.as_slice()).collect();
        let mut key = MasterKey([0; 32]);
        Combiner::new(threshold, &points)?.combine(&slices, &mut key.0)?;
        Ok(key)
    }

    /// The key of an extent's blocks: of their tags, and in mode `compact` of their cipher.
    pub(super) fn of_blocks(
        &self,
        deposit: &Deposit,
        extent: u64,
        attempt: AttemptId,
    ) -> Zeroizing<[u8; 32]> {
        self.derive(BLOCKS, deposit, extent, attempt, 0)
    }

    /// The key of the tags of share `x` of an extent's blocks.
    pub(super) fn of_share(
        &self,
        deposit: &Deposit,
        extent: u64,
        attempt: AttemptId,
        x: ShareIndex,
    ) -> Zeroizing<[u8; 32]> {
        self.derive(SHARES, deposit, extent, attempt, x.x())
    }

    /// The epoch has no part in it: the set's number is as random as the attempt's, and an epoch
    /// that only shares the master key anew keeps the extents.
    fn derive(
        &self,
        context: &str,
        deposit: &Deposit,
        extent: u64,
        attempt: AttemptId,
        x: u8,
    ) -> Zeroizing<[u8; 32]> {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(&self.0).update(&deposit.set.0).update(&attempt.0).update(&extent.to_le_bytes());
        hasher.update(&deposit.scheme.suite()).update(&[x]).update(deposit.object.as_str().as_bytes());
        Zeroizing::new(*hasher.finalize().as_bytes())
    }
}

impl KeyShare {
    /// Share `wanted` from `k` others: the same bytes that were lost.
    pub fn rebuild(
        threshold: Threshold,
        shares: &[(ShareIndex, KeyShare)],
        wanted: ShareIndex,
    ) -> Result<KeyShare, CodecError> {
        let points: Vec<ShareIndex> = shares.iter().map(|(point, _)| *point).collect();
        let slices: Vec<&[u8]> = shares.iter().map(|(_, share)| share.0.as_slice()).collect();
        let mut share = KeyShare([0; 32]);
        crate::codec::Rebuilder::new(threshold, &points, wanted)?.rebuild(&slices, &mut share.0)?;
        Ok(share)
    }

    /// What the manifest says of this share: a hash that tells nothing, because the share is 256
    /// uniform bits, and that no other share has.
    pub fn commitment(&self, deposit: &Deposit, x: ShareIndex) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(COMMITMENT);
        hasher.update(&deposit.set.0).update(&deposit.epoch.to_le_bytes()).update(&[x.x()]).update(&self.0);
        *hasher.finalize().as_bytes()
    }

    /// Whether it is the share that was committed to, in constant time.
    pub fn bears(&self, deposit: &Deposit, x: ShareIndex, commitment: &[u8; 32]) -> bool {
        self.commitment(deposit, x).ct_eq(commitment).into()
    }
}

/// What follows the header of a key file: the share, and the commitments to all `n`.
pub struct KeyFile {
    /// This backend's share.
    pub share: KeyShare,
    /// For each share its commitment, as the manifest will have it.
    pub commitments: Vec<[u8; 32]>,
}

impl KeyFile {
    /// Bytes of it for `n` shares.
    pub fn len(threshold: Threshold) -> usize {
        32 * (1 + threshold.n())
    }

    /// Its bytes.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([self.share.0.as_slice(), self.commitments.as_flattened()].concat())
    }

    /// Reads all of `bytes`; `None` if they have another length.
    pub fn parse(threshold: Threshold, bytes: &[u8]) -> Option<KeyFile> {
        let (parts, []) = bytes.as_chunks::<32>() else { return None };
        let (share, commitments) = parts.split_first()?;
        let commitments = (commitments.len() == threshold.n()).then(|| commitments.to_vec())?;
        Some(KeyFile { share: KeyShare(*share), commitments })
    }
}

macro_rules! hidden {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}

hidden!(MasterKey, KeyShare, KeyFile);
