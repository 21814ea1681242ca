//! The bytes of files: rebuilt from shares, block by block, kept for a while.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::{ObjectId, SessionId};
use sharding::vault::{Fault, ObjectReader, Vault, Wiped};
use tokio::runtime::Handle;
use tokio::sync::{Mutex as AsyncMutex, OnceCell, Semaphore};

use super::cache::{BLOCK, BlockCache};
use super::tree::{File, Tree};
use crate::storage::Storage;

/// How long a read may take before the reader is told that it failed.
const PATIENCE: Duration = Duration::from_secs(12);
/// Blocks that are fetched together when a file is read from front to back.
const WINDOW: u64 = 16;
/// Locks for windows of a file; two windows may share one.
const LOCKS: usize = 8;
/// Reads ahead that may run at once in a workspace.
const AHEAD: usize = 4;

/// A read that failed: too few good shares, or none in time.
#[derive(Debug, Clone)]
pub struct ReadFailure {
    /// What was read.
    pub object: ObjectId,
    /// The block, if the manifest was found.
    pub block: Option<u64>,
    /// For the operator.
    pub detail: String,
}

/// A file that is being opened.
#[derive(Debug, Clone, Copy)]
pub struct Opening<'a> {
    /// The host's number of the thread that opens it.
    pub pid: u32,
    /// The file.
    pub file: &'a File,
}

/// Who hears of what is read and of what goes wrong. Called from reading tasks: it must not block.
/// The session is one that reads the object, if there is one.
pub trait Watch: Send + Sync {
    /// A backend did not give a good share; another may have.
    fn fault(&self, session: Option<SessionId>, fault: Fault);
    /// A read failed.
    fn read_failed(&self, session: Option<SessionId>, failure: ReadFailure);
    /// A file is opened; the answer is what it is called by until it is closed.
    fn opened(&self, _opening: Opening<'_>) -> u64 {
        0
    }
    /// So many bytes of an open file were handed out.
    fn read(&self, _handle: u64, _bytes: usize) {}
    /// An open file was closed by the last who had it.
    fn closed(&self, _handle: u64) {}
}

/// The files of a workspace.
pub struct Contents {
    vault: Vault,
    cache: BlockCache,
    tree: Arc<Tree>,
    watch: Arc<dyn Watch>,
    opened: Mutex<HashMap<u64, Arc<Content>>>,
    ahead: Arc<Semaphore>,
    runtime: Handle,
}

#[derive(Default)]
struct Content {
    reader: OnceCell<ObjectReader>,
    locks: [AsyncMutex<()>; LOCKS],
    /// Where a read would go on if the file were read from front to back.
    next: Mutex<u64>,
}

impl Contents {
    /// Reads from `storage` through a cache of so many bytes. Call it inside a runtime.
    pub fn new(
        storage: &Storage,
        tree: Arc<Tree>,
        cache_bytes: usize,
        watch: Arc<dyn Watch>,
    ) -> io::Result<Contents> {
        let (seen, told) = (tree.clone(), watch.clone());
        let faults = move |fault: Fault| told.fault(seen.session_with(&fault.object), fault);
        Ok(Contents {
            vault: storage.reading(Arc::new(faults)),
            tree,
            cache: BlockCache::new(cache_bytes)?,
            watch,
            opened: Mutex::default(),
            ahead: Arc::new(Semaphore::new(AHEAD)),
            runtime: Handle::current(),
        })
    }

    /// What is wholly in the cache, without waiting.
    pub fn at_hand(self: &Arc<Self>, file: &Arc<File>, offset: u64, length: usize) -> Option<Wiped> {
        let mut bytes = Wiped::with_room_for(length);
        let mut last = None;
        for part in parts(offset, end_of(file, offset, length)) {
            last = Some(part.block);
            if !self.cache.copy(file.id, part.block, part.from..part.to, &mut bytes) {
                return None;
            }
        }
        if let Some(last) = last {
            let content = self.content(file.id);
            if content.is_sequential(offset, bytes.len()) {
                self.read_ahead(&content, file, window_end(last));
            }
        }
        Some(bytes)
    }

    /// Reads a range, cut at the end of the file. Whoever watches knows of a failure already.
    pub async fn read(
        self: &Arc<Self>,
        file: &Arc<File>,
        offset: u64,
        length: usize,
    ) -> Result<Wiped, ReadFailure> {
        let content = self.content(file.id);
        let end = end_of(file, offset, length);
        let sequential = content.is_sequential(offset, usize::try_from(end - offset.min(end)).unwrap_or(0));
        let mut bytes = Wiped::with_room_for(length);
        let mut last = 0;
        for part in parts(offset, end) {
            last = part.block;
            if self.cache.copy(file.id, part.block, part.from..part.to, &mut bytes) {
                continue;
            }
            let wanted_end = end.div_ceil(BLOCK as u64);
            let until =
                if sequential { window_end(part.block) } else { wanted_end.min(window_end(part.block)) };
            let _one = content.locks[lock_of(part.block)].lock().await;
            if self.cache.copy(file.id, part.block, part.from..part.to, &mut bytes) {
                continue;
            }
            let fetched = self.fetch(&content, file, part.block, until).await?;
            let there = part.to.min(fetched.len());
            bytes.extend(&fetched[part.from.min(there)..there]);
        }
        if sequential {
            self.read_ahead(&content, file, window_end(last));
        }
        Ok(bytes)
    }

    /// Wipes what is kept of a file.
    pub fn forget(&self, file: u64) {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).remove(&file);
        self.cache.forget(file);
    }

    fn content(&self, file: u64) -> Arc<Content> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).entry(file).or_default().clone()
    }

    fn read_ahead(self: &Arc<Self>, content: &Arc<Content>, file: &Arc<File>, block: u64) {
        let beyond = block * BLOCK as u64 >= file.size;
        if beyond || self.cache.has(file.id, block) {
            return;
        }
        let Ok(permit) = self.ahead.clone().try_acquire_owned() else { return };
        let (contents, content, file) = (self.clone(), content.clone(), file.clone());
        self.runtime.spawn(async move {
            let _permit = permit;
            let _one = content.locks[lock_of(block)].lock().await;
            if !contents.cache.has(file.id, block) {
                // Whoever wants these bytes will ask for them again, and hear the error then.
                let _ = contents.fetch(&content, &file, block, window_end(block)).await;
            }
        });
    }

    /// Fetches whole blocks into the cache, from `from` to before `until`.
    async fn fetch(
        &self,
        content: &Content,
        file: &File,
        from: u64,
        until: u64,
    ) -> Result<Wiped, ReadFailure> {
        let failure = |block, detail: String| {
            let failure = ReadFailure { object: file.object.clone(), block, detail };
            self.watch.read_failed(self.tree.session_with(&file.object), failure.clone());
            failure
        };
        let start = from * BLOCK as u64;
        let length = usize::try_from(until.saturating_sub(from)).unwrap_or(0) * BLOCK;
        let work = async {
            let reader = content
                .reader
                .get_or_try_init(|| self.vault.open(&file.object, &file.root))
                .await
                .map_err(|error| failure(None, error.to_string()))?;
            if reader.size() != file.size {
                return Err(failure(None, "the ticket names another size than the manifest".to_owned()));
            }
            reader.read_at(start, length).await.map_err(|error| failure(Some(from), error.to_string()))
        };
        let fetched = match tokio::time::timeout(PATIENCE, work).await {
            Ok(fetched) => fetched?,
            Err(_) => {
                return Err(failure(Some(from), format!("nothing came within {} s", PATIENCE.as_secs())));
            }
        };
        for (block, bytes) in (from..).zip(fetched.chunks(BLOCK)) {
            self.cache.put(file.id, block, bytes);
        }
        Ok(fetched)
    }
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contents").finish_non_exhaustive()
    }
}

impl Content {
    /// Whether this read begins where the last one ended; remembers where it ends.
    fn is_sequential(&self, offset: u64, length: usize) -> bool {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let sequential = *next == offset;
        *next = offset + length as u64;
        sequential
    }
}

fn end_of(file: &File, offset: u64, length: usize) -> u64 {
    offset.saturating_add(length as u64).min(file.size)
}

fn window_end(block: u64) -> u64 {
    (block / WINDOW + 1) * WINDOW
}

fn lock_of(block: u64) -> usize {
    usize::try_from(block / WINDOW % LOCKS as u64).unwrap_or(0)
}

#[derive(Debug, PartialEq, Eq)]
struct Part {
    block: u64,
    from: usize,
    to: usize,
}

/// The parts of blocks that make up a range.
fn parts(offset: u64, end: u64) -> impl Iterator<Item = Part> {
    let block_size = BLOCK as u64;
    let blocks = if offset < end { offset / block_size..end.div_ceil(block_size) } else { 0..0 };
    blocks.map(move |block| {
        let start = block * block_size;
        let within = |at: u64| usize::try_from(at.clamp(start, start + block_size) - start).unwrap_or(BLOCK);
        Part { block, from: within(offset), to: within(end) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_a_range_exactly() {
        let block = BLOCK as u64;
        assert_eq!(parts(5, 5).count(), 0);
        assert_eq!(parts(9, 5).count(), 0);
        assert_eq!(parts(5, 9).collect::<Vec<_>>(), [Part { block: 0, from: 5, to: 9 }]);
        assert_eq!(
            parts(block - 1, 2 * block + 3).collect::<Vec<_>>(),
            [
                Part { block: 0, from: BLOCK - 1, to: BLOCK },
                Part { block: 1, from: 0, to: BLOCK },
                Part { block: 2, from: 0, to: 3 },
            ]
        );
        assert_eq!(parts(block, 2 * block).collect::<Vec<_>>(), [Part { block: 1, from: 0, to: BLOCK }]);
    }
}
