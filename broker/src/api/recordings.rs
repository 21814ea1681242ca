//! Recordings of sessions: the rules for making them, a list, a search, and one of them whole.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream::unfold;
use gate::{Entry, RecordingChange};
use model::{PersonId, SessionId, StudyId, Timestamp};
use policy::{RecordingMode, RecordingRule};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{KeptState, KeptSubject, Recording, RecordingFilter};

use super::Api;
use super::answer::{Answer, Asked, Fault};
use super::caller::ThePerson;
use crate::keeping::fetch::FetchError;
use crate::recordings::vault::{RetrieveError, Retriever};
use crate::recordings::{ReadError, Searched};

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
    let Some(text) = text else {
        return Ok(Answer(json!({ "recordings": placed(&api, found).await? })));
    };
    if text.trim().is_empty() || text.len() > TEXT {
        return Err(Fault::malformed(format!("A text to search for has 1 to {TEXT} bytes.")));
    }
    let searched = api.services.recordings.search(found, &text, api.retriever(&by)).await;
    let Searched { found, fetched, skipped } = searched;
    // What is found is shown only once it is on record that it was looked for.
    api.services.gate.recordings_searched(&by, &text, found.len() as u64).await?;
    Ok(Answer(json!({ "recordings": found, "fetched": fetched, "not_searched": skipped })))
}

impl Api {
    fn retriever<'a>(&'a self, by: &'a Entry) -> Retriever<'a> {
        Retriever { gate: &self.services.gate, keeping: &self.services.keeping, by }
    }
}

/// Recordings, each with where it lies: `here` on the broker, `vault` as secret shares, or both.
async fn placed(api: &Api, found: Vec<Recording>) -> Result<Vec<Value>, Fault> {
    let subject =
        |recording: &Recording| KeptSubject::SessionRecording { session: recording.session.clone() };
    let subjects: Vec<_> = found.iter().map(subject).collect();
    let kept = api.services.gate.kept().among(&subjects).await?;
    let kept: HashMap<_, _> = kept.into_iter().map(|kept| (kept.subject, kept.state)).collect();
    let lies = |recording: &Recording| match kept.get(&subject(recording)) {
        None | Some(KeptState::Pending | KeptState::Stored { .. }) => "here",
        Some(KeptState::Kept { .. }) => "both",
        Some(KeptState::Moving { .. } | KeptState::Moved { .. }) => "vault",
    };
    let row = |recording: Recording| {
        let mut row = json!(recording);
        row["lies"] = json!(lies(&recording));
        row
    };
    Ok(found.into_iter().map(row).collect())
}

/// One whole, as asciicast; from the vault where it is not here. A body that ends early is not whole, and
/// was not found to be what the log has sealed.
pub(super) async fn play(
    State(api): House,
    ThePerson(by): ThePerson,
    Path(session): Path<SessionId>,
) -> Result<Response, Fault> {
    let permit = api.services.gate.play_recording(&by, &session).await?;
    let recording = &permit.action().recording;
    let (mut pieces, lies) = match api.services.recordings.show(recording).await {
        Err(ReadError::NotHere) => {
            let fetched = api.services.recordings.retrieve(recording, api.retriever(&by)).await;
            (fetched.map_err(not_fetched)?, "vault")
        }
        shown => (shown.map_err(unreadable)?, "here"),
    };
    // What fails before anything came is an answer; what fails later breaks the body off.
    let first = match pieces.recv().await {
        Some(Err(error)) => return Err(unreadable(error)),
        first => first.and_then(Result::ok).unwrap_or_default(),
    };
    let hash = data_encoding::HEXLOWER.encode(&recording.sha256);
    let headers = [
        (header::CONTENT_TYPE, "application/x-asciicast".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::CONTENT_LENGTH, recording.bytes.to_string()),
        (header::HeaderName::from_static("x-sekisho-sha256"), hash),
        (header::HeaderName::from_static("x-sekisho-lies"), lies.to_owned()),
    ];
    // The permit goes along: what it lets somebody see ends with it.
    let body = unfold((Some(first), pieces, permit), async |(first, mut pieces, permit)| {
        if let Some(first) = first {
            return Some((Ok(first), (None, pieces, permit)));
        }
        let next = tokio::select! {
            biased;
            cause = permit.ended() => Some(Err(std::io::Error::other(cause.message))),
            next = pieces.recv() => next.map(|piece| piece.map_err(std::io::Error::other)),
        };
        next.map(|piece| (piece, (None, pieces, permit)))
    });
    Ok((headers, Body::from_stream(body)).into_response())
}

fn not_fetched(error: RetrieveError) -> Fault {
    match error {
        RetrieveError::Refused(refusal) => refusal.into(),
        RetrieveError::Read(error) => unreadable(error),
    }
}

fn unreadable(error: ReadError) -> Fault {
    tracing::error!(%error, "a recording cannot be shown");
    match error {
        ReadError::Vault(error) => Fault::new(
            match error {
                FetchError::Lost | FetchError::Ended(_) => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::BAD_GATEWAY,
            },
            "fetch_failed",
            format!("The recording lies in the vault, and could not be had back: {error}."),
        ),
        ReadError::Altered => Fault::new(
            StatusCode::CONFLICT,
            "recording-altered",
            "The file of this recording is not the one that the audit log has sealed. It is not shown; tell the security staff.",
        ),
        ReadError::NotHere | ReadError::Io(_) | ReadError::Sealed(_) => Fault::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "recording-unreadable",
            "The recording cannot be read at the moment. Please tell the operators.",
        ),
    }
}
