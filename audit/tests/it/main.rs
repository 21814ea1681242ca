//! A log from outside: damage is found, a killed writer loses nothing, readers need no writer.

mod strangers;
mod survival;
mod witnessed;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use audit::{
    Change, Checkpoint, Event, EventKind, Log, LogKey, Options, Proof, Reader, RecordKind, leaf_hash,
    verify_consistency, verify_dir, verify_inclusion,
};
use model::{Entropy, ManualClock, SeededEntropy, Timestamp};

fn key() -> LogKey {
    LogKey::generate("sekisho.test/audit", &SeededEntropy::new(1)).unwrap()
}

fn options() -> Options {
    let mut options = Options::default();
    options.checkpoint_every = Duration::from_millis(15);
    options.segment_bytes = 16 << 10;
    options.reserve_bytes = 4 << 10;
    options
}

fn open(dir: &Path) -> Log {
    let clock = Arc::new(ManualClock::at(Timestamp::from_secs(1_790_000_000)));
    Log::open(dir, key(), clock, options()).unwrap()
}

fn event(id: String) -> Event {
    let kind = EventKind::RecordChanged { record: RecordKind::Study, id, change: Change::Created };
    Event::new(Timestamp::from_secs(1_790_000_000), kind)
}

async fn fill(log: &Log, what: &str, count: usize) {
    let tasks: Vec<_> = (0..count)
        .map(|i| {
            let (log, event) = (log.clone(), event(format!("{what}-{i}")));
            tokio::spawn(async move { log.append(&event).await.unwrap() })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Flips a bit in each byte that `pick(length, place)` chooses and wants every one found and named.
fn flip_bytes(dir: &Path, pick: impl Fn(usize, usize) -> bool) -> usize {
    let clean = verify_dir(dir, key().public()).unwrap();
    let total: u64 = files(dir).iter().map(|p| fs::metadata(p).unwrap().len()).sum();
    assert_eq!(clean.bytes, total, "every byte was read");
    let mut flipped = 0;
    for path in files(dir) {
        let good = fs::read(&path).unwrap();
        let name = path.strip_prefix(dir).unwrap().display().to_string();
        for at in (0..good.len()).filter(|at| pick(good.len(), *at)) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(&path, &bad).unwrap();
            let error = verify_dir(dir, key().public()).expect_err(&format!("{name} byte {at}"));
            let what = error.to_string();
            let in_wal = name.starts_with("wal/") && what.contains("wal");
            assert!(in_wal || what.contains(&name), "{name} byte {at}: {what}");
            flipped += 1;
        }
        fs::write(&path, &good).unwrap();
    }
    assert_eq!(verify_dir(dir, key().public()), Ok(clean));
    flipped
}

#[tokio::test]
async fn a_flipped_byte_anywhere_is_found_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    fill(&log, "small", 9).await;
    log.close().await;
    let flipped = flip_bytes(dir.path(), |_, _| true);
    assert!(flipped > 8_000, "{flipped}");

    // More than one tile, and checkpoints in between, which leave partial tiles of two sizes.
    let log = open(dir.path());
    for round in 0..4 {
        fill(&log, &format!("s{round}"), 67).await;
        tokio::time::sleep(Duration::from_millis(80)).await;
    }
    log.close().await;
    let flipped = flip_bytes(dir.path(), |len, at| at < 40 || at + 40 > len || at % 211 == 0);
    assert!(flipped > 1_000, "{flipped}");
}

#[tokio::test]
async fn a_flipped_byte_in_the_space_taken_in_advance_is_found_in_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    fill(&log, "small", 9).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let copy = tempfile::tempdir().unwrap();
    for path in files(dir.path()) {
        let to = copy.path().join(path.strip_prefix(dir.path()).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(path, to).unwrap();
    }
    log.close().await;
    assert!(verify_dir(copy.path(), key().public()).is_ok());
    let mut segments = files(&copy.path().join("wal"));
    segments.retain(|path| path.extension().is_some_and(|kind| kind == "wal"));
    segments.sort();
    let segment = segments.pop().unwrap();
    let good = fs::read(&segment).unwrap();
    let used = good.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    assert!(good.len() > used + 1000, "there is space taken in advance");
    for at in [used, used + 1, used + 40, used + 500, good.len() - 1] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        fs::write(&segment, bytes).unwrap();
        assert!(verify_dir(copy.path(), key().public()).is_err(), "byte {at} of {}", good.len());
    }
    fs::write(&segment, &good).unwrap();
    // The next segment lies there already.
    let spare = copy.path().join("wal").join("spare.tmp");
    let mut bytes = fs::read(&spare).unwrap();
    let at = bytes.len() - 1;
    bytes[at] ^= 1;
    fs::write(&spare, bytes).unwrap();
    let error = verify_dir(copy.path(), key().public()).unwrap_err().to_string();
    assert!(error.contains("spare"), "{error}");
}

#[tokio::test]
async fn a_missing_or_a_foreign_file_is_found_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    fill(&log, "s", 600).await;
    log.close().await;
    // Of the partial ones only those of the last checkpoint are needed.
    let needed = |p: &&PathBuf| {
        let name = p.display().to_string();
        let last = ["000.p/2", "002.p/88"].iter().any(|end| name.ends_with(end));
        !name.ends_with("lock") && (last || !name.contains(".p/"))
    };
    for path in files(dir.path()).iter().filter(needed) {
        let good = fs::read(path).unwrap();
        fs::remove_file(path).unwrap();
        let error = verify_dir(dir.path(), key().public()).expect_err(&path.display().to_string());
        let name = path.strip_prefix(dir.path()).unwrap().display().to_string();
        assert!(name.starts_with("wal") || error.what.contains(&name), "{name}: {error}");
        fs::write(path, good).unwrap();
    }
    for name in ["tile/0/009", "tile/0/000.p/8", "tile/notes.txt", "wal/0000000000009999.wal"] {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, [0; 256]).unwrap();
        let error = verify_dir(dir.path(), key().public()).expect_err(name);
        assert!(error.what.contains(name), "{error}");
        fs::remove_file(&path).unwrap();
    }
    let other = LogKey::generate("sekisho.test/audit", &SeededEntropy::new(2)).unwrap();
    assert!(verify_dir(dir.path(), other.public()).is_err());
    assert!(verify_dir(dir.path(), key().public()).is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_and_verifiers_work_while_the_log_grows() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let writer = tokio::spawn({
        let log = log.clone();
        async move {
            for round in 0..40 {
                fill(&log, &format!("r{round}"), 50).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    let reader = Reader::open(dir.path()).unwrap();
    let (mut seen, mut verified, mut last) = (0, 0, None::<Checkpoint>);
    while !writer.is_finished() || seen < 2000 {
        let entries = reader.read(seen, 300).unwrap();
        assert!(entries.iter().zip(seen..).all(|((index, _), expected)| *index == expected));
        seen += entries.len() as u64;
        if let Some((index, entry)) = entries.last() {
            let proof = reader.proof(*index).unwrap();
            assert_eq!(&proof.entry, entry);
            let proof = Proof::parse(proof.to_string().as_bytes()).unwrap();
            proof.verify(key().public()).unwrap();
        }
        if let Some(last) = &last {
            let (new, hashes) = reader.consistency_proof(last.size).unwrap();
            assert!(verify_consistency(last.size, &last.root, new.size, &new.root, &hashes));
        }
        last = Some(reader.checkpoint().unwrap().0);
        let report = verify_dir(dir.path(), key().public()).unwrap();
        assert!(report.live && report.entries >= report.size);
        verified += 1;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    assert!(verified > 5, "{verified}");
    writer.await.unwrap();
    log.close().await;
    assert!(reader.read(seen, 1).unwrap().is_empty());
    assert!(reader.proof(seen).is_err());
    let (head, _) = reader.checkpoint().unwrap();
    let hashes = log.inclusion_proof(3, head.size).unwrap();
    assert!(verify_inclusion(&leaf_hash(&log.read(3, 1).unwrap()[0].1), 3, head.size, &hashes, &head.root));
}

const CHILD_DIR: &str = "SEKISHO_TEST_AUDIT_DIR";

/// Not a test of its own: the process that the next test starts and kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by another test, as a process to kill"]
async fn child_that_appends_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let log = open(Path::new(&dir));
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let log = log.clone();
            tokio::spawn(async move {
                for i in 0.. {
                    let event = event(format!("{writer}-{i}"));
                    let index = log.append(&event).await.unwrap();
                    let hash: String =
                        leaf_hash(&event.to_entry()).iter().map(|b| format!("{b:02x}")).collect();
                    writeln!(std::io::stdout().lock(), "ack {index} {hash}").unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn a_killed_writer_loses_nothing_it_acknowledged() {
    let entropy = SeededEntropy::new(42);
    let mut dir = tempfile::tempdir().unwrap();
    let (mut acknowledged, mut kills_with_acks) = (Vec::new(), 0);
    for round in 0..40 {
        // Some rounds kill a log that is only just beginning.
        let beginning = round % 4 == 3;
        if beginning {
            dir = tempfile::tempdir().unwrap();
            acknowledged.clear();
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_appends_until_it_is_killed", "--ignored", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let (first, begun) = std::sync::mpsc::channel();
        let reading = std::thread::spawn(move || {
            let mut acks = Vec::new();
            for line in BufReader::new(stdout).lines() {
                let line = line.unwrap_or_default();
                let mut words = line.split(' ');
                if let (Some("ack"), Some(index), Some(hash), None) =
                    (words.next(), words.next(), words.next(), words.next())
                    && hash.len() == 64
                {
                    acks.push((index.parse::<u64>().unwrap(), hash.to_owned()));
                    let _ = first.send(());
                }
            }
            acks
        });
        let [random] = entropy.array::<1>().unwrap();
        let after = if beginning {
            u64::from(random) / 10
        } else {
            begun.recv_timeout(Duration::from_secs(30)).unwrap();
            u64::from(random) / 2
        };
        tokio::time::sleep(Duration::from_millis(after)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let acks = reading.join().unwrap();
        kills_with_acks += usize::from(!acks.is_empty());
        acknowledged.extend(acks);

        if dir.path().join("wal").exists() {
            let report = verify_dir(dir.path(), key().public());
            // A kill in the first moments may come before the first segment has its name.
            let begun = fs::read_dir(dir.path().join("wal")).unwrap().count() > 0;
            assert!(report.is_ok() || !begun, "round {round}: {report:?}");
        }
        let log = open(dir.path());
        let entries = log.read(0, usize::MAX).unwrap();
        for (index, hash) in &acknowledged {
            let entry =
                entries.get(*index as usize).unwrap_or_else(|| panic!("round {round}: {index} is lost"));
            let found: String = leaf_hash(&entry.1).iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(&found, hash, "round {round}: entry {index}");
        }
        log.close().await;
        let report = verify_dir(dir.path(), key().public()).unwrap();
        assert_eq!(report.entries, entries.len() as u64);
    }
    assert!(kills_with_acks >= 30, "{kills_with_acks}");
}
