//! Packets between the agent and a workspace's first process, in both directions.
#![no_main]

use enclave_agent::init_protocol::{Notice, Order, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = parse::<Notice>(data);
    let _ = parse::<Order>(data);
});
