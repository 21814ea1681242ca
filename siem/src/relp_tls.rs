//! RELP over TLS: [`crate::relp`] with a socket.

use std::collections::VecDeque;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};

use crate::connection::{CLOSED, GOODBYE, STALL_TIMEOUT, connect, ended, stalled};
use crate::feed::{End, Feed, Fetching, SAVE_EVERY, Stopping};
use crate::relp::{Relp, WINDOW};
use crate::syslog::{Header, message};
use crate::{SinkError, Target};

/// Entries read from the log at once: what is under way and what waits bound memory.
const READ: usize = 2 * WINDOW;

pub(crate) async fn deliver(feed: &mut Feed, mut stopping: Stopping<'_>) -> Result<End, SinkError> {
    let Target::Relp(target) = feed.sink.target.clone() else { return Ok(End::Stopped) };
    let header = Header {
        hostname: feed.sink.hostname.clone(),
        origin: feed.log.origin().to_owned(),
        max: target.message_max,
    };
    let connected = tokio::select! {
        () = &mut stopping => return Ok(End::Stopped),
        connected = connect(&target.peer) => connected,
    };
    let (mut from, mut to) = match connected {
        Ok((stream, _)) => tokio::io::split(stream),
        Err(reason) => return Ok(End::lost(reason)),
    };
    let mut relp = Relp::new();
    let mut read = [0; 4096];
    let (mut out, mut at, mut unflushed) = (Vec::new(), 0, false);
    let mut waiting: VecDeque<(u64, Value)> = VecDeque::new();
    let mut next = feed.delivered();
    let mut fetching: Option<Fetching> = None;
    let mut log_ended = false;
    let mut save = Instant::now() + SAVE_EVERY;
    let mut last_answer = Instant::now();
    loop {
        while relp.room() > 0 {
            let Some((index, event)) = waiting.pop_front() else { break };
            if relp.waiting() == 0 {
                last_answer = Instant::now();
            }
            relp.send(index + 1, &message(&header, index, &event));
            feed.now_sent(1);
        }
        if let Some(bytes) = relp.transmit() {
            out.drain(..at);
            at = 0;
            out.extend_from_slice(&bytes);
        }
        if waiting.is_empty() && fetching.is_none() && relp.is_open() && !log_ended {
            fetching = Some(feed.batch(next, READ));
        }
        if log_ended && waiting.is_empty() && relp.waiting() == 0 {
            break;
        }
        let unanswered = relp.waiting() > 0 || !relp.is_open();
        tokio::select! {
            biased;
            () = &mut stopping => break,
            got = from.read(&mut read) => match got {
                Ok(0) => return Ok(End::lost(CLOSED)),
                Ok(count) => {
                    last_answer = Instant::now();
                    let opened = relp.is_open();
                    match relp.receive(&read[..count]) {
                        Ok(Some(delivered)) => feed.now_delivered(delivered),
                        Ok(None) if !opened && relp.is_open() => feed.works(),
                        Ok(None) => {}
                        Err(e) => return Ok(End::lost(e.to_string())),
                    }
                }
                Err(e) => return Ok(End::lost(ended(&e))),
            },
            pushed = push(&mut to, &out[at..]), if at < out.len() || unflushed => match pushed {
                Ok(Some(0)) => return Ok(End::lost(CLOSED)),
                Ok(Some(count)) => {
                    at += count;
                    unflushed = true;
                }
                Ok(None) => unflushed = false,
                Err(e) => return Ok(End::lost(format!("cannot write: {e}"))),
            },
            fetched = fetch(&mut fetching), if fetching.is_some() => {
                fetching = None;
                match fetched? {
                    Some(events) => {
                        next += events.len() as u64;
                        waiting.extend(events);
                    }
                    None => log_ended = true,
                }
            }
            () = sleep_until(save) => {
                feed.save().await?;
                if relp.is_open() {
                    feed.works();
                }
                save = Instant::now() + SAVE_EVERY;
            }
            () = sleep_until(last_answer + STALL_TIMEOUT), if unanswered => return Ok(End::lost(stalled())),
        }
    }
    relp.close();
    out.drain(..at);
    out.extend(relp.transmit().unwrap_or_default());
    let farewell = async {
        to.write_all(&out).await?;
        to.flush().await?;
        // Until it answers or closes: what it still acknowledges need not be sent again.
        loop {
            let count = from.read(&mut read).await?;
            match relp.receive(&read[..count]) {
                Ok(Some(delivered)) => feed.now_delivered(delivered),
                Ok(None) if count > 0 => {}
                _ => return Ok::<_, std::io::Error>(()),
            }
        }
    };
    let _ = timeout(GOODBYE, farewell).await;
    Ok(End::Stopped)
}

/// The fetch under way goes on whatever else happens meanwhile.
async fn fetch(fetching: &mut Option<Fetching>) -> Result<Option<Vec<(u64, Value)>>, SinkError> {
    match fetching {
        Some(fetching) => fetching.await,
        None => std::future::pending().await,
    }
}

/// Writes some of the bytes, or, if there are none, flushes what was written. What is dropped before
/// it is done has done nothing.
async fn push(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<Option<usize>> {
    if bytes.is_empty() { to.flush().await.map(|()| None) } else { to.write(bytes).await.map(Some) }
}
