//! The random stream. Its key is drawn for one extent of one attempt and is never stored: a key
//! used twice would hand the difference of two secrets to one backend.
//!
//! It is AES-256 in counter mode (the counter little-endian, from 0) where the processor has
//! instructions for it, and ChaCha20 (RFC 8439, the nonce zero, the counter from 0) where it has
//! none and AES would be slow. Nobody who combines shares needs to know which it was.

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use model::{Entropy, EntropyError};
use zeroize::{Zeroize, Zeroizing};

use super::cipher::{BLOCK, Cipher};
use super::ghash::Backlog;

/// A stream of bytes that nobody without its key can tell from random ones.
pub struct RandomStream(Source);

/// What makes a [`RandomStream`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamKind {
    /// AES-256 in counter mode. A stream has 2⁶⁸ bytes; nobody lives to see its end.
    Aes256Ctr,
    /// ChaCha20. A stream has 2³⁸ bytes, 65,536 times as many as the largest extent takes.
    ChaCha20,
}

enum Source {
    Aes(Box<Aes>),
    ChaCha(Box<ChaCha20>),
}

struct Aes {
    cipher: Cipher,
    counter: u64,
    left: Zeroizing<[u8; BLOCK]>,
    left_from: usize,
}

impl StreamKind {
    /// The faster one on this machine.
    pub fn best() -> StreamKind {
        #[cfg(target_arch = "x86_64")]
        let able = is_x86_feature_detected!("aes");
        #[cfg(target_arch = "aarch64")]
        let able = std::arch::is_aarch64_feature_detected!("aes");
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let able = false;
        if able { StreamKind::Aes256Ctr } else { StreamKind::ChaCha20 }
    }
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
        RandomStream::of_kind(StreamKind::best(), key)
    }

    /// The same, of a kind of choice: for tests and benchmarks.
    pub fn of_kind(kind: StreamKind, key: &[u8; 32]) -> RandomStream {
        RandomStream(match kind {
            StreamKind::Aes256Ctr => Source::Aes(Box::new(Aes {
                cipher: Cipher::new(key),
                counter: 0,
                left: Zeroizing::new([0; BLOCK]),
                left_from: BLOCK,
            })),
            StreamKind::ChaCha20 => {
                Source::ChaCha(Box::new(ChaCha20::new(key.into(), &chacha20::Nonce::default())))
            }
        })
    }

    /// What makes it: to be written down beside what it made.
    pub fn kind(&self) -> StreamKind {
        match self.0 {
            Source::Aes(_) => StreamKind::Aes256Ctr,
            Source::ChaCha(_) => StreamKind::ChaCha20,
        }
    }

    /// Gives the next `bytes.len()` bytes.
    ///
    /// # Panics
    /// At the end of the stream.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.fill_meanwhile(bytes, None);
    }

    /// The same, and does some or none of the backlog meanwhile.
    pub(super) fn fill_meanwhile(&mut self, bytes: &mut [u8], backlog: Option<&mut Backlog<'_>>) {
        match &mut self.0 {
            Source::Aes(aes) => aes.fill(bytes, backlog),
            Source::ChaCha(chacha) => {
                bytes.zeroize();
                chacha.apply_keystream(bytes);
            }
        }
    }

    /// Wide instructions that make `blocks` blocks of the stream, and the number of the first; they
    /// count as given.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn take_wide(&mut self, blocks: u64) -> Option<(&super::cipher::vaes::Wide, u64)> {
        let Source::Aes(aes) = &mut self.0 else { return None };
        let wide = aes.cipher.wide()?;
        let first = aes.counter;
        aes.counter = first.wrapping_add(blocks);
        Some((wide, first))
    }
}

impl std::fmt::Debug for RandomStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RandomStream").field(&self.kind()).finish()
    }
}

impl Aes {
    fn fill(&mut self, bytes: &mut [u8], backlog: Option<&mut Backlog<'_>>) {
        let kept = bytes.len().min(BLOCK - self.left_from);
        let (head, bytes) = bytes.split_at_mut(kept);
        head.copy_from_slice(&self.left[self.left_from..self.left_from + kept]);
        self.left_from += kept;

        let (whole, tail) = bytes.as_chunks_mut::<BLOCK>();
        self.cipher.stream(self.counter, whole, backlog);
        self.counter = self.counter.wrapping_add(whole.len() as u64);
        if !tail.is_empty() {
            self.cipher.stream(self.counter, std::slice::from_mut(&mut self.left), None);
            self.counter = self.counter.wrapping_add(1);
            tail.copy_from_slice(&self.left[..tail.len()]);
            self.left_from = tail.len();
        }
    }
}
