//! Buffers of what nobody shall find in memory later.

use std::fmt;
use std::ops::{Deref, DerefMut};

use zeroize::Zeroize;

/// Bytes that are wiped when they are dropped: plaintext, and shares that together are plaintext.
///
/// A `Zeroizing<Vec<u8>>` does the same byte by byte, at a sixth of the speed, which is slower than
/// sharing.
#[derive(Default)]
pub struct Wiped(Vec<u8>);

impl Wiped {
    /// So many zeros.
    pub fn zeros(len: usize) -> Wiped {
        Wiped(vec![0; len])
    }

    /// Nothing yet, with room for `len` bytes.
    pub fn with_room_for(len: usize) -> Wiped {
        Wiped(Vec::with_capacity(len))
    }

    /// Adds `bytes` at the end.
    ///
    /// # Panics
    /// If there is no room: bytes that moved elsewhere would leave a copy behind.
    pub fn extend(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.0.capacity() - self.0.len(), "no room for so many bytes");
        self.0.extend_from_slice(bytes);
    }

    /// Leaves the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// All of them.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        self.0.spare_capacity_mut().zeroize();
        self.0.as_mut_slice().zeroize();
    }
}

impl Deref for Wiped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Wiped {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Wiped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wiped({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_added_as_long_as_there_is_room() {
        let mut bytes = Wiped::with_room_for(3);
        bytes.extend(b"ab");
        bytes.extend(b"c");
        assert_eq!(bytes.as_slice(), b"abc");
        bytes.truncate(1);
        assert_eq!(format!("{bytes:?} {}", bytes.len()), "Wiped(1 bytes) 1");
    }

    #[test]
    #[should_panic(expected = "no room")]
    fn nothing_moves_elsewhere() {
        let mut bytes = Wiped::zeros(2);
        let room = bytes.0.capacity() - 2;
        bytes.extend(&vec![1; room + 1]);
    }
}
