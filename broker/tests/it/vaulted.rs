//! Recordings in the vault: kept once, out of the folder, and shown and found all the same.

use std::path::PathBuf;
use std::time::Duration;

use audit::{Event, EventKind};
use data_encoding::HEXLOWER;
use model::SessionId;
use serde_json::{Value, json};
use store::{KeptState, KeptSubject};

use crate::house::{self, House, Mood, Person};

/// Somebody works at a terminal, and leaves; the session.
async fn record(alice: &Person, house: &House, text: &str) -> SessionId {
    let (code, _, said) = alice.run(&["-tt", "brca@127.0.0.1", &format!("echo {text}")]).await;
    assert_eq!(code, 0, "{said}");
    for _ in 0..200 {
        let (_, list) = house.call(Some(&house.admin), "GET", "/v1/recordings", b"").await;
        let newest = &list["recordings"][0];
        if newest["command"].as_str().is_some_and(|command| command.contains(text)) {
            return newest["session"].as_str().unwrap().parse().unwrap();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{text} was not recorded");
}

impl House {
    fn file(&self, session: &SessionId, extension: &str) -> PathBuf {
        self.dir.path().join("recordings").join(format!("{}.{extension}", session.name()))
    }

    async fn state(&self, session: &SessionId) -> Option<KeptState> {
        let subject = KeptSubject::SessionRecording { session: session.clone() };
        self.node().services().gate.kept().of(&subject).await.unwrap().map(|kept| kept.state)
    }

    async fn until_it_is(&self, session: &SessionId, wanted: &str) {
        for _ in 0..1200 {
            if self.state(session).await.is_some_and(|state| state.code() == wanted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{session} is not {wanted}: {:?}", self.state(session).await);
    }

    /// The agent that was there comes again to a broker that was started anew.
    async fn agent_returns(&mut self) {
        let (status, answer) =
            self.call(Some(&self.admin), "POST", "/v1/agents/token", b"{\"agent\": \"agent:main\"}").await;
        assert_eq!(status, 200, "{answer}");
        std::fs::write(self.dir.path().join("agent.token"), answer["token"].as_str().unwrap()).unwrap();
        self.agent_comes().await;
    }

    fn said(&self, code: &str) -> Vec<Value> {
        let all = self.records();
        let all = all.iter().map(|record| serde_json::from_str::<Value>(record).unwrap());
        all.filter(|record| record["metadata"]["event_code"] == code).collect()
    }

    /// The events of one kind that are still here: segments may leave while it reads.
    fn said_here(&self, code: &str) -> Vec<Value> {
        let log = self.node().services().gate.log();
        let mut from = self.node().services().keeping.status().local_from;
        let all = loop {
            match log.read(from, 100_000) {
                Ok(all) => break all,
                Err(audit::ReadError::Removed { from: next, .. }) if next > from => from = next,
                Err(error) => panic!("the log cannot be read from {from}: {error}"),
            }
        };
        let all = all.into_iter().map(|(_, entry)| serde_json::from_slice::<Value>(&entry).unwrap());
        all.filter(|record| record["metadata"]["event_code"] == code).collect()
    }

    async fn shown(&self, session: &SessionId) -> (u16, String, Vec<u8>) {
        self.fetch(Some(&self.admin), &format!("/v1/recordings/{session}")).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_leaves_the_folder_and_is_shown_and_found_all_the_same() {
    let mut house = House::prepared(|_| "[recordings]\nlocal_days = 0\n".to_owned()).await;
    house.agent_comes().await;
    let alice = house.alice(None).await;
    let session = record(&alice, &house, "result-42").await;
    house.until_it_is(&session, "moved").await;
    assert!(!house.file(&session, "cast").exists() && house.file(&session, "text").exists());

    // What the vault has is the sealed file, and nothing that can be read.
    let (_, list) = house.call(Some(&house.admin), "GET", "/v1/recordings", b"").await;
    let listed = &list["recordings"][0];
    assert_eq!((&listed["lies"], &listed["session"]), (&json!("vault"), &json!(session)));
    let sealed = house.vault.kept.lock().unwrap().values().next().unwrap().0.clone();
    assert_eq!(HEXLOWER.encode(&crate::sha2(&sealed)), listed["stored_sha256"]);
    assert!(!sealed.windows(9).any(|window| window == b"result-42"));
    assert_eq!((house.said("record_kept").len(), house.said("record_moved").len()), (1, 1));

    let (status, head, cast) = house.shown(&session).await;
    assert_eq!(status, 200, "{head}");
    assert_eq!(HEXLOWER.encode(&crate::sha2(&cast)), listed["sha256"]);
    assert!(String::from_utf8_lossy(&cast).contains("result-42") && head.contains("x-sekisho-lies: vault"));
    let fetched = house.said("record_fetched");
    assert_eq!(fetched.len(), 1);
    let decision = &fetched[0]["unmapped"]["decision"];
    assert_eq!(
        (&fetched[0]["actor"]["user"]["uid"], &decision["action"]),
        (&json!("u:admin"), &json!("play-recording"))
    );
    let (_, found) = house.call(Some(&house.admin), "GET", "/v1/recordings?text=RESULT", b"").await;
    assert_eq!((&found["fetched"], found["recordings"].as_array().unwrap().len()), (&json!(0), 1));

    // Who may not see it does not have it fetched either.
    let path = format!("/v1/recordings/{session}");
    assert_eq!(house.fetch(Some(&alice.tls), &path).await.0, 403);
    assert_eq!(house.said("record_fetched").len(), 1);

    // A peer that hands out something else, or stops, hands out nothing that looks whole; why stands there.
    for mood in [Mood::Lie, Mood::Vanish] {
        house.vault.moods.lock().unwrap().push(mood);
        let (_, head, bytes) = house.shown(&session).await;
        let promised = head.to_lowercase().contains(&format!("content-length: {}", cast.len()));
        assert!(!promised || bytes.len() < cast.len(), "{mood:?}: {head}");
    }
    house.vault.moods.lock().unwrap().push(Mood::Refuse);
    let (status, answer) = house.call(Some(&house.admin), "GET", &path, b"").await;
    assert_eq!((status, &answer["error"]["code"]), (502, &json!("fetch_failed")), "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("Too few shares"), "{answer}");
    // One that is in no vault either is lost, and that is said, too.
    let other = record(&alice, &house, "second-43").await;
    house.until_it_is(&other, "moved").await;
    assert_eq!(house.shown(&other).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_has_back_what_has_left_with_its_text() {
    let mut house =
        House::prepared(|_| "[recordings]\nlocal_days = 0\nlocal_text = false\n".to_owned()).await;
    house.agent_comes().await;
    let alice = house.alice(None).await;
    let session = record(&alice, &house, "result-42").await;
    house.until_it_is(&session, "moved").await;
    assert!(!house.file(&session, "cast").exists() && !house.file(&session, "text").exists());
    let search = async |text: &str| {
        let path = format!("/v1/recordings?text={text}");
        let (status, found) = house.call(Some(&house.admin), "GET", &path, b"").await;
        assert_eq!(status, 200, "{found}");
        let hits = found["recordings"].as_array().unwrap().len();
        (hits, found["fetched"].as_u64().unwrap(), found["not_searched"].as_u64().unwrap())
    };
    assert_eq!(search("result-42").await, (1, 1, 0));
    assert_eq!(search("nothing").await, (0, 1, 0));
    assert_eq!(house.said("record_fetched").len(), 2);
    house.vault.moods.lock().unwrap().push(Mood::Lie);
    assert_eq!(search("result-42").await, (0, 1, 1), "what is not what was kept is no hit");
    house.vault.moods.lock().unwrap().push(Mood::Refuse);
    assert_eq!(search("result-42").await, (0, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_kept_is_tried_again_and_told_and_never_leaves() {
    let mut house = House::prepared(|_| "[recordings]\nlocal_days = 0\nlagging_secs = 1\n".to_owned()).await;
    house.agent_comes().await;
    let alice = house.alice(None).await;
    // It says no, gives up, cannot hand it out again, hands out something else; then it works.
    let moods = [Mood::Refuse, Mood::Vanish, Mood::Good, Mood::Refuse, Mood::Good, Mood::Lie];
    *house.vault.moods.lock().unwrap() = moods.to_vec();
    let session = record(&alice, &house, "result-42").await;
    for _ in 0..400 {
        if !house.said("kept_lagging").is_empty() {
            break;
        }
        // Being put in its place, it is looked for where it was first.
        assert!(house.file(&session, "open").exists() || house.file(&session, "cast").exists());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let lagging = house.said("kept_lagging");
    assert_eq!(lagging.len(), 1);
    assert_eq!(lagging[0]["unmapped"]["what"], "session-recording");
    let health = house.call(None, "GET", "/v1/health", b"").await.1.to_string();
    assert!(health.contains("recordings wait to be kept as shares"), "{health}");
    house.until_it_is(&session, "moved").await;
    assert!(house.recorded(&["kept_recovered", "session-recording"]).await);
    let kept = house.vault.kept.lock().unwrap().clone();
    assert_eq!(kept.len(), 1);
    assert_eq!((house.said("record_keeping").len(), house.said("record_kept").len()), (1, 1));
    assert_eq!(house.shown(&session).await.0, 200);

    // One whose file was changed here is not kept, and does not leave.
    *house.vault.moods.lock().unwrap() = vec![Mood::Refuse; 2];
    let altered = record(&alice, &house, "altered-43").await;
    for _ in 0..200 {
        if house.file(&altered, "cast").exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut bytes = std::fs::read(house.file(&altered, "cast")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(house.file(&altered, "cast"), bytes).unwrap();
    for _ in 0..400 {
        let status = house.node().services().recordings.kept_status();
        if status.last_error.is_some_and(|error| error.contains("not the one that the log has sealed")) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let status = house.node().services().recordings.kept_status();
    assert!(status.last_error.is_some_and(|error| error.contains("sealed")) && status.waiting == 1);
    assert_eq!(house.state(&altered).await, Some(KeptState::Pending));
    assert!(house.file(&altered, "cast").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_stopped_on_the_way_goes_on_where_it_was() {
    let mut house = House::new().await;
    house.agent_comes().await;
    let alice = house.alice(None).await;
    *house.vault.moods.lock().unwrap() = vec![Mood::Refuse; 100];
    let session = record(&alice, &house, "result-42").await;
    house.until_it_is(&session, "pending").await;
    let restart = async |house: &mut House| {
        house.node.take().unwrap().stop("the test restarts it").await;
        house.vault.moods.lock().unwrap().clear();
        house.node = Some(house::start(house.dir.path()).await.unwrap());
    };
    restart(&mut house).await;
    house.agent_returns().await;
    house.until_it_is(&session, "kept").await;
    assert_eq!((house.said("record_keeping").len(), house.said("record_kept").len()), (2, 1));
    assert_eq!(house.vault.kept.lock().unwrap().len(), 1);
    // Nothing leaves by itself, and a copy that was about to leave leaves.
    assert!(house.file(&session, "cast").exists());
    let subject = KeptSubject::SessionRecording { session: session.clone() };
    let gate = house.node().services().gate.clone();
    let object = gate.kept().of(&subject).await.unwrap().unwrap().object;
    gate.move_record(&object).await.unwrap();
    drop(gate);
    assert_eq!(house.said("record_moved").len(), 1);
    restart(&mut house).await;
    house.until_it_is(&session, "moved").await;
    assert!(!house.file(&session, "cast").exists());
    assert_eq!(house.said("record_moved").len(), 1, "it is said once");
    let (status, answer) =
        house.call(Some(&house.admin), "GET", &format!("/v1/recordings/{session}"), b"").await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("fetch_failed")), "no agent: {answer}");
    house.agent_returns().await;
    assert_eq!(house.shown(&session).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_is_shown_whose_record_has_left_with_its_part_of_the_log() {
    let more = "[retention]\nsegment_bundles = 1\nlocal_entries = 300\n";
    let mut house = House::prepared(|_| more.to_owned()).await;
    house.agent_comes().await;
    let alice = house.alice(None).await;
    let session = record(&alice, &house, "result-42").await;
    house.until_it_is(&session, "kept").await;
    let gate = house.node().services().gate.clone();
    // More than a file of the write-ahead log holds: what is in the vault alone is nowhere here.
    let filling = (0..3_000).map(|i| {
        let gate = gate.clone();
        tokio::spawn(async move {
            let kind = EventKind::SinkRejected {
                sink: format!("s{i}"),
                count: 1,
                index: i,
                reason: "x".repeat(4_000),
            };
            gate.record(&Event::new(gate.now(), kind)).await.unwrap();
        })
    });
    for entry in filling.collect::<Vec<_>>() {
        entry.await.unwrap();
    }
    let (_, list) = house.call(Some(&house.admin), "GET", "/v1/recordings", b"").await;
    let record = list["recordings"][0]["record"].as_u64().unwrap();
    let removed = |found: Result<_, audit::ReadError>| matches!(found, Err(audit::ReadError::Removed { .. }));
    for _ in 0..1200 {
        if removed(gate.log().read(record, 1)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert!(removed(gate.log().read(record, 1)), "it is still here");
    drop(gate);
    // A session that was not recorded.
    assert_eq!(alice.run(&["brca@127.0.0.1", "echo alone"]).await.0, 0);
    let opened = house.said_here("session_opened");
    let other: SessionId =
        opened.last().unwrap()["metadata"]["correlation_uid"].as_str().unwrap().parse().unwrap();
    assert_ne!(other, session);
    // Somebody has the database say that a recording of that other session was sealed there, and what its
    // record said.
    house.node.take().unwrap().stop("the test restarts it").await;
    let records = store::Store::open(&house.dir.path().join("records.sqlite")).await.unwrap();
    let mut forged = records.recording(&session).await.unwrap().unwrap();
    assert!(forged.entry.contains("session_recorded"), "{}", forged.entry);
    forged.entry = forged.entry.replace(session.as_str(), other.as_str());
    forged.session = other.clone();
    records.add_recording(&forged).await.unwrap();
    records.close().await.unwrap();
    house.node = Some(house::start(house.dir.path()).await.unwrap());
    let (status, head, cast) = house.shown(&session).await;
    assert_eq!(status, 200, "{head} {}", String::from_utf8_lossy(&cast));
    assert_eq!(HEXLOWER.encode(&crate::sha2(&cast)), list["recordings"][0]["sha256"]);
    let (status, answer) =
        house.call(Some(&house.admin), "GET", &format!("/v1/recordings/{other}"), b"").await;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("recording-altered")), "{answer}");
}
