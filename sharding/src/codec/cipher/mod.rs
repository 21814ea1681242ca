//! AES-256 in counter mode: for the random stream with its own little-endian counter, for GCM with
//! the counter of SP 800-38D. As wide as the machine allows, through the `aes` crate elsewhere.

// Only wide instructions move what is counted on.
#![cfg_attr(not(target_arch = "x86_64"), allow(unused_mut))]

#[cfg(target_arch = "x86_64")]
pub(super) mod vaes;

use aes::Aes256;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use zeroize::Zeroizing;

use super::ghash::{Backlog, Ghash};

/// Bytes of a tag.
pub const TAG_LEN: usize = 16;
/// Bytes of a nonce.
pub const NONCE_LEN: usize = 12;
/// Bytes in a block.
pub(super) const BLOCK: usize = 16;
/// Blocks enciphered at once.
const BATCH: usize = 32;
/// How much is enciphered before it is hashed, so that it is still in the first cache.
const STRIDE: usize = 4096;

/// Which side of an enciphering is the ciphertext, and hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hashed {
    /// Deciphering.
    Input,
    /// Enciphering.
    Output,
}

/// AES-256 under one key.
pub(super) struct Cipher {
    narrow: Aes256,
    #[cfg(target_arch = "x86_64")]
    wide: Option<vaes::Wide>,
}

impl Cipher {
    /// On the widest instructions of this machine.
    pub(super) fn new(key: &[u8; 32]) -> Cipher {
        Cipher {
            narrow: Aes256::new(key.into()),
            #[cfg(target_arch = "x86_64")]
            wide: vaes::Wide::new(key),
        }
    }

    /// Through the `aes` crate alone: what a machine without wide instructions does.
    #[cfg(test)]
    pub(super) fn narrow(key: &[u8; 32]) -> Cipher {
        let mut cipher = Cipher::new(key);
        #[cfg(target_arch = "x86_64")]
        {
            cipher.wide = None;
        }
        cipher
    }

    /// What enciphers on wide instructions, where the machine has them.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn wide(&self) -> Option<&vaes::Wide> {
        self.wide.as_ref()
    }

    /// One block.
    pub(super) fn block(&self, mut block: [u8; BLOCK]) -> [u8; BLOCK] {
        self.narrow.encrypt_block((&mut block).into());
        block
    }

    /// Writes blocks `counter..` of the random stream: the counter is little-endian in the first
    /// half of a block. Some or none of the backlog is done on the way.
    pub(super) fn stream(
        &self,
        mut counter: u64,
        mut blocks: &mut [[u8; BLOCK]],
        backlog: Option<&mut Backlog<'_>>,
    ) {
        #[cfg(target_arch = "x86_64")]
        if let Some(wide) = &self.wide {
            let done = wide.stream(counter, blocks, backlog);
            counter = counter.wrapping_add(done as u64);
            blocks = &mut blocks[done..];
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = backlog;
        for batch in blocks.chunks_mut(BATCH) {
            for block in batch.iter_mut() {
                *block = u128::from(counter).to_le_bytes();
                counter = counter.wrapping_add(1);
            }
            self.narrow.encrypt_blocks(aes::Block::cast_slice_from_core_mut(batch));
        }
    }

    /// Writes `from` plus (xor) the key stream of GCM from `counter` on to `to`, which is as long;
    /// returns the next unused counter.
    pub(super) fn xor(&self, nonce: &[u8; NONCE_LEN], mut counter: u32, from: &[u8], to: &mut [u8]) -> u32 {
        let mut done = 0;
        #[cfg(target_arch = "x86_64")]
        if let Some(wide) = &self.wide {
            done = wide.xor(nonce, counter, from, to);
            counter = counter.wrapping_add((done / BLOCK) as u32);
        }
        if done == from.len() {
            return counter;
        }
        let mut batch = Zeroizing::new([[0; BLOCK]; BATCH]);
        for (from, to) in from[done..].chunks(BATCH * BLOCK).zip(to[done..].chunks_mut(BATCH * BLOCK)) {
            let blocks = &mut batch[..from.len().div_ceil(BLOCK)];
            for block in blocks.iter_mut() {
                *block = numbered(nonce, counter);
                counter = counter.wrapping_add(1);
            }
            self.narrow.encrypt_blocks(aes::Block::cast_slice_from_core_mut(blocks));
            for ((to, from), key) in to.iter_mut().zip(from).zip(blocks.as_flattened()) {
                *to = from ^ key;
            }
        }
        counter
    }

    /// [`Cipher::xor`] from `counter` on, and takes the ciphertext into the hash.
    pub(super) fn xor_and_hash(
        &self,
        nonce: &[u8; NONCE_LEN],
        mut counter: u32,
        (from, to): (&[u8], &mut [u8]),
        hashed: Hashed,
        (hash, state): (&Ghash, &mut u128),
    ) {
        let mut done = 0;
        #[cfg(target_arch = "x86_64")]
        if let Some(wide) = &self.wide {
            done = wide.xor_and_hash(nonce, counter, (from, &mut *to), hashed, (hash, &mut *state));
            counter = counter.wrapping_add((done / BLOCK) as u32);
        }
        for (from, to) in from[done..].chunks(STRIDE).zip(to[done..].chunks_mut(STRIDE)) {
            counter = self.xor(nonce, counter, from, to);
            hash.absorb(state, if hashed == Hashed::Input { from } else { to });
        }
    }

    /// The tag of GCM from what its hash came to (SP 800-38D, section 7.1, step 6).
    pub(super) fn mask(&self, nonce: &[u8; NONCE_LEN], hash: u128) -> [u8; TAG_LEN] {
        (u128::from_be_bytes(self.block(numbered(nonce, 1))) ^ hash).to_be_bytes()
    }
}

/// The counter blocks of GCM for a nonce of 96 bits.
fn numbered(nonce: &[u8; NONCE_LEN], counter: u32) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..NONCE_LEN].copy_from_slice(nonce);
    block[NONCE_LEN..].copy_from_slice(&counter.to_be_bytes());
    block
}
