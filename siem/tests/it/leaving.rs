//! What leaves for a collector is valid by the published schema, also where it is hashed or cut.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use siem::{Header, MESSAGE_MIN, Privacy, Treatment, message};
use zeroize::Zeroizing;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/siem")
}

/// An event of each kind.
fn samples() -> Vec<Value> {
    let text = std::fs::read_to_string(folder().join("samples.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn hashed(internal: Treatment) -> Vec<Value> {
    let privacy = Privacy { internal, personal: Treatment::Hash, key: Zeroizing::new([7; 32]) };
    let mut events = samples();
    events.iter_mut().for_each(|event| privacy.apply(event));
    events
}

/// The events as they come out of the shortest messages that a sink may be told to send, each with more
/// than fits: one long text, or so much of everything that little but what its class requires is left.
fn cut() -> Vec<Value> {
    let header = Header {
        hostname: "gate.example".to_owned(),
        origin: "sekisho.test/audit".to_owned(),
        max: MESSAGE_MIN,
    };
    let (mut long, mut much) = (samples(), samples());
    for event in &mut long {
        event["message"] = "words ".repeat(2000).into();
    }
    for event in &mut much {
        let many: Vec<Value> = (0..2000).map(|n| json!({ "n": n })).collect();
        event["unmapped"]["many"] = many.into();
    }
    let each = [long, much].concat().into_iter().map(|event| {
        let message = message(&header, 7, &event);
        assert!(message.len() <= MESSAGE_MIN);
        let json = message.iter().position(|byte| *byte == b'{').unwrap();
        let event: Value = serde_json::from_slice(&message[json..]).unwrap();
        assert_eq!(event["metadata"]["is_truncated"], true);
        event
    });
    each.collect()
}

#[test]
fn what_is_hashed_or_cut_is_valid_still() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("events.jsonl");
    let all = [hashed(Treatment::Clear), hashed(Treatment::Hash), cut()].concat();
    let lines: String = all.iter().map(|event| format!("{event}\n")).collect();
    std::fs::write(&file, lines).unwrap();
    let ran = Command::new(folder().join("validate-ocsf")).arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
    let count = all.len();
    assert!(ran.status.success() && said.contains(&format!("{count} of {count} events are valid")), "{said}");
}
