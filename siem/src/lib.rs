//! Carries the audit log to a collector: RFC 5424 messages over mutual TLS (RFC 5425).

use std::path::PathBuf;
use std::sync::Arc;

use audit::Log;
use model::Entropy;
use rustls_pki_types::ServerName;
use tokio::sync::watch;

/// Gives the TLS configuration of the next connection, so that a renewed certificate is used
/// without a restart. The text of an error is shown in [`Status::last_error`].
pub type TlsSource = Arc<dyn Fn() -> Result<Arc<rustls::ClientConfig>, String> + Send + Sync>;

/// One collector.
#[derive(Clone)]
pub struct SinkConfig {
    /// What the sink is called in status and messages.
    pub name: String,
    /// `host:port` of the collector.
    pub address: String,
    /// The name that its certificate must carry.
    pub server_name: ServerName<'static>,
    /// Our side of mutual TLS.
    pub tls: TlsSource,
    /// HOSTNAME in the messages.
    pub hostname: String,
}

/// How far a sink is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Whether the collector is connected.
    pub connected: bool,
    /// Entries that are confirmed (see [`run`]) and will not be sent again.
    pub delivered: u64,
    /// Entries in the log that are not confirmed yet.
    pub lag: u64,
    /// Why the last connection failed, until one works again.
    pub last_error: Option<String>,
}

/// Why a sink cannot run at all.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The file that remembers how far the sink is.
    #[error("cannot use the cursor file {path}: {what}")]
    Cursor {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// Sends the log to the collector until `stop` turns true (or its sender is gone).
pub async fn run(
    _config: SinkConfig,
    _log: Log,
    _cursor: PathBuf,
    _entropy: Arc<dyn Entropy>,
    _status: watch::Sender<Status>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), SinkError> {
    let _ = stop.wait_for(|stop| *stop).await;
    Ok(())
}
