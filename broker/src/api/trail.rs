//! The audit log as C2SP tlog-tiles serves it, under `/log`.
//!
//! The checkpoint and the tiles of hashes are for everybody: whoever has the log's key can check with
//! them that nothing was changed, and learns no more than how many entries there are. A bundle of
//! entries says who did what; it is given to those who may read the log, and that is recorded.

use std::sync::Arc;

use audit::TilePath;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Api;
use super::answer::Fault;
use super::caller::ThePerson;

/// What never changes may be kept for ever, by anybody.
const FOREVER: &str = "public, max-age=31536000, immutable";
/// What not everybody may read is kept by nobody in between.
const NEVER: &str = "no-store";

/// `GET /log/checkpoint`
pub(super) async fn checkpoint(State(api): State<Arc<Api>>) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, NEVER)];
    (headers, api.services.gate.log().checkpoint()).into_response()
}

/// `GET /log/tile/…`
pub(super) async fn tile(
    State(api): State<Arc<Api>>,
    Path(rest): Path<String>,
    mut parts: Parts,
) -> Result<Response, Fault> {
    let name = format!("tile/{rest}");
    let path = TilePath::parse(&name).ok_or_else(absent)?;
    if path.is_entries() {
        let ThePerson(by) = ThePerson::from_request_parts(&mut parts, &api).await?;
        api.services.gate.read_audit(&by, &name).await?;
    }
    let log = api.services.gate.log().clone();
    let read = tokio::task::spawn_blocking(move || log.published(path)).await;
    let bytes = match read {
        Ok(Ok(Some(bytes))) => bytes,
        Ok(Ok(None)) if path.is_entries() => {
            let log = api.services.gate.log();
            let moved = log.local_from().is_ok_and(|from| path.needs().is_some_and(|needed| needed <= from));
            return Err(if moved { in_the_vault() } else { absent() });
        }
        Ok(Ok(None)) => return Err(absent()),
        Ok(Err(error)) => return Err(unreadable(&error)),
        Err(error) => return Err(unreadable(&error)),
    };
    let kept = if path.is_entries() { NEVER } else { FOREVER };
    let headers = [(header::CONTENT_TYPE, "application/octet-stream"), (header::CACHE_CONTROL, kept)];
    Ok((headers, bytes).into_response())
}

fn absent() -> Fault {
    Fault::new(
        StatusCode::NOT_FOUND,
        "not_found",
        "The last checkpoint covers no such tile, or a wider one has taken its place.",
    )
}

fn in_the_vault() -> Fault {
    Fault::new(
        StatusCode::GONE,
        "moved",
        "These entries were moved to the vault. `sekisho audit fetch` has them back; their hashes are still here.",
    )
}

fn unreadable(error: &dyn std::error::Error) -> Fault {
    tracing::error!(%error, "the audit log cannot be read");
    Fault::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "The audit log cannot be read at the moment.")
}
