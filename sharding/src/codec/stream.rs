//! The random stream: AES-256 in counter mode (the counter little-endian, from 0). Its key is
//! drawn for one extent of one attempt and is never stored: a key used twice would hand the
//! difference of two secrets to one backend.

use model::{Entropy, EntropyError};
use zeroize::Zeroizing;

use super::cipher::{BLOCK, Cipher};

/// A stream of bytes that nobody without its key can tell from random ones.
pub struct RandomStream {
    cipher: Cipher,
    counter: u64,
    left: Zeroizing<[u8; BLOCK]>,
    left_from: usize,
}

impl RandomStream {
    /// Under a fresh key from `entropy`.
    pub fn fresh(entropy: &(impl Entropy + ?Sized)) -> Result<RandomStream, EntropyError> {
        let mut key = Zeroizing::new([0; 32]);
        entropy.fill(&mut key[..])?;
        Ok(RandomStream::under(&key))
    }

    /// Under `key`, from the beginning. A key may be used for one stream only.
    pub fn under(key: &[u8; 32]) -> RandomStream {
        RandomStream {
            cipher: Cipher::new(key),
            counter: 0,
            left: Zeroizing::new([0; BLOCK]),
            left_from: BLOCK,
        }
    }

    /// Gives the next `bytes.len()` bytes. (2⁶⁸ bytes make one stream; nobody lives to see the end.)
    pub fn fill(&mut self, bytes: &mut [u8]) {
        let kept = bytes.len().min(BLOCK - self.left_from);
        let (head, bytes) = bytes.split_at_mut(kept);
        head.copy_from_slice(&self.left[self.left_from..self.left_from + kept]);
        self.left_from += kept;

        let (whole, tail) = bytes.as_chunks_mut::<BLOCK>();
        self.cipher.stream(self.counter, whole);
        self.counter = self.counter.wrapping_add(whole.len() as u64);
        if !tail.is_empty() {
            self.cipher.stream(self.counter, std::slice::from_mut(&mut self.left));
            self.counter = self.counter.wrapping_add(1);
            tail.copy_from_slice(&self.left[..tail.len()]);
            self.left_from = tail.len();
        }
    }
}

impl std::fmt::Debug for RandomStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RandomStream").finish_non_exhaustive()
    }
}
