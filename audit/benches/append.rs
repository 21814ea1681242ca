//! What the log takes and how long one waits for it, against peers in the same folder and the same
//! run: SQLite with a durable commit for each record, and a file that is synced after each record.
//!
//! Two loads. With 64 writers that append as fast as they are answered, the rate counts, and waiting
//! is 64 divided by it. With 64 writers that together append 20 000 entries a second, the wait counts.
//! Its measure is what the disk takes for one entry that is appended to a file and synced with nobody
//! else at work: after a pause, since so the log's batches come, and a disk that is never left alone
//! answers faster (that is told beside it). Disks have their moods, and machines that are shared have
//! more of them, so both are measured in turns with the load, a slice of each.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use audit::{Event, EventKind, Log, LogKey, Options, verify_dir};
use model::ambient::SystemClock;
use model::{Clock, SeededEntropy};
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

const WRITERS: u32 = 64;
const TIME: Duration = Duration::from_secs(3);
/// The load whose wait is measured comes in so many slices of this length.
const SLICES: u32 = 8;
const SLICE: Duration = Duration::from_secs(1);
/// The pause before a single sync: how finely the runtime's clock wakes the writers of the load.
const PAUSE: Duration = Duration::from_millis(1);
/// Entries a second that are asked for where the wait is measured.
const PACE: u32 = 20_000;

type Waits = Vec<Duration>;
type Failure = Box<dyn Error + Send + Sync>;

fn event() -> Event {
    let kind = EventKind::SessionRefused {
        code: "no-grant".to_owned(),
        reason: "the study has no grant for this dataset".to_owned(),
    };
    Event::new(SystemClock.now(), kind)
}

fn key() -> Result<LogKey, Failure> {
    Ok(LogKey::generate("bench.test/audit", &SeededEntropy::new(1))?)
}

fn open(dir: &Path) -> Result<Log, Failure> {
    Ok(Log::open(dir, key()?, Arc::new(SystemClock), Options::default())?)
}

/// Appends from all writers for so long, each at most once in `every`.
async fn ours(log: &Log, time: Duration, every: Duration) -> Result<Waits, Failure> {
    let start = tokio::time::Instant::now();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let log = log.clone();
            tokio::spawn(async move {
                let mut waits = Waits::new();
                let mut due = start + every * writer / WRITERS;
                while start.elapsed() < time {
                    if !every.is_zero() {
                        tokio::time::sleep_until(due).await;
                        due += every;
                    }
                    let asked = Instant::now();
                    log.append(&event()).await?;
                    waits.push(asked.elapsed());
                }
                Ok::<Waits, Failure>(waits)
            })
        })
        .collect();
    let mut waits = Waits::new();
    for writer in writers {
        waits.extend(writer.await??);
    }
    Ok(waits)
}

async fn sqlite(path: &Path) -> Result<Waits, Failure> {
    let options = SqliteConnectOptions::from_str(&format!("sqlite://{}", path.display()))?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    // One connection: SQLite has one writer at a time, and a queue is kinder to it than a race.
    let acquire = Duration::from_secs(60);
    let pool =
        SqlitePoolOptions::new().max_connections(1).acquire_timeout(acquire).connect_with(options).await?;
    sqlx::query("CREATE TABLE log (id INTEGER PRIMARY KEY, entry BLOB NOT NULL)").execute(&pool).await?;
    let start = Instant::now();
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let mut waits = Waits::new();
                while start.elapsed() < TIME {
                    let asked = Instant::now();
                    let entry = event().to_entry();
                    sqlx::query("INSERT INTO log (entry) VALUES (?)").bind(entry).execute(&pool).await?;
                    waits.push(asked.elapsed());
                }
                Ok::<Waits, Failure>(waits)
            })
        })
        .collect();
    let mut waits = Waits::new();
    for writer in writers {
        waits.extend(writer.await??);
    }
    pool.close().await;
    Ok(waits)
}

fn plain(path: &Path) -> Result<Waits, Failure> {
    let file = Mutex::new(File::create(path)?);
    let start = Instant::now();
    let write = || -> std::io::Result<Waits> {
        let mut waits = Waits::new();
        while start.elapsed() < TIME {
            let asked = Instant::now();
            let entry = event().to_entry();
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            file.write_all(&entry)?;
            file.sync_data()?;
            drop(file);
            waits.push(asked.elapsed());
        }
        Ok(waits)
    };
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS).map(|_| scope.spawn(write)).collect();
        let mut waits = Waits::new();
        for writer in writers {
            waits.extend(writer.join().map_err(|_| "a writer panicked")??);
        }
        Ok(waits)
    })
}

/// What the disk takes for one entry appended to a file and synced, with nobody else at work.
#[derive(Default)]
struct Alone {
    /// After a pause.
    rested: Waits,
    /// One right after the other.
    busy: Waits,
}

impl Alone {
    fn measure(&mut self, path: &Path) -> Result<(), Failure> {
        let entry = event().to_entry();
        let mut file = File::create(path)?;
        for (pause, time, waits) in
            [(PAUSE, SLICE / 2, &mut self.rested), (Duration::ZERO, SLICE / 4, &mut self.busy)]
        {
            let start = Instant::now();
            while start.elapsed() < time {
                std::thread::sleep(pause);
                let asked = Instant::now();
                file.write_all(&entry)?;
                file.sync_all()?;
                waits.push(asked.elapsed());
            }
        }
        Ok(())
    }
}

/// Entries a second that verifying reads, the best of three, and how many there are.
fn verifying(dir: &Path) -> Result<(f64, u64), Failure> {
    let key = key()?;
    let mut best = (0.0, 0);
    for _ in 0..3 {
        let start = Instant::now();
        let report = verify_dir(dir, key.public())?;
        let rate = report.entries as f64 / start.elapsed().as_secs_f64();
        best = (f64::max(best.0, rate), report.entries);
    }
    Ok(best)
}

/// A quantile in milliseconds.
fn quantile(waits: &mut Waits, per_mille: usize) -> f64 {
    waits.sort_unstable();
    waits.get(waits.len() * per_mille / 1000).map_or(f64::NAN, Duration::as_secs_f64) * 1e3
}

fn line(name: &str, value: f64, unit: &str, peer: &str, peer_value: f64, more_is_better: bool) -> Value {
    let ratio = if more_is_better { value / peer_value } else { peer_value / value };
    json!({ "name": name, "value": value, "unit": unit, "peer": peer, "peer_value": peer_value, "ratio": ratio })
}

fn main() -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let at = |name: &str| dir.path().join(name);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let log = open(&at("log"))?;
    let fast = runtime.block_on(ours(&log, TIME, Duration::ZERO))?;
    runtime.block_on(log.close());
    let sqlite = runtime.block_on(sqlite(&at("sqlite")))?;
    let plain = plain(&at("plain"))?;
    let (mut alone, mut paced) = (Alone::default(), Waits::new());
    let log = open(&at("paced"))?;
    for _ in 0..SLICES {
        alone.measure(&at("fsync"))?;
        paced.extend(runtime.block_on(ours(&log, SLICE, Duration::from_secs(WRITERS.into()) / PACE))?);
    }
    runtime.block_on(log.close());
    let (verified, entries) = verifying(&at("log"))?;

    let per_second = |waits: &Waits, time: Duration| waits.len() as f64 / time.as_secs_f64();
    let (rate, pace) = (per_second(&fast, TIME), per_second(&paced, SLICE * SLICES));
    let [mut fast, mut sqlite, mut plain] = [fast, sqlite, plain];
    let (p99, one, one_p99) =
        (quantile(&mut paced, 990), quantile(&mut alone.rested, 500), quantile(&mut alone.rested, 990));
    for (what, waits) in [
        ("one entry appended to a file and synced, alone, after a pause", &mut alone.rested),
        ("the same one right after the other", &mut alone.busy),
        ("64 writers, together 20 000 events/s", &mut paced),
        ("64 writers, as fast as they are answered", &mut fast),
    ] {
        eprintln!(
            "{what}: median {:.3} ms, p99 {:.3} ms, p99.9 {:.3} ms of {}",
            quantile(waits, 500),
            quantile(waits, 990),
            quantile(waits, 999),
            waits.len()
        );
    }
    eprintln!("{pace:.0} events/s of the {PACE} asked for; {entries} entries verified");
    let (sqlite_name, plain_name) = ("SQLite, WAL, synchronous=FULL", "a file synced after each record");
    let (name, waiting) = ("audit/append/64writers", "audit/append/p99");
    let lines = [
        line(name, rate, "events/s", sqlite_name, per_second(&sqlite, TIME), true),
        line(name, rate, "events/s", plain_name, per_second(&plain, TIME), true),
        line(waiting, p99, "ms", sqlite_name, quantile(&mut sqlite, 990), false),
        line(waiting, p99, "ms", plain_name, quantile(&mut plain, 990), false),
        line("audit/append/p99-in-fsyncs", p99 / one_p99, "p99 of one fsync", "three of them", 3.0, false),
        line("audit/append/p99-in-median-fsyncs", p99 / one, "one fsync", "three of them", 3.0, false),
        // What the disk itself takes at its p99 with nobody else at work: nothing that syncs is below it.
        line(
            "audit/append/p99-in-median-fsyncs",
            p99 / one,
            "one fsync",
            "its own p99",
            one_p99 / one,
            false,
        ),
        line("audit/verify", verified, "events/s", "a million a second", 1e6, true),
    ];
    let out = std::env::var_os("SEKISHO_BENCH_OUT");
    let mut out = out.map(|path| File::options().create(true).append(true).open(path)).transpose()?;
    for line in lines {
        println!("{line}");
        if let Some(out) = &mut out {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}
