//! Files of Sigma rules, as an operator takes them from elsewhere: whatever they say, they are read in
//! bounded time or refused with a place, and judging an event by them never fails.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use siem::detect::{Decoys, Detector, RuleSet, Text};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match RuleSet::parse(&[&[Text { name: "f.yml".to_owned(), text: text.to_owned() }]]) {
        Err(error) => {
            assert!(!error.reason.is_empty());
            // A lone carriage return ends a line, too (YAML 1.2, 5.4).
            let lines = text.chars().filter(|c| matches!(c, '\n' | '\r')).count() + 2;
            assert!(error.line.is_none_or(|line| (1..=lines).contains(&line)));
        }
        Ok(rules) => {
            let mut detector = Detector::new(Arc::new(rules), Arc::new(Decoys::default()));
            let event = serde_json::json!({
                "time": 1_790_000_000_000_i64,
                "metadata": { "event_code": "process_started" },
                "actor": { "user": { "uid": "u:a" }, "session": { "uid": "sess:s" } },
                "unmapped": {
                    "kind": "process_started", "program": "/usr/bin/nc", "argv": ["nc", "-e", "/bin/sh"],
                },
            });
            for index in 0..3 {
                let _ = detector.observe(index, &event);
            }
        }
    }
});
