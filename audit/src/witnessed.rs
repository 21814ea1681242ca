//! What a witness has signed of a log, held against the log.

use std::fs;
use std::io;
use std::path::Path;

use crate::error::{VerifyError, fault};
use crate::log::WITNESSED;
use crate::tiles::TileNodes;
use crate::tree::consistency;
use crate::{Checkpoint, Cosignature, LogPublicKey, WitnessPublicKey, verify_consistency};

/// The last checkpoint that a witness has signed, as it lies beside the log's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witnessed {
    /// How many entries it covers.
    pub size: u64,
    /// The note, with the signatures of the log and of the witness.
    pub note: String,
    /// The signature of the witness; none if its key was not given, and nothing was checked.
    pub cosignature: Option<Cosignature>,
}

/// The same, read and not compared yet.
pub(crate) struct Kept {
    checkpoint: Checkpoint,
    witnessed: Witnessed,
}

impl Kept {
    /// Reads it and checks the signature of the log and, if it is named, of the witness. None if the
    /// log has no witness; where one is named, that is an error.
    pub(crate) fn read(
        dir: &Path,
        key: &LogPublicKey,
        witness: Option<&WitnessPublicKey>,
    ) -> Result<Option<Kept>, VerifyError> {
        let note = match fs::read(dir.join(WITNESSED)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return match witness {
                    Some(witness) => {
                        let name = witness.name();
                        Err(fault(format!("{WITNESSED} is missing: nothing here was signed by {name}"), None))
                    }
                    None => Ok(None),
                };
            }
            note => note.map_err(|e| fault(format!("{WITNESSED} cannot be read: {e}"), None))?,
        };
        let note = String::from_utf8(note).map_err(|_| fault(format!("{WITNESSED} is no text"), None))?;
        let checkpoint = Checkpoint::open(note.as_bytes(), key)
            .map_err(|e| fault(format!("{WITNESSED}, of the log: {e}"), None))?;
        let cosignature = witness
            .map(|witness| {
                // `open` above has found the blank line before the signatures.
                let lines = note.rsplit_once("\n\n").map_or("", |(_, lines)| lines);
                let of = |e| fault(format!("{WITNESSED}, of the witness {}: {e}", witness.name()), None);
                witness.open(note.as_bytes(), lines).map_err(of)
            })
            .transpose()?;
        let witnessed = Witnessed { size: checkpoint.size, note, cosignature };
        Ok(Some(Kept { checkpoint, witnessed }))
    }

    /// How many bytes were read.
    pub(crate) fn bytes(&self) -> u64 {
        self.witnessed.note.len() as u64
    }

    /// Compares it with the log in `dir`, whose tiles up to its checkpoint `last` have been verified.
    pub(crate) fn compare(self, dir: &Path, last: &Checkpoint) -> Result<Witnessed, VerifyError> {
        let (signed, size) = (&self.checkpoint, last.size);
        if signed.size > size {
            let what = format!(
                "a witness has signed {} entries ({WITNESSED}), but the checkpoint covers only {size}: the log \
                 was set back to an older copy of itself",
                signed.size
            );
            return Err(fault(what, Some(size)));
        }
        let proof = consistency(&TileNodes::new(dir, size), signed.size, size)
            .map_err(|e| fault(format!("{WITNESSED} cannot be compared with the log: {e}"), None))?;
        if verify_consistency(signed.size, &signed.root, size, &last.root, &proof) {
            return Ok(self.witnessed);
        }
        let what = format!(
            "a witness has signed another history ({WITNESSED}): the first {} entries here have another root",
            signed.size
        );
        Err(fault(what, None))
    }
}
