//! What an operator may set, in `config.toml` of the broker's folder.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use certs::TrustDomain;
use policy::{ApprovalRules, Matter};
use serde::Deserialize;
use siem::SinkConfig;

use crate::watch::Detection;

/// The configuration as it is first written. Every line that is commented out shows its default.
pub const FIRST: &str = include_str!("config.toml");

/// The configuration of one broker. Unknown keys are refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The name of this installation, in every certificate.
    pub trust_domain: TrustDomain,
    /// Where people connect with SSH.
    pub ssh: SocketAddr,
    /// Where programs connect with HTTPS.
    pub api: SocketAddr,
    /// Where agents dial in (UDP).
    pub agents: SocketAddr,
    /// The names under which clients reach the broker; the first is what they are told to use.
    pub names: Vec<String>,
    /// The addresses under which clients reach the broker.
    pub addresses: Vec<IpAddr>,
    /// The signer's socket.
    pub signer: PathBuf,
    /// The user to become when started as root.
    pub user: Option<String>,
    /// Sessions that may run at once.
    pub max_sessions: usize,
    /// How long sessions may go on when the broker is asked to stop, in seconds.
    pub grace_secs: u64,
    /// How long they may take to end then, in seconds.
    pub drain_secs: u64,
    /// Seconds after which the broker tells how it and its host are, also if nothing changed.
    pub diagnose_secs: u64,
    /// The collectors that follow the audit log.
    pub siem: Siem,
    /// What the audit log is watched for.
    pub detection: Detection,
    /// The witness that signs the audit log's checkpoints.
    pub witness: Option<Witness>,
    /// How the audit log is kept as secret shares, and how long it stays here as well.
    pub retention: Retention,
    /// How recordings of sessions are kept as secret shares, and how long they stay here as well.
    pub recordings: KeptRecordings,
    /// What takes a second officer.
    pub approvals: Approvals,
    /// Where else than at its other doors the broker can be asked how it is: an address of this host.
    pub metrics: Option<SocketAddr>,
}

/// What takes a second officer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Approvals {
    /// Which kinds of acts do. `officers` does as soon as any other does.
    pub matters: Vec<Matter>,
    /// How long a request may wait to be approved and then done, in hours.
    pub hours: u32,
}

impl Default for Approvals {
    fn default() -> Approvals {
        Approvals { matters: Vec::new(), hours: 24 }
    }
}

impl Approvals {
    /// As the gate takes it.
    pub fn settings(&self) -> gate::ApprovalSettings {
        gate::ApprovalSettings {
            rules: ApprovalRules::of(self.matters.iter().copied()),
            lifetime: Duration::from_secs(3600) * self.hours,
        }
    }
}

/// How recordings of sessions are kept as secret shares, and when they leave this machine.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeptRecordings {
    /// Whether they are kept as secret shares at all.
    pub keep: bool,
    /// After how many seconds of waiting that is an alarm.
    pub lagging_secs: u64,
    /// For how many days after it was kept a recording stays here; without it, all stay.
    pub local_days: Option<u32>,
    /// Whether the lines of a recording that has left stay here, sealed, for searching.
    pub local_text: bool,
}

impl Default for KeptRecordings {
    fn default() -> KeptRecordings {
        KeptRecordings { keep: true, lagging_secs: 900, local_days: None, local_text: true }
    }
}

/// How parts of the audit log are kept as secret shares, and when they leave this machine.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Whether they are kept as secret shares at all.
    pub keep: bool,
    /// How many bundles of 256 entries a part has, at most; a power of two.
    pub segment_bundles: u64,
    /// After how many seconds of waiting that is an alarm.
    pub lagging_secs: u64,
    /// For how many days after it was kept a part stays here. With neither this nor `local_entries`,
    /// everything stays.
    pub local_days: Option<u64>,
    /// How many of the last entries stay here.
    pub local_entries: Option<u64>,
}

impl Default for Retention {
    fn default() -> Retention {
        Retention {
            keep: true,
            segment_bundles: 256,
            lagging_secs: 900,
            local_days: None,
            local_entries: None,
        }
    }
}

impl Retention {
    /// Whether anything ever leaves this machine.
    pub fn moves(&self) -> bool {
        self.local_days.is_some() || self.local_entries.is_some()
    }
}

/// Who signs the checkpoints of the audit log: a C2SP tlog-witness at another institution.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Witness {
    /// Its address, `https://host:port`.
    pub url: String,
    /// Its public key, the line in its key.pub.
    pub key: String,
    /// Who vouches for its certificate; needed with https.
    pub ca: Option<PathBuf>,
    /// What is shown to a witness that asks for a certificate.
    pub certificate: Option<PathBuf>,
    /// The key of that certificate.
    pub certificate_key: Option<PathBuf>,
    /// Whether the broker refuses to start when the witness cannot be asked, and stops when it
    /// refuses. Otherwise that is an alarm in the log. A log that is behind its witness is refused
    /// at the start in any case.
    #[serde(default)]
    pub strict: bool,
}

/// Where the audit log is followed to.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Siem {
    /// The collectors, each with a name of its own.
    pub sink: Vec<SinkConfig>,
}

impl Default for Config {
    fn default() -> Self {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Config {
            // The name is a constant that its own rules accept.
            trust_domain: "sekisho.test".parse().unwrap_or_else(|_| unreachable!()),
            ssh: local(2222),
            api: local(8443),
            agents: local(8444),
            names: vec!["localhost".to_owned()],
            addresses: vec![IpAddr::from([127, 0, 0, 1])],
            signer: PathBuf::from("../run/signer.sock"),
            user: None,
            max_sessions: 256,
            grace_secs: 0,
            drain_secs: 5,
            diagnose_secs: 3600,
            siem: Siem::default(),
            detection: Detection::default(),
            witness: None,
            retention: Retention::default(),
            recordings: KeptRecordings::default(),
            approvals: Approvals::default(),
            metrics: None,
        }
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It could not be read or first written.
    #[error("{path} cannot be read or written: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// It is not what a configuration looks like.
    #[error("{path} is not a valid configuration: {source}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A value is out of range.
    #[error("{path}: {reason}")]
    Value {
        /// The file.
        path: PathBuf,
        /// Which, and what it should be.
        reason: String,
    },
}

impl Config {
    /// Reads `config.toml` in `dir`, writing it first if it is not there.
    pub fn load(dir: &Path) -> Result<Config, ConfigError> {
        let path = dir.join("config.toml");
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                std::fs::write(&path, FIRST).map(|()| FIRST.to_owned())
            }
            read => read,
        }
        .map_err(|source| ConfigError::Io { path: path.clone(), source })?;
        Config::parse(&text, &path)
    }

    fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        let config: Config = toml::from_str(text)
            .map_err(|source| ConfigError::Malformed { path: path.to_owned(), source: Box::new(source) })?;
        let value = |reason: &str| ConfigError::Value { path: path.to_owned(), reason: reason.to_owned() };
        if config.names.is_empty() && config.addresses.is_empty() {
            return Err(value("names and addresses are both empty: clients could not verify this broker"));
        }
        if config.max_sessions == 0 || config.max_sessions > 100_000 {
            return Err(value("max_sessions lies between 1 and 100000"));
        }
        if let Some(witness) = &config.witness
            && witness.certificate.is_some() != witness.certificate_key.is_some()
        {
            return Err(value("witness.certificate and witness.certificate_key go together"));
        }
        let Retention { keep, segment_bundles, lagging_secs, .. } = config.retention;
        if !(segment_bundles.is_power_of_two() && segment_bundles <= 4096) {
            return Err(value("retention.segment_bundles is a power of two, at most 4096"));
        }
        if lagging_secs == 0 {
            return Err(value("retention.lagging_secs is at least 1"));
        }
        if config.retention.moves() && !keep {
            return Err(value(
                "retention.local_days and local_entries need retention.keep: nothing leaves unkept",
            ));
        }
        let KeptRecordings { keep, lagging_secs, local_days, .. } = config.recordings;
        if lagging_secs == 0 {
            return Err(value("recordings.lagging_secs is at least 1"));
        }
        if local_days.is_some() && !keep {
            return Err(value("recordings.local_days needs recordings.keep: nothing leaves unkept"));
        }
        if config.approvals.hours == 0 || config.approvals.hours > 8760 {
            return Err(value("approvals.hours lies between 1 and 8760"));
        }
        if config.diagnose_secs == 0 {
            return Err(value("diagnose_secs is at least 1"));
        }
        if config.drain_secs > 600 || config.grace_secs > 86_400 {
            return Err(value("drain_secs is at most 600, grace_secs at most 86400"));
        }
        let mut names: Vec<&str> = config.siem.sink.iter().map(|sink| sink.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(value(&format!("two sinks have the name {:?}", twice[0])));
        }
        Ok(config)
    }

    /// What people are told to connect to with SSH: where the door listens if that is one of the
    /// broker's addresses, else its first name.
    pub fn public_host(&self) -> String {
        let listening = Some(self.ssh.ip()).filter(|ip| self.addresses.contains(ip));
        let address =
            listening.or_else(|| if self.names.is_empty() { self.addresses.first().copied() } else { None });
        address.map(|ip| ip.to_string()).or_else(|| self.names.first().cloned()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_configuration_is_the_default_one() {
        let dir = tempfile::tempdir().unwrap();
        let written = Config::load(dir.path()).unwrap();
        assert_eq!(format!("{written:?}"), format!("{:?}", Config::default()));
        // Every default that is shown can be taken over by removing the mark of a comment.
        let shown: String =
            FIRST.lines().filter_map(|l| l.strip_prefix("#: ")).map(|l| format!("{l}\n")).collect();
        Config::parse(&shown, Path::new("shown")).unwrap();
        assert_eq!(Config::load(dir.path()).unwrap().max_sessions, 256);
    }

    #[test]
    fn unknown_keys_and_wild_values_are_refused() {
        for bad in [
            "colour = 1",
            "max_sessions = 0",
            "names = []\naddresses = []",
            "[siem]\naddress = \"a:1\"",
            "[[siem.sink]]\nname = \"a\"\nkind = \"file\"",
            "[[siem.sink]]\nname = \"a\"\nkind = \"file\"\npath = \"p\"\ncolour = 1",
            "[[siem.sink]]\nname = \"a\"\nkind = \"file\"\npath = \"p\"\n[[siem.sink]]\nname = \"a\"\nkind = \"file\"\npath = \"q\"",
            "[witness]\nurl = \"http://a:1\"",
            "[witness]\nurl = \"http://a:1\"\nkey = \"k\"\ncertificate = \"c\"",
            "ssh = 1",
            "[detection]\nlock_person = \"sometimes\"",
            "[detection]\ncolour = 1",
            "[[detection.response]]\nrule = \"a\"\nreaction = \"shout\"",
            "[retention]\nsegment_bundles = 3",
            "[retention]\nsegment_bundles = 0",
            "[retention]\nsegment_bundles = 8192",
            "[retention]\nlagging_secs = 0",
            "[retention]\nlocal_days = -1",
            "[retention]\nkeep = false\nlocal_days = 30",
            "[retention]\ncolour = 1",
            "[recordings]\nlagging_secs = 0",
            "[recordings]\nkeep = false\nlocal_days = 30",
            "[recordings]\nlocal_days = -1",
            "[recordings]\ncolour = 1",
            "[approvals]\nhours = 0",
            "[approvals]\nmatters = [\"everything\"]",
            "[approvals]\ncolour = 1",
        ] {
            assert!(Config::parse(bad, Path::new("bad")).is_err(), "{bad}");
        }
    }
}
