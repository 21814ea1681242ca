//! What the tests share: an authority, a log, a feed.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use audit::{Change, Event, EventKind, Log, LogKey, Options, RecordKind};
use model::{ManualClock, SeededEntropy, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use siem::{Peer, Privacy, Sink, SinkError, Status, SyslogTarget, Target, TlsSource};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// An authority and what it issues.
pub struct Authority {
    pub issuer: Issuer<'static, KeyPair>,
    pub der: CertificateDer<'static>,
}

pub struct Leaf {
    pub der: CertificateDer<'static>,
    pub key: KeyPair,
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let der = certificate.der().clone();
        Authority { issuer: Issuer::new(params, key), der }
    }

    pub fn issue(&self, name: &str) -> Leaf {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Leaf { der: certificate.der().clone(), key }
    }

    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        roots
    }

    pub fn client(&self, leaf: Option<&Leaf>) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots());
        Arc::new(match leaf {
            Some(leaf) => builder.with_client_auth_cert(vec![leaf.der.clone()], key_of(leaf)).unwrap(),
            None => builder.with_no_client_auth(),
        })
    }

    pub fn server(&self, leaf: &Leaf) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), Arc::clone(&provider));
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap());
        Arc::new(builder.with_single_cert(vec![leaf.der.clone()], key_of(leaf)).unwrap())
    }
}

pub fn key_of(leaf: &Leaf) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(leaf.key.serialize_der()).into()
}

pub fn open_log(dir: &Path) -> Log {
    let key = LogKey::generate("sekisho.test/audit", &SeededEntropy::new(1)).unwrap();
    let clock = Arc::new(ManualClock::at(Timestamp::from_secs(1_790_000_000)));
    Log::open(&dir.join("log"), key, clock, Options::default()).unwrap()
}

pub fn event(number: usize) -> Event {
    let kind = EventKind::RecordChanged {
        record: RecordKind::Study,
        id: format!("研究-{number}"),
        change: Change::Created,
    };
    Event::new(Timestamp::from_secs(1_790_000_000), kind)
}

/// Appends `count` events, many at a time.
pub async fn fill(log: &Log, count: usize) {
    for from in (0..count).step_by(1000) {
        let tasks = (from..count.min(from + 1000)).map(|number| {
            let log = log.clone();
            tokio::spawn(async move { log.append(&event(number)).await.unwrap() })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Where tests and infra/setup keep programs of their own.
pub fn cache() -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from).join("sekisho")
}

pub fn peer(port: u16, tls: TlsSource) -> Peer {
    Peer { address: format!("127.0.0.1:{port}"), server_name: "collector.test".try_into().unwrap(), tls }
}

pub fn syslog(port: u16, tls: TlsSource) -> Target {
    Target::Syslog(SyslogTarget { peer: peer(port, tls), message_max: 8192 })
}

pub fn relp(port: u16, tls: TlsSource) -> Target {
    Target::Relp(SyslogTarget { peer: peer(port, tls), message_max: 8192 })
}

/// A running feed.
pub struct Feed {
    pub status: watch::Receiver<Status>,
    pub stop: watch::Sender<bool>,
    pub task: JoinHandle<Result<(), SinkError>>,
}

pub fn start(log: &Log, dir: &Path, target: Target) -> Feed {
    start_as("soc", log, dir, target)
}

/// Its cursor is `name` in `dir`.
pub fn start_as(name: &str, log: &Log, dir: &Path, target: Target) -> Feed {
    let sink =
        Sink { name: name.to_owned(), hostname: "gate.test".to_owned(), target, privacy: Privacy::clear() };
    let (status_to, status) = watch::channel(Status::default());
    let (stop, stopping) = watch::channel(false);
    let entropy = Arc::new(SeededEntropy::new(3));
    let run = siem::run(sink, log.clone(), dir.join(name), entropy, status_to, stopping);
    Feed { status, stop, task: tokio::spawn(run) }
}

impl Feed {
    pub async fn until(&mut self, what: impl FnMut(&Status) -> bool) -> Status {
        let waiting = tokio::time::timeout(Duration::from_secs(60), self.status.wait_for(what));
        let reached = waiting.await.map(|status| status.unwrap().clone());
        reached.unwrap_or_else(|_| panic!("still {:?}", self.status.borrow()))
    }

    pub async fn stop(self) {
        self.stop.send(true).unwrap();
        tokio::time::timeout(Duration::from_secs(5), self.task).await.unwrap().unwrap().unwrap();
    }
}

/// What a frame's structured data says is its index.
pub fn index_of(text: &str) -> u64 {
    let after = text.split_once("index=\"").unwrap().1;
    after.split_once('"').unwrap().0.parse().unwrap()
}

/// Splits octet-counted frames; whatever is unfinished at the end is left off.
pub fn frames(mut bytes: &[u8]) -> Vec<String> {
    let mut frames = Vec::new();
    while let Some(blank) = bytes.iter().position(|b| *b == b' ') {
        let len: usize = std::str::from_utf8(&bytes[..blank]).unwrap().parse().unwrap();
        let Some(frame) = bytes.get(blank + 1..blank + 1 + len) else { break };
        frames.push(String::from_utf8(frame.to_vec()).unwrap());
        bytes = &bytes[blank + 1 + len..];
    }
    frames
}
