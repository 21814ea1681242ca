use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use certs::TrustDomain;
use serde::Deserialize;

use crate::files;

const FILE: &str = "config.toml";

/// What is written on the first start: each setting with its default.
const DEFAULT: &str = r#"# Settings of sekisho-signer. Paths are relative to this file's folder.

# The name under which all certificates are issued. It cannot change once keys were made.
trust_domain = "sekisho.test"

# Where brokers ask.
socket = "../run/signer.sock"

# The user to become when started as root.
# user = "sekisho"

# Numeric ids of the users who may ask, besides the one that the signer runs as.
allow_uids = []

# How many requests are served at a time; further ones wait.
connections = 32

# The host names and addresses that host and server certificates may carry; any, if empty.
# host_names = ["localhost", "127.0.0.1"]

# Where else than on vitals.sock in this folder it can be asked how the signer is (GET /health and
# /metrics): an address of this host, for Prometheus.
# metrics = "127.0.0.1:9465"
"#;

/// The settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub trust_domain: TrustDomain,
    pub socket: PathBuf,
    pub user: Option<String>,
    #[serde(default)]
    pub allow_uids: Vec<u32>,
    #[serde(default = "default_connections")]
    pub connections: u16,
    #[serde(default)]
    pub host_names: Vec<String>,
    pub metrics: Option<SocketAddr>,
}

fn default_connections() -> u16 {
    32
}

impl Config {
    /// Reads `config.toml` in the current folder; writes the default first if there is none.
    pub(crate) fn load_or_create() -> anyhow::Result<Config> {
        let path = Path::new(FILE);
        if !path.try_exists().context("config.toml cannot be looked for")? {
            files::write_whole(path, DEFAULT.as_bytes(), 0o600).context("config.toml cannot be written")?;
        }
        let text = std::fs::read_to_string(path).context("config.toml cannot be read")?;
        Config::parse(&text)
    }

    fn parse(text: &str) -> anyhow::Result<Config> {
        let config: Config = toml::from_str(text).context("config.toml has a mistake")?;
        anyhow::ensure!(
            (1..=1024).contains(&config.connections),
            "config.toml: connections must lie between 1 and 1024"
        );
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_written_default_is_readable() {
        let config = Config::parse(DEFAULT).unwrap();
        assert_eq!((config.connections, config.trust_domain.as_str()), (32, "sekisho.test"));
    }

    #[test]
    fn unknown_keys_and_bad_values_are_refused() {
        for bad in ["colour = 1\n", "trust_domain = \"A B\"\n", "connections = 0\n"] {
            let text = format!("{bad}socket = \"s\"\n");
            let text =
                if bad.starts_with("trust") { text } else { format!("trust_domain = \"a.b\"\n{text}") };
            assert!(Config::parse(&text).is_err(), "{text}");
        }
    }
}
