//! The backends as an operator names them, and as they are opened.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use model::BackendId;
use serde::Deserialize;
use sharding::vault::{
    Access, Backend, BackendError, BackendUrl, BackendUrlError, CredentialSource, Endpoint, IfFewer,
    Placement,
};

/// A backend. Either `path` or `url` says where; the rest is for a `url`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendConfig {
    /// Its name.
    pub id: BackendId,
    /// Who runs it. Shares are counted by it.
    pub institution: String,
    /// Whether it is near: workspaces that read from it are rather put on this agent.
    #[serde(default)]
    pub near: bool,
    /// Its folder.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// Where it is: `file://`, `s3://`, `gs://`, `az://` or `https://`. No credentials in it.
    #[serde(default)]
    pub url: Option<String>,
    /// The service's address, if it is not its inventor's.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// S3: the region; needed without an endpoint.
    #[serde(default)]
    pub region: Option<String>,
    /// Azure: the storage account.
    #[serde(default)]
    pub account: Option<String>,
    /// A file of PEM certificates to believe besides the system's.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// The file with the credentials, mode 0600.
    #[serde(default)]
    pub credentials: Option<PathBuf>,
    /// Instead of the file: which credential is in which environment variable.
    #[serde(default)]
    pub credentials_env: Option<BTreeMap<String, String>>,
}

/// What is asked of the way shares lie at institutions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlacementConfig {
    /// How many shares more than k shall be left when any one institution is lost.
    pub spare: u8,
    /// What to do where fewer would be.
    pub if_fewer: IfFewerConfig,
}

/// What to do where an institution cannot be done without.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IfFewerConfig {
    /// Start, and say so.
    #[default]
    Warn,
    /// Do not start.
    Refuse,
}

impl PlacementConfig {
    /// As the vault takes it.
    pub fn placement(self) -> Placement {
        let if_fewer = match self.if_fewer {
            IfFewerConfig::Warn => IfFewer::Warn,
            IfFewerConfig::Refuse => IfFewer::Refuse,
        };
        Placement { spare: self.spare, if_fewer }
    }
}

impl BackendConfig {
    /// What is wrong with it, for its operator. It opens no file.
    pub fn check(&self) -> Result<(), String> {
        self.place(Path::new("/")).map(drop).map_err(|reason| format!("{}: {reason}", self.id))
    }

    /// Opens it; paths are relative to `dir`.
    pub fn open(&self, dir: &Path) -> Result<Backend, OpenError> {
        let (url, access) = self.place(dir).map_err(OpenError::Config)?;
        let environment = |variable: &str| std::env::var(variable).ok();
        Ok(Backend::open(self.id.clone(), self.institution.clone(), &url, &access, environment)?)
    }

    fn place(&self, dir: &Path) -> Result<(BackendUrl, Access), String> {
        if self.institution.trim().is_empty() {
            return Err("`institution` says who runs it; it must not be empty".to_owned());
        }
        let url = match (&self.path, &self.url) {
            (Some(path), None) => BackendUrl::Folder(path.clone()),
            (None, Some(url)) => url.parse().map_err(|error: BackendUrlError| format!("`url`: {error}"))?,
            _ => return Err("give either `path`, a folder, or `url`".to_owned()),
        };
        let url = match url {
            BackendUrl::Folder(folder) => BackendUrl::Folder(plain(&dir.join(folder))),
            remote => remote,
        };
        let endpoint = self.endpoint.as_deref().map(str::parse::<Endpoint>).transpose();
        let credentials = match (&self.credentials, &self.credentials_env) {
            (Some(_), Some(_)) => return Err("give `credentials` or `credentials_env`, not both".to_owned()),
            (Some(file), None) => Some(CredentialSource::File(dir.join(file))),
            (None, Some(variables)) => Some(CredentialSource::Environment(variables.clone())),
            (None, None) => None,
        };
        let access = Access {
            endpoint: endpoint.map_err(|error| format!("`endpoint`: {error}"))?,
            region: self.region.clone(),
            account: self.account.clone(),
            ca: self.ca.as_ref().map(|ca| dir.join(ca)),
            credentials,
        };
        access.check(&url).map_err(|error| error.to_string())?;
        Ok((url, access))
    }
}

/// Why a backend cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// What configuration says of it.
    #[error("{0}")]
    Config(String),
    /// Its credentials, its certificates or its client.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// The path without `..`, which object stores do not take. The agent's folder is canonical, so that
/// a step up is the one that is meant.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        if component == Component::ParentDir {
            plain.pop();
        } else {
            plain.push(component);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn backend(lines: &str) -> Result<BackendConfig, String> {
        let config = format!("id = 'backend:a'\ninstitution = 'A'\n{lines}");
        let config: BackendConfig = toml::from_str(&config).map_err(|error| error.to_string())?;
        config.check().map(|()| config)
    }

    #[test]
    fn every_kind_is_configured() {
        for lines in [
            "path = '../a'",
            "url = 'file:///srv/a'",
            "url = 's3://genomes/a'\nregion = 'ap-northeast-1'\ncredentials = 'a.key'",
            "url = 's3://genomes'\nendpoint = 'https://s3.example.org'\nca = 'ca.pem'\n\
             credentials_env = { access_key_id = 'A_ID', secret_access_key = 'A_SECRET' }",
            "url = 'gs://genomes'\ncredentials = 'a.json'",
            "url = 'az://genomes/a'\naccount = 'archive'\ncredentials = 'a.key'",
            "url = 'https://dav.example.org/a'",
        ] {
            backend(lines).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_name() {
        for (lines, word) in [
            ("", "either `path`"),
            ("path = 'a'\nurl = 's3://genomes'", "either `path`"),
            ("path = 'a'\ncredentials = 'a.key'", "`credentials` means nothing"),
            ("path = 'a'\ncolour = 'red'", "colour"),
            ("url = 'ftp://a/b'", "must begin with"),
            ("url = 's3://id:secret@genomes'\ncredentials = 'a.key'", "take the user and the password out"),
            ("url = 's3://genomes'\nregion = 'x'", "needs `credentials`"),
            ("url = 's3://genomes'\nendpoint = 'http://s3.example.org'\ncredentials = 'a'", "without TLS"),
            ("url = 'gs://genomes'\ncredentials = 'a'\ncredentials_env = {}", "not both"),
        ] {
            let error = backend(lines).unwrap_err();
            assert!(error.contains(word), "{lines}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn paths_are_relative_to_the_agents_folder() {
        let config = backend("path = '../a'").unwrap();
        let (url, _) = config.place(Path::new("/srv/node/agent")).unwrap();
        assert_eq!(url, BackendUrl::Folder("/srv/node/a".into()));
        config.open(Path::new("/srv/node/agent")).unwrap();

        let dir = tempfile::tempdir().unwrap();
        let config = backend("url = 's3://genomes'\nregion = 'x'\ncredentials = 'a.key'").unwrap();
        let missing = config.open(dir.path()).unwrap_err().to_string();
        assert!(missing.contains("a.key"), "{missing}");
        let key = dir.path().join("a.key");
        std::fs::write(&key, "access_key_id = a\nsecret_access_key = b\n").unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
        let exposed = config.open(dir.path()).unwrap_err().to_string();
        assert!(exposed.contains("chmod 600"), "{exposed}");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        config.open(dir.path()).unwrap();
    }

    #[test]
    fn steps_up_are_taken() {
        assert_eq!(plain(Path::new("/d/agent/../backends/./kanto")), Path::new("/d/backends/kanto"));
        assert_eq!(plain(Path::new("/../x")), Path::new("/x"));
    }
}
