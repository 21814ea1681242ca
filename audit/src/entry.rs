//! The bytes of an event in the log, and in what leaves the node.

use serde_json::{Value, json};

use crate::Event;
use crate::ocsf::{self, Severity};
use crate::wal::ENTRY_MAX;

/// Lengths to which texts, in characters, and lists are cut, tried in turn until the entry fits.
const CUTS: [(usize, usize); 3] = [(2048, 64), (256, 32), (24, 8)];

impl Event {
    /// The entry of this event: one line of JSON with sorted keys (RFC 8785), at most 65535 bytes.
    ///
    /// Texts longer than 2048 characters and lists longer than 64 are cut, and say so. Control and
    /// direction marks are written out, so that no terminal that shows the entry obeys them.
    pub fn to_entry(&self) -> Vec<u8> {
        let mut entry = Vec::with_capacity(1024);
        for (text, list) in CUTS {
            // Made anew for each: nearly all fit at once, and none should pay for a copy.
            let mut value = ocsf::record(self);
            tame(&mut value, text, list);
            entry.clear();
            write_canonical(&value, &mut entry);
            if entry.len() <= ENTRY_MAX {
                break;
            }
        }
        entry
    }
}

/// The severity from 1 (informational) to 5 (critical) that an entry states; 1 if it states none.
pub fn severity_of(entry: &Value) -> u8 {
    let stated = entry.get("severity_id").and_then(Value::as_u64);
    let known = Severity::Informational as u64..=Severity::Critical as u64;
    stated.filter(|s| known.contains(s)).map_or(1, |s| s as u8)
}

/// The form in which an entry leaves the node: with the name of the log, its index, and a `uid`
/// made of both by which copies are recognised. None if `entry` is no JSON object.
pub fn export(origin: &str, index: u64, entry: &[u8]) -> Option<Value> {
    let mut value: Value = serde_json::from_slice(entry).ok()?;
    let fields = value.as_object_mut()?;
    let metadata = fields.entry("metadata").or_insert_with(|| json!({})).as_object_mut()?;
    metadata.insert("uid".to_owned(), json!(uid(origin, index)));
    metadata.insert("log_name".to_owned(), json!(origin));
    metadata.insert("sequence".to_owned(), json!(index));
    Some(value)
}

/// What names one entry everywhere: the name of the log and the index.
pub fn uid(origin: &str, index: u64) -> String {
    format!("{origin}/{index}")
}

/// Writes JSON with sorted keys and without blanks, so that equal values are equal bytes.
pub fn write_canonical(value: &Value, to: &mut Vec<u8>) {
    match value {
        Value::Object(fields) => {
            if fields.keys().is_sorted() {
                return write_fields(fields.iter(), to);
            }
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by(|a, b| a.0.cmp(b.0));
            write_fields(fields.into_iter(), to);
        }
        Value::Array(items) => {
            to.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    to.push(b',');
                }
                write_canonical(item, to);
            }
            to.push(b']');
        }
        plain => write_plain(plain, to),
    }
}

fn write_fields<'a>(fields: impl Iterator<Item = (&'a String, &'a Value)>, to: &mut Vec<u8>) {
    to.push(b'{');
    for (i, (key, value)) in fields.enumerate() {
        if i > 0 {
            to.push(b',');
        }
        write_plain(key, to);
        to.push(b':');
        write_canonical(value, to);
    }
    to.push(b'}');
}

/// What has no parts; to memory it can always be written.
fn write_plain(value: &impl serde::Serialize, to: &mut Vec<u8>) {
    let _ = serde_json::to_writer(to, value);
}

fn tame(value: &mut Value, text: usize, list: usize) {
    match value {
        Value::String(s) => {
            // A text has no more characters than bytes.
            let cut = s.len() > text && s.chars().count() > text;
            if cut || s.chars().any(misleading) {
                let mut tamed = String::new();
                for c in s.chars().take(text) {
                    if misleading(c) { tamed.extend(c.escape_unicode()) } else { tamed.push(c) }
                }
                if cut {
                    tamed.push_str(" [cut]");
                }
                *s = tamed;
            }
        }
        Value::Array(items) => {
            let more = items.len().saturating_sub(list);
            items.truncate(list);
            items.iter_mut().for_each(|item| tame(item, text, list));
            if more > 0 {
                items.push(Value::from(format!("[{more} more]")));
            }
        }
        Value::Object(fields) => fields.values_mut().for_each(|value| tame(value, text, list)),
        _ => {}
    }
}

/// Characters that a terminal obeys or that turn the direction of what follows.
fn misleading(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\t'))
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AuthFault, DecisionRecord, Door, EventKind};
    use model::Timestamp;

    fn refused(reason: &str) -> Event {
        let mut event = Event::new(
            Timestamp::from_millis(1_790_000_000_007),
            EventKind::AuthRefused {
                door: Door::Ssh,
                fault: AuthFault::UnknownAuthority,
                reason: reason.to_owned(),
                key_fingerprint: None,
                principals: vec!["u:mallory".to_owned()],
                serial: Some(u64::MAX),
            },
        );
        event.peer = Some("192.0.2.7:50022".to_owned());
        event
    }

    #[test]
    fn an_entry_reads_like_this() {
        let entry = String::from_utf8(refused("not signed by our authority").to_entry()).unwrap();
        assert_eq!(
            entry,
            concat!(
                r#"{"activity_id":1,"category_uid":3,"class_uid":3002,"#,
                r#""message":"turned away at the ssh door (unknown-authority): not signed by our authority","#,
                r#""metadata":{"event_code":"auth_refused","product":{"name":"Sekisho","vendor_name":"Sekisho","version":"0.1.0"},"profiles":["datetime","host","security_control"],"version":"1.8.0"},"#,
                r#""service":{"name":"sekisho","uid":"ssh"},"severity_id":3,"src_endpoint":{"ip":"192.0.2.7","port":50022},"status_id":2,"#,
                r#""time":1790000000007,"time_dt":"2026-09-21T14:13:20.007Z","type_uid":300201,"#,
                r#""unmapped":{"door":"ssh","fault":"unknown-authority","key_fingerprint":null,"kind":"auth_refused","#,
                r#""principals":["u:mallory"],"reason":"not signed by our authority","serial":"18446744073709551615"},"user":{"name":"u:mallory"}}"#,
            )
        );
        let exported = export("sekisho.test/audit", 41, entry.as_bytes()).unwrap();
        assert_eq!(exported["metadata"]["uid"], "sekisho.test/audit/41");
        assert_eq!(exported["metadata"]["sequence"], 41);
    }

    #[test]
    fn an_event_of_any_size_becomes_an_entry() {
        let mut event = refused(&"\u{1}\u{202e}".repeat(100_000));
        event.decision = Some(DecisionRecord {
            permit: false,
            action: "x".repeat(1 << 20),
            code: "no-grant".to_owned(),
            rules: vec!["\u{7f}".repeat(4000); 5000],
            policy_epoch: 1,
            reason: "名".repeat(1 << 20),
            second: None,
        });
        let entry = event.to_entry();
        assert!(entry.len() <= ENTRY_MAX, "{}", entry.len());
        assert!(std::str::from_utf8(&entry).unwrap().contains("[cut]"));
    }

    proptest::proptest! {
        #[test]
        fn entries_are_one_line_that_no_terminal_obeys(reason: String) {
            let entry = String::from_utf8(refused(&reason).to_entry()).unwrap();
            let obeyed = entry.chars().any(|c| c.is_control() || c == '\u{202e}');
            proptest::prop_assert!(!obeyed);
            let value: Value = serde_json::from_str(&entry).unwrap();
            let mut again = Vec::new();
            write_canonical(&value, &mut again);
            proptest::prop_assert_eq!(again, entry.into_bytes());
        }

        #[test]
        fn foreign_entries_never_panic(bytes: Vec<u8>) {
            if let Some(value) = export("o", 1, &bytes) { severity_of(&value); }
        }
    }
}
