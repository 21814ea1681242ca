//! The feed of the audit log to a collector, and the records about its state.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use audit::{Event, EventKind};
use certs::x509::{CaCertificate, Identity};
use gate::Gate;
use model::Entropy;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use siem::{SinkConfig, Status};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Siem;
use crate::tls::provider;

/// How long a collector may fail before that is recorded.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest message, in bytes: what collectors should take (RFC 5425, section 4.3.1).
const MESSAGE: usize = 8192;

/// The collector's name in status and records.
const NAME: &str = "siem";

/// What the feed works with.
pub struct Feed {
    /// Where the collector is.
    pub siem: Siem,
    /// The gate, for its log and for records about the feed.
    pub gate: Gate,
    /// Who we are towards the collector; renewed under the feed.
    pub identity: Arc<ArcSwap<Identity>>,
    /// Who vouches for the collector.
    pub ca: CaCertificate,
    /// HOSTNAME in the messages.
    pub hostname: String,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

impl Feed {
    /// Follows the log until the broker stops.
    pub async fn run(self, dir: &Path, stopping: CancellationToken) {
        let server_name = match ServerName::try_from(self.siem.server_name.clone()) {
            Ok(name) => name,
            Err(error) => {
                tracing::error!(%error, "siem.server_name in config.toml is no host name; the log is not sent");
                return;
            }
        };
        let (identity, ca) = (Arc::clone(&self.identity), self.ca.clone());
        let config = SinkConfig {
            address: self.siem.address.clone(),
            server_name,
            tls: Arc::new(move || {
                client_config(&identity.load(), &ca).map(Arc::new).map_err(|e| e.to_string())
            }),
            hostname: self.hostname.clone(),
            message_max: MESSAGE,
        };
        let (status, seen) = watch::channel(Status::default());
        let (stop, stopped) = watch::channel(false);
        let log = self.gate.log().clone();
        let cursor = dir.join("siem.cursor");
        let sending = siem::run(config, log, cursor, Arc::clone(&self.entropy), status, stopped);
        let stopper = async {
            stopping.cancelled().await;
            let _ = stop.send(true);
        };
        let watching = tell(&self.gate, seen);
        tokio::pin!(sending, watching);
        let ended = tokio::select! {
            ended = &mut sending => ended,
            () = &mut watching => Ok(()),
            () = stopper => sending.await,
        };
        if let Err(error) = ended {
            tracing::error!(%error, "the audit log is not sent to the collector");
        }
    }
}

/// Records when the collector fails for long, and when it works again; both once.
async fn tell(gate: &Gate, mut seen: watch::Receiver<Status>) {
    loop {
        // Working, until it has not worked for a while.
        let failing = |status: &Status| !status.connected && status.last_error.is_some();
        if seen.wait_for(failing).await.is_err() {
            return;
        }
        if let Ok(back) = tokio::time::timeout(PATIENCE, seen.wait_for(|status| status.connected)).await {
            if back.is_err() {
                return;
            }
            continue;
        }
        let (lag, last_error) = {
            let status = seen.borrow();
            (status.lag, status.last_error.clone().unwrap_or_default())
        };
        record(gate, EventKind::SinkLagging { sink: NAME.to_owned(), lag, last_error }).await;
        if seen.wait_for(|status| status.connected && status.lag == 0).await.is_err() {
            return;
        }
        record(gate, EventKind::SinkRecovered { sink: NAME.to_owned() }).await;
    }
}

async fn record(gate: &Gate, kind: EventKind) {
    if let Err(refusal) = gate.record(&Event::new(gate.now(), kind)).await {
        tracing::error!(code = %refusal.code, "the state of the feed could not be recorded");
    }
}

fn client_config(identity: &Identity, ca: &CaCertificate) -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone())?;
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
}
