use std::fs;
use std::time::Duration;

use model::{ManualClock, SeededEntropy};

use super::*;
use crate::disk::Storage;
use crate::{EventKind, verify_consistency, verify_inclusion};

fn key() -> LogKey {
    LogKey::generate("sekisho.test/audit", &SeededEntropy::new(1)).unwrap()
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::at(Timestamp::from_secs(1_790_000_000)))
}

fn fast() -> Options {
    Options { checkpoint_every: Duration::from_millis(20), segment_bytes: 8 << 10, reserve_bytes: 4 << 10 }
}

fn open(dir: &Path) -> Log {
    Log::open(dir, key(), clock(), fast()).unwrap()
}

async fn fill(log: &Log, count: u64) {
    let entries = (0..count).map(|i| {
        let log = log.clone();
        tokio::spawn(async move { log.append_entry(format!("entry {i}").into_bytes(), false).await.unwrap() })
    });
    let entries: Vec<_> = entries.collect();
    for entry in entries {
        entry.await.unwrap();
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut before = Vec::new();
    for round in 0..4 {
        let log = open(dir.path());
        assert_eq!(log.durable_size(), before.len() as u64, "round {round}");
        assert_eq!(log.read(0, usize::MAX).unwrap(), before);
        fill(&log, 500).await;
        log.close().await;
        before = log.read(0, usize::MAX).unwrap();
        assert_eq!(log.checkpoint_size(), before.len() as u64);
        assert!(matches!(log.append_entry(vec![], false).await, Err(AppendError::Closed)));
    }
    assert_eq!(before.len(), 2000);
    assert!(before.iter().enumerate().all(|(i, (index, _))| i as u64 == *index));
}

#[tokio::test]
async fn inclusion_and_consistency_hold_over_the_life_of_a_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut heads = Vec::new();
    for count in [1, 255, 1, 300, 1000] {
        let log = open(dir.path());
        fill(&log, count).await;
        log.close().await;
        let head = crate::Checkpoint::open(log.checkpoint().as_bytes(), key().public()).unwrap();
        for (index, entry) in log.read(0, usize::MAX).unwrap() {
            let proof = log.inclusion_proof(index, head.size).unwrap();
            assert!(verify_inclusion(&crate::leaf_hash(&entry), index, head.size, &proof, &head.root));
        }
        heads.push(head);
        for old in &heads {
            let new = &heads[heads.len() - 1];
            let proof = log.consistency_proof(old.size, new.size).unwrap();
            assert!(verify_consistency(old.size, &old.root, new.size, &new.root, &proof));
        }
        assert!(log.inclusion_proof(heads[0].size, heads[0].size).is_err());
        assert!(log.consistency_proof(0, u64::MAX).is_err());
    }
}

#[tokio::test]
async fn a_checkpoint_follows_within_a_second_and_old_files_go() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), key(), clock(), Options::default()).unwrap();
    fill(&log, 300).await;
    tokio::time::timeout(Duration::from_millis(1_000), async {
        while log.checkpoint_size() < 300 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    for _ in 0..3 {
        fill(&log, 1).await;
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    let partial = fs::read_dir(dir.path().join("tile/0/001.p")).unwrap().count();
    assert_eq!(partial, 2, "those of the last two checkpoints");
}

#[tokio::test]
async fn the_write_ahead_log_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for _ in 0..20 {
        fill(&log, 200).await;
    }
    log.close().await;
    assert!(fs::read_dir(dir.path().join("wal")).unwrap().count() <= 2);
    assert_eq!(log.read(0, usize::MAX).unwrap().len(), 4000);
}

#[tokio::test]
async fn two_may_not_have_it_open() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    assert!(matches!(Log::open(dir.path(), key(), clock(), fast()), Err(OpenError::Busy(_))));
    log.close().await;
    let other = LogKey::generate("sekisho.test/audit", &SeededEntropy::new(2)).unwrap();
    assert!(matches!(Log::open(dir.path(), other, clock(), fast()), Err(OpenError::OtherLog { .. })));
}

#[tokio::test]
async fn an_unfinished_write_is_cut_and_anything_else_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    fill(&log, 10).await;
    log.close().await;
    let path = dir.path().join("wal/0000000000000000.wal");
    let good = fs::read(&path).unwrap();
    let batch = crate::wal::encode_batch(10, [&b"never acknowledged"[..]].into_iter());

    for cut in 1..batch.len() {
        fs::write(&path, [&good[..], &batch[..cut]].concat()).unwrap();
        let log = open(dir.path());
        assert_eq!(log.durable_size(), 10);
        log.close().await;
        assert_eq!(fs::read(&path).unwrap(), good);
    }

    let refused = |bytes: &[u8], what: &str| {
        fs::write(&path, bytes).unwrap();
        let error = Log::open(dir.path(), key(), clock(), fast()).err().unwrap().to_string();
        assert!(error.contains(what), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "nothing may be changed");
    };
    refused(&good[..good.len() - 1], "batch");
    refused(&good[..crate::wal::SEGMENT_HEADER], "ends after 0 entries, the checkpoint covers 10");
    let mut bad = [&good[..], &batch[..]].concat();
    bad[good.len() - 3] ^= 1;
    refused(&bad, "check of a batch");
    fs::remove_file(&path).unwrap();
    assert!(Log::open(dir.path(), key(), clock(), fast()).is_err());
    fs::write(&path, &good).unwrap();
    fs::remove_file(dir.path().join("checkpoint")).unwrap();
    assert!(Log::open(dir.path(), key(), clock(), fast()).is_err());
}

/// A file that, from some write on, does not take bytes, or takes them and says that it did not.
struct Failing {
    file: Box<dyn Storage>,
    writes_left: u32,
    how: Fault,
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    NotWritten,
    HalfWritten,
    WrittenButReportedFailed,
}

impl Storage for Failing {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.writes_left > 0 {
            self.writes_left -= 1;
            return self.file.write_at(bytes, offset);
        }
        match self.how {
            Fault::NotWritten => {}
            Fault::HalfWritten => self.file.write_at(&bytes[..bytes.len() / 2], offset)?,
            Fault::WrittenButReportedFailed => self.file.write_at(bytes, offset)?,
        }
        Err(io::Error::from(io::ErrorKind::StorageFull))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }
}

#[tokio::test]
async fn storage_that_fails_closes_the_door_and_loses_nothing_acknowledged() {
    for how in [Fault::NotWritten, Fault::HalfWritten, Fault::WrittenButReportedFailed] {
        let dir = tempfile::tempdir().unwrap();
        let opener: Opener =
            Box::new(move |path| Ok(Box::new(Failing { file: open_file(path)?, writes_left: 5, how })));
        let log = Log::open_with(dir.path(), key(), clock(), fast(), opener).unwrap();
        for i in 0..5 {
            assert_eq!(log.append_entry(vec![i], false).await.unwrap(), u64::from(i));
        }
        for _ in 0..3 {
            assert!(matches!(log.append_entry(vec![9], false).await, Err(AppendError::Failed(_))));
        }
        assert_eq!(log.failed().await.kind(), io::ErrorKind::StorageFull);
        assert_eq!(log.durable_size(), 5);
        log.close().await;

        let log = open(dir.path());
        let there = log.read(0, 100).unwrap();
        assert!(there.len() == 5 || (how == Fault::WrittenButReportedFailed && there.len() == 6));
        assert_eq!(log.append_entry(vec![7], false).await.unwrap(), there.len() as u64);
        log.close().await;
    }
}

#[tokio::test]
async fn a_segment_that_cannot_be_begun_leaves_the_reserve_of_the_one_before() {
    for how in [Fault::NotWritten, Fault::HalfWritten, Fault::WrittenButReportedFailed] {
        let dir = tempfile::tempdir().unwrap();
        let opened = std::sync::atomic::AtomicUsize::new(0);
        let opener: Opener = Box::new(move |path| {
            let file = open_file(path)?;
            let first = opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
            Ok(if first { file } else { Box::new(Failing { file, writes_left: 0, how }) })
        });
        let log = Log::open_with(dir.path(), key(), clock(), fast(), opener).unwrap();
        let mut taken = 0;
        while log.append_entry(vec![b'x'; 500], false).await.is_ok() {
            taken += 1;
        }
        assert!((10..17).contains(&taken), "{taken} entries in a segment of 8 KiB");
        // Behind the word that the log has stopped.
        assert_eq!(log.append_entry(b"closing".to_vec(), true).await.unwrap(), taken + 1);
        log.close().await;
        let wal = fs::read_dir(dir.path().join("wal")).unwrap().count();
        assert_eq!(wal, 1, "what was begun is gone");

        let log = open(dir.path());
        let there = log.read(0, 100).unwrap();
        assert_eq!(there.len() as u64, taken + 2);
        assert!(String::from_utf8_lossy(&there[taken as usize].1).contains("log_stopped"));
        log.close().await;
        crate::verify_dir(dir.path(), key().public()).unwrap();
    }
}

#[tokio::test]
async fn a_segment_that_never_got_its_name_means_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    fill(&log, 10).await;
    log.close().await;
    let batch = crate::wal::encode_batch(10, [&b"never acknowledged"[..]].into_iter());
    let begun = [crate::wal::segment_header(10), batch].concat();
    fs::write(dir.path().join("wal/taken.tmp"), begun).unwrap();
    let log = open(dir.path());
    assert_eq!(log.durable_size(), 10);
    fill(&log, 1).await;
    assert!(!dir.path().join("wal/taken.tmp").exists());
    log.close().await;
    assert_eq!(crate::verify_dir(dir.path(), key().public()).unwrap().entries, 11);
}

/// A disk that takes its time to sync and counts how often it had to.
struct Slow {
    file: Box<dyn Storage>,
    syncs: Arc<std::sync::atomic::AtomicUsize>,
}

impl Storage for Slow {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.syncs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        thread::sleep(Duration::from_millis(20));
        self.file.sync()
    }
}

#[tokio::test]
async fn on_a_slow_disk_those_who_wait_share_one_sync() {
    let dir = tempfile::tempdir().unwrap();
    let syncs = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&syncs);
    let opener: Opener =
        Box::new(move |path| Ok(Box::new(Slow { file: open_file(path)?, syncs: Arc::clone(&counted) })));
    let log = Log::open_with(dir.path(), key(), clock(), fast(), opener).unwrap();
    for _ in 0..3 {
        fill(&log, 64).await;
    }
    log.close().await;
    let syncs = syncs.load(std::sync::atomic::Ordering::Relaxed);
    assert!(syncs <= 12, "{syncs} syncs for 192 entries");
    assert_eq!(open(dir.path()).read(0, usize::MAX).unwrap().len(), 192);
}

#[tokio::test]
async fn no_checkpoints_means_no_appends() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    fill(&log, 1).await;
    // A file where a folder is needed: tiles cannot be written from now on.
    tokio::time::sleep(Duration::from_millis(300)).await;
    fs::remove_dir_all(dir.path().join("tile")).unwrap();
    fs::write(dir.path().join("tile"), "in the way").unwrap();
    fill(&log, 1).await;
    tokio::time::timeout(Duration::from_secs(5), log.failed()).await.unwrap();
    let event = Event::new(
        Timestamp::from_secs(0),
        EventKind::Started { process: "p".to_owned(), version: "1".to_owned() },
    );
    assert!(matches!(log.append(&event).await, Err(AppendError::Failed(_))));
}

#[tokio::test]
async fn who_follows_is_woken_and_released_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let follower = tokio::spawn({
        let log = log.clone();
        async move {
            let first = log.wait_beyond(0).await;
            (first, log.wait_beyond(first).await)
        }
    });
    fill(&log, 1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    log.close().await;
    assert_eq!(follower.await.unwrap(), (1, 1));
}
