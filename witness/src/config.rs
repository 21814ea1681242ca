//! What an operator of a witness may set, in `config.toml` of its folder.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use audit::LogPublicKey;
use serde::Deserialize;

/// The configuration as it is first written. Every line that is commented out shows its default.
pub const FIRST: &str = include_str!("config.toml");

/// The configuration of one witness. Unknown keys are refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The name of this witness in its signatures; it cannot be changed later.
    pub name: String,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where else than on its socket it can be asked how it is: an address of this host.
    pub metrics: Option<SocketAddr>,
    /// TLS; without it, it should be reached through something that adds it.
    pub tls: Option<Tls>,
    /// The keys of the logs it signs for, `origin+hash+key`.
    pub logs: Vec<String>,
}

/// Files in PEM.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate, with its chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authority of the clients that are let in; everybody's if it is not set.
    pub clients: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            name: "witness.example.org/sekisho".to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 8445)),
            metrics: None,
            tls: None,
            logs: Vec::new(),
        }
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It could not be read or first written.
    #[error("{path} cannot be read or written: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: std::io::Error,
    },
    /// It is not what a configuration looks like.
    #[error("{path} is not a valid configuration: {source}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A log's key is none.
    #[error("{path}: {text:?} under `logs` is not a key: {source}", path = path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// What stands there.
        text: String,
        /// Why.
        #[source]
        source: audit::KeyError,
    },
    /// The same log twice.
    #[error("{path}: two keys under `logs` are for {origin}", path = path.display())]
    Twice {
        /// The file.
        path: PathBuf,
        /// The log.
        origin: String,
    },
}

impl Config {
    /// Reads `config.toml` in `dir`, writing it first if it is not there, and the keys in it.
    pub fn load(dir: &Path) -> Result<(Config, Vec<LogPublicKey>), ConfigError> {
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

    fn parse(text: &str, path: &Path) -> Result<(Config, Vec<LogPublicKey>), ConfigError> {
        let config: Config = toml::from_str(text)
            .map_err(|source| ConfigError::Malformed { path: path.to_owned(), source: Box::new(source) })?;
        let mut logs: Vec<LogPublicKey> = Vec::new();
        for text in &config.logs {
            let log: LogPublicKey = text.trim().parse().map_err(|source| ConfigError::Log {
                path: path.to_owned(),
                text: text.clone(),
                source,
            })?;
            if logs.iter().any(|known| known.origin() == log.origin()) {
                return Err(ConfigError::Twice { path: path.to_owned(), origin: log.origin().to_owned() });
            }
            logs.push(log);
        }
        Ok((config, logs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_configuration_is_the_default_one() {
        let dir = tempfile::tempdir().unwrap();
        let (written, logs) = Config::load(dir.path()).unwrap();
        assert_eq!(format!("{written:?}"), format!("{:?}", Config::default()));
        assert!(logs.is_empty());
        let shown: String =
            FIRST.lines().filter_map(|l| l.strip_prefix("#: ")).map(|l| format!("{l}\n")).collect();
        assert_eq!(Config::parse(&shown, Path::new("shown")).unwrap().1.len(), 1);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let log = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        for bad in
            ["colour = 1", "logs = [\"x\"]", &format!("logs = [{log:?}, {log:?}]"), "[tls]\nkey = \"k\""]
        {
            assert!(Config::parse(bad, Path::new("bad")).is_err(), "{bad}");
        }
    }
}
