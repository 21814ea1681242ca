//! Frames: however the stream is cut, the same frames, and never more held than one may measure. Where
//! one of bulk data is cut into parts is left to the decoder.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use wire::frame::{Decoder, Frame, FrameError, HEAD, ORDER_MAX};

/// Frames, those of bulk data byte by byte.
fn decode(data: &[u8], cut: usize) -> (Vec<Frame>, Result<(), FrameError>) {
    let mut decoder = Decoder::default();
    let mut frames = Vec::new();
    for chunk in data.chunks(cut) {
        decoder.push(Bytes::copy_from_slice(chunk));
        loop {
            match decoder.next_frame() {
                Ok(Some(Frame { tag, body })) if tag.is_bulk() && !body.is_empty() => {
                    frames.extend((0..body.len()).map(|at| Frame { tag, body: body.slice(at..=at) }));
                }
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
        assert!(decoder.held() < HEAD + ORDER_MAX);
    }
    (frames, decoder.end())
}

fuzz_target!(|data: &[u8]| {
    let Some((&cut, data)) = data.split_first() else { return };
    // Up to 64 KiB, so that parts are met at every size of a chunk.
    let (cut, end) = decode(data, (usize::from(cut) + 1).pow(2));
    let (whole, whole_end) = decode(data, usize::MAX);
    assert_eq!(end, whole_end);
    if end == Err(FrameError::Truncated) {
        assert!(whole.starts_with(&cut) || cut.starts_with(&whole));
    } else {
        assert_eq!(cut, whole);
    }
});
