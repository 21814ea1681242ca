use std::path::Path;
use std::sync::Arc;

use model::Clock;

use crate::{AppendError, Event, LogKey, OpenError, Options, ReadError};

/// The position of an entry in the log, from 0.
pub type Index = u64;

/// The log of one node: append-only, durable before it answers, and provable.
///
/// Clones share one log. All entries below [`Log::durable_size`] survive a loss of power.
#[derive(Clone)]
pub struct Log(Arc<()>);

impl Log {
    /// Opens the log in `dir`, or begins a new one there if the folder is empty or missing.
    pub fn open(
        _dir: &Path,
        _key: LogKey,
        _clock: Arc<dyn Clock>,
        _options: Options,
    ) -> Result<Log, OpenError> {
        Ok(Log(Arc::new(())))
    }

    /// Records `event` and answers once it is on disk. An error means: not recorded as far as
    /// anybody can rely on, so what was to be recorded must not happen.
    pub async fn append(&self, _event: &Event) -> Result<Index, AppendError> {
        Err(AppendError::Closed)
    }

    /// How many entries are on disk.
    pub fn durable_size(&self) -> u64 {
        0
    }

    /// Waits until more than `size` entries are on disk and returns how many there are.
    pub async fn wait_beyond(&self, size: u64) -> u64 {
        size
    }

    /// Up to `max` durable entries from index `from` on.
    pub fn read(&self, _from: u64, _max: usize) -> Result<Vec<(Index, Vec<u8>)>, ReadError> {
        Ok(Vec::new())
    }

    /// The last signed checkpoint, a C2SP signed note.
    pub fn checkpoint(&self) -> String {
        String::new()
    }

    /// The name of the log.
    pub fn origin(&self) -> &str {
        ""
    }

    /// Ends the log in an orderly way: everything recorded is put under a last checkpoint.
    pub async fn close(&self) {}
}
