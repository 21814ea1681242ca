//! The rules of this house, each against the events beside it that it must and must not fit.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};
use siem::detect::{BUILTIN, Decoy, DecoyKind, Decoys, Detector, RuleInfo, RuleSet, read_folder};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/siem/sigma")
}

fn decoys() -> Decoys {
    let decoy = |id: &str, kind| Decoy { id: id.to_owned(), kind };
    Decoys::new([
        ("198.51.100.77".to_owned(), decoy("decoy:1", DecoyKind::Address)),
        ("SHA256:decoy".to_owned(), decoy("decoy:2", DecoyKind::Key)),
        ("obj:decoy".to_owned(), decoy("decoy:3", DecoyKind::Object)),
        ("ds:decoy".to_owned(), decoy("decoy:4", DecoyKind::Object)),
    ])
}

/// An exported event from the short form in which tests write it: `person`, `session`, `study` and
/// `peer` stand where every event has them, everything else is what the kind itself says.
fn exported(at: i64, short: &Value, vary: Option<(&str, i64)>) -> Value {
    let mut said: Map<String, Value> = short.as_object().unwrap().clone();
    if let Some((field, number)) = vary {
        let varied = match &said[field] {
            Value::Number(base) => json!(base.as_i64().unwrap() + number),
            Value::String(base) => json!(format!("{base}{number}")),
            other => panic!("{field} cannot vary: {other}"),
        };
        said.insert(field.to_owned(), varied);
    }
    for word in ["repeat", "vary", "every", "at"] {
        said.remove(word);
    }
    let mut take = |field: &str| said.remove(field).and_then(|v| v.as_str().map(str::to_owned));
    let (person, session, peer) = (take("person"), take("session"), take("peer"));
    let mut event = json!({ "time": at, "metadata": { "event_code": said["kind"] } });
    if let Some(person) = person {
        event["actor"]["user"]["uid"] = json!(format!("u:{person}"));
    }
    if let Some(session) = session {
        event["actor"]["session"]["uid"] = json!(format!("sess:{session}"));
    }
    if let Some(peer) = peer {
        event["src_endpoint"]["ip"] = json!(peer);
    }
    event["unmapped"] = Value::Object(said);
    event
}

/// The names of the rules that fit some event of a sequence.
fn fitting(rules: &Arc<RuleSet>, sequence: &Value) -> BTreeSet<String> {
    let mut detector = Detector::new(Arc::clone(rules), Arc::new(decoys()));
    let mut found = BTreeSet::new();
    let (mut at, mut index) = (1_790_000_000_000, 0);
    for short in sequence.as_array().unwrap() {
        let number = |field: &str, default| short.get(field).map_or(default, |v| v.as_i64().unwrap());
        let (repeat, every) = (number("repeat", 1), number("every", 1));
        for round in 0..repeat {
            let vary = short.get("vary").map(|field| (field.as_str().unwrap(), round));
            for finding in detector.observe(index, &exported(at, short, vary)) {
                assert_eq!(finding.evidence.last(), Some(&index));
                found.insert(finding.name.clone().unwrap());
            }
            at += every * 1000;
            index += 1;
        }
    }
    found
}

fn builtin() -> Arc<RuleSet> {
    Arc::new(RuleSet::parse(&[&RuleSet::builtin()]).unwrap_or_else(|error| panic!("{error}")))
}

#[test]
fn what_is_compiled_in_is_what_lies_in_the_folder() {
    let lies: Vec<_> = read_folder(&folder()).unwrap().into_iter().map(|t| (t.name, t.text)).collect();
    let compiled: Vec<_> = BUILTIN.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect();
    assert!(lies == compiled, "BUILTIN in siem/src/detect/builtin.rs does not list the files of the folder");
}

#[test]
fn every_rule_fits_what_it_should_and_not_what_only_looks_like_it() {
    let rules = builtin();
    let (mut checked, mut sequences) = (BTreeSet::new(), 0);
    for info in rules.infos().filter(|info| info.reports) {
        let name = info.name.as_deref().unwrap_or_else(|| panic!("{} has no name", info.id));
        let own = info.file.strip_prefix("sekisho:").unwrap_or(&info.file);
        let file = folder().join("tests").join(own).with_extension("json");
        let text = std::fs::read_to_string(&file).unwrap_or_else(|_| panic!("{} has no tests", info.file));
        let tests: Value = serde_json::from_str(&text).unwrap();
        let list = |word: &str| {
            let list = tests[name][word].as_array().cloned().unwrap_or_default();
            assert!(!list.is_empty(), "{name} has no test under {word}");
            list
        };
        for sequence in list("fires") {
            assert!(fitting(&rules, &sequence).contains(name), "{name} does not fit {sequence}");
            sequences += 1;
        }
        for sequence in list("silent") {
            assert!(!fitting(&rules, &sequence).contains(name), "{name} fits {sequence}");
            sequences += 1;
        }
        checked.insert((own.to_owned(), name.to_owned()));
    }
    // No test is left over from a rule that is gone.
    for entry in std::fs::read_dir(folder().join("tests")).unwrap() {
        let path = entry.unwrap().path();
        let file = format!("{}.yml", path.file_stem().unwrap().to_str().unwrap());
        let tests: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for name in tests.as_object().unwrap().keys() {
            assert!(checked.contains(&(file.clone(), name.clone())), "{file} has no rule {name}");
        }
    }
    println!("{} rules, {sequences} sequences", checked.len());
}

#[test]
fn every_rule_says_what_a_person_needs() {
    let rules = builtin();
    for info in rules.infos() {
        let RuleInfo { name, tags, falsepositives, title_ja, .. } = info;
        assert!(name.is_some() && tags.iter().any(|tag| tag.starts_with("attack.")), "{info:?}");
        let uuid: Vec<usize> = info.id.split('-').map(str::len).collect();
        assert_eq!(uuid, [8, 4, 4, 4, 12], "{}: other engines want a UUID", info.title);
        assert!(!info.reports || (title_ja.is_some() && !falsepositives.is_empty()), "{info:?}");
    }
}
