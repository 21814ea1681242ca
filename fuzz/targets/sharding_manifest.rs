//! Manifests: whatever is taken for one is written back to the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sharding::format::Manifest;

fuzz_target!(|data: &[u8]| {
    if let Ok(manifest) = Manifest::parse(data) {
        assert_eq!(manifest.encode(), data);
        let _ = manifest.root();
    }
});
