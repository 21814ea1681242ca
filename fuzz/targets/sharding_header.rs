//! The first 4 KiB of every file on a backend, and the names of the files.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sharding::format::{File, Header};

fuzz_target!(|data: &[u8]| {
    if let Ok(header) = Header::parse(data) {
        assert!(data.starts_with(&header.encode()));
    }
    // With an honest checksum the fields are reached.
    if let Some(head) = data.get(..4064) {
        let sum = blake3::derive_key("sekisho sharding v2 header checksum", head);
        let file = [head, &sum].concat();
        if let Ok(header) = Header::parse(&file) {
            assert_eq!(header.encode(), file);
        }
    }
    if let Ok(name) = std::str::from_utf8(data)
        && let Some(file) = File::parse(name)
    {
        let object = "obj:genome".parse().expect("an id");
        assert_eq!(file.name(&object).strip_prefix("genome/"), Some(name));
    }
});
