//! RFC 5424 messages over TLS (RFC 5425), where nobody acknowledges anything.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, WriteHalf};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::client::TlsStream;

use crate::connection::{GOODBYE, STALL_TIMEOUT, connect, stalled, until_gone};
use crate::feed::{End, Feed, SAVE_EVERY, Stopping};
use crate::syslog::{Header, frame};
use crate::transport::{Counted, Progress};
use crate::{GRACE, SinkError, Target};

/// Entries per write: bounds memory.
const BATCH: usize = 128;
/// Entries that may be sent without being confirmed: as many may have to be sent again.
const UNCONFIRMED_MAX: u64 = 32 << 10;
/// Writes so close to each other are confirmed together.
const TOGETHER: Duration = Duration::from_millis(20);

/// What was written and not confirmed yet: once `bytes` are acknowledged and `due` has passed, all
/// entries before `next` are delivered.
struct Mark {
    next: u64,
    bytes: u64,
    since: Instant,
    due: Instant,
}

pub(crate) async fn deliver(feed: &mut Feed, mut stopping: Stopping<'_>) -> Result<End, SinkError> {
    let Target::Syslog(target) = feed.sink.target.clone() else { return Ok(End::Stopped) };
    let header = Header {
        hostname: feed.sink.hostname.clone(),
        origin: feed.log.origin().to_owned(),
        max: target.message_max,
    };
    let connected = tokio::select! {
        () = &mut stopping => return Ok(End::Stopped),
        connected = connect(&target.peer) => connected,
    };
    match connected {
        Ok((stream, progress)) => send(feed, &header, stream, &progress, stopping).await,
        Err(reason) => Ok(End::lost(reason)),
    }
}

async fn send(
    feed: &mut Feed,
    header: &Header,
    stream: TlsStream<Counted>,
    progress: &Progress,
    mut stopping: Stopping<'_>,
) -> Result<End, SinkError> {
    let (from, mut to) = tokio::io::split(stream);
    let mut gone = pin!(until_gone(from));
    let mut next = feed.delivered();
    let mut marks: VecDeque<Mark> = VecDeque::new();
    let mut last_progress = (0, Instant::now());
    // A client of TLS 1.3 is told only after the handshake that its certificate was refused, so a
    // connection is not called one at once.
    let mut look = Instant::now() + SAVE_EVERY;
    let mut announced = false;
    loop {
        tokio::select! {
            biased;
            reason = &mut gone => return Ok(End::lost(reason)),
            () = &mut stopping => {
                goodbye(to, gone).await;
                return Ok(End::Stopped);
            }
            () = sleep_until(look), if !marks.is_empty() || !announced => {
                announced = true;
                look = Instant::now() + SAVE_EVERY;
                let acknowledged = match progress.acknowledged() {
                    Ok(bytes) => bytes,
                    Err(e) => return Ok(End::lost(format!("cannot ask the socket: {e}"))),
                };
                confirm(feed, &mut marks, acknowledged).await?;
                if acknowledged > last_progress.0 || marks.is_empty() {
                    last_progress = (acknowledged, Instant::now());
                } else if last_progress.1.elapsed() > STALL_TIMEOUT && progress.written() > acknowledged {
                    return Ok(End::lost(stalled()));
                }
            }
            batch = feed.batch(next, BATCH), if next - feed.delivered() < UNCONFIRMED_MAX => {
                let Some(events) = batch? else {
                    // The log is closed; what remains is to see the rest confirmed.
                    if marks.is_empty() {
                        goodbye(to, gone).await;
                        return Ok(End::Stopped);
                    }
                    sleep_until(look).await;
                    continue;
                };
                let mut bytes = Vec::new();
                for (index, event) in &events {
                    bytes.extend_from_slice(&frame(header, *index, event));
                }
                let writing = async {
                    to.write_all(&bytes).await?;
                    to.flush().await
                };
                let written = tokio::select! {
                    biased;
                    reason = &mut gone => return Ok(End::lost(reason)),
                    () = &mut stopping => return Ok(End::Stopped),
                    written = timeout(STALL_TIMEOUT, writing) => written,
                };
                match written {
                    Ok(Ok(())) => feed.now_sent(events.len()),
                    Ok(Err(e)) => return Ok(End::lost(format!("cannot write: {e}"))),
                    Err(_) => return Ok(End::lost(stalled())),
                }
                next += events.len() as u64;
                if marks.is_empty() {
                    last_progress.1 = Instant::now();
                }
                let (bytes, now) = (progress.written(), Instant::now());
                match marks.back_mut() {
                    Some(last) if last.since.elapsed() < TOGETHER => {
                        (last.next, last.bytes, last.due) = (next, bytes, now + GRACE);
                    }
                    _ => marks.push_back(Mark { next, bytes, since: now, due: now + GRACE }),
                }
            }
        }
    }
}

/// Moves the cursor over everything that counts as delivered by now.
async fn confirm(feed: &mut Feed, marks: &mut VecDeque<Mark>, acknowledged: u64) -> Result<(), SinkError> {
    let now = Instant::now();
    let done = marks.iter().take_while(|m| m.due <= now && m.bytes <= acknowledged).count();
    if let Some(last) = marks.drain(..done).next_back() {
        feed.now_delivered(last.next);
        feed.save().await?;
    }
    feed.works();
    Ok(())
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
