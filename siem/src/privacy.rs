//! What a collector may see: values that it may not are replaced by a keyed hash.
//!
//! Equal values have equal hashes in the feed to one collector, so that it can still count and
//! correlate; with the key that lies on the node, and only with it, a value can be looked for. Two
//! collectors have different keys and cannot compare. A hash of something short, such as a person's
//! identifier, protects against whoever has no key, and against nobody else.

use audit::{Sensitivity, sensitivity};
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

/// Bytes of a hash that are shown: enough that no two values meet by chance.
const SHOWN: usize = 16;
/// What stands before a hash, and in the place of text that hashing would make useless.
const MARK: &str = "keyed:";

/// How values of one sensitivity leave the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Treatment {
    /// As they are.
    #[default]
    Clear,
    /// As a keyed hash; numbers are left out.
    Hash,
}

/// What one collector may see.
#[derive(Clone)]
pub struct Privacy {
    /// Of the house.
    pub internal: Treatment,
    /// Of people.
    pub personal: Treatment,
    /// The key of the hashes, this collector's own.
    pub key: Zeroizing<[u8; 32]>,
}

impl Privacy {
    /// Everything is shown.
    pub fn clear() -> Privacy {
        Privacy { internal: Treatment::Clear, personal: Treatment::Clear, key: Zeroizing::new([0; 32]) }
    }

    /// Replaces in an exported event what the collector may not see. It stays valid OCSF.
    pub fn apply(&self, event: &mut Value) {
        if (self.internal, self.personal) == (Treatment::Clear, Treatment::Clear) {
            return;
        }
        let code = event.pointer("/metadata/event_code").and_then(Value::as_str).unwrap_or_default();
        let code = code.to_owned();
        self.walk(&code, &mut Vec::new(), event);
        // Its words are those of the fields: what it is about is said by the code.
        if let Some(message) = event.get_mut("message") {
            *message = Value::from(code);
        }
    }

    fn hides(&self, code: &str, path: &[&str]) -> bool {
        let treatment = match sensitivity(code, path) {
            Sensitivity::Public => Treatment::Clear,
            Sensitivity::Internal => self.internal,
            Sensitivity::Personal => self.personal,
        };
        treatment == Treatment::Hash
    }

    fn walk<'a>(&self, code: &str, path: &mut Vec<&'a str>, value: &'a mut Value) {
        match value {
            Value::Object(fields) => {
                // Of an address only a hash as a name remains: it would be no address.
                let address = fields.get("ip").and_then(Value::as_str).map(str::to_owned);
                let hidden = {
                    let at: Vec<&str> = path.iter().copied().chain(["ip"]).collect();
                    address.filter(|_| self.hides(code, &at))
                };
                if let Some(address) = hidden {
                    fields.remove("ip");
                    fields.remove("port");
                    fields.insert("name".to_owned(), Value::from(address));
                }
                // A number can stand for nothing but itself.
                fields.retain(|key, value| {
                    let at: Vec<&str> = path.iter().copied().chain([key.as_str()]).collect();
                    !(value.is_number() || value.is_boolean()) || !self.hides(code, &at)
                });
                for (key, value) in fields.iter_mut() {
                    path.push(key);
                    self.walk(code, path, value);
                    path.pop();
                }
            }
            Value::Array(items) => {
                for item in items {
                    self.walk(code, path, item);
                }
            }
            Value::String(text) if self.hides(code, path) => *text = self.hash(text),
            _ => {}
        }
    }

    /// What stands in the place of `value`.
    pub fn hash(&self, value: &str) -> String {
        let hash = blake3::keyed_hash(&self.key, value.as_bytes());
        let shown: String = hash.as_bytes()[..SHOWN].iter().map(|b| format!("{b:02x}")).collect();
        format!("{MARK}{shown}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use audit::{Event, EventKind};
    use model::Timestamp;

    fn exported() -> Value {
        let mut event = Event::new(
            Timestamp::from_secs(1_790_000_000),
            EventKind::ReadFailed {
                agent: "agent:hall-1".parse().unwrap(),
                object: "obj:o1".parse().unwrap(),
                detail: "too few shares".to_owned(),
            },
        );
        event.person = Some("u:alice".parse().unwrap());
        event.study = Some("study:brca".parse().unwrap());
        event.peer = Some("192.0.2.7:50022".to_owned());
        audit::export("sekisho.test/audit", 41, &event.to_entry()).unwrap()
    }

    fn privacy(internal: Treatment, personal: Treatment) -> Privacy {
        Privacy { internal, personal, key: Zeroizing::new([7; 32]) }
    }

    #[test]
    fn a_collector_sees_what_it_may() {
        let (mut personal, mut all) = (exported(), exported());
        privacy(Treatment::Clear, Treatment::Hash).apply(&mut personal);
        privacy(Treatment::Hash, Treatment::Hash).apply(&mut all);
        let text = personal.to_string();
        assert!(!text.contains("alice") && !text.contains("192.0.2") && !text.contains("50022"), "{text}");
        assert!(text.contains("agent:hall-1") && text.contains("study:brca") && text.contains("too few"));
        assert_eq!(personal["message"], "read_failed");
        assert!(personal["src_endpoint"]["name"].as_str().unwrap().starts_with(MARK));
        let text = all.to_string();
        for hidden in ["alice", "hall-1", "brca", "o1", "too few"] {
            assert!(!text.contains(hidden), "{hidden} in {text}");
        }
        // The place in the log, the time and the class stay.
        assert_eq!((&all["metadata"], &all["time"]), (&exported()["metadata"], &exported()["time"]));
        let mut clear = exported();
        Privacy::clear().apply(&mut clear);
        assert_eq!(clear, exported());
    }

    #[test]
    fn a_value_has_one_hash_for_one_collector_and_another_for_the_next() {
        let (one, mut other) = (Privacy::clear(), Privacy::clear());
        other.key[0] = 1;
        assert_eq!(one.hash("u:alice"), one.hash("u:alice"));
        assert_ne!(one.hash("u:alice"), one.hash("u:bob"));
        assert_ne!(one.hash("u:alice"), other.hash("u:alice"));
    }
}
