//! The files of an object on a backend: listing and removing them.

use std::sync::Arc;

use futures::StreamExt;
use futures::future::join_all;
use model::ObjectId;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt};
use tokio::time::timeout;

use super::FaultKind;
use super::pool::{Failure, Pool, Remote};
use crate::format::File;

/// More files than any object has: extents, and as many leftovers.
const MOST: usize = 8 << 20;

/// What a backend lists of an object.
pub(super) struct Listing {
    /// Our own files, with their lengths.
    pub(super) files: Vec<(File, u64)>,
    /// Files with names that are not ours. They are never touched.
    pub(super) foreign: u64,
}

impl Listing {
    /// Of every backend, in order; nothing of one that did not answer, which is reported.
    pub(super) async fn all(pool: &Arc<Pool>, object: &ObjectId) -> Vec<Option<Listing>> {
        let listings = (0..pool.remotes.len()).map(|remote| async move {
            let listed = Listing::of(pool, remote, object).await;
            listed.map_err(|failure| pool.report(remote, object, None, failure)).ok()
        });
        join_all(listings).await
    }

    /// Of one backend.
    pub(super) async fn of(pool: &Pool, remote: usize, object: &ObjectId) -> Result<Listing, Failure> {
        let folder = Path::from(object.name());
        let prefix = format!("{}/", object.name());
        let Remote { backend, .. } = &pool.remotes[remote];
        let mut listing = Listing { files: Vec::new(), foreign: 0 };
        let mut found = backend.store.list(Some(&folder));
        // A long list may take long, but not fall silent.
        while let Some(meta) = timeout(pool.options.read_timeout, found.next()).await.map_err(|_| {
            let detail = format!("while listing, within {:?}", pool.options.read_timeout);
            Failure { kind: FaultKind::Timeout, detail }
        })? {
            let meta = meta.map_err(|error| Failure::of(&error))?;
            match meta.location.as_ref().strip_prefix(&prefix).and_then(File::parse) {
                Some(file) if listing.files.len() < MOST => listing.files.push((file, meta.size)),
                _ => listing.foreign += 1,
            }
        }
        Ok(listing)
    }
}

/// Removes files one after the other; what is gone already is as good. How many were there.
pub(super) async fn remove(
    pool: &Pool,
    remote: usize,
    object: &ObjectId,
    files: impl IntoIterator<Item = File>,
) -> Result<u64, Failure> {
    let mut removed = 0;
    for file in files {
        let path = Path::from(file.name(object));
        removed += pool
            .timed(remote, |store| async move {
                match store.delete(&path).await {
                    Ok(()) => Ok(1),
                    Err(Error::NotFound { .. }) => Ok(0),
                    Err(error) => Err(error),
                }
            })
            .await?;
    }
    Ok(removed)
}
