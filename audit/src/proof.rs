use std::fmt;

use data_encoding::BASE64;

use crate::tree::{Hash, leaf_hash, verify_inclusion};
use crate::{Checkpoint, LogPublicKey, NoteError};

const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// An entry in base64, 64 hashes and a checkpoint with many witnesses stay far below it.
const MAX_PROOF: usize = 256 * 1024;

/// Evidence that one entry stands in a log, checkable with nothing but the key of the log.
///
/// As text it is a C2SP `tlog-proof@v1`; the entry itself travels in its `extra` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The position of the entry.
    pub index: u64,
    /// The bytes of the entry.
    pub entry: Vec<u8>,
    /// The path from the entry to the root.
    pub hashes: Vec<Hash>,
    /// The signed checkpoint with that root.
    pub checkpoint: String,
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Not in the form of a proof.
    #[error("this is not a proof of an audit entry: {0}")]
    Malformed(&'static str),
    /// The checkpoint in it is not one of the expected log.
    #[error("the checkpoint in the proof is not to be trusted: {0}")]
    Checkpoint(#[from] NoteError),
    /// The hashes do not lead from the entry to the root.
    #[error(
        "the entry is not in the log at this place: the hashes do not lead to the root of the checkpoint"
    )]
    NotIncluded,
}

impl Proof {
    /// Parses the text form. Nothing is verified yet.
    pub fn parse(bytes: &[u8]) -> Result<Proof, ProofError> {
        let bad = ProofError::Malformed;
        if bytes.len() > MAX_PROOF {
            return Err(bad("it is too long"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| bad("it is not UTF-8"))?;
        let (head, checkpoint) = text.split_once("\n\n").ok_or(bad("there is no checkpoint in it"))?;
        let mut lines = head.split('\n');
        if lines.next() != Some(HEADER) {
            return Err(bad("its first line is not c2sp.org/tlog-proof@v1"));
        }
        let extra = lines.next().and_then(|line| line.strip_prefix("extra "));
        let extra = extra.ok_or(bad("it does not carry the entry"))?;
        let entry = BASE64.decode(extra.as_bytes()).map_err(|_| bad("the entry is not base64"))?;
        let index = lines.next().and_then(|line| line.strip_prefix("index "));
        let index = index.ok_or(bad("it names no index"))?;
        let number: u64 = index.parse().map_err(|_| bad("the index is no number"))?;
        if number.to_string() != index {
            return Err(bad("the index is not written plainly"));
        }
        let mut hashes = Vec::new();
        for line in lines {
            let hash = BASE64.decode(line.as_bytes()).map_err(|_| bad("a hash is not base64"))?;
            hashes.push(hash.try_into().map_err(|_| bad("a hash has not 32 bytes"))?);
        }
        if hashes.len() > 64 {
            return Err(bad("it has more hashes than any tree is high"));
        }
        Ok(Proof { index: number, entry, hashes, checkpoint: checkpoint.to_owned() })
    }

    /// Checks that the entry stands at its index in the log of `key`, and returns the checkpoint
    /// that says so.
    pub fn verify(&self, key: &LogPublicKey) -> Result<Checkpoint, ProofError> {
        let checkpoint = Checkpoint::open(self.checkpoint.as_bytes(), key)?;
        let leaf = leaf_hash(&self.entry);
        if verify_inclusion(&leaf, self.index, checkpoint.size, &self.hashes, &checkpoint.root) {
            Ok(checkpoint)
        } else {
            Err(ProofError::NotIncluded)
        }
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}\nextra {}\nindex {}", BASE64.encode(&self.entry), self.index)?;
        for hash in &self.hashes {
            writeln!(f, "{}", BASE64.encode(hash))?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LogKey;
    use crate::tree::node_hash;
    use model::SeededEntropy;

    fn proof() -> (Proof, LogKey) {
        let key = LogKey::generate("sekisho.test/audit", &SeededEntropy::new(7)).unwrap();
        let (a, b) = (leaf_hash(b"a"), leaf_hash(b"b"));
        let checkpoint = key.sign(2, &node_hash(&a, &b));
        (Proof { index: 1, entry: b"b".to_vec(), hashes: vec![a], checkpoint }, key)
    }

    #[test]
    fn a_proof_survives_the_round_trip_and_verifies() {
        let (proof, key) = proof();
        let again = Proof::parse(proof.to_string().as_bytes()).unwrap();
        assert_eq!(again, proof);
        assert_eq!(again.verify(key.public()).unwrap().size, 2);
    }

    #[test]
    fn every_flipped_byte_of_a_proof_is_noticed() {
        let (proof, key) = proof();
        let text = proof.to_string().into_bytes();
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut bad = text.clone();
                bad[at] ^= 1 << bit;
                let accepted = Proof::parse(&bad).is_ok_and(|p| p.verify(key.public()).is_ok());
                assert!(!accepted, "byte {at} bit {bit}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn foreign_proofs_never_panic(bytes: Vec<u8>, text: String) {
            let key = proof().1;
            for bytes in [bytes, format!("{HEADER}\nextra \nindex 1\n{text}\n\n{text}").into_bytes()] {
                if let Ok(proof) = Proof::parse(&bytes) { let _ = proof.verify(key.public()); }
            }
        }
    }
}
