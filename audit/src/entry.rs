//! The bytes of an event in the log, and in what leaves the node.

use std::net::SocketAddr;

use serde_json::{Map, Value, json};

use crate::ocsf::{self, Severity};
use crate::wal::ENTRY_MAX;
use crate::{Event, EventKind};

/// Lengths to which texts, in characters, and lists are cut, tried in turn until the entry fits.
const CUTS: [(usize, usize); 3] = [(2048, 64), (256, 32), (24, 8)];

impl Event {
    /// The entry of this event: one line of JSON with sorted keys (RFC 8785), at most 65535 bytes.
    ///
    /// Texts longer than 2048 characters and lists longer than 64 are cut, and say so. Control and
    /// direction marks are written out, so that no terminal that shows the entry obeys them.
    pub fn to_entry(&self) -> Vec<u8> {
        let whole = self.to_value();
        let mut entry = Vec::new();
        for (text, list) in CUTS {
            let mut value = whole.clone();
            tame(&mut value, text, list);
            entry.clear();
            write_canonical(&value, &mut entry);
            if entry.len() <= ENTRY_MAX {
                break;
            }
        }
        entry
    }

    fn to_value(&self) -> Value {
        let class = ocsf::class(self);
        let mut unmapped = serde_json::to_value(&self.kind).unwrap_or_default();
        let code = unmapped.get("kind").cloned().unwrap_or_default();
        if let Some(fields) = unmapped.as_object_mut() {
            if let Some(study) = &self.study {
                fields.insert("study".to_owned(), json!(study));
            }
            if let Some(decision) = &self.decision {
                fields.insert("decision".to_owned(), json!(decision));
            }
        }
        let mut actor = Map::new();
        if let Some(person) = &self.person {
            actor.insert("user".to_owned(), json!({ "uid": person }));
        }
        if let Some(session) = &self.session {
            actor.insert("session".to_owned(), json!({ "uid": session }));
        }
        let mut value = json!({
            "activity_id": class.activity,
            "category_uid": class.class / 1000,
            "class_uid": class.class,
            "type_uid": class.class * 100 + class.activity,
            "severity_id": class.severity as u8,
            "status_id": if class.success { 1 } else { 2 },
            "time": self.at.as_millis(),
            "time_dt": self.at,
            "message": sentence(&self.kind),
            "metadata": {
                "version": ocsf::VERSION,
                "event_code": code,
                "product": {
                    "name": "Sekisho", "vendor_name": "Sekisho", "version": env!("CARGO_PKG_VERSION"),
                },
            },
            "unmapped": unmapped,
        });
        if let Some(fields) = value.as_object_mut() {
            if !actor.is_empty() {
                fields.insert("actor".to_owned(), Value::Object(actor));
            }
            if let Some(peer) = &self.peer {
                fields.insert("src_endpoint".to_owned(), endpoint(peer));
            }
        }
        value
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
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by(|a, b| a.0.cmp(b.0));
            to.push(b'{');
            for (i, (key, value)) in fields.into_iter().enumerate() {
                if i > 0 {
                    to.push(b',');
                }
                write_canonical(&Value::from(key.as_str()), to);
                to.push(b':');
                write_canonical(value, to);
            }
            to.push(b'}');
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
        plain => to.extend_from_slice(plain.to_string().as_bytes()),
    }
}

fn endpoint(peer: &str) -> Value {
    match peer.parse::<SocketAddr>() {
        Ok(at) => json!({ "ip": at.ip(), "port": at.port() }),
        Err(_) => json!({ "name": peer }),
    }
}

fn tame(value: &mut Value, text: usize, list: usize) {
    match value {
        Value::String(s) => {
            let cut = s.chars().count() > text;
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

fn sentence(kind: &EventKind) -> String {
    use EventKind as K;
    match kind {
        K::Started { process, version } => format!("{process} {version} started"),
        K::Stopped { process, reason } => format!("{process} stopped: {reason}"),
        K::LoginSucceeded { method, .. } => format!("logged in with {method}"),
        K::LoginRefused { reason, .. } => format!("login refused: {reason}"),
        K::CertificateIssued { certificate, subject, expires, .. } => {
            format!("{} certificate for {subject} issued, valid until {expires}", certificate.code())
        }
        K::TokenIssued { subject, expires } => {
            format!("enrolment token for {subject} issued, valid until {expires}")
        }
        K::AgentEnrolled { agent } => format!("{agent} enrolled"),
        K::AgentConnected { agent, .. } => format!("{agent} connected"),
        K::AgentLost { agent, reason } => format!("{agent} lost: {reason}"),
        K::AuthRefused { door, fault, reason, .. } => {
            format!("turned away at the {} door ({}): {reason}", door.code(), fault.code())
        }
        K::SessionOpened { workspace, agent, .. } => format!("session opened in {workspace} on {agent}"),
        K::SessionRefused { code, reason } => format!("session refused ({code}): {reason}"),
        K::ChannelRefused { what, detail } => format!("{} refused: {detail}", what.code()),
        K::SessionClosed { count, .. } => format!("session closed after {count} events"),
        K::SessionEnded { cause, reason, .. } => format!("session ended ({}): {reason}", cause.code()),
        K::DepositStarted { object, dataset, name, .. } => {
            format!("deposit of {name} as {object} into {dataset} began")
        }
        K::DepositCompleted { object, dataset, size, .. } => {
            format!("{object} of {size} bytes deposited into {dataset}")
        }
        K::DepositFailed { object, reason, .. } => format!("deposit of {object} failed: {reason}"),
        K::DepositRefused { dataset, code, reason } => {
            format!("deposit into {dataset} refused ({code}): {reason}")
        }
        K::ReadFault { backend, institution, object, fault, .. } => {
            format!("share of {object} on {backend} ({institution}) is {}", fault.code())
        }
        K::ReadFailed { object, detail, .. } => format!("{object} could not be read: {detail}"),
        K::WorkspaceStarted { workspace, agent, cold_ms } => {
            format!("{workspace} started on {agent} in {cold_ms} ms")
        }
        K::WorkspaceStopped { workspace, agent, reason } => {
            format!("{workspace} on {agent} stopped: {reason}")
        }
        K::GrantCreated { grant, dataset, grantee, until } => {
            format!("{grant}: {grantee} may use {dataset} until {until}")
        }
        K::GrantRevoked { grant, dataset, reason } => format!("{grant} on {dataset} revoked: {reason}"),
        K::PersonLocked { subject, reason } => format!("{subject} locked: {reason}"),
        K::PersonUnlocked { subject } => format!("{subject} unlocked"),
        K::RecordChanged { record, id, change } => format!("{} {id} {}", record.code(), change.code()),
        K::AdminRefused { action, code, reason } => format!("{action} refused ({code}): {reason}"),
        K::LogStopped { reason } => format!("the audit log stopped: {reason}"),
        K::WitnessLagging { witness, lag, last_error } => {
            format!("{witness} has not signed the last {lag} events: {last_error}")
        }
        K::WitnessRecovered { witness } => format!("{witness} has signed all events"),
        K::WitnessRefused { witness, reason } => format!("{witness} refused the checkpoint: {reason}"),
        K::SinkLagging { sink, lag, last_error } => format!("{sink} is {lag} events behind: {last_error}"),
        K::SinkRecovered { sink } => format!("{sink} has all events"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AuthFault, DecisionRecord, Door};
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
                r#""metadata":{"event_code":"auth_refused","product":{"name":"Sekisho","vendor_name":"Sekisho","version":"0.1.0"},"version":"1.8.0"},"#,
                r#""severity_id":3,"src_endpoint":{"ip":"192.0.2.7","port":50022},"status_id":2,"#,
                r#""time":1790000000007,"time_dt":"2026-09-21T14:13:20.007Z","type_uid":300201,"#,
                r#""unmapped":{"door":"ssh","fault":"unknown-authority","key_fingerprint":null,"kind":"auth_refused","#,
                r#""principals":["u:mallory"],"reason":"not signed by our authority","serial":"18446744073709551615"}}"#,
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
