//! How a backend lets us in: endpoint, region, roots of trust and credentials.
//!
//! A secret comes from a file that only its owner may read, or from environment variables that
//! configuration names; never from a URL, and never into a log: nothing here shows one. What is
//! read here is wiped after use. `object_store` keeps copies of its own for as long as a backend
//! is open, and does not wipe them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::address::{BackendUrl, Endpoint};

/// The longest credentials file, and the longest value in one.
const MAX_FILE: u64 = 64 << 10;
/// The longest region or account.
const MAX_WORD: usize = 64;

/// What besides its URL it takes to reach a backend. An option that a kind of backend does not
/// have is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Where the service is, if not at its inventor's: S3, Google, Azure.
    pub endpoint: Option<Endpoint>,
    /// The region: S3. Needed if there is no endpoint.
    pub region: Option<String>,
    /// The storage account: Azure. Needed.
    pub account: Option<String>,
    /// PEM certificates of authorities that are believed besides the system's.
    pub ca: Option<PathBuf>,
    /// Where the credentials are. A WebDAV server may need none.
    pub credentials: Option<CredentialSource>,
}

/// Where credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialSource {
    /// A file of mode 0600 or stricter with lines `name = value`; for Google the JSON file of a
    /// service account as it is downloaded.
    File(PathBuf),
    /// Environment variables: which credential is in which.
    Environment(BTreeMap<String, String>),
}

/// Why a backend cannot be reached like this.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// An option of another kind of backend.
    #[error("`{option}` means nothing for a {scheme}:// backend: take it out")]
    Unneeded {
        /// Which.
        option: &'static str,
        /// For which kind.
        scheme: &'static str,
    },
    /// An option that this kind of backend needs.
    #[error("a {scheme}:// backend needs `{option}`")]
    Needed {
        /// Which.
        option: &'static str,
        /// Of which kind.
        scheme: &'static str,
    },
    /// A region or an account that cannot be one.
    #[error("`{option}` has 1 to 64 lower-case letters, digits and '-'")]
    Word {
        /// Which.
        option: &'static str,
    },
    /// The credentials cannot be read.
    #[error("the credentials file {path} cannot be read")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others could read or change the credentials.
    #[error(
        "{path} is not a plain file of its user alone: chmod 600 {path}, and let the one who runs this own it"
    )]
    Exposed {
        /// Which file.
        path: PathBuf,
    },
    /// The credentials file is not one.
    #[error("line {line} of the credentials is not `name = value` with one of the names {known}, each once")]
    Line {
        /// Which line, from 1.
        line: usize,
        /// What would be right.
        known: String,
    },
    /// A credential with a name of another kind of backend.
    #[error("`{name}` is no credential of a {scheme}:// backend; these are: {known}")]
    UnknownCredential {
        /// Which.
        name: String,
        /// Of which kind.
        scheme: &'static str,
        /// What would be right.
        known: String,
    },
    /// An environment variable that is not set, empty, too long or not text.
    #[error("the environment variable {variable} for `{name}` is not set, or is no text of 1 to 65536 bytes")]
    Variable {
        /// The variable.
        variable: String,
        /// The credential.
        name: String,
    },
    /// The credentials are too long, or not text.
    #[error("the credentials are not text of at most 65536 bytes")]
    Length,
    /// A credential is missing.
    #[error(
        "a {scheme}:// backend needs the credentials {needed}: name a file of mode 0600 or environment variables with them"
    )]
    Missing {
        /// Of which kind.
        scheme: &'static str,
        /// Which.
        needed: &'static str,
    },
    /// Two ways in at once.
    #[error("give {needed}, not several of them")]
    Several {
        /// Which.
        needed: &'static str,
    },
}

/// A secret that nothing shows.
#[derive(Clone)]
pub(super) struct Secret(Zeroizing<String>);

impl Secret {
    #[cfg_attr(not(feature = "clouds"), expect(dead_code))]
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What a kind of backend is opened with: complete, and nothing else.
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "clouds"), expect(dead_code))]
pub(super) enum Key {
    S3 { id: Secret, secret: Secret, token: Option<Secret> },
    Google { service_account: Secret },
    Azure(AzureKey),
    Web(WebKey),
}

#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "clouds"), expect(dead_code))]
pub(super) enum AzureKey {
    Account(Secret),
    Signature(Secret),
}

#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "clouds"), expect(dead_code))]
pub(super) enum WebKey {
    None,
    Bearer(Secret),
    Basic { username: Secret, password: Secret },
}

impl Access {
    /// Refuses what a kind of backend does not have and misses what it needs. It opens nothing.
    pub fn check(&self, url: &BackendUrl) -> Result<(), AccessError> {
        use BackendUrl::{Azure, Folder, Google, S3, Web};
        let scheme = url.scheme();
        for (option, given, belongs) in [
            ("endpoint", self.endpoint.is_some(), matches!(url, S3(_) | Google(_) | Azure(_))),
            ("region", self.region.is_some(), matches!(url, S3(_))),
            ("account", self.account.is_some(), matches!(url, Azure(_))),
            ("ca", self.ca.is_some(), !matches!(url, Folder(_))),
            ("credentials", self.credentials.is_some(), !matches!(url, Folder(_))),
        ] {
            if given && !belongs {
                return Err(AccessError::Unneeded { option, scheme });
            }
        }
        for (option, missing) in [
            ("region", matches!(url, S3(_)) && self.region.is_none() && self.endpoint.is_none()),
            ("account", matches!(url, Azure(_)) && self.account.is_none()),
            ("credentials", !matches!(url, Folder(_) | Web(_)) && self.credentials.is_none()),
        ] {
            if missing {
                return Err(AccessError::Needed { option, scheme });
            }
        }
        for (option, word) in [("region", &self.region), ("account", &self.account)] {
            let plain = |word: &str| {
                let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
                (1..=MAX_WORD).contains(&word.len()) && word.bytes().all(letter)
            };
            if word.as_deref().is_some_and(|word| !plain(word)) {
                return Err(AccessError::Word { option });
            }
        }
        Ok(())
    }

    /// The credentials that the URL's kind of backend wants; none for a folder.
    pub(super) fn key(
        &self,
        url: &BackendUrl,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Key>, AccessError> {
        let Some(names) = names(url) else { return Ok(None) };
        let mut given = match &self.credentials {
            None => Given::new(),
            Some(CredentialSource::File(path)) => parse(url, names, &private_text(path)?)?,
            Some(CredentialSource::Environment(variables)) => {
                let mut given = Given::new();
                for (name, variable) in variables {
                    let Some(known) = names.iter().find(|known| *known == name) else {
                        let (name, scheme) = (name.clone(), url.scheme());
                        return Err(AccessError::UnknownCredential { name, scheme, known: names.join(", ") });
                    };
                    let value = environment(variable).map(Zeroizing::new).filter(|value| fits(value));
                    let unset = || AccessError::Variable { variable: variable.clone(), name: name.clone() };
                    given.insert(known, Secret(value.ok_or_else(unset)?));
                }
                given
            }
        };
        complete(url, &mut given).map(Some)
    }
}

type Given = BTreeMap<&'static str, Secret>;

/// The credentials that a kind of backend has.
fn names(url: &BackendUrl) -> Option<&'static [&'static str]> {
    match url {
        BackendUrl::Folder(_) => None,
        BackendUrl::S3(_) => Some(&["access_key_id", "secret_access_key", "session_token"]),
        BackendUrl::Google(_) => Some(&["service_account"]),
        BackendUrl::Azure(_) => Some(&["account_key", "sas"]),
        BackendUrl::Web(_) => Some(&["username", "password", "bearer_token"]),
    }
}

fn complete(url: &BackendUrl, given: &mut Given) -> Result<Key, AccessError> {
    let missing = |needed| AccessError::Missing { scheme: url.scheme(), needed };
    let mut take = |name| given.remove(name);
    match url {
        BackendUrl::S3(_) | BackendUrl::Folder(_) => {
            match (take("access_key_id"), take("secret_access_key"), take("session_token")) {
                (Some(id), Some(secret), token) => Ok(Key::S3 { id, secret, token }),
                _ => Err(missing("access_key_id and secret_access_key")),
            }
        }
        BackendUrl::Google(_) => take("service_account")
            .map(|service_account| Key::Google { service_account })
            .ok_or_else(|| missing("service_account")),
        BackendUrl::Azure(_) => match (take("account_key"), take("sas")) {
            (Some(key), None) => Ok(Key::Azure(AzureKey::Account(key))),
            (None, Some(signature)) => Ok(Key::Azure(AzureKey::Signature(signature))),
            (None, None) => Err(missing("account_key or sas")),
            (Some(_), Some(_)) => Err(AccessError::Several { needed: "account_key or sas" }),
        },
        BackendUrl::Web(_) => match (take("username"), take("password"), take("bearer_token")) {
            (None, None, None) => Ok(Key::Web(WebKey::None)),
            (None, None, Some(token)) => Ok(Key::Web(WebKey::Bearer(token))),
            (Some(username), Some(password), None) => Ok(Key::Web(WebKey::Basic { username, password })),
            (_, _, None) => Err(missing("username and password, or bearer_token")),
            (_, _, Some(_)) => Err(AccessError::Several { needed: "username and password, or bearer_token" }),
        },
    }
}

/// Lines `name = value`, empty lines and lines that begin with `#`; for Google JSON.
fn parse(url: &BackendUrl, names: &[&'static str], text: &str) -> Result<Given, AccessError> {
    if matches!(url, BackendUrl::Google(_)) {
        let text = Zeroizing::new(text.to_owned());
        return Ok(Given::from([("service_account", Secret(text))]));
    }
    let mut given = Given::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = || AccessError::Line { line: at + 1, known: names.join(", ") };
        let (name, value) = line.split_once('=').ok_or_else(wrong)?;
        let name = names.iter().find(|known| **known == name.trim()).ok_or_else(wrong)?;
        let value = Zeroizing::new(value.trim().to_owned());
        if !fits(&value) || given.insert(name, Secret(value)).is_some() {
            return Err(wrong());
        }
    }
    Ok(given)
}

fn fits(value: &str) -> bool {
    !value.is_empty() && value.len() as u64 <= MAX_FILE
}

/// A file that only its owner may read, who is this process's user or root.
fn private_text(path: &Path) -> Result<Zeroizing<String>, AccessError> {
    let file = |source| AccessError::File { path: path.to_owned(), source };
    let mut options = File::options();
    options.read(true);
    // A pipe in its place must not keep us.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, nix::libc::O_NONBLOCK);
    let open = options.open(path).map_err(file)?;
    let meta = open.metadata().map_err(file)?;
    if !meta.is_file() || !private(&meta) {
        return Err(AccessError::Exposed { path: path.to_owned() });
    }
    if meta.len() > MAX_FILE {
        return Err(AccessError::Length);
    }
    // Room for all of it: a string that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE as usize + 1));
    open.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(file)?;
    let text = std::str::from_utf8(&bytes).ok().filter(|text| text.len() as u64 <= MAX_FILE);
    text.map(|text| Zeroizing::new(text.to_owned())).ok_or(AccessError::Length)
}

#[cfg(unix)]
fn private(meta: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let us = nix::unistd::geteuid().as_raw();
    meta.mode() & 0o077 == 0 && (meta.uid() == us || meta.uid() == 0)
}

#[cfg(not(unix))]
fn private(_: &std::fs::Metadata) -> bool {
    true
}

#[cfg(test)]
mod tests;
