//! What is said between a log and its witness: C2SP tlog-witness, `add-checkpoint`.

use std::fmt;

use audit::Hash;
use data_encoding::BASE64;

/// The most bytes a request may have: a note of 64 KiB, and the proof.
pub const REQUEST_MAX: usize = 68 << 10;
/// The most bytes an answer may have.
pub const ANSWER_MAX: usize = 16 << 10;
/// The most lines a proof may have; no tree needs more.
pub const PROOF_MAX: usize = 63;
/// The content type of a 409 that names the size of the last checkpoint signed.
pub const SIZE_TYPE: &str = "text/x.tlog.size";

/// A request to sign a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// The size of the last checkpoint that the witness has signed, as far as the log knows.
    pub old: u64,
    /// The proof that the new checkpoint continues that one (RFC 6962, section 2.1.2).
    pub proof: Vec<Hash>,
    /// The new checkpoint, a signed note.
    pub note: String,
}

/// Why bytes are not a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no add-checkpoint request: {0}")]
pub struct RequestFault(pub &'static str);

impl AddCheckpoint {
    /// Parses a request; its checkpoint is not looked at yet.
    pub fn parse(bytes: &[u8]) -> Result<AddCheckpoint, RequestFault> {
        if bytes.len() > REQUEST_MAX {
            return Err(RequestFault("it is too long"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| RequestFault("it is not UTF-8"))?;
        let (head, note) = text.split_once("\n\n").ok_or(RequestFault("there is no checkpoint in it"))?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old "));
        let old = old.and_then(parse_size).ok_or(RequestFault("its first line is not `old` and a size"))?;
        let mut proof = Vec::new();
        for line in lines {
            let hash = BASE64.decode(line.as_bytes()).map_err(|_| RequestFault("a hash is not base64"))?;
            proof.push(hash.try_into().map_err(|_| RequestFault("a hash has not 32 bytes"))?);
            if proof.len() > PROOF_MAX {
                return Err(RequestFault("it has more than 63 hashes"));
            }
        }
        Ok(AddCheckpoint { old, proof, note: note.to_owned() })
    }
}

impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old)?;
        for hash in &self.proof {
            writeln!(f, "{}", BASE64.encode(hash))?;
        }
        write!(f, "\n{}", self.note)
    }
}

/// Parses the one way of writing a size.
pub fn parse_size(text: &str) -> Option<u64> {
    let canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|c| c.is_ascii_digit()));
    text.parse().ok().filter(|_| canonical)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn requests_survive_the_round_trip(old: u64, proof in proptest::collection::vec(proptest::array::uniform32(0_u8..), 0..63)) {
            let request = AddCheckpoint { old, proof, note: "o\n1\nr\n\n\u{2014} o s\n".to_owned() };
            proptest::prop_assert_eq!(AddCheckpoint::parse(request.to_string().as_bytes()), Ok(request));
        }

        #[test]
        fn foreign_requests_never_panic(bytes: Vec<u8>, text: String) {
            let _ = AddCheckpoint::parse(&bytes);
            let _ = AddCheckpoint::parse(format!("old 1\n{text}\n\n{text}").as_bytes());
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let long = format!("old 1\n{}\nnote", format!("{}\n", BASE64.encode(&[0; 32])).repeat(64));
        for bad in
            ["", "old 1\n", "old 01\n\nn", "old -1\n\nn", "old\n\nn", "OLD 1\n\nn", "old 1\nAA==\n\nn", &long]
        {
            assert!(AddCheckpoint::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
