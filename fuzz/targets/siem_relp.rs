//! RELP from a collector: however the stream is cut, the same frames; nothing counts as delivered but
//! what was sent; and no more is held than an answer may measure.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siem::relp::{ANSWER_MAX, Decoder, Frame, FrameError, Relp, WINDOW};

fn frames(mut data: &[u8], cut: usize) -> (Vec<Frame>, Option<FrameError>) {
    let mut decoder = Decoder::default();
    let mut found = Vec::new();
    while !data.is_empty() {
        let (mut chunk, rest) = data.split_at(cut.min(data.len()));
        data = rest;
        loop {
            match decoder.next_frame(&mut chunk) {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                Err(error) => return (found, Some(error)),
            }
        }
        assert!(decoder.held() <= ANSWER_MAX + 64);
    }
    (found, None)
}

fuzz_target!(|data: &[u8]| {
    let Some((&cut, data)) = data.split_first() else { return };
    let cut = usize::from(cut) + 1;
    assert_eq!(frames(data, cut), frames(data, usize::MAX));

    let mut relp = Relp::new();
    let welcome = b"200 OK\ncommands=syslog";
    let opened = relp.receive(format!("1 rsp {} {}\n", welcome.len(), String::from_utf8_lossy(welcome)).as_bytes());
    assert_eq!(opened, Ok(None));
    let mut sent = 0;
    for chunk in data.chunks(cut) {
        while relp.send(sent + 1, b"x") {
            sent += 1;
        }
        assert!(relp.waiting() <= WINDOW);
        match relp.receive(chunk) {
            Ok(Some(delivered)) => assert!(delivered <= sent),
            Ok(None) => {}
            Err(_) => return,
        }
    }
});
