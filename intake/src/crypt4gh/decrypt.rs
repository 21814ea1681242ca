use std::fmt;

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use zeroize::Zeroizing;

use super::header::{HeaderError, HeaderReader};
use super::{CIPHER_SEGMENT, NONCE, SEGMENT, SEGMENT_OVERHEAD, SecretKey, TAG};

/// Why a stream cannot be decrypted. Everything given out before was authentic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The header is refused.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// A segment is damaged or forged.
    #[error("segment {0} of the file is damaged; send the file again")]
    Damaged(u64),
    /// The stream ended within the header or within a segment.
    #[error("the file ended early; send it again")]
    Truncated,
}

/// Decrypts a stream with a secret key.
pub struct Decryptor {
    state: State,
    /// Plain bytes given out so far.
    plain: u64,
}

enum State {
    Header { secret: SecretKey, reader: HeaderReader },
    Body(Body),
    Refused(OpenError),
}

struct Body {
    /// One for each session key; the one that last fitted is first.
    ciphers: Vec<ChaCha20Poly1305>,
    /// Less than a segment of encrypted bytes.
    held: Vec<u8>,
    segments: u64,
}

impl Decryptor {
    /// For streams that were encrypted to `secret`.
    pub fn new(secret: SecretKey) -> Decryptor {
        Decryptor { state: State::Header { secret, reader: HeaderReader::new() }, plain: 0 }
    }

    /// Takes encrypted bytes; gives the plain bytes of the segments that became whole. After an
    /// error every further call returns the same error.
    pub fn push(&mut self, mut input: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let result = self.advance(&mut input);
        self.note(result)
    }

    /// The end: the plain bytes of the last segment. The caller compares [`Decryptor::plain_len`]
    /// (after this) with the size that it was told; see the module's text.
    pub fn finish(&mut self) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let result = match &mut self.state {
            State::Header { .. } => Err(OpenError::Truncated),
            State::Refused(error) => Err(*error),
            State::Body(body) if body.held.is_empty() => Ok(Zeroizing::new(Vec::new())),
            State::Body(body) if body.held.len() < SEGMENT_OVERHEAD => Err(OpenError::Truncated),
            State::Body(body) => {
                let last = std::mem::take(&mut body.held);
                let mut out = Zeroizing::new(Vec::with_capacity(last.len()));
                // A damaged last segment and one that was cut short look the same.
                body.open(&last, &mut out).map(|()| out)
            }
        };
        self.note(result)
    }

    /// Plain bytes given out so far.
    pub fn plain_len(&self) -> u64 {
        self.plain
    }

    fn advance(&mut self, input: &mut &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        if let State::Header { secret, reader } = &mut self.state {
            match reader.push(input, secret)? {
                None => return Ok(Zeroizing::new(Vec::new())),
                Some(keys) => {
                    let ciphers = keys.iter().map(|key| ChaCha20Poly1305::new(&(**key).into())).collect();
                    self.state = State::Body(Body { ciphers, held: Vec::new(), segments: 0 });
                }
            }
        }
        match &mut self.state {
            State::Body(body) => body.push(input),
            State::Refused(error) => Err(*error),
            State::Header { .. } => Ok(Zeroizing::new(Vec::new())),
        }
    }

    fn note(
        &mut self,
        result: Result<Zeroizing<Vec<u8>>, OpenError>,
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        match &result {
            Ok(out) => self.plain += out.len() as u64,
            Err(error) => self.state = State::Refused(*error),
        }
        result
    }
}

impl Body {
    fn push(&mut self, mut input: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let segments = (self.held.len() + input.len()) / CIPHER_SEGMENT;
        let mut out = Zeroizing::new(Vec::with_capacity(segments * SEGMENT));
        if !self.held.is_empty() {
            let (head, rest) = input.split_at(input.len().min(CIPHER_SEGMENT - self.held.len()));
            self.held.extend_from_slice(head);
            input = rest;
            if self.held.len() == CIPHER_SEGMENT {
                let mut whole = std::mem::take(&mut self.held);
                self.open(&whole, &mut out)?;
                whole.clear();
                self.held = whole;
            }
        }
        while input.len() >= CIPHER_SEGMENT {
            let (segment, rest) = input.split_at(CIPHER_SEGMENT);
            self.open(segment, &mut out)?;
            input = rest;
        }
        self.held.extend_from_slice(input);
        Ok(out)
    }

    /// Opens one segment, of at least nonce and tag, at the end of `out`.
    fn open(&mut self, segment: &[u8], out: &mut Vec<u8>) -> Result<(), OpenError> {
        let damaged = OpenError::Damaged(self.segments);
        let (nonce, rest) = segment.split_first_chunk::<NONCE>().ok_or(damaged)?;
        let (sealed, tag) = rest.split_last_chunk::<TAG>().ok_or(damaged)?;
        let at = out.len();
        for index in 0..self.ciphers.len() {
            out.truncate(at);
            out.extend_from_slice(sealed);
            let opened = self.ciphers[index].decrypt_inout_detached(
                &Nonce::from(*nonce),
                &[],
                (&mut out[at..]).into(),
                &(*tag).into(),
            );
            if opened.is_ok() {
                self.ciphers.swap(0, index);
                self.segments += 1;
                return Ok(());
            }
        }
        out.truncate(at);
        Err(damaged)
    }
}

impl fmt::Debug for Decryptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decryptor").field("plain", &self.plain).finish_non_exhaustive()
    }
}
