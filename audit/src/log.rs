use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use model::{Clock, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};

use crate::disk::{sync_dir, write_whole};
use crate::integrator::Integrator;
use crate::locks::lock;
use crate::recover::{Recovered, recover};
use crate::shared::{Message, Published, Shared, State, Work};
use crate::space::Spare;
use crate::tiles::{TileNodes, TilePath};
use crate::tree::{self, Hash};
use crate::wal::ENTRY_MAX;
use crate::writer::{Opener, QUEUE, Writer, open_file};
use crate::{AppendError, Event, LogKey, OpenError, Options, ReadError};

/// The file with the last checkpoint that a witness has signed.
pub(crate) const WITNESSED: &str = "checkpoint.witnessed";

/// The position of an entry in the log, from 0.
pub type Index = u64;

/// The log of one node: append-only, durable before it answers, and provable.
///
/// Clones share one log. All entries below [`Log::durable_size`] survive a loss of power. Three
/// threads belong to it; they end after [`Log::close`], or when the last clone is gone.
#[derive(Clone)]
pub struct Log {
    queue: mpsc::Sender<Message>,
    shared: Arc<Shared>,
}

impl Log {
    /// Opens the log in `dir`, or begins a new one there if the folder is empty or missing.
    ///
    /// What is there must be at least what the last checkpoint promised; a write that was never
    /// completed, and so never acknowledged, is cut off. Everything else that does not fit is an
    /// error, and nothing is changed then. Blocks for as long as the write-ahead log takes to read,
    /// a few megabytes.
    pub fn open(dir: &Path, key: LogKey, clock: Arc<dyn Clock>, options: Options) -> Result<Log, OpenError> {
        Log::open_with(dir, key, clock, options, Box::new(open_file))
    }

    pub(crate) fn open_with(
        dir: &Path,
        key: LogKey,
        clock: Arc<dyn Clock>,
        options: Options,
        opener: Opener,
    ) -> Result<Log, OpenError> {
        let capacity = options.segment_bytes.saturating_add(options.reserve_bytes);
        let Recovered { lock, note, edge, bundle, partials, segments } = recover(dir, &key, capacity)?;
        let last = segments.back();
        let durable = last.map_or(0, |s| s.next);
        let path = last.map_or_else(PathBuf::new, |s| s.path.clone());
        let file =
            opener(&path).map_err(|source| OpenError::Io { doing: "open", path: path.clone(), source })?;
        let published = Published { size: edge.size(), note, at: clock.now() };
        let (queue, messages) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            key,
            clock,
            state: watch::Sender::new(State { durable, failed: None, closed: false }),
            published: Mutex::new(published),
            segments: Mutex::new(segments),
            work: Mutex::new(Work { target: durable, ..Work::default() }),
            wake: Condvar::new(),
            dropped: Condvar::new(),
            spare: Spare::new(dir.join("wal"), capacity),
            queue: queue.downgrade(),
            _lock: lock,
        });
        let every = options.checkpoint_every;
        let integrator = Integrator::new(Arc::clone(&shared), every, edge, bundle, partials);
        let mut writer = Writer {
            shared: Arc::clone(&shared),
            opener,
            file,
            segment_bytes: options.segment_bytes,
            capacity,
            broken: false,
            told: false,
        };
        let begin = |name: &str, work: Box<dyn FnOnce() + Send>| {
            thread::Builder::new().name(name.to_owned()).spawn(work).map_err(|source| {
                end_threads(&shared);
                OpenError::Io { doing: "start a thread for", path: dir.to_owned(), source }
            })
        };
        let publishing = begin("audit-publish", Box::new(move || integrator.run()))?;
        let keeper = Arc::clone(&shared);
        let keeping = move || keeper.spare.keep(|cause| keeper.fail_and_tell(cause));
        let keeping = begin("audit-space", Box::new(keeping))?;
        let main = move || {
            let shared = Arc::clone(&writer.shared);
            let waiting = writer.run(messages);
            end_threads(&shared);
            let _ = keeping.join();
            shared.spare.give_back();
            let _ = publishing.join();
            writer.finish();
            shared.state.send_modify(|state| state.closed = true);
            // The lock on the folder is given up before anybody hears of the end.
            let _ = shared._lock.unlock();
            if let Some(done) = waiting {
                let _ = done.send(());
            }
        };
        begin("audit-write", Box::new(main))?;
        Ok(Log { queue, shared })
    }

    /// Records `event` and answers with its index once it is on disk.
    ///
    /// An error means that nobody may rely on the record: what was to be recorded must not happen.
    /// (After a failed write the entry may turn out to be there when the log is opened again.) If
    /// the future is dropped, the entry may be recorded all the same.
    ///
    /// Once the log has failed, a reserve is left for what ends ([`EventKind::ends_something`]): it
    /// is recorded as long as the write-ahead log itself can be written.
    pub async fn append(&self, event: &Event) -> Result<Index, AppendError> {
        self.append_entry(event.to_entry(), event.kind.ends_something()).await
    }

    pub(crate) async fn append_entry(&self, entry: Vec<u8>, closing: bool) -> Result<Index, AppendError> {
        if entry.len() > ENTRY_MAX {
            return Err(AppendError::TooLarge(entry.len()));
        }
        let (done, answer) = oneshot::channel();
        self.queue.send(Message::Append { entry, closing, done }).await.map_err(|_| AppendError::Closed)?;
        answer.await.map_err(|_| AppendError::Closed)?
    }

    /// How many entries are on disk.
    pub fn durable_size(&self) -> u64 {
        self.shared.state.borrow().durable
    }

    /// Waits until more than `size` entries are on disk and returns how many there are. It returns
    /// no more than `size` only if the log was closed.
    pub async fn wait_beyond(&self, size: u64) -> u64 {
        let mut state = self.shared.state.subscribe();
        match state.wait_for(|state| state.durable > size || state.closed).await {
            Ok(state) => state.durable,
            Err(_) => self.durable_size(),
        }
    }

    /// Up to `max` durable entries from index `from` on, each the JSON of an event (see
    /// [`crate::export`] for the form that leaves the node). Blocks on the disk.
    pub fn read(&self, from: u64, max: usize) -> Result<Vec<(Index, Vec<u8>)>, ReadError> {
        self.shared.read(from, max)
    }

    /// The bytes of a published file. None if the last checkpoint does not cover it, or if a wider
    /// one has taken its place. Blocks on the disk.
    pub fn published(&self, path: TilePath) -> Result<Option<Vec<u8>>, ReadError> {
        if path.0.needs().is_none_or(|needed| needed > self.checkpoint_size()) {
            return Ok(None);
        }
        let path = self.shared.dir.join(path.0.path());
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ReadError::Io { path, source }),
        }
    }

    /// The last signed checkpoint, a C2SP signed note.
    pub fn checkpoint(&self) -> String {
        lock(&self.shared.published).note.clone()
    }

    /// How many entries the last checkpoint covers.
    pub fn checkpoint_size(&self) -> u64 {
        lock(&self.shared.published).size
    }

    /// When the last checkpoint was signed, or the log opened.
    pub fn checkpoint_at(&self) -> Timestamp {
        lock(&self.shared.published).at
    }

    /// The name of the log.
    pub fn origin(&self) -> &str {
        self.shared.key.origin()
    }

    pub(crate) fn public_key(&self) -> &crate::LogPublicKey {
        self.shared.key.public()
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// Why the log takes nothing more, once it has failed.
    pub fn failure(&self) -> Option<Arc<io::Error>> {
        self.shared.state.borrow().failed.clone()
    }

    /// Takes the log out of service for a reason from outside, such as a witness that knows another
    /// history. The reserve takes what ends, as for any other failure.
    pub fn stop(&self, why: String) {
        self.shared.fail_and_tell(io::Error::other(why));
    }

    /// Keeps a checkpoint with the signature of a witness beside the last one, in
    /// `checkpoint.witnessed`. Blocks on the disk.
    pub fn keep_witnessed(&self, note: &str) -> io::Result<()> {
        write_whole(&self.shared.dir.join(WITNESSED), note.as_bytes())?;
        sync_dir(&self.shared.dir)
    }

    /// Waits until the log has failed; it then takes nothing more. Never returns on one that works
    /// or was closed.
    pub async fn failed(&self) -> Arc<io::Error> {
        let mut state = self.shared.state.subscribe();
        let cause = match state.wait_for(|state| state.failed.is_some()).await {
            Ok(state) => state.failed.clone(),
            Err(_) => None,
        };
        match cause {
            Some(cause) => cause,
            None => std::future::pending().await,
        }
    }

    /// The hashes that show that entry `index` is among the first `size` (RFC 6962, 2.1.1).
    /// `size` is at most that of a checkpoint. Blocks on the disk.
    pub fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Hash>, ReadError> {
        let published = self.checkpoint_size();
        check_sizes(index.checked_add(1), size, published)?;
        tree::inclusion(&TileNodes::new(&self.shared.dir, published), index, size)
    }

    /// The hashes that show that the log with `new` entries begins with the log with `old` entries
    /// (RFC 6962, 2.1.2). `new` is at most the size of a checkpoint. Blocks on the disk.
    pub fn consistency_proof(&self, old: u64, new: u64) -> Result<Vec<Hash>, ReadError> {
        let published = self.checkpoint_size();
        check_sizes(Some(old), new, published)?;
        tree::consistency(&TileNodes::new(&self.shared.dir, published), old, new)
    }

    /// Ends the log in an orderly way: what waits is recorded and put under a last checkpoint, and
    /// the folder may be opened again. Later appends get [`AppendError::Closed`].
    pub async fn close(&self) {
        let (done, ended) = oneshot::channel();
        if self.queue.send(Message::Close { done }).await.is_ok() {
            let _ = ended.await;
        } else {
            let _ = self.shared.state.subscribe().wait_for(|state| state.closed).await;
        }
    }
}

pub(crate) fn check_sizes(low: Option<u64>, high: u64, size: u64) -> Result<(), ReadError> {
    match low {
        Some(low) if low <= high && high <= size => Ok(()),
        Some(low) if low > high => Err(ReadError::Outside { asked: low, size: high }),
        _ => Err(ReadError::Outside { asked: high, size }),
    }
}

fn end_threads(shared: &Shared) {
    lock(&shared.work).stop = true;
    shared.wake.notify_all();
    shared.spare.end();
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
