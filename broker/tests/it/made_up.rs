//! A broker that is killed after it recorded a finding and before it carried out what that calls for.

use std::path::{Path, PathBuf};

use audit::{Event, EventKind, FindingLevel, FindingReaction};
use model::ambient::SystemClock;
use model::{Clock, PersonId, Timestamp};
use nix::sys::signal::{Signal, raise};

use crate::house::{self, House};

/// Where the process that is to die leaves word of its broker's folder.
const WORD: &str = "SEKISHO_TEST_DIES_AND_LEAVES_WORD_AT";

fn finding(at: Timestamp) -> Event {
    let kind = EventKind::Finding {
        rule: "r".to_owned(),
        name: Some("decoy_touched".to_owned()),
        title: "A decoy was touched".to_owned(),
        title_ja: None,
        level: FindingLevel::Critical,
        tags: Vec::new(),
        evidence: vec![1],
        observed: at,
        proven: true,
        decoy: None,
        repeated: 0,
        reaction: FindingReaction::LockPerson,
    };
    Event { person: Some(PersonId::from_name("alice").unwrap()), ..Event::new(at, kind) }
}

/// The process that dies; started by the test below.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "kills its own process; the test below starts it"]
async fn dies_between_a_finding_and_its_lock() {
    let Some(word) = std::env::var_os(WORD) else { return };
    let house = House::new().await;
    std::fs::write(word, house.dir.path().to_str().unwrap()).unwrap();
    let _owed = house.node().services().gate.record_finding(finding(SystemClock.now())).await.unwrap();
    raise(Signal::SIGKILL).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_start_locks_whom_the_last_one_had_found() {
    let temporary = tempfile::tempdir().unwrap();
    let word = temporary.path().join("word");
    let died = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["made_up::dies_between_a_finding_and_its_lock", "--exact", "--ignored"])
        .env(WORD, &word)
        .env("TMPDIR", temporary.path())
        .output()
        .await
        .unwrap();
    use std::os::unix::process::ExitStatusExt as _;
    assert_eq!(died.status.signal(), Some(Signal::SIGKILL as i32), "{died:?}");
    let dir = PathBuf::from(std::fs::read_to_string(&word).unwrap());
    std::fs::remove_file(dir.join("signer.sock")).unwrap();
    house::signer(&dir.join("signer.sock"));

    for _ in 0..2 {
        let node = house::start(&dir).await.unwrap();
        let kinds = kinds(node.services().gate.log());
        let of = |kind: &str| kinds.iter().filter(|of| *of == kind).count();
        assert_eq!((of("finding"), of("person_locked")), (1, 1), "{kinds:?}");
        let locked = kinds.iter().position(|kind| kind == "person_locked").unwrap();
        let starts: Vec<usize> = (0..kinds.len()).filter(|at| kinds[*at] == "started").collect();
        // Right after the process said that it started, before anything else could happen.
        assert_eq!(locked, starts[1] + 1, "{kinds:?}");
        node.stop("a test").await;
    }
    let store = store::Store::open(&records(&dir)).await.unwrap();
    let alice = store.person(&PersonId::from_name("alice").unwrap()).await.unwrap().unwrap();
    assert!(matches!(alice.state, store::PersonState::Locked { .. }));
}

fn records(dir: &Path) -> PathBuf {
    dir.join("records.sqlite")
}

fn kinds(log: &audit::Log) -> Vec<String> {
    let entries = log.read(0, 10_000).unwrap();
    let kind = |(index, entry): &(u64, Vec<u8>)| {
        let event = audit::export(log.origin(), *index, entry).unwrap();
        event["metadata"]["event_code"].as_str().unwrap().to_owned()
    };
    entries.iter().map(kind).collect()
}
