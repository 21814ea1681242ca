//! The random stream: AES-256 in counter mode (the counter little-endian, from 0). Its key is drawn for one extent of one attempt and
//! is never stored: a key used twice would hand the difference of two secrets to one backend.

#[cfg(target_arch = "x86_64")]
mod vaes;

use aes::Aes256;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use model::{Entropy, EntropyError};
use zeroize::Zeroizing;

/// Blocks enciphered at once.
const BATCH: usize = 32;
const BLOCK: usize = 16;

/// A stream of bytes that nobody without its key can tell from random ones.
pub struct RandomStream {
    cipher: Aes256,
    #[cfg(target_arch = "x86_64")]
    wide: Option<vaes::Wide>,
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
            cipher: Aes256::new(key.into()),
            #[cfg(target_arch = "x86_64")]
            wide: vaes::Wide::new(key),
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
        let done = self.fill_wide(whole);
        for batch in whole[done..].chunks_mut(BATCH) {
            for block in batch.iter_mut() {
                *block = self.next_counter();
            }
            self.cipher.encrypt_blocks(aes::Block::cast_slice_from_core_mut(batch));
        }
        if !tail.is_empty() {
            *self.left = self.next_counter();
            self.cipher.encrypt_block((&mut *self.left).into());
            tail.copy_from_slice(&self.left[..tail.len()]);
            self.left_from = tail.len();
        }
    }

    /// As many blocks as fit the widest instructions of this machine; how many.
    fn fill_wide(&mut self, blocks: &mut [[u8; BLOCK]]) -> usize {
        #[cfg(target_arch = "x86_64")]
        if let Some(wide) = &self.wide {
            let done = wide.fill(self.counter, blocks);
            self.counter = self.counter.wrapping_add(done as u64);
            return done;
        }
        let _ = blocks;
        0
    }

    fn next_counter(&mut self) -> [u8; BLOCK] {
        let block = u128::from(self.counter).to_le_bytes();
        self.counter = self.counter.wrapping_add(1);
        block
    }
}

impl std::fmt::Debug for RandomStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RandomStream").finish_non_exhaustive()
    }
}
