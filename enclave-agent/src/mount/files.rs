//! The file system that the kernel asks.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenAccMode, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, Request,
};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::cache::BLOCK;
use super::content::{Contents, Opening, Watch};
use super::tree::{Hidden, Node, TOP, Tree};
use crate::init_protocol::FIRST_HOST_ID;

/// How long the kernel may remember names and attributes; content is never remembered.
const TTL: Duration = Duration::from_secs(1);
/// Reads that may wait for shares at once in a workspace.
const READS: usize = 64;

/// The tree, as FUSE.
pub struct Files {
    tree: Arc<Tree>,
    contents: Arc<Contents>,
    watch: Arc<dyn Watch>,
    runtime: Handle,
    reads: Arc<Semaphore>,
}

impl Files {
    /// Reads run on `runtime`, so that a slow backend holds up nobody else.
    pub fn new(tree: Arc<Tree>, contents: Arc<Contents>, watch: Arc<dyn Watch>, runtime: Handle) -> Files {
        Files { tree, contents, watch, runtime, reads: Arc::new(Semaphore::new(READS)) }
    }
}

impl Filesystem for Files {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Without it, programs that map files into memory fail on kernels that have it.
        let _ = config.add_capabilities(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP);
        let _ = config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name.to_str().ok_or(Hidden::Unknown).and_then(|name| self.tree.lookup(parent.0, name)) {
            Ok(node) => reply.entry(&TTL, &attributes(&node), Generation(0)),
            Err(hidden) => reply.error(errno(hidden)),
        }
    }

    fn getattr(&self, _request: &Request, id: INodeNo, _file: Option<FileHandle>, reply: ReplyAttr) {
        match self.tree.node(id.0) {
            Ok(node) => reply.attr(&TTL, &attributes(&node)),
            Err(hidden) => reply.error(errno(hidden)),
        }
    }

    fn open(&self, request: &Request, id: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.tree.file(id.0) {
            Ok(_) if flags.acc_mode() != OpenAccMode::O_RDONLY => reply.error(Errno::EROFS),
            Ok(file) => {
                let handle = self.watch.opened(Opening { pid: request.pid(), file: &file });
                reply.opened(FileHandle(handle), FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH);
            }
            Err(hidden) => reply.error(errno(hidden)),
        }
    }

    fn read(
        &self,
        _request: &Request,
        id: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let file = match self.tree.file(id.0) {
            Ok(file) => file,
            Err(hidden) => return reply.error(errno(hidden)),
        };
        let size = size as usize;
        if let Some(bytes) = self.contents.at_hand(&file, offset, size) {
            self.watch.read(handle.0, bytes.len());
            return reply.data(&bytes);
        }
        let (tree, contents, reads) = (self.tree.clone(), self.contents.clone(), self.reads.clone());
        let watch = self.watch.clone();
        self.runtime.spawn(async move {
            let Ok(_permit) = reads.acquire().await else { return reply.error(Errno::EIO) };
            let read = contents.read(&file, offset, size).await;
            // Access may have ended while the shares were on their way.
            match (tree.file(file.id), read) {
                (Ok(_), Ok(bytes)) => {
                    watch.read(handle.0, bytes.len());
                    reply.data(&bytes);
                }
                (Ok(_), Err(_)) => reply.error(Errno::EIO),
                (Err(hidden), _) => {
                    contents.forget(file.id);
                    reply.error(errno(hidden));
                }
            }
        });
    }

    fn release(
        &self,
        _request: &Request,
        _id: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.watch.closed(handle.0);
        reply.ok();
    }

    fn opendir(&self, _request: &Request, id: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.tree.node(id.0) {
            Ok(Node::Directory(_)) => reply.opened(FileHandle(0), FopenFlags::empty()),
            Ok(Node::File(_)) => reply.error(Errno::ENOTDIR),
            Err(hidden) => reply.error(errno(hidden)),
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        id: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let entries = match self.tree.list(id.0) {
            Ok(entries) => entries,
            Err(hidden) => return reply.error(errno(hidden)),
        };
        let own = [(id.0, FileType::Directory, "."), (TOP, FileType::Directory, "..")];
        let others = entries.iter().map(|entry| {
            let kind = if entry.is_file { FileType::RegularFile } else { FileType::Directory };
            (entry.id, kind, entry.name.as_str())
        });
        let all = own.into_iter().chain(others).zip(1..);
        for ((id, kind, name), next) in all.skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
            if reply.add(INodeNo(id), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn access(&self, _request: &Request, id: INodeNo, mask: fuser::AccessFlags, reply: ReplyEmpty) {
        match self.tree.node(id.0) {
            Ok(_) if mask.contains(fuser::AccessFlags::W_OK) => reply.error(Errno::EROFS),
            Ok(_) => reply.ok(),
            Err(hidden) => reply.error(errno(hidden)),
        }
    }

    fn statfs(&self, _request: &Request, _id: INodeNo, reply: ReplyStatfs) {
        reply.statfs(0, 0, 0, 0, 0, BLOCK as u32, 255, BLOCK as u32);
    }
}

fn errno(hidden: Hidden) -> Errno {
    match hidden {
        Hidden::Unknown => Errno::ENOENT,
        Hidden::Withdrawn => Errno::EACCES,
    }
}

fn attributes(node: &Node) -> FileAttr {
    let (id, kind, perm, size) = match node {
        Node::Directory(id) => (*id, FileType::Directory, 0o555, 0),
        Node::File(file) => (file.id, FileType::RegularFile, 0o444, file.size),
    };
    FileAttr {
        ino: INodeNo(id),
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: 1,
        uid: FIRST_HOST_ID,
        gid: FIRST_HOST_ID,
        rdev: 0,
        blksize: BLOCK as u32,
        flags: 0,
    }
}
