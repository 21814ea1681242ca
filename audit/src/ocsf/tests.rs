use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use model::observed::{
    Attempt, Attribution, Check, CheckState, ConnectionOutcome, Diagnosis, DiagnosisCause, Execution, Fact,
    FileRead, NetworkFamily, Overflow, Packets, ProcessOutcome, ReadPhase, Transport,
};
use model::{ManualClock, SeededEntropy, Timestamp};

use super::*;
use crate::{
    AuthFault, CertificateKind, ChannelKind, DecisionRecord, Direction, Door, EndCause, FindingLevel,
    FindingReaction, KeptKind, Log, LogKey, Options, ReadFaultKind, RecordKind, RecordingMode,
    RecordingOutcome, SessionExit, TransferOutcome,
};

const AT: Timestamp = Timestamp::from_millis(1_790_000_000_007);

/// One of each kind, with every field filled.
fn kinds() -> Vec<EventKind> {
    use EventKind as K;
    let text = || "研究 \u{202e}\"quoted\" text".to_owned();
    let until = AT;
    let agent = || "agent:hall-1".parse().unwrap();
    let (object, dataset) = (|| "obj:o1".parse().unwrap(), || "ds:cohort-a".parse().unwrap());
    let (workspace, grant) = (|| "ws:brca-alice".parse().unwrap(), || "grant:g1".parse().unwrap());
    let record = |change| K::RecordChanged { record: RecordKind::Person, id: "u:alice".to_owned(), change };
    let decided = |approved, reason| K::ApprovalDecided {
        approval: "appr:a1".parse().unwrap(),
        matter: "unlock".to_owned(),
        what: "u:bob".to_owned(),
        asked_by: "u:alice".parse().unwrap(),
        approved,
        reason,
    };
    let finding = |level, reaction| K::Finding {
        rule: "6a4a1f8e-0000-4000-8000-000000000000".to_owned(),
        name: Some("decoy_touched".to_owned()),
        title: "A decoy was touched".to_owned(),
        title_ja: Some("おとりに触れた".to_owned()),
        level,
        tags: vec!["attack.t1046".to_owned(), "attack.t1552.004".to_owned(), "attack.discovery".to_owned()],
        evidence: vec![7, 41],
        observed: AT,
        proven: true,
        decoy: Some("decoy:1".to_owned()),
        repeated: 2,
        reaction,
    };
    let closed = |exit| K::SessionClosed {
        exit,
        bytes_in: 1,
        bytes_out: u64::from(u32::MAX) + 1,
        events_first: 1,
        events_last: 4,
        count: 3,
    };
    let recorded = |outcome| K::SessionRecorded {
        sha256: "ab".repeat(32),
        bytes: 4_000,
        stored_sha256: "cd".repeat(32),
        stored_bytes: 4_200,
        events: 12,
        duration_ms: 60_000,
        elided_bytes: 7,
        outcome,
    };
    let process = |outcome| K::ProcessStarted {
        workspace: workspace(),
        agent: agent(),
        what: Execution {
            program: "/usr/bin/研究".to_owned(),
            argv: vec!["samtools".to_owned(), text()],
            directory: Some("/home/alice".to_owned()),
            pid: 4242,
            parent_pid: 4241,
            parent_program: Some("/home/alice/run".to_owned()),
            uid: 1000,
            outcome,
        },
    };
    let connection = |family, address: &str, port, outcome| K::ConnectionAttempted {
        workspace: workspace(),
        agent: agent(),
        what: Attempt {
            family,
            protocol: Transport::Tcp,
            address: address.to_owned(),
            port,
            pid: 4242,
            uid: 1000,
            program: Some("/home/alice/run".to_owned()),
            count: 3,
            outcome,
        },
    };
    let packets = |source: &str, destination: &str, port, attribution, by: Option<u32>| K::PacketDropped {
        workspace: workspace(),
        agent: agent(),
        what: Packets {
            protocol: Transport::Udp,
            source: source.to_owned(),
            source_port: port,
            destination: destination.to_owned(),
            destination_port: port,
            count: 70,
            bytes: 4200,
            attribution,
            pid: by,
            uid: by.map(|_| 1000),
            program: by.map(|_| "/home/alice/run".to_owned()),
        },
    };
    let read = |phase, by: Option<u32>| K::FileRead {
        workspace: workspace(),
        agent: agent(),
        what: FileRead {
            object: object(),
            dataset: dataset(),
            name: text(),
            size: 1 << 40,
            phase,
            bytes: 77,
            reads: 3,
            pid: by,
            program: by.map(|_| "/home/alice/run".to_owned()),
        },
    };
    let checks =
        |state| vec![Check { name: "cpu.meltdown".to_owned(), state, detail: "Vulnerable".to_owned() }];
    let facts = || vec![Fact { name: "kernel".to_owned(), value: "6.1".to_owned() }];
    let diagnosis = |cause, state| Diagnosis {
        cause,
        facts: facts(),
        checks: checks(state),
        changes: vec!["kernel: 6.0, now 6.1".to_owned()],
    };
    let agent_diagnosed =
        |cause, state| K::AgentDiagnosed { agent: agent(), state, what: diagnosis(cause, state) };
    vec![
        process(ProcessOutcome::Started),
        process(ProcessOutcome::NotFound),
        connection(NetworkFamily::Inet, "192.0.2.7", Some(443), ConnectionOutcome::Blocked),
        connection(NetworkFamily::Inet6, "2001:db8::7", Some(443), ConnectionOutcome::Blocked),
        connection(NetworkFamily::Inet, "127.0.0.1", Some(8888), ConnectionOutcome::Loopback),
        connection(NetworkFamily::Unix, "/home/alice/socket", None, ConnectionOutcome::Local),
        packets("192.0.2.7", "192.0.2.7", Some(53), Attribution::Socket, Some(4242)),
        packets("2001:db8::7", "2001:db8::7", None, Attribution::Unknown, None),
        read(ReadPhase::Opened, Some(4242)),
        read(ReadPhase::Closed, None),
        K::ActivityOverflowed {
            workspace: workspace(),
            agent: agent(),
            what: Overflow { processes: 1, connections: 2, packets: 3, files: 4, examples: vec![text()] },
        },
        agent_diagnosed(DiagnosisCause::Start, CheckState::Ok),
        agent_diagnosed(DiagnosisCause::Interval, CheckState::Warning),
        agent_diagnosed(DiagnosisCause::Change, CheckState::Failed),
        K::BrokerDiagnosed { state: CheckState::Ok, what: diagnosis(DiagnosisCause::Start, CheckState::Ok) },
        K::Started { process: "broker".to_owned(), version: "0.1.0".to_owned() },
        K::Stopped { process: "broker".to_owned(), reason: text() },
        K::LoginSucceeded { method: "key".to_owned(), key_fingerprint: "SHA256:abc".to_owned() },
        K::LoginRefused { code: "unknown".to_owned(), reason: text() },
        K::CertificateIssued {
            certificate: CertificateKind::SshUser,
            subject: "u:alice".to_owned(),
            serial: "7".to_owned(),
            key_fingerprint: "SHA256:abc".to_owned(),
            expires: until,
        },
        K::TokenIssued { subject: "u:alice".to_owned(), expires: until },
        K::AgentEnrolled { agent: agent() },
        K::AgentConnected { agent: agent(), kernel: "6.1".to_owned(), backends: vec!["a".to_owned()] },
        K::AgentLost { agent: agent(), reason: text() },
        K::AuthRefused {
            door: Door::Ssh,
            fault: AuthFault::Expired,
            reason: text(),
            key_fingerprint: Some("SHA256:abc".to_owned()),
            principals: vec!["u:alice".to_owned()],
            serial: Some(u64::MAX),
        },
        K::SessionOpened {
            workspace: workspace(),
            agent: agent(),
            pty: true,
            command: Some(text()),
            datasets: vec![dataset()],
            access_until: until,
            recording: RecordingMode::Strict,
            recording_input: false,
        },
        K::SessionWatched { whose: "u:alice".parse().unwrap(), told: true },
        K::SessionWatched { whose: "u:alice".parse().unwrap(), told: false },
        K::SessionJoined { whose: "u:alice".parse().unwrap(), consented: true },
        K::SessionJoined { whose: "u:alice".parse().unwrap(), consented: false },
        K::SessionMessage { whose: "u:alice".parse().unwrap(), text: text() },
        K::SessionKilled { whose: "u:alice".parse().unwrap(), reason: text() },
        K::ModeratorLeft {},
        recorded(RecordingOutcome::Whole),
        recorded(RecordingOutcome::Interrupted),
        K::RecordingDegraded { mode: RecordingMode::BestEffort, reason: text() },
        K::RecordingPlayed {
            recorded: "sess:s2".parse().unwrap(),
            whose: "u:alice".parse().unwrap(),
            sha256: "ab".repeat(32),
        },
        K::RecordingsSearched { text: text(), found: 2 },
        K::SessionRefused { code: "no-grant".to_owned(), reason: text() },
        K::ChannelOpened { what: ChannelKind::Exec, detail: text() },
        K::FileTransferred {
            direction: Direction::Upload,
            path: format!("/home/alice/{}", text()),
            bytes: 7,
            sha256: Some("ab".repeat(32)),
            outcome: TransferOutcome::Completed,
        },
        K::FileTransferred {
            direction: Direction::Both,
            path: String::new(),
            bytes: 0,
            sha256: None,
            outcome: TransferOutcome::Aborted,
        },
        K::ChannelRefused { what: ChannelKind::X11, detail: text() },
        closed(SessionExit::Code { code: 3 }),
        closed(SessionExit::Signal { name: "TERM".to_owned() }),
        closed(SessionExit::Aborted { reason: text() }),
        K::SessionEnded { cause: EndCause::GrantRevoked, grant: Some(grant()), reason: text() },
        K::DepositStarted { object: object(), dataset: dataset(), name: text(), agent: agent() },
        K::DepositCompleted { object: object(), dataset: dataset(), size: 9, manifest_root: "ab".to_owned() },
        K::DepositFailed { object: object(), dataset: dataset(), code: "short".to_owned(), reason: text() },
        K::DepositRefused { dataset: dataset(), code: "no-grant".to_owned(), reason: text() },
        K::ReadFault {
            agent: agent(),
            backend: "backend:a".parse().unwrap(),
            institution: text(),
            object: object(),
            block: Some(3),
            fault: ReadFaultKind::Corrupt,
            detail: text(),
        },
        K::ReadFailed { agent: agent(), object: object(), detail: text() },
        K::WorkspaceStarted { workspace: workspace(), agent: agent(), cold_ms: 812 },
        K::WorkspaceStopped { workspace: workspace(), agent: agent(), reason: text() },
        K::GrantCreated { grant: grant(), dataset: dataset(), grantee: "study:brca".to_owned(), until },
        K::GrantRevoked { grant: grant(), dataset: dataset(), reason: text() },
        K::PersonLocked { subject: "u:alice".parse().unwrap(), reason: text() },
        K::PersonUnlocked { subject: "u:alice".parse().unwrap() },
        record(Change::Created),
        record(Change::Updated),
        record(Change::Closed),
        K::ApprovalRequested {
            approval: "appr:a1".parse().unwrap(),
            matter: "export".to_owned(),
            what: text(),
            expires: AT,
        },
        decided(true, None),
        decided(false, Some(text())),
        K::AuditRead { what: "tile/entries/000".to_owned() },
        K::AdminRefused {
            action: "CreateGrant".to_owned(),
            code: "not-committee".to_owned(),
            reason: text(),
        },
        finding(FindingLevel::Critical, FindingReaction::LockPerson),
        finding(FindingLevel::Low, FindingReaction::None),
        K::RulesLoaded { set: "00ff".to_owned(), rules: 30, source: "rules".to_owned() },
        K::RulesRefused { set: "00ff".to_owned(), file: "a.yml".to_owned(), line: Some(3), reason: text() },
        K::RecordKeeping {
            object: object(),
            what: KeptKind::AuditSegment,
            first: Some(0),
            count: Some(65_536),
        },
        K::RecordKept {
            object: object(),
            what: KeptKind::AuditSegment,
            first: Some(0),
            count: Some(65_536),
            agent: Some(agent()),
            size: 9,
            sha256: "ab".repeat(32),
            root: Some("cd".repeat(32)),
            manifest_root: "ef".repeat(32),
        },
        K::RecordKept {
            object: object(),
            what: KeptKind::SessionRecording,
            first: None,
            count: None,
            agent: None,
            size: 9,
            sha256: "ab".repeat(32),
            root: None,
            manifest_root: "ef".repeat(32),
        },
        K::RecordFetched { object: object(), what: KeptKind::SessionRecording, first: None, count: None },
        K::RecordMoved { object: object(), what: KeptKind::AuditSegment, first: Some(0), count: Some(256) },
        K::KeptLagging { what: KeptKind::AuditSegment, waiting: 70_000, last_error: text() },
        K::KeptLagging { what: KeptKind::SessionRecording, waiting: 3, last_error: text() },
        K::KeptRecovered { what: KeptKind::AuditSegment, kept: 65_536 },
        K::KeptRecovered { what: KeptKind::SessionRecording, kept: 812 },
        K::LogStopped { reason: text() },
        K::WitnessLagging { witness: "w.example".to_owned(), lag: 9, last_error: text() },
        K::WitnessRecovered { witness: "w.example".to_owned() },
        K::WitnessRefused { witness: "w.example".to_owned(), reason: text() },
        K::SinkLagging { sink: "soc".to_owned(), lag: 9, last_error: text() },
        K::SinkRecovered { sink: "soc".to_owned() },
        K::SinkRejected { sink: "soc".to_owned(), count: 2, index: 9, reason: text() },
    ]
}

fn decision(permit: bool, rules: usize) -> DecisionRecord {
    DecisionRecord {
        permit,
        action: "OpenSession".to_owned(),
        code: if permit { "permit" } else { "no-grant" }.to_owned(),
        rules: (0..rules).map(|n| format!("grant:g{n}")).collect(),
        policy_epoch: 42,
        reason: if permit { String::new() } else { "no grant".to_owned() },
        second: permit.then(|| "u:bob".parse().unwrap()),
    }
}

/// Each kind bare, and with everything an event can say about who, where and why.
fn samples() -> Vec<Event> {
    let rich = |kind: EventKind, decision, peer: &str| {
        let mut event = Event::new(AT, kind);
        event.person = Some("u:alice".parse().unwrap());
        event.device = Some("SHA256:abc".to_owned());
        event.session = Some("sess:s1".parse().unwrap());
        event.study = Some("study:brca".parse().unwrap());
        event.peer = Some(peer.to_owned());
        event.decision = Some(decision);
        event
    };
    kinds()
        .into_iter()
        .flat_map(|kind| {
            [
                Event::new(AT, kind.clone()),
                rich(kind.clone(), decision(true, 100), "192.0.2.7:50022"),
                rich(kind.clone(), decision(false, 0), "[2001:db8::7]:50022"),
                rich(kind, decision(false, 1), "a proxy"),
            ]
        })
        .collect()
}

/// The values at the ends of an exported event, each with the keys that lead there.
fn leaves<'a>(value: &'a Value, path: &mut Vec<&'a str>, found: &mut Vec<(Vec<&'a str>, &'a Value)>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                path.push(key);
                leaves(value, path, found);
                path.pop();
            }
        }
        Value::Array(items) => items.iter().for_each(|item| leaves(item, path, found)),
        end => found.push((path.clone(), end)),
    }
}

#[test]
fn who_where_and_why_stand_in_every_event() {
    for event in samples().into_iter().filter(|e| e.session.is_some()) {
        let value = crate::export("sekisho.test/audit", 41, &event.to_entry()).unwrap();
        let at = |pointer: &str| value.pointer(pointer).cloned().unwrap_or_default();
        assert_eq!(at("/metadata/log_name"), "sekisho.test/audit");
        assert_eq!(
            (at("/metadata/sequence"), at("/metadata/correlation_uid")),
            (json!(41), json!("sess:s1"))
        );
        assert_eq!((at("/actor/session/uid"), at("/actor/user/uid")), (json!("sess:s1"), json!("u:alice")));
        assert_eq!(at("/actor/user/credential_uid"), "SHA256:abc");
        assert_eq!(at("/unmapped/study"), "study:brca");
        assert_eq!(at("/authorizations/0/policy/version"), "42");
        let decision = event.decision.unwrap();
        assert_eq!(at("/action_id"), if decision.permit { 1 } else { 2 });
        assert_eq!(at("/authorizations/0/policy/name"), *decision.rules.first().unwrap_or(&decision.code));
    }
}

/// What `infra/siem/samples.jsonl` has, for those who write rules and parsers: an event of each kind, as
/// it is exported.
#[test]
fn the_samples_are_those_on_file() {
    let mut seen = std::collections::BTreeSet::new();
    let mut text = String::new();
    for (index, event) in (0..).zip(samples().into_iter().filter(|event| event.session.is_some())) {
        let value = crate::export("sekisho.test/audit", index, &event.to_entry()).unwrap();
        if seen.insert(value["metadata"]["event_code"].as_str().unwrap().to_owned()) {
            let mut line = Vec::new();
            crate::write_canonical(&value, &mut line);
            text += &format!("{}\n", String::from_utf8(line).unwrap());
        }
    }
    assert_eq!(seen.len(), event_kinds().count());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/siem/samples.jsonl");
    if std::env::var_os("SEKISHO_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let on_file = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(on_file == text, "the samples changed; if they were meant to, run again with SEKISHO_BLESS=1");
}

#[test]
fn a_record_is_read_back_as_what_it_was() {
    for event in samples() {
        let record: Value = serde_json::from_slice(&event.to_entry()).unwrap();
        let read: EventKind = serde_json::from_value(record["unmapped"].clone()).unwrap();
        // Marks of direction are written out, so that the texts with one differ.
        let (read, was) = (serde_json::to_value(&read).unwrap(), serde_json::to_value(&event.kind).unwrap());
        let plain = |value: &Value| value.to_string().replace("\\\\u{202e}", "\u{202e}");
        assert_eq!(plain(&read), plain(&was));
    }
}

#[test]
fn nothing_about_a_person_counts_as_less() {
    for event in samples() {
        let value = crate::export("sekisho.test/audit", 41, &event.to_entry()).unwrap();
        let code = value["metadata"]["event_code"].as_str().unwrap();
        let mut found = Vec::new();
        leaves(&value, &mut Vec::new(), &mut found);
        assert!(found.len() > 12);
        for (path, end) in found {
            let said = sensitivity(code, &path);
            let text = end.as_str().unwrap_or_default();
            let personal =
                ["alice", "SHA256:", "192.0.2.7", "2001:db8", "研究"].iter().any(|p| text.contains(p));
            let about_the_house = matches!(
                (code, path.as_slice()),
                (
                    "stopped"
                        | "agent_lost"
                        | "workspace_stopped"
                        | "log_stopped"
                        | "witness_refused"
                        | "rules_refused"
                        | "recording_degraded",
                    ["unmapped", "reason"],
                ) | ("read_fault" | "read_failed", ["unmapped", "detail" | "institution"])
                    | ("session_closed", ["unmapped", "exit", "reason"])
                    | ("sink_lagging" | "witness_lagging" | "kept_lagging", ["unmapped", "last_error"])
            );
            assert!(!personal || about_the_house || said == Sensitivity::Personal, "{code} {path:?} {text}");
        }
    }
    assert_eq!(sensitivity("read_fault", &["unmapped", "new"]), Sensitivity::Personal);
    assert_eq!(sensitivity("of another version", &["unmapped", "agent"]), Sensitivity::Personal);
    assert_eq!(sensitivity("started", &["new"]), Sensitivity::Personal);
}

/// Runs the validator of `infra/siem` over exported events, one a line.
fn validate(events: &[Value], dir: &Path) -> Result<String, String> {
    let file = dir.join("events.jsonl");
    let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
    std::fs::write(&file, lines).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/siem/validate-ocsf");
    let ran = Command::new(script).arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
    if ran.status.success() { Ok(said) } else { Err(said) }
}

#[tokio::test]
async fn a_whole_log_is_valid_by_the_published_schema() {
    let dir = tempfile::tempdir().unwrap();
    let key = LogKey::generate("sekisho.test/audit", &SeededEntropy::new(1)).unwrap();
    let log =
        Log::open(&dir.path().join("log"), key, Arc::new(ManualClock::at(AT)), Options::default()).unwrap();
    for event in samples() {
        log.append(&event).await.unwrap();
    }
    let entries = log.read(0, 10_000).unwrap();
    log.close().await;
    let events: Vec<Value> =
        entries.iter().map(|(index, entry)| crate::export(log.origin(), *index, entry).unwrap()).collect();
    assert_eq!(events.len(), kinds().len() * 4);
    let said = validate(&events, dir.path()).unwrap();
    assert!(said.contains(&format!("{0} of {0} events are valid", events.len())), "{said}");

    // It can say no: a class without what it requires, a number that is none of the class, a field
    // that the schema does not know.
    let started = events.iter().find(|event| event["metadata"]["event_code"] == "started").unwrap();
    for (pointer, wrong) in [("/app", Value::Null), ("/activity_id", json!(77)), ("/colour", json!("red"))] {
        let mut event = started.clone();
        let field = &pointer[1..];
        event.as_object_mut().unwrap().remove(field);
        if !wrong.is_null() {
            event[field] = wrong;
        }
        let said = validate(&[event], dir.path()).unwrap_err();
        assert!(said.contains("0 of 1 events are valid"), "{pointer}: {said}");
    }
}
