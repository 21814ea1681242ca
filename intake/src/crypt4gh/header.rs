use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use model::{Entropy, EntropyError};
use zeroize::Zeroizing;

use super::{NONCE, PublicKey, SecretKey, TAG};

const MAGIC: &[u8; 8] = b"crypt4gh";
const VERSION: u32 = 1;
const PREFIX: usize = 16;
/// Length field, method, the writer's key.
const PACKET_PREFIX: usize = 4 + 4 + 32;
/// Packet type, method, session key.
const DATA_KEY: usize = 4 + 4 + 32;
/// The length of a header that this system writes: one packet.
pub(super) const OWN_LEN: usize = PREFIX + PACKET_PREFIX + NONCE + DATA_KEY + TAG;

const METHOD_CHACHA: u32 = 0;
const PACKET_DATA_KEY: u32 = 0;
const PACKET_EDIT_LIST: u32 = 1;

/// Bounds on foreign headers: recipients, bytes of one packet, session keys for us.
const PACKETS_MAX: u32 = 256;
const PACKET_MAX: usize = 64 * 1024;
const KEYS_MAX: usize = 8;

/// A session key: one for all segments of a file, or one of several.
pub(super) type SessionKey = Zeroizing<[u8; 32]>;

/// Why a header was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It does not begin with the magic word.
    #[error("this is not a Crypt4GH file; encrypt it to the intake key first")]
    NotCrypt4gh,
    /// Another version of the format.
    #[error("this Crypt4GH file has version {0}; version 1 is needed")]
    Version(u32),
    /// No packet, or more or larger ones than any honest file has.
    #[error("the Crypt4GH header is damaged or has too many recipients")]
    Size,
    /// No packet was for our key.
    #[error("the file was not encrypted to this intake key; fetch the key again and encrypt anew")]
    NotForUs,
    /// It has an edit list.
    #[error(
        "the file has a Crypt4GH edit list, which hides parts of it; \
         decrypt it and encrypt it again without one"
    )]
    EditList,
    /// A packet for us of a kind that is not known.
    #[error("the Crypt4GH header has a packet of the unknown type {0}")]
    PacketType(u32),
    /// The data is encrypted in a way that is not known.
    #[error("the file's data is encrypted with the unknown method {0}")]
    DataMethod(u32),
}

/// Writes a header for one reader.
pub(super) fn write(
    reader: PublicKey,
    session: &SessionKey,
    entropy: &(impl Entropy + ?Sized),
) -> Result<Vec<u8>, EntropyError> {
    let refuse = || EntropyError("it gave a key that cannot be used".to_owned());
    let writer = SecretKey::generate(entropy)?;
    let shared = writer.shared_as_writer(reader).ok_or_else(refuse)?;
    let mut nonce = [0; NONCE];
    entropy.fill(&mut nonce)?;
    let mut content = Zeroizing::new(Vec::with_capacity(DATA_KEY));
    content.extend_from_slice(&PACKET_DATA_KEY.to_le_bytes());
    content.extend_from_slice(&METHOD_CHACHA.to_le_bytes());
    content.extend_from_slice(session.as_slice());
    let sealed = ChaCha20Poly1305::new(&(*shared).into())
        .encrypt(&Nonce::from(nonce), content.as_slice())
        .map_err(|_| refuse())?;
    let length = u32::try_from(PACKET_PREFIX + NONCE + sealed.len()).unwrap_or(u32::MAX);
    let mut header = Vec::with_capacity(OWN_LEN);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&1u32.to_le_bytes());
    header.extend_from_slice(&length.to_le_bytes());
    header.extend_from_slice(&METHOD_CHACHA.to_le_bytes());
    header.extend_from_slice(&writer.public().to_bytes());
    header.extend_from_slice(&nonce);
    header.extend_from_slice(&sealed);
    Ok(header)
}

/// Takes a header in, packet by packet.
#[derive(Debug)]
pub(super) struct HeaderReader {
    /// Packets still to come; none before the prefix was read.
    left: Option<u32>,
    buffer: Vec<u8>,
    keys: Vec<SessionKey>,
}

impl HeaderReader {
    pub(super) fn new() -> HeaderReader {
        HeaderReader { left: None, buffer: Vec::new(), keys: Vec::new() }
    }

    /// Takes what belongs to the header off the front of `input`; the session keys when done.
    pub(super) fn push(
        &mut self,
        input: &mut &[u8],
        secret: &SecretKey,
    ) -> Result<Option<Vec<SessionKey>>, HeaderError> {
        loop {
            match self.left {
                None => {
                    if !self.fill(input, PREFIX) {
                        return self.early_refusal();
                    }
                    self.left = Some(self.prefix()?);
                    self.buffer.clear();
                }
                Some(0) => {
                    let keys = std::mem::take(&mut self.keys);
                    return if keys.is_empty() { Err(HeaderError::NotForUs) } else { Ok(Some(keys)) };
                }
                Some(left) => {
                    if !self.fill(input, 4) {
                        return Ok(None);
                    }
                    let length = usize::try_from(le32(&self.buffer, 0)).unwrap_or(usize::MAX);
                    if !(PACKET_PREFIX..=PACKET_MAX).contains(&length) {
                        return Err(HeaderError::Size);
                    }
                    if !self.fill(input, length) {
                        return Ok(None);
                    }
                    self.packet(secret)?;
                    self.buffer.clear();
                    self.left = Some(left - 1);
                }
            }
        }
    }

    /// Grows the buffer to `upto` bytes from `input`; whether they were enough.
    fn fill(&mut self, input: &mut &[u8], upto: usize) -> bool {
        let wanted = upto.saturating_sub(self.buffer.len()).min(input.len());
        let (taken, rest) = input.split_at(wanted);
        self.buffer.extend_from_slice(taken);
        *input = rest;
        self.buffer.len() >= upto
    }

    /// Refuses what cannot become a header before all of its prefix has come.
    fn early_refusal(&self) -> Result<Option<Vec<SessionKey>>, HeaderError> {
        let known = self.buffer.len().min(MAGIC.len());
        if self.buffer[..known] == MAGIC[..known] { Ok(None) } else { Err(HeaderError::NotCrypt4gh) }
    }

    fn prefix(&self) -> Result<u32, HeaderError> {
        if &self.buffer[..MAGIC.len()] != MAGIC {
            return Err(HeaderError::NotCrypt4gh);
        }
        match (le32(&self.buffer, 8), le32(&self.buffer, 12)) {
            (VERSION, count @ 1..=PACKETS_MAX) => Ok(count),
            (VERSION, _) => Err(HeaderError::Size),
            (version, _) => Err(HeaderError::Version(version)),
        }
    }

    /// Opens a packet if it is for us; those for other readers are passed over (spec, 2.2.1).
    fn packet(&mut self, secret: &SecretKey) -> Result<(), HeaderError> {
        let Some(content) = open_packet(&self.buffer, secret) else { return Ok(()) };
        if content.len() < 4 {
            return Err(HeaderError::Size);
        }
        match le32(&content, 0) {
            PACKET_DATA_KEY if content.len() != DATA_KEY => Err(HeaderError::Size),
            PACKET_DATA_KEY => {
                let method = le32(&content, 4);
                if method != METHOD_CHACHA {
                    return Err(HeaderError::DataMethod(method));
                }
                if self.keys.len() == KEYS_MAX {
                    return Err(HeaderError::Size);
                }
                let mut key = Zeroizing::new([0; 32]);
                key.copy_from_slice(&content[8..]);
                self.keys.push(key);
                Ok(())
            }
            PACKET_EDIT_LIST => Err(HeaderError::EditList),
            other => Err(HeaderError::PacketType(other)),
        }
    }
}

fn open_packet(packet: &[u8], secret: &SecretKey) -> Option<Zeroizing<Vec<u8>>> {
    let (prefix, sealed) = packet.split_at_checked(PACKET_PREFIX)?;
    if le32(prefix, 4) != METHOD_CHACHA {
        return None;
    }
    let writer = PublicKey::from_bytes(prefix[8..].try_into().ok()?);
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
    let shared = secret.shared_as_reader(writer)?;
    ChaCha20Poly1305::new(&(*shared).into()).decrypt(&Nonce::from(*nonce), sealed).ok().map(Zeroizing::new)
}

/// Four bytes at `at`, little endian; the caller knows that they are there.
fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |four| u32::from_le_bytes(*four))
}
