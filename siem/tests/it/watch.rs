//! Detection behind a real log: in order, once, and taking up rules and decoys as they change.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit::{ChannelKind, Event, EventKind, FindingLevel, FindingReaction, Log, LogKey, Options};
use model::{ManualClock, Timestamp};
use siem::detect::{
    Control, Decoys, Finding, Following, RuleSet, Source, Text, WatchStatus, follow, keep_rules,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const AT: Timestamp = Timestamp::from_secs(1_790_000_000);

fn log(dir: &Path) -> Log {
    let key = LogKey::from_seed("detect.test/audit", &[7; 32]).unwrap();
    Log::open(&dir.join("log"), key, Arc::new(ManualClock::at(AT)), Options::default()).unwrap()
}

fn rules(yaml: &str) -> Arc<RuleSet> {
    let text = Text { name: "own.yml".to_owned(), text: yaml.to_owned() };
    Arc::new(RuleSet::parse(&[&RuleSet::builtin(), &[text]]).unwrap())
}

/// A rule that fits every refused channel, and one that fits three of them.
const CHANNELS: &str = "
title: Channel
id: own-channel
name: any_channel
logsource: { product: sekisho, service: channel_refused }
detection: { one: { unmapped.kind: channel_refused }, condition: one }
level: low
---
title: Three channels
id: own-three
correlation:
    type: event_count
    rules: [any_channel]
    group-by: [actor.user.uid]
    timespan: 10m
    condition: { gte: 3 }
generate: true
level: high
---
title: Anything at all
id: own-anything
logsource: { product: sekisho }
detection: { one: { metadata.event_code|exists: true }, condition: one }
level: informational
";

fn channel(session: u32) -> Event {
    let kind = EventKind::ChannelRefused { what: ChannelKind::X11, detail: String::new() };
    Event {
        person: Some("u:alice".parse().unwrap()),
        session: Some(format!("sess:s{session}").parse().unwrap()),
        study: Some("study:brca".parse().unwrap()),
        ..Event::new(AT, kind)
    }
}

/// What a finding is recorded as.
fn recorded(finding: &Finding) -> Event {
    Event::new(
        AT,
        EventKind::Finding {
            rule: finding.rule.clone(),
            name: finding.name.clone(),
            title: finding.title.clone(),
            title_ja: None,
            level: FindingLevel::Low,
            tags: Vec::new(),
            evidence: finding.evidence.clone(),
            observed: finding.at,
            proven: true,
            decoy: None,
            repeated: finding.repeated,
            reaction: FindingReaction::None,
        },
    )
}

struct Watched {
    status: watch::Receiver<WatchStatus>,
    found: Arc<Mutex<Vec<Finding>>>,
    running: JoinHandle<()>,
}

impl Watched {
    /// Detection over `log`; findings are recorded in it, as a node does.
    fn start(dir: &Path, log: &Log, rules: watch::Receiver<Arc<RuleSet>>) -> Watched {
        let (status, seen) = watch::channel(WatchStatus::default());
        let (_, decoys) = watch::channel(Arc::new(Decoys::default()));
        let found: Arc<Mutex<Vec<Finding>>> = Arc::default();
        let following = Following {
            log: log.clone(),
            cursor: dir.join("detection.cursor"),
            control: Control { rules, decoys },
            status,
        };
        let (own, log) = (Arc::clone(&found), log.clone());
        let running = tokio::spawn(async move {
            let report = |finding: Finding| {
                let (log, event) = (log.clone(), recorded(&finding));
                own.lock().unwrap().push(finding);
                async move {
                    log.append(&event).await.unwrap();
                }
            };
            follow(following, report).await.unwrap();
        });
        Watched { status: seen, found, running }
    }

    /// Waits until the whole log is judged, and stays so.
    async fn caught_up(&mut self, log: &Log) -> Vec<(String, Vec<u64>)> {
        tokio::time::timeout(Duration::from_secs(20), async {
            let mut quiet = 0;
            while quiet < 5 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let size = log.durable_size();
                let done = self.status.borrow().lag == 0 && log.wait_beyond(size - 1).await == size;
                quiet = if done { quiet + 1 } else { 0 };
            }
        })
        .await
        .unwrap();
        self.found.lock().unwrap().iter().map(|f| (f.rule.clone(), f.evidence.clone())).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn findings_come_once_in_order_and_never_feed_on_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(dir.path());
    // What was there before detection is not acted upon.
    log.append(&channel(0)).await.unwrap();
    let (_rules, reading) = watch::channel(rules(CHANNELS));
    let mut watched = Watched::start(dir.path(), &log, reading.clone());
    while !dir.path().join("detection.cursor").exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for session in 1..=3 {
        log.append(&channel(session)).await.unwrap();
    }
    let found = watched.caught_up(&log).await;
    let of = |rule: &str| -> Vec<&Vec<u64>> {
        found.iter().filter(|(found, _)| found == rule).map(|(_, evidence)| evidence).collect()
    };
    let triggers: Vec<u64> = of("own-channel").iter().map(|evidence| evidence[0]).collect();
    assert_eq!(triggers.len(), 3, "{found:?}");
    assert!(triggers.is_sorted() && triggers[0] >= 1);
    // Only two before it, since the first came before detection; warmed up, it counts.
    assert_eq!(of("own-three").len(), 1, "{found:?}");
    assert_eq!(of("own-three")[0].len(), 3);
    // Each session is a subject of its own; findings are judged by no rule.
    assert_eq!(of("own-anything").len(), 3, "{found:?}");
    let size = log.durable_size();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(log.durable_size(), size, "findings go on by themselves");
    let kinds: Vec<String> = log
        .read(0, 1000)
        .unwrap()
        .iter()
        .map(|(i, e)| {
            audit::export("x", *i, e).unwrap()["metadata"]["event_code"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(kinds.iter().filter(|kind| *kind == "finding").count(), found.len());

    // Killed before its cursor was saved: what was told stands in the log and is not told again.
    watched.running.abort();
    let cursor = dir.path().join("detection.cursor");
    std::fs::write(&cursor, r#"{"origin":"detect.test/audit","delivered":1}"#).unwrap();
    let mut again = Watched::start(dir.path(), &log, reading.clone());
    log.append(&channel(9)).await.unwrap();
    let found = again.caught_up(&log).await;
    let rules: BTreeSet<&str> = found.iter().map(|(rule, _)| rule.as_str()).collect();
    assert_eq!((rules.len(), found.len()), (2, 2), "{found:?}");
    assert!(rules.contains("own-channel") && rules.contains("own-anything"));
    let status = again.status.borrow().clone();
    assert_eq!((status.lag, status.findings[1]), (0, 1));
    log.close().await;
    again.running.await.unwrap();
    // An orderly end remembers everything.
    let saved = std::fs::read_to_string(&cursor).unwrap();
    assert!(saved.contains(&format!("\"delivered\":{}", log.durable_size())), "{saved}");
}

#[tokio::test]
async fn a_changed_folder_is_taken_up_and_a_broken_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("rules");
    let source = Source { folder: Some(folder.clone()), builtin: true };
    let look = source.look();
    let first = Arc::new(source.load().unwrap());
    let (sender, mut reading) = watch::channel(Arc::clone(&first));
    let (told, mut tales) = tokio::sync::mpsc::unbounded_channel();
    let keeping = tokio::spawn(keep_rules(source, look, sender, move |loaded| {
        told.send(loaded.map(|set| (set.hash().to_owned(), set.len()))).unwrap();
        async {}
    }));
    let mut next =
        async || tokio::time::timeout(Duration::from_secs(10), tales.recv()).await.unwrap().unwrap();
    std::fs::create_dir(&folder).unwrap();
    let begun = std::time::Instant::now();
    std::fs::write(folder.join("own.yml"), CHANNELS).unwrap();
    let (hash, count) = next().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    assert_eq!(count, first.len() + 3);
    assert_eq!(reading.borrow_and_update().hash(), hash);

    std::fs::write(folder.join("broken.yml"), "title: x\nid: b\nlogsource: {product: sekisho}\n").unwrap();
    let error = next().await.unwrap_err();
    assert_eq!((error.file.as_str(), error.line), ("broken.yml", Some(1)));
    assert!(!reading.has_changed().unwrap(), "the old set stays");

    std::fs::remove_file(folder.join("broken.yml")).unwrap();
    assert_eq!(next().await.unwrap().0, hash);
    keeping.abort();
}

/// Each fault has a file, a line and a reason that says what would be right.
#[test]
fn a_broken_rule_is_refused_with_its_place() {
    let rule = |logsource: &str, detection: &str| {
        format!("# one line\ntitle: t\nid: a\nlogsource: {logsource}\ndetection:\n{detection}\nlevel: low\n")
    };
    let sekisho = "{ product: sekisho, service: auth_refused }";
    let good = rule(sekisho, "    s: { unmapped.fault: expired }\n    condition: s");
    let correlation = |body: &str| {
        format!("{good}---\ntitle: c\nid: c\ncorrelation:\n    type: event_count\n    rules: [a]\n{body}\n")
    };
    let mut wrong = Vec::new();
    for (text, line, reason) in [
        ("title: [".to_owned(), Some(2), "YAML"),
        (String::new(), None, "no rule"),
        (good.replace("title: t", "title: t\n  x: y"), Some(3), "YAML"),
        (good.replace("id: a", "id: a b"), Some(3), "a rule has an id"),
        (good.replace("condition: s", "condition: s and"), Some(7), "ondition"),
        (good.replace("condition: s", "condition: nothing"), Some(5), "nothing"),
        (good.replace("fault:", "fualt:"), Some(6), "auth_refused has no field unmapped.fualt; its own are"),
        (good.replace("fault:", "fault|shout:"), Some(2), "shout"),
        (good.replace("fault: expired", "fault|re: '('"), Some(5), "regex"),
        (good.replace("auth_refused", "auth_refusal"), Some(4), "no event is called auth_refusal"),
        (rule("{ product: windows }", "    s: { a: b }\n    condition: s"), Some(4), "no event here"),
        (
            rule("{ product: linux, category: dns_query }", "    s: { a: b }\n    condition: s"),
            Some(4),
            "dns_query",
        ),
        (format!("{good}---\n{good}"), Some(11), "the id a stands in"),
        (correlation("    timespan: 5m\n    condition: { gte: 100000 }"), Some(10), "threshold"),
        (correlation("    timespan: 90d\n    condition: { gte: 2 }"), Some(15), "timespan"),
        (correlation("    timespan: 5m\n    condition: { lte: 2 }"), Some(10), "gte or gt"),
        (
            correlation("    timespan: 5m\n    group-by: [unmapped.nobody]\n    condition: { gte: 2 }"),
            Some(10),
            "nobody",
        ),
        (
            correlation("    timespan: 5m\n    condition: { gte: 2 }").replace("[a]", "[z]"),
            Some(10),
            "no rule z",
        ),
        (
            "title: f\nid: f\nlogsource: {product: sekisho}\nfilter: {rules: [a], s: {a: b}, condition: s}\n"
                .to_owned(),
            Some(4),
            "filter",
        ),
        (format!("action: global\nlevel: low\n---\n{good}"), Some(1), "collections"),
        ("x".repeat(300_000), None, "KiB"),
    ] {
        let file = Text { name: "f.yml".to_owned(), text: text.clone() };
        match RuleSet::parse(&[&[file]]) {
            Err(e) if e.reason.contains(reason) && (e.file.as_str(), e.line) == ("f.yml", line) => {}
            other => {
                wrong.push(format!(
                    "wanted {line:?} {reason}, got {:?} for\n{text}",
                    other.map(|set| set.len())
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    let file =
        Text { name: "f.yml".to_owned(), text: correlation("    timespan: 5m\n    condition: { gte: 2 }") };
    assert_eq!(RuleSet::parse(&[&[file]]).unwrap().len(), 1);
}

/// The same id in the operator's folder takes the place of a rule of ours; a rule can be silenced so.
#[test]
fn a_rule_of_the_folder_takes_the_place_of_ours() {
    let builtin = RuleSet::builtin();
    let all = RuleSet::parse(&[&builtin]).unwrap();
    let ours = all.infos().find(|info| info.name.as_deref() == Some("packet_dropped")).unwrap();
    let text = format!(
        "title: mine\nid: {}\nname: packet_dropped\nlogsource: {{product: linux, category: network_connection}}\n\
         detection: {{ s: {{ DestinationPort: 9 }}, condition: s }}\nlevel: low\n",
        ours.id
    );
    let own = Text { name: "mine.yml".to_owned(), text };
    let both = RuleSet::parse(&[&builtin, &[own]]).unwrap();
    assert_eq!(both.len(), all.len());
    let found = both.infos().find(|info| info.id == ours.id).unwrap();
    assert_eq!((found.title.as_str(), found.file.as_str()), ("mine", "mine.yml"));
    assert_ne!(both.hash(), all.hash());
}
