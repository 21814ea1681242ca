//! What lies on a backend, version 2; `docs/format.md` (at the root) describes it byte by byte.
//!
//! An object is cut into extents of 4 MiB, an extent into blocks of 64 KiB; the last of each may
//! be short. Every backend keeps, under the same names, its own share of each extent (a [`Header`],
//! the shares of the blocks, the [`TagTable`] of the extent), its share of the master key (a
//! [`Header`] and a [`KeyFile`]) and, written last, the manifest (a [`Header`] and the
//! [`Manifest`], which is the same everywhere).
//!
//! # Two modes
//! In [`Mode::Shamir`] every byte is shared by itself. In [`Mode::Compact`] a block is encrypted
//! under a key derived from the master key, and the ciphertext dispersed by a systematic erasure
//! code: shares are a `k`-th as long, and only the 32 bytes of the master key are secret-shared.
//! Files, tags and manifest have the same shape in both.
//!
//! # Who checks what
//! - The *root* is the hash of the manifest. Whoever pinned it recognises exactly one manifest.
//! - The manifest pins the hash of every extent's tag table and of every key share, and says which
//!   attempt at each extent counts.
//! - A tag table has, for every block, a tag of the block and one of each share, 16 bytes each,
//!   keyed. A reader rebuilds a block from `k` shares and checks the block's tag; only if that
//!   fails do the shares' tags tell who lied.
//! - A header carries nothing that is not also in the manifest, but for its backend's number; a
//!   reader compares it whole.
//!
//! # Where the keys live
//! Plain hashes of shares would let one backend confirm a guess at the plaintext, so tags are
//! keyed, and the keys must be as hard to come by as the plaintext. Every share set has one 32-byte
//! [`MasterKey`], shared out like the data. The keys of an extent are derived from it per (object,
//! set, extent, attempt, share): no key ever meets two plaintexts of a block. Fewer than `k`
//! backends hence see tags of a pseudo-random function under a key that they lack.
//!
//! # What is not defended
//! - Whoever knows the master key (the depositor, or `k` backends that conspire) can find other
//!   shares with the same tags. In mode `shamir` the block's tag is a hash, and a second plaintext
//!   for it costs 2¹²⁸ work (2⁶⁴ for a depositor who prepares both); in mode `compact` it is
//!   AES-GCM's, and whoever knows the key can make one. The root then no longer pins the content
//!   against `k` backends that conspire.
//! - An unsigned root says nothing about *who* deposited: sign it, or keep it in a log.

mod block;
mod bytes;
mod header;
mod keys;
mod manifest;
mod scheme;
mod tags;

pub use block::{BlockDecoder, BlockEncoder, ExtentKeys};
pub use header::{Header, HeaderError, Kind};
pub use keys::{KeyFile, KeyShare, MasterKey};
pub use manifest::{ExtentEntry, Manifest, ManifestError, ManifestSignature, Root, RootError};
pub use scheme::{Mode, ModeError, Scheme};
pub use tags::{Tag, TagTable, TagTableError};

use std::fmt;
use std::str::FromStr;

use model::{Entropy, EntropyError, ObjectId};

/// The version this module writes and the only one it reads.
pub const VERSION: u8 = 2;
/// Plaintext bytes in a block: the largest BGZF block, so that one of those touches at most two.
pub const BLOCK: u64 = 64 << 10;
/// Plaintext bytes in an extent.
pub const EXTENT: u64 = 4 << 20;
/// Bytes of a tag.
pub const TAG_LEN: usize = 16;
/// Bytes of a header.
pub const HEADER: usize = 4096;
/// The most extents an object may have (8 TiB of plaintext), which bounds a manifest to 97 MiB.
pub const MAX_EXTENTS: u64 = 1 << 21;

macro_rules! random_ids {
    ($($(#[$doc:meta])* $name:ident),*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// A fresh one.
            pub fn random(entropy: &(impl Entropy + ?Sized)) -> Result<$name, EntropyError> {
                let mut bytes = [0; 16];
                entropy.fill(&mut bytes)?;
                Ok($name(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = RandomIdError;

            fn from_str(text: &str) -> Result<$name, RandomIdError> {
                hexadecimal(text).map($name).ok_or(RandomIdError)
            }
        }
    )*};
}

random_ids!(
    /// One share set: 128 random bits drawn when a deposit begins. All its keys come from one
    /// master key.
    SetId,
    /// One attempt at an extent: 128 random bits. What is written under it is never written again
    /// with other bytes.
    AttemptId
);

/// A text that is not the number of a set or an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it has 32 lower-case hexadecimal digits")]
pub struct RandomIdError;

/// What every part of one share set has in common, and what its keys are bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deposit {
    /// The object.
    pub object: ObjectId,
    /// The share set.
    pub set: SetId,
    /// How many times the object has been shared; a first deposit is epoch 1.
    pub epoch: u64,
    /// How it is shared.
    pub scheme: Scheme,
}

/// Plaintext bytes in extent `extent` of an object of `size` bytes; 0 beyond its end.
pub fn extent_len(size: u64, extent: u64) -> u64 {
    size.saturating_sub(extent.saturating_mul(EXTENT)).min(EXTENT)
}

/// How many extents an object of `size` bytes has.
pub fn extent_count(size: u64) -> u64 {
    size.div_ceil(EXTENT)
}

/// The files of an object, named the same on all backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum File {
    /// `OBJECT/SET/EEEEEEEE.ATTEMPT`
    Extent(SetId, u64, AttemptId),
    /// `OBJECT/SET/EPOCH.key`, the epoch in 16 hexadecimal digits.
    Key(SetId, u64),
    /// `OBJECT/ROOT.manifest`
    Manifest(Root),
}

impl File {
    /// Where it lies on a backend.
    pub fn name(&self, object: &ObjectId) -> String {
        let object = object.name();
        match self {
            File::Extent(set, extent, attempt) => format!("{object}/{set}/{extent:08x}.{attempt}"),
            File::Key(set, epoch) => format!("{object}/{set}/{epoch:016x}.key"),
            File::Manifest(root) => format!("{object}/{root}.manifest"),
        }
    }

    /// The file with this name, which is told without the object's folder; `None` for a foreign one.
    pub fn parse(name: &str) -> Option<File> {
        let file = match name.split_once('/') {
            None => File::Manifest(name.strip_suffix(".manifest")?.parse().ok()?),
            Some((set, file)) => {
                let set = set.parse().ok()?;
                match file.split_once('.')? {
                    (epoch, "key") => File::Key(set, u64::from_be_bytes(hexadecimal(epoch)?)),
                    (extent, attempt) => {
                        let extent = u32::from_be_bytes(hexadecimal(extent)?);
                        File::Extent(set, u64::from(extent), attempt.parse().ok()?)
                    }
                }
            }
        };
        Some(file)
    }
}

/// Exactly `N` bytes in lower-case hexadecimal digits.
fn hexadecimal<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if pairs.len() != N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;
