//! Answers of HTTPS collectors: whatever they say is about the events that were sent.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siem::{Answer, Dialect, parse_answer};

fuzz_target!(|data: &[u8]| {
    let [status, count, data @ ..] = data else { return };
    let status = [200, 400, 413, 429, 500][usize::from(*status) % 5];
    let count = usize::from(*count) + 1;
    for dialect in [
        Dialect::Elasticsearch { index: "i".to_owned() },
        Dialect::SplunkHec { index: None, indexer_ack: false },
        Dialect::SplunkHec { index: None, indexer_ack: true },
    ] {
        if let Ok((Answer::Parts { again, rejected }, _)) = parse_answer(&dialect, status, data, count) {
            let mut places: Vec<usize> = again;
            places.extend(rejected.iter().map(|(place, _)| *place));
            places.sort_unstable();
            assert!(places.windows(2).all(|pair| pair[0] < pair[1]));
            assert!(places.last().is_some_and(|last| *last < count));
        }
    }
});
