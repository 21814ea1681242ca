//! The first 4 KiB of everything on a backend.

use super::bytes::{NAME_FIELD, Reader, Writer};
use super::{AttemptId, BLOCK, Deposit, EXTENT, HEADER, MAX_EXTENTS, Manifest, Scheme, SetId, VERSION};
use crate::codec::ShareIndex;

const MAGIC: &[u8; 8] = b"SEKISHRD";
const CHECKSUM: &str = "sekisho sharding v2 header checksum";
const USED: usize = 8 + 2 + 6 + 1 + 7 + 8 * 5 + 16 + 16 + 1 + NAME_FIELD;

/// What follows a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The share of an extent.
    Extent {
        /// Its number, from 0.
        extent: u64,
        /// Bytes of its plaintext.
        len: u64,
        /// The attempt at it.
        attempt: AttemptId,
    },
    /// The manifest.
    Manifest {
        /// Its length in bytes.
        len: u64,
    },
    /// The share of the master key.
    Key,
}

/// What a backend's file says of itself. Only [`Header::share`] differs between backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What it belongs to. An extent keeps the epoch in which it was written.
    pub deposit: Deposit,
    /// Which share this is.
    pub share: ShareIndex,
    /// What follows.
    pub kind: Kind,
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
    /// Of another version.
    #[error(
        "the header is of version {0}, of which this programme knows nothing; it reads version {VERSION}"
    )]
    Version(u8),
    /// The checksum does not match: damage.
    #[error("the header is damaged")]
    Checksum,
    /// A field has a value that version 2 does not have.
    #[error("the header's fields contradict the format")]
    Field,
}

impl Header {
    /// Its 4096 bytes.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, index, len, attempt) = match self.kind {
            Kind::Extent { extent, len, attempt } => (1, extent, len, attempt.0),
            Kind::Manifest { len } => (2, u64::MAX, len, [0; 16]),
            Kind::Key => (3, u64::MAX, 0, [0; 16]),
        };
        let Deposit { object, set, epoch, scheme } = &self.deposit;
        let mut out = Writer(Vec::with_capacity(HEADER));
        out.bytes(MAGIC).bytes(&[VERSION, kind]).bytes(&scheme.suite()).bytes(&[self.share.x()]).zeros(7);
        out.u64(*epoch).u64(BLOCK).u64(EXTENT).u64(index).u64(len);
        out.bytes(&set.0).bytes(&attempt).object(object);
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
        let scheme = Scheme::parse(&mut from)?;
        let [x] = from.array()?;
        let share = ShareIndex::new(x).ok().filter(|share| share.place() < scheme.threshold.n())?;
        from.zeros(7)?;
        let epoch = from.u64()?;
        if from.u64()? != BLOCK || from.u64()? != EXTENT {
            return None;
        }
        let (index, len) = (from.u64()?, from.u64()?);
        let set = SetId(from.array()?);
        let attempt: [u8; 16] = from.array()?;
        let kind = match (kind, index, len, attempt) {
            (1, extent, len, attempt) if extent < MAX_EXTENTS && (1..=EXTENT).contains(&len) => {
                Kind::Extent { extent, len, attempt: AttemptId(attempt) }
            }
            (2, u64::MAX, len, [0, ..]) if attempt == [0; 16] && len <= Manifest::MAX_LEN as u64 => {
                Kind::Manifest { len }
            }
            (3, u64::MAX, 0, [0, ..]) if attempt == [0; 16] => Kind::Key,
            _ => return None,
        };
        let object = from.object()?;
        from.zeros(from.0.len())?;
        Some(Header { deposit: Deposit { object, set, epoch, scheme }, share, kind })
    }
}

/// Against accident only: who may write the file may write this too. A reader who knows the
/// manifest compares every field.
fn checksum(bytes: &[u8]) -> [u8; 32] {
    blake3::derive_key(CHECKSUM, bytes)
}
