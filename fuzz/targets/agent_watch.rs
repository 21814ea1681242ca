//! What the agent reads of a workspace: packets at its barrier, addresses in its memory, statuses.
#![no_main]

use enclave_agent::watch::{address, packets, processes, refusal, senders};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some(packet) = packets::parse(data) {
        assert!(packet.payload <= data.len());
        if let Some(answer) = refusal::answer(&packet, data) {
            // An answer is a packet, to whoever asked, and is itself not answered.
            assert!(answer.len() <= 1280);
            let back = packets::parse(&answer).expect("an answer is a packet");
            assert_eq!((back.source, back.destination), (packet.destination, packet.source));
            assert!(refusal::answer(&back, &answer).is_none());
        }
        let _ = packet.is_of_the_kernel();
    }
    if let Some(to) = address::parse(data) {
        assert!(!to.name.is_empty() || data.len() < 3);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = processes::parse_status(text);
        let (head, table) = text.split_at(text.char_indices().nth(40).map_or(text.len(), |(at, _)| at));
        if let Some(packet) = packets::parse(head.as_bytes()) {
            let _ = senders::inode(table, &packet);
        }
    }
});
