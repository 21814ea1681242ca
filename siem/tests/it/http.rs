//! HTTPS batches against a small collector that checks what it gets, and misbehaves when told to.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use siem::{Dialect, HttpTarget, Target, TlsSource};

use crate::support::*;

/// What the collector does with a request instead of taking it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mood {
    /// 500.
    Broken,
    /// 429 and `Retry-After: 1`.
    Busy,
    /// 200 with a body that is no answer.
    Babbling,
    /// 200 that speaks of another number of events, or of no success.
    Lying,
    /// Takes it and closes the connection without an answer.
    Gone,
    /// Takes the even ones, has no room for the odd ones.
    Partly,
    /// Will never take the first one.
    Picky,
    /// 413.
    Small,
    /// An endless answer.
    Endless,
}

#[derive(Default)]
struct State {
    /// By identifier: how often it came, and the document.
    got: BTreeMap<String, (u32, Value)>,
    moods: VecDeque<Mood>,
    faults: Vec<String>,
    requests: u32,
    acks: u64,
    polled: u32,
    largest: usize,
}

/// A strict reader of what the two dialects may send.
fn documents(path: &str, body: &[u8]) -> Result<Vec<(String, Value)>, String> {
    let text = std::str::from_utf8(body).map_err(|e| e.to_string())?;
    if !text.ends_with('\n') {
        return Err("the body does not end with a line feed".to_owned());
    }
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).map_err(|e| format!("{e}: {line}")))
        .collect::<Result<_, _>>()?;
    if path == "/services/collector/event" {
        let known = ["event", "fields", "host", "index", "source", "sourcetype", "time"];
        return lines
            .into_iter()
            .map(|line| {
                let fields = line.as_object().ok_or("no object")?;
                if let Some(unknown) = fields.keys().find(|key| !known.contains(&key.as_str())) {
                    return Err(format!("HEC knows no {unknown}"));
                }
                let time = line["time"].as_str().and_then(|t| t.parse::<f64>().ok()).ok_or("no time")?;
                if time * 1000.0 != line["event"]["time"].as_f64().ok_or("no event time")? {
                    return Err(format!("the time {time} is not the event's"));
                }
                if !line["fields"].as_object().is_some_and(|f| f.values().all(Value::is_string)) {
                    return Err("indexed fields are texts".to_owned());
                }
                let uid = line["event"]["metadata"]["uid"].as_str().ok_or("no uid")?.to_owned();
                Ok((uid, line["event"].clone()))
            })
            .collect();
    }
    if !lines.len().is_multiple_of(2) {
        return Err("an action without a document".to_owned());
    }
    let pairs = lines.chunks(2).map(|pair| {
        let action = pair[0].as_object().filter(|a| a.len() == 1).ok_or("not one action")?;
        let create = action.get("create").and_then(Value::as_object).ok_or("not create")?;
        if create.get("_index") != Some(&json!("logs-sekisho")) || create.len() != 2 {
            return Err(format!("create with {create:?}"));
        }
        let id = create.get("_id").and_then(Value::as_str).ok_or("no _id")?;
        if pair[1]["metadata"]["uid"] != id || !pair[1]["@timestamp"].is_u64() {
            return Err(format!("{id} has another document, or no @timestamp"));
        }
        Ok((id.to_owned(), pair[1].clone()))
    });
    pairs.collect()
}

type Shared = Arc<Mutex<State>>;

fn answer(status: u16, body: &Value) -> Response<Full<Bytes>> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    Response::builder().status(status).body(Full::new(Bytes::from(body))).unwrap()
}

async fn serve(
    state: Shared,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let (head, body) = request.into_parts();
    let mut body = body.collect().await.map_err(std::io::Error::other)?.to_bytes().to_vec();
    if head.headers.get("content-encoding").is_some_and(|v| v == "gzip") {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain)?;
        body = plain;
    }
    let path = head.uri.path();
    let hec = path.starts_with("/services/");
    let mut state = state.lock().unwrap();
    state.requests += 1;
    state.largest = state.largest.max(body.len());
    let authorized = if hec { "Splunk token-of-test" } else { "ApiKey token-of-test" };
    if head.headers.get("authorization").is_none_or(|v| v != authorized) {
        return Ok(answer(401, &json!({ "text": "Invalid token", "code": 4 })));
    }
    let kind = if hec { "application/json" } else { "application/x-ndjson" };
    if head.method != Method::POST || head.headers.get("content-type").is_none_or(|v| v != kind) {
        state.faults.push(format!("{} {path} with {:?}", head.method, head.headers));
    }
    if path == "/services/collector/ack" {
        if head.headers.get("x-splunk-request-channel").is_none_or(|v| v.len() != 36) {
            state.faults.push("no channel".to_owned());
        }
        state.polled += 1;
        // Each acknowledgement is there at the second question.
        let asked: Value = serde_json::from_slice(&body).unwrap();
        let ack = asked["acks"][0].as_u64().unwrap();
        let done = state.polled.is_multiple_of(2);
        return Ok(answer(200, &json!({ "acks": { (ack.to_string()): done } })));
    }
    if !["/services/collector/event", "/_bulk"].contains(&path) {
        state.faults.push(format!("asked for {path}"));
        return Ok(answer(404, &Value::Null));
    }
    let documents = match documents(path, &body) {
        Ok(documents) => documents,
        Err(fault) => {
            state.faults.push(fault);
            return Ok(answer(400, &json!({ "text": "Invalid data format", "code": 6 })));
        }
    };
    let mood = state.moods.pop_front();
    let takes = |place: usize| match mood {
        None | Some(Mood::Gone) => true,
        Some(Mood::Partly) => place.is_multiple_of(2),
        Some(Mood::Picky) => place != 0 && !hec,
        Some(_) => false,
    };
    let mut items = Vec::new();
    let count = documents.len();
    for (place, (id, document)) in documents.into_iter().enumerate() {
        if takes(place) {
            let known = state.got.entry(id).or_insert((0, document));
            known.0 += 1;
            items.push(json!({ "create": { "status": if known.0 == 1 { 201 } else { 409 }, "error": { "type": "x", "reason": "y" } } }));
        } else if mood == Some(Mood::Picky) {
            items.push(json!({ "create": { "status": 400, "error": { "type": "document_parsing_exception", "reason": "no" } } }));
        } else {
            items.push(json!({ "create": { "status": 429, "error": { "type": "es_rejected_execution_exception" } } }));
        }
    }
    state.acks += 1;
    let ack = state.acks;
    match mood {
        Some(Mood::Gone) => Err(std::io::Error::other("gone")),
        Some(Mood::Broken) => Ok(answer(500, &json!({ "text": "Internal server error", "code": 8 }))),
        Some(Mood::Busy) => {
            let mut busy = answer(429, &json!({ "text": "Server is busy", "code": 9 }));
            busy.headers_mut().insert("retry-after", "1".parse().unwrap());
            Ok(busy)
        }
        Some(Mood::Babbling) => Ok(answer(200, &json!("<html>"))),
        Some(Mood::Lying) if hec => Ok(answer(200, &json!({ "text": "No data", "code": 5 }))),
        Some(Mood::Lying) => Ok(answer(200, &json!({ "errors": false, "items": [] }))),
        Some(Mood::Small) => Ok(answer(413, &Value::Null)),
        Some(Mood::Endless) => Ok(answer(200, &json!("x".repeat(3 << 20)))),
        Some(Mood::Picky) if hec => {
            Ok(answer(400, &json!({ "text": "Invalid data format", "code": 6, "invalid-event-number": 0 })))
        }
        Some(Mood::Partly) if hec => Ok(answer(503, &json!({ "text": "Server is busy", "code": 9 }))),
        _ if hec => Ok(answer(200, &json!({ "text": "Success", "code": 0, "ackId": ack }))),
        _ => {
            let errors = items.iter().any(|item| item["create"]["status"] != 201);
            assert_eq!(items.len(), count);
            Ok(answer(200, &json!({ "errors": errors, "items": items })))
        }
    }
}

async fn collector(authority: &Authority, moods: &[Mood]) -> (u16, Shared) {
    let server = authority.server(&authority.issue("collector.test"));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let state = Arc::new(Mutex::new(State { moods: moods.iter().copied().collect(), ..State::default() }));
    let shared = Arc::clone(&state);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (server, state) = (Arc::clone(&server), Arc::clone(&shared));
            tokio::spawn(async move {
                let Ok(stream) = tokio_rustls::TlsAcceptor::from(server).accept(stream).await else { return };
                let service = service_fn(move |request| serve(Arc::clone(&state), request));
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (port, state)
}

fn target(port: u16, authority: &Authority, dir: &Path, dialect: Dialect, gzip: bool) -> Target {
    let token = dir.join("token");
    std::fs::write(&token, "token-of-test\n").unwrap();
    let client = authority.client(Some(&authority.issue("siem.test")));
    let tls: TlsSource = Arc::new(move || Ok(Arc::clone(&client)));
    Target::Http(HttpTarget { peer: peer(port, tls), dialect, token: Some(token), gzip })
}

fn bulk() -> Dialect {
    Dialect::Elasticsearch { index: "logs-sekisho".to_owned() }
}

fn hec(indexer_ack: bool) -> Dialect {
    Dialect::SplunkHec { index: Some("security".to_owned()), indexer_ack }
}

/// All events are there, each of them what it was, and nothing was sent that is not allowed.
fn has_all(state: &Shared, events: usize) {
    let state = state.lock().unwrap();
    assert_eq!(state.faults, [""; 0]);
    for index in 0..events {
        let (_, event) = &state.got[&format!("sekisho.test/audit/{index}")];
        assert_eq!(event["metadata"]["sequence"], index);
        assert_eq!(event["class_uid"], 6003);
    }
    assert_eq!(state.got.len(), events);
    assert!(state.moods.is_empty());
}

const MOODS: [Mood; 7] =
    [Mood::Broken, Mood::Small, Mood::Partly, Mood::Gone, Mood::Lying, Mood::Babbling, Mood::Endless];

async fn all_arrives(dialect: Dialect, gzip: bool, moods: &[Mood], events: usize) -> Shared {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (port, state) = collector(&authority, moods).await;
    let log = open_log(dir.path());
    fill(&log, events).await;
    let mut feed = start(&log, dir.path(), target(port, &authority, dir.path(), dialect, gzip));
    let status = feed.until(|s| s.delivered == events as u64).await;
    assert_eq!((status.rejected, status.lag), (0, 0));
    // What comes later comes too.
    fill(&log, 5).await;
    feed.until(|s| s.delivered == events as u64 + 5).await;
    feed.stop().await;
    has_all(&state, events + 5);
    log.close().await;
    state
}

#[tokio::test]
async fn bulk_takes_20_000_events() {
    let state = all_arrives(bulk(), true, &[], 20_000).await;
    let state = state.lock().unwrap();
    assert!(state.got.values().all(|(times, _)| *times == 1) && state.largest <= 1 << 20);
}

#[tokio::test]
async fn bulk_that_misbehaves_gets_all() {
    all_arrives(bulk(), false, &MOODS, 1500).await;
}

#[tokio::test]
async fn hec_takes_20_000_events() {
    let state = all_arrives(hec(false), true, &[], 20_000).await;
    assert!(state.lock().unwrap().got.values().all(|(times, _)| *times == 1));
}

#[tokio::test]
async fn hec_that_misbehaves_gets_all_and_acknowledges() {
    let state = all_arrives(hec(true), false, &MOODS, 1500).await;
    assert!(state.lock().unwrap().polled > 2);
}

#[tokio::test]
async fn what_is_never_taken_is_counted_and_left_behind() {
    for dialect in [bulk(), hec(false)] {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let (port, state) = collector(&authority, &[Mood::Picky]).await;
        let log = open_log(dir.path());
        fill(&log, 10).await;
        let mut feed = start(&log, dir.path(), target(port, &authority, dir.path(), dialect, false));
        let status = feed.until(|s| s.delivered == 10).await;
        assert_eq!((status.rejected, status.last_rejected.unwrap().0), (1, 0));
        feed.stop().await;
        let state = state.lock().unwrap();
        assert_eq!(state.got.len(), 9);
        assert!(!state.got.contains_key("sekisho.test/audit/0"));
    }
}

#[tokio::test]
async fn a_busy_collector_is_left_alone_as_long_as_it_asks() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (port, state) = collector(&authority, &[Mood::Busy]).await;
    let log = open_log(dir.path());
    fill(&log, 10).await;
    let began = std::time::Instant::now();
    let mut feed = start(&log, dir.path(), target(port, &authority, dir.path(), bulk(), false));
    feed.until(|s| s.last_error.as_ref().is_some_and(|e| e.contains("429"))).await;
    feed.until(|s| s.delivered == 10).await;
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(state.lock().unwrap().requests, 2);
    feed.stop().await;
}

#[tokio::test]
async fn a_token_that_is_not_accepted_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (port, state) = collector(&authority, &[]).await;
    let log = open_log(dir.path());
    fill(&log, 10).await;
    let target = target(port, &authority, dir.path(), bulk(), false);
    std::fs::write(dir.path().join("token"), "wrong").unwrap();
    let mut feed = start(&log, dir.path(), target);
    let refused = feed.until(|s| s.last_error.is_some()).await;
    assert!(refused.last_error.unwrap().contains("not accepted"));
    std::fs::write(dir.path().join("token"), "token-of-test").unwrap();
    feed.until(|s| s.delivered == 10).await;
    feed.stop().await;
    has_all(&state, 10);
}
