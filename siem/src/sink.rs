use std::collections::VecDeque;
use std::future::Future;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use audit::Log;
use model::Entropy;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::cursor::Cursor;
use crate::syslog::{Header, message};
use crate::transport::{Counted, Progress};
use crate::{GRACE, SinkConfig, SinkError, Status};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a collector may take no bytes before the connection counts as dead.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Entries per write, and writes that may be under way without being confirmed. Both bound memory.
const BATCH: usize = 128;
const UNCONFIRMED_MAX: usize = 256;
/// How often the cursor moves at most; each move is an fsync.
const SAVE_EVERY: Duration = Duration::from_millis(250);
/// How long an orderly end waits for the collector to take what was sent.
const GOODBYE: Duration = Duration::from_secs(1);

/// Sends the log to the collector until `stop` turns true, or its sender is gone, or the log is
/// closed and has been delivered.
///
/// `cursor` is the file that remembers how far the collector is; its folder must exist. Connections
/// that fail are tried again after a time that doubles up to half a minute, with jitter. Errors of
/// the collector never end this function; they stand in `status`.
pub async fn run(
    config: SinkConfig,
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
    let header = Header {
        hostname: config.hostname.clone(),
        origin: log.origin().to_owned(),
        max: config.message_max,
    };
    let mut sink = Sink { config, log, cursor, header, status, delivered };
    sink.report(false, None);
    let mut backoff = BACKOFF_MIN;
    loop {
        let before = sink.delivered;
        let end = {
            let mut stopping = pin!(stopped(&mut stop));
            sink.connect_and_send(stopping.as_mut()).await?
        };
        let End::Lost(reason) = end else {
            sink.report(false, None);
            return Ok(());
        };
        if sink.delivered > before {
            backoff = BACKOFF_MIN;
        }
        tracing::warn!(address = sink.config.address, reason, "the audit collector is not connected");
        sink.report(false, Some(reason));
        let until = Instant::now() + jittered(backoff, &*entropy);
        backoff = (backoff * 2).min(BACKOFF_MAX);
        loop {
            tokio::select! {
                () = stopped(&mut stop) => return Ok(()),
                () = sleep_until(until) => break,
                () = sleep(Duration::from_secs(1)) => sink.report(false, None),
            }
        }
    }
}

/// How a connection came to its end.
enum End {
    Stopped,
    Lost(String),
}

/// What was written and not confirmed yet: once `bytes` are acknowledged and `due` has passed, all
/// entries before `next` are delivered.
struct Mark {
    next: u64,
    bytes: u64,
    due: Instant,
}

struct Sink {
    config: SinkConfig,
    log: Log,
    cursor: Cursor,
    header: Header,
    status: watch::Sender<Status>,
    delivered: u64,
}

impl Sink {
    async fn connect_and_send(&mut self, mut stopping: Stopping<'_>) -> Result<End, SinkError> {
        let connecting = timeout(CONNECT_TIMEOUT, self.connect());
        let (stream, progress) = tokio::select! {
            () = &mut stopping => return Ok(End::Stopped),
            connected = connecting => match connected {
                Ok(Ok(connected)) => connected,
                Ok(Err(reason)) => return Ok(End::Lost(reason)),
                Err(_) => return Ok(End::Lost(format!("no TLS session within {CONNECT_TIMEOUT:?}"))),
            },
        };
        let (from, to) = tokio::io::split(stream);
        self.send(from, to, &progress, stopping).await
    }

    async fn connect(&self) -> Result<(TlsStream<Counted>, Progress), String> {
        let tls = (self.config.tls)()?;
        let stream = TcpStream::connect(&self.config.address)
            .await
            .map_err(|e| format!("cannot connect to {}: {e}", self.config.address))?;
        let (stream, progress) = Counted::new(stream).map_err(|e| format!("cannot use the socket: {e}"))?;
        let stream = TlsConnector::from(tls)
            .connect(self.config.server_name.clone(), stream)
            .await
            .map_err(|e| format!("TLS with {} failed: {e}", self.config.address))?;
        Ok((stream, progress))
    }

    async fn send(
        &mut self,
        from: ReadHalf<TlsStream<Counted>>,
        mut to: WriteHalf<TlsStream<Counted>>,
        progress: &Progress,
        mut stopping: Stopping<'_>,
    ) -> Result<End, SinkError> {
        let mut gone = pin!(until_gone(from));
        let mut next = self.delivered;
        let mut marks: VecDeque<Mark> = VecDeque::new();
        let mut last_progress = (0, Instant::now());
        // A client of TLS 1.3 is told only after the handshake that its certificate was refused, so
        // a connection is not called one at once.
        let mut look = Instant::now() + SAVE_EVERY;
        let mut announced = false;
        loop {
            tokio::select! {
                biased;
                reason = &mut gone => return Ok(End::Lost(reason)),
                () = &mut stopping => {
                    goodbye(to, gone).await;
                    return Ok(End::Stopped);
                }
                () = sleep_until(look), if !marks.is_empty() || !announced => {
                    announced = true;
                    look = Instant::now() + SAVE_EVERY;
                    let acknowledged = match progress.acknowledged() {
                        Ok(bytes) => bytes,
                        Err(e) => return Ok(End::Lost(format!("cannot ask the socket: {e}"))),
                    };
                    self.confirm(&mut marks, acknowledged).await?;
                    if acknowledged > last_progress.0 || marks.is_empty() {
                        last_progress = (acknowledged, Instant::now());
                    } else if last_progress.1.elapsed() > STALL_TIMEOUT && progress.written() > acknowledged {
                        return Ok(End::Lost(format!("it took nothing for {STALL_TIMEOUT:?}")));
                    }
                }
                batch = next_batch(&self.log, next), if marks.len() < UNCONFIRMED_MAX => {
                    let Some(entries) = batch? else {
                        // The log is closed; what remains is to see the rest confirmed.
                        if marks.is_empty() {
                            goodbye(to, gone).await;
                            return Ok(End::Stopped);
                        }
                        sleep_until(look).await;
                        continue;
                    };
                    let mut bytes = Vec::new();
                    for (index, entry) in &entries {
                        bytes.extend_from_slice(&message(&self.header, *index, entry));
                    }
                    let writing = async {
                        to.write_all(&bytes).await?;
                        to.flush().await
                    };
                    let written = tokio::select! {
                        biased;
                        reason = &mut gone => return Ok(End::Lost(reason)),
                        () = &mut stopping => return Ok(End::Stopped),
                        written = timeout(STALL_TIMEOUT, writing) => written,
                    };
                    match written {
                        Ok(Ok(())) => {}
                        Ok(Err(e)) => return Ok(End::Lost(format!("cannot write: {e}"))),
                        Err(_) => return Ok(End::Lost(format!("it took nothing for {STALL_TIMEOUT:?}"))),
                    }
                    next += entries.len() as u64;
                    if marks.is_empty() {
                        last_progress.1 = Instant::now();
                    }
                    marks.push_back(Mark { next, bytes: progress.written(), due: Instant::now() + GRACE });
                }
            }
        }
    }

    /// Moves the cursor over everything that counts as delivered by now.
    async fn confirm(&mut self, marks: &mut VecDeque<Mark>, acknowledged: u64) -> Result<(), SinkError> {
        let now = Instant::now();
        let done = marks.iter().take_while(|m| m.due <= now && m.bytes <= acknowledged).count();
        if let Some(last) = marks.drain(..done).next_back() {
            let cursor = self.cursor.clone();
            blocking(move || cursor.save(last.next)).await?;
            self.delivered = last.next;
        }
        if done > 0 || self.log.durable_size() == self.delivered {
            self.status.send_modify(|status| status.last_error = None);
        }
        self.report(true, None);
        Ok(())
    }

    /// An error stays visible until entries are delivered again.
    fn report(&self, connected: bool, error: Option<String>) {
        let (delivered, lag) = (self.delivered, self.log.durable_size().saturating_sub(self.delivered));
        self.status.send_if_modified(|status| {
            let last_error = error.or_else(|| status.last_error.clone());
            let now = Status { connected, delivered, lag, last_error };
            let changed = *status != now;
            *status = now;
            changed
        });
    }
}

type Stopping<'a> = Pin<&'a mut (dyn Future<Output = ()> + Send + 'a)>;

async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Entries from `next` on, as soon as there are some. None: the log is closed and has no more.
async fn next_batch(log: &Log, next: u64) -> Result<Option<Vec<(u64, Vec<u8>)>>, SinkError> {
    if log.wait_beyond(next).await <= next {
        return Ok(None);
    }
    let log = log.clone();
    Ok(Some(blocking(move || Ok(log.read(next, BATCH)?)).await?))
}

/// Collectors say nothing: reading only ends when the connection does.
async fn until_gone(mut from: ReadHalf<TlsStream<Counted>>) -> String {
    let mut bytes = [0; 512];
    loop {
        match from.read(&mut bytes).await {
            Ok(0) => return "the collector closed the connection".to_owned(),
            Ok(_) => {}
            Err(e) => return format!("the collector ended the connection: {e}"),
        }
    }
}

/// Says goodbye (close_notify) and lets the collector read to the end: a socket that is dropped
/// with unread bytes takes back what it sent.
async fn goodbye(mut to: WriteHalf<TlsStream<Counted>>, gone: Pin<&mut impl Future<Output = String>>) {
    let _ = timeout(GOODBYE, async {
        let _ = to.shutdown().await;
        gone.await
    })
    .await;
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SinkError> + Send + 'static,
) -> Result<T, SinkError> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        // The runtime is going down, or the work panicked: nothing more will be sent either way.
        Err(_) => std::future::pending().await,
    }
}

/// Half of the time for certain, the other half by chance, so that many sinks do not come at once.
fn jittered(time: Duration, entropy: &dyn Entropy) -> Duration {
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
