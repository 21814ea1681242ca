//! `bench`: how fast this machine splits, combines and checks, in cache and on one core.

use std::hint::black_box;
use std::time::Instant;

use model::ambient::OsEntropy;
use serde_json::json;
use sharding::codec::{
    CodecError, Combiner, Disperser, Gatherer, Kernel, Mac, NONCE_LEN, RandomStream, Sealer, ShareIndex,
    Splitter, Threshold,
};
use sharding::format::BLOCK;

use crate::args::Bench;
use crate::fault::{Exit, Failure};
use crate::out::Out;
use crate::say;
use crate::words::{Key, Message};

/// How many turns each measurement has; the median counts.
const TURNS: usize = 7;
/// How long a turn lasts at least, in seconds.
const TURN: f64 = 0.02;

struct Row {
    operation: &'static str,
    kernel: &'static str,
    rate: f64,
}

/// Measures and prints a table.
pub fn bench(out: &Out, args: &Bench) -> Result<Exit, Failure> {
    let (k, n) = (args.k, args.n);
    let threshold = Threshold::new(k, n).map_err(|error| {
        Failure::usage(say!(BadThreshold, k = k, n = n)).because(&error).todo(say!(BadThresholdTodo))
    })?;
    let bar = out.bar(Key::Measuring, None);
    let rows = measure(threshold).map_err(|error| Failure::defect(&error))?;
    drop(bar);
    let table: Vec<_> = rows
        .iter()
        .map(|row| json!({"operation": row.operation, "kernel": row.kernel, "mb_per_s": row.rate.round()}))
        .collect();
    let mut lines = vec![say!(BenchHead, k = k, n = n)];
    lines.extend(rows.iter().map(|row| {
        let text = format!("  {:<18} {:<14} {:>9.0}", row.operation, row.kernel, row.rate);
        Message::verbatim(text)
    }));
    out.result(&lines, &json!({"k": k, "n": n, "block": BLOCK, "rows": table}));
    Ok(Exit::Done)
}

fn measure(threshold: Threshold) -> Result<Vec<Row>, CodecError> {
    let len = BLOCK as usize;
    let secret: Vec<u8> = (0..len).map(|at| (at * 31 + at / 256) as u8).collect();
    let mut random = RandomStream::fresh(&OsEntropy).unwrap_or_else(|_| RandomStream::under(&[0; 32]));
    // The last ones: nothing among them is the plaintext itself.
    let points: Vec<ShareIndex> = threshold.shares().skip(threshold.n() - threshold.k()).collect();
    let best = Kernel::best().name();
    let mut rows = Vec::new();
    for kernel in Kernel::available() {
        let name = kernel.name();
        let mut row = |operation, rate| rows.push(Row { operation, kernel: name, rate });

        let splitter = Splitter::with_kernel(threshold, kernel);
        let mut shares = vec![vec![0; len]; threshold.n()];
        row(
            "shamir split",
            rate(|| {
                let mut slices: Vec<&mut [u8]> = shares.iter_mut().map(Vec::as_mut_slice).collect();
                splitter.split(black_box(&secret), &mut random, &mut slices)
            })?,
        );
        let combiner = Combiner::with_kernel(threshold, &points, kernel)?;
        let chosen: Vec<&[u8]> = points.iter().map(|x| shares[x.place()].as_slice()).collect();
        let mut back = vec![0; len];
        row("shamir combine", rate(|| combiner.combine(black_box(&chosen), &mut back))?);

        let disperser = Disperser::with_kernel(threshold, kernel);
        let mut shares = vec![vec![0; disperser.piece_len(len)]; threshold.n()];
        row(
            "compact spread",
            rate(|| {
                let mut slices: Vec<&mut [u8]> = shares.iter_mut().map(Vec::as_mut_slice).collect();
                disperser.disperse(black_box(&secret), &mut slices)
            })?,
        );
        let gatherer = Gatherer::with_kernel(threshold, &points, kernel)?;
        let chosen: Vec<&[u8]> = points.iter().map(|x| shares[x.place()].as_slice()).collect();
        row("compact gather", rate(|| gatherer.gather(black_box(&chosen), &mut back))?);
    }
    // Ciphers and hashes choose for themselves.
    let mut row = |operation, rate| rows.push(Row { operation, kernel: best, rate });
    let (mac, sealer, nonce) = (Mac::new(&[1; 32]), Sealer::new(&[2; 32]), [0; NONCE_LEN]);
    row(
        "tag (GMAC)",
        rate(|| {
            black_box(mac.tag(&nonce, black_box(&secret)));
            Ok(())
        })?,
    );
    let mut sealed = vec![0; len];
    row(
        "seal (GCM)",
        rate(|| {
            black_box(sealer.seal(&nonce, black_box(&secret), &mut sealed));
            Ok(())
        })?,
    );
    row(
        "hash (BLAKE3)",
        rate(|| {
            black_box(blake3::keyed_hash(&[3; 32], black_box(&secret)));
            Ok(())
        })?,
    );
    Ok(rows)
}

/// The median, in 10⁶ bytes per second.
fn rate(mut work: impl FnMut() -> Result<(), CodecError>) -> Result<f64, CodecError> {
    let mut rates = Vec::new();
    for _ in 0..TURNS {
        let (start, mut calls) = (Instant::now(), 0u32);
        let elapsed = loop {
            work()?;
            calls += 1;
            let elapsed = start.elapsed().as_secs_f64();
            if elapsed >= TURN {
                break elapsed;
            }
        };
        rates.push(f64::from(calls) * BLOCK as f64 / elapsed / 1e6);
    }
    rates.sort_by(f64::total_cmp);
    Ok(rates[rates.len() / 2])
}
