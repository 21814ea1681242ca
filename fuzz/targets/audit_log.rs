//! The audit log's files: write-ahead batches, bundles, checkpoints, proofs, entries.
#![no_main]

use audit::{Checkpoint, Proof, export, parse_batch, parse_bundle};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = parse_batch(data);
    let _ = parse_bundle(data);
    let _ = Checkpoint::parse_unverified(data);
    let _ = Proof::parse(data);
    let _ = export("sekisho.test/log", 3, data);
});
