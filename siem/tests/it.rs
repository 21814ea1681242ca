//! The feed against collectors: one of our own that misbehaves, and a real rsyslogd.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use audit::{Change, Event, EventKind, Log, LogKey, Options, RecordKind};
use model::{ManualClock, SeededEntropy, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use siem::{SinkConfig, SinkError, Status, TlsSource};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// An authority and what it issues.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
}

struct Leaf {
    der: CertificateDer<'static>,
    pem: String,
    key: KeyPair,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        Authority { issuer: Issuer::new(params, key), der, pem }
    }

    fn issue(&self, name: &str) -> Leaf {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Leaf { der: certificate.der().clone(), pem: certificate.pem(), key }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        roots
    }

    fn client(&self, leaf: Option<&Leaf>) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots());
        Arc::new(match leaf {
            Some(leaf) => builder.with_client_auth_cert(vec![leaf.der.clone()], key_of(leaf)).unwrap(),
            None => builder.with_no_client_auth(),
        })
    }

    fn server(&self, leaf: &Leaf) -> Arc<ServerConfig> {
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

fn key_of(leaf: &Leaf) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(leaf.key.serialize_der()).into()
}

fn open_log(dir: &Path) -> Log {
    let key = LogKey::generate("sekisho.test/audit", &SeededEntropy::new(1)).unwrap();
    let clock = Arc::new(ManualClock::at(Timestamp::from_secs(1_790_000_000)));
    Log::open(&dir.join("log"), key, clock, Options::default()).unwrap()
}

async fn fill(log: &Log, count: usize) {
    let tasks = (0..count).map(|i| {
        let log = log.clone();
        let kind = EventKind::RecordChanged {
            record: RecordKind::Study,
            id: format!("研究-{i}"),
            change: Change::Created,
        };
        let event = Event::new(Timestamp::from_secs(1_790_000_000), kind);
        tokio::spawn(async move { log.append(&event).await.unwrap() })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

struct Feed {
    status: watch::Receiver<Status>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), SinkError>>,
}

fn start(log: &Log, dir: &Path, port: u16, tls: TlsSource) -> Feed {
    let config = SinkConfig {
        address: format!("127.0.0.1:{port}"),
        server_name: "collector.test".try_into().unwrap(),
        tls,
        hostname: "gate.test".to_owned(),
        message_max: 8192,
    };
    let (status_to, status) = watch::channel(Status::default());
    let (stop, stopping) = watch::channel(false);
    let entropy = Arc::new(SeededEntropy::new(3));
    let run = siem::run(config, log.clone(), dir.join("cursor"), entropy, status_to, stopping);
    Feed { status, stop, task: tokio::spawn(run) }
}

impl Feed {
    async fn until(&mut self, what: impl FnMut(&Status) -> bool) -> Status {
        let waiting = tokio::time::timeout(Duration::from_secs(60), self.status.wait_for(what));
        let reached = waiting.await.map(|status| status.unwrap().clone());
        reached.unwrap_or_else(|_| panic!("still {:?}", self.status.borrow()))
    }

    async fn stop(self) {
        self.stop.send(true).unwrap();
        tokio::time::timeout(Duration::from_secs(5), self.task).await.unwrap().unwrap().unwrap();
    }
}

/// What a frame's structured data says is its index.
fn index_of(text: &str) -> u64 {
    let after = text.split_once("index=\"").unwrap().1;
    after.split_once('"').unwrap().0.parse().unwrap()
}

/// Splits octet-counted frames; whatever is unfinished at the end is left off.
fn frames(mut bytes: &[u8]) -> Vec<String> {
    let mut frames = Vec::new();
    while let Some(blank) = bytes.iter().position(|b| *b == b' ') {
        let len: usize = std::str::from_utf8(&bytes[..blank]).unwrap().parse().unwrap();
        let Some(frame) = bytes.get(blank + 1..blank + 1 + len) else { break };
        frames.push(String::from_utf8(frame.to_vec()).unwrap());
        bytes = &bytes[blank + 1 + len..];
    }
    frames
}

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
    let mut feed = start(&log, dir.path(), port, tls);
    let refused = feed.until(|s| s.last_error.is_some()).await;
    assert_eq!((refused.connected, refused.delivered, refused.lag), (false, 0, 300));
    renewed.store(true, Ordering::SeqCst);
    let caught_up = feed.until(|s| s.lag == 0).await;
    assert_eq!(caught_up, Status { connected: true, delivered: 300, lag: 0, last_error: None });
    feed.stop().await;
    let indices: Vec<u64> = received.await.unwrap().iter().map(|f| index_of(f)).collect();
    assert_eq!(indices, (0..300).collect::<Vec<_>>());

    // Started again, it has nothing to say; and a log that was set back is not taken for it.
    let log_again = log.clone();
    let feed = start(&log_again, dir.path(), port, Arc::new(|| Err("no certificate yet".to_owned())));
    let mut feed = feed;
    let status = feed.until(|s| s.last_error.is_some()).await;
    assert_eq!((status.delivered, status.lag), (300, 0));
    assert_eq!(status.last_error.as_deref(), Some("no certificate yet"));
    feed.stop().await;
    let other = tempfile::tempdir().unwrap();
    fs::copy(dir.path().join("cursor"), other.path().join("cursor")).unwrap();
    let feed = start(&open_log(other.path()), other.path(), port, Arc::new(|| Err(String::new())));
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
    let mut feed = start(&log, dir.path(), port, Arc::new(move || Ok(Arc::clone(&client))));
    feed.until(|s| s.delivered == 200).await;
    feed.stop().await;
    let indices: Vec<u64> = collector.await.unwrap().iter().map(|f| index_of(f)).collect();
    assert_eq!(indices, (0..200).collect::<Vec<_>>(), "nothing of the first two connections counted");
}

/// A real collector in a folder of its own.
struct Rsyslog {
    dir: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Rsyslog {
    fn configure(dir: &Path, authority: &Authority) -> Rsyslog {
        let leaf = authority.issue("collector.test");
        fs::write(dir.join("ca.pem"), &authority.pem).unwrap();
        fs::write(dir.join("leaf.pem"), &leaf.pem).unwrap();
        fs::write(dir.join("leaf.key"), leaf.key.serialize_pem()).unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let d = dir.display();
        // The queue is direct, so that what was read from the socket is written before more is read.
        let config = format!(
            r#"global(workDirectory="{d}" maxMessageSize="64k"
  DefaultNetstreamDriverCAFile="{d}/ca.pem"
  DefaultNetstreamDriverCertFile="{d}/leaf.pem"
  DefaultNetstreamDriverKeyFile="{d}/leaf.key")
module(load="imtcp" StreamDriver.Name="ossl" StreamDriver.Mode="1" StreamDriver.AuthMode="x509/name" PermittedPeer=["siem.test"])
template(name="line" type="list" option.jsonf="on") {{
  property(outname="host" name="hostname" format="jsonf")
  property(outname="app" name="app-name" format="jsonf")
  property(outname="msgid" name="msgid" format="jsonf")
  property(outname="severity" name="syslogseverity-text" format="jsonf")
  property(outname="at" name="timereported" dateFormat="rfc3339" format="jsonf")
  property(outname="sd" name="structured-data" format="jsonf")
  property(outname="msg" name="msg" format="jsonf")
}}
ruleset(name="siem" queue.type="Direct") {{ action(type="omfile" file="{d}/out.json" template="line") }}
input(type="imtcp" port="{port}" address="127.0.0.1" ruleset="siem")
"#
        );
        fs::write(dir.join("rsyslog.conf"), config).unwrap();
        Rsyslog { dir: dir.to_owned(), port, child: None }
    }

    fn start(&mut self) {
        let program = Path::new("/usr/sbin/rsyslogd");
        assert!(
            program.exists(),
            "this test needs rsyslogd with its OpenSSL driver: run infra/setup, which installs rsyslog and rsyslog-openssl"
        );
        let errors = fs::File::options().create(true).append(true).open(self.dir.join("errors")).unwrap();
        let child = Command::new(program)
            .arg("-n")
            .arg("-f")
            .arg(self.dir.join("rsyslog.conf"))
            .arg("-i")
            .arg(self.dir.join("pid"))
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// SIGKILL.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            let _ = fs::remove_file(self.dir.join("pid"));
        }
    }

    /// What it wrote. A line that a kill left unfinished is no record.
    fn lines(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.dir.join("out.json")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn errors(&self) -> String {
        fs::read_to_string(self.dir.join("errors")).unwrap_or_default()
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        self.kill();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_collector_killed_in_the_middle_misses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let mut collector = Rsyslog::configure(dir.path(), &authority);
    collector.start();
    let log = open_log(dir.path());
    let client = authority.client(Some(&authority.issue("siem.test")));
    let mut feed = start(&log, dir.path(), collector.port, Arc::new(move || Ok(Arc::clone(&client))));

    let killed_twice = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn({
        let (log, killed_twice) = (log.clone(), Arc::clone(&killed_twice));
        async move {
            while log.durable_size() < 3000 || !killed_twice.load(Ordering::SeqCst) {
                fill(&log, 50).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    });
    for _ in 0..2 {
        // In the middle: something is delivered, something is under way, and more is to come.
        let delivered = feed.status.borrow().delivered;
        feed.until(|s| s.delivered > delivered && s.lag > 0).await;
        collector.kill();
        feed.until(|s| !s.connected && s.last_error.is_some()).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        collector.start();
    }
    killed_twice.store(true, Ordering::SeqCst);
    writing.await.unwrap();
    let events = log.durable_size() as usize;
    let waited = Instant::now();
    while feed.status.borrow().lag > 0 {
        assert!(waited.elapsed() < Duration::from_secs(60), "{:?} {}", feed.status, collector.errors());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(feed.status.borrow().delivered, events as u64);
    feed.stop().await;

    let mut seen = vec![0_u32; events];
    for line in collector.lines() {
        assert_eq!((&line["host"], &line["app"]), (&"gate.test".into(), &"sekisho".into()));
        assert_eq!((&line["msgid"], &line["severity"]), (&"record_changed".into(), &"info".into()));
        let index = index_of(line["sd"].as_str().unwrap());
        let event: serde_json::Value = serde_json::from_str(line["msg"].as_str().unwrap()).unwrap();
        assert_eq!(event["metadata"]["uid"], format!("sekisho.test/audit/{index}"));
        assert!(event["unmapped"]["id"].as_str().unwrap().starts_with("研究-"));
        seen[index as usize] += 1;
    }
    let missing: Vec<usize> = (0..events).filter(|i| seen[*i] == 0).collect();
    assert!(missing.is_empty(), "missing {missing:?}");
    let copies: u32 = seen.iter().map(|n| n - 1).sum();
    assert!(copies < events as u32, "{copies} copies");
}
