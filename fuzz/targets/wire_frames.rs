//! Frames: however the stream is cut, the same frames, and never more held than one may measure.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use wire::frame::{Decoder, Frame, FrameError, HEAD, ORDER_MAX};

fn decode(data: &[u8], cut: usize) -> (Vec<Frame>, Result<(), FrameError>) {
    let mut decoder = Decoder::default();
    let mut frames = Vec::new();
    for chunk in data.chunks(cut) {
        decoder.push(Bytes::copy_from_slice(chunk));
        loop {
            match decoder.next_frame() {
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
    assert_eq!(decode(data, usize::from(cut) + 1), decode(data, usize::MAX));
});
