//! How long an event takes from being durable in the log to the file of a stock rsyslogd, at 2000
//! events a second: over RFC 5425 and over RELP, both with mutual TLS.

use std::error::Error;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use audit::{Event, EventKind, Log, LogKey, Options};
use model::ambient::SystemClock;
use model::{Clock, SeededEntropy};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use siem::{Peer, Privacy, Sink, Status, SyslogTarget, Target, TlsSource};
use tokio::sync::watch;

const RATE: u32 = 2000;
const EVENTS: usize = 8000;
/// Events are appended in little bunches, as sessions cause them.
const BUNCH: usize = 4;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    if std::env::args().any(|arg| arg == "--test") || !Path::new("/usr/sbin/rsyslogd").exists() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut all = Vec::with_capacity(2 * EVENTS);
    for (protocol, relp) in [("syslog", false), ("relp", true)] {
        let mut waits = runtime.block_on(measure(relp))?;
        waits.sort_unstable();
        all.extend_from_slice(&waits);
        let ms = |place: usize| waits[place.min(waits.len() - 1)].as_secs_f64() * 1000.0;
        report(&format!("siem/lag/{protocol}/p50"), ms(waits.len() / 2))?;
        report(&format!("siem/lag/{protocol}/p99"), ms(waits.len() * 99 / 100))?;
    }
    all.sort_unstable();
    // Of both protocols together: half of all events take no longer.
    report("siem/lag", all[all.len() / 2].as_secs_f64() * 1000.0)
}

/// From durable to arrival, for each event.
async fn measure(relp: bool) -> Result<Vec<Duration>, Failure> {
    let dir = tempfile::tempdir()?;
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let tls = certificates(dir.path())?;
    let mut rsyslogd = Rsyslogd(rsyslogd(dir.path(), port, relp)?);
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        if let Some(ended) = rsyslogd.0.try_wait()? {
            return Err(format!("rsyslogd ended: {ended}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let key = LogKey::generate("bench.test/audit", &SeededEntropy::new(1))?;
    let log = Log::open(&dir.path().join("log"), key, Arc::new(SystemClock), Options::default())?;
    let peer = Peer { address: format!("127.0.0.1:{port}"), server_name: "collector.test".try_into()?, tls };
    let target = SyslogTarget { peer, message_max: 8192 };
    let sink = Sink {
        name: "bench".to_owned(),
        hostname: "bench.test".to_owned(),
        target: if relp { Target::Relp(target) } else { Target::Syslog(target) },
        privacy: Privacy::clear(),
    };
    let (status, mut seen) = watch::channel(Status::default());
    let (stop, stopping) = watch::channel(false);
    let cursor = dir.path().join("cursor");
    let running =
        tokio::spawn(siem::run(sink, log.clone(), cursor, Arc::new(SeededEntropy::new(2)), status, stopping));
    seen.wait_for(|status| status.connected).await?;

    let done = Arc::new(AtomicBool::new(false));
    let arriving = {
        let (file, done) = (dir.path().join("events.jsonl"), Arc::clone(&done));
        std::thread::spawn(move || arrivals(&file, &done))
    };
    let start = tokio::time::Instant::now();
    let mut durable = Vec::with_capacity(EVENTS);
    for bunch in 0..EVENTS / BUNCH {
        tokio::time::sleep_until(start + Duration::from_secs(1) * (bunch * BUNCH) as u32 / RATE).await;
        let appending: Vec<_> = (0..BUNCH)
            .map(|_| {
                let log = log.clone();
                tokio::spawn(async move {
                    let index = log.append(&event()).await?;
                    Ok::<_, Failure>((index, Instant::now()))
                })
            })
            .collect();
        for appended in appending {
            durable.push(appended.await??);
        }
    }
    seen.wait_for(|status| status.delivered >= EVENTS as u64).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    done.store(true, Ordering::SeqCst);
    let arrived = arriving.join().map_err(|_| "the reader panicked")??;
    stop.send(true)?;
    running.await??;
    log.close().await;
    durable
        .into_iter()
        .map(|(index, at)| {
            let arrival = arrived.get(index as usize).copied().flatten().ok_or("an event did not arrive")?;
            Ok(arrival.saturating_duration_since(at))
        })
        .collect()
}

/// When each index was first seen in the file that rsyslogd writes. It looks every half a
/// millisecond, which is part of the figure.
fn arrivals(path: &Path, done: &AtomicBool) -> Result<Vec<Option<Instant>>, Failure> {
    let mut arrived = vec![None; EVENTS];
    let (mut file, mut held) = (None, Vec::new());
    while !done.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_micros(500));
        if file.is_none() {
            file = fs::File::open(path).ok();
        }
        let Some(file) = &mut file else { continue };
        file.read_to_end(&mut held)?;
        let now = Instant::now();
        while let Some(end) = held.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = held.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line)?;
            let index = event["metadata"]["sequence"].as_u64().ok_or("no index")?;
            if let Some(place) = arrived.get_mut(index as usize) {
                place.get_or_insert(now);
            }
        }
    }
    Ok(arrived)
}

fn event() -> Event {
    let kind = EventKind::SessionRefused {
        code: "no-grant".to_owned(),
        reason: "the study has no grant for this dataset".to_owned(),
    };
    Event::new(SystemClock.now(), kind)
}

fn certificates(dir: &Path) -> Result<TlsSource, Failure> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "bench authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    let ca = params.self_signed(&key)?;
    let issuer = Issuer::new(params, key);
    let issue = |name: &str, dns: &[&str]| -> Result<_, Failure> {
        let dns: Vec<String> = dns.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(dns)?;
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &issuer)?, key))
    };
    let (theirs, their_key) = issue("service/collector", &["collector.test"])?;
    let (ours, our_key) = issue("siem/main", &[])?;
    fs::write(dir.join("ca.pem"), ca.pem())?;
    fs::write(dir.join("cert.pem"), theirs.pem())?;
    fs::write(dir.join("key.pem"), their_key.serialize_pem())?;
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone())?;
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![ours.der().clone()],
            PrivatePkcs8KeyDer::from(our_key.serialize_der()).into(),
        )?;
    let config = Arc::new(config);
    Ok(Arc::new(move || Ok(Arc::clone(&config))))
}

struct Rsyslogd(Child);

impl Drop for Rsyslogd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts one with the configuration that is shipped.
fn rsyslogd(dir: &Path, port: u16, relp: bool) -> Result<Child, Failure> {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/siem/rsyslog/sekisho.conf");
    let here = dir.display().to_string();
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port().to_string();
    let port = port.to_string();
    let (tcp_port, relp_port) = if relp { (&free, &port) } else { (&port, &free) };
    let config = fs::read_to_string(shipped)?
        .replace("/etc/sekisho/collector", &here)
        .replace("/var/log/sekisho", &here)
        .replace("/var/spool/rsyslog", &here)
        .replace("6514", tcp_port)
        .replace("2514", relp_port);
    fs::write(dir.join("rsyslog.conf"), config)?;
    let mut command = Command::new("/usr/sbin/rsyslogd");
    command.arg("-n").arg("-f").arg(dir.join("rsyslog.conf")).arg("-i").arg(dir.join("pid"));
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
}

/// Prints a figure, and adds it to the file that `make bench` names.
fn report(name: &str, value: f64) -> Result<(), Failure> {
    println!("{name}: {value:.2} ms");
    if let Some(path) = std::env::var_os("SEKISHO_BENCH_OUT") {
        let figure = json!({
            "name": name, "value": value, "unit": "ms", "peer": null, "peer_value": null, "ratio": null,
        });
        let mut out = fs::OpenOptions::new().create(true).append(true).open(path)?;
        writeln!(out, "{figure}")?;
    }
    Ok(())
}
