//! What a witness is asked, and what it answers.
#![no_main]

use audit::{Checkpoint, TilePath, WitnessKey, WitnessPublicKey};
use libfuzzer_sys::fuzz_target;
use witness::protocol::{AddCheckpoint, parse_size};

const KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

fuzz_target!(|data: &[u8]| {
    if let Ok(request) = AddCheckpoint::parse(data) {
        assert_eq!(AddCheckpoint::parse(request.to_string().as_bytes()).as_ref(), Ok(&request));
        let _ = Checkpoint::parse_unverified(request.note.as_bytes());
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = parse_size(text);
    let _ = TilePath::parse(text);
    let _ = WitnessKey::from_secret_text(text);
    let _ = text.parse::<WitnessPublicKey>();
    if let Ok(key) = KEY.parse::<audit::LogPublicKey>() {
        let _ = Checkpoint::open(data, &key);
    }
});
