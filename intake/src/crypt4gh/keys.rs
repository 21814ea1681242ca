use std::fmt;

use blake2::{Blake2b512, Digest};
use data_encoding::BASE64;
use model::{Entropy, EntropyError};
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

const BEGIN: &str = "-----BEGIN CRYPT4GH PUBLIC KEY-----";
const END: &str = "-----END CRYPT4GH PUBLIC KEY-----";

/// To whom a file is encrypted: an X25519 public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

/// Why a text is not a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a Crypt4GH public key; it begins with {BEGIN}")]
pub struct KeyTextError;

impl PublicKey {
    /// From its 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> PublicKey {
        PublicKey(bytes)
    }

    /// Its 32 bytes.
    pub fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// From the text of a key file as `crypt4gh-keygen` writes it.
    pub fn from_text(text: &str) -> Result<PublicKey, KeyTextError> {
        let body = text.trim().strip_prefix(BEGIN).and_then(|t| t.strip_suffix(END)).ok_or(KeyTextError)?;
        let bytes = BASE64.decode(body.trim().as_bytes()).map_err(|_| KeyTextError)?;
        bytes.try_into().map(PublicKey).map_err(|_| KeyTextError)
    }

    /// The text of a key file.
    pub fn to_text(self) -> String {
        format!("{BEGIN}\n{}\n{END}\n", BASE64.encode(&self.0))
    }
}

/// Who can decrypt: an X25519 secret key, wiped when dropped and never printed.
#[derive(Clone)]
pub struct SecretKey {
    secret: StaticSecret,
    public: PublicKey,
}

impl SecretKey {
    /// A fresh one.
    pub fn generate(entropy: &(impl Entropy + ?Sized)) -> Result<SecretKey, EntropyError> {
        let mut bytes = Zeroizing::new([0; 32]);
        entropy.fill(bytes.as_mut_slice())?;
        Ok(SecretKey::from_bytes(&bytes))
    }

    /// Another key that follows from this one and a purpose, and from which this one does not follow:
    /// the first half of BLAKE2b-512 over the purpose, a zero byte, and this key. What was encrypted to
    /// the one cannot be passed off as encrypted to the other.
    pub fn derived(&self, purpose: &str) -> SecretKey {
        let mut hash = Blake2b512::new();
        hash.update(purpose.as_bytes());
        hash.update([0]);
        hash.update(self.secret.as_bytes());
        let digest = Zeroizing::new(<[u8; 64]>::from(hash.finalize()));
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(&digest[..32]);
        SecretKey::from_bytes(&key)
    }

    /// From its 32 bytes.
    pub fn from_bytes(bytes: &[u8; 32]) -> SecretKey {
        let secret = StaticSecret::from(*bytes);
        let public = PublicKey(x25519_dalek::PublicKey::from(&secret).to_bytes());
        SecretKey { secret, public }
    }

    /// Its 32 bytes, to keep.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.secret.to_bytes())
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The key of a header packet that this one writes for `reader`.
    pub(super) fn shared_as_writer(&self, reader: PublicKey) -> Option<Zeroizing<[u8; 32]>> {
        self.shared(reader, reader, self.public)
    }

    /// The key of a header packet that `writer` wrote for this one.
    pub(super) fn shared_as_reader(&self, writer: PublicKey) -> Option<Zeroizing<[u8; 32]>> {
        self.shared(writer, self.public, writer)
    }

    /// What libsodium's `crypto_kx` gives with the reader as its client: the first half of
    /// BLAKE2b-512 over the shared point and both public keys. None if the other key is one of
    /// the few that give everybody the same point.
    fn shared(&self, other: PublicKey, reader: PublicKey, writer: PublicKey) -> Option<Zeroizing<[u8; 32]>> {
        let point = self.secret.diffie_hellman(&x25519_dalek::PublicKey::from(other.0));
        if !point.was_contributory() {
            return None;
        }
        let mut hash = Blake2b512::new();
        hash.update(point.as_bytes());
        hash.update(reader.0);
        hash.update(writer.0);
        let digest = Zeroizing::new(<[u8; 64]>::from(hash.finalize()));
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(&digest[..32]);
        Some(key)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", BASE64.encode(&self.public.0))
    }
}
