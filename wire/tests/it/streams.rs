//! Sessions and deposits: data, back-pressure, and ends of every kind.

use std::time::{Duration, Instant};

use bytes::Bytes;
use wire::agent::Incoming;
use wire::message::{
    DepositInput, DepositOutput, Exited, FetchInput, FetchOutput, OpenDeposit, OpenFetch, Refused,
    SessionInput, SessionOutput, WindowSize,
};
use wire::{Limits, StreamError, broker};

use crate::party::{World, narrow, order, soon};

fn opened() -> SessionOutput {
    SessionOutput::Opened { workspace: "ws:w".parse().unwrap(), cold: false, notices: Vec::new() }
}

async fn next_session(agent: &wire::agent::BrokerLink) -> wire::agent::SessionStream {
    match soon(agent.accept()).await {
        Some(Incoming::Session(open, stream)) => {
            assert_eq!(open, order());
            stream
        }
        other => panic!("{other:?}"),
    }
}

/// Answers every session with what it is sent.
async fn echo(mut stream: wire::agent::SessionStream) {
    stream.sender.send(opened()).await.unwrap();
    loop {
        match stream.receiver.next().await.unwrap() {
            Some(SessionInput::Stdin(data)) => {
                stream.sender.send(SessionOutput::Stdout(data)).await.unwrap();
            }
            Some(SessionInput::StdinEof) => break,
            other => panic!("{other:?}"),
        }
    }
    stream.sender.send(SessionOutput::Exit(Exited::Code(0))).await.unwrap();
}

/// A byte that depends on its place.
fn pattern(at: usize) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16)) as u8
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_mebibytes_there_and_back() {
    const SIZE: usize = 64 * 1024 * 1024;
    let world = World::new();
    let (_listener, link, agent) = world.pair(Limits::default()).await;
    let answering = agent.clone();
    tokio::spawn(async move { echo(next_session(&answering).await).await });
    let broker::SessionStream { mut sender, mut receiver } = link.open_session(order()).await.unwrap();
    let whole: Bytes = (0..SIZE).map(pattern).collect::<Vec<u8>>().into();
    let expected = whole.clone();
    let started = Instant::now();
    let sending = tokio::spawn(async move {
        let mut rest = whole;
        let mut sizes = [1usize, 17, 4096, 65_535, 700_000].into_iter().cycle();
        while !rest.is_empty() {
            let piece = rest.split_to(sizes.next().unwrap().min(rest.len()));
            sender.send(SessionInput::Stdin(piece)).await.unwrap();
        }
        sender.send(SessionInput::StdinEof).await.unwrap();
        sender
    });
    assert_eq!(soon(receiver.next()).await.unwrap(), Some(opened()));
    let mut at = 0;
    let exit = loop {
        match soon(receiver.next()).await.unwrap() {
            Some(SessionOutput::Stdout(data)) => {
                assert!(data == expected[at..at + data.len()], "differs near {at}");
                at += data.len();
            }
            other => break other,
        }
    };
    assert_eq!((at, exit), (SIZE, Some(SessionOutput::Exit(Exited::Code(0)))));
    assert_eq!(soon(receiver.next()).await.unwrap(), None);
    let rate = 2.0 * SIZE as f64 / 1048576.0 / started.elapsed().as_secs_f64();
    println!("{rate:.0} MiB/s, both directions together");
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn a_stalled_reader_holds_a_window_and_stalls_nobody_else() {
    let world = World::new();
    let limits = Limits { patience: Duration::from_secs(2), ..narrow() };
    let (_listener, link, agent) = world.pair(limits.clone()).await;
    // Three of the four streams stall with their windows full; the agent never reads them.
    let mut stalled = Vec::new();
    for _ in 0..3 {
        let mut stream = link.open_session(order()).await.unwrap();
        let theirs = next_session(&agent).await;
        let mut taken = 0;
        let piece = Bytes::from(vec![0; 16 * 1024]);
        while tokio::time::timeout(
            Duration::from_millis(300),
            stream.sender.send(SessionInput::Stdin(piece.clone())),
        )
        .await
        .is_ok()
        {
            taken += piece.len();
        }
        assert!(taken <= limits.stream_window as usize, "{taken} bytes were taken");
        assert!(taken >= limits.stream_window as usize / 2, "{taken} bytes were taken");
        stalled.push((stream, theirs));
    }
    // The fourth one runs as if they were not there, far beyond the sum of the windows.
    let mut stream = link.open_session(order()).await.unwrap();
    let theirs = next_session(&agent).await;
    tokio::spawn(echo(theirs));
    assert_eq!(soon(stream.receiver.next()).await.unwrap(), Some(opened()));
    for _ in 0..64 {
        stream.sender.send(SessionInput::Stdin(vec![1; 64 * 1024].into())).await.unwrap();
        let mut back = 0;
        while back < 64 * 1024 {
            match soon(stream.receiver.next()).await.unwrap() {
                Some(SessionOutput::Stdout(data)) => back += data.len(),
                other => panic!("{other:?}"),
            }
        }
    }
    // A fifth has to wait, and is told so.
    let link = link.clone();
    let fifth = link.open_session(order()).await;
    assert!(matches!(fifth, Err(broker::OpenError::Busy)), "{fifth:?}");
    // A kill does not wait for ever behind what nobody reads.
    let (mut ours, mut theirs) = stalled.pop().unwrap();
    soon(ours.sender.kill("locked")).await.unwrap();
    loop {
        match soon(theirs.receiver.next()).await {
            Ok(Some(SessionInput::Stdin(_))) => {}
            Err(StreamError::Abandoned) => break,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn input_events_arrive_in_order_and_a_kill_is_the_last() {
    let world = World::new();
    let (_listener, link, agent) = world.pair(Limits::default()).await;
    let mut stream = link.open_session(order()).await.unwrap();
    let mut theirs = next_session(&agent).await;
    let size = WindowSize { cols: 132, rows: 50, width_px: 0, height_px: 0 };
    stream.sender.send(SessionInput::Resize(size)).await.unwrap();
    stream.sender.send(SessionInput::Signal("INT".into())).await.unwrap();
    stream.sender.kill("locked").await.unwrap();
    assert_eq!(soon(theirs.receiver.next()).await.unwrap(), Some(SessionInput::Resize(size)));
    assert_eq!(soon(theirs.receiver.next()).await.unwrap(), Some(SessionInput::Signal("INT".into())));
    let kill = SessionInput::Kill { reason: "locked".into() };
    assert_eq!(soon(theirs.receiver.next()).await.unwrap(), Some(kill));
    assert_eq!(soon(theirs.receiver.next()).await.unwrap(), None);
    let late = stream.sender.send(SessionInput::StdinEof).await;
    assert!(matches!(late, Err(StreamError::Protocol(_))), "{late:?}");
}

#[tokio::test]
async fn a_refusal_is_the_last_word() {
    let world = World::new();
    let (_listener, link, agent) = world.pair(Limits::default()).await;
    let mut stream = link.open_session(order()).await.unwrap();
    let mut theirs = next_session(&agent).await;
    let refused = Refused { code: "ticket.expired".into(), message: "too late".into() };
    theirs.sender.send(SessionOutput::Refused(refused.clone())).await.unwrap();
    assert_eq!(soon(stream.receiver.next()).await.unwrap(), Some(SessionOutput::Refused(refused)));
    assert_eq!(soon(stream.receiver.next()).await.unwrap(), None);
}

#[tokio::test]
async fn a_dropped_half_is_noticed() {
    let world = World::new();
    let (_listener, link, agent) = world.pair(Limits::default()).await;
    let stream = link.open_session(order()).await.unwrap();
    let mut theirs = next_session(&agent).await;
    theirs.sender.send(opened()).await.unwrap();
    let gone = theirs.sender.gone();
    drop(stream);
    assert!(matches!(soon(theirs.receiver.next()).await, Err(StreamError::Abandoned)));
    soon(gone).await;

    let mut stream = link.open_session(order()).await.unwrap();
    drop(next_session(&agent).await);
    assert!(matches!(soon(stream.receiver.next()).await, Err(StreamError::Abandoned)));
}

#[tokio::test]
async fn a_cancelled_send_leaves_no_half_frame() {
    let world = World::new();
    let (_listener, link, agent) = world.pair(narrow()).await;
    let mut stream = link.open_session(order()).await.unwrap();
    let mut theirs = next_session(&agent).await;
    // Larger than the window: the first send is cancelled midway.
    let big = Bytes::from((0..600_000).map(pattern).collect::<Vec<u8>>());
    let cancelled = tokio::time::timeout(
        Duration::from_millis(200),
        stream.sender.send(SessionInput::Stdin(big.clone())),
    );
    assert!(cancelled.await.is_err());
    let reading = tokio::spawn(async move {
        let mut all = Vec::new();
        while let Ok(Some(SessionInput::Stdin(data))) = theirs.receiver.next().await {
            all.extend_from_slice(&data);
        }
        all
    });
    stream.sender.send(SessionInput::Stdin(Bytes::from_static(b"end"))).await.unwrap();
    stream.sender.send(SessionInput::StdinEof).await.unwrap();
    let all = soon(reading).await.unwrap();
    assert_eq!(all.len(), big.len() + 3);
    assert!(all.starts_with(&big) && all.ends_with(b"end"));
}

#[tokio::test]
async fn a_deposit_goes_through() {
    let world = World::new();
    let (_listener, link, agent) = world.pair(Limits::default()).await;
    let mut stream = link.open_deposit(OpenDeposit { ticket: vec![2; 1_000_000] }).await.unwrap();
    let mut theirs = match soon(agent.accept()).await {
        Some(Incoming::Deposit(open, stream)) => {
            assert_eq!(open.ticket.len(), 1_000_000);
            stream
        }
        other => panic!("{other:?}"),
    };
    theirs.sender.send(DepositOutput::Ready).await.unwrap();
    assert_eq!(soon(stream.receiver.next()).await.unwrap(), Some(DepositOutput::Ready));
    stream.sender.send(DepositInput::Data(vec![5; 1_000_000].into())).await.unwrap();
    stream.sender.send(DepositInput::DataEof).await.unwrap();
    let mut size = 0;
    while let Some(input) = soon(theirs.receiver.next()).await.unwrap() {
        match input {
            DepositInput::Data(data) => size += data.len() as u64,
            DepositInput::DataEof => {}
        }
        theirs.sender.send(DepositOutput::Progress { bytes: size }).await.unwrap();
    }
    theirs.sender.send(DepositOutput::Deposited { size, root: [4; 32] }).await.unwrap();
    let mut last = None;
    while let Some(output) = soon(stream.receiver.next()).await.unwrap() {
        last = Some(output);
    }
    assert_eq!(last, Some(DepositOutput::Deposited { size: 1_000_000, root: [4; 32] }));
}

#[tokio::test]
async fn a_record_is_fetched_as_fast_as_it_is_taken() {
    let world = World::new();
    let (_listener, link, agent) = world.pair(Limits::default()).await;
    let mut stream = link.open_fetch(OpenFetch { ticket: vec![3; 500] }).await.unwrap();
    let mut theirs = match soon(agent.accept()).await {
        Some(Incoming::Fetch(open, stream)) => {
            assert_eq!(open.ticket, vec![3; 500]);
            stream
        }
        other => panic!("{other:?}"),
    };
    const PIECES: usize = 64;
    let sending = tokio::spawn(async move {
        let size = (PIECES << 20) as u64;
        theirs.sender.send(FetchOutput::Found { size }).await.unwrap();
        for n in 0..PIECES {
            theirs.sender.send(FetchOutput::Piece(vec![n as u8; 1 << 20].into())).await.unwrap();
        }
        theirs.sender.send(FetchOutput::PieceEof).await.unwrap();
        theirs
    });
    let size = (PIECES << 20) as u64;
    assert_eq!(soon(stream.receiver.next()).await.unwrap(), Some(FetchOutput::Found { size }));
    // Nobody takes anything: what was sent fits into the windows, and the agent waits.
    tokio::time::timeout(Duration::from_millis(300), stream.sender.gone()).await.unwrap_err();
    assert!(!sending.is_finished());
    let mut all = 0;
    loop {
        match soon(stream.receiver.next()).await.unwrap() {
            Some(FetchOutput::Piece(bytes)) => {
                assert!(bytes.iter().all(|b| usize::from(*b) == all >> 20), "at {all}");
                all += bytes.len();
            }
            Some(FetchOutput::PieceEof) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(all as u64, size);
    stream.sender.send(FetchInput::Received).await.unwrap();
    let mut theirs = soon(sending).await.unwrap();
    assert_eq!(soon(theirs.receiver.next()).await.unwrap(), Some(FetchInput::Received));
    assert_eq!(soon(theirs.receiver.next()).await.unwrap(), None);
}
