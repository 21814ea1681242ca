//! What an operator may set, in `config.toml` of the agent's folder.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use model::AgentId;
use serde::{Deserialize, Deserializer, de};

use crate::backends::{BackendConfig, PlacementConfig};
use crate::watch::Eyes;
use crate::workspace::Limits;

/// What is written when there is no `config.toml` yet: every key, commented.
pub const FIRST: &str = include_str!("config.toml");

/// Brokers that one agent dials.
const BROKERS: usize = 8;

/// The configuration.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// This agent.
    #[serde(deserialize_with = "agent")]
    pub agent: AgentId,
    /// Where the broker takes agents, `host:port` (UDP).
    pub broker: String,
    /// The same of several brokers, instead.
    pub brokers: Vec<String>,
    /// The broker's API, `https://host:port`.
    pub api: String,
    /// The file with the one-time token.
    pub enrol_token: PathBuf,
    /// How many backends it takes to read.
    pub k: u8,
    /// Where shares lie.
    pub backends: Vec<BackendConfig>,
    /// What is asked of the way they lie at institutions.
    pub placement: PlacementConfig,
    /// The OCI runtime.
    pub runtime: PathBuf,
    /// The program that becomes PID 1; beside the agent's own if not set.
    pub init: Option<PathBuf>,
    /// Where running workspaces have their files; under `/run/sekisho` if not set.
    pub run: Option<PathBuf>,
    /// Sessions at once.
    pub sessions: u32,
    /// Seconds after which a workspace without sessions is stopped, if its study has not said sooner.
    pub idle_secs: u64,
    /// Seconds without any broker after which workspaces that nobody is in are stopped.
    pub alone_secs: u64,
    /// How homes lie.
    pub homes: HomesConfig,
    /// Memory for rebuilt blocks per workspace, MiB.
    pub cache_mib: usize,
    /// What each workspace may use at most.
    pub limits: Limits,
    /// What is watched in each workspace.
    pub watch: Eyes,
    /// Seconds after which the agent tells how it and its host are, also if nothing changed.
    pub diagnose_secs: u64,
    /// Where else than on its socket the agent can be asked how it is: an address of this host.
    pub metrics: Option<SocketAddr>,
}

/// How homes lie.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HomesConfig {
    /// Each on a disk of its own, as large as the study says: ext4 in a file, mounted as a loop.
    #[default]
    Disk,
    /// In folders, which nothing bounds.
    Folder,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read or written.
    #[error("{path} cannot be read or written")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file says something that cannot be.
    #[error("{path}: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What, where, and what would be right.
        reason: String,
    },
}

impl Default for Config {
    fn default() -> Config {
        Config {
            agent: default_agent(),
            broker: "127.0.0.1:8444".to_owned(),
            brokers: Vec::new(),
            api: "https://localhost:8443".to_owned(),
            enrol_token: "enrol.token".into(),
            k: 3,
            backends: Vec::new(),
            placement: PlacementConfig::default(),
            runtime: "runc".into(),
            init: None,
            run: None,
            sessions: 256,
            idle_secs: 12 * 3600,
            alone_secs: 900,
            homes: HomesConfig::default(),
            cache_mib: 64,
            limits: Limits::default(),
            watch: Eyes::default(),
            diagnose_secs: 3600,
            metrics: None,
        }
    }
}

impl Config {
    /// Where brokers take agents: those of `brokers`, or else that of `broker`.
    pub fn brokers(&self) -> &[String] {
        if self.brokers.is_empty() { std::slice::from_ref(&self.broker) } else { &self.brokers }
    }

    /// Reads `config.toml` in `dir`, writing it first if it is not there.
    pub fn load(dir: &Path) -> Result<Config, ConfigError> {
        let path = dir.join("config.toml");
        let file = |source| ConfigError::File { path: path.clone(), source };
        if !path.exists() {
            fs::write(&path, FIRST).map_err(file)?;
        }
        let text = fs::read_to_string(&path).map_err(file)?;
        Config::parse(&text).map_err(|reason| ConfigError::Content { path, reason })
    }

    /// Reads the text of a `config.toml`.
    pub fn parse(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
        let n = config.backends.len();
        if !(2..=255).contains(&n) || config.k < 2 || usize::from(config.k) > n {
            return Err(format!(
                "{n} backends are named and k is {}; name 2 to 255 [[backends]], and 2 ≤ k ≤ their number",
                config.k
            ));
        }
        for (at, backend) in config.backends.iter().enumerate() {
            backend.check()?;
            if config.backends[..at].iter().any(|other| other.id == backend.id) {
                return Err(format!("two backends are called {}", backend.id));
            }
        }
        if !config.api.starts_with("https://") {
            return Err("api is an address that begins with https://".to_owned());
        }
        if config.sessions == 0 || config.cache_mib == 0 {
            return Err("sessions and cache_mib are at least 1".to_owned());
        }
        if config.brokers.len() > BROKERS {
            return Err(format!("an agent dials at most {BROKERS} brokers"));
        }
        for (at, broker) in config.brokers.iter().enumerate() {
            if config.brokers[..at].contains(broker) {
                return Err(format!("the broker {broker} is named twice"));
            }
        }
        if config.diagnose_secs == 0 || config.watch.per_second == 0 {
            return Err("diagnose_secs and watch.per_second are at least 1".to_owned());
        }
        Ok(config)
    }
}

fn default_agent() -> AgentId {
    AgentId::from_name("main").unwrap_or_else(|_| unreachable!("a plain name"))
}

/// With or without the prefix.
fn agent<'de, D: Deserializer<'de>>(from: D) -> Result<AgentId, D::Error> {
    let text = String::deserialize(from)?;
    let name = text.strip_prefix(AgentId::PREFIX).unwrap_or(&text);
    AgentId::from_name(name).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKENDS: &str = "
        [[backends]]\nid = 'backend:a'\ninstitution = 'A'\npath = '../a'
        [[backends]]\nid = 'backend:b'\ninstitution = 'B'\npath = '../b'";

    #[test]
    fn what_is_written_first_shows_the_defaults() {
        let shown: String = FIRST
            .lines()
            .filter_map(|line| line.strip_prefix("#: "))
            .filter(|line| !["init =", "run =", "metrics ="].iter().any(|unset| line.starts_with(unset)))
            .map(|line| format!("{line}\n"))
            .collect();
        let parsed: Config = toml::from_str(&shown).unwrap();
        assert_eq!(Config { backends: Vec::new(), ..parsed }, Config::default());
        assert!(Config::parse(FIRST).unwrap_err().contains("backends"), "backends have no default");
    }

    #[test]
    fn a_name_goes_with_or_without_its_prefix() {
        for name in ["hall-1", "agent:hall-1"] {
            let config = Config::parse(&format!("agent = '{name}'\nk = 2\n{BACKENDS}")).unwrap();
            assert_eq!(config.agent.as_str(), "agent:hall-1");
        }
    }

    #[test]
    fn one_broker_or_several_are_dialled() {
        let brokers = |text: &str| {
            let config = Config::parse(&format!("k = 2\n{text}\n{BACKENDS}")).unwrap();
            config.brokers().to_vec()
        };
        assert_eq!(brokers(""), ["127.0.0.1:8444"]);
        assert_eq!(brokers("broker = 'gate:1'"), ["gate:1"]);
        assert_eq!(brokers("brokers = ['east:1', 'west:1']"), ["east:1", "west:1"]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (bad, word) in [
            ("colour = 'red'", "colour"),
            ("k = 2\nhomes = 'tent'", "tent"),
            ("k = 2\nbrokers = ['a:1', 'b:1', 'a:1']", "named twice"),
            ("k = 3", "k is 3"),
            ("k = 1", "k is 1"),
            ("k = 2\napi = 'http://x'", "https"),
            ("k = 2\nagent = '../x'", "name"),
        ] {
            let error = Config::parse(&format!("{bad}\n{BACKENDS}")).unwrap_err();
            assert!(error.contains(word), "{bad}: {error}");
        }
    }
}
