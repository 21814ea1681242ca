//! Bodies of requests, and what answers mean. No I/O.

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Dialect, Indexed};

/// How much of a collector's words is shown.
const SHOWN: usize = 200;

impl Dialect {
    pub(super) fn path(&self) -> &'static str {
        match self {
            Dialect::SplunkHec { .. } => "/services/collector/event",
            // Only what is looked at comes back.
            Dialect::Elasticsearch { .. } => {
                "/_bulk?filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason"
            }
        }
    }

    pub(super) fn content_type(&self) -> &'static str {
        match self {
            Dialect::SplunkHec { .. } => "application/json",
            Dialect::Elasticsearch { .. } => "application/x-ndjson",
        }
    }

    pub(super) fn scheme(&self) -> &'static str {
        match self {
            Dialect::SplunkHec { .. } => "Splunk",
            Dialect::Elasticsearch { .. } => "ApiKey",
        }
    }
}

/// The body of one request.
pub struct Body {
    bytes: Vec<u8>,
    count: usize,
}

impl Body {
    /// As many of the events as make `max` bytes, but one at least.
    pub fn new(dialect: &Dialect, host: &str, origin: &str, events: &[Indexed], max: usize) -> Body {
        let mut body = Body { bytes: Vec::new(), count: 0 };
        for (index, event) in events {
            let before = body.bytes.len();
            match dialect {
                Dialect::SplunkHec { index: into, .. } => {
                    // Whole seconds and milliseconds, exactly.
                    let time = event.get("time").and_then(Value::as_u64).unwrap_or_default();
                    let mut wrapped = json!({
                        "host": host,
                        "source": origin,
                        "sourcetype": "sekisho:ocsf",
                        "event": event,
                        "fields": { "log_index": index.to_string() },
                    });
                    wrapped["time"] = json!(format!("{}.{:03}", time / 1000, time % 1000));
                    if let Some(into) = into {
                        wrapped["index"] = json!(into);
                    }
                    audit::write_canonical(&wrapped, &mut body.bytes);
                }
                Dialect::Elasticsearch { index: into } => {
                    // The identifier makes a copy a conflict instead of a second document, and
                    // `create` is what a data stream takes.
                    let head = json!({ "create": { "_index": into, "_id": audit::uid(origin, *index) } });
                    audit::write_canonical(&head, &mut body.bytes);
                    body.bytes.push(b'\n');
                    let mut document = event.clone();
                    document["@timestamp"] = event.get("time").cloned().unwrap_or_default();
                    audit::write_canonical(&document, &mut body.bytes);
                }
            }
            body.bytes.push(b'\n');
            if body.bytes.len() > max && body.count > 0 {
                body.bytes.truncate(before);
                break;
            }
            body.count += 1;
        }
        body
    }

    /// What is sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many events that is.
    pub fn count(&self) -> usize {
        self.count
    }
}

/// What a collector did with a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// All of it is there.
    Taken,
    /// Some is not; the rest is.
    Parts {
        /// Places in the batch to be sent again.
        again: Vec<usize>,
        /// Places in the batch that it will never take, and why.
        rejected: Vec<(usize, String)>,
    },
    /// Too much at once.
    TooLarge,
}

/// Why an answer says nothing about single events: the whole batch is sent again, later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It does not know us.
    #[error(
        "the collector answers {0}: the token or the certificate is not accepted, or may not write there"
    )]
    Forbidden(StatusCode),
    /// It has no time, or is broken.
    #[error("the collector answers {status}: {said}")]
    Status {
        /// The status.
        status: StatusCode,
        /// What it says.
        said: String,
    },
    /// It says yes, but not to what was sent.
    #[error("the collector's answer makes no sense: {0}")]
    Senseless(&'static str),
}

#[derive(Deserialize)]
struct HecAnswer {
    code: u32,
    #[serde(rename = "ackId")]
    ack: Option<u64>,
    #[serde(rename = "invalid-event-number")]
    invalid: Option<usize>,
    #[serde(default)]
    text: String,
}

#[derive(Deserialize)]
struct BulkAnswer {
    errors: bool,
    #[serde(default)]
    items: Vec<BulkItem>,
}

#[derive(Deserialize)]
struct BulkItem {
    create: BulkResult,
}

#[derive(Deserialize)]
struct BulkResult {
    status: u16,
    error: Option<BulkError>,
}

#[derive(Deserialize)]
struct BulkError {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    reason: String,
}

/// What an answer says about a batch of `count` events; with the number of Splunk's acknowledgement
/// that is to be waited for, if it gives one.
pub fn parse_answer(
    dialect: &Dialect,
    status: u16,
    body: &[u8],
    count: usize,
) -> Result<(Answer, Option<u64>), AnswerError> {
    let status =
        StatusCode::from_u16(status).map_err(|_| AnswerError::Senseless("it has no status of HTTP"))?;
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(AnswerError::Forbidden(status)),
        StatusCode::PAYLOAD_TOO_LARGE => return Ok((Answer::TooLarge, None)),
        _ => {}
    }
    match dialect {
        Dialect::SplunkHec { indexer_ack, .. } => hec(*indexer_ack, status, body, count),
        Dialect::Elasticsearch { .. } => bulk(status, body, count).map(|answer| (answer, None)),
    }
}

/// Whether Splunk's indexers have the batch with the number `ack`.
pub(super) fn acknowledged(status: StatusCode, body: &[u8], ack: u64) -> bool {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    status.is_success() && answer.pointer(&format!("/acks/{ack}")) == Some(&json!(true))
}

/// A random UUID (RFC 9562, version 4), as HEC wants its channels named.
pub(super) fn guid(mut random: [u8; 16]) -> String {
    random[6] = (random[6] & 0x0f) | 0x40;
    random[8] = (random[8] & 0x3f) | 0x80;
    let hex: String = random.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn hec(
    indexer_ack: bool,
    status: StatusCode,
    body: &[u8],
    count: usize,
) -> Result<(Answer, Option<u64>), AnswerError> {
    let answer: Option<HecAnswer> = serde_json::from_slice(body).ok();
    match (status, answer) {
        (StatusCode::OK, Some(HecAnswer { code: 0, ack, .. })) => match (indexer_ack, ack) {
            (true, None) => {
                Err(AnswerError::Senseless("no ackId: acknowledgement is not switched on for the token"))
            }
            (true, ack) => Ok((Answer::Taken, ack)),
            (false, _) => Ok((Answer::Taken, None)),
        },
        // One event is not to its taste; those before it were taken, and are sent again all the same.
        (StatusCode::BAD_REQUEST, Some(HecAnswer { invalid: Some(place), text, .. })) if place < count => {
            let again = (0..count).filter(|other| *other != place).collect();
            Ok((Answer::Parts { again, rejected: vec![(place, shown(&text))] }, None))
        }
        (StatusCode::OK, _) => Err(AnswerError::Senseless("a 200 that is no success")),
        _ => Err(AnswerError::Status { status, said: shown(&String::from_utf8_lossy(body)) }),
    }
}

fn bulk(status: StatusCode, body: &[u8], count: usize) -> Result<Answer, AnswerError> {
    if status != StatusCode::OK {
        return Err(AnswerError::Status { status, said: shown(&String::from_utf8_lossy(body)) });
    }
    let answer: BulkAnswer =
        serde_json::from_slice(body).map_err(|_| AnswerError::Senseless("not what _bulk answers"))?;
    if answer.items.len() != count {
        return Err(AnswerError::Senseless("it speaks of another number of events"));
    }
    let (mut again, mut rejected) = (Vec::new(), Vec::new());
    for (place, BulkItem { create }) in answer.items.into_iter().enumerate() {
        match create.status {
            // A conflict: it is there already, from an earlier attempt.
            200..300 | 409 => {}
            429 | 500.. => again.push(place),
            // The stream is missing or closed for writing: somebody has to act, nothing is dropped.
            401 | 403 | 404 => {
                let said = create.error.map_or_else(String::new, |e| format!("{}: {}", e.kind, e.reason));
                let status = StatusCode::from_u16(create.status).unwrap_or_default();
                return Err(AnswerError::Status { status, said: shown(&said) });
            }
            _ => {
                let said = create.error.map_or_else(String::new, |e| format!("{}: {}", e.kind, e.reason));
                rejected.push((place, shown(&said)));
            }
        }
    }
    match (again.is_empty() && rejected.is_empty(), answer.errors) {
        (true, _) => Ok(Answer::Taken),
        (false, true) => Ok(Answer::Parts { again, rejected }),
        (false, false) => Err(AnswerError::Senseless("no errors, and yet events that were not taken")),
    }
}

fn shown(said: &str) -> String {
    said.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
