//! The gate's answer to an upload, as the client reads it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = cli::parse_upload_answer(data);
});
