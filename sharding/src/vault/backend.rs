//! One place where shares lie.

use std::sync::Arc;

use model::BackendId;
use object_store::ObjectStore;

/// A place where shares lie: one institution's storage.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Its name in configuration and logs.
    pub id: BackendId,
    /// Who runs it, for people.
    pub institution: String,
    /// The way to it.
    pub store: Arc<dyn ObjectStore>,
}

impl Backend {
    /// A folder of this machine, written with fsync. The folder is made on the first deposit if it
    /// is not there; reading from a folder that vanished finds shares missing.
    pub fn local(
        id: BackendId,
        institution: impl Into<String>,
        folder: &std::path::Path,
    ) -> Result<Backend, object_store::Error> {
        use object_store::{local::LocalFileSystem, path::Path, prefix::PrefixStore};
        let absolute = std::path::absolute(folder)
            .map_err(|source| object_store::Error::Generic { store: "local", source: Box::new(source) })?;
        let store =
            PrefixStore::new(LocalFileSystem::new().with_fsync(true), Path::from_absolute_path(absolute)?);
        Ok(Backend { id, institution: institution.into(), store: Arc::new(store) })
    }
}
