//! Recordings of sessions: the rules for making them, a list, a search, and one of them whole.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream::unfold;
use gate::RecordingChange;
use model::{PersonId, SessionId, StudyId, Timestamp};
use policy::{RecordingMode, RecordingRule};
use serde::Deserialize;
use serde_json::{Value, json};
use store::RecordingFilter;

use super::Api;
use super::answer::{Answer, Asked, Fault};
use super::caller::ThePerson;
use crate::recordings::ReadError;

type Done = Result<Answer<Value>, Fault>;
type House = State<Arc<Api>>;

/// The longest text that is searched for, in bytes.
const TEXT: usize = 256;

/// `POST /v1/studies/{study}/recording`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
pub struct Rule {
    mode: Option<RecordingMode>,
    input: Option<bool>,
    commands: Option<bool>,
    limit_mib: Option<u32>,
    lead: Option<bool>,
}

/// `GET /v1/recordings?…`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wanted {
    person: Option<PersonId>,
    study: Option<StudyId>,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    text: Option<String>,
}

pub(super) async fn rule(State(api): House, ThePerson(by): ThePerson, Path(study): Path<StudyId>) -> Done {
    let rule = api.services.gate.recording_rule(&by, &study).await?;
    Ok(Answer(told(&study, rule)))
}

pub(super) async fn set_rule(
    State(api): House,
    ThePerson(by): ThePerson,
    Path(study): Path<StudyId>,
    Asked(Rule { mode, input, commands, limit_mib, lead }): Asked<Rule>,
) -> Done {
    let change = RecordingChange { mode, input, commands, limit_mib, lead };
    let rule = api.services.gate.set_recording(&by, &study, change).await?;
    Ok(Answer(told(&study, rule)))
}

fn told(study: &StudyId, rule: RecordingRule) -> Value {
    let mut told = json!(rule);
    told["study"] = json!(study);
    told
}

/// A list; with `text`, of those in which it was to be read, each with some of the lines.
pub(super) async fn list(
    State(api): House,
    ThePerson(by): ThePerson,
    wanted: Result<Query<Wanted>, axum::extract::rejection::QueryRejection>,
) -> Done {
    let Query(wanted) = wanted.map_err(|e| Fault::malformed(format!("The request cannot be read: {e}.")))?;
    let Wanted { person, study, from, to, text } = wanted;
    let found = api.services.gate.recordings(&by, &RecordingFilter { person, study, from, to }).await?;
    let Some(text) = text else { return Ok(Answer(json!({ "recordings": found }))) };
    if text.trim().is_empty() || text.len() > TEXT {
        return Err(Fault::malformed(format!("A text to search for has 1 to {TEXT} bytes.")));
    }
    let (found, skipped) = api.services.recordings.search(found, &text).await;
    // What is found is shown only once it is on record that it was looked for.
    api.services.gate.recordings_searched(&by, &text, found.len() as u64).await?;
    Ok(Answer(json!({ "recordings": found, "not_searched": skipped })))
}

/// One whole, as asciicast.
pub(super) async fn play(
    State(api): House,
    ThePerson(by): ThePerson,
    Path(session): Path<SessionId>,
) -> Result<Response, Fault> {
    let permit = api.services.gate.play_recording(&by, &session).await?;
    let recording = &permit.action().recording;
    let pieces = api.services.recordings.show(recording).await.map_err(unreadable)?;
    let hash = data_encoding::HEXLOWER.encode(&recording.sha256);
    let headers = [
        (header::CONTENT_TYPE, "application/x-asciicast".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::CONTENT_LENGTH, recording.bytes.to_string()),
        (header::HeaderName::from_static("x-sekisho-sha256"), hash),
    ];
    // The permit goes along: what it lets somebody see ends with it.
    let body = unfold((pieces, permit), async |(mut pieces, permit)| {
        let next = tokio::select! {
            biased;
            cause = permit.ended() => Some(Err(std::io::Error::other(cause.message))),
            next = pieces.recv() => next.map(|piece| piece.map_err(std::io::Error::other)),
        };
        next.map(|piece| (piece, (pieces, permit)))
    });
    Ok((headers, Body::from_stream(body)).into_response())
}

fn unreadable(error: ReadError) -> Fault {
    tracing::error!(%error, "a recording cannot be shown");
    match error {
        ReadError::Altered => Fault::new(
            StatusCode::CONFLICT,
            "recording-altered",
            "The file of this recording is not the one that the audit log has sealed. It is not shown; tell the security staff.",
        ),
        ReadError::Io(_) | ReadError::Sealed(_) => Fault::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "recording-unreadable",
            "The recording cannot be read at the moment. Please tell the operators.",
        ),
    }
}
