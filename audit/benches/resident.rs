//! The memory of a process that appends ten million events and then verifies them: after the last
//! million it should be what it was after the first.
//!
//! It takes 7 GiB in the target folder for as long as it runs, and some minutes.
//! `SEKISHO_BENCH_EVENTS` sets another number.

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use audit::{Event, EventKind, Log, LogKey, Options, verify_dir};
use model::ambient::SystemClock;
use model::{Clock, SeededEntropy};
use serde_json::json;

/// Who append at the same time.
const WRITERS: u64 = 1024;
/// The run ends with an error beyond that.
const TIME_MAX: Duration = Duration::from_secs(1200);

type Failure = Box<dyn Error + Send + Sync>;

fn event() -> Event {
    let kind = EventKind::SessionRefused {
        code: "no-grant".to_owned(),
        reason: "the study has no grant for this dataset".to_owned(),
    };
    Event::new(SystemClock.now(), kind)
}

/// A figure of this process in MiB, such as `VmRSS`.
fn memory(name: &str) -> Result<f64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such figure")?;
    let kib = line.split_whitespace().next().ok_or("no figure")?;
    Ok(kib.parse::<f64>()? / 1024.0)
}

/// Appends until the log has `size` events.
async fn fill(log: &Log, size: u64) -> Result<(), Failure> {
    let more = size - log.durable_size();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let log = log.clone();
            tokio::spawn(async move {
                for _ in 0..more / WRITERS + u64::from(writer < more % WRITERS) {
                    log.append(&event()).await?;
                }
                Ok::<(), Failure>(())
            })
        })
        .collect();
    for writer in writers {
        writer.await??;
    }
    Ok(())
}

/// Verifies the log and returns the most memory that the process had meanwhile.
fn verify(dir: &Path, key: &LogKey, size: u64) -> Result<f64, Failure> {
    // Sets the peak back to what is there now.
    fs::write("/proc/self/clear_refs", "5")?;
    let report = verify_dir(dir, key.public())?;
    if report.entries != size {
        return Err(format!("{} events were verified of {size}", report.entries).into());
    }
    memory("VmHWM:")
}

fn main() -> Result<(), Failure> {
    let events: u64 = match std::env::var("SEKISHO_BENCH_EVENTS") {
        Ok(number) => number.parse()?,
        Err(_) => 10_000_000,
    };
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let key = LogKey::generate("bench.test/audit", &SeededEntropy::new(1))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let log = Log::open(dir.path(), key.clone(), Arc::new(SystemClock), Options::default())?;
    let (start, tenth) = (Instant::now(), events / 10);
    let (mut resident, mut verifying) = (Vec::new(), Vec::new());
    for part in 1..=10 {
        let size = if part == 10 { events } else { tenth * part };
        runtime.block_on(fill(&log, size))?;
        // Verifying leaves buffers behind, once.
        if part == 1 || part == 10 {
            verifying.push(verify(dir.path(), &key, size)?);
        }
        resident.push(memory("VmRSS:")?);
        eprintln!("{size} events after {:.0?}: {:.1} MiB", start.elapsed(), memory("VmRSS:")?);
        if start.elapsed() > TIME_MAX {
            return Err(format!("only {size} events after {:.0?}", start.elapsed()).into());
        }
    }
    runtime.block_on(log.close());
    let line = |name: &str, of: &[f64]| {
        let (first, last) = (of[0], of[of.len() - 1]);
        json!({ "name": name, "value": last, "unit": "MiB", "peer": format!("after {tenth} events"),
            "peer_value": first, "ratio": first / last })
    };
    let out = std::env::var_os("SEKISHO_BENCH_OUT");
    let mut out = out.map(|path| File::options().create(true).append(true).open(path)).transpose()?;
    for line in [line("audit/resident", &resident), line("audit/resident/verify", &verifying)] {
        println!("{line}");
        if let Some(out) = &mut out {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}
