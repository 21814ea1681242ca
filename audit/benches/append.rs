//! Durable events a second and the 99th percentile of waiting, with 64 writers at once, against a
//! file that is synced after each record. Both write the same entries to the same folder in turn.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use audit::{Event, EventKind, Log, LogKey, Options};
use model::ambient::SystemClock;
use model::{Clock, SeededEntropy};

const WRITERS: usize = 64;
const TIME: Duration = Duration::from_secs(3);

type Waits = Vec<Duration>;

fn event() -> Event {
    let kind = EventKind::SessionRefused {
        code: "no-grant".to_owned(),
        reason: "the study has no grant for this dataset".to_owned(),
    };
    Event::new(SystemClock.now(), kind)
}

async fn ours(dir: &Path) -> Result<Waits, Box<dyn Error>> {
    let key = LogKey::generate("bench.test/audit", &SeededEntropy::new(1))?;
    let log = Log::open(dir, key, Arc::new(SystemClock), Options::default())?;
    let end = Instant::now() + TIME;
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let log = log.clone();
            tokio::spawn(async move {
                let mut waits = Waits::new();
                while Instant::now() < end {
                    let start = Instant::now();
                    log.append(&event()).await?;
                    waits.push(start.elapsed());
                }
                Ok::<Waits, audit::AppendError>(waits)
            })
        })
        .collect();
    let mut waits = Waits::new();
    for writer in writers {
        waits.extend(writer.await??);
    }
    log.close().await;
    Ok(waits)
}

fn plain(path: &Path) -> Result<Waits, Box<dyn Error>> {
    let file = Mutex::new(File::create(path)?);
    let end = Instant::now() + TIME;
    let write = || -> std::io::Result<Waits> {
        let mut waits = Waits::new();
        while Instant::now() < end {
            let start = Instant::now();
            let entry = event().to_entry();
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            file.write_all(&entry)?;
            file.sync_data()?;
            drop(file);
            waits.push(start.elapsed());
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

fn p99(mut waits: Waits) -> f64 {
    waits.sort_unstable();
    waits.get(waits.len() * 99 / 100).map_or(f64::NAN, Duration::as_secs_f64) * 1e3
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ours = runtime.block_on(ours(&dir.path().join("log")))?;
    let plain = plain(&dir.path().join("plain"))?;
    let per_second = |waits: &Waits| waits.len() as f64 / TIME.as_secs_f64();
    let peer = "a file synced after each record";
    let (rate, peer_rate) = (per_second(&ours), per_second(&plain));
    let (wait, peer_wait) = (p99(ours), p99(plain));
    let lines = [
        serde_json::json!({ "name": "audit/append/64writers", "value": rate, "unit": "events/s",
            "peer": peer, "peer_value": peer_rate, "ratio": rate / peer_rate }),
        serde_json::json!({ "name": "audit/append/p99", "value": wait, "unit": "ms",
            "peer": peer, "peer_value": peer_wait, "ratio": peer_wait / wait }),
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
