//! Carries the audit log to a collector: RFC 5424 messages over mutual TLS (RFC 5425).
//!
//! The log is the only thing that is written before anybody is permitted anything; this room
//! follows it at a distance and never holds it up. RFC 5425 knows no acknowledgement, so *at least
//! once* is built on what can be known: an entry counts as delivered only when its bytes were
//! written and flushed, the collector's TCP has acknowledged them, **and** the connection was still
//! whole [`GRACE`] later. Until then the cursor does not move past it, and the next connection sends
//! it again. Copies carry the same `uid` and `index` and can be told by them.
//!
//! What this does not cover: a collector that takes bytes, keeps them in memory for longer than
//! that, and then loses them. Collectors that matter should write before they read on.

mod cursor;
mod sink;
mod syslog;
mod transport;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;

pub use sink::run;
pub use syslog::{Header, MESSAGE_MIN, message};

/// How long a connection must have stayed whole after entries were sent before they count as
/// delivered.
pub const GRACE: Duration = Duration::from_secs(1);

/// Gives the TLS configuration of the next connection, so that a renewed certificate is used
/// without a restart. The text of an error is shown in [`Status::last_error`].
pub type TlsSource = Arc<dyn Fn() -> Result<Arc<rustls::ClientConfig>, String> + Send + Sync>;

/// One collector.
#[derive(Clone)]
pub struct SinkConfig {
    /// `host:port` of the collector.
    pub address: String,
    /// The name that its certificate must carry.
    pub server_name: ServerName<'static>,
    /// Our side of mutual TLS, asked for at each connection.
    pub tls: TlsSource,
    /// HOSTNAME in the messages.
    pub hostname: String,
    /// The most bytes a message may have; longer ones are cut (see [`message`]). Collectors must
    /// take 2048 and should take 8192 (RFC 5425, section 4.3.1).
    pub message_max: usize,
}

/// How far a sink is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Whether the collector is connected.
    pub connected: bool,
    /// Entries that count as delivered and will not be sent again.
    pub delivered: u64,
    /// Entries in the log that are not delivered yet.
    pub lag: u64,
    /// Why the last connection failed or ended, until entries are delivered again.
    pub last_error: Option<String>,
}

/// Why a sink cannot run at all.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The file that remembers how far the sink is cannot be read or written.
    #[error("cannot {doing} the file {path} that remembers what the collector has: {source}", path = path.display())]
    Cursor {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// That file says nothing that can be understood.
    #[error("the file {path} that remembers what the collector has is damaged; delete it to send the whole log again", path = .0.display())]
    Damaged(PathBuf),
    /// That file is about another log.
    #[error("the file {path} is about the log {found}, not about {expected}; delete it to send the whole log", path = path.display())]
    OtherLog {
        /// The file.
        path: PathBuf,
        /// The log it is about.
        found: String,
        /// The log to be sent.
        expected: String,
    },
    /// The collector has entries that the log does not have.
    #[error(
        "the collector has {delivered} entries, the log only {size}: the log was set back; verify it with `sekisho audit verify` before anything else"
    )]
    LogSetBack {
        /// What was delivered.
        delivered: u64,
        /// What is there.
        size: u64,
    },
    /// The log could not be read.
    #[error("the log cannot be read for the collector: {0}")]
    Log(#[from] audit::ReadError),
}
