//! Stock rsyslogd and syslog-ng, killed and started again in the middle of 100 000 events.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use certs::x509::{CertificateAuthority, Identity, KeyPair, LeafRequest};
use model::Clock;
use model::ambient::{OsEntropy, SystemClock};
use rustls::{ClientConfig, RootCertStore};
use siem::{Target, TlsSource};

use crate::support::*;

const EVENTS: usize = 100_000;

#[derive(Clone, Copy)]
enum Kind {
    Rsyslog,
    Relp,
    SyslogNg,
}

/// The authority of a house, as the signer has it: collectors and the broker have their certificates
/// from it, with the names and the limits that it gives them and nothing else.
struct House(CertificateAuthority);

impl House {
    fn new() -> House {
        let domain = "sekisho.test".parse().unwrap();
        let key = KeyPair::generate(&OsEntropy).unwrap();
        House(CertificateAuthority::create(domain, key, SystemClock.now(), &OsEntropy).unwrap())
    }

    fn issue(&self, spiffe: &str, dns: &[&str]) -> Identity {
        let key = KeyPair::generate(&OsEntropy).unwrap();
        let request = LeafRequest {
            spiffe: spiffe.parse().unwrap(),
            dns: dns.iter().map(|name| (*name).to_owned()).collect(),
            ip: Vec::new(),
            public_key: key.spki().unwrap(),
            lifetime: Duration::from_secs(3600),
        };
        let leaf = self.0.issue(&request, SystemClock.now(), &OsEntropy).unwrap();
        Identity { chain: vec![leaf], key: key.to_private_key_der().unwrap() }
    }

    /// What somebody with this certificate connects with.
    fn client(&self, spiffe: &str) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.certificate().der().clone()).unwrap();
        let own = self.issue(spiffe, &[]);
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(builder.with_client_auth_cert(own.chain, own.key).unwrap())
    }
}

/// A real collector in a folder of its own.
struct Collector {
    kind: Kind,
    dir: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Collector {
    fn configure(kind: Kind, dir: &Path, house: &House) -> Collector {
        let own = house.issue("service/collector", &["collector.test"]);
        fs::write(dir.join("ca.pem"), house.0.certificate().pem()).unwrap();
        fs::write(dir.join("cert.pem"), own.chain_pem()).unwrap();
        fs::write(dir.join("key.pem"), own.key_pem().as_bytes()).unwrap();
        let port = free_port();
        // The configurations that are shipped, with other places and ports.
        let shipped = match kind {
            Kind::Rsyslog | Kind::Relp => "rsyslog/sekisho.conf",
            Kind::SyslogNg => "syslog-ng/sekisho.conf",
        };
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/siem").join(shipped);
        let mut config = fs::read_to_string(shipped).unwrap();
        let here = dir.display().to_string();
        let (ours, other) = if matches!(kind, Kind::Relp) { ("2514", "6514") } else { ("6514", "2514") };
        for (shipped, here) in [
            ("/etc/sekisho/collector", here.as_str()),
            ("/var/log/sekisho", &here),
            ("/var/spool/rsyslog", &here),
            (ours, &port.to_string()),
            (other, &free_port().to_string()),
        ] {
            config = config.replace(shipped, here);
        }
        fs::write(dir.join("collector.conf"), config).unwrap();
        Collector { kind, dir: dir.to_owned(), port, child: None }
    }

    fn start(&mut self) {
        let errors = fs::File::options().create(true).append(true).open(self.dir.join("errors")).unwrap();
        let config = self.dir.join("collector.conf");
        let mut command = match self.kind {
            Kind::Rsyslog | Kind::Relp => {
                let mut command = Command::new("/usr/sbin/rsyslogd");
                command.arg("-n").arg("-f").arg(config).arg("-i").arg(self.dir.join("pid"));
                command
            }
            Kind::SyslogNg => {
                let home = cache().join("syslog-ng");
                let libraries = ["usr/lib/syslog-ng", "usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
                let libraries: Vec<_> = libraries.iter().map(|l| home.join(l)).collect();
                let mut command = Command::new(home.join("usr/sbin/syslog-ng"));
                command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).unwrap());
                command.arg(format!("--module-path={}", home.join("usr/lib/syslog-ng/3.38").display()));
                command.arg("--foreground").arg("--no-caps").arg("-f").arg(config);
                for (option, file) in [("-R", "persist"), ("-p", "pid"), ("-c", "ctl")] {
                    command.arg(option).arg(self.dir.join(file));
                }
                command
            }
        };
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn();
        self.child = Some(child.expect("infra/setup provides rsyslogd with its drivers, and syslog-ng"));
    }

    /// SIGKILL.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            let _ = fs::remove_file(self.dir.join("pid"));
        }
    }

    /// How often it wrote each event. A line that a kill left unfinished is no record; everything
    /// else must be ours.
    fn seen(&self, events: usize) -> Vec<u32> {
        let mut seen = vec![0; events];
        let text = fs::read_to_string(self.dir.join("events.jsonl")).unwrap_or_default();
        for event in text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()) {
            let index = event["metadata"]["sequence"].as_u64().unwrap();
            assert_eq!(event["metadata"]["uid"], format!("sekisho.test/audit/{index}"));
            assert!(event["unmapped"]["id"].as_str().unwrap().starts_with("研究-"));
            seen[index as usize] += 1;
        }
        seen
    }

    fn errors(&self) -> String {
        fs::read_to_string(self.dir.join("errors")).unwrap_or_default()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn killed_in_the_middle_it_misses_nothing(kind: Kind, target: fn(u16, TlsSource) -> Target) {
    let dir = tempfile::tempdir().unwrap();
    let house = House::new();
    let mut collector = Collector::configure(kind, dir.path(), &house);
    collector.start();
    let log = open_log(dir.path());
    // As the broker's own, `siem/main` without any other name.
    let client = house.client("siem/main");
    let mut feed = start(&log, dir.path(), target(collector.port, Arc::new(move || Ok(Arc::clone(&client)))));

    let began = Instant::now();
    let writing = tokio::spawn({
        let log = log.clone();
        async move { fill(&log, EVENTS).await }
    });
    for kill in 1..=2 {
        // In the middle: something is delivered, and more is under way or to come.
        let delivered = (EVENTS / 4 * kill) as u64;
        let before = feed.until(|s| s.delivered > delivered && s.delivered < EVENTS as u64).await;
        collector.kill();
        feed.until(|s| !s.connected && s.last_error.is_some() && s.errors > before.errors).await;
        collector.start();
    }
    writing.await.unwrap();
    while feed.status.borrow().delivered < EVENTS as u64 {
        assert!(began.elapsed() < Duration::from_secs(100), "{:?} {}", feed.status, collector.errors());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let status = feed.status.borrow().clone();
    feed.stop().await;
    let seen = collector.seen(EVENTS);
    let missing: Vec<usize> = (0..EVENTS).filter(|i| seen[*i] == 0).collect();
    assert!(
        missing.is_empty(),
        "{} missing, the first {:?}",
        missing.len(),
        &missing[..missing.len().min(9)]
    );
    let copies: u32 = seen.iter().map(|n| n - 1).sum();
    println!(
        "{EVENTS} events in {:?}, {} sent, {copies} arrived twice, {} connections lost",
        began.elapsed(),
        status.sent,
        status.errors
    );
    // What was under way at two kills, and no more.
    assert!(u64::from(copies) <= status.sent - EVENTS as u64, "{copies} copies");
    log.close().await;
}

/// Somebody else of the house is not taken for the broker.
async fn another_service_is_refused(kind: Kind, target: fn(u16, TlsSource) -> Target) {
    let dir = tempfile::tempdir().unwrap();
    let house = House::new();
    let mut collector = Collector::configure(kind, dir.path(), &house);
    collector.start();
    let log = open_log(dir.path());
    fill(&log, 3).await;
    let current = Arc::new(std::sync::Mutex::new(house.client("service/other")));
    let shown = Arc::clone(&current);
    let source: TlsSource = Arc::new(move || Ok(Arc::clone(&shown.lock().unwrap())));
    let mut feed = start(&log, dir.path(), target(collector.port, source));
    let refused = feed.until(|s| s.errors >= 4).await;
    assert_eq!(refused.delivered, 0, "{refused:?} {}", collector.errors());
    *current.lock().unwrap() = house.client("siem/main");
    feed.until(|s| s.delivered == 3).await;
    feed.stop().await;
    assert_eq!(collector.seen(3), [1, 1, 1]);
    log.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rsyslog_takes_the_log_of_the_broker_alone() {
    another_service_is_refused(Kind::Rsyslog, syslog).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rsyslog_over_relp_takes_the_log_of_the_broker_alone() {
    another_service_is_refused(Kind::Relp, relp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rsyslog_over_tls_misses_nothing() {
    killed_in_the_middle_it_misses_nothing(Kind::Rsyslog, syslog).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rsyslog_over_relp_misses_nothing() {
    killed_in_the_middle_it_misses_nothing(Kind::Relp, relp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn syslog_ng_misses_nothing() {
    killed_in_the_middle_it_misses_nothing(Kind::SyslogNg, syslog).await;
}
