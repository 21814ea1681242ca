use std::fmt;

use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use model::{Entropy, EntropyError};
use sha2::{Digest, Sha256};

use crate::tree::Hash;

/// The algorithm byte of ed25519 in C2SP signed notes.
pub(crate) const ED25519: u8 = 1;
const MAX_NOTE: usize = 64 * 1024;
const MAX_ORIGIN: usize = 255;

/// What signs checkpoints: an ed25519 key and the name (origin) of the log it speaks for.
#[derive(Clone)]
pub struct LogKey {
    public: LogPublicKey,
    key: SigningKey,
}

impl LogKey {
    /// A fresh key for the log named `origin`, such as `sekisho.test/audit`.
    pub fn generate(origin: &str, entropy: &(impl Entropy + ?Sized)) -> Result<LogKey, KeyError> {
        let mut seed = zeroize::Zeroizing::new([0; 32]);
        entropy.fill(&mut *seed)?;
        LogKey::from_seed(origin, &seed)
    }

    /// The key that `seed` stands for.
    pub fn from_seed(origin: &str, seed: &[u8; 32]) -> Result<LogKey, KeyError> {
        check_origin(origin)?;
        let key = SigningKey::from_bytes(seed);
        Ok(LogKey { public: LogPublicKey { origin: origin.to_owned(), key: key.verifying_key() }, key })
    }

    /// Parses what [`LogKey::to_secret_text`] made.
    pub fn from_secret_text(text: &str) -> Result<LogKey, KeyError> {
        let rest = text.trim_end().strip_prefix("PRIVATE+KEY+").ok_or(KeyError::Malformed)?;
        let (origin, hash, data) = split_key(rest, ED25519)?;
        let seed: &[u8; 32] = data.as_slice().try_into().map_err(|_| KeyError::Malformed)?;
        let key = LogKey::from_seed(origin, seed)?;
        if key.public.hash() == hash { Ok(key) } else { Err(KeyError::Malformed) }
    }

    /// The secret key as one line, in the form Go's `note` package uses. Keep it in a file that
    /// only the broker can read.
    pub fn to_secret_text(&self) -> zeroize::Zeroizing<String> {
        let mut data = zeroize::Zeroizing::new(vec![ED25519]);
        data.extend_from_slice(self.key.as_bytes());
        let encoded = zeroize::Zeroizing::new(BASE64.encode(&data));
        let hash = HEXLOWER.encode(&self.public.hash());
        zeroize::Zeroizing::new(format!("PRIVATE+KEY+{}+{hash}+{}", self.public.origin, *encoded))
    }

    /// What verifies its signatures.
    pub fn public(&self) -> &LogPublicKey {
        &self.public
    }

    /// The name of the log.
    pub fn origin(&self) -> &str {
        &self.public.origin
    }

    /// A signed checkpoint over no entries, as every log of this key begins.
    pub fn empty_checkpoint(&self) -> String {
        self.sign(0, &crate::tree::Edge::default().root())
    }

    /// A signed checkpoint: `size` entries whose RFC 6962 root is `root`.
    pub(crate) fn sign(&self, size: u64, root: &Hash) -> String {
        let text = format!("{}\n{size}\n{}\n", self.public.origin, BASE64.encode(root));
        let mut signature = self.public.hash().to_vec();
        signature.extend_from_slice(&self.key.sign(text.as_bytes()).to_bytes());
        format!("{text}\n\u{2014} {} {}\n", self.public.origin, BASE64.encode(&signature))
    }
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogKey({})", self.public)
    }
}

/// What verifies the checkpoints of one log. It prints and parses as a C2SP verifier key,
/// `origin+hash+key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPublicKey {
    origin: String,
    key: VerifyingKey,
}

impl LogPublicKey {
    /// The name of the log.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    fn hash(&self) -> [u8; 4] {
        key_hash(&self.origin, ED25519, &self.key)
    }
}

impl fmt::Display for LogPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&key_text(&self.origin, ED25519, &self.key))
    }
}

impl std::str::FromStr for LogPublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (origin, hash, data) = split_key(text, ED25519)?;
        let bytes: &[u8; 32] = data.as_slice().try_into().map_err(|_| KeyError::Malformed)?;
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::Malformed)?;
        let public = LogPublicKey { origin: origin.to_owned(), key };
        if public.hash() == hash { Ok(public) } else { Err(KeyError::Malformed) }
    }
}

/// Why a key or a name of a log was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Names stand in lines with blanks and plus signs around them.
    #[error("the name of a log has 1 to {MAX_ORIGIN} characters without blanks, control characters or '+'")]
    Origin,
    /// Not a key in the form `origin+hash+key`.
    #[error("this is not a key of an audit log (origin+hash+key)")]
    Malformed,
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// The four bytes by which a key is told from others of the same name (C2SP signed-note).
pub(crate) fn key_hash(name: &str, algorithm: u8, key: &VerifyingKey) -> [u8; 4] {
    let mut hash = Sha256::new();
    hash.update(name.as_bytes());
    hash.update([b'\n', algorithm]);
    hash.update(key.as_bytes());
    let hash = hash.finalize();
    [hash[0], hash[1], hash[2], hash[3]]
}

/// A verifier key as text.
pub(crate) fn key_text(name: &str, algorithm: u8, key: &VerifyingKey) -> String {
    let mut data = vec![algorithm];
    data.extend_from_slice(key.as_bytes());
    format!("{name}+{}+{}", HEXLOWER.encode(&key_hash(name, algorithm, key)), BASE64.encode(&data))
}

pub(crate) fn check_origin(origin: &str) -> Result<(), KeyError> {
    let fits = !origin.is_empty() && origin.len() <= MAX_ORIGIN;
    let plain = !origin.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+');
    if fits && plain { Ok(()) } else { Err(KeyError::Origin) }
}

/// The parts of a key: its name, its hash, its bytes.
pub(crate) type KeyParts<'a> = (&'a str, [u8; 4], zeroize::Zeroizing<Vec<u8>>);

/// Splits `name+hash+base64(algorithm || bytes)`. The key may contain '+', the other two may not.
pub(crate) fn split_key(text: &str, algorithm: u8) -> Result<KeyParts<'_>, KeyError> {
    let mut parts = text.splitn(3, '+');
    let (Some(origin), Some(hash), Some(data)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(KeyError::Malformed);
    };
    check_origin(origin)?;
    let hash = HEXLOWER.decode(hash.as_bytes()).map_err(|_| KeyError::Malformed)?;
    let hash: [u8; 4] = hash.try_into().map_err(|_| KeyError::Malformed)?;
    let mut data = zeroize::Zeroizing::new(BASE64.decode(data.as_bytes()).map_err(|_| KeyError::Malformed)?);
    if data.first() != Some(&algorithm) {
        return Err(KeyError::Malformed);
    }
    data.remove(0);
    Ok((origin, hash, data))
}

/// A tree head: what a signed checkpoint says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The name of the log.
    pub origin: String,
    /// How many entries it commits to.
    pub size: u64,
    /// Their RFC 6962 root.
    pub root: Hash,
}

/// Why a checkpoint was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not in the form of a signed note, or not of a checkpoint.
    #[error("it is not a signed checkpoint: {0}")]
    Malformed(&'static str),
    /// It speaks for another log.
    #[error("it speaks for the log {0:?}")]
    OtherOrigin(String),
    /// No signature of the expected key.
    #[error("it has no signature of the key of this log")]
    Unsigned,
    /// A signature that claims to be of the expected key and is not.
    #[error("its signature does not verify")]
    BadSignature,
}

impl Checkpoint {
    /// Parses the text of a signed note and checks the signature of `key` in it. Lines of other
    /// signers (witnesses) may be there and are not looked at.
    pub fn open(note: &[u8], key: &LogPublicKey) -> Result<Checkpoint, NoteError> {
        let (checkpoint, text, signatures) = parse_note(note)?;
        if checkpoint.origin != key.origin {
            return Err(NoteError::OtherOrigin(checkpoint.origin));
        }
        let hash = key.hash();
        let mut signed = false;
        for (name, signature) in signatures {
            if name != key.origin || signature.get(..4) != Some(&hash) {
                continue;
            }
            let bytes: [u8; 64] = signature[4..].try_into().map_err(|_| NoteError::BadSignature)?;
            key.key
                .verify_strict(text.as_bytes(), &Signature::from_bytes(&bytes))
                .map_err(|_| NoteError::BadSignature)?;
            signed = true;
        }
        if signed { Ok(checkpoint) } else { Err(NoteError::Unsigned) }
    }

    /// Parses the text of a signed note without looking at its signatures.
    pub fn parse_unverified(note: &[u8]) -> Result<Checkpoint, NoteError> {
        parse_note(note).map(|(checkpoint, ..)| checkpoint)
    }
}

pub(crate) type Signatures<'a> = Vec<(&'a str, Vec<u8>)>;

/// Parses signature lines, each with its end.
pub(crate) fn parse_signatures(lines: &str) -> Result<Signatures<'_>, NoteError> {
    let bad = NoteError::Malformed;
    let lines = lines.strip_suffix('\n').ok_or(bad("no end of line after the signatures"))?;
    let mut signatures = Vec::new();
    for line in lines.split('\n') {
        let line = line.strip_prefix("\u{2014} ").ok_or(bad("a line that is no signature"))?;
        let (name, data) = line.split_once(' ').ok_or(bad("a signature without a name"))?;
        let data = BASE64.decode(data.as_bytes()).map_err(|_| bad("a signature that is not base64"))?;
        if name.is_empty() || data.len() < 5 {
            return Err(bad("a signature that is too short"));
        }
        signatures.push((name, data));
    }
    Ok(signatures)
}

pub(crate) fn parse_note(note: &[u8]) -> Result<(Checkpoint, &str, Signatures<'_>), NoteError> {
    let bad = NoteError::Malformed;
    if note.len() > MAX_NOTE {
        return Err(bad("longer than 64 KiB"));
    }
    let note = std::str::from_utf8(note).map_err(|_| bad("not UTF-8"))?;
    if note.chars().any(|c| c < ' ' && c != '\n') {
        return Err(bad("control characters"));
    }
    let end = note.rfind("\n\n").ok_or(bad("no empty line before the signatures"))?;
    let (text, lines) = (&note[..=end], &note[end + 2..]);
    let signatures = parse_signatures(lines)?;
    let mut body = text.trim_end_matches('\n').split('\n');
    let (Some(origin), Some(size), Some(root)) = (body.next(), body.next(), body.next()) else {
        return Err(bad("fewer than three lines"));
    };
    check_origin(origin).map_err(|_| bad("the origin is no name"))?;
    let canonical = size == "0" || (!size.starts_with('0') && size.bytes().all(|c| c.is_ascii_digit()));
    let size = size.parse().ok().filter(|_| canonical).ok_or(bad("the size is no number"))?;
    let root = BASE64.decode(root.as_bytes()).map_err(|_| bad("the root is not base64"))?;
    let root = root.try_into().map_err(|_| bad("the root has not 32 bytes"))?;
    Ok((Checkpoint { origin: origin.to_owned(), size, root }, text, signatures))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::SeededEntropy;

    fn key() -> LogKey {
        LogKey::generate("sekisho.test/audit", &SeededEntropy::new(7)).unwrap()
    }

    #[test]
    fn the_verifier_key_of_go_is_read_and_written() {
        // From the documentation of golang.org/x/mod/sumdb/note.
        let text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        assert_eq!(text.parse::<LogPublicKey>().unwrap().to_string(), text);
    }

    #[test]
    fn keys_survive_the_round_trip() {
        let key = key();
        assert_eq!(LogKey::from_secret_text(&key.to_secret_text()).unwrap().public(), key.public());
        assert_eq!(&key.public().to_string().parse::<LogPublicKey>().unwrap(), key.public());
        assert_eq!(LogKey::from_seed("a b", &[0; 32]).unwrap_err(), KeyError::Origin);
    }

    #[test]
    fn every_flipped_byte_of_a_checkpoint_is_noticed() {
        let key = key();
        let note = key.sign(300, &[7; 32]).into_bytes();
        assert_eq!(Checkpoint::open(&note, key.public()).unwrap().size, 300);
        for at in 0..note.len() {
            for bit in 0..8 {
                let mut bad = note.clone();
                bad[at] ^= 1 << bit;
                assert!(Checkpoint::open(&bad, key.public()).is_err(), "byte {at} bit {bit}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(bytes: Vec<u8>, text: String) {
            let _ = Checkpoint::parse_unverified(&bytes);
            let _ = Checkpoint::open(format!("{text}\n\n\u{2014} {text} {text}\n").as_bytes(), key().public());
            let _ = text.parse::<LogPublicKey>();
            let _ = LogKey::from_secret_text(&text);
        }
    }
}
