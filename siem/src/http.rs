//! HTTPS batches: Splunk's HTTP Event Collector and Elasticsearch's `_bulk`.
//!
//! [`format`] makes the bodies and reads the answers, without I/O; this module sends them, one
//! request at a time over one connection. An answer that a collector gives about single events is
//! taken seriously: those it had no room for are sent again, those it will never take are counted,
//! reported, and left behind, so that one of them does not stop all that come after.

mod format;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, RETRY_AFTER};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};
use zeroize::Zeroizing;

pub use format::{Answer, AnswerError, Body, parse_answer};

use crate::connection::{Peer, STALL_TIMEOUT, connect};
use crate::feed::{End, Feed, Stopping, jittered};
use crate::{SinkError, Target};

/// Events per request, and bytes after which a request is full. Both bound memory.
const BATCH: usize = 500;
const BODY_MAX: usize = 1 << 20;
/// The longest answer that is read.
const ANSWER_MAX: usize = 1 << 20;
/// The longest token.
const TOKEN_MAX: u64 = 4096;
/// Between questions whether Splunk's indexers have what was sent, and how long that may take.
const ACK_POLL: Duration = Duration::from_millis(250);
const ACK_TIMEOUT: Duration = Duration::from_secs(120);
/// Before events that there was no room for are sent again.
const AGAIN: Duration = Duration::from_millis(500);

/// What is spoken over HTTPS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dialect {
    /// Splunk's HTTP Event Collector.
    SplunkHec {
        /// The index, where it is not the token's own.
        index: Option<String>,
        /// Whether a batch counts only when the indexers have acknowledged it. The collector must
        /// have that switched on for the token. Without it a 200 says that the batch was received.
        indexer_ack: bool,
    },
    /// Elasticsearch's and OpenSearch's `_bulk`.
    Elasticsearch {
        /// The index or data stream.
        index: String,
    },
}

/// A collector that takes HTTPS.
#[derive(Clone)]
pub struct HttpTarget {
    /// Where it is.
    pub peer: Peer,
    /// What it speaks.
    pub dialect: Dialect,
    /// The file with its token, read at each connection: a token of HEC, or an API key of
    /// Elasticsearch. Without one the TLS certificate speaks for us.
    pub token: Option<PathBuf>,
    /// Whether bodies are compressed.
    pub gzip: bool,
}

pub(crate) async fn deliver(feed: &mut Feed, mut stopping: Stopping<'_>) -> Result<End, SinkError> {
    let Target::Http(target) = feed.sink.target.clone() else { return Ok(End::Stopped) };
    tokio::select! {
        () = &mut stopping => Ok(End::Stopped),
        ended = follow(feed, target) => ended,
    }
}

async fn follow(feed: &mut Feed, target: HttpTarget) -> Result<End, SinkError> {
    let mut client = match Client::connect(feed, target).await {
        Ok(client) => client,
        Err(end) => return Ok(end),
    };
    let mut max = BATCH;
    loop {
        let Some(events) = feed.batch(feed.delivered(), max).await? else { return Ok(End::Stopped) };
        let next = feed.delivered() + events.len() as u64;
        let mut left = events;
        while !left.is_empty() {
            let body =
                Body::new(&client.target.dialect, &feed.sink.hostname, feed.log.origin(), &left, BODY_MAX);
            let sent = body.count();
            let answer = match client.post(&body).await {
                Ok(answer) => answer,
                Err(end) => return Ok(end),
            };
            feed.now_sent(sent);
            match answer {
                Answer::Taken => {
                    left.drain(..sent);
                }
                Answer::Parts { again, rejected } => {
                    for (place, reason) in &rejected {
                        if let Some((index, _)) = left.get(*place) {
                            feed.rejected(*index, reason);
                        }
                    }
                    let mut place = 0;
                    left.retain(|_| {
                        place += 1;
                        place > sent || again.contains(&(place - 1))
                    });
                    if !again.is_empty() {
                        feed.works();
                        sleep(jittered(AGAIN, &*feed.entropy)).await;
                    }
                }
                Answer::TooLarge if sent > 1 => {
                    max = (sent / 2).max(1);
                    break;
                }
                Answer::TooLarge => {
                    feed.rejected(left[0].0, "too large for the collector");
                    left.remove(0);
                }
            }
        }
        if left.is_empty() {
            feed.now_delivered(next);
            feed.save().await?;
        }
    }
}

struct Client {
    target: HttpTarget,
    sender: http1::SendRequest<Full<Bytes>>,
    /// The connection's own work; it ends with this.
    driving: tokio::task::JoinHandle<()>,
    authorization: Option<Zeroizing<String>>,
    channel: String,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driving.abort();
    }
}

impl Client {
    async fn connect(feed: &Feed, target: HttpTarget) -> Result<Client, End> {
        let authorization = match &target.token {
            Some(path) => Some(read_token(path, &target.dialect).await.map_err(End::lost)?),
            None => None,
        };
        let mut channel = [0; 16];
        feed.entropy.fill(&mut channel).map_err(|e| End::lost(e.to_string()))?;
        let (stream, _) = connect(&target.peer).await.map_err(End::lost)?;
        let shaking = timeout(STALL_TIMEOUT, http1::handshake(TokioIo::new(stream))).await;
        let (sender, connection) = match shaking {
            Ok(Ok(connected)) => connected,
            Ok(Err(e)) => return Err(End::lost(format!("no HTTP with the collector: {e}"))),
            Err(_) => return Err(End::lost(silent())),
        };
        // Its errors come out of the requests.
        let driving = tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Client { target, sender, driving, authorization, channel: format::guid(channel) })
    }

    async fn post(&mut self, body: &Body) -> Result<Answer, End> {
        let answer = self.request(self.target.dialect.path(), body.bytes(), self.target.gzip).await?;
        let read = parse_answer(&self.target.dialect, answer.status.as_u16(), &answer.body, body.count());
        let ack = match read {
            Ok((answer, None)) => return Ok(answer),
            Ok((_, Some(ack))) => ack,
            Err(error) => return Err(End::Lost { reason: error.to_string(), wait: answer.wait }),
        };
        let asked = Instant::now();
        while asked.elapsed() < ACK_TIMEOUT {
            let question = format!("{{\"acks\":[{ack}]}}");
            let answer = self.request("/services/collector/ack", question.as_bytes(), false).await?;
            if format::acknowledged(answer.status, &answer.body, ack) {
                return Ok(Answer::Taken);
            }
            sleep(ACK_POLL).await;
        }
        Err(End::lost(format!("its indexers did not acknowledge within {ACK_TIMEOUT:?}")))
    }

    async fn request(&mut self, path: &str, body: &[u8], gzip: bool) -> Result<Raw, End> {
        let cannot = |e: &dyn std::fmt::Display| End::lost(format!("cannot ask the collector: {e}"));
        let mut request = Request::post(path)
            .header(HOST, &self.target.peer.address)
            .header(CONTENT_TYPE, self.target.dialect.content_type());
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.as_str());
        }
        if let Dialect::SplunkHec { indexer_ack: true, .. } = self.target.dialect {
            request = request.header("X-Splunk-Request-Channel", &self.channel);
        }
        let body = if gzip {
            request = request.header(CONTENT_ENCODING, "gzip");
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            std::io::Write::write_all(&mut encoder, body)
                .and_then(|()| encoder.finish())
                .map_err(|e| cannot(&e))?
        } else {
            body.to_vec()
        };
        let request = request.body(Full::new(Bytes::from(body))).map_err(|e| cannot(&e))?;
        let asking = async {
            self.sender.ready().await.map_err(|e| cannot(&e))?;
            let answer = self.sender.send_request(request).await.map_err(|e| cannot(&e))?;
            let status = answer.status();
            let wait = answer.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
            let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
            let body = body.map_err(|e| End::lost(format!("cannot read the collector's answer: {e}")))?;
            Ok(Raw { status, wait: Duration::from_secs(wait.unwrap_or(0)), body: body.to_bytes() })
        };
        timeout(STALL_TIMEOUT, asking).await.unwrap_or_else(|_| Err(End::lost(silent())))
    }
}

struct Raw {
    status: StatusCode,
    wait: Duration,
    body: Bytes,
}

fn silent() -> String {
    format!("it did not answer within {STALL_TIMEOUT:?}")
}

/// The value of the header `Authorization`.
async fn read_token(path: &std::path::Path, dialect: &Dialect) -> Result<Zeroizing<String>, String> {
    let shown = path.display();
    let bytes = async {
        let size = tokio::fs::metadata(path).await?.len();
        if size > TOKEN_MAX { Ok(None) } else { tokio::fs::read(path).await.map(Some) }
    };
    let bytes = bytes.await.map_err(|e: std::io::Error| format!("cannot read the token in {shown}: {e}"))?;
    let bytes = Zeroizing::new(bytes.unwrap_or_default());
    let token = std::str::from_utf8(&bytes).map(str::trim).unwrap_or_default();
    if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic()) {
        return Err(format!("{shown} holds no token: one word of at most {TOKEN_MAX} characters"));
    }
    Ok(Zeroizing::new(format!("{} {token}", dialect.scheme())))
}

/// An event with its index in the log.
type Indexed = (u64, Value);
