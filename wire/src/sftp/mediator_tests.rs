use proptest::prelude::*;

use super::*;

const UP: Rights = Rights { upload: true, export: false, export_data: false };
const OUT: Rights = Rights { upload: true, export: true, export_data: false };

fn mediator(rights: Rights) -> Mediator {
    let refusals = Refusals {
        upload: "no upload".to_owned(),
        export: "use the airlock".to_owned(),
        export_data: "data stays".to_owned(),
    };
    let mut mediator = Mediator::new(rights, refusals, "/home/alice");
    mediator.client(Packet::new(kind::INIT).u32(3).finish()).unwrap();
    mediator.server(Packet::new(kind::VERSION).u32(3).finish()).unwrap();
    drain(&mut mediator);
    mediator
}

/// What went to the server, to the client, and was told.
fn drain(mediator: &mut Mediator) -> (Vec<u8>, Vec<u8>, Vec<FileEvent>) {
    let server = std::iter::from_fn(|| mediator.next_for_server()).flatten().collect();
    let client = std::iter::from_fn(|| mediator.next_for_client()).flatten().collect();
    (server, client, std::iter::from_fn(|| mediator.next_event()).collect())
}

fn opening(id: u32, path: &str, flags: u32) -> Bytes {
    Packet::answer(kind::OPEN, id).string(path.as_bytes()).u32(flags).u32(0).finish()
}

fn handle(id: u32, name: &[u8]) -> Bytes {
    Packet::answer(kind::HANDLE, id).string(name).finish()
}

fn write(id: u32, name: &[u8], offset: u64, content: &[u8]) -> Bytes {
    Packet::answer(kind::WRITE, id).string(name).u64(offset).string(content).finish()
}

fn read(id: u32, name: &[u8], offset: u64) -> Bytes {
    Packet::answer(kind::READ, id).string(name).u64(offset).u32(1000).finish()
}

fn close(id: u32, name: &[u8]) -> Bytes {
    Packet::answer(kind::CLOSE, id).string(name).finish()
}

fn data(id: u32, content: &[u8]) -> Bytes {
    Packet::answer(kind::DATA, id).string(content).finish()
}

fn ok(id: u32) -> Bytes {
    Packet::status(id, code::OK, "").finish()
}

fn sha256(content: &[u8]) -> Option<[u8; 32]> {
    Some(Sha256::digest(content).into())
}

#[test]
fn an_upload_passes_as_it_is_and_is_told_with_its_hash() {
    let mut m = mediator(UP);
    let asked = [opening(1, "up.bin", open::WRITE | open::CREAT | open::TRUNC)].concat();
    m.client(asked.clone().into()).unwrap();
    assert_eq!(drain(&mut m).0, asked);
    m.server(handle(1, b"h")).unwrap();
    let asked = [write(2, b"h", 0, b"hello "), write(3, b"h", 6, b"world"), close(4, b"h")].concat();
    m.client(asked.clone().into()).unwrap();
    assert_eq!(drain(&mut m).0, asked);
    m.server([ok(2), ok(3)].concat().into()).unwrap();
    assert_eq!(drain(&mut m).2, []);
    m.server(ok(4)).unwrap();
    let moved = Moved {
        path: "up.bin".to_owned(),
        up: Some(11),
        down: None,
        sha256: sha256(b"hello world"),
        outcome: Outcome::Completed,
    };
    assert_eq!(drain(&mut m).2, [FileEvent::Moved(moved)]);
}

#[test]
fn reading_is_answered_here_without_the_right_to_export() {
    let mut m = mediator(UP);
    for (id, flags) in [(1, open::READ), (2, open::READ | open::WRITE | open::CREAT), (3, 0)] {
        m.client(opening(id, "/home/alice/x", flags)).unwrap();
        let (server, client, events) = drain(&mut m);
        assert!(server.is_empty(), "{flags}");
        let expected = Packet::status(id, code::PERMISSION_DENIED, "use the airlock").finish();
        assert_eq!(client, expected);
        let path = "/home/alice/x".to_owned();
        assert_eq!(events, [FileEvent::Refused { right: Right::Export, path }]);
    }
}

#[test]
fn data_stays_by_every_name_that_spells_it() {
    for (path, refused) in [
        ("/data/x", true),
        ("//data//x", true),
        ("/./home/../data/x", true),
        ("../../data/x", true),
        ("../../../../data", true),
        ("/database", false),
        ("data/x", false),
        ("/home/alice/data/x", false),
    ] {
        let mut m = mediator(OUT);
        m.client(opening(1, path, open::READ)).unwrap();
        assert_eq!(drain(&mut m).0.is_empty(), refused, "{path}");
    }
    let mut m = mediator(Rights { export_data: true, ..OUT });
    m.client(opening(1, "/data/x", open::READ)).unwrap();
    assert!(!drain(&mut m).0.is_empty());
}

#[test]
fn a_handle_is_good_for_what_it_was_opened_for() {
    let mut m = mediator(OUT);
    m.client(opening(1, "w", open::WRITE)).unwrap();
    m.server(handle(1, b"w")).unwrap();
    m.client(opening(2, "r", open::READ)).unwrap();
    m.server(handle(2, b"r")).unwrap();
    drain(&mut m);
    for asked in
        [read(3, b"w", 0), write(4, b"r", 0, b"content"), read(5, b"x", 0), write(6, b"x", 0, &[7; 70_000])]
    {
        m.client(asked).unwrap();
        let (server, client, _) = drain(&mut m);
        assert!(server.is_empty());
        assert_eq!(Fields::new(&client[9..]).u32(), Ok(code::FAILURE));
    }
    m.client(read(7, b"r", 0)).unwrap();
    assert!(!drain(&mut m).0.is_empty());
}

#[test]
fn changes_take_the_right_to_upload() {
    let only_out = Rights { upload: false, ..OUT };
    for kind in [kind::REMOVE, kind::MKDIR, kind::RMDIR, kind::RENAME, kind::SYMLINK, kind::SETSTAT] {
        let mut m = mediator(only_out);
        m.client(Packet::answer(kind, 1).string(b"x").string(b"y").finish()).unwrap();
        assert!(drain(&mut m).0.is_empty(), "{kind}");
    }
    let extended =
        |name: &str| Packet::answer(kind::EXTENDED, 1).string(name.as_bytes()).string(b"x").finish();
    for (name, passes) in [
        ("posix-rename@openssh.com", false),
        ("copy-data", false),
        ("limits@openssh.com", true),
        ("anything@else", false),
    ] {
        let mut m = mediator(only_out);
        m.client(extended(name)).unwrap();
        assert_eq!(!drain(&mut m).0.is_empty(), passes, "{name}");
    }
}

#[test]
fn our_answers_wait_for_the_end_of_the_servers() {
    let mut m = mediator(OUT);
    m.client(opening(1, "r", open::READ)).unwrap();
    m.server(handle(1, b"r")).unwrap();
    m.client(read(2, b"r", 0)).unwrap();
    drain(&mut m);
    let answer = data(2, &[9; 1000]);
    m.server(answer.slice(..500)).unwrap();
    m.client(opening(3, "/data/x", open::READ)).unwrap();
    m.server(answer.slice(500..)).unwrap();
    let refusal = Packet::status(3, code::PERMISSION_DENIED, "data stays").finish();
    assert_eq!(drain(&mut m).1, [answer, refusal].concat());
}

#[test]
fn a_download_out_of_order_has_no_hash_and_a_broken_one_is_told() {
    let mut m = mediator(OUT);
    for (id, name) in [(1, b"a"), (2, b"b"), (3, b"c")] {
        m.client(opening(id, std::str::from_utf8(name).unwrap(), open::READ)).unwrap();
        m.server(handle(id, name)).unwrap();
    }
    let asked = [read(4, b"a", 0), read(5, b"a", 3), read(6, b"b", 0), read(7, b"b", 3)];
    m.client(asked.concat().into()).unwrap();
    // Answers in another order than the questions are legal.
    m.server([data(4, b"abc"), data(5, b"def"), data(7, b"def"), data(6, b"abc")].concat().into()).unwrap();
    m.client([close(8, b"a"), close(9, b"b"), close(10, b"h")].concat().into()).unwrap();
    m.server([ok(8), ok(9)].concat().into()).unwrap();
    m.end();
    let told: Vec<_> = drain(&mut m)
        .2
        .into_iter()
        .map(|event| match event {
            FileEvent::Moved(moved) => (moved.path, moved.down, moved.sha256, moved.outcome),
            FileEvent::Refused { .. } => panic!(),
        })
        .collect();
    assert_eq!(
        told,
        [
            ("a".to_owned(), Some(6), sha256(b"abcdef"), Outcome::Completed),
            ("b".to_owned(), Some(6), None, Outcome::Completed),
            ("c".to_owned(), Some(0), None, Outcome::Aborted),
        ]
    );
}

#[test]
fn what_is_no_sftp_ends_the_session() {
    let mut fresh = Mediator::new(UP, Refusals::default(), "/");
    assert_eq!(fresh.client(opening(1, "x", open::WRITE)), Err(Broken::Beginning));
    let mut m = mediator(UP);
    assert_eq!(m.client(Packet::new(kind::INIT).u32(3).finish()), Err(Broken::Beginning));
    for (bytes, error) in [
        (&[0, 0, 0, 0][..], Broken::Length(0)),
        (&[255, 255, 255, 255, 3], Broken::Length(u32::MAX as usize)),
        (&[0, 4, 0, 0, kind::OPEN], Broken::Length(PACKET_MAX)),
        (&[0, 0, 0, 2, kind::CLOSE, 0], Broken::Short(Short)),
        (&[0, 0, 0, 9, kind::WRITE, 0, 0, 0, 1, 0, 0, 0, 9], Broken::Short(Short)),
    ] {
        assert_eq!(mediator(UP).client(Bytes::copy_from_slice(bytes)), Err(error), "{bytes:?}");
    }
    let mut m = mediator(UP);
    m.client(Packet::answer(kind::STAT, 1).string(b"x").finish()).unwrap();
    let again = m.client(Packet::answer(kind::STAT, 1).string(b"x").finish());
    assert_eq!(again, Err(Broken::Reused(1)));
    assert_eq!(mediator(UP).server(ok(1)), Err(Broken::Unasked(1)));
    let mut m = mediator(UP);
    m.client(Packet::answer(kind::STAT, 1).string(b"x").finish()).unwrap();
    assert_eq!(m.server(data(1, b"stolen")), Err(Broken::Unasked(1)));
}

#[test]
fn who_asks_without_taking_answers_waits() {
    let mut m = mediator(UP);
    let mut id = 0;
    while m.takes() {
        id += 1;
        m.client(opening(id, "x", open::READ)).unwrap();
    }
    assert_eq!(id as usize, OUTSTANDING);
    drain(&mut m);
    assert!(m.takes());
}

proptest! {
    /// How the bytes are cut makes no difference.
    #[test]
    fn pieces_are_as_good_as_the_whole(cuts in proptest::collection::vec(1usize..400, 1..60)) {
        let asked = [
            opening(1, "up", open::WRITE), opening(2, "/data/x", open::READ), opening(3, "r", open::READ),
        ].concat();
        let more = [write(4, b"1", 0, &[5; 900]), read(5, b"3", 0), write(6, b"9", 0, &[6; 300]),
            close(7, b"1"), close(8, b"3")].concat();
        let answers = [handle(1, b"1"), handle(3, b"3")].concat();
        let later = [ok(4), data(5, &[7; 800]), ok(7), ok(8)].concat();
        let play = |cut: &mut dyn FnMut(usize) -> usize| {
            let mut m = mediator(OUT);
            let mut all = (Vec::new(), Vec::new(), Vec::new());
            for (bytes, asks) in [(&asked, true), (&answers, false), (&more, true), (&later, false)] {
                let mut rest = Bytes::copy_from_slice(bytes);
                while !rest.is_empty() {
                    let piece = rest.split_to(cut(rest.len()));
                    if asks { m.client(piece).unwrap() } else { m.server(piece).unwrap() }
                    let got = drain(&mut m);
                    all.0.extend(got.0);
                    all.1.extend(got.1);
                    all.2.extend(got.2);
                }
            }
            all
        };
        let whole = play(&mut |left| left);
        let mut cuts = cuts.into_iter().cycle();
        let pieces = play(&mut |left| cuts.next().unwrap_or(1).min(left));
        prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn noise_is_refused_or_passed_and_never_more_than_came(
        noise in proptest::collection::vec(any::<u8>(), 0..2000)
    ) {
        let mut m = mediator(OUT);
        let _ = m.client(noise.clone().into());
        let (server, _, _) = drain(&mut m);
        prop_assert!(server.len() <= noise.len());
        let mut m = mediator(OUT);
        let _ = m.server(noise.clone().into());
        prop_assert!(drain(&mut m).1.len() <= noise.len());
    }
}
