//! What lies on backends: headers and manifests.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sharding::format::{Header, Manifest, Root};

fuzz_target!(|data: &[u8]| {
    if let Ok(header) = Header::parse(data) {
        assert!(data.starts_with(&header.encode()));
    }
    if let Ok(manifest) = Manifest::parse(data) {
        assert_eq!(Manifest::parse(&manifest.encode()).expect("own bytes"), manifest);
    }
    let _ = Root::of(data);
});
