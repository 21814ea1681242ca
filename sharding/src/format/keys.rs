//! Keys: one master per attempt at a deposit, shared like the data; everything else derived.

use std::fmt;

use model::{Entropy, EntropyError};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::tags::{TAG_LEN, Tag};
use super::{AttemptId, Deposit};
use crate::codec::{CodecError, Combiner, RandomStream, ShareIndex, Splitter, Threshold};

const COMMITMENT: &str = "sekisho sharding v1 key share commitment";
const PLAIN: &str = "sekisho sharding v1 key of plaintext tags";
const SHARE: &str = "sekisho sharding v1 key of share tags";

/// What all keys of one attempt come from: 256 random bits that exist whole only while an object
/// is being deposited or read.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct MasterKey([u8; 32]);

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

    /// Its `n` shares, in order.
    pub fn split(&self, splitter: &Splitter, random: &mut RandomStream) -> Result<Vec<KeyShare>, CodecError> {
        let mut shares = vec![KeyShare([0; 32]); splitter.threshold().n()];
        let mut slices: Vec<&mut [u8]> = shares.iter_mut().map(|share| share.0.as_mut_slice()).collect();
        splitter.split(&self.0, random, &mut slices)?;
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

    /// The keys of the tags of `deposit`.
    pub fn attempt_keys(&self, deposit: &Deposit) -> AttemptKeys {
        AttemptKeys {
            plain: self.derive(PLAIN, deposit, 0),
            shares: deposit.threshold.shares().map(|share| self.derive(SHARE, deposit, share.x())).collect(),
        }
    }

    fn derive(&self, context: &str, deposit: &Deposit, x: u8) -> Zeroizing<[u8; 32]> {
        let object = deposit.object.as_str().as_bytes();
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(&self.0).update(&deposit.epoch.to_le_bytes()).update(&deposit.attempt.0);
        hasher.update(&[deposit.threshold.k() as u8, deposit.threshold.n() as u8, x]).update(object);
        Zeroizing::new(*hasher.finalize().as_bytes())
    }
}

impl KeyShare {
    /// What the manifest says of this share: a hash that tells nothing, because the share is 256
    /// uniform bits, and that no other share has.
    pub fn commitment(&self, x: ShareIndex, attempt: AttemptId) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(COMMITMENT);
        hasher.update(&attempt.0).update(&[x.x()]).update(&self.0);
        *hasher.finalize().as_bytes()
    }
}

/// The keys of all tags of one attempt.
pub struct AttemptKeys {
    plain: Zeroizing<[u8; 32]>,
    shares: Vec<Zeroizing<[u8; 32]>>,
}

impl AttemptKeys {
    /// The tag of the plaintext of block `block`, counted from the beginning of the object.
    pub fn plain_tag(&self, block: u64, plaintext: &[u8]) -> Tag {
        tag(&self.plain, block, plaintext)
    }

    /// The tag of share `x` of block `block`.
    pub fn share_tag(&self, x: ShareIndex, block: u64, share: &[u8]) -> Tag {
        tag(&self.shares[x.place()], block, share)
    }

    /// Whether `expected` is the tag of this plaintext, in constant time.
    pub fn plain_matches(&self, block: u64, plaintext: &[u8], expected: &Tag) -> bool {
        self.plain_tag(block, plaintext).ct_eq(expected).into()
    }

    /// Whether `expected` is the tag of this share, in constant time.
    pub fn share_matches(&self, x: ShareIndex, block: u64, share: &[u8], expected: &Tag) -> bool {
        self.share_tag(x, block, share).ct_eq(expected).into()
    }
}

/// The block's number comes last so that the data stays aligned to the hash's own chunks.
fn tag(key: &[u8; 32], block: u64, data: &[u8]) -> Tag {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(data).update(&block.to_le_bytes());
    let mut tag = [0; TAG_LEN];
    tag.copy_from_slice(&hasher.finalize().as_bytes()[..TAG_LEN]);
    tag
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

hidden!(MasterKey, KeyShare, AttemptKeys);
