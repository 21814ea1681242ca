//! A stream of chunks under authenticated encryption, for what is kept while it still grows.
//!
//! ```text
//! file   = "sekrec1\n" length(wrap) wrap chunk…
//! wrap   = a Crypt4GH file (intake) that holds the 32 bytes of this stream's key
//! chunk  = length(box) box
//! box    = ChaCha20-Poly1305(key, nonce = number (11 bytes, big-endian) ‖ last (0 or 1), plain)
//! length = four bytes, big-endian
//! ```
//!
//! Every chunk that is whole can be read, whatever became of the rest: a process that is killed loses
//! what it had not sealed. The last chunk says that it is the last, so that a stream that was cut
//! off is told from one that ended; chunks cannot be left out, swapped, or taken from another stream,
//! since each stream has a key of its own and each chunk its number. Where a whole stream is replaced
//! by another, or cut back to an earlier length, only a hash that is kept elsewhere tells.

use std::fmt;

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use intake::crypt4gh::{Decryptor, Encryptor, PublicKey, SecretKey};
use model::{Entropy, EntropyError};
use zeroize::Zeroizing;

/// What a stream begins with.
const MAGIC: &[u8; 8] = b"sekrec1\n";
/// Plain bytes of the largest chunk.
pub const CHUNK: usize = 64 << 10;
const TAG: usize = 16;
const LENGTH: usize = 4;
/// More than any wrapped key.
const WRAP_MAX: usize = 1 << 10;

/// Seals a stream.
pub struct Sealer {
    cipher: ChaCha20Poly1305,
    number: u64,
}

impl Sealer {
    /// A new stream that whoever has the secret to `reader` can open, and what it begins with.
    pub fn begin(
        reader: &PublicKey,
        entropy: &(impl Entropy + ?Sized),
    ) -> Result<(Sealer, Vec<u8>), EntropyError> {
        let mut key = Zeroizing::new([0; 32]);
        entropy.fill(key.as_mut_slice())?;
        let mut wrapper = Encryptor::new(reader, entropy)?;
        let mut wrap = wrapper.header().to_vec();
        wrap.extend(wrapper.push(&*key));
        wrap.extend(wrapper.finish());
        let mut start = MAGIC.to_vec();
        start.extend_from_slice(&length(wrap.len()));
        start.extend_from_slice(&wrap);
        Ok((Sealer { cipher: ChaCha20Poly1305::new(&(*key).into()), number: 0 }, start))
    }

    /// The next chunk, of at most [`CHUNK`] plain bytes, to the end of `out`; after the last one
    /// nothing may follow.
    pub fn seal(&mut self, plain: &[u8], last: bool, out: &mut Vec<u8>) {
        debug_assert!(plain.len() <= CHUNK);
        out.extend_from_slice(&length(plain.len() + TAG));
        let at = out.len();
        out.extend_from_slice(plain);
        let nonce = nonce(self.number, last);
        self.number += 1;
        // It can refuse only messages of 256 GiB and more.
        match self.cipher.encrypt_inout_detached(&nonce, &[], (&mut out[at..]).into()) {
            Ok(tag) => out.extend_from_slice(&tag),
            Err(_) => out.truncate(at - LENGTH),
        }
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("number", &self.number).finish_non_exhaustive()
    }
}

/// Why a stream cannot be opened. Everything given out before was authentic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not a stream of this kind.
    #[error("it is not a sealed recording")]
    NotSealed,
    /// The key that it was sealed for is another.
    #[error("it was sealed for another key, or its key is damaged")]
    NotForUs,
    /// A chunk is damaged, forged, or not in its place.
    #[error("chunk {0} of it is damaged")]
    Damaged(u64),
    /// Something follows the last chunk.
    #[error("something follows its end")]
    Trailing,
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With its last chunk.
    Whole,
    /// Before it: whoever wrote it was interrupted, or it was cut back.
    CutOff,
}

/// Opens a stream, in pieces of any size; holds at most one chunk back.
pub struct Opener {
    secret: SecretKey,
    held: Vec<u8>,
    state: State,
}

enum State {
    Start,
    Chunks { cipher: Box<ChaCha20Poly1305>, number: u64 },
    Ended,
    Refused(OpenError),
}

impl Opener {
    /// For streams that were sealed for `secret`.
    pub fn new(secret: SecretKey) -> Opener {
        Opener { secret, held: Vec::new(), state: State::Start }
    }

    /// Takes sealed bytes; gives the plain ones of the chunks that became whole.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        self.held.extend_from_slice(bytes);
        let mut plain = Zeroizing::new(Vec::new());
        let mut at = 0;
        let result = loop {
            match self.step(at, &mut plain) {
                Ok(0) => break Ok(()),
                Ok(used) => at += used,
                Err(error) => break Err(error),
            }
        };
        self.held.drain(..at);
        match result {
            Ok(()) => Ok(plain),
            Err(error) => {
                self.state = State::Refused(error);
                self.held = Vec::new();
                Err(error)
            }
        }
    }

    /// How it ended, as far as it was pushed.
    pub fn finish(&self) -> Result<Ending, OpenError> {
        match &self.state {
            State::Refused(error) => Err(*error),
            State::Ended => Ok(Ending::Whole),
            State::Start | State::Chunks { .. } => Ok(Ending::CutOff),
        }
    }

    /// One step at `at` of what is held; how many bytes it used up, none if it needs more.
    fn step(&mut self, at: usize, plain: &mut Vec<u8>) -> Result<usize, OpenError> {
        let held = &self.held[at..];
        match &mut self.state {
            State::Refused(error) => Err(*error),
            State::Ended if held.is_empty() => Ok(0),
            State::Ended => Err(OpenError::Trailing),
            State::Start => {
                let seen = held.len().min(MAGIC.len());
                if held[..seen] != MAGIC[..seen] {
                    return Err(OpenError::NotSealed);
                }
                let Some(wrap) = framed(held, MAGIC.len(), WRAP_MAX).ok_or(OpenError::NotSealed)? else {
                    return Ok(0);
                };
                let used = MAGIC.len() + LENGTH + wrap.len();
                let key = unwrap(&self.secret, wrap).ok_or(OpenError::NotForUs)?;
                let cipher = Box::new(ChaCha20Poly1305::new(&(*key).into()));
                self.state = State::Chunks { cipher, number: 0 };
                Ok(used)
            }
            State::Chunks { cipher, number } => {
                let damaged = OpenError::Damaged(*number);
                let Some(sealed) = framed(held, 0, CHUNK + TAG).ok_or(damaged)? else { return Ok(0) };
                let used = LENGTH + sealed.len();
                let Some(size) = sealed.len().checked_sub(TAG) else { return Err(damaged) };
                let (sealed, tag) = sealed.split_at(size);
                let tag: [u8; TAG] = tag.try_into().map_err(|_| damaged)?;
                let mut opened = None;
                for last in [false, true] {
                    let start = plain.len();
                    plain.extend_from_slice(sealed);
                    let nonce = nonce(*number, last);
                    let buffer = (&mut plain[start..]).into();
                    match cipher.decrypt_inout_detached(&nonce, &[], buffer, &tag.into()) {
                        Ok(()) => {
                            opened = Some(last);
                            break;
                        }
                        Err(_) => plain.truncate(start),
                    }
                }
                match opened {
                    None => return Err(damaged),
                    Some(false) => *number += 1,
                    Some(true) => self.state = State::Ended,
                }
                Ok(used)
            }
        }
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("held", &self.held.len()).finish_non_exhaustive()
    }
}

/// What follows the length at `at`: nothing yet, or nothing ever if it is longer than `most`.
fn framed(bytes: &[u8], at: usize, most: usize) -> Option<Option<&[u8]>> {
    let Some(head) = bytes.get(at..at + LENGTH) else { return Some(None) };
    let length = head.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    if length > most {
        return None;
    }
    Some(bytes.get(at + LENGTH..at + LENGTH + length))
}

fn unwrap(secret: &SecretKey, wrap: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let mut opener = Decryptor::new(SecretKey::from_bytes(&secret.to_bytes()));
    let mut key = opener.push(wrap).ok()?;
    key.extend_from_slice(&opener.finish().ok()?);
    let mut fixed = Zeroizing::new([0; 32]);
    if key.len() != fixed.len() {
        return None;
    }
    fixed.copy_from_slice(&key);
    Some(fixed)
}

fn length(of: usize) -> [u8; LENGTH] {
    // Of a chunk or a wrapped key, which are far smaller.
    u32::try_from(of).unwrap_or(u32::MAX).to_be_bytes()
}

fn nonce(number: u64, last: bool) -> Nonce {
    let mut nonce = [0; 12];
    nonce[3..11].copy_from_slice(&number.to_be_bytes());
    nonce[11] = u8::from(last);
    Nonce::from(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::SeededEntropy;
    use proptest::prelude::*;

    fn secret() -> SecretKey {
        SecretKey::from_bytes(&[7; 32])
    }

    /// A stream of these chunks, and where each of its parts ends.
    fn seal(chunks: &[&[u8]], ended: bool) -> (Vec<u8>, Vec<usize>) {
        let (mut sealer, mut stream) = Sealer::begin(&secret().public(), &SeededEntropy::new(3)).unwrap();
        let mut ends = vec![stream.len()];
        for (i, chunk) in chunks.iter().enumerate() {
            sealer.seal(chunk, ended && i + 1 == chunks.len(), &mut stream);
            ends.push(stream.len());
        }
        (stream, ends)
    }

    fn open(stream: &[u8], cut: usize) -> Result<(Vec<u8>, Ending), OpenError> {
        let mut opener = Opener::new(secret());
        let mut plain = Vec::new();
        for piece in stream.chunks(cut) {
            plain.extend_from_slice(&opener.push(piece)?);
        }
        Ok((plain, opener.finish()?))
    }

    #[test]
    fn what_was_sealed_is_read_up_to_the_last_whole_chunk() {
        let (stream, ends) = seal(&[b"one", b"", b"two", b"three"], true);
        assert_eq!(open(&stream, 5).unwrap(), (b"onetwothree".to_vec(), Ending::Whole));
        for end in 0..stream.len() {
            let (plain, ending) = open(&stream[..end], 7).unwrap();
            let whole = ends[1..].iter().filter(|e| **e <= end).count();
            assert_eq!(plain, [&b""[..], b"one", b"one", b"onetwo"][whole], "{end}");
            assert_eq!(ending, Ending::CutOff);
        }
    }

    #[test]
    fn every_flipped_bit_is_refused_or_reads_as_cut_off() {
        let (stream, _) = seal(&[b"GRCh38", b"end"], true);
        let whole = open(&stream, 64).unwrap().0;
        for at in 0..stream.len() {
            for bit in 0..8 {
                let mut bad = stream.clone();
                bad[at] ^= 1 << bit;
                match open(&bad, 64) {
                    Err(_) => {}
                    // A length that became larger waits for bytes that never come.
                    Ok((plain, ending)) => {
                        assert!(ending == Ending::CutOff && whole.starts_with(&plain), "byte {at} bit {bit}");
                    }
                }
            }
        }
    }

    #[test]
    fn chunks_stay_in_their_place_and_their_stream() {
        let (stream, ends) = seal(&[b"aaa", b"bbb", b"ccc"], true);
        let part = |i: usize| &stream[ends[i]..ends[i + 1]];
        let start = &stream[..ends[0]];
        let joined = |parts: &[&[u8]]| open(&[&[start], parts].concat().concat(), 9);
        assert_eq!(joined(&[part(1), part(0)]), Err(OpenError::Damaged(0)));
        assert_eq!(joined(&[part(0), part(2)]), Err(OpenError::Damaged(1)));
        assert_eq!(joined(&[part(0), part(1), part(2), part(2)]), Err(OpenError::Trailing));
        let mut opener = Opener::new(SecretKey::from_bytes(&[8; 32]));
        assert_eq!(opener.push(&stream).unwrap_err(), OpenError::NotForUs);
        assert_eq!(opener.finish(), Err(OpenError::NotForUs));
        assert_eq!(open(b"SQLite format 3\0", 3), Err(OpenError::NotSealed));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn any_chunks_in_any_pieces_give_the_same(
            sizes in proptest::collection::vec(prop_oneof![0usize..100, Just(CHUNK)], 1..5),
            cut in 1usize..70_000,
            ended in any::<bool>(),
        ) {
            let chunks: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(i, n)| vec![i as u8; *n]).collect();
            let (stream, _) = seal(&chunks.iter().map(Vec::as_slice).collect::<Vec<_>>(), ended);
            let (plain, ending) = open(&stream, cut).unwrap();
            prop_assert_eq!(plain, chunks.concat());
            prop_assert_eq!(ending, if ended { Ending::Whole } else { Ending::CutOff });
        }

        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..400), whole in any::<bool>()) {
            let stream = if whole { [seal(&[], false).0, bytes].concat() } else { bytes };
            let _ = open(&stream, 50);
        }
    }
}
