//! Parts of the audit log as they come back from the vault: compressed, and as the text inside.
#![no_main]

use std::io::Write;
use std::sync::LazyLock;

use audit::{LogKey, SegmentReader};
use flate2::Compression;
use flate2::write::GzEncoder;
use libfuzzer_sys::fuzz_target;
use model::SeededEntropy;

static KEY: LazyLock<LogKey> =
    LazyLock::new(|| LogKey::generate("sekisho.test/audit", &SeededEntropy::new(1)).expect("a key"));

fn read(bytes: &[u8]) {
    let Ok(mut reader) = SegmentReader::open(bytes, KEY.public()) else { return };
    while let Ok(Some(bundle)) = reader.next_bundle() {
        assert_eq!(bundle.entries.len(), 256);
    }
}

fuzz_target!(|data: &[u8]| {
    read(data);
    let beginning = format!("sekisho audit segment v1\nkey {}\n", KEY.public());
    let mut zip = GzEncoder::new(Vec::new(), Compression::fast());
    zip.write_all(beginning.as_bytes()).and_then(|()| zip.write_all(data)).expect("to memory");
    read(&zip.finish().expect("to memory"));
});
