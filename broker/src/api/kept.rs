//! The house's own records in the vault: which there are, and one of them back.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::ObjectId;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Api;
use super::answer::{Answer, Fault};
use super::caller::ThePerson;

/// Which entries of the log are asked about.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Range {
    #[serde(default)]
    from: u64,
    to: Option<u64>,
}

/// `GET /v1/kept?from=…&to=…`: parts of the log with entries from `from` to before `to`, and recordings.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    ThePerson(by): ThePerson,
    Query(Range { from, to }): Query<Range>,
) -> Result<Answer<impl Serialize>, Fault> {
    let to = to.unwrap_or(u64::MAX);
    let (segments, recordings) = api.services.gate.kept_records(&by, from, to).await?;
    let status = api.services.keeping.status();
    let log = api.services.gate.log();
    Ok(Answer(json!({
        "segments": segments,
        "recordings": recordings,
        "kept": status.kept,
        "waiting": status.waiting,
        "local_from": status.local_from,
        "last_error": status.last_error,
        "held_back": status.held_back,
        "log": log.origin(),
    })))
}

/// `GET /v1/kept/{object}`: the file that a record is, as it was kept. A body that ends early is not
/// whole, and was not found to be what was kept.
pub(super) async fn fetch(
    State(api): State<Arc<Api>>,
    ThePerson(by): ThePerson,
    Path(object): Path<ObjectId>,
) -> Result<Response, Fault> {
    if api.services.hub.choose().is_none() {
        return Err(Fault::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "no_agent",
            "No host that could hand it out is connected at the moment. Try again in a few minutes.",
        ));
    }
    let permit = api.services.gate.fetch_record(&by, &object).await?;
    let size = permit.action().file.size;
    let mut pieces = api.services.keeping.fetch(permit);
    // What fails before anything came is an answer; what fails later breaks the body off.
    let first = match pieces.recv().await {
        Some(Ok(first)) => first,
        Some(Err(error)) => {
            return Err(Fault::new(StatusCode::BAD_GATEWAY, "fetch_failed", format!("{object}: {error}.")));
        }
        None => bytes::Bytes::new(),
    };
    let rest = futures::stream::unfold(pieces, |mut pieces| async move {
        pieces.recv().await.map(|piece| (piece, pieces))
    });
    let all = futures::StreamExt::chain(futures::stream::once(async move { Ok(first) }), rest);
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::CONTENT_LENGTH, size.to_string()),
    ];
    Ok((headers, Body::from_stream(all)).into_response())
}
