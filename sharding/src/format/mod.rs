//! What lies on a backend, version 1; `docs/format.md` (at the root) describes it byte by byte.
//!
//! An object is cut into extents of 4 MiB, an extent into blocks of 64 KiB; the last of each may
//! be short. Every backend keeps, under the same names, its own share of each extent (a [`Header`],
//! the shares of the blocks, the [`TagTable`] of the extent) and, written last, the manifest
//! (a [`Header`] and the [`Manifest`], which is the same everywhere).
//!
//! # Who checks what
//! - The *root* is the hash of the manifest. Whoever pinned it recognises exactly one manifest.
//! - The manifest pins the hash of every extent's tag table and of every key share.
//! - A tag table has, for every block, a tag of the plaintext and one of each share, 16 bytes
//!   each, keyed. A reader rebuilds a block from `k` shares and checks the plaintext's tag; only if
//!   that fails do the shares' tags tell who lied.
//! - A header carries nothing that is not also in the manifest, but for its backend's number and
//!   key share; a reader compares it whole.
//!
//! # Where the keys live
//! Plain hashes of shares would let one backend confirm a guess at the plaintext, so tags are
//! keyed, and the keys must be as hard to come by as the plaintext. Every attempt at a deposit
//! draws one 32-byte [`MasterKey`], shares it out like the data, and puts a key share in every
//! header of that share. Tag keys are derived from it per (object, epoch, attempt, share). Fewer
//! than `k` backends hence see tags of a pseudo-random function under a key that they lack.
//!
//! # What is not defended
//! - Tags have 128 bits. A depositor who means to (he knows the key) may find two contents for one
//!   tag with 2⁶⁴ work; somebody who only knows the key afterwards needs 2¹²⁸.
//! - The root says nothing about *who* deposited: sign it, or keep it in a log.

mod bytes;
mod header;
mod keys;
mod manifest;
mod tags;

pub use header::{Header, HeaderError, Kind};
pub use keys::{AttemptKeys, KeyShare, MasterKey};
pub use manifest::{Manifest, ManifestError, Root, RootError};
pub use tags::{TAG_LEN, Tag, TagTable, TagTableError};

use std::fmt;

use model::{Entropy, EntropyError, ObjectId};

use crate::codec::Threshold;

/// The version this module writes and the only one it reads.
pub const VERSION: u8 = 1;
/// Plaintext bytes in a block: the largest BGZF block, so that one of those touches at most two.
pub const BLOCK: u64 = 64 << 10;
/// Plaintext bytes in an extent.
pub const EXTENT: u64 = 4 << 20;
/// Bytes of a header.
pub const HEADER: usize = 4096;
/// The most extents an object may have (8 TiB of plaintext), which bounds a manifest to 64 MiB.
pub const MAX_EXTENTS: u64 = 1 << 21;

/// One attempt at a deposit: 128 random bits. What is written under it is never written again.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttemptId(pub [u8; 16]);

impl AttemptId {
    /// A fresh one.
    pub fn random(entropy: &(impl Entropy + ?Sized)) -> Result<AttemptId, EntropyError> {
        let mut bytes = [0; 16];
        entropy.fill(&mut bytes)?;
        Ok(AttemptId(bytes))
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What every part of one deposit has in common, and what its keys are bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deposit {
    /// The object.
    pub object: ObjectId,
    /// How many times the object has been shared anew; a first deposit is epoch 1.
    pub epoch: u64,
    /// The attempt.
    pub attempt: AttemptId,
    /// How it is shared.
    pub threshold: Threshold,
}

/// Plaintext bytes in extent `extent` of an object of `size` bytes; 0 beyond its end.
pub fn extent_len(size: u64, extent: u64) -> u64 {
    size.saturating_sub(extent.saturating_mul(EXTENT)).min(EXTENT)
}

/// How many extents an object of `size` bytes has.
pub fn extent_count(size: u64) -> u64 {
    size.div_ceil(EXTENT)
}

/// The name of an object's extent, the same on all backends.
pub fn extent_name(object: &ObjectId, attempt: AttemptId, extent: u64) -> String {
    format!("{}/{attempt}/{extent:08x}", object.name())
}

/// The name of the manifest with this root, the same on all backends.
pub fn manifest_name(object: &ObjectId, root: &Root) -> String {
    format!("{}/{root}.manifest", object.name())
}

#[cfg(test)]
mod tests;
