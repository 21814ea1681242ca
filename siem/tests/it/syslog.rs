//! RFC 5424 over TLS against collectors that misbehave.

use std::fs;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use siem::{SinkError, Status, TlsSource};
use tokio::io::AsyncReadExt;

use crate::support::*;

#[tokio::test]
async fn a_refused_certificate_is_noticed_and_a_renewed_one_used() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = ours.server(&ours.issue("collector.test"));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let received = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let accepted = tokio_rustls::TlsAcceptor::from(Arc::clone(&server)).accept(stream).await;
            let Ok(mut stream) = accepted else { continue };
            let mut bytes = Vec::new();
            // Ends with close_notify, or this would be an error.
            stream.read_to_end(&mut bytes).await.unwrap();
            return frames(&bytes);
        }
    });

    let log = open_log(dir.path());
    fill(&log, 300).await;
    let renewed = Arc::new(AtomicBool::new(false));
    let foreign = ours.client(Some(&theirs.issue("siem.test")));
    let good = ours.client(Some(&ours.issue("siem.test")));
    let tls: TlsSource = {
        let renewed = Arc::clone(&renewed);
        Arc::new(move || {
            Ok(if renewed.load(Ordering::SeqCst) { Arc::clone(&good) } else { Arc::clone(&foreign) })
        })
    };
    let mut feed = start(&log, dir.path(), syslog(port, tls));
    let refused = feed.until(|s| s.last_error.is_some()).await;
    assert_eq!((refused.connected, refused.delivered, refused.lag), (false, 0, 300));
    renewed.store(true, Ordering::SeqCst);
    let caught_up = feed.until(|s| s.lag == 0).await;
    let errors = caught_up.errors;
    let expected =
        Status { connected: true, delivered: 300, sent: caught_up.sent, errors, ..Status::default() };
    assert_eq!(caught_up, expected);
    assert!(errors > 0 && caught_up.sent >= 300);
    feed.stop().await;
    let indices: Vec<u64> = received.await.unwrap().iter().map(|f| index_of(f)).collect();
    assert_eq!(indices, (0..300).collect::<Vec<_>>());

    // Started again, it has nothing to say; and a log that was set back is not taken for it.
    let log_again = log.clone();
    let feed = start(&log_again, dir.path(), syslog(port, Arc::new(|| Err("no certificate yet".to_owned()))));
    let mut feed = feed;
    let status = feed.until(|s| s.last_error.is_some()).await;
    assert_eq!((status.delivered, status.lag), (300, 0));
    assert_eq!(status.last_error.as_deref(), Some("no certificate yet"));
    feed.stop().await;
    let other = tempfile::tempdir().unwrap();
    fs::copy(dir.path().join("soc"), other.path().join("soc")).unwrap();
    let feed = start(&open_log(other.path()), other.path(), syslog(port, Arc::new(|| Err(String::new()))));
    assert!(matches!(feed.task.await.unwrap(), Err(SinkError::LogSetBack { delivered: 300, size: 0 })));
}

#[tokio::test]
async fn what_a_collector_took_and_dropped_at_once_is_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let server = authority.server(&authority.issue("collector.test"));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let collector = tokio::spawn(async move {
        // Takes some bytes and goes, twice; the third connection it keeps.
        for _ in 0..2 {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream =
                tokio_rustls::TlsAcceptor::from(Arc::clone(&server)).accept(stream).await.unwrap();
            let mut some = [0; 5000];
            stream.read_exact(&mut some).await.unwrap();
        }
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = tokio_rustls::TlsAcceptor::from(server).accept(stream).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        frames(&bytes)
    });
    let log = open_log(dir.path());
    fill(&log, 200).await;
    let client = authority.client(Some(&authority.issue("siem.test")));
    let mut feed = start(&log, dir.path(), syslog(port, Arc::new(move || Ok(Arc::clone(&client)))));
    feed.until(|s| s.delivered == 200).await;
    feed.stop().await;
    let indices: Vec<u64> = collector.await.unwrap().iter().map(|f| index_of(f)).collect();
    assert_eq!(indices, (0..200).collect::<Vec<_>>(), "nothing of the first two connections counted");
}
