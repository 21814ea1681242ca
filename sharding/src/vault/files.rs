//! The files of an object on a backend: listing and removing them.

use std::sync::Arc;

use futures::StreamExt;
use futures::future::join_all;
use model::ObjectId;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt};
use tokio::time::timeout;

use super::FaultKind;
use super::folder;
use super::pool::{Failure, Pool, Remote};
use crate::format::File;

/// More files than any object has: extents, and as many leftovers.
const MOST: usize = 8 << 20;

/// What a backend lists of an object.
pub(super) struct Listing {
    /// Our own files, with their lengths.
    pub(super) files: Vec<(File, u64)>,
    /// Parts of our own files, whose writers were killed or are still writing, with their names and
    /// lengths. They are of no use to anybody.
    pub(super) unfinished: Vec<(File, String, u64)>,
    /// Files with names that are not ours. They are never touched.
    pub(super) foreign: u64,
}

impl Listing {
    /// All that is ours, whole or not, with names below the backend and lengths.
    pub(super) fn ours(self, object: &ObjectId) -> Vec<(File, String, u64)> {
        let whole = self.files.into_iter().map(|(file, len)| (file, file.name(object), len));
        whole.chain(self.unfinished).collect()
    }

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
        let mut listing = Listing { files: Vec::new(), unfinished: Vec::new(), foreign: 0 };
        let mut found = backend.store.list(Some(&folder));
        // A long list may take long, but not fall silent.
        while let Some(meta) = timeout(pool.options.read_timeout, found.next()).await.map_err(|_| {
            let detail = format!("while listing, within {:?}", pool.options.read_timeout);
            Failure { kind: FaultKind::Timeout, detail }
        })? {
            let meta = meta.map_err(|error| Failure::of(&error))?;
            let name = meta.location.as_ref().strip_prefix(&prefix);
            let whole = name.and_then(File::parse);
            let part = name.and_then(folder::split).and_then(|(name, _)| File::parse(name));
            match (whole, part) {
                _ if listing.files.len() + listing.unfinished.len() >= MOST => listing.foreign += 1,
                (Some(file), _) => listing.files.push((file, meta.size)),
                (None, Some(file)) => {
                    listing.unfinished.push((file, meta.location.as_ref().to_owned(), meta.size));
                }
                (None, None) => listing.foreign += 1,
            }
        }
        Ok(listing)
    }
}

/// Removes files one after the other; what is gone already is as good. How many were there.
pub(super) async fn remove(
    pool: &Pool,
    remote: usize,
    names: impl IntoIterator<Item = String>,
) -> Result<u64, Failure> {
    let mut removed = 0;
    for name in names {
        // As it was listed: what is escaped in it stays so.
        let path = Path::parse(name).map_err(Failure::corrupt)?;
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
