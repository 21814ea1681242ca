//! What a log must outlive: full and slow disks, clocks that jump, cut, torn and exchanged files.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use audit::{AppendError, Event, EventKind, Log, OpenError, Options, SessionExit, export, verify_dir};
use model::{Clock, Entropy, ManualClock, SeededEntropy, SessionId, Timestamp};

use super::{event, files, fill, key, open, options};

const HOUR: Duration = Duration::from_secs(3600);

fn closed(number: u64) -> Event {
    let kind = EventKind::SessionClosed {
        exit: SessionExit::Aborted { reason: "the log can no longer record".to_owned() },
        bytes_in: number,
        bytes_out: 0,
        events_first: 0,
        events_last: 0,
        count: 0,
    };
    let session = Some(SessionId::from_name(&format!("s{number}")).unwrap());
    Event { session, ..Event::new(Timestamp::from_secs(1_790_000_000), kind) }
}

fn try_open(dir: &Path, options: Options) -> Result<Log, OpenError> {
    Log::open(dir, key(), Arc::new(ManualClock::at(Timestamp::from_secs(1_790_000_000))), options)
}

/// The kinds of all entries, in order.
fn kinds(log: &Log) -> Vec<String> {
    let entries = log.read(0, usize::MAX).unwrap();
    let kind = |(index, entry): (u64, Vec<u8>)| {
        export("o", index, &entry).unwrap()["metadata"]["event_code"].as_str().unwrap().to_owned()
    };
    entries.into_iter().map(kind).collect()
}

/// A small file system of its own, gone with the value.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path, kib: u64) -> Disk {
        fs::create_dir_all(at).unwrap();
        let options = format!("size={kib}k");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).status();
        assert!(done.unwrap().success(), "mounting needs root");
        Disk(at.to_owned())
    }

    /// Writes until nothing more fits.
    fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.0.join("ballast")).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_stops_the_log_which_says_so_and_records_what_ends_needs_root() {
    let place = tempfile::tempdir().unwrap();
    let disk = Disk::mount(&place.path().join("disk"), 4 << 10);
    let dir = disk.0.join("audit");
    let mut small = options();
    (small.segment_bytes, small.reserve_bytes) = (256 << 10, 64 << 10);

    let log = try_open(&dir, small.clone()).unwrap();
    fill(&log, "before", 100).await;
    disk.fill();
    let mut acknowledged = 100;
    let refusal = loop {
        match log.append(&event(format!("full-{acknowledged}"))).await {
            Ok(index) => {
                assert_eq!(index, acknowledged);
                acknowledged += 1;
                assert!(acknowledged < 100_000, "the disk never got full");
            }
            Err(error) => break error,
        }
    };
    assert!(
        matches!(&refusal, AppendError::Failed(cause) if cause.raw_os_error() == Some(28)
        || cause.kind() == std::io::ErrorKind::StorageFull),
        "{refusal:?}"
    );
    // Sessions are closed and recorded; nothing else is taken.
    for number in 0..40 {
        log.append(&closed(number)).await.unwrap();
        assert!(log.append(&event("more".to_owned())).await.is_err());
    }
    let seen = kinds(&log);
    assert_eq!(seen.len() as u64, acknowledged + 41);
    assert_eq!(seen[acknowledged as usize], "log_stopped");
    assert!(seen[acknowledged as usize + 1..].iter().all(|kind| kind == "session_closed"));
    let before = log.read(0, usize::MAX).unwrap();
    log.close().await;

    // Still no room: it is not opened, and not changed.
    disk.fill();
    // Files that were being prepared mean nothing and may go.
    let whole = |p: &&PathBuf| p.extension().is_none_or(|e| e != "tmp");
    let copy: Vec<_> = files(&dir).iter().filter(whole).map(|p| (p.clone(), fs::read(p).unwrap())).collect();
    let error = try_open(&dir, small.clone()).err().expect("there is no room").to_string();
    assert!(error.contains("space"), "{error}");
    for (path, bytes) in copy {
        assert_eq!(fs::read(&path).unwrap(), bytes, "{}", path.display());
    }

    disk.free();
    let log = try_open(&dir, small).unwrap();
    assert_eq!(log.read(0, usize::MAX).unwrap(), before);
    assert_eq!(log.append(&event("again".to_owned())).await.unwrap(), before.len() as u64);
    log.close().await;
    let report = verify_dir(&dir, key().public()).unwrap();
    assert_eq!((report.entries, report.size), (before.len() as u64 + 1, before.len() as u64 + 1));
}

#[tokio::test]
async fn without_space_for_the_next_segment_only_what_ends_is_taken_and_only_as_much_as_fits() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).close().await;
    // In the way of the next segment.
    fs::create_dir(dir.path().join("wal/spare.tmp")).unwrap();
    let log = open(dir.path());
    tokio::time::timeout(Duration::from_secs(10), log.failed()).await.unwrap();
    assert!(matches!(log.append(&event("no".to_owned())).await, Err(AppendError::Failed(_))));
    let mut taken = 0;
    while log.append(&closed(taken)).await.is_ok() {
        taken += 1;
        assert!(taken < 1000, "a reserve without end");
    }
    // 16 KiB of an empty segment and 4 KiB of reserve.
    assert!((20..60).contains(&taken), "{taken}");
    let before = log.read(0, usize::MAX).unwrap();
    assert_eq!(kinds(&log)[0], "log_stopped");
    log.close().await;

    fs::remove_dir(dir.path().join("wal/spare.tmp")).unwrap();
    let log = open(dir.path());
    assert_eq!(log.read(0, usize::MAX).unwrap(), before);
    log.close().await;
    assert_eq!(verify_dir(dir.path(), key().public()).unwrap().size, taken + 1);
}

#[tokio::test]
async fn who_writes_faster_than_tiles_are_published_waits_and_the_disk_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let mut rare = options();
    rare.checkpoint_every = HOUR;
    let log = try_open(dir.path(), rare).unwrap();
    for round in 0..30 {
        fill(&log, &format!("r{round}"), 200).await;
        let segments = fs::read_dir(dir.path().join("wal")).unwrap().count();
        assert!(segments <= 18, "{segments} files of the write-ahead log");
    }
    assert!(log.checkpoint_size() > 0, "nothing was published early");
    log.close().await;
    assert_eq!(verify_dir(dir.path(), key().public()).unwrap().size, 6000);
}

#[tokio::test]
async fn a_clock_that_jumps_changes_the_times_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(Timestamp::from_secs(1_790_000_000)));
    for jump in [1_790_000_000, 5, 4_000_000_000, 1_700_000_000] {
        clock.set(Timestamp::from_secs(jump));
        let log = Log::open(dir.path(), key(), clock.clone(), options()).unwrap();
        let first = log.durable_size();
        for more in 0..3 {
            clock.set(Timestamp::from_secs(jump - more));
            let kind = EventKind::Stopped { process: "p".to_owned(), reason: "r".to_owned() };
            let index = log.append(&Event::new(clock.now(), kind)).await.unwrap();
            assert_eq!(index, first + more as u64);
        }
        log.close().await;
        verify_dir(dir.path(), key().public()).unwrap();
    }
    let log = open(dir.path());
    let times: Vec<i64> = log
        .read(0, 100)
        .unwrap()
        .iter()
        .map(|(i, e)| export("o", *i, e).unwrap()["time"].as_i64().unwrap() / 1000)
        .collect();
    assert_eq!(times.len(), 12);
    assert_eq!(times[3..9], [5, 4, 3, 4_000_000_000, 3_999_999_999, 3_999_999_998]);
    log.close().await;
}

/// A log of six entries under a checkpoint and six more, each in a batch of its own, as it lies on
/// disk when the process is gone in this moment.
async fn interrupted(dir: &Path) -> PathBuf {
    let log = open(&dir.join("log"));
    for i in 0..6 {
        log.append(&event(format!("a{i}"))).await.unwrap();
    }
    log.close().await;
    let mut rare = options();
    rare.checkpoint_every = HOUR;
    let log = try_open(&dir.join("log"), rare).unwrap();
    for i in 0..6 {
        log.append(&event(format!("b{i}"))).await.unwrap();
    }
    copy(&dir.join("log"), &dir.join("copy"));
    log.close().await;
    dir.join("copy")
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    for path in files(from) {
        let target = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&path, &target).unwrap();
    }
}

/// Where each batch ends.
fn ends(wal: &[u8]) -> Vec<usize> {
    let mut ends = vec![32];
    while let Ok(batch) = audit::parse_batch(&wal[ends[ends.len() - 1]..]) {
        ends.push(ends[ends.len() - 1] + batch.len);
    }
    ends
}

#[tokio::test]
async fn a_tail_cut_at_any_byte_loses_no_whole_batch_and_nothing_a_checkpoint_promised() {
    let place = tempfile::tempdir().unwrap();
    let dir = interrupted(place.path()).await;
    let path = dir.join("wal/0000000000000000.wal");
    let good = fs::read(&path).unwrap();
    let ends = ends(&good);
    assert_eq!(ends.len(), 13);
    let work = place.path().join("work");
    let (mut opened, mut refused) = (0, 0);
    for len in 0..=ends[12] + 3 {
        // As a shorter file, and as one whose end was never written.
        for pad in [0, good.len() - len] {
            // Whole logs are slow to open; in the middle of a batch a few places will do.
            let near = ends.iter().any(|end| len.abs_diff(*end) < 3) || len < 34;
            if !near && (len % 41 != 0 || pad == 0) {
                continue;
            }
            copy(&dir, &work);
            let bytes = [&good[..len], &vec![0; pad]].concat();
            fs::write(work.join("wal/0000000000000000.wal"), &bytes).unwrap();
            let whole = ends.iter().filter(|end| **end <= len).count() as u64;
            match try_open(&work, options()) {
                Ok(log) => {
                    assert!(whole >= 7, "cut at {len}: the checkpoint covers 6 entries");
                    assert_eq!(log.durable_size(), whole - 1, "cut at {len}");
                    log.append(&event("next".to_owned())).await.unwrap();
                    log.close().await;
                    verify_dir(&work, key().public()).unwrap();
                    opened += 1;
                }
                Err(error) => {
                    assert!(whole < 7, "cut at {len}: {error}");
                    assert!(verify_dir(&work, key().public()).is_err());
                    refused += 1;
                }
            }
        }
    }
    assert!(opened > 50 && refused > 50, "{opened} {refused}");
}

#[tokio::test]
async fn a_write_of_which_only_some_sectors_arrived_is_cut_off() {
    let place = tempfile::tempdir().unwrap();
    let dir = interrupted(place.path()).await;
    let path = dir.join("wal/0000000000000000.wal");
    let good = fs::read(&path).unwrap();
    let at = ends(&good)[12];
    // A batch over several sectors, made by the log itself in another folder.
    let donor = place.path().join("donor");
    copy(&dir, &donor);
    let mut rare = options();
    rare.checkpoint_every = HOUR;
    let log = try_open(&donor, rare).unwrap();
    log.append(&event("x".repeat(3000))).await.unwrap();
    let whole = fs::read(donor.join("wal/0000000000000000.wal")).unwrap();
    log.close().await;

    let (entropy, work) = (SeededEntropy::new(9), place.path().join("work"));
    for round in 0..40 {
        let [kept] = entropy.array::<1>().unwrap();
        let mut torn = whole.clone();
        let (mut missing, mut sector) = (false, at / 512 * 512);
        for bit in 0..8 {
            let range = sector.max(at)..(sector + 512).min(torn.len());
            if kept & (1 << bit) == 0 && !range.is_empty() {
                missing |= torn[range.clone()].iter().any(|byte| *byte != 0);
                torn[range].fill(0);
            }
            sector += 512;
        }
        copy(&dir, &work);
        fs::write(work.join("wal/0000000000000000.wal"), &torn).unwrap();
        let log = try_open(&work, options()).unwrap();
        assert_eq!(log.durable_size(), if missing { 12 } else { 13 }, "round {round}, sectors {kept:08b}");
        log.append(&event("next".to_owned())).await.unwrap();
        log.close().await;
        verify_dir(&work, key().public()).unwrap();
    }
}

#[tokio::test]
async fn older_copies_of_single_parts_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (live, old, work) = (dir.path().join("log"), dir.path().join("old"), dir.path().join("work"));
    let log = open(&live);
    fill(&log, "old", 700).await;
    log.close().await;
    copy(&live, &old);
    let log = open(&live);
    fill(&log, "new", 700).await;
    log.close().await;
    for part in ["wal", "tile", "tile/0", "tile/1", "tile/entries"] {
        copy(&live, &work);
        fs::remove_dir_all(work.join(part)).unwrap();
        copy(&old.join(part), &work.join(part));
        assert!(verify_dir(&work, key().public()).is_err(), "{part}");
        // The full tiles of a log are read when it is verified; what opening needs is missed at once.
        assert!(try_open(&work, options()).is_err(), "{part}");
    }
}

/// Counts what is allocated and not given back.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps to the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps to the contract, which is the same.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// `audit/benches/resident.rs` does the same with ten million events, and looks at the whole process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_flat_over_many_events() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let clock = Arc::new(ManualClock::at(Timestamp::from_secs(1_790_000_000)));
    let log = Log::open(dir.path(), key(), clock, Options::default()).unwrap();
    let (parts, writers, each) = (12, 512, 10);
    let mut samples = Vec::new();
    for part in 0..parts {
        let writing: Vec<_> = (0..writers)
            .map(|writer| {
                let log = log.clone();
                tokio::spawn(async move {
                    for i in 0..each {
                        log.append(&event(format!("{part}-{writer}-{i}"))).await.unwrap();
                    }
                })
            })
            .collect();
        for writing in writing {
            writing.await.unwrap();
        }
        // Nothing is under way when memory is looked at.
        while log.checkpoint_size() < log.durable_size() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        samples.push(LIVE.load(Ordering::Relaxed));
    }
    let size = log.durable_size();
    log.close().await;
    assert_eq!(size, parts * writers * each);
    // Buffers grow in the first parts. After that, 16 bytes kept of each of 40 960 events would show.
    let grown = samples[11].saturating_sub(samples[3]);
    assert!(grown < 640 << 10, "{grown} bytes of {samples:?}");
    let before = LIVE.load(Ordering::Relaxed);
    assert_eq!(verify_dir(dir.path(), key().public()).unwrap().size, size);
    let kept = LIVE.load(Ordering::Relaxed).saturating_sub(before);
    assert!(kept < 64 << 10, "verifying kept {kept} bytes");
}
