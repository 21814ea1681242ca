//! Recordings as they are read: in any pieces they say the same, and what is written is read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use recording::cast::{At, CastError, Event, Header, Reader, Term, Writer};

fn read(text: &[u8], cut: usize) -> (Vec<At>, Option<CastError>) {
    let mut reader = Reader::new();
    let mut events = Vec::new();
    for piece in text.chunks(cut) {
        match reader.push(piece) {
            Ok(more) => events.extend(more),
            Err(error) => return (events, Some(error)),
        }
    }
    (events, None)
}

fuzz_target!(|data: &[u8]| {
    let [cut, data @ ..] = data else { return };
    let cut = usize::from(*cut) + 1;
    let (events, error) = read(data, cut);
    if error.is_none() {
        assert_eq!(read(data, usize::MAX), (events, None));
    }
    let term = Term { cols: 80, rows: 24, kind: None };
    let header = Header { version: 3, term, timestamp: None, command: None, title: None };
    let (mut writer, mut text) = Writer::begin(&header);
    for (at, piece) in data.chunks(cut).enumerate() {
        writer.output(at as u64 * 7, piece, &mut text);
    }
    writer.exit(0, Some(0), &mut text);
    let shown: String = read(text.as_bytes(), cut)
        .0
        .into_iter()
        .filter_map(|at| match at.event {
            Event::Output(text) => Some(text),
            _ => None,
        })
        .collect();
    assert_eq!(shown, String::from_utf8_lossy(data));
});
