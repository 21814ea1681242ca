//! Requests to the signer and its answers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use signer::{Answer, Request};

fuzz_target!(|data: &[u8]| {
    let _ = Request::decode(data);
    let _ = Answer::decode(data);
});
