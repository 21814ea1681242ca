use std::fmt;

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use model::{Entropy, EntropyError};
use zeroize::Zeroizing;

use super::header::{self, SessionKey};
use super::{CIPHER_SEGMENT, NONCE, PublicKey, SEGMENT};

/// Encrypts a stream to one recipient.
///
/// The writer's key and the session key are made for this one stream. Send
/// [`Encryptor::header`] first, then what [`Encryptor::push`] and [`Encryptor::finish`] give.
pub struct Encryptor {
    header: Vec<u8>,
    cipher: ChaCha20Poly1305,
    /// Where the nonces count from; the session key is fresh, so counting never repeats one.
    nonce: u128,
    /// Less than a segment of plain bytes.
    held: Zeroizing<Vec<u8>>,
}

impl Encryptor {
    /// A new stream for `recipient`.
    pub fn new(recipient: &PublicKey, entropy: &(impl Entropy + ?Sized)) -> Result<Encryptor, EntropyError> {
        let mut session: SessionKey = Zeroizing::new([0; 32]);
        entropy.fill(session.as_mut_slice())?;
        let mut start = [0; 16];
        entropy.fill(&mut start[..NONCE])?;
        Ok(Encryptor {
            header: header::write(*recipient, &session, entropy)?,
            cipher: ChaCha20Poly1305::new(&(*session).into()),
            nonce: u128::from_le_bytes(start),
            held: Zeroizing::new(Vec::with_capacity(SEGMENT)),
        })
    }

    /// What the stream begins with.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Takes plain bytes; gives the segments that became whole.
    pub fn push(&mut self, mut plain: &[u8]) -> Vec<u8> {
        let segments = (self.held.len() + plain.len()) / SEGMENT;
        let mut out = Vec::with_capacity(segments * CIPHER_SEGMENT);
        if !self.held.is_empty() {
            let (head, rest) = plain.split_at(plain.len().min(SEGMENT - self.held.len()));
            self.held.extend_from_slice(head);
            plain = rest;
            if self.held.len() == SEGMENT {
                let whole = std::mem::take(&mut *self.held);
                let mut whole = Zeroizing::new(whole);
                self.seal(&whole, &mut out);
                whole.clear();
                *self.held = std::mem::take(&mut *whole);
            }
        }
        while plain.len() >= SEGMENT {
            let (segment, rest) = plain.split_at(SEGMENT);
            self.seal(segment, &mut out);
            plain = rest;
        }
        self.held.extend_from_slice(plain);
        out
    }

    /// The end: the last, shorter segment, if there is one.
    pub fn finish(mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.held.is_empty() {
            let last = std::mem::take(&mut self.held);
            self.seal(&last, &mut out);
        }
        out
    }

    fn seal(&mut self, segment: &[u8], out: &mut Vec<u8>) {
        let mut nonce = [0; NONCE];
        nonce.copy_from_slice(&self.nonce.to_le_bytes()[..NONCE]);
        self.nonce = self.nonce.wrapping_add(1);
        out.extend_from_slice(&nonce);
        let at = out.len();
        out.extend_from_slice(segment);
        let tag = self.cipher.encrypt_inout_detached(&Nonce::from(nonce), &[], (&mut out[at..]).into());
        // It can refuse only messages of 256 GiB and more.
        match tag {
            Ok(tag) => out.extend_from_slice(&tag),
            Err(_) => out.truncate(at),
        }
    }
}

impl fmt::Debug for Encryptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encryptor").field("held", &self.held.len()).finish_non_exhaustive()
    }
}
