//! The rules of this house, each against the events beside it that it must and must not fit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};

use audit::{Event, EventKind};
use model::{PersonId, SessionId, StudyId, Timestamp};
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

/// What events of each kind say, as `infra/siem/samples.jsonl` has them.
fn samples() -> BTreeMap<String, Value> {
    let text = std::fs::read_to_string(folder().join("../samples.jsonl")).unwrap();
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.map(|event| (event["metadata"]["event_code"].as_str().unwrap().to_owned(), event)).collect()
}

/// An event from the short form in which tests write it, as the log writes and exports it: `person`,
/// `session`, `study`, `device` and `peer` stand where every event has them, everything else is what the
/// kind itself says. What is left out is as in the sample of that kind. A field that the kind does not
/// have, or a value that cannot be, is a fault of the test.
fn exported(at: i64, index: u64, short: &Value, vary: Option<(&str, i64)>) -> Value {
    static SAMPLES: LazyLock<BTreeMap<String, Value>> = LazyLock::new(samples);
    let mut own: Map<String, Value> = short.as_object().unwrap().clone();
    if let Some((field, number)) = vary {
        let varied = match &own[field] {
            Value::Number(base) => json!(base.as_i64().unwrap() + number),
            Value::String(base) => json!(format!("{base}{number}")),
            other => panic!("{field} cannot vary: {other}"),
        };
        own.insert(field.to_owned(), varied);
    }
    for word in ["repeat", "vary", "every", "at"] {
        own.remove(word);
    }
    let mut take = |field: &str| own.remove(field).and_then(|v| v.as_str().map(str::to_owned));
    let person = take("person").map(|name| PersonId::from_name(&name).unwrap());
    let session = take("session").map(|name| SessionId::from_name(&name).unwrap());
    let study = take("study").map(|id| id.parse::<StudyId>().unwrap());
    let (device, peer) = (take("device"), take("peer").map(|ip| format!("{ip}:50022")));
    let kind = own["kind"].as_str().unwrap().to_owned();
    let mut said = SAMPLES[&kind]["unmapped"].clone();
    for field in ["study", "device", "decision"] {
        said.as_object_mut().unwrap().remove(field);
    }
    for (field, value) in own {
        assert!(said.get(&field).is_some(), "{kind} has no field {field}: {short}");
        said[field] = value;
    }
    let kind: EventKind = serde_json::from_value(said).unwrap_or_else(|error| panic!("{error}: {short}"));
    let event =
        Event { person, session, study, device, peer, ..Event::new(Timestamp::from_millis(at), kind) };
    audit::export("rules.test/audit", index, &event.to_entry()).unwrap()
}

/// The events of a sequence, each at its time.
fn events(sequence: &Value) -> Vec<Value> {
    let (mut at, mut all) = (1_790_000_000_000, Vec::new());
    for short in sequence.as_array().unwrap() {
        let number = |field: &str, default| short.get(field).map_or(default, |v| v.as_i64().unwrap());
        let (repeat, every) = (number("repeat", 1), number("every", 1));
        for round in 0..repeat {
            let vary = short.get("vary").map(|field| (field.as_str().unwrap(), round));
            all.push(exported(at, all.len() as u64, short, vary));
            at += every * 1000;
        }
    }
    all
}

/// The names of the rules that fit some event of a sequence.
fn fitting(rules: &Arc<RuleSet>, sequence: &Value) -> BTreeSet<String> {
    let mut detector = Detector::new(Arc::clone(rules), Arc::new(decoys()));
    let mut found = BTreeSet::new();
    for (index, event) in (0..).zip(events(sequence)) {
        for finding in detector.observe(index, &event) {
            assert_eq!(finding.evidence.last(), Some(&index));
            found.insert(finding.name.clone().unwrap());
        }
    }
    found
}

/// Every sequence that a file of tests has, of whatever rule.
fn sequences() -> Vec<Value> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder().join("tests")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let tests: Map<String, Value> = serde_json::from_str(&text).unwrap();
        for word in tests.values().flat_map(|test| test.as_object().unwrap().values()) {
            all.extend(word.as_array().unwrap().iter().cloned());
        }
    }
    all
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

/// What rules are tried on is what the log writes: valid by the published schema, each and every one.
#[test]
fn every_event_that_rules_are_tried_on_is_valid() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("events.jsonl");
    let mut lines = String::new();
    for sequence in sequences() {
        // Of those that only differ in a number, the first ones.
        for event in events(&sequence).iter().take(3) {
            lines += &format!("{event}\n");
        }
    }
    std::fs::write(&file, &lines).unwrap();
    let ran = Command::new(folder().join("../validate-ocsf")).arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
    let count = lines.lines().count();
    assert!(ran.status.success() && said.contains(&format!("{count} of {count} events are valid")), "{said}");
    println!("{count} events");
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
