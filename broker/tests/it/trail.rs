//! The audit log seen from outside, and its witness.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use audit::{Checkpoint, Event, EventKind, Log, LogKey, LogPublicKey, leaf_hash, parse_bundle};
use model::ambient::{OsEntropy, SystemClock};
use model::{Clock, SeededEntropy};
use witness::Witness;

use crate::house::{self, House};

pub async fn fill(log: &Log, count: usize) {
    for i in 0..count {
        let kind = EventKind::SinkRecovered { sink: format!("s{i}") };
        log.append(&Event::new(SystemClock.now(), kind)).await.unwrap();
    }
    let size = log.durable_size();
    while log.checkpoint_size() < size {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hashes_are_for_everybody_and_entries_for_those_who_may_read_them() {
    let house = House::new().await;
    let alice = house.alice(None).await;
    let log = house.node().services().gate.log().clone();
    fill(&log, 300).await;
    let key = fs::read_to_string(house.dir.path().join("audit/key.pub")).unwrap();
    let key: LogPublicKey = key.trim().parse().unwrap();

    let (status, head, note) = house.fetch(None, "/log/checkpoint").await;
    assert_eq!(status, 200);
    assert!(head.contains("text/plain") && head.contains("no-store"), "{head}");
    let size = Checkpoint::open(&note, &key).unwrap().size;
    assert!(size > 300);
    let (status, head, hashes) = house.fetch(None, "/log/tile/0/000").await;
    assert_eq!((status, hashes.len()), (200, 256 * 32));
    assert!(head.contains("immutable") && head.contains("application/octet-stream"), "{head}");
    let partial = format!("/log/tile/0/001.p/{}", size - 256);
    assert_eq!(house.fetch(None, &partial).await.2.len() as u64, (size - 256) * 32);
    for absent in ["0/001", "0/5", "0/999", "9/000", "0/000.p/256", "0/..%2f..%2fkey.pub", "../key.pub", "x"]
    {
        assert_eq!(house.fetch(None, &format!("/log/tile/{absent}")).await.0, 404, "{absent}");
    }

    let entries = "/log/tile/entries/000";
    assert_eq!(house.fetch(None, entries).await.0, 401);
    assert_eq!(house.fetch(Some(&alice.tls), entries).await.0, 403);
    assert!(house.recorded(&["admin_refused", "read-audit", "u:alice"]).await);
    let (status, head, bundle) = house.fetch(Some(&house.admin), entries).await;
    assert_eq!(status, 200);
    assert!(head.contains("no-store"), "{head}");
    let read: Vec<u8> = parse_bundle(&bundle).unwrap().into_iter().flat_map(leaf_hash).collect();
    assert_eq!(read, hashes);
    assert!(house.recorded(&["audit_read", "tile/entries/000", "u:admin"]).await);
}

pub fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { fs::copy(&path, &target).map(drop).unwrap() }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_whose_log_was_set_back_does_not_start() {
    let place = tempfile::tempdir().unwrap();
    let mut house = House::prepared(|dir| {
        let key = LogKey::generate("gate.test/audit", &SeededEntropy::new(1)).unwrap();
        fs::write(dir.join("audit.key"), key.to_secret_text().as_bytes()).unwrap();
        let logs = [key.public().clone()];
        let witness = Arc::new(Witness::open(place.path(), "witness.test/w", &logs, &OsEntropy).unwrap());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let more =
            format!("[witness]\nurl = \"http://{address}\"\nkey = \"{}\"\nstrict = true\n", witness.key());
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        tokio::spawn(witness::serve(witness, Arc::new(SystemClock), listener, None));
        more
    })
    .await;
    let (dir, audit) = (house.dir.path().to_owned(), house.dir.path().join("audit"));
    let witnessed = |size| {
        let reader = audit::Reader::open(&audit).unwrap();
        reader.witnessed().unwrap().is_some_and(|(checkpoint, _)| checkpoint.size >= size)
    };
    let log = house.node().services().gate.log().clone();
    fill(&log, 20).await;
    let size = log.durable_size();
    while !witnessed(size) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    house.node.take().unwrap().stop("a test").await;
    copy(&audit, &place.path().join("old"));

    let node = house::start(&dir).await.unwrap();
    let log = node.services().gate.log().clone();
    fill(&log, 50).await;
    let size = log.durable_size();
    while !witnessed(size) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    node.stop("a test").await;
    copy(&audit, &place.path().join("new"));

    copy(&place.path().join("old"), &audit);
    let refusal = format!("{:#}", house::start(&dir).await.err().expect("it was set back"));
    assert!(refusal.contains("older copy") && refusal.contains("witness.test/w"), "{refusal}");
    fs::remove_dir_all(&audit).unwrap();
    let refusal = format!("{:#}", house::start(&dir).await.err().expect("it is gone"));
    assert!(refusal.contains("older copy"), "{refusal}");

    copy(&place.path().join("new"), &audit);
    house::start(&dir).await.unwrap().stop("a test").await;
}
