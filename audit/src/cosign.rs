//! What a witness adds to a checkpoint: a C2SP `cosignature/v1`, an ed25519 signature with a time.

use std::fmt;

use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use model::{Entropy, Timestamp};

use crate::note::{check_origin, key_hash, key_text, parse_note, parse_signatures, split_key};
use crate::{KeyError, NoteError};

/// The algorithm byte of ed25519 cosignatures in C2SP tlog-cosignature.
const COSIGNATURE: u8 = 4;

/// What a witness signs with: an ed25519 key and the name of the witness.
#[derive(Clone)]
pub struct WitnessKey {
    public: WitnessPublicKey,
    key: SigningKey,
}

impl WitnessKey {
    /// A fresh key for the witness `name`, such as `witness.example.org/sekisho`.
    pub fn generate(name: &str, entropy: &(impl Entropy + ?Sized)) -> Result<WitnessKey, KeyError> {
        let mut seed = zeroize::Zeroizing::new([0; 32]);
        entropy.fill(&mut *seed)?;
        WitnessKey::from_seed(name, &seed)
    }

    fn from_seed(name: &str, seed: &[u8; 32]) -> Result<WitnessKey, KeyError> {
        check_origin(name)?;
        let key = SigningKey::from_bytes(seed);
        Ok(WitnessKey { public: WitnessPublicKey { name: name.to_owned(), key: key.verifying_key() }, key })
    }

    /// Parses what [`WitnessKey::to_secret_text`] made.
    pub fn from_secret_text(text: &str) -> Result<WitnessKey, KeyError> {
        let rest = text.trim_end().strip_prefix("PRIVATE+KEY+").ok_or(KeyError::Malformed)?;
        let (name, hash, data) = split_key(rest, COSIGNATURE)?;
        let seed: &[u8; 32] = data.as_slice().try_into().map_err(|_| KeyError::Malformed)?;
        let key = WitnessKey::from_seed(name, seed)?;
        if key.public.hash() == hash { Ok(key) } else { Err(KeyError::Malformed) }
    }

    /// The secret key as one line. Keep it in a file that only the witness can read.
    pub fn to_secret_text(&self) -> zeroize::Zeroizing<String> {
        let mut data = zeroize::Zeroizing::new(vec![COSIGNATURE]);
        data.extend_from_slice(self.key.as_bytes());
        let encoded = zeroize::Zeroizing::new(BASE64.encode(&data));
        let hash = HEXLOWER.encode(&self.public.hash());
        zeroize::Zeroizing::new(format!("PRIVATE+KEY+{}+{hash}+{}", self.public.name, *encoded))
    }

    /// What verifies its signatures.
    pub fn public(&self) -> &WitnessPublicKey {
        &self.public
    }

    /// The signature line, with its end, for the checkpoint in `note` as of `at`. It says that no
    /// larger history of this log is known; that this is so is for the caller to see to.
    pub fn cosign(&self, note: &[u8], at: Timestamp) -> Result<String, NoteError> {
        let (_, text, _) = parse_note(note)?;
        let seconds = u64::try_from(at.as_secs()).unwrap_or(0);
        let mut data = self.public.hash().to_vec();
        data.extend_from_slice(&seconds.to_be_bytes());
        data.extend_from_slice(&self.key.sign(&message(text, seconds)).to_bytes());
        Ok(format!("\u{2014} {} {}\n", self.public.name, BASE64.encode(&data)))
    }
}

impl fmt::Debug for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WitnessKey({})", self.public)
    }
}

/// What verifies the cosignatures of one witness. It prints and parses as a C2SP verifier key,
/// `name+hash+key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessPublicKey {
    name: String,
    key: VerifyingKey,
}

impl WitnessPublicKey {
    /// The name of the witness.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Looks in `lines` for the signature of this witness over the checkpoint in `note`. Lines of
    /// others are passed over.
    pub fn open(&self, note: &[u8], lines: &str) -> Result<Cosignature, NoteError> {
        let (_, text, _) = parse_note(note)?;
        let hash = self.hash();
        let of_us = |(name, data): &(&str, Vec<u8>)| *name == self.name && data.get(..4) == Some(&hash);
        let (_, data) = parse_signatures(lines)?.into_iter().find(of_us).ok_or(NoteError::Unsigned)?;
        let (seconds, signature) = data[4..].split_first_chunk::<8>().ok_or(NoteError::BadSignature)?;
        let seconds = u64::from_be_bytes(*seconds);
        let signature: [u8; 64] = signature.try_into().map_err(|_| NoteError::BadSignature)?;
        self.key
            .verify_strict(&message(text, seconds), &Signature::from_bytes(&signature))
            .map_err(|_| NoteError::BadSignature)?;
        // Further than any timestamp reaches is as good as never.
        let at = i64::try_from(seconds).ok().filter(|s| *s < 1 << 40).ok_or(NoteError::BadSignature)?;
        Ok(Cosignature {
            line: format!("\u{2014} {} {}\n", self.name, BASE64.encode(&data)),
            at: Timestamp::from_secs(at),
        })
    }

    fn hash(&self) -> [u8; 4] {
        key_hash(&self.name, COSIGNATURE, &self.key)
    }
}

impl fmt::Display for WitnessPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&key_text(&self.name, COSIGNATURE, &self.key))
    }
}

impl std::str::FromStr for WitnessPublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, hash, data) = split_key(text, COSIGNATURE)?;
        let bytes: &[u8; 32] = data.as_slice().try_into().map_err(|_| KeyError::Malformed)?;
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::Malformed)?;
        let public = WitnessPublicKey { name: name.to_owned(), key };
        if public.hash() == hash { Ok(public) } else { Err(KeyError::Malformed) }
    }
}

/// A verified signature of a witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosignature {
    /// The line, with its end; appended to the note it makes a note that both have signed.
    pub line: String,
    /// When the witness signed, by its own clock.
    pub at: Timestamp,
}

fn message(text: &str, seconds: u64) -> Vec<u8> {
    format!("cosignature/v1\ntime {seconds}\n{text}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Checkpoint, LogKey};
    use model::SeededEntropy;

    fn keys() -> (LogKey, WitnessKey) {
        let entropy = SeededEntropy::new(7);
        let witness = WitnessKey::generate("witness.test/w1", &entropy).unwrap();
        (LogKey::generate("sekisho.test/audit", &entropy).unwrap(), witness)
    }

    #[test]
    fn the_example_of_the_specification_is_read() {
        // C2SP tlog-cosignature; its witness signed at 1679315147.
        let note = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
            \u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";
        let line = "\u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";
        let (_, data) = parse_signatures(line).unwrap().remove(0);
        assert_eq!(u64::from_be_bytes(data[4..12].try_into().unwrap()), 1_679_315_147);
        assert_eq!(data.len(), 4 + 8 + 64);
        assert_eq!(Checkpoint::parse_unverified(note.as_bytes()).unwrap().size, 20_852_163);
    }

    #[test]
    fn a_cosigned_note_is_one_of_both() {
        let (log, witness) = keys();
        let note = log.empty_checkpoint();
        let line = witness.cosign(note.as_bytes(), Timestamp::from_secs(1_790_000_000)).unwrap();
        let found = witness.public().open(note.as_bytes(), &line).unwrap();
        assert_eq!((found.line.as_str(), found.at), (line.as_str(), Timestamp::from_secs(1_790_000_000)));
        let both = format!("{note}{line}");
        assert!(Checkpoint::open(both.as_bytes(), log.public()).is_ok());
        let again = WitnessKey::from_secret_text(&witness.to_secret_text()).unwrap();
        assert_eq!(again.public(), witness.public());
        assert_eq!(&witness.public().to_string().parse::<WitnessPublicKey>().unwrap(), witness.public());
        // A key of a log is none of a witness.
        assert!(log.public().to_string().parse::<WitnessPublicKey>().is_err());
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let (log, witness) = keys();
        let note = log.empty_checkpoint();
        let line = witness.cosign(note.as_bytes(), Timestamp::from_secs(1_790_000_000)).unwrap();
        for at in 0..line.len() {
            for bit in 0..8 {
                let mut bad = line.clone().into_bytes();
                bad[at] ^= 1 << bit;
                let read = std::str::from_utf8(&bad).ok();
                let accepted = read.is_some_and(|bad| witness.public().open(note.as_bytes(), bad).is_ok());
                assert!(!accepted, "byte {at} bit {bit}");
            }
        }
        let other = log.sign(1, &[1; 32]);
        assert_eq!(witness.public().open(other.as_bytes(), &line), Err(NoteError::BadSignature));
    }
}
