//! One sink from its start to its end: connect, follow, fail, wait, connect again.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use audit::Log;
use model::Entropy;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::cursor::Cursor;
use crate::feed::{End, Feed, blocking, jittered};
use crate::{Sink, SinkError, Status, Target};

const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// The longest time to wait that a collector may ask for.
const ASKED_MAX: Duration = Duration::from_secs(120);
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
    let cursor = {
        let origin = log.origin().to_owned();
        blocking(move || Cursor::open(&cursor, &origin)).await?
    };
    let (delivered, size) = (cursor.1, log.durable_size());
    if delivered > size {
        return Err(SinkError::LogSetBack { delivered, size });
    }
    let local_from = log.local_from()?;
    let cursor = (cursor.0, delivered.max(local_from));
    let mut feed = Feed::new(sink, log, entropy, cursor, status);
    if delivered < local_from {
        feed.moved(delivered, local_from);
    }
    feed.report(false, None);
    let mut backoff = BACKOFF_MIN;
    loop {
        let before = feed.delivered();
        let ended = connected(&mut feed, &mut stop).await;
        // What is known to be there is kept, also when the connection ended badly.
        feed.save().await?;
        let End::Lost { reason, wait } = ended? else {
            feed.report(false, None);
            return Ok(());
        };
        if feed.delivered() > before {
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

async fn connected(feed: &mut Feed, stop: &mut watch::Receiver<bool>) -> Result<End, SinkError> {
    let mut stopping = pin!(stopped(stop));
    match &feed.sink.target {
        Target::Syslog(_) => crate::syslog_tls::deliver(feed, stopping.as_mut()).await,
        Target::Relp(_) => crate::relp_tls::deliver(feed, stopping.as_mut()).await,
        Target::Http(_) => crate::http::deliver(feed, stopping.as_mut()).await,
        Target::File(_) => crate::file::deliver(feed, stopping.as_mut()).await,
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
