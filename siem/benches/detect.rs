//! What judging an event costs: the rules of this house over events as a busy day brings them.

use std::error::Error;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use audit::{Event, EventKind};
use model::Timestamp;
use model::observed::{
    Attempt, ConnectionOutcome, Execution, FileRead, NetworkFamily, ProcessOutcome, ReadPhase, Transport,
};
use serde_json::Value;
use siem::detect::{Decoy, DecoyKind, Decoys, Detector, RuleSet};

const EVENTS: usize = 50_000;
const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().any(|arg| arg == "--test") {
        return Ok(());
    }
    let rules = Arc::new(RuleSet::parse(&[&RuleSet::builtin()])?);
    let decoys = (0..1000).map(|n| {
        let decoy = Decoy { id: format!("decoy:{n}"), kind: DecoyKind::Object };
        (format!("obj:never-{n}"), decoy)
    });
    let decoys = Arc::new(Decoys::new(decoys));
    let entries = entries()?;
    let mut fastest = (f64::MAX, f64::MAX);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let events: Vec<Value> = (0..)
            .zip(&entries)
            .filter_map(|(index, entry)| audit::export("bench.test/audit", index, entry))
            .collect();
        let read = began.elapsed();
        let mut detector = Detector::new(Arc::clone(&rules), Arc::clone(&decoys));
        let began = Instant::now();
        let mut findings = 0;
        for (index, event) in (0..).zip(&events) {
            findings += detector.observe(index, event).len();
        }
        let judged = began.elapsed();
        assert_eq!((events.len(), findings), (EVENTS, 0), "honest work was found fault with");
        let each = |time: std::time::Duration| time.as_secs_f64() * 1e6 / EVENTS as f64;
        fastest = (fastest.0.min(each(judged)), fastest.1.min(each(read)));
    }
    report("siem/detect", fastest.0)?;
    report("siem/detect/read", fastest.1)
}

/// Work of many people: programs, files, a few connections within the workspace, sessions.
fn entries() -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let mut all = Vec::with_capacity(EVENTS);
    for n in 0..EVENTS {
        let at = Timestamp::from_millis(1_790_000_000_000 + n as i64 * 50);
        let person = n % 40;
        let (agent, workspace) = ("agent:main".parse()?, format!("ws:study.p{person}").parse()?);
        let kind = match n % 10 {
            0..=5 => EventKind::ProcessStarted {
                workspace,
                agent,
                what: Execution {
                    program: "/usr/bin/samtools".to_owned(),
                    argv: [
                        "samtools",
                        "view",
                        "-@",
                        "4",
                        "-b",
                        "-o",
                        "/home/p/out.bam",
                        "/data/cohort/NA12878.bam",
                    ]
                    .map(str::to_owned)
                    .into_iter()
                    .chain([format!("chr{}:{n}-{}", n % 22, n + 1000)])
                    .collect(),
                    directory: Some("/home/p".to_owned()),
                    pid: 1000 + n as u32,
                    parent_pid: 999,
                    parent_program: Some("/usr/bin/bash".to_owned()),
                    uid: 1000,
                    outcome: ProcessOutcome::Started,
                },
            },
            6 | 7 => EventKind::FileRead {
                workspace,
                agent,
                what: FileRead {
                    object: format!("obj:o{}", n % 50).parse()?,
                    dataset: "ds:cohort".parse()?,
                    name: "NA12878.bam".to_owned(),
                    size: 1 << 36,
                    phase: ReadPhase::Opened,
                    bytes: 0,
                    reads: 0,
                    pid: Some(1000),
                    program: Some("/usr/bin/samtools".to_owned()),
                },
            },
            8 => EventKind::ConnectionAttempted {
                workspace,
                agent,
                what: Attempt {
                    family: NetworkFamily::Inet,
                    protocol: Transport::Tcp,
                    address: "127.0.0.1".to_owned(),
                    port: Some(8787),
                    pid: 1000,
                    uid: 1000,
                    program: Some("/usr/bin/rserver".to_owned()),
                    count: 1,
                    outcome: ConnectionOutcome::Loopback,
                },
            },
            _ => EventKind::RecordChanged {
                record: audit::RecordKind::Object,
                id: format!("obj:o{n}"),
                change: audit::Change::Created,
            },
        };
        let mut event = Event::new(at, kind);
        event.person = Some(format!("u:p{person}").parse()?);
        event.session = Some(format!("sess:s{person}").parse()?);
        event.study = Some("study:study".parse()?);
        all.push(event.to_entry());
    }
    Ok(all)
}

fn report(name: &str, value: f64) -> Result<(), Box<dyn Error>> {
    println!("{name}: {value:.2} µs per event");
    let line = serde_json::json!({
        "name": name, "value": value, "unit": "us/event",
        "peer": Value::Null, "peer_value": Value::Null, "ratio": Value::Null,
    });
    if let Some(path) = std::env::var_os("SEKISHO_BENCH_OUT") {
        let mut out = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        writeln!(out, "{line}")?;
    }
    Ok(())
}
