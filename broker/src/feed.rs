//! The feeds of the audit log to collectors, and the records about their state.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use audit::{Event, EventKind};
use certs::x509::{CaCertificate, Identity};
use data_encoding::HEXLOWER;
use gate::Gate;
use model::Entropy;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use siem::{SinkConfig, Status, TlsSource};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::private;
use crate::tls::provider;

/// How often events that a collector will never take are recorded at most: that record is one more
/// event for the same collector.
const REJECTED_EVERY: Duration = Duration::from_secs(60);

/// The sinks of this node and how far each is.
#[derive(Debug, Default)]
pub struct Sinks(Vec<Seen>);

#[derive(Debug)]
struct Seen {
    config: SinkConfig,
    status: watch::Sender<Status>,
}

impl Sinks {
    /// Sinks as they are configured; nothing runs yet.
    pub fn new(configs: &[SinkConfig]) -> Sinks {
        let seen = |config: &SinkConfig| Seen { config: config.clone(), status: watch::Sender::default() };
        Sinks(configs.iter().map(seen).collect())
    }

    /// The name of each, how it is, and whether somebody should look.
    pub fn states(&self) -> impl Iterator<Item = (&str, Status, bool)> {
        self.0.iter().map(|seen| {
            let status = seen.status.borrow().clone();
            let failing = is_failing(&status, seen.config.alarm_lag);
            (seen.config.name.as_str(), status, failing)
        })
    }
}

/// What the feeds work with.
#[derive(Clone)]
pub struct Feeds {
    /// The gate, for its log and for records about the feeds.
    pub gate: Gate,
    /// Who we are towards collectors; renewed under the feeds.
    pub identity: Arc<ArcSwap<Identity>>,
    /// Who vouches for collectors that name nobody else.
    pub ca: CaCertificate,
    /// The host that events are said to come from.
    pub hostname: String,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

impl Feeds {
    /// Follows the log for every sink until the broker stops; cursors and keys lie in `dir`.
    pub fn start(
        &self,
        sinks: &Sinks,
        dir: &Path,
        stopping: &CancellationToken,
    ) -> Vec<impl Future<Output = ()> + use<>> {
        sinks
            .0
            .iter()
            .map(|seen| {
                self.clone().run(seen.config.clone(), seen.status.clone(), dir.to_owned(), stopping.clone())
            })
            .collect()
    }

    async fn run(
        self,
        config: SinkConfig,
        status: watch::Sender<Status>,
        dir: PathBuf,
        stopping: CancellationToken,
    ) {
        let name = config.name.clone();
        let key = match key(&dir.join(format!("siem-{name}.key")), &*self.entropy) {
            Ok(key) => key,
            Err(error) => {
                tracing::error!(%error, sink = name, "no key for the hashes of this sink; the log is not sent to it");
                return;
            }
        };
        let sink =
            config.sink(&dir, &self.hostname, key, self.tls(config.ca_file.as_ref().map(|ca| dir.join(ca))));
        let seen = status.subscribe();
        let (stop, stopped) = watch::channel(false);
        let cursor = dir.join(format!("siem-{name}.cursor"));
        let log = self.gate.log().clone();
        let sending = siem::run(sink, log, cursor, Arc::clone(&self.entropy), status, stopped);
        let stopper = async {
            stopping.cancelled().await;
            let _ = stop.send(true);
        };
        let watching = tell(|kind| record(&self.gate, kind), &config, seen.clone());
        let watching_rejected = tell_rejected(&self.gate, &name, seen);
        tokio::pin!(sending, watching, watching_rejected);
        let ended = tokio::select! {
            ended = &mut sending => ended,
            () = &mut watching => Ok(()),
            () = &mut watching_rejected => Ok(()),
            () = stopper => sending.await,
        };
        if let Err(error) = ended {
            tracing::error!(%error, sink = name, "the audit log is not sent to the collector");
        }
    }

    fn tls(&self, ca_file: Option<PathBuf>) -> TlsSource {
        let (identity, ca) = (Arc::clone(&self.identity), self.ca.clone());
        Arc::new(move || {
            let mut roots = RootCertStore::empty();
            match &ca_file {
                None => roots.add(ca.der().clone()).map_err(|e| e.to_string())?,
                Some(path) => {
                    let read =
                        CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
                    let read = read.map_err(|e| format!("cannot read {}: {e}", path.display()))?;
                    if read.is_empty() {
                        return Err(format!("{} holds no certificate", path.display()));
                    }
                    for certificate in read {
                        roots.add(certificate).map_err(|e| format!("{}: {e}", path.display()))?;
                    }
                }
            }
            let config = client_config(&identity.load(), roots);
            config.map(Arc::new).map_err(|e| e.to_string())
        })
    }
}

/// The key of one sink's hashes: kept, so that equal values have equal hashes for years.
fn key(path: &Path, entropy: &dyn Entropy) -> std::io::Result<Zeroizing<[u8; 32]>> {
    let text = private::read_or_make(path, || {
        let mut key = Zeroizing::new([0; 32]);
        entropy.fill(&mut *key).map_err(std::io::Error::other)?;
        Ok(Zeroizing::new(HEXLOWER.encode(&*key)))
    })?;
    let bytes = HEXLOWER.decode(text.trim().as_bytes()).map(Zeroizing::new).map_err(std::io::Error::other)?;
    let key = <[u8; 32]>::try_from(&bytes[..]);
    key.map(Zeroizing::new).map_err(|_| std::io::Error::other("a key has 64 hexadecimal digits"))
}

/// An error stays until something is delivered again, or nothing waits: a collector that takes every
/// connection and then hangs, or says what cannot be, fails all the same.
fn is_failing(status: &Status, alarm_lag: u64) -> bool {
    status.last_error.is_some() || status.lag >= alarm_lag
}

/// Records when the collector fails, or stays behind, for long, and when it has everything again;
/// both once.
async fn tell<F>(record: impl Fn(EventKind) -> F, sink: &SinkConfig, mut seen: watch::Receiver<Status>)
where
    F: Future<Output = ()>,
{
    let SinkConfig { name, alarm_lag, alarm_after, .. } = sink;
    let alarm_lag = *alarm_lag;
    loop {
        // Working, until it has not worked for a while.
        let failing = |status: &Status| is_failing(status, alarm_lag);
        if seen.wait_for(failing).await.is_err() {
            return;
        }
        match tokio::time::timeout(*alarm_after, seen.wait_for(|status| !failing(status))).await {
            Ok(Ok(_)) => continue,
            Ok(Err(_)) => return,
            Err(_) => {}
        }
        let (lag, last_error) = {
            let status = seen.borrow();
            (status.lag, status.last_error.clone().unwrap_or_default())
        };
        record(EventKind::SinkLagging { sink: name.clone(), lag, last_error }).await;
        // A live log is seldom followed to its very end.
        let caught_up = |status: &Status| {
            status.connected && status.last_error.is_none() && status.lag < alarm_lag.div_ceil(10)
        };
        if seen.wait_for(caught_up).await.is_err() {
            return;
        }
        record(EventKind::SinkRecovered { sink: name.clone() }).await;
    }
}

/// Records events that the collector will never take.
async fn tell_rejected(gate: &Gate, name: &str, mut seen: watch::Receiver<Status>) {
    let mut told = 0;
    loop {
        let (count, last) = match seen.wait_for(|status| status.rejected > told).await {
            Ok(status) => (status.rejected - told, status.last_rejected.clone()),
            Err(_) => return,
        };
        told += count;
        let (index, reason) = last.unwrap_or_default();
        record(gate, EventKind::SinkRejected { sink: name.to_owned(), count, index, reason }).await;
        tokio::time::sleep(REJECTED_EVERY).await;
    }
}

async fn record(gate: &Gate, kind: EventKind) {
    if let Err(refusal) = gate.record(&Event::new(gate.now(), kind)).await {
        tracing::error!(code = %refusal.code, "the state of the feed could not be recorded");
    }
}

fn client_config(identity: &Identity, roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::SeededEntropy;

    const ALARM: u64 = 1000;
    const SECOND: Duration = Duration::from_secs(1);

    /// A sink whose status is said by hand, and what was recorded about it.
    struct Told {
        status: watch::Sender<Status>,
        told: Arc<std::sync::Mutex<Vec<&'static str>>>,
    }

    impl Told {
        fn new() -> Told {
            let (status, seen) = watch::channel(Status::default());
            let told: Arc<std::sync::Mutex<Vec<&'static str>>> = Arc::default();
            let own = Arc::clone(&told);
            tokio::spawn(async move {
                let record = |kind: EventKind| {
                    own.lock().unwrap().push(match kind {
                        EventKind::SinkLagging { .. } => "lagging",
                        EventKind::SinkRecovered { .. } => "recovered",
                        other => panic!("{other:?}"),
                    });
                    std::future::ready(())
                };
                let sink = format!("name = 'soc'\nkind = 'file'\npath = 'x'\nalarm_lag = {ALARM}");
                tell(record, &toml::from_str(&sink).unwrap(), seen).await;
            });
            Told { status, told }
        }

        /// It is so for a while; what was recorded by then.
        async fn is(&self, status: Status, seconds: u32) -> Vec<&'static str> {
            self.status.send_replace(status);
            tokio::time::sleep(SECOND * seconds).await;
            self.told.lock().unwrap().clone()
        }
    }

    fn works(lag: u64) -> Status {
        Status { connected: true, lag, ..Status::default() }
    }

    fn fails(connected: bool, lag: u64) -> Status {
        Status { connected, lag, last_error: Some("no answer".to_owned()), ..Status::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_refuses_is_told_once_and_so_is_its_recovery() {
        let told = Told::new();
        assert!(told.is(works(0), 100).await.is_empty());
        // A restart of the collector is nothing yet.
        assert!(told.is(fails(false, 3), 20).await.is_empty());
        assert!(told.is(works(0), 100).await.is_empty());
        assert!(told.is(fails(false, 3), 29).await.is_empty());
        assert_eq!(told.is(fails(false, 4), 2).await, ["lagging"]);
        assert_eq!(told.is(fails(false, 900), 3600).await, ["lagging"]);
        assert_eq!(told.is(works(500), 100).await, ["lagging"], "it has not caught up");
        assert_eq!(told.is(works(5), 1).await, ["lagging", "recovered"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_hangs_or_lies_is_told_however_often_it_is_connected() {
        let told = Told::new();
        // Left after half a minute without an answer; connected again; left again, on a quiet log.
        assert!(told.is(works(2), 30).await.is_empty());
        let mut all = Vec::new();
        for _ in 0..20 {
            told.is(fails(false, 2), 15).await;
            all = told.is(fails(true, 2), 30).await;
        }
        assert_eq!(all, ["lagging"], "and it does not recover by connecting");
        assert_eq!(told.is(works(0), 1).await, ["lagging", "recovered"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_is_too_slow_is_told_by_its_lag() {
        let told = Told::new();
        for lag in (0..ALARM).step_by(10) {
            assert!(told.is(works(lag), 1).await.is_empty());
        }
        assert!(told.is(works(ALARM), 29).await.is_empty());
        assert_eq!(told.is(works(ALARM + 5), 2).await, ["lagging"]);
        assert_eq!(told.is(works(ALARM / 2), 100).await, ["lagging"]);
        assert_eq!(told.is(works(ALARM / 10 - 1), 1).await, ["lagging", "recovered"]);
    }

    #[test]
    fn a_sink_keeps_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("siem-soc.key");
        let first = key(&path, &SeededEntropy::new(1)).unwrap();
        assert_eq!(*first, *key(&path, &SeededEntropy::new(2)).unwrap());
        std::fs::write(&path, "short").unwrap();
        assert!(key(&path, &SeededEntropy::new(1)).is_err());
    }
}
