//! Who gets in, who does not, and what happens when someone leaves.

use std::time::{Duration, Instant};

use certs::SpiffeId;
use model::WorkspaceId;
use wire::agent::{Incoming, Status};
use wire::message::{AgentEvent, SessionInput, VERSION};
use wire::{CloseCode, Limits, LinkEnd};

use crate::party::{World, agent, hello, narrow, order, soon};

/// Dials with `tls` and says why the first attempt failed; the broker must not see an agent.
async fn refused(world: &World, tls: wire::Tls, hello: wire::message::Hello) -> String {
    let listener = world.listen(Limits::default());
    let link = wire::agent::connect(listener.local_addr().to_string(), &tls, hello).unwrap();
    let mut status = link.status();
    let away = |s: &Status| matches!(s, Status::Away { why: Some(_), .. });
    let status = soon(status.wait_for(away)).await.unwrap().clone();
    let nobody = tokio::time::timeout(Duration::from_millis(300), listener.accept()).await;
    assert!(nobody.is_err(), "the broker admitted it");
    match status {
        Status::Away { why: Some(why), .. } => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_agent_of_another_authority_is_refused_by_the_broker() {
    let (here, there) = (World::new(), World::new());
    let tls = here.tls_with(&there.identity(agent("hall-1")));
    let why = refused(&here, tls, hello()).await;
    assert!(why.contains("certificate") || why.contains("UnknownCA"), "{why}");
}

#[tokio::test]
async fn a_broker_of_another_authority_is_refused_by_the_agent() {
    let (here, there) = (World::new(), World::new());
    let tls = there.tls_with(&here.identity(agent("hall-1")));
    let why = refused(&here, tls, hello()).await;
    assert!(why.contains("UnknownIssuer"), "{why}");
}

#[tokio::test]
async fn only_agents_get_in() {
    let world = World::new();
    for id in [
        SpiffeId::Person("u:alice".parse().unwrap()),
        SpiffeId::Siem("main".into()),
        SpiffeId::Broker("main".into()),
        SpiffeId::Ticket("main".into()),
    ] {
        let tls = world.tls(id);
        refused(&world, tls, hello()).await;
    }
}

#[tokio::test]
async fn an_agent_talks_to_brokers_only() {
    let world = World::new();
    let tls = world.tls(SpiffeId::Service("collector".into()));
    let listener =
        wire::broker::AgentListener::bind((std::net::Ipv4Addr::LOCALHOST, 0).into(), &tls).unwrap();
    let link = world.dial(listener.local_addr(), Limits::default());
    let mut status = link.status();
    let status = soon(status.wait_for(|s| matches!(s, Status::Away { why: Some(_), .. }))).await.unwrap();
    assert!(format!("{:?}", *status).contains("ApplicationVerificationFailure"), "{status:?}");
}

#[tokio::test]
async fn an_expired_certificate_is_refused_and_a_renewed_one_taken() {
    let world = World::new();
    let old = world.identity(agent("hall-1"));
    world.clock.advance(Duration::from_secs(700));
    let listener = world.listen(Limits::default());
    let tls = world.tls_with(&old);
    let link = wire::agent::connect(listener.local_addr().to_string(), &tls, hello()).unwrap();
    let mut status = link.status();
    soon(status.wait_for(|s| matches!(s, Status::Away { why: Some(_), .. }))).await.unwrap();
    tls.replace(&world.identity(agent("hall-1"))).unwrap();
    assert!(soon(link.connected()).await);
    assert_eq!(soon(listener.accept()).await.unwrap().agent().name(), "hall-1");
}

/// A client that trusts the broker and shows no certificate.
#[tokio::test]
async fn no_certificate_no_entry() {
    let world = World::new();
    let listener = world.listen(Limits::default());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(world.ca.certificate().der().clone()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(std::sync::Arc::new(TakesAnyone))
        .with_no_client_auth();
    config.alpn_protocols = vec![wire::tls::ALPN.to_vec()];
    let config = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    let endpoint = quinn::Endpoint::client((std::net::Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let config = quinn::ClientConfig::new(std::sync::Arc::new(config));
    let connecting = endpoint.connect_with(config, listener.local_addr(), "broker").unwrap();
    // With TLS 1.3 the client may believe for a moment that it is connected.
    let error = match soon(connecting).await {
        Ok(connection) => soon(connection.closed()).await,
        Err(error) => error,
    };
    assert!(error.to_string().contains("certificate"), "{error}");
    assert!(tokio::time::timeout(Duration::from_millis(300), listener.accept()).await.is_err());
}

/// A client with a good certificate that says nothing holds its place for as long as the broker's
/// patience lasts, and no longer.
#[tokio::test]
async fn one_who_says_nothing_loses_the_place() {
    let world = World::new();
    let limits = Limits { handshakes: 1, patience: Duration::from_secs(2), ..Limits::default() };
    let listener = world.listen(limits.clone());
    let identity = world.identity(agent("mute"));
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(std::sync::Arc::new(TakesAnyone))
        .with_client_auth_cert(identity.chain, identity.key)
        .unwrap();
    config.alpn_protocols = vec![wire::tls::ALPN.to_vec()];
    let config = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    let endpoint = quinn::Endpoint::client((std::net::Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let config = quinn::ClientConfig::new(std::sync::Arc::new(config));
    let mute = soon(endpoint.connect_with(config, listener.local_addr(), "broker").unwrap()).await.unwrap();

    let link = world.dial(listener.local_addr(), limits);
    let mut status = link.status();
    soon(status.wait_for(|s| matches!(s, Status::Away { why: Some(_), .. }))).await.unwrap();
    soon(mute.closed()).await;
    assert!(soon(link.connected()).await);
    assert_eq!(soon(listener.accept()).await.unwrap().agent().name(), "hall-1");
}

#[derive(Debug)]
struct TakesAnyone;

impl rustls::client::danger::ServerCertVerifier for TakesAnyone {
    fn verify_server_cert(
        &self,
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &[rustls_pki_types::CertificateDer<'_>],
        _: &rustls_pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

#[tokio::test]
async fn another_version_is_rejected_with_the_reason() {
    let world = World::new();
    let why =
        refused(&world, world.tls(agent("hall-1")), wire::message::Hello { version: VERSION + 1, ..hello() })
            .await;
    assert!(why.contains(&format!("version {}", VERSION + 1)), "{why}");
}

#[tokio::test]
async fn of_two_connections_of_one_agent_the_newer_stays() {
    let world = World::new();
    let (listener, first, _agent) = world.pair(Limits::default()).await;
    let again = world.dial(listener.local_addr(), Limits::default());
    assert!(soon(again.connected()).await);
    let second = soon(listener.accept()).await.unwrap();
    assert_eq!(soon(first.closed()).await, LinkEnd::Here);
    assert_eq!(second.end(), None);
}

/// The agent's whole runtime is gone from one moment to the next, so nothing says good-bye.
#[tokio::test]
async fn a_killed_agent_is_noticed_within_twelve_seconds() {
    let world = World::new();
    let listener = world.listen(Limits::default());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let entered = runtime.enter();
    let agent = world.dial(listener.local_addr(), Limits::default());
    drop(entered);
    let link = soon(listener.accept()).await.unwrap();
    let mut session = link.open_session(crate::party::order()).await.unwrap();
    soon(agent.connected()).await;
    // Never polled again and never dropped: as after SIGKILL.
    std::mem::drop(std::thread::spawn(move || {
        let stuck = runtime.handle().clone();
        stuck.spawn(async { std::thread::sleep(Duration::from_secs(25)) });
        std::thread::sleep(Duration::from_secs(25));
        drop((agent, runtime));
    }));
    let killed = Instant::now();
    let ended = session.receiver.next().await;
    assert!(matches!(ended, Err(wire::StreamError::LinkLost(LinkEnd::Silent))), "{ended:?}");
    assert_eq!(link.closed().await, LinkEnd::Silent);
    assert!(killed.elapsed() <= Duration::from_secs(12), "{:?}", killed.elapsed());
}

#[tokio::test]
async fn reports_come_again_until_they_are_acknowledged() {
    let world = World::new();
    let (listener, link, agent) = world.pair(Limits::default()).await;
    let workspace = |n: u64| WorkspaceId::from_name(&format!("w{n}")).unwrap();
    let event = |n| AgentEvent::WorkspaceStarted { workspace: workspace(n), cold_ms: n };
    for n in 1..=3 {
        agent.report(event(n)).await;
    }
    for n in 1..=3 {
        let report = soon(link.next_report()).await.unwrap();
        assert_eq!((report.seq, report.event), (n, event(n)));
    }
    link.ack(1).await.unwrap();
    while agent.unacknowledged() > 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    link.close(CloseCode::Done, "test");
    let link = soon(listener.accept()).await.unwrap();
    assert_eq!(soon(link.next_report()).await.unwrap().seq, 2);
    assert_eq!(soon(link.next_report()).await.unwrap().seq, 3);
    link.ack(3).await.unwrap();
    agent.report(event(4)).await;
    assert_eq!(soon(link.next_report()).await.unwrap().seq, 4);
    while agent.unacknowledged() > 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_accepted_state_reaches_the_agent() {
    let world = World::new();
    let (_listener, link, agent) = world.pair(Limits::default()).await;
    let mut accepted = agent.accepted();
    assert!(!accepted.has_changed().unwrap());
    link.accept_state("0123456789abcdef").await.unwrap();
    soon(accepted.changed()).await.unwrap();
    assert_eq!(accepted.borrow_and_update().as_deref(), Some("0123456789abcdef"));
    // The same once more is said once more.
    link.accept_state("0123456789abcdef").await.unwrap();
    soon(accepted.changed()).await.unwrap();
}

#[tokio::test]
async fn the_report_queue_is_bounded() {
    let world = World::new();
    let limits = Limits { reports: 2, ..narrow() };
    let agent = world.dial((std::net::Ipv4Addr::LOCALHOST, 9).into(), limits);
    let event = AgentEvent::WorkspaceStopped { workspace: "ws:w".parse().unwrap(), reason: "done".into() };
    agent.try_report(event.clone()).unwrap();
    agent.try_report(event.clone()).unwrap();
    assert!(agent.try_report(event.clone()).is_err());
    let waits = tokio::time::timeout(Duration::from_millis(100), agent.report(event)).await;
    assert!(waits.is_err());
    assert_eq!(agent.unacknowledged(), 2);
}

#[tokio::test]
async fn closing_tells_the_other_side_at_once() {
    let world = World::new();
    let (_listener, link, agent) = world.pair(Limits::default()).await;
    soon(agent.close()).await;
    let end = soon(link.closed()).await;
    assert!(matches!(end, LinkEnd::ByPeer { code: Some(CloseCode::Done), .. }), "{end:?}");
    assert!(soon(agent.accept()).await.is_none());
    assert!(!soon(agent.connected()).await);
}

/// What is sent at full speed fills what may be on its way: the last word must get through all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_tells_the_other_side_at_once_in_the_middle_of_a_transfer() {
    let world = World::new();
    let listener = world.listen(Limits::default());
    for round in 0..8 {
        let agent = world.dial(listener.local_addr(), Limits::default());
        let link = soon(listener.accept()).await.unwrap();
        assert!(soon(agent.connected()).await);
        let mut status = agent.status();
        let mut ours = link.open_session(order()).await.unwrap();
        let Some(Incoming::Session(_, mut theirs)) = soon(agent.accept()).await else { panic!("no session") };
        let taking = tokio::spawn(async move { while let Ok(Some(_)) = theirs.receiver.next().await {} });
        let filling = tokio::spawn(async move {
            let piece = bytes::Bytes::from(vec![0; 256 * 1024]);
            while ours.sender.send(SessionInput::Stdin(piece.clone())).await.is_ok() {}
        });
        tokio::time::sleep(Duration::from_micros(500 * round)).await;
        let since = Instant::now();
        link.close(CloseCode::Expelled, "the agent is locked");
        soon(status.wait_for(|status| matches!(status, Status::Away { .. }))).await.unwrap();
        assert!(since.elapsed() < Duration::from_secs(2), "round {round}: it took {:?}", since.elapsed());
        filling.await.unwrap();
        taking.await.unwrap();
        soon(agent.close()).await;
    }
}
