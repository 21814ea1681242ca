//! Datasets as files: a read-only FUSE file system for each workspace, under `/data`.
//!
//! What is granted is decided by the tickets of live sessions, and looked up again at every open
//! and every read: when the last session whose ticket grants a dataset ends, the next read fails,
//! on a file that was opened before too. The kernel caches no content (direct I/O); pages that a
//! program has mapped into memory are taken away by an invalidation.

mod arena;
mod cache;
mod content;
mod files;
mod tree;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use certs::ticket::DatasetOrder;
use fuser::{BackgroundSession, Config, MountOption, Notifier, SessionACL};
use model::{ObjectId, SessionId};
use tokio::runtime::Handle;

use content::Contents;
pub use content::{Opening, ReadFailure, Watch};
use files::Files;
pub use tree::File;
use tree::Tree;

use crate::storage::Storage;

/// The datasets of one workspace, mounted.
#[derive(Debug)]
pub struct DataMount {
    tree: Arc<Tree>,
    contents: Arc<Contents>,
    path: PathBuf,
    session: Option<BackgroundSession>,
    notifier: Notifier,
}

/// A session's claim on its datasets; when it is dropped, so is the claim.
#[derive(Debug)]
pub struct Lease {
    session: SessionId,
    tree: Arc<Tree>,
    contents: Arc<Contents>,
    notifier: Notifier,
    runtime: Handle,
}

impl DataMount {
    /// Mounts an empty tree at `path`. Reads go to `storage`, through a cache of at
    /// most `cache_bytes`; failures are told to `watch`. Call it inside the runtime that is to read.
    pub fn open(
        path: &Path,
        storage: &Storage,
        cache_bytes: usize,
        watch: Arc<dyn Watch>,
    ) -> io::Result<DataMount> {
        let tree = Arc::new(Tree::default());
        let contents = Arc::new(Contents::new(storage, tree.clone(), cache_bytes, watch.clone())?);
        let files = Files::new(tree.clone(), contents.clone(), watch, Handle::current());
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::RO,
            MountOption::NoSuid,
            MountOption::NoDev,
            MountOption::NoExec,
            MountOption::NoAtime,
            MountOption::DefaultPermissions,
            MountOption::FSName("sekisho".to_owned()),
        ];
        config.acl = SessionACL::All;
        config.n_threads = Some(1);
        let session = fuser::Session::new(files, path, &config)?;
        let session = session.spawn()?;
        let notifier = session.notifier();
        Ok(DataMount { tree, contents, path: path.to_owned(), session: Some(session), notifier })
    }

    /// Makes datasets visible for as long as the lease lives.
    pub fn grant(&self, session: &SessionId, datasets: &[DatasetOrder]) -> Lease {
        self.tree.grant(session, datasets);
        Lease {
            session: session.clone(),
            tree: self.tree.clone(),
            contents: self.contents.clone(),
            notifier: self.notifier.clone(),
            runtime: Handle::current(),
        }
    }

    /// A live session whose ticket grants the object, if there is one.
    pub fn session_with(&self, object: &ObjectId) -> Option<SessionId> {
        self.tree.session_with(object)
    }

    /// Unmounts; whoever still reads gets an error. Blocks for a moment.
    pub fn close(mut self) {
        self.unmount();
    }

    fn unmount(&mut self) {
        let Some(session) = self.session.take() else { return };
        force_unmount(&self.path);
        // Its threads end by themselves once the kernel has let go of the connection.
        drop(session);
    }
}

impl Drop for DataMount {
    fn drop(&mut self) {
        self.unmount();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let lost = self.tree.revoke(&self.session);
        if lost.is_empty() {
            return;
        }
        for file in &lost {
            self.contents.forget(file.id);
        }
        let notifier = self.notifier.clone();
        // The kernel may make these calls wait for a request that is being answered.
        self.runtime.spawn_blocking(move || {
            for file in lost {
                let _ = notifier.inval_inode(fuser::INodeNo(file.id), 0, 0);
                let _ = notifier.inval_entry(fuser::INodeNo(file.parent), file.name.as_ref());
            }
        });
    }
}

/// Unmounts whatever is mounted at `path`, in use or not; nothing there is fine.
pub fn force_unmount(path: &Path) {
    use nix::mount::{MntFlags, umount2};
    if let Err(errno) = umount2(path, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH)
        && !matches!(errno, nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT)
    {
        tracing::warn!(path = %path.display(), %errno, "could not unmount");
    }
}
