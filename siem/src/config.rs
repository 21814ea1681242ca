//! Sinks as an operator writes them: `[[siem.sink]]` tables.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls_pki_types::ServerName;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::file::FileTarget;
use crate::http::{Dialect, HttpTarget};
use crate::{MESSAGE_MIN, Peer, Privacy, Sink, SyslogTarget, Target, TlsSource, Treatment};

/// What collectors should take at least (RFC 5425, section 4.3.1), and stock rsyslogd's own limit.
const MESSAGE: usize = 8192;
const MESSAGE_MAX: usize = 64 << 10;
const NAME_MAX: usize = 32;
const ROTATE_BYTES: u64 = 64 << 20;
const ROTATE_MIN: u64 = 64 << 10;
const KEEP: u32 = 8;
const KEEP_MAX: u32 = 1000;
/// How many events a collector may be behind before that is recorded.
const ALARM_LAG: u64 = 10_000;
/// For how many seconds that, or a failure, may last before it is.
const ALARM_SECS: u64 = 30;

/// One table. Unknown keys are refused, and so are keys that its `kind` does not use.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Table")]
pub struct SinkConfig {
    /// Its name in records, in metrics, and in the names of its files: lower-case letters, digits and `-`.
    pub name: String,
    /// How many events it may be behind before that is recorded. Default 10000.
    pub alarm_lag: u64,
    /// For how long it may be that, or fail, before that is recorded. Default 30 s.
    pub alarm_after: Duration,
    /// What it may see of the house, and of people. Default `clear`.
    pub internal: Treatment,
    /// See `internal`.
    pub personal: Treatment,
    /// A file of PEM certificates that vouch for it; without one the house's own authority does.
    pub ca_file: Option<PathBuf>,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Syslog {
        address: String,
        server_name: ServerName<'static>,
        message_max: usize,
    },
    Relp {
        address: String,
        server_name: ServerName<'static>,
        message_max: usize,
    },
    Http {
        address: String,
        server_name: ServerName<'static>,
        dialect: Dialect,
        token: Option<PathBuf>,
        gzip: bool,
    },
    File(FileTarget),
}

impl SinkConfig {
    /// Whether it is reached over TLS, and [`SinkConfig::sink`] needs a source for it.
    pub fn needs_tls(&self) -> bool {
        !matches!(self.kind, Kind::File(_))
    }

    /// The sink that is configured; paths are relative to `dir`. `key` is that of its keyed hashes.
    pub fn sink(&self, dir: &Path, hostname: &str, key: Zeroizing<[u8; 32]>, tls: TlsSource) -> Sink {
        let peer = |address: &String, server_name: &ServerName<'static>| Peer {
            address: address.clone(),
            server_name: server_name.clone(),
            tls,
        };
        let target = match &self.kind {
            Kind::Syslog { address, server_name, message_max } => {
                Target::Syslog(SyslogTarget { peer: peer(address, server_name), message_max: *message_max })
            }
            Kind::Relp { address, server_name, message_max } => {
                Target::Relp(SyslogTarget { peer: peer(address, server_name), message_max: *message_max })
            }
            Kind::Http { address, server_name, dialect, token, gzip } => Target::Http(HttpTarget {
                peer: peer(address, server_name),
                dialect: dialect.clone(),
                token: token.as_ref().map(|token| dir.join(token)),
                gzip: *gzip,
            }),
            Kind::File(file) => Target::File(FileTarget { path: dir.join(&file.path), ..file.clone() }),
        };
        Sink {
            name: self.name.clone(),
            hostname: hostname.to_owned(),
            target,
            privacy: Privacy { internal: self.internal, personal: self.personal, key },
        }
    }
}

/// The table as it stands in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    name: String,
    kind: Word,
    address: Option<String>,
    server_name: Option<String>,
    ca_file: Option<PathBuf>,
    message_max: Option<usize>,
    index: Option<String>,
    indexer_ack: Option<bool>,
    token_file: Option<PathBuf>,
    gzip: Option<bool>,
    path: Option<PathBuf>,
    rotate_bytes: Option<u64>,
    keep: Option<u32>,
    #[serde(default)]
    internal: Treatment,
    #[serde(default)]
    personal: Treatment,
    alarm_lag: Option<u64>,
    alarm_secs: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Word {
    Syslog,
    Relp,
    SplunkHec,
    Elasticsearch,
    File,
}

impl TryFrom<Table> for SinkConfig {
    type Error = String;

    fn try_from(mut table: Table) -> Result<SinkConfig, String> {
        let name = std::mem::take(&mut table.name);
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(plain) {
            return Err(format!(
                "the name {name:?} of a sink is not 1 to {NAME_MAX} lower-case letters, digits or '-'"
            ));
        }
        let kind = kind(&mut table).and_then(|kind| unused(&table).map(|()| kind));
        Ok(SinkConfig {
            kind: kind.map_err(|fault| format!("sink {name}: {fault}"))?,
            name,
            alarm_lag: table.alarm_lag.unwrap_or(ALARM_LAG).max(1),
            alarm_after: Duration::from_secs(table.alarm_secs.unwrap_or(ALARM_SECS).max(1)),
            internal: table.internal,
            personal: table.personal,
            ca_file: table.ca_file,
        })
    }
}

/// Takes out of the table what its kind uses.
fn kind(table: &mut Table) -> Result<Kind, String> {
    if table.kind == Word::File {
        if table.ca_file.is_some() {
            return Err("ca_file is of no use to a file".to_owned());
        }
        let path = table.path.take().ok_or("path is missing")?;
        let rotate_bytes = table.rotate_bytes.take().unwrap_or(ROTATE_BYTES);
        let keep = table.keep.take().unwrap_or(KEEP);
        if rotate_bytes < ROTATE_MIN || keep > KEEP_MAX {
            return Err(format!("rotate_bytes is at least {ROTATE_MIN}, keep at most {KEEP_MAX}"));
        }
        return Ok(Kind::File(FileTarget { path, rotate_bytes, keep }));
    }
    let address = table.address.take().ok_or("address is missing")?;
    let server_name = table.server_name.take().ok_or("server_name is missing")?;
    let server_name =
        ServerName::try_from(server_name).map_err(|_| "server_name is no host name or address")?;
    if matches!(table.kind, Word::Syslog | Word::Relp) {
        let message_max = table.message_max.take().unwrap_or(MESSAGE);
        if !(MESSAGE_MIN..=MESSAGE_MAX).contains(&message_max) {
            return Err(format!("message_max lies between {MESSAGE_MIN} and {MESSAGE_MAX}"));
        }
        return Ok(match table.kind {
            Word::Syslog => Kind::Syslog { address, server_name, message_max },
            _ => Kind::Relp { address, server_name, message_max },
        });
    }
    let index = table.index.take();
    let dialect = if table.kind == Word::SplunkHec {
        Dialect::SplunkHec { index, indexer_ack: table.indexer_ack.take().unwrap_or(false) }
    } else {
        Dialect::Elasticsearch { index: index.ok_or("index is missing")? }
    };
    let token = table.token_file.take();
    if table.kind == Word::SplunkHec && token.is_none() {
        return Err("token_file is missing".to_owned());
    }
    Ok(Kind::Http { address, server_name, dialect, token, gzip: table.gzip.take().unwrap_or(false) })
}

fn unused(table: &Table) -> Result<(), String> {
    let left = [
        ("address", table.address.is_some()),
        ("server_name", table.server_name.is_some()),
        ("message_max", table.message_max.is_some()),
        ("index", table.index.is_some()),
        ("indexer_ack", table.indexer_ack.is_some()),
        ("token_file", table.token_file.is_some()),
        ("gzip", table.gzip.is_some()),
        ("path", table.path.is_some()),
        ("rotate_bytes", table.rotate_bytes.is_some()),
        ("keep", table.keep.is_some()),
    ];
    match left.iter().find(|(_, is_some)| *is_some) {
        Some((key, _)) => Err(format!("{key} is of no use to this kind of sink")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(table: Value) -> Result<SinkConfig, String> {
        serde_json::from_value(table).map_err(|e| e.to_string())
    }

    #[test]
    fn each_kind_is_understood() {
        for table in [
            json!({"name": "a", "kind": "syslog", "address": "h:6514", "server_name": "h", "personal": "hash"}),
            json!({"name": "a", "kind": "relp", "address": "h:2514", "server_name": "h", "message_max": 4096}),
            json!({"name": "a", "kind": "splunk-hec", "address": "h:8088", "server_name": "h", "token_file": "t",
                   "index": "i", "indexer_ack": true, "gzip": true, "ca_file": "ca.pem"}),
            json!({"name": "a", "kind": "elasticsearch", "address": "h:9200", "server_name": "h", "index": "i"}),
            json!({"name": "a", "kind": "file", "path": "events.jsonl", "rotate_bytes": 1_000_000, "keep": 3}),
        ] {
            let config = read(table.clone()).unwrap();
            assert_eq!(config.needs_tls(), table["kind"] != "file");
        }
    }

    /// The tables that the broker's first configuration shows are read as they stand there.
    #[test]
    fn what_the_broker_shows_is_understood() {
        #[derive(Deserialize)]
        struct Broker {
            siem: Siem,
        }
        #[derive(Deserialize)]
        struct Siem {
            sink: Vec<SinkConfig>,
        }
        let shown = include_str!("../../broker/src/config.toml");
        let shown: Vec<&str> = shown.lines().filter_map(|line| line.strip_prefix("#: ")).collect();
        let broker: Broker = toml::from_str(&shown.join("\n")).unwrap();
        let names: Vec<&str> = broker.siem.sink.iter().map(|sink| sink.name.as_str()).collect();
        assert_eq!(names, ["soc", "archive", "splunk", "elastic", "local"]);
    }

    #[test]
    fn anything_else_is_refused_with_its_reason() {
        for (table, reason) in [
            (json!({"name": "a", "kind": "file", "path": "p", "colour": 1}), "unknown field `colour`"),
            (json!({"name": "a", "kind": "smoke"}), "unknown variant `smoke`"),
            (json!({"name": "A/b", "kind": "file", "path": "p"}), "lower-case"),
            (json!({"name": "a", "kind": "file"}), "path is missing"),
            (json!({"name": "a", "kind": "file", "path": "p", "gzip": true}), "gzip is of no use"),
            (json!({"name": "a", "kind": "syslog", "address": "h:1"}), "server_name is missing"),
            (
                json!({"name": "a", "kind": "syslog", "address": "h:1", "server_name": "h", "message_max": 9}),
                "between",
            ),
            (json!({"name": "a", "kind": "splunk-hec", "address": "h:1", "server_name": "h"}), "token_file"),
            (json!({"name": "a", "kind": "elasticsearch", "address": "h:1", "server_name": "h"}), "index"),
        ] {
            let error = read(table).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
