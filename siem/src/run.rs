//! One sink from its start to its end: connect, follow, fail, wait, connect again.

use std::future::Future;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use audit::Log;
use model::Entropy;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until};

use crate::cursor::Cursor;
use crate::{Sink, SinkError, Status, Target};

const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// The longest time to wait that a collector may ask for.
const ASKED_MAX: Duration = Duration::from_secs(120);
/// How often the cursor moves at most; each move is an fsync.
pub(crate) const SAVE_EVERY: Duration = Duration::from_millis(250);
const TICK: Duration = Duration::from_secs(1);

/// Sends the log to a collector until `stop` turns true, or its sender is gone, or the log is closed
/// and has been delivered.
///
/// `cursor` is the file that remembers how far the collector is; its folder must exist. Connections
/// that fail are tried again after a time that doubles up to half a minute, with jitter. Errors of
/// the collector never end this function; they stand in `status`, where the lag is kept current
/// whatever the collector does.
pub async fn run(
    sink: Sink,
    log: Log,
    cursor: PathBuf,
    entropy: Arc<dyn Entropy>,
    status: watch::Sender<Status>,
    stop: watch::Receiver<bool>,
) -> Result<(), SinkError> {
    let lagging = keep_lag(log.clone(), status.clone());
    tokio::select! {
        ended = follow(sink, log, cursor, entropy, status, stop) => ended,
        () = lagging => Ok(()),
    }
}

async fn keep_lag(log: Log, status: watch::Sender<Status>) {
    loop {
        sleep(TICK).await;
        status.send_if_modified(|status| {
            let lag = log.durable_size().saturating_sub(status.delivered);
            let changed = status.lag != lag;
            status.lag = lag;
            changed
        });
    }
}

async fn follow(
    sink: Sink,
    log: Log,
    cursor: PathBuf,
    entropy: Arc<dyn Entropy>,
    status: watch::Sender<Status>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), SinkError> {
    let (cursor, delivered) = {
        let origin = log.origin().to_owned();
        blocking(move || Cursor::open(&cursor, &origin)).await?
    };
    let size = log.durable_size();
    if delivered > size {
        return Err(SinkError::LogSetBack { delivered, size });
    }
    let mut feed = Feed { sink, log, cursor, status, entropy, delivered, saved: delivered, saving: None };
    feed.report(false, None);
    let mut backoff = BACKOFF_MIN;
    loop {
        let before = feed.delivered;
        let ended = feed.connected(&mut stop).await;
        // What is known to be there is kept, also when the connection ended badly.
        feed.save().await?;
        let End::Lost { reason, wait } = ended? else {
            feed.report(false, None);
            return Ok(());
        };
        if feed.delivered > before {
            backoff = BACKOFF_MIN;
        }
        tracing::warn!(sink = feed.sink.name, reason, "the audit collector is not connected");
        feed.status.send_modify(|status| status.errors += 1);
        feed.report(false, Some(reason));
        let until = Instant::now() + wait.min(ASKED_MAX).max(jittered(backoff, &*feed.entropy));
        backoff = (backoff * 2).min(BACKOFF_MAX);
        tokio::select! {
            () = stopped(&mut stop) => return Ok(()),
            () = sleep_until(until) => {}
        }
    }
}

/// How a connection came to its end.
pub(crate) enum End {
    /// We ended it.
    Stopped,
    /// It ended, or had to.
    Lost {
        /// Why, for people.
        reason: String,
        /// How long the collector asked to be left alone.
        wait: Duration,
    },
}

impl End {
    pub(crate) fn lost(reason: impl Into<String>) -> End {
        End::Lost { reason: reason.into(), wait: Duration::ZERO }
    }
}

/// What every way of delivery works with.
pub(crate) struct Feed {
    pub(crate) sink: Sink,
    pub(crate) log: Log,
    pub(crate) entropy: Arc<dyn Entropy>,
    cursor: Cursor,
    status: watch::Sender<Status>,
    /// All entries below are delivered.
    delivered: u64,
    /// All entries below are delivered by the file of the cursor.
    saved: u64,
    saving: Option<JoinHandle<Result<u64, SinkError>>>,
}

impl Feed {
    async fn connected(&mut self, stop: &mut watch::Receiver<bool>) -> Result<End, SinkError> {
        let mut stopping = pin!(stopped(stop));
        match &self.sink.target {
            Target::Syslog(_) => crate::syslog_tls::deliver(self, stopping.as_mut()).await,
            Target::Relp(_) => crate::relp_tls::deliver(self, stopping.as_mut()).await,
            Target::Http(_) => crate::http::deliver(self, stopping.as_mut()).await,
            Target::File(_) => crate::file::deliver(self, stopping.as_mut()).await,
        }
    }

    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// All entries below `next` are delivered; [`Feed::save`] makes it last.
    pub(crate) fn now_delivered(&mut self, next: u64) {
        if next > self.delivered {
            self.delivered = next;
            self.status.send_modify(|status| status.last_error = None);
        }
        self.report(true, None);
    }

    /// Lets the file of the cursor say what is delivered. A save that was broken off is finished
    /// before the next begins.
    pub(crate) async fn save(&mut self) -> Result<(), SinkError> {
        loop {
            if let Some(saving) = &mut self.saving {
                let ended = saving.await;
                self.saving = None;
                match ended {
                    Ok(saved) => self.saved = saved?,
                    // The runtime is going down.
                    Err(_) => return std::future::pending().await,
                }
            }
            if self.saved == self.delivered {
                return Ok(());
            }
            let (cursor, delivered) = (self.cursor.clone(), self.delivered);
            self.saving = Some(spawn_blocking(move || cursor.save(delivered).map(|()| delivered)));
        }
    }

    pub(crate) fn now_sent(&self, count: usize) {
        self.status.send_modify(|status| status.sent += count as u64);
    }

    /// The collector will never take an entry; the feed goes on without it.
    pub(crate) fn rejected(&self, index: u64, reason: &str) {
        tracing::error!(sink = self.sink.name, index, reason, "the audit collector rejects an event");
        self.status.send_modify(|status| {
            status.rejected += 1;
            status.last_rejected = Some((index, reason.to_owned()));
        });
    }

    /// The connection works: an error of before is over once nothing waits.
    pub(crate) fn works(&self) {
        if self.log.durable_size() == self.delivered {
            self.status.send_if_modified(|status| status.last_error.take().is_some());
        }
        self.report(true, None);
    }

    /// An error stays visible until entries are delivered again.
    fn report(&self, connected: bool, error: Option<String>) {
        let (delivered, lag) = (self.delivered, self.log.durable_size().saturating_sub(self.delivered));
        self.status.send_if_modified(|status| {
            let last_error = error.or_else(|| status.last_error.clone());
            let now = Status { connected, delivered, lag, last_error, ..status.clone() };
            let changed = *status != now;
            *status = now;
            changed
        });
    }

    /// Up to `max` entries from `next` on as this collector may see them, as soon as there are some.
    /// None: the log is closed and has no more. The future borrows nothing.
    pub(crate) fn batch(&self, next: u64, max: usize) -> Fetching {
        let (log, privacy) = (self.log.clone(), self.sink.privacy.clone());
        Box::pin(async move {
            if log.wait_beyond(next).await <= next {
                return Ok(None);
            }
            let read = move || {
                let entries = log.read(next, max)?;
                let seen = |(index, entry): (u64, Vec<u8>)| {
                    let mut event = audit::export(log.origin(), index, &entry)
                        .unwrap_or_else(|| json!({ "message": "an entry that is no event", "metadata": {} }));
                    privacy.apply(&mut event);
                    (index, event)
                };
                Ok(entries.into_iter().map(seen).collect())
            };
            Ok(Some(blocking(read).await?))
        })
    }
}

/// Entries on their way from the log.
pub(crate) type Fetching = Pin<Box<dyn Future<Output = Result<Option<Vec<(u64, Value)>>, SinkError>> + Send>>;

/// Resolves when the feed is to end.
pub(crate) type Stopping<'a> = Pin<&'a mut (dyn Future<Output = ()> + Send + 'a)>;

async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SinkError> + Send + 'static,
) -> Result<T, SinkError> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        // The runtime is going down, or the work panicked: nothing more will be sent either way.
        Err(_) => std::future::pending().await,
    }
}

/// Half of the time for certain, the other half by chance, so that many sinks do not come at once.
pub(crate) fn jittered(time: Duration, entropy: &dyn Entropy) -> Duration {
    let mut byte = [0];
    // Without randomness the whole time is waited.
    let chance = if entropy.fill(&mut byte).is_ok() { u32::from(byte[0]) } else { 255 };
    time / 2 + time / 2 * chance / 255
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::SeededEntropy;

    #[test]
    fn jitter_stays_between_half_and_whole() {
        let entropy = SeededEntropy::new(1);
        let times: Vec<_> = (0..100).map(|_| jittered(BACKOFF_MAX, &entropy)).collect();
        assert!(times.iter().all(|t| (BACKOFF_MAX / 2..=BACKOFF_MAX).contains(t)));
        assert!(times.iter().any(|t| *t != times[0]));
    }
}
