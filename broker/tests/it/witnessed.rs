//! A running broker and its witness: one that cannot be asked, one that does not know the log, and
//! one that was shown another history.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit::{Log, LogKey, Options, Reader};
use model::SeededEntropy;
use model::ambient::SystemClock;
use tokio::net::{TcpListener, TcpStream};
use witness::{Client, Target, Witness};

use crate::house::{self, House};
use crate::trail::{copy, fill};

const NAME: &str = "witness.test/w";

fn key() -> LogKey {
    LogKey::generate("gate.test/audit", &SeededEntropy::new(1)).unwrap()
}

/// An address that leads to a witness, or hangs up.
#[derive(Clone)]
struct Door {
    address: SocketAddr,
    to: Arc<Mutex<Option<SocketAddr>>>,
}

impl Door {
    async fn closed() -> Door {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let door = Door { address: listener.local_addr().unwrap(), to: Arc::default() };
        let to = Arc::clone(&door.to);
        tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                let Some(to) = *to.lock().unwrap() else { continue };
                tokio::spawn(async move {
                    let mut to = TcpStream::connect(to).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                });
            }
        });
        door
    }

    fn lead(&self, to: Option<SocketAddr>) {
        *self.to.lock().unwrap() = to;
    }

    fn config(&self, witness: &Witness, strict: bool) -> String {
        let (address, key) = (self.address, witness.key());
        format!("[witness]\nurl = \"http://{address}\"\nkey = \"{key}\"\nstrict = {strict}\n")
    }
}

/// A witness in `dir` that serves, for the log of this house if it knows it.
async fn witness(dir: &Path, knows: bool) -> (Arc<Witness>, SocketAddr) {
    let logs = if knows { vec![key().public().clone()] } else { Vec::new() };
    let witness = Arc::new(Witness::open(dir, NAME, &logs, &SeededEntropy::new(2)).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(witness::serve(Arc::clone(&witness), Arc::new(SystemClock), listener, None));
    (witness, address)
}

fn put_key(dir: &Path) {
    fs::write(dir.join("audit.key"), key().to_secret_text().as_bytes()).unwrap();
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn has(house: &House, words: &[&str]) -> bool {
    house.records().iter().any(|record| words.iter().all(|word| record.contains(word)))
}

/// How many entries of the log in `audit` the witness has signed, as kept there.
fn signed(audit: &Path) -> u64 {
    Reader::open(audit).unwrap().witnessed().unwrap().map_or(0, |(checkpoint, _)| checkpoint.size)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_broker_does_not_start_before_its_witness_has_agreed() {
    let place = tempfile::tempdir().unwrap();
    let (known, address) = witness(&place.path().join("w"), true).await;
    let (_stranger, elsewhere) = witness(&place.path().join("x"), false).await;
    let door = Door::closed().await;
    door.lead(Some(address));
    let mut house = House::prepared(|dir| {
        put_key(dir);
        door.config(&known, true)
    })
    .await;
    house.node.take().unwrap().stop("a test").await;
    let before = key_files(&house.dir.path().join("audit"));

    door.lead(None);
    let refusal = format!("{:#}", house::start(house.dir.path()).await.err().expect("nobody agreed"));
    assert!(refusal.contains("`strict`") && refusal.contains("cannot be asked"), "{refusal}");
    door.lead(Some(elsewhere));
    let refusal = format!("{:#}", house::start(house.dir.path()).await.err().expect("it is not known"));
    assert!(refusal.contains("404") && refusal.contains("key.pub"), "{refusal}");
    assert_eq!(key_files(&house.dir.path().join("audit")), before, "nothing was changed");

    door.lead(Some(address));
    house::start(house.dir.path()).await.unwrap().stop("a test").await;
}

fn key_files(audit: &Path) -> [Vec<u8>; 2] {
    ["checkpoint", "key.pub"].map(|name| fs::read(audit.join(name)).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_not_strict_says_that_it_is_unwitnessed_and_when_that_is_over() {
    let place = tempfile::tempdir().unwrap();
    let (witness, address) = witness(&place.path().join("w"), true).await;
    let door = Door::closed().await;
    let mut house = House::prepared(|dir| {
        put_key(dir);
        door.config(&witness, false)
    })
    .await;
    eventually("the alarm", || has(&house, &["witness_lagging", NAME, "cannot be asked"])).await;
    let audit = house.dir.path().join("audit");
    assert!(!has(&house, &["witness_recovered"]) && signed(&audit) == 0);

    door.lead(Some(address));
    eventually("its end", || has(&house, &["witness_recovered", NAME])).await;
    let log = house.node().services().gate.log().clone();
    eventually("all is signed", || signed(&audit) == log.durable_size()).await;
    house.node.take().unwrap().stop("a test").await;
    let report = audit::verify_witnessed(&audit, key().public(), witness.key()).unwrap();
    assert!(report.witnessed.unwrap().size > 10);
    let alarms = Reader::open(&audit).unwrap().read(0, 10_000).unwrap();
    let alarms = alarms.iter().filter(|(_, entry)| String::from_utf8_lossy(entry).contains("witness_"));
    assert_eq!(alarms.count(), 2, "each is said once");
}

/// A house whose witness is shown another continuation of its log while it runs.
async fn shown_another_history(place: &Path, strict: bool) -> House {
    let (witness, address) = witness(&place.join("w"), true).await;
    let door = Door::closed().await;
    door.lead(Some(address));
    let house = House::prepared(|dir| {
        put_key(dir);
        door.config(&witness, strict)
    })
    .await;
    let url = format!("http://{address}");
    let target = Target { url, key: witness.key().to_string(), ca: None, identity: None };
    let client = Client::new(&target).unwrap();
    let (audit, double) = (house.dir.path().join("audit"), place.join("double"));
    let log = house.node().services().gate.log().clone();
    // The house may record something meanwhile; then the double is not the one that is believed.
    for attempt in 0.. {
        eventually("all is signed", || signed(&audit) == log.durable_size()).await;
        copy(&audit, &double);
        let other = Log::open(&double, key(), Arc::new(SystemClock), Options::default()).unwrap();
        fill(&other, 40).await;
        other.close().await;
        match witness::at_start(&client, &double, &key()).await {
            Ok(_) => break,
            Err(error) => assert!(attempt < 5, "{error}"),
        }
    }
    fill(&log, 1).await;
    eventually("the refusal", || has(&house, &["witness_refused", NAME])).await;
    house
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_broker_stops_when_its_witness_knows_another_history() {
    let place = tempfile::tempdir().unwrap();
    let mut house = shown_another_history(place.path(), true).await;
    let node = house.node.take().unwrap();
    let why = tokio::time::timeout(Duration::from_secs(30), node.log_failed()).await.unwrap();
    assert!(why.contains(NAME) && why.contains("its key is used elsewhere"), "{why}");
    let log = node.services().gate.log().clone();
    assert!(log.append(&house_event()).await.is_err(), "nothing is permitted any more");
    node.stop("a test").await;
    let entries = log.read(0, 10_000).unwrap();
    let last: Vec<String> =
        entries.iter().rev().take(3).map(|(_, e)| String::from_utf8_lossy(e).into_owned()).collect();
    assert!(last.iter().any(|entry| entry.contains("log_stopped") && entry.contains(NAME)), "{last:?}");

    let refusal = format!("{:#}", house::start(house.dir.path()).await.err().expect("it is behind"));
    assert!(refusal.contains("has signed this audit log with"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_not_strict_goes_on_alarmed_and_is_refused_at_the_next_start() {
    let place = tempfile::tempdir().unwrap();
    let mut house = shown_another_history(place.path(), false).await;
    let log = house.node().services().gate.log().clone();
    log.append(&house_event()).await.unwrap();
    assert!(log.failure().is_none());
    house.node.take().unwrap().stop("a test").await;
    let refusal = format!("{:#}", house::start(house.dir.path()).await.err().expect("it is behind"));
    assert!(refusal.contains(NAME), "{refusal}");
}

fn house_event() -> audit::Event {
    let kind = audit::EventKind::SinkRecovered { sink: "s".to_owned() };
    audit::Event::new(model::Clock::now(&SystemClock), kind)
}
