//! Tags: AES-256-GMAC.

use zeroize::Zeroizing;

use super::cipher::{Cipher, NONCE_LEN, TAG_LEN};
use super::ghash::{Backlog, Ghash, Kernel};

/// AES-256-GMAC: GCM with an empty plaintext and what is tagged as its additional data (NIST
/// SP 800-38D, section 3), so that any GCM checks a tag.
///
/// A forger who sees tags and tries once succeeds with probability of at most `(len / 16 + 1) / 2¹²⁸`.
/// **Two messages tagged under one key and one nonce give the key of the hash away**, and with it
/// every tag under that key.
pub struct Mac {
    cipher: Cipher,
    hash: Ghash,
}

impl Mac {
    /// Under `key`, which is used for nothing else.
    pub fn new(key: &[u8; 32]) -> Mac {
        Mac::on(Cipher::new(key), Kernel::best())
    }

    pub(super) fn on(cipher: Cipher, kernel: Kernel) -> Mac {
        let hash = Ghash::new(&cipher.block([0; 16]), kernel);
        Mac { cipher, hash }
    }

    /// The tag of `data`.
    pub fn tag(&self, nonce: &[u8; NONCE_LEN], data: &[u8]) -> [u8; TAG_LEN] {
        let mut tagging = self.begin();
        tagging.absorb(data);
        tagging.finish(nonce)
    }

    /// Whether `tag` is the tag of `data`, in constant time.
    #[must_use]
    pub fn verify(&self, nonce: &[u8; NONCE_LEN], data: &[u8], tag: &[u8; TAG_LEN]) -> bool {
        use subtle::ConstantTimeEq as _;
        self.tag(nonce, data).ct_eq(tag).into()
    }

    pub(super) fn begin(&self) -> Tagging<'_> {
        Tagging { mac: self, state: Zeroizing::new(0), len: 0 }
    }
}

impl std::fmt::Debug for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mac").finish_non_exhaustive()
    }
}

/// A tag in the making.
pub(super) struct Tagging<'a> {
    mac: &'a Mac,
    state: Zeroizing<u128>,
    len: u64,
}

impl Tagging<'_> {
    /// The next part; all but the last must be whole blocks of 16 bytes.
    pub(super) fn absorb(&mut self, part: &[u8]) {
        debug_assert!(self.len.is_multiple_of(16));
        self.mac.hash.absorb(&mut self.state, part);
        self.len += part.len() as u64;
    }

    /// The same for whole groups, which wait for their turn.
    pub(super) fn absorb_later<'a>(&'a mut self, part: &'a [u8], backlog: &mut Backlog<'a>) {
        debug_assert!(self.len.is_multiple_of(16));
        self.len += part.len() as u64;
        backlog.push(&self.mac.hash, &mut self.state, part);
    }

    pub(super) fn finish(self, nonce: &[u8; NONCE_LEN]) -> [u8; TAG_LEN] {
        let Tagging { mac, mut state, len } = self;
        mac.hash.absorb(&mut state, &lengths(len, 0));
        mac.cipher.mask(nonce, *state)
    }
}

/// The last block of the hash: bits of additional data, bits of ciphertext (SP 800-38D, section
/// 7.1, step 5).
pub(super) fn lengths(additional: u64, sealed: u64) -> [u8; 16] {
    (u128::from(additional * 8) << 64 | u128::from(sealed * 8)).to_be_bytes()
}
