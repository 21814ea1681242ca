//! Decoys: laying them out, and knowing of them.
//!
//! The log calls a decoy by an identifier that says nothing about what it is: whoever reads the log,
//! or gets a copy of it, learns that there is one, and which it was only when somebody touches it.

use std::net::IpAddr;
use std::sync::Arc;

use audit::{Change, RecordKind};
use model::{DatasetId, DecoyId, ObjectId};
use policy::AdminAction;
use ssh_key::{HashAlg, PublicKey};
use store::{Decoy, DecoyKind};
use tokio::sync::watch;

use crate::{Entry, Gate, Refusal};

/// The most decoys: each event is held against all of them, and people must still know where they lie.
const DECOYS_MAX: usize = 10_000;
/// The longest note, in characters.
const NOTE_MAX: usize = 500;
/// Characters of a SHA-256 in Base64 without padding.
const FINGERPRINT: usize = 43;

/// A decoy to be laid out.
#[derive(Debug, Clone)]
pub struct NewDecoy {
    /// What sort of thing it is.
    pub kind: DecoyKind,
    /// An IP address; a public key in OpenSSH's form or its fingerprint; a stored file (`obj:…`) or
    /// a dataset (`ds:…`).
    pub what: String,
    /// Where it was laid out.
    pub note: String,
}

impl Gate {
    /// Makes something a decoy from now on.
    pub async fn add_decoy(&self, entry: &Entry, new: NewDecoy) -> Result<DecoyId, Refusal> {
        let what = plain(new.kind, new.what.trim()).map_err(Refusal::malformed)?;
        if new.note.chars().count() > NOTE_MAX {
            return Err(Refusal::malformed(format!("A note has at most {NOTE_MAX} characters.")));
        }
        let id = DecoyId::random(&*self.inner.entropy).map_err(|e| Refusal::entropy(&e))?;
        let change = (RecordKind::Decoy, id.to_string(), Change::Created);
        self.admit(entry, AdminAction::ManageDecoys, change).await?;
        let decoy = Decoy {
            id: id.clone(),
            kind: new.kind,
            what,
            note: new.note,
            added_at: self.now(),
            added_by: entry.person.clone(),
        };
        let gate = self.clone();
        self.to_the_end(async move {
            let store = &gate.inner.store;
            gate.is_there(&decoy).await?;
            if store.decoys().await.map_err(|e| Refusal::store(&e))?.len() >= DECOYS_MAX {
                return Err(Refusal::malformed(format!("There are {DECOYS_MAX} decoys already.")));
            }
            store.add_decoy(&decoy).await.map_err(|e| Refusal::store(&e))?;
            gate.reload_decoys().await?;
            Ok(id)
        })
        .await
    }

    /// Makes a decoy an ordinary thing again.
    pub async fn remove_decoy(&self, entry: &Entry, id: &DecoyId) -> Result<(), Refusal> {
        let change = (RecordKind::Decoy, id.to_string(), Change::Closed);
        self.admit(entry, AdminAction::ManageDecoys, change).await?;
        let (gate, id) = (self.clone(), id.clone());
        self.to_the_end(async move {
            gate.inner.store.remove_decoy(&id).await.map_err(|e| Refusal::store(&e))?;
            gate.reload_decoys().await
        })
        .await
    }

    /// Every decoy, for those who may know of them.
    pub async fn decoys(&self, entry: &Entry) -> Result<Vec<Decoy>, Refusal> {
        self.may(entry, AdminAction::ManageDecoys).await?;
        self.inner.store.decoys().await.map_err(|e| Refusal::store(&e))
    }

    /// Every decoy as it changes, for detection.
    pub fn decoys_in_force(&self) -> watch::Receiver<Arc<Vec<Decoy>>> {
        self.inner.decoys.subscribe()
    }

    /// Whether a key, by its fingerprint (`SHA256:…`), is a decoy.
    pub fn is_decoy_key(&self, fingerprint: &str) -> bool {
        let decoys = self.inner.decoys.borrow();
        decoys.iter().any(|decoy| decoy.kind == DecoyKind::Key && decoy.what == fingerprint)
    }

    async fn reload_decoys(&self) -> Result<(), Refusal> {
        let all = self.inner.store.decoys().await.map_err(|e| Refusal::store(&e))?;
        self.inner.decoys.send_replace(Arc::new(all));
        Ok(())
    }

    /// A file or dataset that is a decoy must be there to be found.
    async fn is_there(&self, decoy: &Decoy) -> Result<(), Refusal> {
        let store = &self.inner.store;
        let there = if let Ok(dataset) = decoy.what.parse::<DatasetId>() {
            store.dataset(&dataset).await.map_err(|e| Refusal::store(&e))?.is_some()
        } else if let Ok(object) = decoy.what.parse::<ObjectId>() {
            store.object(&object).await.map_err(|e| Refusal::store(&e))?.is_some()
        } else {
            true
        };
        if there { Ok(()) } else { Err(Refusal::unknown(&decoy.what)) }
    }
}

/// What a decoy is known by in events.
fn plain(kind: DecoyKind, what: &str) -> Result<String, String> {
    match kind {
        DecoyKind::Address => {
            let address: IpAddr = what.parse().map_err(|_| format!("{what:?} is no IP address."))?;
            Ok(address.to_canonical().to_string())
        }
        DecoyKind::Key => {
            let base64 = |c: char| c.is_ascii_alphanumeric() || "+/".contains(c);
            if let Some(digest) = what.strip_prefix("SHA256:") {
                return if digest.len() == FINGERPRINT && digest.chars().all(base64) {
                    Ok(what.to_owned())
                } else {
                    Err("A fingerprint is SHA256: and 43 characters, as `ssh-keygen -lf` prints it."
                        .to_owned())
                };
            }
            let key = PublicKey::from_openssh(what)
                .map_err(|_| "A key is an OpenSSH public key (one line), or its fingerprint.".to_owned())?;
            Ok(key.fingerprint(HashAlg::Sha256).to_string())
        }
        DecoyKind::Object => {
            let known = what.parse::<DatasetId>().is_ok() || what.parse::<ObjectId>().is_ok();
            let wrong = || format!("{what:?} is neither a stored file (obj:…) nor a dataset (ds:…).");
            known.then(|| what.to_owned()).ok_or_else(wrong)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoy_is_known_by_one_spelling() {
        let address = |what| plain(DecoyKind::Address, what);
        assert_eq!(address("::ffff:10.0.0.1").unwrap(), "10.0.0.1");
        assert!(address("localhost").is_err() && address("10.0.0.0/8").is_err());
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti user@example.com";
        let print = plain(DecoyKind::Key, key).unwrap();
        assert_eq!(plain(DecoyKind::Key, &print).unwrap(), print);
        assert!(plain(DecoyKind::Key, "SHA256:short").is_err() && plain(DecoyKind::Key, "MD5:aa").is_err());
        assert!(plain(DecoyKind::Object, "obj:x").is_ok() && plain(DecoyKind::Object, "ds:x").is_ok());
        assert!(plain(DecoyKind::Object, "study:x").is_err());
    }
}
