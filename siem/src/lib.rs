//! Carries the audit log to collectors: RFC 5424 messages over mutual TLS (RFC 5425), RELP over TLS,
//! HTTPS batches for Splunk and Elasticsearch, and files of JSON lines.
//!
//! The log is the only thing that is written before anybody is permitted anything; this room
//! follows it at a distance and never holds it up. Each sink reads the log by itself, with a cursor
//! and bounded memory of its own, so that one which hangs, refuses or lies slows nothing but itself.
//! Delivery is *at least once*: an entry that may not have arrived is sent again, and copies carry
//! the same `uid` and `index` and can be told by them. What makes an entry count as delivered:
//!
//! - **RFC 5425** knows no acknowledgement. Its bytes were written and flushed, the collector's TCP
//!   has acknowledged them, and the connection was still whole [`GRACE`] later. A collector that takes
//!   bytes, keeps them in memory for longer than that, and then loses them, is not covered.
//! - **RELP**: the collector acknowledged it, and all before it.
//! - **Splunk**: the collector said yes; with `indexer_ack`, its indexers did.
//! - **Elasticsearch**: the document was created, or was there already.
//! - **File**: it is synced to disk.

mod config;
mod connection;
mod cursor;
pub mod detect;
mod feed;
mod file;
mod http;
pub mod metrics;
mod privacy;
pub mod relp;
mod relp_tls;
mod run;
mod syslog;
mod syslog_tls;
mod transport;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use config::SinkConfig;
pub use connection::Peer;
pub use file::FileTarget;
pub use http::{Answer, AnswerError, Dialect, HttpTarget, parse_answer};
pub use privacy::{Privacy, Treatment};
pub use run::run;
pub use syslog::{Header, MESSAGE_MIN, frame, message};

/// How long a connection of RFC 5425 must have stayed whole after entries were sent before they
/// count as delivered.
pub const GRACE: Duration = Duration::from_secs(1);

/// Gives the TLS configuration of the next connection, so that a renewed certificate is used
/// without a restart. The text of an error is shown in [`Status::last_error`].
pub type TlsSource = Arc<dyn Fn() -> Result<Arc<rustls::ClientConfig>, String> + Send + Sync>;

/// One collector, and what it may see.
#[derive(Clone)]
pub struct Sink {
    /// Its name, for people.
    pub name: String,
    /// The host that events are said to come from.
    pub hostname: String,
    /// Where they go.
    pub target: Target,
    /// What may be seen there.
    pub privacy: Privacy,
}

/// Where events go, and how.
#[derive(Clone)]
pub enum Target {
    /// RFC 5424 over TLS.
    Syslog(SyslogTarget),
    /// RFC 5424 in RELP over TLS.
    Relp(SyslogTarget),
    /// Batches over HTTPS.
    Http(HttpTarget),
    /// A file on this machine.
    File(FileTarget),
}

/// A collector of syslog messages.
#[derive(Clone)]
pub struct SyslogTarget {
    /// Where it is.
    pub peer: Peer,
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
    /// Entries sent since the start, repetitions included.
    pub sent: u64,
    /// Connections that failed or were lost since the start.
    pub errors: u64,
    /// Entries that the collector will never take, since the start; they count as delivered.
    pub rejected: u64,
    /// The last of them, and what the collector said.
    pub last_rejected: Option<(u64, String)>,
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
