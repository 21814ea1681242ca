//! Whole files through the vault on folders of this machine: deposits and reads against `cp`,
//! random reads against the plain file, and the memory of a large deposit.
//!
//! Contestants take turns; what is told is the median. With `SEKISHO_BENCH_OUT` set, a line of JSON
//! per figure is appended to the file it names. `SEKISHO_BENCH_MIB` sets the size of the file (4096)
//! and `SEKISHO_BENCH_RESIDENT_MIB` that of the large deposit (16 384); the folders lie in
//! `SEKISHO_BENCH_DIR`, or else in the system's temporary folder.

mod files;
mod resident;

use std::io::Write;

use serde_json::json;

fn main() {
    let mut args = std::env::args().skip_while(|arg| arg != resident::CHILD);
    if args.next().is_some() {
        resident::child(args);
        return;
    }
    files::measure();
    resident::measure();
}

/// Adds a figure to the results. `ratio` above 1 means better than the peer.
fn tell(name: &str, value: f64, unit: &str, peer: &str, peer_value: f64, ratio: f64) {
    println!("{name:<24} {value:>9.1} {unit:<5} {peer} {peer_value:.1}: {ratio:.2}");
    let Some(path) = std::env::var_os("SEKISHO_BENCH_OUT") else { return };
    let line = json!({"name": name, "value": value, "unit": unit, "peer": peer,
        "peer_value": peer_value, "ratio": ratio});
    let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
    file.and_then(|mut file| writeln!(file, "{line}")).expect("the results cannot be written");
}

fn mib(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

fn quantile(values: &[f64], at: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let place = (values.len() as f64 * at) as usize;
    values.get(place.min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}
