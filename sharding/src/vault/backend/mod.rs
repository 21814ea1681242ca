//! One place where shares lie, and how it is reached.

mod access;
mod address;
#[cfg(feature = "clouds")]
mod cloud;
#[cfg(feature = "clouds")]
mod transport;

use std::fmt;
use std::sync::Arc;

use model::BackendId;
use object_store::ObjectStore;

pub use access::{Access, AccessError, CredentialSource};
pub use address::{BackendUrl, BackendUrlError, Bucket, Endpoint};

use super::folder::Folder;

/// A place where shares lie: one institution's storage.
#[derive(Clone)]
pub struct Backend {
    /// Its name in configuration and logs.
    pub id: BackendId,
    /// Who runs it, for people. [`super::Placement`] counts shares by it.
    pub institution: String,
    /// The way to it.
    pub store: Arc<dyn ObjectStore>,
}

/// Why a backend cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// Its options or credentials.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The certificates that its server is checked against.
    #[error("{reason}")]
    Roots {
        /// What is wrong, and with which file.
        reason: String,
        /// Why, if there is more to say.
        #[source]
        source: Option<std::io::Error>,
    },
    /// What the client for its kind of storage says. It names no secret.
    #[error("a {scheme}:// backend cannot be opened like this")]
    Store {
        /// The kind.
        scheme: &'static str,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// This programme was built without the feature `clouds`.
    #[error("this programme was built for folders only, without {scheme}:// backends")]
    NotBuilt {
        /// The kind.
        scheme: &'static str,
    },
}

impl Backend {
    /// What `url` names. Nothing is asked of it yet, so that a backend that is down hinders nobody;
    /// files that `access` names are read now. `environment` gives the variables that it names.
    pub fn open(
        id: BackendId,
        institution: impl Into<String>,
        url: &BackendUrl,
        access: &Access,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Backend, BackendError> {
        access.check(url)?;
        let scheme = url.scheme();
        let store = |source| BackendError::Store { scheme, source };
        match access.key(url, environment)? {
            None => {
                let BackendUrl::Folder(folder) = url else { return Err(BackendError::NotBuilt { scheme }) };
                Backend::local(id, institution, folder).map_err(store)
            }
            #[cfg(feature = "clouds")]
            Some(key) => {
                Ok(Backend { id, institution: institution.into(), store: cloud::open(url, access, &key)? })
            }
            #[cfg(not(feature = "clouds"))]
            Some(_) => Err(BackendError::NotBuilt { scheme }),
        }
    }

    /// A folder of this machine, written with fsync. The folder is made on the first deposit if it
    /// is not there; reading from a folder that vanished finds shares missing.
    pub fn local(
        id: BackendId,
        institution: impl Into<String>,
        folder: &std::path::Path,
    ) -> Result<Backend, object_store::Error> {
        let store = Arc::new(Folder::new(folder)?);
        Ok(Backend { id, institution: institution.into(), store })
    }
}

/// Without the store: clients show their keys when they are asked to show themselves.
impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Backend { id, institution, .. } = self;
        f.debug_struct("Backend").field("id", id).field("institution", institution).finish_non_exhaustive()
    }
}
