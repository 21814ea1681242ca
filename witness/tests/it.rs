//! A log and its witness over real sockets, and the witness as a process to kill.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use audit::{Checkpoint, Event, EventKind, Log, LogKey, Options, Reader, WitnessPublicKey};
use model::{Entropy, ManualClock, SeededEntropy, Timestamp};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use witness::protocol::AddCheckpoint;
use witness::{Answer, CheckError, Client, News, Target, Witness, acceptor, at_start, follow, serve};

const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);

fn key() -> LogKey {
    LogKey::generate("sekisho.test/audit", &SeededEntropy::new(1)).unwrap()
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(NOW))
}

fn open(dir: &Path) -> Log {
    let mut options = Options::default();
    options.checkpoint_every = Duration::from_millis(1);
    (options.segment_bytes, options.reserve_bytes) = (64 << 10, 4 << 10);
    Log::open(dir, key(), clock(), options).unwrap()
}

async fn fill(log: &Log, what: &str, count: usize) {
    for i in 0..count {
        let kind = EventKind::Stopped { process: "p".to_owned(), reason: format!("{what}-{i}") };
        log.append(&Event::new(NOW, kind)).await.unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { fs::copy(&path, &target).map(drop).unwrap() }
    }
}

fn client(address: &str, key: &WitnessPublicKey) -> Client {
    let url = format!("http://{address}");
    Client::new(&Target { url, key: key.to_string(), ca: None, identity: None }).unwrap()
}

/// A witness in this process, in `dir`.
async fn witness(dir: &Path) -> (Client, Arc<Witness>) {
    let witness =
        Witness::open(dir, "witness.test/w", &[key().public().clone()], &SeededEntropy::new(2)).unwrap();
    let witness = Arc::new(witness);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let client = client(&address, witness.key());
    tokio::spawn(serve(Arc::clone(&witness), clock(), listener, None));
    (client, witness)
}

#[tokio::test]
async fn each_checkpoint_is_signed_and_kept_beside_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (client, witness) = witness(&dir.path().join("witness")).await;
    let folder = dir.path().join("audit");
    assert_eq!(at_start(&client, &folder, &key()).await.unwrap().size, 0);
    let log = open(&folder);
    let (told, mut news) = mpsc::channel(8);
    let following = {
        let log = log.clone();
        tokio::spawn(async move { follow(&client, &log, 0, told).await })
    };
    for round in 0..3 {
        fill(&log, &format!("r{round}"), 100).await;
        while !matches!(news.recv().await.unwrap(), News::Signed(size) if size == (round + 1) * 100) {}
    }
    log.close().await;
    let (checkpoint, note) = Reader::open(&folder).unwrap().witnessed().unwrap().unwrap();
    assert_eq!(checkpoint.size, 300);
    let (_, lines) = note.split_once("\n\n").unwrap();
    assert_eq!(witness.key().open(note.as_bytes(), lines).unwrap().at, NOW);
    drop(news);
    following.await.unwrap();
}

#[tokio::test]
async fn a_folder_set_back_whole_is_refused_thanks_to_the_witness() {
    let dir = tempfile::tempdir().unwrap();
    let (client, _) = witness(&dir.path().join("witness")).await;
    let (folder, old) = (dir.path().join("audit"), dir.path().join("old"));
    let log = open(&folder);
    fill(&log, "a", 70).await;
    log.close().await;
    assert_eq!(at_start(&client, &folder, &key()).await.unwrap().size, 70);
    copy(&folder, &old);
    let log = open(&folder);
    fill(&log, "b", 300).await;
    log.close().await;
    assert_eq!(at_start(&client, &folder, &key()).await.unwrap().size, 370);

    // By itself the old copy is whole: nothing but the witness tells.
    audit::verify_dir(&old, key().public()).unwrap();
    let refused = at_start(&client, &old, &key()).await.unwrap_err();
    assert!(matches!(&refused, CheckError::Behind { signed: 370, here: 70, .. }), "{refused}");
    assert!(refused.is_fault_of_the_log() && refused.to_string().contains("older copy"));
    // So is the folder taken away, with a log to begin anew.
    let gone = at_start(&client, &dir.path().join("gone"), &key()).await.unwrap_err();
    assert!(matches!(gone, CheckError::Behind { signed: 370, here: 0, .. }));
    // And another history that has grown past what was signed.
    let log = open(&old);
    fill(&log, "other", 400).await;
    log.close().await;
    let refused = at_start(&client, &old, &key()).await.unwrap_err();
    assert!(matches!(&refused, CheckError::Split { reason, .. } if reason.contains("422")), "{refused}");
    // The true one goes on.
    assert_eq!(at_start(&client, &folder, &key()).await.unwrap().size, 370);
}

#[tokio::test]
async fn two_views_of_one_size_are_refused_with_409_and_the_log_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (client, witness) = witness(&dir.path().join("witness")).await;
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    for (folder, what) in [(&one, "one"), (&two, "two")] {
        let log = open(folder);
        fill(&log, what, 50).await;
        log.close().await;
    }
    at_start(&client, &one, &key()).await.unwrap();
    let note = Reader::open(&two).unwrap().checkpoint().unwrap().1;
    let ask = |old, note: &str| AddCheckpoint { old, proof: Vec::new(), note: note.to_owned() };
    let answer = client.add_checkpoint(&ask(50, &note)).await.unwrap();
    assert!(matches!(answer, Answer::Refused { status: 409, .. }), "{answer:?}");
    assert_eq!(client.add_checkpoint(&ask(0, &note)).await.unwrap(), Answer::OtherSize(50));
    assert_eq!(
        witness.last(&data_encoding::HEXLOWER.encode(&sha(b"sekisho.test/audit"))).unwrap(),
        Reader::open(&one).unwrap().checkpoint().unwrap().1
    );

    // A log that runs is told as well, and not asked for any more.
    let log = open(&two);
    let (told, mut news) = mpsc::channel(8);
    fill(&log, "more", 1).await;
    follow(&client, &log, 0, told).await;
    let News::Refused(refused) = news.recv().await.unwrap() else { panic!("not refused") };
    assert!(matches!(refused, CheckError::Split { .. }), "{refused}");
    log.close().await;
}

fn sha(bytes: &[u8]) -> Vec<u8> {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).to_vec()
}

#[tokio::test]
async fn a_witness_that_lies_or_is_gone_is_no_fault_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("audit");
    let log = open(&folder);
    fill(&log, "a", 5).await;
    log.close().await;
    // Signed by another key than the one that is configured.
    let other = Witness::open(
        &dir.path().join("w"),
        "witness.test/w",
        &[key().public().clone()],
        &SeededEntropy::new(3),
    );
    let other = Arc::new(other.unwrap());
    let expected =
        Witness::open(&dir.path().join("x"), "witness.test/w", &[], &SeededEntropy::new(4)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(serve(other, clock(), listener, None));
    let client = client(&address, expected.key());
    let error = at_start(&client, &folder, &key()).await.unwrap_err();
    assert!(matches!(&error, CheckError::Unreachable { .. }) && !error.is_fault_of_the_log(), "{error}");
    serving.abort();
    let _ = serving.await;
    let error = at_start(&client, &folder, &key()).await.unwrap_err();
    assert!(matches!(&error, CheckError::Unreachable { .. }) && !error.is_fault_of_the_log(), "{error}");
}

#[tokio::test]
async fn an_unknown_log_is_told_what_to_do_and_foreign_requests_are_refused() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let dir = tempfile::tempdir().unwrap();
    let witness = Witness::open(dir.path(), "witness.test/w", &[], &SeededEntropy::new(2)).unwrap();
    let witness = Arc::new(witness);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let client = client(&address, witness.key());
    tokio::spawn(serve(witness, clock(), listener, None));
    let error = at_start(&client, &dir.path().join("none"), &key()).await.unwrap_err();
    assert!(matches!(&error, CheckError::NotServed { status: 404, .. }), "{error}");
    let huge = "x".repeat(200_000);
    for (head, body, status) in [
        ("POST /add-checkpoint", "nothing", "400"),
        ("POST /add-checkpoint", huge.as_str(), "413"),
        ("GET /add-checkpoint", "", "405"),
        ("GET /00/checkpoint", "", "404"),
        ("GET /", "", "404"),
    ] {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let request = format!(
            "{head} HTTP/1.1\r\nhost: w\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{head}: {answer}");
    }
}

#[tokio::test]
async fn under_mutual_tls_only_those_with_a_certificate_are_heard() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    fs::write(at("ca.pem"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    for name in ["localhost", "log"] {
        let leaf_key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        fs::write(at(&format!("{name}.pem")), leaf.signed_by(&leaf_key, &issuer).unwrap().pem()).unwrap();
        fs::write(at(&format!("{name}.key")), leaf_key.serialize_pem()).unwrap();
    }
    let witness =
        Witness::open(&at("w"), "witness.test/w", &[key().public().clone()], &SeededEntropy::new(2));
    let witness = Arc::new(witness.unwrap());
    let tls = acceptor(&at("localhost.pem"), &at("localhost.key"), Some(&at("ca.pem"))).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let public = witness.key().to_string();
    tokio::spawn(serve(witness, clock(), listener, Some(tls)));
    let ask = |identity: Option<(PathBuf, PathBuf)>| {
        let target = Target { url: url.clone(), key: public.clone(), ca: Some(at("ca.pem")), identity };
        let client = Client::new(&target).unwrap();
        let folder = at("none");
        async move { at_start(&client, &folder, &key()).await }
    };
    assert_eq!(ask(Some((at("log.pem"), at("log.key")))).await.unwrap().size, 0);
    assert!(matches!(ask(None).await, Err(CheckError::Unreachable { .. })));
}

/// The program, its address and its key.
fn start(dir: &Path) -> (Child, String, WitnessPublicKey) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sekisho-witness"))
        .arg("--dir")
        .arg(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let mut words = line.split_whitespace().filter_map(|word| word.split_once('='));
    let (Some((_, address)), Some((_, key))) = (words.next(), words.next()) else { panic!("{line:?}") };
    (child, address.to_owned(), key.parse().unwrap())
}

/// One history: a checkpoint at each size from `from` on.
struct History {
    log: Log,
    notes: Vec<(u64, String)>,
}

impl History {
    async fn grow(dir: &Path, what: &str, count: usize) -> History {
        let log = open(dir);
        let mut notes = Vec::new();
        for i in 0..count {
            fill(&log, &format!("{what}{i}"), 1).await;
            while log.checkpoint_size() < log.durable_size() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            notes.push((log.checkpoint_size(), log.checkpoint()));
        }
        History { log, notes }
    }

    fn request(&self, old: u64, at: usize) -> AddCheckpoint {
        let (size, note) = &self.notes[at];
        let proof = self.log.consistency_proof(old.min(*size), *size).unwrap();
        AddCheckpoint { old, proof, note: note.clone() }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_witness_never_signs_two_histories() {
    let dir = tempfile::tempdir().unwrap();
    let (left, right, home) = (dir.path().join("l"), dir.path().join("r"), dir.path().join("w"));
    let log = open(&left);
    fill(&log, "common", 20).await;
    log.close().await;
    copy(&left, &right);
    let histories = [History::grow(&left, "left", 60).await, History::grow(&right, "right", 60).await];
    fs::create_dir_all(&home).unwrap();
    let config =
        format!("name = \"witness.test/w\"\nlisten = \"127.0.0.1:0\"\nlogs = [\"{}\"]\n", key().public());
    fs::write(home.join("config.toml"), config).unwrap();

    let entropy = SeededEntropy::new(11);
    let mut signed: Vec<(u64, audit::Hash)> = Vec::new();
    let (mut refused, mut broken) = (0, 0);
    let mut first_key = None;
    for round in 0..25_u64 {
        let (mut child, address, key) = start(&home);
        assert_eq!(first_key.get_or_insert_with(|| key.clone()), &key, "the key changed");
        let client = client(&address, &key);
        let [wait, mut dice] = entropy.array::<2>().unwrap();
        let killer = tokio::task::spawn_blocking(move || {
            std::thread::sleep(Duration::from_millis(u64::from(wait) / 3));
            child.kill().unwrap();
            child.wait().unwrap();
        });
        let mut known = 0;
        loop {
            dice = dice.wrapping_mul(37).wrapping_add(11);
            let history = &histories[usize::from(dice >> 5) % 2];
            let at = history.notes.iter().position(|(size, _)| *size >= known).unwrap_or(59);
            let at = (at + usize::from(dice % 3)).min(59);
            match client.add_checkpoint(&history.request(known, at)).await {
                Ok(Answer::Signed(_)) => {
                    let checkpoint = Checkpoint::parse_unverified(history.notes[at].1.as_bytes()).unwrap();
                    known = checkpoint.size;
                    signed.push((checkpoint.size, checkpoint.root));
                }
                Ok(Answer::OtherSize(size)) => known = size,
                Ok(Answer::Refused { status, .. }) => {
                    assert!(matches!(status, 409 | 422), "round {round}: {status}");
                    refused += 1;
                }
                Err(_) => {
                    broken += 1;
                    break;
                }
            }
        }
        killer.await.unwrap();
    }
    // Never back, and beyond the common beginning all of one history.
    assert!(signed.windows(2).all(|pair| pair[0].0 <= pair[1].0), "{signed:?}");
    let of = |history: &History| -> BTreeSet<(u64, audit::Hash)> {
        let checkpoints =
            history.notes.iter().map(|(_, n)| Checkpoint::parse_unverified(n.as_bytes()).unwrap());
        checkpoints.map(|c| (c.size, c.root)).collect()
    };
    let kept: Vec<bool> =
        histories.iter().map(|history| signed.iter().all(|one| of(history).contains(one))).collect();
    assert!(kept[0] != kept[1], "{kept:?} of {} signed", signed.len());
    assert!(signed.len() > 40 && refused > 40 && broken == 25, "{} {refused} {broken}", signed.len());
    for history in histories {
        history.log.close().await;
    }
}
