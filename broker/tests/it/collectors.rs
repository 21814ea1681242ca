//! Collectors that hang, lie and refuse, behind a whole broker: its doors do not notice, and its log says
//! so.

use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use certs::TrustDomain;
use certs::x509::{CertificateAuthority, KeyPair, LeafRequest};
use model::Clock;
use model::ambient::{OsEntropy, SystemClock};
use rustls::ServerConfig;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::house::House;

/// What every request waits at most, on a machine that does other things as well.
const DOOR: Duration = Duration::from_secs(5);

/// TLS as collectors of this name speak it, and who vouches for them, written to `ca`.
fn tls(ca: &Path) -> TlsAcceptor {
    let domain: TrustDomain = "collectors.test".parse().unwrap();
    let now = SystemClock.now();
    let key = KeyPair::generate(&OsEntropy).unwrap();
    let authority = CertificateAuthority::create(domain, key, now, &OsEntropy).unwrap();
    std::fs::write(ca, authority.certificate().pem()).unwrap();
    let key = KeyPair::generate(&OsEntropy).unwrap();
    let request = LeafRequest {
        spiffe: "service/collector".parse().unwrap(),
        dns: vec!["collector.test".to_owned()],
        ip: Vec::new(),
        public_key: key.spki().unwrap(),
        lifetime: Duration::from_secs(3600),
    };
    let leaf = authority.issue(&request, now, &OsEntropy).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf], key.to_private_key_der().unwrap())
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// A collector that does `what` with each connection.
fn collector<F>(listener: StdListener, tls: TlsAcceptor, what: fn(TlsStream<TcpStream>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let tls = tls.clone();
            tokio::spawn(async move {
                if let Ok(stream) = tls.accept(stream).await {
                    what(stream).await;
                }
            });
        }
    });
}

async fn hang(_stream: TlsStream<TcpStream>) {
    std::future::pending().await
}

/// Opens RELP, and then acknowledges nothing.
async fn fall_silent(mut stream: TlsStream<TcpStream>) {
    let mut bytes = [0; 100];
    let _ = stream.read(&mut bytes).await;
    let _ = stream.write_all(b"1 rsp 22 200 OK\ncommands=syslog\n").await;
    let _ = stream.flush().await;
    std::future::pending().await
}

/// Acknowledges what was never sent.
async fn lie(mut stream: TlsStream<TcpStream>) {
    let mut bytes = [0; 100];
    let _ = stream.read(&mut bytes).await;
    let _ = stream.write_all(b"1 rsp 22 200 OK\ncommands=syslog\n999 rsp 6 200 OK\n").await;
    let _ = stream.flush().await;
}

/// Takes all there is, as a collector of syslog does.
async fn take_all(mut stream: TlsStream<TcpStream>) {
    let mut bytes = vec![0; 64 << 10];
    while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_collectors_are_alarmed_and_no_door_notices_them() {
    let bind = || StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (hangs, silent, lies, mute, refuses) = (bind(), bind(), bind(), bind(), bind());
    let bad = [
        ("hangs", "relp", &hangs),
        ("silent", "relp", &silent),
        ("lies", "relp", &lies),
        ("mute", "splunk-hec", &mute),
        ("refuses", "syslog", &refuses),
    ];
    let mut sinks = "[[siem.sink]]\nname = 'good'\nkind = 'file'\npath = 'events.jsonl'\nalarm_lag = 50\nalarm_secs = 2\n".to_owned();
    for (name, kind, listener) in bad {
        let address = listener.local_addr().unwrap();
        let token = if kind == "splunk-hec" { "token_file = 'token'\n" } else { "" };
        sinks += &format!(
            "[[siem.sink]]\nname = '{name}'\nkind = '{kind}'\naddress = '{address}'\nserver_name = 'collector.test'\n\
             ca_file = 'collectors.pem'\n{token}alarm_lag = 50\nalarm_secs = 2\n"
        );
    }
    let names = bad.map(|(name, ..)| name);
    let address = refuses.local_addr().unwrap();
    drop(refuses);
    let mut acceptor = None;
    let house = House::prepared(|dir| {
        acceptor = Some(tls(&dir.join("collectors.pem")));
        std::fs::write(dir.join("token"), "secret").unwrap();
        sinks
    })
    .await;
    let tls = acceptor.unwrap();
    collector(hangs, tls.clone(), hang);
    collector(silent, tls.clone(), fall_silent);
    collector(lies, tls.clone(), lie);
    collector(mute, tls.clone(), hang);

    // Each of these is decided and recorded before it is answered.
    for _ in 0..150 {
        let began = Instant::now();
        assert_eq!(house.call(Some(&house.admin), "GET", "/v1/diagnostics", b"").await.0, 200);
        assert!(began.elapsed() < DOOR, "{:?}", began.elapsed());
    }
    for name in names {
        assert!(lagging(&house, name, Duration::from_secs(20)).await, "{name} is not alarmed");
    }
    let all = house.records();
    let of = |code: &str, sink: &str| {
        let says = [format!("\"event_code\":\"{code}\""), format!("\"sink\":\"{sink}\"")];
        all.iter().filter(|record| says.iter().all(|part| record.contains(part))).count()
    };
    assert_eq!(of("sink_lagging", "good"), 0);
    names.iter().for_each(|name| assert_eq!(of("sink_lagging", name), 1, "{name} is told once"));
    let (status, health) = house.call(None, "GET", "/v1/health", b"").await;
    assert_eq!(
        (status, health["checks"]["siem"]["detail"].as_str()),
        (200, Some("5 of 6 collectors are behind"))
    );

    // The good one has all of it meanwhile, in order.
    let path = house.dir.path().join("events.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    let sequence = |line: &str| serde_json::from_str::<Value>(line).unwrap()["metadata"]["sequence"].as_u64();
    assert!(text.lines().count() > 150);
    assert!((0..).zip(text.lines()).all(|(index, line)| sequence(line) == Some(index)));

    // One that is mended has it too, and the log says so.
    collector(StdListener::bind(address).unwrap(), tls, take_all);
    let mut recovered = false;
    for _ in 0..40 {
        recovered = recovered || house.recorded(&["sink_recovered", "refuses"]).await;
    }
    assert!(recovered);
}

async fn lagging(house: &House, sink: &str, patience: Duration) -> bool {
    let (began, says) = (Instant::now(), format!("\"sink\":\"{sink}\""));
    while began.elapsed() < patience {
        if house.recorded(&["sink_lagging", &says]).await {
            return true;
        }
    }
    false
}
