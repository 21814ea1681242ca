//! Things nobody has a use for: whoever touches one is looking for something.

use std::collections::HashMap;
use std::net::IpAddr;

use serde_json::Value;

/// What sort of thing a decoy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DecoyKind {
    /// An IP address to which nothing connects.
    Address,
    /// A key with which nobody comes.
    Key,
    /// A stored file, or a whole dataset, that nobody needs to open.
    Object,
}

impl DecoyKind {
    /// Every kind.
    pub const ALL: [DecoyKind; 3] = [DecoyKind::Address, DecoyKind::Key, DecoyKind::Object];

    /// The stable word that stands for it, in records and in rules.
    pub const fn code(self) -> &'static str {
        match self {
            DecoyKind::Address => "address",
            DecoyKind::Key => "key",
            DecoyKind::Object => "object",
        }
    }
}

/// One decoy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoy {
    /// Its identifier in records, which says nothing about what it is.
    pub id: String,
    /// What sort of thing it is.
    pub kind: DecoyKind,
}

/// Every decoy, by what it is: an IP address, the fingerprint of a key (`SHA256:…`), the identifier
/// of a stored file or a dataset.
#[derive(Debug, Clone, Default)]
pub struct Decoys(HashMap<String, Decoy>);

impl Decoys {
    /// These decoys, each with the value that it is known by.
    pub fn new(all: impl IntoIterator<Item = (String, Decoy)>) -> Decoys {
        Decoys(all.into_iter().map(|(value, decoy)| (plain(&value), decoy)).collect())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The decoy that an exported event touches.
    pub(super) fn touched(&self, kind: &str, event: &Value) -> Option<&Decoy> {
        if self.0.is_empty() {
            return None;
        }
        let said = event.get("unmapped")?;
        let is = |field: &str, sort| {
            let value = said.get(field)?.as_str()?;
            self.0.get(&plain(value)).filter(|decoy| decoy.kind == sort)
        };
        // Which fields say what was touched, and as what.
        let touched = match kind {
            "connection_attempted" => is("address", DecoyKind::Address),
            "packet_dropped" => is("destination", DecoyKind::Address),
            "file_read" => is("object", DecoyKind::Object).or_else(|| is("dataset", DecoyKind::Object)),
            "auth_refused" | "login_refused" | "login_succeeded" | "certificate_issued" => {
                is("key_fingerprint", DecoyKind::Key)
            }
            _ => None,
        };
        // Whatever is done with a certificate for the key names it.
        touched.or_else(|| is("device", DecoyKind::Key))
    }
}

/// An address has many spellings, anything else one.
fn plain(value: &str) -> String {
    value.parse::<IpAddr>().map_or_else(|_| value.to_owned(), |ip| ip.to_canonical().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_decoy_is_known_by_the_fields_of_its_kind_alone() {
        let decoy = |id: &str, kind| Decoy { id: id.to_owned(), kind };
        let decoys = Decoys::new([
            ("198.51.100.9".to_owned(), decoy("decoy:1", DecoyKind::Address)),
            ("SHA256:abc".to_owned(), decoy("decoy:2", DecoyKind::Key)),
            ("obj:x".to_owned(), decoy("decoy:3", DecoyKind::Object)),
        ]);
        let touched = |kind: &str, said: Value| {
            decoys.touched(kind, &json!({ "unmapped": said })).map(|decoy| decoy.id.clone())
        };
        let one = Some("decoy:1".to_owned());
        assert_eq!(touched("connection_attempted", json!({"address": "::ffff:198.51.100.9"})), one);
        assert_eq!(touched("packet_dropped", json!({"destination": "198.51.100.9"})), one);
        assert_eq!(touched("connection_attempted", json!({"address": "198.51.100.8"})), None);
        assert_eq!(
            touched("auth_refused", json!({"key_fingerprint": "SHA256:abc"})).as_deref(),
            Some("decoy:2")
        );
        assert_eq!(touched("file_read", json!({"object": "obj:x"})).as_deref(), Some("decoy:3"));
        for kind in ["login_succeeded", "login_refused", "certificate_issued"] {
            assert_eq!(touched(kind, json!({"key_fingerprint": "SHA256:abc"})).as_deref(), Some("decoy:2"));
        }
        for kind in ["login_refused", "session_opened", "session_refused", "admin_refused", "file_read"] {
            assert_eq!(touched(kind, json!({"device": "SHA256:abc"})).as_deref(), Some("decoy:2"), "{kind}");
        }
        // A file that is merely called like a decoy's key, an event that only mentions it.
        assert_eq!(touched("file_read", json!({"object": "SHA256:abc"})), None);
        assert_eq!(touched("record_changed", json!({"object": "obj:x"})), None);
        assert_eq!(Decoys::default().touched("file_read", &json!({})), None);
    }
}
