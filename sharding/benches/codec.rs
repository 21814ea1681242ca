//! Splitting and combining 3 of 5 in cache, on one core, against the crates that people take.
//!
//! Everything is measured in turns within one run, so that what disturbs one disturbs all; what is
//! told is the median, in megabytes (10⁶ bytes) of secret per second. With `SEKISHO_BENCH_OUT` set,
//! a line of JSON per peer is appended to the file it names.

use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

use chacha20::rand_core::SeedableRng;
use serde_json::json;
use sharding::codec::{Combiner, Kernel, RandomStream, ShareIndex, Splitter, Threshold};

const LEN: usize = 64 << 10;
const ROUNDS: usize = 15;
/// How long one turn lasts at least, in seconds.
const TURN: f64 = 0.02;

struct Contestant<'a> {
    name: String,
    /// Bytes of secret per call.
    bytes: usize,
    work: Box<dyn FnMut() + 'a>,
    rates: Vec<f64>,
}

impl<'a> Contestant<'a> {
    fn new(name: impl Into<String>, bytes: usize, work: impl FnMut() + 'a) -> Contestant<'a> {
        Contestant { name: name.into(), bytes, work: Box::new(work), rates: Vec::new() }
    }

    fn turn(&mut self) {
        let (start, mut calls) = (Instant::now(), 0);
        let elapsed = loop {
            (self.work)();
            calls += 1;
            let elapsed = start.elapsed().as_secs_f64();
            if elapsed >= TURN {
                break elapsed;
            }
        };
        self.rates.push((self.bytes * calls) as f64 / elapsed / 1e6);
    }

    fn median(&self) -> f64 {
        let mut rates = self.rates.clone();
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    }
}

fn main() {
    let pinned = pin();
    let best = Kernel::best();
    println!(
        "3 of 5, {} KiB in cache, one core{}, medians of {ROUNDS}",
        LEN >> 10,
        if pinned { ", pinned" } else { "" }
    );
    let threshold = Threshold::new(3, 5).expect("a threshold");
    let secret: Vec<u8> = (0..LEN).map(|i| (i * 31 + i / 256) as u8).collect();
    // The peers allocate for every byte; less is enough to know them.
    let small = &secret[..LEN / 4];

    let mut split: Vec<Contestant<'_>> = Vec::new();
    for kernel in contestants(best) {
        let splitter = Splitter::with_kernel(threshold, kernel);
        let mut random = RandomStream::under(&[1; 32]);
        let mut shares = vec![vec![0; LEN]; 5];
        let secret = &secret;
        split.push(Contestant::new(format!("sharding ({})", kernel.name()), LEN, move || {
            let mut slices: Vec<&mut [u8]> = shares.iter_mut().map(Vec::as_mut_slice).collect();
            splitter.split(black_box(secret), &mut random, &mut slices).expect("a split");
            black_box(&mut shares);
        }));
    }
    split.push(Contestant::new("sharks 0.5", small.len(), || {
        black_box(sharks::Sharks(3).dealer(black_box(small)).take(5).collect::<Vec<_>>());
    }));
    let mut generator = chacha20::ChaCha20Rng::from_seed([1; 32]);
    split.push(Contestant::new("vsss-rs 6", small.len(), move || {
        black_box(vsss_rs::Gf256::split_bytes(3, 5, black_box(small), &mut generator).expect("a split"));
    }));
    report("split/3of5/cache", &mut split);

    let mut shares = vec![vec![0; LEN]; 5];
    let mut slices: Vec<&mut [u8]> = shares.iter_mut().map(Vec::as_mut_slice).collect();
    Splitter::new(threshold)
        .split(&secret, &mut RandomStream::under(&[1; 32]), &mut slices)
        .expect("a split");
    // The last three: no weight is 1, as those of 1, 2 and 3 all are.
    let points = [3, 4, 5].map(|x| ShareIndex::new(x).expect("a point"));
    let mut combine: Vec<Contestant<'_>> = Vec::new();
    for kernel in contestants(best) {
        let combiner = Combiner::with_kernel(threshold, &points, kernel).expect("points");
        let chosen: Vec<&[u8]> = shares[2..].iter().map(Vec::as_slice).collect();
        let mut out = vec![0; LEN];
        combine.push(Contestant::new(format!("sharding ({})", kernel.name()), LEN, move || {
            combiner.combine(black_box(&chosen), &mut out).expect("a secret");
            black_box(&mut out);
        }));
    }
    let tagged: Vec<Vec<u8>> =
        (3u8..=5).map(|x| [&[x], &shares[usize::from(x) - 1][..small.len()]].concat()).collect();
    let theirs: Vec<sharks::Share> = sharks::Sharks(3).dealer(small).take(5).skip(2).collect();
    combine.push(Contestant::new("sharks 0.5", small.len(), move || {
        black_box(sharks::Sharks(3).recover(black_box(&theirs)).expect("a secret"));
    }));
    combine.push(Contestant::new("vsss-rs 6", small.len(), move || {
        black_box(vsss_rs::Gf256::combine_bytes(black_box(&tagged)).expect("a secret"));
    }));
    report("combine/3of5/cache", &mut combine);
}

/// The best kernel first.
fn contestants(best: Kernel) -> impl Iterator<Item = Kernel> {
    std::iter::once(best).chain(Kernel::available().into_iter().filter(move |kernel| *kernel != best))
}

fn report(name: &str, contestants: &mut [Contestant<'_>]) {
    for _ in 0..ROUNDS {
        contestants.iter_mut().for_each(Contestant::turn);
    }
    println!("\n{name:<24} {:>12} {:>10}", "MB/s", "ratio");
    let ours = contestants[0].median();
    let mut lines = String::new();
    for contestant in contestants.iter() {
        let rate = contestant.median();
        println!("  {:<22} {rate:>12.1} {:>10.1}", contestant.name, ours / rate);
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

/// Keeps to the core it runs on.
fn pin() -> bool {
    use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
    let mut set = CpuSet::new();
    let pinned = sched_getcpu()
        .and_then(|core| set.set(core).and_then(|()| sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)));
    pinned.is_ok()
}
