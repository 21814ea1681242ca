use proptest::prelude::*;

use super::*;

fn answer(transaction: u32, data: &str) -> Vec<u8> {
    format!("{transaction} rsp {} {data}\n", data.len()).into_bytes()
}

const WELCOME: &str = "200 OK\nrelp_version=0\nrelp_software=librelp,1.11.0\ncommands=syslog";

fn open() -> Relp {
    let mut relp = Relp::new();
    let hello = relp.transmit().unwrap();
    assert!(hello.starts_with(b"1 open "));
    assert!(hello.ends_with(b"commands=syslog\n\n"));
    assert_eq!((relp.room(), relp.send(1, b"too early")), (0, false));
    assert_eq!(relp.receive(&answer(1, WELCOME)), Ok(None));
    relp
}

#[test]
fn messages_count_when_all_before_them_are_acknowledged() {
    let mut relp = open();
    assert!(relp.send(1, b"a") && relp.send(2, b"bb") && relp.send(3, b"ccc"));
    assert_eq!(relp.transmit().unwrap(), b"2 syslog 1 a\n3 syslog 2 bb\n4 syslog 3 ccc\n");
    assert_eq!(relp.transmit(), None);
    assert_eq!(relp.receive(&answer(3, "200 OK")), Ok(None));
    assert_eq!(relp.receive(b"2 rsp 6 200"), Ok(None));
    assert_eq!(relp.receive(b" OK\n4 rsp 6 200 OK\n"), Ok(Some(3)));
    assert_eq!((relp.waiting(), relp.room()), (0, WINDOW));
}

#[test]
fn no_more_than_a_window_is_under_way() {
    let mut relp = open();
    for next in 1..=WINDOW as u64 {
        assert!(relp.send(next, b"x"));
    }
    assert!(!relp.send(1000, b"one too many"));
    assert_eq!(relp.receive(&answer(2, "200 OK")), Ok(Some(1)));
    assert!(relp.send(1000, b"now"));
}

#[test]
fn numbers_begin_anew() {
    let mut relp = open();
    relp.transaction = TRANSACTION_MAX - 1;
    assert!(relp.send(1, b"x") && relp.send(2, b"y"));
    assert_eq!(relp.transmit().unwrap(), b"999999999 syslog 1 x\n1 syslog 1 y\n");
    assert_eq!(relp.receive(b"999999999 rsp 6 200 OK\n1 rsp 6 200 OK\n"), Ok(Some(2)));
}

#[test]
fn a_lying_collector_is_left() {
    let mut relp = open();
    relp.send(1, b"x");
    let refused = RelpError::Refused { what: "a message", answer: "500 no space\\n".to_owned() };
    for (said, error) in [
        (answer(3, "200 OK"), RelpError::Unasked(3)),
        (answer(2, "500 no space\n"), refused),
        (b"0 serverclose 0\n".to_vec(), RelpError::Closed),
        (b"7 syslog 1 x\n".to_vec(), RelpError::Command("syslog".to_owned())),
        (b"2 rsp 8193 ".to_vec(), RelpError::Frame(FrameError::TooLong(8193))),
        (b"GET / HTTP/1.1\r\n".to_vec(), RelpError::Frame(FrameError::Malformed)),
        (b"2 rsp 6 200 OK!".to_vec(), RelpError::Frame(FrameError::Malformed)),
    ] {
        let mut relp = open();
        relp.send(1, b"x");
        assert_eq!(relp.receive(&said), Err(error));
    }
    // An acknowledgement counts once.
    assert_eq!(relp.receive(&answer(2, "200 OK")), Ok(Some(1)));
    assert_eq!(relp.receive(&answer(2, "200 OK")), Err(RelpError::Unasked(2)));
    for (welcome, error) in [
        ("200 OK\ncommands=eventlog", RelpError::NoSyslog),
        ("2000 OK\ncommands=syslog", RelpError::Refused { what: "the session", answer: String::new() }),
    ] {
        let got = Relp::new().receive(&answer(1, welcome)).unwrap_err();
        assert_eq!(std::mem::discriminant(&got), std::mem::discriminant(&error));
    }
}

#[test]
fn goodbye_is_answered_or_not() {
    let mut relp = open();
    relp.send(1, b"x");
    relp.close();
    assert!(relp.transmit().unwrap().ends_with(b"\n3 close 0\n"));
    assert_eq!(relp.receive(b"2 rsp 6 200 OK\n3 rsp 0\n0 serverclose 0\n"), Err(RelpError::Closed));
}

fn frames(mut bytes: &[u8], cut: usize) -> (Vec<Frame>, Option<FrameError>) {
    let mut decoder = Decoder::default();
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (mut chunk, rest) = bytes.split_at(cut.min(bytes.len()));
        bytes = rest;
        loop {
            match decoder.next_frame(&mut chunk) {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                Err(error) => return (found, Some(error)),
            }
            assert!(decoder.held() <= ANSWER_MAX + 64);
        }
    }
    (found, None)
}

proptest! {
    #[test]
    fn frames_are_the_same_however_they_are_cut(
        sent in prop::collection::vec((0_u32..1_000_000_000, "[a-z]{1,32}", prop::collection::vec(any::<u8>(), 0..200)), 0..20),
        cut in 1_usize..300,
    ) {
        let mut bytes = Vec::new();
        for (transaction, command, data) in &sent {
            bytes.extend_from_slice(format!("{transaction} {command} {}", data.len()).as_bytes());
            if !data.is_empty() {
                bytes.push(b' ');
                bytes.extend_from_slice(data);
            }
            bytes.push(b'\n');
        }
        let expected: Vec<Frame> = sent.into_iter().map(|(transaction, command, data)| Frame { transaction, command, data }).collect();
        prop_assert_eq!(frames(&bytes, cut), (expected, None));
    }

    #[test]
    fn anything_else_ends_the_session_or_nothing_does(bytes: Vec<u8>, near in "[0-9 rsp\n]{0,60}", cut in 1_usize..40) {
        for bytes in [&bytes[..], near.as_bytes()] {
            prop_assert_eq!(frames(bytes, cut), frames(bytes, usize::MAX));
            let mut relp = open();
            relp.send(5, b"x");
            if let Ok(Some(delivered)) = relp.receive(bytes) {
                prop_assert_eq!(delivered, 5);
            }
        }
    }
}
