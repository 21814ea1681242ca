//! The manifest: the same bytes on every backend; its hash is the root.

use std::fmt;
use std::str::FromStr;

use model::ObjectId;

use super::bytes::{NAME_FIELD, Reader, SUITE, Writer};
use super::{AttemptId, BLOCK, Deposit, EXTENT, MAX_EXTENTS, VERSION, extent_count};
use crate::codec::{MAX_SHARES, Threshold};

const MAGIC: &[u8; 8] = b"SEKIMANI";
const ROOT: &str = "sekisho sharding v1 manifest root";
const FIXED: usize = 8 + 1 + 5 + 2 + 8 * 5 + 16 + 1 + NAME_FIELD;

/// The hash of a manifest: 32 bytes, printed and parsed as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Root(pub [u8; 32]);

/// A text that is not a [`Root`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a root has 64 lower-case hexadecimal digits")]
pub struct RootError;

/// Everything that is known of a deposited object and is no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// What and how.
    pub deposit: Deposit,
    /// Length of the plaintext in bytes.
    pub size: u64,
    /// For each share the commitment to its key share.
    pub commitments: Vec<[u8; 32]>,
    /// For each extent the digest of its tag table.
    pub extents: Vec<[u8; 32]>,
}

/// Why bytes are not a [`Manifest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It does not begin like one.
    #[error("this is not a manifest")]
    Magic,
    /// Of a later version.
    #[error(
        "the manifest is of version {0}, of which this programme knows nothing; it reads version {VERSION}"
    )]
    Version(u8),
    /// Longer or shorter than its fields say, or too long for any object.
    #[error("the manifest has a wrong length")]
    Length,
    /// A field has a value that version 1 does not have.
    #[error("the manifest's fields contradict the format")]
    Field,
}

impl Manifest {
    /// The longest there is.
    pub const MAX_LEN: usize = FIXED + 32 * (MAX_SHARES as usize + MAX_EXTENTS as usize);

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let Deposit { object, epoch, attempt, threshold } = &self.deposit;
        let mut out = Writer(Vec::with_capacity(FIXED + 32 * (self.commitments.len() + self.extents.len())));
        out.bytes(MAGIC).bytes(&[VERSION]).bytes(&SUITE).bytes(&[threshold.k() as u8, threshold.n() as u8]);
        out.u64(*epoch).u64(BLOCK).u64(EXTENT).u64(self.size).u64(self.extents.len() as u64);
        out.bytes(&attempt.0).object(object);
        out.bytes(self.commitments.as_flattened()).bytes(self.extents.as_flattened());
        out.0
    }

    /// Reads all of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Manifest, ManifestError> {
        if bytes.len() > Self::MAX_LEN {
            return Err(ManifestError::Length);
        }
        let mut from = Reader(bytes);
        if from.bytes(8) != Some(MAGIC) {
            return Err(ManifestError::Magic);
        }
        match from.array() {
            Some([VERSION]) => {}
            Some([other]) => return Err(ManifestError::Version(other)),
            None => return Err(ManifestError::Length),
        }
        let (deposit, size, extents) = Self::fields(&mut from).ok_or(ManifestError::Field)?;
        let digests = deposit.threshold.n() + extents as usize;
        let (digests, rest) = from.0.as_chunks().0.split_at_checked(digests).ok_or(ManifestError::Length)?;
        if !rest.is_empty() || from.0.len() % 32 != 0 {
            return Err(ManifestError::Length);
        }
        let (commitments, extents) = digests.split_at(deposit.threshold.n());
        Ok(Manifest { deposit, size, commitments: commitments.to_vec(), extents: extents.to_vec() })
    }

    fn fields(from: &mut Reader<'_>) -> Option<(Deposit, u64, u64)> {
        if from.array()? != SUITE {
            return None;
        }
        let [k, n] = from.array()?;
        let threshold = Threshold::new(k, n).ok()?;
        let epoch = from.u64()?;
        if from.u64()? != BLOCK || from.u64()? != EXTENT {
            return None;
        }
        let (size, extents) = (from.u64()?, from.u64()?);
        if extents > MAX_EXTENTS || extents != extent_count(size) {
            return None;
        }
        let attempt = AttemptId(from.array()?);
        let object: ObjectId = from.object()?;
        Some((Deposit { object, epoch, attempt, threshold }, size, extents))
    }
}

impl Root {
    /// Of an encoded manifest.
    pub fn of(manifest: &[u8]) -> Root {
        Root(blake3::derive_key(ROOT, manifest))
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Root {
    type Err = RootError;

    fn from_str(text: &str) -> Result<Root, RootError> {
        let mut root = [0; 32];
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(RootError);
        }
        for (byte, pair) in root.iter_mut().zip(digits.as_chunks::<2>().0) {
            let digit = |c: u8| match c {
                b'0'..=b'9' => Ok(c - b'0'),
                b'a'..=b'f' => Ok(c - b'a' + 10),
                _ => Err(RootError),
            };
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Root(root))
    }
}
