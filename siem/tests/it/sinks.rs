//! Sinks beside each other: one that hangs, refuses or lies slows nothing but itself.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use siem::{FileTarget, Target, TlsSource};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::*;

/// A collector that does `what` with each connection.
async fn collector<F: Future<Output = ()> + Send + 'static>(
    authority: &Authority,
    what: fn(tokio_rustls::server::TlsStream<tokio::net::TcpStream>) -> F,
) -> u16 {
    let server = authority.server(&authority.issue("collector.test"));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                if let Ok(stream) = tokio_rustls::TlsAcceptor::from(server).accept(stream).await {
                    what(stream).await;
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_sinks_slow_neither_the_log_nor_a_good_one() {
    const EVENTS: usize = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let client = authority.client(Some(&authority.issue("siem.test")));
    let tls: TlsSource = Arc::new(move || Ok(Arc::clone(&client)));
    // Takes the session and never reads a byte.
    let hangs = collector(&authority, |_stream| std::future::pending()).await;
    // Opens RELP and acknowledges what was never sent.
    let lies = collector(&authority, |mut stream| async move {
        let mut bytes = [0; 100];
        let _ = stream.read(&mut bytes).await;
        let _ = stream.write_all(b"1 rsp 22 200 OK\ncommands=syslog\n999 rsp 6 200 OK\n").await;
        let _ = stream.flush().await;
    })
    .await;
    // Opens RELP and acknowledges nothing.
    let silent = collector(&authority, |mut stream| async move {
        let mut bytes = [0; 100];
        let _ = stream.read(&mut bytes).await;
        let _ = stream.write_all(b"1 rsp 22 200 OK\ncommands=syslog\n").await;
        let _ = stream.flush().await;
        std::future::pending::<()>().await;
    })
    .await;
    // Takes whatever comes, a little at a time, and acknowledges each message late.
    let slow = collector(&authority, |mut stream| async move {
        let mut bytes = [0; 100];
        let _ = stream.read(&mut bytes).await;
        let _ = stream.write_all(b"1 rsp 22 200 OK\ncommands=syslog\n").await;
        let _ = stream.flush().await;
        let (mut chunk, mut came, mut answered) = (vec![0; 1 << 16], 0_u32, 0);
        loop {
            match tokio::time::timeout(Duration::from_millis(1), stream.read(&mut chunk)).await {
                Ok(Ok(0) | Err(_)) => return,
                Ok(Ok(read)) => {
                    // One that lies over two reads is not counted, and so not answered.
                    came += chunk[..read].windows(8).filter(|part| part == b" syslog ").count() as u32;
                }
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            if answered < came {
                answered += 1;
                let answer = format!("{} rsp 6 200 OK\n", answered + 1);
                if stream.write_all(answer.as_bytes()).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let refuses = free_port();

    let log = open_log(dir.path());
    let bad = [
        ("hangs", start_as("hangs", &log, dir.path(), syslog(hangs, Arc::clone(&tls)))),
        ("lies", start_as("lies", &log, dir.path(), relp(lies, Arc::clone(&tls)))),
        ("silent", start_as("silent", &log, dir.path(), relp(silent, Arc::clone(&tls)))),
        ("slow", start_as("slow", &log, dir.path(), relp(slow, Arc::clone(&tls)))),
        ("refuses", start_as("refuses", &log, dir.path(), syslog(refuses, tls))),
    ];
    let path = dir.path().join("events.jsonl");
    let file = FileTarget { path: path.clone(), rotate_bytes: 1 << 30, keep: 2 };
    let mut good = start_as("file", &log, dir.path(), Target::File(file));
    let began = Instant::now();
    fill(&log, EVENTS).await;
    let recorded = began.elapsed();
    good.until(|s| s.delivered == EVENTS as u64).await;
    println!("{EVENTS} events recorded in {recorded:?}, in the file after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(30));
    for (name, mut feed) in bad {
        // The lag is known whatever the collector does.
        let status = feed.until(|s| s.lag > 0).await;
        assert!(status.delivered < EVENTS as u64, "{name}: {status:?}");
        // Of those that answer what cannot be, or not at all, an error stays, connected or not.
        let failed = match name {
            "lies" | "refuses" => feed.until(|s| s.last_error.is_some()).await.delivered == 0,
            "slow" => feed.until(|s| s.delivered > 0).await.last_error.is_none(),
            _ => true,
        };
        assert!(failed, "{name}: {:?}", feed.status.borrow());
        if !status.connected {
            feed.until(|s| s.last_error.is_some() || s.connected).await;
        }
        feed.stop().await;
    }
    good.stop().await;
    let text = std::fs::read_to_string(path).unwrap();
    for (index, line) in text.lines().enumerate() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["metadata"]["sequence"], index);
    }
    assert_eq!(text.lines().count(), EVENTS);
    log.close().await;
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_log(dir.path());
    fill(&log, 100).await;
    let path = dir.path().join("missing").join("events.jsonl");
    let target = FileTarget { path: path.clone(), rotate_bytes: 1 << 16, keep: 100 };
    let mut feed = start(&log, dir.path(), Target::File(target));
    let failed = feed.until(|s| s.last_error.is_some()).await;
    assert!(failed.last_error.unwrap().contains("events.jsonl"));
    std::fs::create_dir(dir.path().join("missing")).unwrap();
    feed.until(|s| s.delivered == 100).await;
    fill(&log, 1000).await;
    feed.until(|s| s.delivered == 1100).await;
    feed.stop().await;
    let mut lines = 0;
    for file in std::fs::read_dir(dir.path().join("missing")).unwrap() {
        let path = file.unwrap().path();
        assert!(std::fs::metadata(&path).unwrap().len() < 1 << 20);
        lines += std::fs::read_to_string(path).unwrap().lines().count();
    }
    assert_eq!(lines, 1100);
    log.close().await;
}
