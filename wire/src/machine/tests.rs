use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::message::*;

fn bytes_of<M: Script>(messages: impl IntoIterator<Item = M>) -> Bytes {
    let mut outbound = Outbound::new();
    let mut out = VecDeque::new();
    for message in messages {
        outbound.say(message, &mut out).unwrap();
    }
    let mut all = BytesMut::new();
    out.iter().for_each(|part| all.extend_from_slice(part));
    all.freeze()
}

fn hear<M: Script>(chunks: impl IntoIterator<Item = Bytes>) -> (Vec<M>, Result<(), ProtocolError>) {
    let mut inbound = Inbound::new();
    let mut heard = Vec::new();
    for chunk in chunks {
        inbound.push(chunk);
        loop {
            match inbound.next_message() {
                Ok(Some(message)) => heard.push(message),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(inbound.next_message().err(), Some(error.clone()), "an error is final");
                    return (heard, Err(error));
                }
            }
        }
    }
    (heard, inbound.end())
}

fn hello() -> Hello {
    Hello {
        version: VERSION,
        agent: "sekisho-agent 0.1".into(),
        kernel: "6.12".into(),
        intake_key: [7; 32],
        keeping_key: [8; 32],
        backends: vec![("backend:a".parse().unwrap(), "Tsukuba".into())],
        near: vec!["backend:a".parse().unwrap()],
        capacity: 8,
        load: load(),
    }
}

fn load() -> Load {
    let running = Running { workspace: "ws:w".parse().unwrap(), sessions: 1, idle_secs: 0 };
    Load { sessions: 1, cpu_permille: 250, memory_permille: 400, running: vec![running] }
}

fn opened() -> SessionOutput {
    SessionOutput::Opened { workspace: "ws:w".parse().unwrap(), cold: true, notices: vec!["full".into()] }
}

#[test]
fn a_whole_session_survives_the_trip() {
    let order = Order::Session(OpenSession {
        ticket: vec![1; 100_000],
        command: Command::Exec(b"samtools view x.bam".to_vec()),
        pty: Some(Pty {
            term: "xterm".into(),
            cols: 80,
            rows: 24,
            width_px: 0,
            height_px: 0,
            modes: vec![(3, 127)],
        }),
        env: vec![("LANG".into(), "ja_JP.UTF-8".into())],
    });
    let input = [
        SessionInput::Stdin(Bytes::from_static(b"q")),
        SessionInput::Resize(WindowSize { cols: 90, rows: 30, width_px: 0, height_px: 0 }),
        SessionInput::StdinEof,
        SessionInput::Signal("INT".into()),
        SessionInput::Kill { reason: "locked".into() },
    ];
    let mut inbound = Inbound::<Order>::new();
    inbound.push(bytes_of([order.clone()]));
    inbound.push(bytes_of(input.clone()));
    assert_eq!(inbound.next_message().unwrap(), Some(order));
    let mut inbound = inbound.becomes::<SessionInput>();
    let heard: Vec<_> = std::iter::from_fn(|| inbound.next_message().unwrap()).collect();
    assert_eq!(heard, input);
    assert_eq!(inbound.end(), Ok(()));

    let output = [
        opened(),
        SessionOutput::Stdout(vec![1; 100].into()),
        SessionOutput::Stderr(Bytes::from_static(b"warn")),
        SessionOutput::Exit(Exited::Signal { name: "TERM".into(), core: false }),
    ];
    let (heard, end) = hear::<SessionOutput>([bytes_of(output.clone())]);
    assert_eq!((heard.as_slice(), end), (&output[..], Ok(())));
}

#[test]
fn control_and_deposit_survive_the_trip() {
    let event = AgentEvent::ReadFault {
        session: None,
        object: "obj:o".parse().unwrap(),
        backend: "backend:a".parse().unwrap(),
        institution: "Tsukuba".into(),
        kind: FaultKind::Corrupt,
        block: Some(3),
        detail: "tag mismatch".into(),
    };
    let said = [AgentControl::Hello(hello()), AgentControl::Report(Report { seq: 1, event })];
    assert_eq!(hear::<AgentControl>([bytes_of(said.clone())]).0, said);
    let said = [
        BrokerControl::Welcome { version: 1, td: "sekisho.test".into() },
        BrokerControl::Ack { seq: 9 },
        BrokerControl::Accept { state: "0123456789abcdef".into() },
        BrokerControl::Ack { seq: 10 },
    ];
    assert_eq!(hear::<BrokerControl>([bytes_of(said.clone())]).0, said);
    let said = [DepositInput::Data(Bytes::from_static(b"crypt4gh")), DepositInput::DataEof];
    assert_eq!(hear::<DepositInput>([bytes_of(said.clone())]), (said.to_vec(), Ok(())));
    let said = [
        DepositOutput::Ready,
        DepositOutput::Progress { bytes: 1 << 40 },
        DepositOutput::Deposited { size: 1 << 40, root: [3; 32] },
    ];
    assert_eq!(hear::<DepositOutput>([bytes_of(said.clone())]), (said.to_vec(), Ok(())));
    let said = [FetchOutput::Found { size: 7 }, FetchOutput::Piece(vec![1; 7].into()), FetchOutput::PieceEof];
    assert_eq!(hear::<FetchOutput>([bytes_of(said.clone())]), (said.to_vec(), Ok(())));
    assert_eq!(hear::<FetchInput>([bytes_of([FetchInput::Received])]).1, Ok(()));
}

#[test]
fn another_version_is_known_by_its_number_alone() {
    let older = postcard::to_stdvec(&(2_u16, "sekisho-agent 0.1", "6.12", [7_u8; 32], 0_u8, 8_u8)).unwrap();
    let mut frame = (older.len() as u32 + 1).to_le_bytes().to_vec();
    frame.push(crate::frame::Tag::Hello as u8);
    frame.extend(older);
    let (heard, _) = hear::<AgentControl>([frame.into()]);
    assert!(matches!(&heard[..], [AgentControl::Hello(Hello { version: 2, .. })]), "{heard:?}");
    let mut cut = bytes_of([AgentControl::Hello(hello())]).to_vec();
    cut.pop();
    cut[0] -= 1;
    assert!(hear::<AgentControl>([cut.into()]).1.is_err(), "our own version is read strictly");
}

/// What each script must refuse, each as (what was said before, what is said out of turn).
#[test]
fn out_of_turn_is_a_violation_on_both_sides() {
    fn refused<M: Script + Clone + std::fmt::Debug>(before: &[M], bad: M) -> Violation {
        let mut outbound = Outbound::new();
        let mut out = VecDeque::new();
        let mut state = M::State::default();
        for message in before {
            state = message.step(state).unwrap();
            outbound.say(message.clone(), &mut out).unwrap();
        }
        let said = outbound.say(bad.clone(), &mut out).unwrap_err();
        let heard = bad.step(state).unwrap_err();
        assert_eq!(said, ProtocolError::Violation(heard));
        heard
    }
    let ack = |seq| BrokerControl::Ack { seq };
    let welcome = BrokerControl::Welcome { version: 1, td: "t".into() };
    let reject = BrokerControl::Reject { reason: "no".into() };
    let report = |seq| {
        let workspace = "ws:w".parse().unwrap();
        AgentControl::Report(Report { seq, event: AgentEvent::WorkspaceStarted { workspace, cold_ms: 1 } })
    };
    let hello = AgentControl::Hello(hello());
    assert_eq!(refused(&[], report(1)), Violation::TooEarly("Report"));
    assert_eq!(refused(std::slice::from_ref(&hello), hello.clone()), Violation::Again("Hello"));
    assert_eq!(refused(&[hello, report(4)], report(4)), Violation::Sequence { seq: 4, last: 4 });
    assert_eq!(refused(&[], ack(1)), Violation::TooEarly("Ack"));
    let accept = BrokerControl::Accept { state: "0".into() };
    assert_eq!(refused(&[], accept.clone()), Violation::TooEarly("Accept"));
    assert_eq!(refused(std::slice::from_ref(&reject), accept), Violation::TooLate("a message"));
    assert_eq!(refused(&[welcome.clone(), ack(2)], ack(1)), Violation::Sequence { seq: 1, last: 2 });
    assert_eq!(refused(&[welcome], reject.clone()), Violation::Again("admission"));
    assert_eq!(refused(&[reject], ack(1)), Violation::TooLate("a message"));

    let stdin = || SessionInput::Stdin(Bytes::from_static(b"x"));
    let kill = || SessionInput::Kill { reason: String::new() };
    assert_eq!(refused(&[SessionInput::StdinEof], stdin()), Violation::Again("Stdin"));
    assert_eq!(refused(&[SessionInput::StdinEof], SessionInput::StdinEof), Violation::Again("StdinEof"));
    assert_eq!(refused(&[kill()], kill()), Violation::TooLate("session input"));

    let stdout = || SessionOutput::Stdout(Bytes::from_static(b"x"));
    let no = || SessionOutput::Refused(Refused { code: "c".into(), message: "m".into() });
    let exit = || SessionOutput::Exit(Exited::Code(0));
    assert_eq!(refused(&[], stdout()), Violation::TooEarly("session output"));
    assert_eq!(refused(&[], exit()), Violation::TooEarly("session output"));
    assert_eq!(refused(&[opened()], no()), Violation::Again("the answer"));
    assert_eq!(refused(&[no()], stdout()), Violation::TooLate("session output"));
    assert_eq!(refused(&[opened(), exit()], stdout()), Violation::TooLate("session output"));

    let data = || DepositInput::Data(Bytes::from_static(b"x"));
    assert_eq!(refused(&[DepositInput::DataEof], data()), Violation::TooLate("deposit data"));
    let done = DepositOutput::Deposited { size: 0, root: [0; 32] };
    assert_eq!(refused(&[], done.clone()), Violation::TooEarly("a deposit's progress"));
    assert_eq!(refused(&[DepositOutput::Ready], DepositOutput::Ready), Violation::Again("Ready"));
    assert_eq!(
        refused(&[DepositOutput::Ready, done.clone()], done),
        Violation::TooLate("a deposit's answer")
    );

    let found = FetchOutput::Found { size: 1 };
    let piece = || FetchOutput::Piece(Bytes::from_static(b"x"));
    assert_eq!(refused(&[], piece()), Violation::TooEarly("a record's bytes"));
    assert_eq!(refused(&[], FetchOutput::PieceEof), Violation::TooEarly("a record's bytes"));
    assert_eq!(refused(std::slice::from_ref(&found), found.clone()), Violation::Again("Found"));
    assert_eq!(refused(&[found, FetchOutput::PieceEof], piece()), Violation::TooLate("a fetch's answer"));
    assert_eq!(refused(&[FetchInput::Received], FetchInput::Received), Violation::TooLate("Received"));
}

#[test]
fn frames_of_another_direction_and_early_ends_are_violations() {
    let (_, end) = hear::<SessionInput>([bytes_of([opened()])]);
    assert_eq!(end, Err(Violation::NotHere(crate::frame::Tag::Opened).into()));
    let (heard, end) = hear::<SessionOutput>([bytes_of([opened()])]);
    assert_eq!((heard.len(), end), (1, Err(Violation::EndedEarly.into())));
    let (_, end) = hear::<DepositInput>([]);
    assert_eq!(end, Err(Violation::EndedEarly.into()));
}

#[test]
fn what_people_type_is_not_in_debug_output() {
    let stdin = SessionInput::Stdin(Bytes::from_static(b"hunter2"));
    let open =
        OpenSession { ticket: b"hunter2".to_vec(), command: Command::Shell, pty: None, env: Vec::new() };
    assert_eq!(format!("{stdin:?}"), "Stdin(7 bytes)");
    assert!(!format!("{open:?}").contains("104"));
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_messages(
        sizes in prop::collection::vec(1usize..5000, 0..6),
        cut in 1usize..900,
    ) {
        let mut said = vec![opened()];
        said.extend(sizes.iter().map(|&n| SessionOutput::Stdout(vec![n as u8; n].into())));
        said.push(SessionOutput::Exit(Exited::Code(3)));
        let all = bytes_of(said.clone());
        let chunks = all.chunks(cut).map(Bytes::copy_from_slice).collect::<Vec<_>>();
        prop_assert_eq!(hear::<SessionOutput>(chunks), (said, Ok(())));
    }

    #[test]
    fn hostile_bodies_never_panic(tag in 0u8..0x80, body in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut frame = (body.len() as u32 + 1).to_le_bytes().to_vec();
        frame.push(tag);
        frame.extend(body);
        let frame = Bytes::from(frame);
        let _ = hear::<AgentControl>([frame.clone()]);
        let _ = hear::<BrokerControl>([frame.clone()]);
        let _ = hear::<Order>([frame.clone()]);
        let _ = hear::<SessionInput>([frame.clone()]);
        let _ = hear::<SessionOutput>([bytes_of([opened()]), frame.clone()]);
        let _ = hear::<DepositInput>([frame.clone()]);
        let _ = hear::<DepositOutput>([bytes_of([DepositOutput::Ready]), frame.clone()]);
        let _ = hear::<FetchInput>([frame.clone()]);
        let _ = hear::<FetchOutput>([bytes_of([FetchOutput::Found { size: 1 }]), frame]);
    }
}
