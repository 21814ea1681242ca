//! The house's own records on their way to the vault and back, with a peer in any mood.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use audit::{Event, EventKind, Log, LogPublicKey, SegmentReader, verify_dir};
use broker::keeping::{KeepError, Keeping, Source, SourceError, Status};
use model::ambient::SystemClock;
use model::{Clock, SessionId};
use serde_json::Value;
use store::{KeptRecord, KeptSubject};

use crate::house::{self, House, Mood};

/// Small parts, so that a test fills some.
const SMALL: &str = "[retention]\nsegment_bundles = 1\nlagging_secs = 1\n";

async fn fill(log: &Log, count: usize) {
    let from = log.durable_size();
    let entries = (0..count).map(|i| {
        let log = log.clone();
        tokio::spawn(async move {
            let kind = EventKind::SinkRecovered { sink: format!("s{from}-{i}") };
            log.append(&Event::new(SystemClock.now(), kind)).await.unwrap();
        })
    });
    for entry in entries.collect::<Vec<_>>() {
        entry.await.unwrap();
    }
}

impl House {
    fn log(&self) -> Log {
        self.node().services().gate.log().clone()
    }

    fn keeping(&self) -> Keeping {
        self.node().services().keeping.clone()
    }

    /// Waits until keeping is like this.
    async fn until(&self, what: &str, fits: impl Fn(&Status) -> bool) -> Status {
        for _ in 0..1200 {
            let status = self.keeping().status();
            if fits(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{what}: {:?}", self.keeping().status());
    }

    /// The events of one kind, with what they say.
    fn events(&self, code: &str) -> Vec<Value> {
        let all = self.records();
        let all = all.iter().map(|record| serde_json::from_str::<Value>(record).unwrap());
        all.filter(|record| record["metadata"]["event_code"] == code).collect()
    }

    fn key(&self) -> LogPublicKey {
        std::fs::read_to_string(self.dir.path().join("audit/key.pub")).unwrap().trim().parse().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_the_log_are_kept_once_and_come_back() {
    let mut house = House::prepared(|_| SMALL.to_owned()).await;
    house.agent_comes().await;
    let log = house.log();
    fill(&log, 800).await;
    house.until("three parts are kept", |status| status.kept >= 768 && status.records >= 3).await;

    // What lies in the vault is the log, provable with its key alone.
    let kept = house.vault.kept.lock().unwrap().clone();
    assert_eq!(kept.len(), 3);
    let mut seen = BTreeSet::new();
    for (object, (plain, attempts)) in &kept {
        assert!(object.is_kept() && *attempts == 1, "{object}: {attempts}");
        let mut reader = SegmentReader::open(&plain[..], &house.key()).unwrap();
        let first = reader.header().range.first();
        while let Some(bundle) = reader.next_bundle().unwrap() {
            let theirs: Vec<_> = log.read(first, 256).unwrap().into_iter().map(|(_, entry)| entry).collect();
            assert_eq!(bundle.entries, theirs);
        }
        seen.insert(first);
    }
    assert_eq!(seen, BTreeSet::from([0, 256, 512]));

    // Each is on record once, after the decision about the house itself.
    let (keeping, kept_events) = (house.events("record_keeping"), house.events("record_kept"));
    assert_eq!((keeping.len(), kept_events.len()), (3, 3));
    let decision = &keeping[0]["unmapped"]["decision"];
    assert_eq!(decision["rules"], serde_json::json!(["programme/role:house/keep-record"]));
    assert!(keeping[0]["actor"]["user"].is_null(), "it names no person: {}", keeping[0]);
    assert_eq!(kept_events[1]["unmapped"]["first"], 256);
    assert_eq!(kept_events[1]["unmapped"]["agent"], "agent:main");

    // Nothing leaves by itself.
    assert_eq!(house.keeping().status().local_from, 0);
    assert_eq!(house.fetch(Some(&house.admin), "/log/tile/entries/000").await.0, 200);

    // Those who may have them back, do; that is on record. Others do not.
    let alice = house.alice(None).await;
    let (object, (plain, _)) = kept.iter().next().unwrap();
    let path = format!("/v1/kept/{object}");
    assert_eq!(house.fetch(None, &path).await.0, 401);
    assert_eq!(house.fetch(Some(&alice.tls), &path).await.0, 403);
    assert_eq!(house.fetch(Some(&alice.tls), "/v1/kept").await.0, 403);
    assert!(house.recorded(&["admin_refused", "fetch-record", "u:alice"]).await);
    let (status, head, bytes) = house.fetch(Some(&house.admin), &path).await;
    assert_eq!(status, 200, "{head}");
    assert_eq!(&bytes, plain);
    let fetched = house.events("record_fetched");
    assert_eq!(fetched.len(), 1);
    assert_eq!(fetched[0]["actor"]["user"]["uid"], "u:admin");
    let (status, listing) = house.call(Some(&house.admin), "GET", "/v1/kept?from=300&to=301", b"").await;
    assert_eq!((status, listing["segments"].as_array().unwrap().len()), (200, 1), "{listing}");
    assert_eq!(listing["segments"][0]["first"], 256);
    assert_eq!(house.fetch(Some(&house.admin), "/v1/kept/obj:kept-none").await.0, 404);

    // A peer that hands out something else, or stops, hands out nothing that looks whole.
    for mood in [Mood::Lie, Mood::Vanish] {
        house.vault.moods.lock().unwrap().push(mood);
        let (_, head, bytes) = house.fetch(Some(&house.admin), &path).await;
        let promised = head.to_lowercase().contains(&format!("content-length: {}", plain.len()));
        assert!(!promised || bytes.len() < plain.len(), "{mood:?}: {head}");
    }
    house.vault.moods.lock().unwrap().push(Mood::Refuse);
    let (status, answer) = house.call(Some(&house.admin), "GET", &path, b"").await;
    assert_eq!((status, &answer["error"]["code"]), (502, &Value::from("fetch_failed")));
    let metrics = house.ca.leaf("service/prometheus".parse().unwrap());
    let (_, _, figures) = house.fetch(Some(&metrics), "/v1/metrics").await;
    let figures = String::from_utf8(figures).unwrap();
    assert!(figures.contains("sekisho_kept_events 768"), "{figures}");
}

/// A part as large as they usually are.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_65_536_entries_is_kept_and_comes_back() {
    let mut house = House::prepared(|_| "[retention]\nlagging_secs = 300\n".to_owned()).await;
    let log = house.log();
    while log.durable_size() < 65_600 {
        fill(&log, 4096).await;
    }
    let began = std::time::Instant::now();
    house.agent_comes().await;
    house.until("it is kept", |status| status.records == 1).await;
    let kept = house.events("record_kept").remove(0);
    let said = &kept["unmapped"];
    println!("kept and compared after {:?}: {}", began.elapsed(), said);
    assert_eq!((said["first"].as_u64(), said["count"].as_u64()), (Some(0), Some(65_536)));
    let began = std::time::Instant::now();
    let path = format!("/v1/kept/{}", said["object"].as_str().unwrap());
    let (status, _, bytes) = house.fetch(Some(&house.admin), &path).await;
    println!("{} bytes fetched after {:?}", bytes.len(), began.elapsed());
    assert_eq!((status, Some(bytes.len() as u64)), (200, said["size"].as_u64()));
    let mut segment = SegmentReader::open(bytes.as_slice(), &house.key()).unwrap();
    let mut entries = 0;
    while let Some(bundle) = segment.next_bundle().unwrap() {
        entries += bundle.entries.len();
    }
    assert_eq!(entries, 65_536);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_tried_again_under_one_object_and_told_once() {
    let mut house = House::prepared(|_| SMALL.to_owned()).await;
    fill(&house.log(), 300).await;
    // Nobody is there: it waits, and after a while that is an alarm.
    house.until("somebody should look", |status| status.lagging).await;
    let health = house.call(None, "GET", "/v1/health", b"").await.1.to_string();
    assert!(health.contains("events wait to be kept as shares"), "{health}");
    let lagging = house.events("kept_lagging");
    assert_eq!(lagging.len(), 1);
    assert!(lagging[0]["unmapped"]["last_error"].as_str().unwrap().contains("no agent"), "{}", lagging[0]);

    // It says no, gives up in the middle, cannot hand it out again, hands out something else; then it works.
    let moods = [Mood::Refuse, Mood::Vanish, Mood::Good, Mood::Refuse, Mood::Good, Mood::Lie];
    *house.vault.moods.lock().unwrap() = moods.to_vec();
    house.agent_comes().await;
    let status = house.until("it is kept at last", |status| status.records == 1 && !status.lagging).await;
    assert!(status.failures >= 4, "{status:?}");
    let kept = house.vault.kept.lock().unwrap().clone();
    assert_eq!(kept.values().map(|(_, attempts)| *attempts).collect::<Vec<_>>(), [3]);
    assert_eq!((house.events("record_keeping").len(), house.events("record_kept").len()), (1, 1));
    assert_eq!(house.events("kept_recovered").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_restarted_goes_on_where_it_was() {
    let mut house = House::prepared(|_| SMALL.to_owned()).await;
    let log = house.log();
    fill(&log, 300).await;
    house.until("it has begun", |status| status.last_error.is_some()).await;
    let begun = house.events("record_keeping");
    assert_eq!(begun.len(), 1);
    house.node.take().unwrap().stop("the test restarts it").await;
    house.node = Some(house::start(house.dir.path()).await.unwrap());
    house.agent_comes().await;
    house.until("it is kept", |status| status.kept >= 256 && status.records == 1).await;
    let keeping = house.events("record_keeping");
    assert_eq!(keeping.len(), 2, "one permit for each process");
    assert_eq!(keeping[0]["unmapped"]["object"], keeping[1]["unmapped"]["object"]);
    assert_eq!(house.events("record_kept").len(), 1);
    assert_eq!(house.vault.kept.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_parts_leave_the_house_when_nobody_needs_them_here() {
    let more = format!("{SMALL}local_entries = 300\n");
    let mut house = House::prepared(|_| more).await;
    house.agent_comes().await;
    let log = house.log();
    fill(&log, 960).await;
    let status = house.until("old parts left", |status| status.local_from >= 512).await;
    assert!(status.local_from <= log.durable_size() - 300, "{status:?}");
    let report = verify_dir(&house.dir.path().join("audit"), &house.key()).unwrap();
    assert_eq!(report.removed, status.local_from);
    let moved = house.events_local("record_moved", status.local_from);
    assert_eq!(moved.len() as u64, status.local_from / 256);

    // What is gone is said to be gone, what is left is there, and the log goes on.
    let (status, answer) = house.call(Some(&house.admin), "GET", "/log/tile/entries/000", b"").await;
    assert_eq!((status, &answer["error"]["code"]), (410, &Value::from("moved")), "{answer}");
    assert_eq!(house.fetch(None, "/log/tile/0/000").await.0, 200);
    // The write-ahead log may still have them; the folder's bundles do not.
    assert!(matches!(log.reader().read(0, 1), Err(audit::ReadError::Removed { index: 0, .. })));
    house.node.take().unwrap().stop("the test restarts it").await;
    house.node = Some(house::start(house.dir.path()).await.unwrap());
    fill(&house.log(), 10).await;
    verify_dir(&house.dir.path().join("audit"), &house.key()).unwrap();
}

impl House {
    /// The events of one kind from an index on.
    fn events_local(&self, code: &str, from: u64) -> Vec<Value> {
        let all = self.log().read(from, 100_000).unwrap().into_iter();
        let all = all.map(|(_, entry)| serde_json::from_slice::<Value>(&entry).unwrap());
        all.filter(|record| record["metadata"]["event_code"] == code).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_behind_holds_back_what_it_does_not_have() {
    let more = format!(
        "{SMALL}local_entries = 300\n[[siem.sink]]\nname = \"soc\"\nkind = \"relp\"\naddress = \"127.0.0.1:9\"\nserver_name = \"soc.test\"\n"
    );
    let mut house = House::prepared(|_| more).await;
    house.agent_comes().await;
    fill(&house.log(), 800).await;
    let status = house.until("it is held back", |status| status.held_back.is_some()).await;
    assert!(status.held_back.unwrap().contains("soc"));
    assert!(house.until("all is kept", |status| status.kept >= 768).await.local_from == 0);
}

/// Something else that is kept: a recording, as its recorder writes it.
struct Recording(Result<Vec<u8>, &'static str>);

impl Source for Recording {
    fn write_to(&self, to: &mut dyn Write) -> Result<Option<[u8; 32]>, SourceError> {
        match &self.0 {
            Ok(bytes) => {
                for piece in bytes.chunks(70_001) {
                    to.write_all(piece)?;
                }
                Ok(None)
            }
            Err(why) => {
                to.write_all(&[0; 300_000])?;
                Err(SourceError::Broken((*why).to_owned()))
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_are_kept_by_the_same_way() {
    let mut house = House::new().await;
    house.agent_comes().await;
    let keeping = house.keeping();
    let session = |name: &str| SessionId::from_name(name).unwrap();
    let subject = |name: &str| KeptSubject::SessionRecording { session: session(name) };
    for (name, len) in [("s0", 0), ("s1", 1), ("s2", 3_000_000)] {
        let bytes = super::noise(len);
        let source = Arc::new(Recording(Ok(bytes.clone())));
        let KeptRecord { object, state, .. } = keeping.keep(&subject(name), source.clone()).await.unwrap();
        assert_eq!(state.kept().unwrap().size, len as u64);
        assert_eq!(house.vault.kept.lock().unwrap()[&object], (bytes.clone(), 1));
        // Asked again it is there already.
        assert_eq!(keeping.keep(&subject(name), source).await.unwrap().object, object);
        let (status, _, fetched) = house.fetch(Some(&house.admin), &format!("/v1/kept/{object}")).await;
        assert_eq!((status, fetched), (200, bytes));
    }
    let kept = house.events("record_kept");
    assert_eq!(kept.len(), 3);
    assert_eq!(kept[0]["unmapped"]["what"], "session-recording");
    assert_eq!(kept[0]["actor"]["session"]["uid"], "sess:s0");
    // One that cannot be read is not tried again and again, and the agent keeps nothing of it.
    let broken = keeping.keep(&subject("s3"), Arc::new(Recording(Err("the disk is bad")))).await;
    assert!(matches!(&broken, Err(KeepError::Source(why)) if why.contains("disk")), "{broken:?}");
    assert_eq!(house.vault.kept.lock().unwrap().len(), 3);
    assert_eq!(house.events("record_kept").len(), 3);
}
