//! What the handle, the writer and the integrator of one log share.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};

use model::{Clock, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};

use crate::local::explained;
use crate::locks::lock;
use crate::space::Spare;
use crate::wal::{Segment, read_batch};
use crate::{AppendError, LogKey, ReadError, tiles};

/// Entries with their indices.
type Entries = Vec<(u64, Vec<u8>)>;

/// How much of a log is safe, and whether it still works.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) durable: u64,
    pub(crate) failed: Option<Arc<io::Error>>,
    pub(crate) closed: bool,
}

/// The last checkpoint.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    pub(crate) size: u64,
    pub(crate) note: String,
    pub(crate) at: Timestamp,
}

/// What the writer is asked for.
pub(crate) enum Message {
    Append {
        entry: Vec<u8>,
        /// Whether it ends something, so that the reserve is there for it.
        closing: bool,
        done: oneshot::Sender<Result<u64, AppendError>>,
    },
    /// The log has failed elsewhere: that is to be recorded.
    Failed,
    Close {
        done: oneshot::Sender<()>,
    },
}

/// What wakes the integrator.
#[derive(Debug, Default)]
pub(crate) struct Work {
    pub(crate) target: u64,
    pub(crate) stop: bool,
    /// Whether the integrator waits for a first entry; otherwise it looks at the target by itself.
    pub(crate) idle: bool,
    /// Whether the writer waits for segments to go, so that no checkpoint may be waited for.
    pub(crate) hurry: bool,
}

pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) key: LogKey,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) state: watch::Sender<State>,
    pub(crate) published: Mutex<Published>,
    pub(crate) segments: Mutex<VecDeque<Segment>>,
    pub(crate) work: Mutex<Work>,
    pub(crate) wake: Condvar,
    /// Told when a segment has gone because bundles hold what was in it.
    pub(crate) dropped: Condvar,
    pub(crate) spare: Spare,
    /// Reaches the writer as long as anybody holds the log.
    pub(crate) queue: mpsc::WeakSender<Message>,
    /// Holds the lock on the folder for as long as anything of this log lives.
    pub(crate) _lock: File,
}

impl Shared {
    /// Takes the log out of service from outside the writer, which then records that.
    pub(crate) fn fail_and_tell(&self, cause: io::Error) {
        self.fail(cause);
        self.dropped.notify_all();
        if let Some(queue) = self.queue.upgrade() {
            // A full queue wakes the writer as well.
            let _ = queue.try_send(Message::Failed);
        }
    }

    /// Takes the log out of service. The first cause stays.
    pub(crate) fn fail(&self, cause: io::Error) -> Arc<io::Error> {
        let mut kept = Arc::new(cause);
        self.state.send_modify(|state| match &state.failed {
            Some(first) => kept = Arc::clone(first),
            None => state.failed = Some(Arc::clone(&kept)),
        });
        kept
    }

    /// Durable entries from `from` on, at most `max`.
    pub(crate) fn read(&self, from: u64, max: usize) -> Result<Entries, ReadError> {
        let end = self.state.borrow().durable;
        let mut found = Vec::new();
        let mut at = from;
        while at < end && found.len() < max {
            let room = max - found.len();
            let got = match self.read_batch_of(at, room) {
                Some(entries) => entries?,
                None => self.read_published(at, room)?,
            };
            if got.is_empty() {
                break;
            }
            at += got.len() as u64;
            found.extend(got);
        }
        Ok(found)
    }

    /// Entries from `index` to the end of its batch, if the write-ahead log still has it.
    fn read_batch_of(&self, index: u64, max: usize) -> Option<Result<Entries, ReadError>> {
        let (place, file, path) = lock(&self.segments).iter().find_map(|s| s.find(index))?;
        Some(read_batch(place, &file, &path).map(|(batch, bytes)| {
            let skip = (index - batch.first) as usize;
            let entries = batch.entries.iter().skip(skip).take(max);
            entries.enumerate().map(|(i, r)| (index + i as u64, bytes[r.clone()].to_vec())).collect()
        }))
    }

    /// Entries that a checkpoint covers, from the bundles.
    fn read_published(&self, from: u64, max: usize) -> Result<Entries, ReadError> {
        loop {
            let size = lock(&self.published).size;
            match tiles::read_range(&self.dir, from, max, size) {
                // A partial bundle goes away when a wider one has taken its place.
                Err(ReadError::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && lock(&self.published).size != size => {}
                other => return other.map_err(|error| explained(&self.dir, from, error)),
            }
        }
    }
}
