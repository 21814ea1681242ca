//! A file in, the file out, and pieces of it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use model::{BackendId, Entropy, ObjectId, SeededEntropy};
use sharding::format::Mode;
use sharding::vault::{Backend, Options, Vault};

use crate::{median, mib, quantile, tell};

const ROUNDS: usize = 3;
/// No further round begins after so long.
const LONG: Duration = Duration::from_secs(150);
const RANDOM_READS: usize = 4000;

pub fn measure() {
    let root = std::env::var_os("SEKISHO_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(root).expect("a temporary folder");
    let size = affordable(dir.path(), mib("SEKISHO_BENCH_MIB", 4096) << 20);
    println!("a file of {} MiB, 3 of 5 folders on one disk, fsync included; medians", size >> 20);
    let source = dir.path().join("plain");
    fill(&source, size);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let object = ObjectId::from_name("genome").expect("an id");
    let (mut cp, mut shamir, mut compact, mut back, mut plain) = (vec![], vec![], vec![], vec![], vec![]);
    let begun = Instant::now();
    for round in 0..ROUNDS {
        if round > 0 && begun.elapsed() > LONG {
            break;
        }
        cp.push(rate(size, || {
            let copy = dir.path().join("copy");
            run(Command::new("cp").args([&source, &copy]));
            File::open(&copy).and_then(|file| file.sync_all()).expect("a synced copy");
        }));
        fs::remove_file(dir.path().join("copy")).expect("the copy can be removed");
        for (mode, rates) in [(Mode::Compact, &mut compact), (Mode::Shamir, &mut shamir)] {
            let folders = dir.path().join(mode.to_string());
            let vault = vault(&folders, mode);
            let mut root = [0; 32];
            rates.push(rate(size, || {
                runtime.block_on(async {
                    let file = tokio::fs::File::open(&source).await.expect("the file");
                    let entropy = SeededEntropy::new(round as u64);
                    let deposited = vault.deposit(&object, file, &entropy, |_| {}).await;
                    root = deposited.expect("a deposit").root;
                });
            }));
            if mode == Mode::Shamir {
                back.push(rate(size, || runtime.block_on(read_all(&vault, &object, &root, size))));
                plain.push(rate(size, || run(Command::new("cp").arg(&source).arg("/dev/null"))));
                if round == 0 {
                    random(&runtime, &vault, &object, &root, &source, size);
                }
            }
            fs::remove_dir_all(&folders).expect("the folders can be removed");
        }
    }
    let (cp, plain) = (median(&cp), median(&plain));
    for (name, rates) in [("deposit/compact/file", &compact), ("deposit/shamir/file", &shamir)] {
        tell(name, median(rates), "MB/s", "cp and fsync", cp, median(rates) / cp);
    }
    tell("read/shamir/file", median(&back), "MB/s", "cp to nowhere", plain, median(&back) / plain);
}

/// The size, or what a third of the free disk has room for: five shares, the file and its copy.
fn affordable(dir: &Path, size: u64) -> u64 {
    let disk = nix::sys::statvfs::statvfs(dir).expect("the disk's size");
    let free = disk.blocks_available() * disk.fragment_size();
    let most = (free / 8) & !((4 << 20) - 1);
    if most < size {
        println!("only {} GiB are free here: less than was asked for is measured", free >> 30);
    }
    size.min(most)
}

fn fill(path: &Path, size: u64) {
    let mut block = vec![0; 4 << 20];
    let entropy = SeededEntropy::new(1);
    let file = File::create(path).expect("a file");
    for at in (0..size).step_by(block.len()) {
        entropy.fill(&mut block[..64 << 10]).expect("bytes");
        let len = block.len().min((size - at) as usize);
        file.write_all_at(&block[..len], at).expect("the file's bytes");
    }
    file.sync_all().expect("a synced file");
}

fn vault(folders: &Path, mode: Mode) -> Vault {
    let backends = (1..=5).map(|at| {
        let id = BackendId::from_name(&format!("b{at}")).expect("an id");
        let folder = folders.join(at.to_string());
        fs::create_dir_all(&folder).expect("a folder");
        Backend::local(id, format!("institution {at}"), &folder).expect("a backend")
    });
    Vault::new(backends.collect(), 3, Options { mode, ..Options::default() }).expect("a threshold")
}

/// Megabytes (10⁶ bytes) per second.
fn rate(bytes: u64, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    bytes as f64 / start.elapsed().as_secs_f64() / 1e6
}

fn run(command: &mut Command) {
    assert!(command.status().expect("cp is there").success(), "cp failed");
}

async fn read_all(vault: &Vault, object: &ObjectId, root: &[u8; 32], size: u64) {
    let reader = vault.open(object, root).await.expect("the object opens");
    let mut seen = 0;
    let mut stream = std::pin::pin!(reader.stream(0..size));
    while let Some(part) = futures::StreamExt::next(&mut stream).await {
        seen += part.expect("the object reads").len() as u64;
    }
    assert_eq!(seen, size);
}

/// 64 KiB at random places, one after the other, the files in the page cache.
fn random(
    runtime: &tokio::runtime::Runtime,
    vault: &Vault,
    object: &ObjectId,
    root: &[u8; 32],
    source: &Path,
    size: u64,
) {
    let entropy = SeededEntropy::new(3);
    let places: Vec<u64> = (0..RANDOM_READS)
        .map(|_| (u64::from_le_bytes(entropy.array().expect("bytes")) % (size - (64 << 10))) & !0xffff)
        .collect();
    let plain = File::open(source).expect("the file");
    let mut buffer = vec![0; 64 << 10];
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let reader = runtime.block_on(vault.open(object, root)).expect("the object opens");
    for (at, place) in places.iter().enumerate() {
        let start = Instant::now();
        plain.read_exact_at(&mut buffer, *place).expect("a read");
        let local = start.elapsed();
        let start = Instant::now();
        let read = runtime.block_on(reader.read_at(*place, 64 << 10)).expect("a read");
        let shared = start.elapsed();
        assert!(read.as_slice() == buffer);
        // The first reads of each extent also fetch its tag table.
        if at >= RANDOM_READS / 4 {
            ours.push(shared.as_secs_f64() * 1e6);
            theirs.push(local.as_secs_f64() * 1e6);
        }
    }
    for (name, at) in [("read/random64k", 0.5), ("read/random64k/p99", 0.99)] {
        let (value, peer) = (quantile(&ours, at), quantile(&theirs, at));
        tell(name, value, "us", "pread of the plain file", peer, peer / value);
    }
}
