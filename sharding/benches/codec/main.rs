//! The codec on one core, against the crates and libraries that people take and against what bounds
//! everybody: copying memory, multiplying alone.
//!
//! Everything is 3 of 5, measured in turns within one run, so that what disturbs one disturbs all;
//! what is told is the median, in megabytes (10⁶ bytes) of secret per second. *cache* is blocks of
//! 64 KiB as the format has them, over and over; *stream* is 64 MiB from memory to memory. With
//! `SEKISHO_BENCH_OUT` set, a line of JSON per peer is appended to the file it names. An argument
//! runs only the measurements whose name contains it.

mod compact;
mod contest;
mod peers;
mod shamir;

use sharding::codec::{Kernel, Mac, Threshold};

/// A block of the format.
const BLOCK: usize = 64 << 10;
/// Far beyond the last cache.
const STREAM: usize = 64 << 20;

type Bench = fn(&str, &peers::Peers);

fn main() {
    let pinned = if contest::pin() { ", pinned" } else { "" };
    println!("3 of 5, one core{pinned}, medians of {}; {}", contest::ROUNDS, Kernel::best().name());
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let peers = peers::Peers::start();
    let benches: &[(&str, Bench)] = &[
        ("split/3of5/cache", shamir::split_cache),
        ("combine/3of5/cache", shamir::combine_cache),
        ("split_auth/3of5/cache", shamir::split_auth_cache),
        ("split/3of5/stream", shamir::split_stream),
        ("combine/3of5/stream", shamir::combine_stream),
        ("tag/64KiB", compact::tag),
        ("seal/64KiB", compact::seal),
        ("encode/compact/cache", compact::encode_cache),
        ("encode/compact/stream", compact::encode_stream),
    ];
    for (name, bench) in benches.iter().filter(|(name, _)| name.contains(&wanted)) {
        bench(name, &peers);
    }
}

fn threshold() -> Threshold {
    Threshold::new(3, 5).expect("a threshold")
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 256) as u8).collect()
}

fn macs() -> Vec<Mac> {
    (0..5).map(|x| Mac::new(&[x; 32])).collect()
}

fn slices(shares: &mut [Vec<u8>]) -> Vec<&mut [u8]> {
    shares.iter_mut().map(Vec::as_mut_slice).collect()
}
