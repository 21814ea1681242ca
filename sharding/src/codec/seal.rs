//! Sealing: AES-256-GCM.

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::cipher::{Cipher, Hashed, NONCE_LEN, TAG_LEN};
use super::ghash::{Ghash, Kernel};
use super::mac::lengths;

/// AES-256-GCM without additional data (NIST SP 800-38D), so that any GCM opens what it seals.
///
/// **Two plaintexts sealed under one key and one nonce give their difference away, and the key of
/// the hash with which anything can be forged.** One nonce takes at most 2³⁶ − 32 bytes (section
/// 5.2.1.1); longer slices are a defect of the caller and panic.
pub struct Sealer {
    cipher: Cipher,
    hash: Ghash,
}

impl Sealer {
    /// The most bytes under one nonce.
    pub const MAX_LEN: u64 = (1 << 36) - 32;

    /// Under `key`, which is used for nothing else.
    pub fn new(key: &[u8; 32]) -> Sealer {
        Sealer::on(Cipher::new(key), Kernel::best())
    }

    pub(super) fn on(cipher: Cipher, kernel: Kernel) -> Sealer {
        let hash = Ghash::new(&cipher.block([0; 16]), kernel);
        Sealer { cipher, hash }
    }

    /// Enciphers `plain` into `cipher`, which is as long, and returns the tag.
    ///
    /// # Panics
    /// If the lengths differ.
    #[must_use]
    pub fn seal(&self, nonce: &[u8; NONCE_LEN], plain: &[u8], cipher: &mut [u8]) -> [u8; TAG_LEN] {
        check(plain, cipher);
        let mut state = Zeroizing::new(0);
        let hash = (&self.hash, &mut *state);
        self.cipher.xor_and_hash(nonce, FIRST, (plain, cipher), Hashed::Output, hash);
        self.finish(nonce, &mut state, plain.len())
    }

    /// Deciphers `cipher` into `plain`, which is as long, if `tag` is its tag. If it is not, says
    /// so and leaves `plain` zero: nobody acts on what somebody else made up.
    ///
    /// # Panics
    /// If the lengths differ.
    #[must_use]
    pub fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        cipher: &[u8],
        plain: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> bool {
        check(cipher, plain);
        let mut state = Zeroizing::new(0);
        let hash = (&self.hash, &mut *state);
        self.cipher.xor_and_hash(nonce, FIRST, (cipher, &mut *plain), Hashed::Input, hash);
        let good: bool = self.finish(nonce, &mut state, cipher.len()).ct_eq(tag).into();
        if !good {
            plain.zeroize();
        }
        good
    }

    fn finish(&self, nonce: &[u8; NONCE_LEN], state: &mut u128, len: usize) -> [u8; TAG_LEN] {
        self.hash.absorb(state, &lengths(0, len as u64));
        self.cipher.mask(nonce, *state)
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

/// The counter of the first block of text; 1 masks the tag.
const FIRST: u32 = 2;

fn check(from: &[u8], to: &[u8]) {
    assert!(from.len() == to.len() && from.len() as u64 <= Sealer::MAX_LEN);
}
