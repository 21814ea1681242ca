//! The tags of one extent: the same bytes on every backend, pinned by the manifest.

use bytes::Bytes;

use super::{Scheme, TAG_LEN};
use crate::codec::ShareIndex;

const DIGEST: &str = "sekisho sharding v2 tag table";

/// What authenticates a block or one of its shares.
pub type Tag = [u8; TAG_LEN];

/// For each block of an extent in order: the tag of the block, then those of its `n` shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagTable {
    scheme: Scheme,
    bytes: Bytes,
}

/// Why bytes are not the [`TagTable`] of an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TagTableError {
    /// Another length than the extent's.
    #[error("the table of tags has {actual} bytes instead of {expected}")]
    Length {
        /// What the extent's length asks for.
        expected: usize,
        /// What was there.
        actual: usize,
    },
    /// Not the table that the manifest names.
    #[error("the table of tags is not the one that the manifest names")]
    Digest,
}

impl TagTable {
    /// From tags in the order in which they lie: see [`TagTable`].
    pub fn from_tags(scheme: Scheme, tags: &[Tag]) -> TagTable {
        TagTable { scheme, bytes: Bytes::copy_from_slice(tags.as_flattened()) }
    }

    /// Checks the length alone, for whoever has yet to learn the digest.
    pub fn unpinned(scheme: Scheme, len: u64, bytes: &[u8]) -> Result<TagTable, TagTableError> {
        let expected = scheme.table_len(len);
        if bytes.len() != expected {
            return Err(TagTableError::Length { expected, actual: bytes.len() });
        }
        Ok(TagTable { scheme, bytes: Bytes::copy_from_slice(bytes) })
    }

    /// Checks length and digest.
    pub fn parse(
        scheme: Scheme,
        extent: u64,
        len: u64,
        bytes: &[u8],
        digest: &[u8; 32],
    ) -> Result<TagTable, TagTableError> {
        let table = TagTable::unpinned(scheme, len, bytes)?;
        if table.digest(extent, len) == *digest { Ok(table) } else { Err(TagTableError::Digest) }
    }

    /// What the manifest says of this table.
    pub fn digest(&self, extent: u64, len: u64) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(DIGEST);
        hasher.update(&extent.to_le_bytes()).update(&len.to_le_bytes()).update(&self.bytes);
        *hasher.finalize().as_bytes()
    }

    /// As it lies on a backend.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The tag of block `block`, counted within the extent.
    pub fn block(&self, block: usize) -> Option<&Tag> {
        self.at(block, 0)
    }

    /// The tag of share `x` of that block.
    pub fn share(&self, block: usize, x: ShareIndex) -> Option<&Tag> {
        self.at(block, usize::from(x.x()))
    }

    fn at(&self, block: usize, column: usize) -> Option<&Tag> {
        let row = self.scheme.threshold.n() + 1;
        self.bytes.as_chunks().0.get(block.checked_mul(row)?.checked_add(column)?)
    }
}
