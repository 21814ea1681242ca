//! What every way of delivery works with: entries of the log, and how far the collector is.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use audit::Log;
use model::Entropy;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::cursor::Cursor;
use crate::{Sink, SinkError, Status};

/// How often the cursor moves at most; each move is an fsync.
pub(crate) const SAVE_EVERY: Duration = Duration::from_millis(250);

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
    pub(crate) status: watch::Sender<Status>,
    /// All entries below are delivered.
    delivered: u64,
    /// All entries below are delivered by the file of the cursor.
    saved: u64,
    saving: Option<JoinHandle<Result<u64, SinkError>>>,
}

impl Feed {
    pub(crate) fn new(
        sink: Sink,
        log: Log,
        entropy: Arc<dyn Entropy>,
        (cursor, delivered): (Cursor, u64),
        status: watch::Sender<Status>,
    ) -> Feed {
        Feed { sink, log, entropy, cursor, status, delivered, saved: delivered, saving: None }
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

    /// The collector is new, or was away for long: what was moved to the vault meanwhile is not sent.
    pub(crate) fn moved(&self, from: u64, to: u64) {
        let reason = "these events were moved to the vault before this collector had them; \
                      `sekisho audit fetch` has them back";
        tracing::error!(
            sink = self.sink.name,
            from,
            to,
            reason,
            "events are not sent to the audit collector"
        );
        self.status.send_modify(|status| {
            status.rejected += to - from;
            status.last_rejected = Some((to - 1, reason.to_owned()));
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
    pub(crate) fn report(&self, connected: bool, error: Option<String>) {
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

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn jitter_stays_between_half_and_whole() {
        let entropy = SeededEntropy::new(1);
        let times: Vec<_> = (0..100).map(|_| jittered(LONG, &entropy)).collect();
        assert!(times.iter().all(|t| (LONG / 2..=LONG).contains(t)));
        assert!(times.iter().any(|t| *t != times[0]));
    }
}
