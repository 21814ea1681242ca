//! The manifest: the same bytes on every backend. Its root recognises it among all others.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use super::bytes::{NAME_FIELD, Reader, Writer};
use super::{
    AttemptId, BLOCK, Deposit, EXTENT, MAX_EXTENTS, Scheme, SetId, VERSION, extent_count, hexadecimal,
};
use crate::codec::MAX_SHARES;

const MAGIC: &[u8; 8] = b"SEKIMANI";
const ROOT: &str = "sekisho sharding v2 manifest root";
const LEAF: &str = "sekisho sharding v2 extent";
const NODE: &str = "sekisho sharding v2 extents";
const SIGNED: &[u8] = b"sekisho sharding v2 manifest signature\0";
const FIXED: usize = 8 + 1 + 6 + 1 + 8 * 5 + 16 + 1 + NAME_FIELD + 32;
const EXTENT_ENTRY: usize = 16 + 32;
const SIGNATURE: usize = 64;

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
    /// The extents in order.
    pub extents: Vec<ExtentEntry>,
    /// Who deposited, if it was signed.
    pub signature: Option<ManifestSignature>,
}

/// What the manifest says of an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtentEntry {
    /// The attempt that was acknowledged.
    pub attempt: AttemptId,
    /// The digest of its tag table.
    pub digest: [u8; 32],
}

/// An Ed25519 signature (RFC 8032) of a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ManifestSignature {
    /// The public key, which the root covers.
    pub key: [u8; 32],
    /// The signature of the root.
    pub signature: [u8; SIGNATURE],
}

/// Why bytes are not a [`Manifest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It does not begin like one.
    #[error("this is not a manifest")]
    Magic,
    /// Of another version.
    #[error(
        "the manifest is of version {0}, of which this programme knows nothing; it reads version {VERSION}"
    )]
    Version(u8),
    /// Longer or shorter than its fields say, or too long for any object.
    #[error("the manifest has a wrong length")]
    Length,
    /// A field has a value that version 2 does not have.
    #[error("the manifest's fields contradict the format")]
    Field,
    /// The key that it names did not sign it.
    #[error("the manifest's signature is not one")]
    Signature,
}

impl Manifest {
    /// The longest there is.
    pub const MAX_LEN: usize =
        FIXED + 32 * MAX_SHARES as usize + EXTENT_ENTRY * MAX_EXTENTS as usize + SIGNATURE;

    /// Signs it.
    pub fn sign(&mut self, key: &SigningKey) {
        let mut signature =
            ManifestSignature { key: key.verifying_key().to_bytes(), signature: [0; SIGNATURE] };
        self.signature = Some(signature);
        signature.signature = key.sign(&signed_text(self.root())).to_bytes();
        self.signature = Some(signature);
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let extents = EXTENT_ENTRY * self.extents.len();
        let mut out = Writer(Vec::with_capacity(FIXED + 32 * self.commitments.len() + extents + SIGNATURE));
        self.head(&mut out);
        for ExtentEntry { attempt, digest } in &self.extents {
            out.bytes(&attempt.0).bytes(digest);
        }
        out.bytes(&self.signature.map_or([0; SIGNATURE], |signature| signature.signature));
        out.0
    }

    /// Everything before the extents.
    fn head(&self, out: &mut Writer) {
        let Deposit { object, set, epoch, scheme } = &self.deposit;
        out.bytes(MAGIC).bytes(&[VERSION]).bytes(&scheme.suite()).zeros(1);
        out.u64(*epoch).u64(BLOCK).u64(EXTENT).u64(self.size).u64(self.extents.len() as u64);
        out.bytes(&set.0).object(object);
        out.bytes(&self.signature.map_or([0; 32], |signature| signature.key));
        out.bytes(self.commitments.as_flattened());
    }

    /// What recognises it: the hash of everything before the extents and of the Merkle tree over
    /// them. It covers who signed, and thereby needs no signature.
    pub fn root(&self) -> Root {
        let mut out = Writer::default();
        self.head(&mut out);
        out.bytes(&tree(&self.extents));
        Root(blake3::derive_key(ROOT, &out.0))
    }

    /// Reads all of `bytes` and checks the signature, if there is one.
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
        let (deposit, size, count, key) = Self::fields(&mut from).ok_or(ManifestError::Field)?;
        let n = deposit.scheme.threshold.n();
        if from.0.len() != 32 * n + EXTENT_ENTRY * count as usize + SIGNATURE {
            return Err(ManifestError::Length);
        }
        let rest = |from: &mut Reader<'_>| {
            let commitments = (0..n).map(|_| from.array()).collect::<Option<Vec<_>>>()?;
            let entry = |from: &mut Reader<'_>| {
                Some(ExtentEntry { attempt: AttemptId(from.array()?), digest: from.array()? })
            };
            let extents = (0..count).map(|_| entry(from)).collect::<Option<Vec<_>>>()?;
            Some((commitments, extents, from.array::<SIGNATURE>()?))
        };
        let (commitments, extents, signature) = rest(&mut from).ok_or(ManifestError::Length)?;
        let signature = match (key, signature) {
            ([0, ..], [0, ..]) if key == [0; 32] && signature == [0; SIGNATURE] => None,
            _ => Some(ManifestSignature { key, signature }),
        };
        let manifest = Manifest { deposit, size, commitments, extents, signature };
        if manifest.is_signed_as_it_says() { Ok(manifest) } else { Err(ManifestError::Signature) }
    }

    fn fields(from: &mut Reader<'_>) -> Option<(Deposit, u64, u64, [u8; 32])> {
        let scheme = Scheme::parse(from)?;
        from.zeros(1)?;
        let epoch = from.u64()?;
        if from.u64()? != BLOCK || from.u64()? != EXTENT {
            return None;
        }
        let (size, count) = (from.u64()?, from.u64()?);
        if count > MAX_EXTENTS || count != extent_count(size) {
            return None;
        }
        let set = SetId(from.array()?);
        let object = from.object()?;
        Some((Deposit { object, set, epoch, scheme }, size, count, from.array()?))
    }

    fn is_signed_as_it_says(&self) -> bool {
        self.signature.is_none_or(|ManifestSignature { key, signature }| {
            VerifyingKey::from_bytes(&key).is_ok_and(|key| {
                key.verify_strict(&signed_text(self.root()), &Signature::from_bytes(&signature)).is_ok()
            })
        })
    }
}

fn signed_text(root: Root) -> Vec<u8> {
    [SIGNED, &root.0].concat()
}

/// A binary tree over the extents in order: a node that has no neighbour moves up unchanged.
fn tree(extents: &[ExtentEntry]) -> [u8; 32] {
    let leaf = |(number, ExtentEntry { attempt, digest }): (u64, &ExtentEntry)| {
        let mut hasher = blake3::Hasher::new_derive_key(LEAF);
        hasher.update(&number.to_le_bytes()).update(&attempt.0).update(digest);
        *hasher.finalize().as_bytes()
    };
    let mut level: Vec<[u8; 32]> = (0..).zip(extents).map(leaf).collect();
    while level.len() > 1 {
        let up = |pair: &[[u8; 32]]| match pair {
            [alone] => *alone,
            both => blake3::derive_key(NODE, both.as_flattened()),
        };
        level = level.chunks(2).map(up).collect();
    }
    level.pop().unwrap_or_else(|| blake3::derive_key(NODE, b""))
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
        hexadecimal(text).map(Root).ok_or(RootError)
    }
}
