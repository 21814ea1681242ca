//! Messages as RFC 5424 wants them.

use std::net::IpAddr;

use serde_json::{Value, json};

/// The smallest bound on the length of a message that can be kept: what every collector takes.
pub const MESSAGE_MIN: usize = 2048;

/// "Log audit" of RFC 5424, table 1.
const FACILITY: u8 = 13;
const APP_NAME: &str = "sekisho";
/// The enterprise number in RFC 5424's own examples, until the programme has one.
const SD_ID: &str = "sekisho@32473";

/// What is the same in all messages of one sink.
#[derive(Debug, Clone)]
pub struct Header {
    /// HOSTNAME.
    pub hostname: String,
    /// The name of the log.
    pub origin: String,
    /// The most bytes a message may have, framing not counted; at least [`MESSAGE_MIN`].
    pub max: usize,
}

/// The message of one event as it leaves the node (see [`audit::export`]).
///
/// MSGID is the kind of the event; index, origin and uid stand in the structured data
/// `[sekisho@32473 …]`; the message is the event as ASCII JSON, other characters escaped.
///
/// An event whose message would be longer than `header.max` is cut: first its texts, to 256, 64
/// and 16 characters, then to what its class requires. What was cut says
/// `"is_truncated":true` and `"untruncated_size"` (bytes of JSON) in `metadata`; the whole entry
/// is in the log under its index.
pub fn message(header: &Header, index: u64, event: &Value) -> Vec<u8> {
    let max = header.max.max(MESSAGE_MIN);
    let head = head(header, index, event);
    let mut body = ascii_json(event);
    let whole = body.len();
    let cuts = [Cut::Texts(256), Cut::Texts(64), Cut::Texts(16), Cut::Objects, Cut::Everything];
    for cut in cuts {
        if head.len() + 1 + body.len() <= max {
            break;
        }
        body = ascii_json(&cut_to(event, cut, whole));
    }
    let mut message = head.into_bytes();
    message.push(b' ');
    push_msg(&mut message, &body);
    message
}

/// A message with its length before it (RFC 5425, section 4.3).
pub fn frame(header: &Header, index: u64, event: &Value) -> Vec<u8> {
    let message = message(header, index, event);
    let mut frame = format!("{} ", message.len()).into_bytes();
    frame.extend_from_slice(&message);
    frame
}

/// MSG of RFC 5424: without a mark it may only be ASCII, UTF-8 begins with the byte order mark.
fn push_msg(message: &mut Vec<u8>, text: &str) {
    if !text.is_ascii() {
        message.extend_from_slice("\u{feff}".as_bytes());
    }
    message.extend_from_slice(text.as_bytes());
}

/// Everything up to the structured data.
fn head(header: &Header, index: u64, event: &Value) -> String {
    let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let priority = FACILITY * 8 + severity(audit::severity_of(event));
    let timestamp = Some(text("/time_dt")).filter(|t| is_timestamp(t)).unwrap_or("-");
    let (hostname, msgid) = (field(&header.hostname, 255), field(text("/metadata/event_code"), 32));
    // PROCID would be that of the reader of the log, not of whoever wrote it.
    format!(
        "<{priority}>1 {timestamp} {hostname} {APP_NAME} - {msgid} [{SD_ID} index=\"{index}\" origin=\"{}\" uid=\"{}\"]",
        param(&header.origin),
        param(&audit::uid(&header.origin, index)),
    )
}

/// A header field: 1 to `max` characters of PRINTUSASCII, or the NILVALUE.
fn field(text: &str, max: usize) -> String {
    let plain = |c: char| if c.is_ascii_graphic() { c } else { '_' };
    let field: String = text.chars().take(max).map(plain).collect();
    if field.is_empty() { "-".to_owned() } else { field }
}

/// A PARAM-VALUE: three characters are escaped (RFC 5424, section 6.3.3).
fn param(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '"' | '\\' | ']') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// The severity of RFC 5424, table 2, for that of OCSF.
fn severity(ocsf: u8) -> u8 {
    match ocsf {
        5 => 2,
        4 => 3,
        3 => 4,
        2 => 5,
        _ => 6,
    }
}

/// Whether it is a TIMESTAMP as the log writes it: `2026-04-01T09:00:00.000Z`.
fn is_timestamp(text: &str) -> bool {
    let form = b"dddd-dd-ddTdd:dd:dd.dddZ";
    let fits = |(c, form): (u8, &u8)| if *form == b'd' { c.is_ascii_digit() } else { c == *form };
    text.len() == form.len() && text.bytes().zip(form).all(fits)
}

#[derive(Clone, Copy)]
enum Cut {
    /// Texts are shortened.
    Texts(usize),
    /// What the class requires stays, so that the event is still valid.
    Objects,
    /// Only what names and classes the event stays: for entries that are none of ours.
    Everything,
}

fn cut_to(whole: &Value, cut: Cut, size: usize) -> Value {
    let mut value = whole.clone();
    if let Some(fields) = value.as_object_mut() {
        match cut {
            // `metadata` names the entry and stays.
            Cut::Texts(max) => {
                let texts = fields.iter_mut().filter(|(key, _)| *key != "metadata");
                texts.for_each(|(_, value)| shorten(value, max));
            }
            Cut::Objects => {
                for field in ["unmapped", "authorizations", "message", "status_detail"] {
                    fields.remove(field);
                }
                let objects = fields.iter_mut().filter(|(key, _)| *key != "metadata");
                objects.for_each(|(_, value)| shorten(value, 16));
            }
            Cut::Everything => {
                let kept = [
                    "activity_id",
                    "category_uid",
                    "class_uid",
                    "severity_id",
                    "status_id",
                    "time",
                    "type_uid",
                ];
                fields.retain(|key, value| value.is_number() && kept.contains(&key.as_str()));
            }
        }
        let mut metadata = whole.get("metadata").cloned().unwrap_or_default();
        if let (Cut::Objects | Cut::Everything, Some(named)) = (cut, metadata.as_object_mut()) {
            let kept = ["uid", "log_name", "sequence", "event_code", "version", "profiles", "product"];
            named.retain(|key, _| kept.contains(&key.as_str()));
            shorten(&mut metadata, 255);
        }
        fields.insert("metadata".to_owned(), metadata);
    }
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("is_truncated".to_owned(), json!(true));
        metadata.insert("untruncated_size".to_owned(), json!(size));
    }
    value
}

fn shorten(value: &mut Value, max: usize) {
    match value {
        // Half of an instant or of an address is none, and would make the event invalid.
        Value::String(text) if is_timestamp(text) || text.parse::<IpAddr>().is_ok() => {}
        Value::String(text) => {
            if let Some((at, _)) = text.char_indices().nth(max) {
                text.truncate(at);
            }
        }
        Value::Array(items) => {
            items.truncate(max);
            items.iter_mut().for_each(|item| shorten(item, max));
        }
        Value::Object(fields) => fields.values_mut().for_each(|value| shorten(value, max)),
        _ => {}
    }
}

/// JSON with sorted keys in which everything beyond ASCII is escaped: no collector can get its
/// encoding wrong, and no byte order mark stands before the opening brace.
fn ascii_json(value: &Value) -> String {
    let mut bytes = Vec::new();
    audit::write_canonical(value, &mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let mut ascii = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() && c != '\u{7f}' {
            ascii.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    ascii
}

#[cfg(test)]
mod tests {
    use super::*;
    use audit::{Event, EventKind};
    use model::Timestamp;
    use proptest::prelude::*;

    fn header(max: usize) -> Header {
        Header { hostname: "gate.example".to_owned(), origin: "sekisho.test/audit".to_owned(), max }
    }

    fn event(header: &Header, index: u64, reason: &str) -> Value {
        let kind = EventKind::SessionRefused { code: "no-grant".to_owned(), reason: reason.to_owned() };
        let entry = Event::new(Timestamp::from_millis(1_790_000_000_007), kind).to_entry();
        audit::export(&header.origin, index, &entry).unwrap()
    }

    fn framed(header: &Header, index: u64, reason: &str) -> Vec<u8> {
        frame(header, index, &event(header, index, reason))
    }

    /// Reads a message by the grammar of RFC 5424, section 6, written down separately.
    fn parse(message: &[u8]) -> (Vec<String>, Vec<(String, String)>, Vec<u8>) {
        let text = message.split(|b| *b == b' ').take(6).map(|f| String::from_utf8(f.to_vec()).unwrap());
        let fields: Vec<String> = text.collect();
        let mut at = fields.iter().map(|f| f.len() + 1).sum::<usize>();
        let rest = std::str::from_utf8(&message[at..]).unwrap();
        assert!(rest.starts_with("[sekisho@32473"));
        let mut chars = rest.char_indices().skip("[sekisho@32473".len());
        let mut params = Vec::new();
        loop {
            match chars.next().unwrap() {
                (end, ']') => {
                    at += end + 1;
                    break;
                }
                (_, ' ') => {
                    let name: String = chars.by_ref().map(|(_, c)| c).take_while(|c| *c != '=').collect();
                    assert_eq!(chars.next().unwrap().1, '"');
                    let mut value = String::new();
                    loop {
                        match chars.next().unwrap().1 {
                            '"' => break,
                            '\\' => value.push(chars.next().unwrap().1),
                            ']' => panic!("an unescaped bracket"),
                            c => value.push(c),
                        }
                    }
                    params.push((name, value));
                }
                (_, c) => panic!("{c:?} in structured data"),
            }
        }
        assert_eq!(message[at], b' ');
        (fields, params, message[at + 1..].to_vec())
    }

    fn unframe(frame: &[u8]) -> &[u8] {
        let blank = frame.iter().position(|b| *b == b' ').unwrap();
        let len: usize = std::str::from_utf8(&frame[..blank]).unwrap().parse().unwrap();
        assert_eq!(frame.len(), blank + 1 + len);
        &frame[blank + 1..]
    }

    #[test]
    fn a_frame_reads_like_this() {
        let frame = String::from_utf8(framed(&header(8192), 7, "研究")).unwrap();
        let start = concat!(
            "<108>1 2026-09-21T14:13:20.007Z gate.example sekisho - session_refused ",
            r#"[sekisho@32473 index="7" origin="sekisho.test/audit" uid="sekisho.test/audit/7"] {"#,
        );
        assert!(frame.split_once(' ').unwrap().1.starts_with(start), "{frame}");
        assert!(frame.contains("\\u7814\\u7a76"));
        unframe(frame.as_bytes());
    }

    #[test]
    fn utf_8_is_marked_and_ascii_is_not() {
        let (mut plain, mut marked) = (Vec::new(), Vec::new());
        push_msg(&mut plain, "a");
        push_msg(&mut marked, "é");
        assert_eq!((&plain[..], &marked[..3]), (&b"a"[..], &b"\xef\xbb\xbf"[..]));
    }

    #[test]
    fn what_is_cut_says_so_and_stays_json() {
        for len in [1_000, 20_000, 60_000] {
            let frame = framed(&header(0), 7, &"研".repeat(len));
            let message = unframe(&frame);
            assert!(message.len() <= MESSAGE_MIN);
            let value: Value = serde_json::from_slice(&parse(message).2).unwrap();
            assert_eq!(value["metadata"]["is_truncated"], true);
            assert_eq!(value["metadata"]["uid"], "sekisho.test/audit/7");
            assert_eq!(value["class_uid"], 4007);
        }
    }

    proptest! {
        #[test]
        fn any_event_becomes_a_message_that_parses(
            hostname: String, origin in "\\PC{1,200}", index: u64, reason: String, max in 0_usize..9000,
        ) {
            let header = Header { hostname, origin: origin.clone(), max };
            let frame = framed(&header, index, &reason);
            let (fields, params, msg) = parse(unframe(&frame));
            prop_assert!(fields[2].len() <= 255 && !fields[2].is_empty());
            prop_assert!(fields.iter().all(|f| f.chars().all(|c| c.is_ascii_graphic())));
            let expected = [("index", index.to_string()), ("origin", origin.clone()), ("uid", format!("{origin}/{index}"))];
            let expected: Vec<_> = expected.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
            prop_assert_eq!(params, expected);
            prop_assert!(msg.is_ascii());
            let value: Value = serde_json::from_slice(&msg).unwrap();
            prop_assert_eq!(value["metadata"]["sequence"].as_u64(), Some(index));
        }

        #[test]
        fn foreign_entries_become_messages_within_bounds(bytes: Vec<u8>, text: String) {
            for entry in [
                String::from_utf8_lossy(&bytes).into(),
                json!({ "metadata": { "event_code": text, "x": "y".repeat(9000) }, "time_dt": text }),
                json!({ (text.clone()): vec!["z"; 900], "metadata": text }),
            ] {
                let frame = frame(&header(0), 1, &entry);
                prop_assert!(unframe(&frame).len() <= MESSAGE_MIN);
            }
        }
    }
}
