//! The mediator of `sftp`: whatever either side sends, it neither panics nor lets out what it must
//! not, and how the bytes are cut makes no difference.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use wire::sftp::{FileEvent, Mediator, Packet, Refusals, Rights, kind};

/// Plays pieces of (whether the client said it, bytes): what came out on each side.
fn play(rights: Rights, said: &[(bool, &[u8])], cut: usize) -> (Vec<u8>, Vec<u8>, Vec<FileEvent>, bool) {
    let mut mediator = Mediator::new(rights, Refusals::default(), "/home/a");
    let (mut server, mut client, mut events) = (Vec::new(), Vec::new(), Vec::new());
    let mut whole = true;
    'all: for (asks, bytes) in said {
        for piece in bytes.chunks(cut.max(1)) {
            let piece = Bytes::copy_from_slice(piece);
            let went = if *asks { mediator.client(piece) } else { mediator.server(piece) };
            server.extend(std::iter::from_fn(|| mediator.next_for_server()).flatten());
            client.extend(std::iter::from_fn(|| mediator.next_for_client()).flatten());
            events.extend(std::iter::from_fn(|| mediator.next_event()));
            if went.is_err() {
                whole = false;
                break 'all;
            }
        }
    }
    mediator.end();
    events.extend(std::iter::from_fn(|| mediator.next_event()));
    (server, client, events, whole)
}

fuzz_target!(|data: &[u8]| {
    let Some((&[flags, cut], mut rest)) = data.split_first_chunk::<2>() else { return };
    let rights = Rights { upload: flags & 1 != 0, export: flags & 2 != 0, export_data: flags & 4 != 0 };
    let init = Packet::new(kind::INIT).u32(3).finish();
    let mut said: Vec<(bool, &[u8])> = vec![(true, &init[..])];
    // A byte of who speaks and for how long, and what is said.
    while let Some((&head, more)) = rest.split_first() {
        let (now, later) = more.split_at(more.len().min(usize::from(head >> 1)));
        said.push((head & 1 == 0, now));
        rest = later;
    }
    let asked: usize = said.iter().filter(|(asks, _)| *asks).map(|(_, bytes)| bytes.len()).sum();
    let a = play(rights, &said, usize::MAX);
    assert!(a.0.len() <= asked, "more went to the server than was asked");
    if !rights.upload && !rights.export {
        // Nothing was opened, so nothing can have been moved.
        assert!(!a.2.iter().any(|event| matches!(event, FileEvent::Moved(_))));
    }
    let b = play(rights, &said, usize::from(cut));
    assert_eq!(a.3, b.3);
    if a.3 {
        assert_eq!(a, b);
    }
});
