//! An event of the log as a rule sees it.

use std::borrow::Cow;
use std::cell::OnceCell;

use rsigma_eval::{Event, EventValue, JsonEvent};
use serde_json::Value;

use super::decoys::Decoy;

/// The kinds that stock Sigma calls `process_creation`, `network_connection` and `file_access`.
pub(super) const PROCESS: &[&str] = &["process_started"];
pub(super) const NETWORK: &[&str] = &["connection_attempted", "packet_dropped"];
pub(super) const FILE: &[&str] = &["file_read"];

/// Names of stock Sigma fields, which stand for fields of ours in events of the kinds above.
pub(super) const ALIASES: &[&str] = &[
    "Image",
    "CommandLine",
    "ParentImage",
    "CurrentDirectory",
    "User",
    "DestinationIp",
    "DestinationHostname",
    "DestinationPort",
    "Protocol",
    "Initiated",
    "TargetFilename",
];

/// The field that tells which kind of decoy an event touches.
pub(super) const DECOY: &str = "sekisho.decoy";

/// An exported event, with what the detector adds to it.
#[derive(Debug)]
pub(super) struct View<'a> {
    event: &'a Value,
    kind: &'a str,
    decoy: Option<&'a Decoy>,
    command_line: OnceCell<String>,
}

impl<'a> View<'a> {
    pub(super) fn new(event: &'a Value, kind: &'a str, decoy: Option<&'a Decoy>) -> View<'a> {
        View { event, kind, decoy, command_line: OnceCell::new() }
    }

    fn said(&self, field: &str) -> Option<EventValue<'_>> {
        self.event.get("unmapped")?.get(field).filter(|value| !value.is_null()).map(EventValue::from)
    }

    /// A field by its name in stock rules. `None`: it is no such name.
    fn alias(&self, name: &str) -> Option<Option<EventValue<'_>>> {
        let process = PROCESS.contains(&self.kind);
        let network = NETWORK.contains(&self.kind);
        Some(match name {
            "Image" => self.said("program"),
            "CommandLine" if process => Some(EventValue::Str(Cow::Borrowed(self.command_line()))),
            "ParentImage" if process => self.said("parent_program"),
            "CurrentDirectory" if process => self.said("directory"),
            "User" => self.event.pointer("/actor/user/uid").map(EventValue::from),
            "DestinationIp" | "DestinationHostname" if network => {
                self.said("address").or_else(|| self.said("destination"))
            }
            "DestinationPort" if network => self.said("port").or_else(|| self.said("destination_port")),
            "Protocol" if network => self.said("protocol"),
            "Initiated" if network => Some(EventValue::Str(Cow::Borrowed("true"))),
            "TargetFilename" if FILE.contains(&self.kind) => self.said("name"),
            name if ALIASES.contains(&name) => None,
            _ => return None,
        })
    }

    fn command_line(&self) -> &str {
        self.command_line.get_or_init(|| {
            let argv = self.event.pointer("/unmapped/argv").and_then(Value::as_array);
            let words: Vec<&str> = argv.into_iter().flatten().filter_map(Value::as_str).collect();
            words.join(" ")
        })
    }
}

impl Event for View<'_> {
    fn get_field(&self, path: &str) -> Option<EventValue<'_>> {
        if path == DECOY {
            return self.decoy.map(|decoy| EventValue::Str(Cow::Borrowed(decoy.kind.code())));
        }
        if let Some(value) = self.alias(path) {
            return value;
        }
        // Without the allocations that a path of names costs: most fields are one or two deep.
        let mut at = self.event;
        let mut names = path.split('.');
        for name in names.by_ref() {
            match at {
                Value::Object(fields) => at = fields.get(name)?,
                // A list on the way: its first element that has the rest.
                Value::Array(_) => return nested(self.event, path),
                _ => return None,
            }
        }
        Some(EventValue::from(at))
    }

    fn any_string_value(&self, pred: &dyn Fn(&str) -> bool) -> bool {
        JsonEvent::borrow(self.event).any_string_value(pred)
    }

    fn all_string_values(&self) -> Vec<Cow<'_, str>> {
        let mut found = Vec::new();
        texts(self.event, &mut found);
        found
    }

    fn to_json(&self) -> Value {
        self.event.clone()
    }
}

fn nested<'a>(event: &'a Value, path: &str) -> Option<EventValue<'a>> {
    fn down<'a>(at: &'a Value, names: &[&str]) -> Option<&'a Value> {
        let Some((first, rest)) = names.split_first() else { return Some(at) };
        match at {
            Value::Object(fields) => down(fields.get(*first)?, rest),
            Value::Array(items) => items.iter().find_map(|item| down(item, names)),
            _ => None,
        }
    }
    let names: Vec<&str> = path.split('.').collect();
    down(event, &names).map(EventValue::from)
}

/// Events of the log are of our own making: their depth is bounded.
fn texts<'a>(value: &'a Value, found: &mut Vec<Cow<'a, str>>) {
    match value {
        Value::String(text) => found.push(Cow::Borrowed(text)),
        Value::Object(fields) => fields.values().for_each(|value| texts(value, found)),
        Value::Array(items) => items.iter().for_each(|value| texts(value, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_found_by_our_names_and_by_stock_ones() {
        let event = json!({
            "actor": { "user": { "uid": "u:alice" } },
            "unmapped": { "program": "/usr/bin/nc", "argv": ["nc", "-e", "/bin/sh"], "directory": null },
            "resources": [{ "type": "dataset" }, { "uid": "grant:g1" }],
        });
        let view = View::new(&event, "process_started", None);
        let text = |path: &str| view.get_field(path).and_then(|v| v.as_str().map(|s| s.into_owned()));
        assert_eq!(text("CommandLine").as_deref(), Some("nc -e /bin/sh"));
        assert_eq!(text("Image").as_deref(), Some("/usr/bin/nc"));
        assert_eq!(text("User"), text("actor.user.uid"));
        assert_eq!(text("resources.uid").as_deref(), Some("grant:g1"));
        assert!(view.get_field("CurrentDirectory").is_none() && view.get_field("DestinationIp").is_none());
        assert!(view.get_field("actor.user.uid.deeper").is_none() && view.get_field("").is_none());
        let other = View::new(&event, "file_read", None);
        assert!(other.get_field("CommandLine").is_none());
    }
}
