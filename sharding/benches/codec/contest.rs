//! Contestants that take turns, and what is told of them.

use std::io::Write;
use std::time::Instant;

use serde_json::json;

/// A contestant has as many turns; the median counts.
pub const ROUNDS: usize = 31;
/// How long one turn lasts at least, in seconds.
const TURN: f64 = 0.02;

/// One way to do the work.
pub struct Contestant<'a> {
    name: String,
    /// One turn: megabytes (10⁶ bytes) per second.
    turn: Box<dyn FnMut() -> f64 + 'a>,
    rates: Vec<f64>,
}

impl<'a> Contestant<'a> {
    /// `work` works on `bytes` bytes of secret per call.
    pub fn new(name: impl Into<String>, bytes: usize, mut work: impl FnMut() + 'a) -> Contestant<'a> {
        Contestant::timed(name, move || {
            let (start, mut calls) = (Instant::now(), 0);
            loop {
                work();
                calls += 1;
                let elapsed = start.elapsed().as_secs_f64();
                if elapsed >= TURN {
                    return (bytes * calls) as f64 / elapsed / 1e6;
                }
            }
        })
    }

    /// It takes its time itself.
    pub fn timed(name: impl Into<String>, turn: impl FnMut() -> f64 + 'a) -> Contestant<'a> {
        Contestant { name: name.into(), turn: Box::new(turn), rates: Vec::new() }
    }

    fn median(&self) -> f64 {
        let mut rates = self.rates.clone();
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    }
}

/// Lets everybody have their turns; the first contestant is what the others are compared with.
pub fn run(name: &str, mut contestants: Vec<Contestant<'_>>) {
    for _ in 0..ROUNDS {
        for contestant in &mut contestants {
            let rate = (contestant.turn)();
            contestant.rates.push(rate);
        }
    }
    println!("\n{name:<36} {:>12} {:>10}", "MB/s", "ratio");
    let ours = contestants[0].median();
    let mut lines = String::new();
    for contestant in &contestants {
        let rate = contestant.median();
        println!("  {:<34} {rate:>12.1} {:>10.2}", contestant.name, ours / rate);
        if !contestant.name.starts_with("sharding") {
            let line = json!({"name": name, "value": ours, "unit": "MB/s", "peer": contestant.name,
                "peer_value": rate, "ratio": ours / rate});
            lines.push_str(&format!("{line}\n"));
        }
    }
    if let Some(path) = std::env::var_os("SEKISHO_BENCH_OUT") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        if let Err(error) = file.and_then(|mut file| file.write_all(lines.as_bytes())) {
            eprintln!("cannot write {}: {error}", path.display());
            std::process::exit(1);
        }
    }
}

/// Keeps this process, and those that it starts, to the core it runs on.
pub fn pin() -> bool {
    use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
    let mut set = CpuSet::new();
    let pinned = sched_getcpu()
        .and_then(|core| set.set(core).and_then(|()| sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)));
    pinned.is_ok()
}
