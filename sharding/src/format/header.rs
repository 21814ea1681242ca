//! The first 4 KiB of everything on a backend.

use super::bytes::{NAME_FIELD, Reader, SUITE, Writer};
use super::{AttemptId, BLOCK, Deposit, EXTENT, HEADER, KeyShare, VERSION};
use crate::codec::{ShareIndex, Threshold};

const MAGIC: &[u8; 8] = b"SEKISHRD";
const CHECKSUM: &str = "sekisho sharding v1 header checksum";
const USED: usize = 8 + 2 + 5 + 3 + 6 + 8 * 5 + 16 + 1 + NAME_FIELD + 32;

/// What follows a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The share of an extent.
    Extent {
        /// Its number, from 0.
        extent: u64,
        /// Its length in bytes, which is that of the plaintext.
        len: u64,
    },
    /// The manifest.
    Manifest {
        /// Its length in bytes.
        len: u64,
    },
}

/// What a backend's file says of itself. Only [`Header::share`] and [`Header::key_share`] differ
/// between backends.
#[derive(Debug, Clone)]
pub struct Header {
    /// What it belongs to.
    pub deposit: Deposit,
    /// Which share this is.
    pub share: ShareIndex,
    /// What follows.
    pub kind: Kind,
    /// This backend's share of the master key.
    pub key_share: KeyShare,
}

/// Why bytes are not a [`Header`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Fewer than 4096 bytes.
    #[error("the header is cut short")]
    Short,
    /// It does not begin like one.
    #[error("this is not a share of Sekisho's")]
    Magic,
    /// Of a later version.
    #[error(
        "the header is of version {0}, of which this programme knows nothing; it reads version {VERSION}"
    )]
    Version(u8),
    /// The checksum does not match: damage.
    #[error("the header is damaged")]
    Checksum,
    /// A field has a value that version 1 does not have.
    #[error("the header's fields contradict the format")]
    Field,
}

impl Header {
    /// Its 4096 bytes.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, index, len) = match self.kind {
            Kind::Extent { extent, len } => (1, extent, len),
            Kind::Manifest { len } => (2, u64::MAX, len),
        };
        let threshold = self.deposit.threshold;
        let mut out = Writer(Vec::with_capacity(HEADER));
        out.bytes(MAGIC).bytes(&[VERSION, kind]).bytes(&SUITE);
        out.bytes(&[threshold.k() as u8, threshold.n() as u8, self.share.x()]).zeros(6);
        out.u64(self.deposit.epoch).u64(BLOCK).u64(EXTENT).u64(index).u64(len);
        out.bytes(&self.deposit.attempt.0).object(&self.deposit.object).bytes(&self.key_share.0);
        out.zeros(HEADER - 32 - USED);
        let sum = checksum(&out.0);
        out.bytes(&sum);
        out.0
    }

    /// Reads the first 4096 bytes of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Header, HeaderError> {
        let mut sum = Reader(bytes.get(HEADER - 32..HEADER).ok_or(HeaderError::Short)?);
        let bytes = &bytes[..HEADER - 32];
        let mut from = Reader(bytes);
        if from.bytes(8) != Some(MAGIC) {
            return Err(HeaderError::Magic);
        }
        match from.array() {
            Some([VERSION]) => {}
            Some([other]) => return Err(HeaderError::Version(other)),
            None => return Err(HeaderError::Short),
        }
        if sum.array() != Some(checksum(bytes)) {
            return Err(HeaderError::Checksum);
        }
        Self::fields(from).ok_or(HeaderError::Field)
    }

    fn fields(mut from: Reader<'_>) -> Option<Header> {
        let [kind] = from.array()?;
        if from.array()? != SUITE {
            return None;
        }
        let [k, n, x] = from.array()?;
        let threshold = Threshold::new(k, n).ok()?;
        let share = ShareIndex::new(x).ok().filter(|share| share.place() < threshold.n())?;
        from.zeros(6)?;
        let epoch = from.u64()?;
        if from.u64()? != BLOCK || from.u64()? != EXTENT {
            return None;
        }
        let kind = match (kind, from.u64()?, from.u64()?) {
            (1, extent, len) if extent < super::MAX_EXTENTS && (1..=EXTENT).contains(&len) => {
                Kind::Extent { extent, len }
            }
            (2, u64::MAX, len) if len <= super::Manifest::MAX_LEN as u64 => Kind::Manifest { len },
            _ => return None,
        };
        let attempt = AttemptId(from.array()?);
        let object = from.object()?;
        let key_share = KeyShare(from.array()?);
        from.zeros(from.0.len())?;
        Some(Header { deposit: Deposit { object, epoch, attempt, threshold }, share, kind, key_share })
    }
}

/// Against accident only: who may write the file may write this too. A reader who knows the
/// manifest compares every field.
fn checksum(bytes: &[u8]) -> [u8; 32] {
    blake3::derive_key(CHECKSUM, bytes)
}
