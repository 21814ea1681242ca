//! How the node is, for machines.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use gate::AcceptState;
use model::metrics::CONTENT_TYPE as METRICS;
use model::observed::CheckState;
use serde::Deserialize;
use serde_json::{Value, json};
use vitals::Vitals;

use super::Api;
use super::answer::{Answer, Asked, Fault};
use super::caller::{ThePerson, TheService};
use crate::telling::Telling;

/// Whether the node works, for anybody: it names nobody and nothing of the house.
pub(super) async fn health(State(api): State<Arc<Api>>) -> Response {
    let health = Telling(Arc::clone(&api.services)).health();
    let status = StatusCode::from_u16(health.http_status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    (status, axum::Json(health)).into_response()
}

/// Figures, for a service of the house that has a certificate.
pub(super) async fn metrics(State(api): State<Arc<Api>>, _: TheService) -> Response {
    ([(CONTENT_TYPE, METRICS)], vitals::figures(&Telling(Arc::clone(&api.services)))).into_response()
}

/// A state, by the digits that stand for it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Accepted {
    state: String,
}

/// The state of a process and its host is the one that was meant. It shows so a moment later.
pub(super) async fn accept(
    State(api): State<Arc<Api>>,
    ThePerson(by): ThePerson,
    Path(process): Path<String>,
    Asked(Accepted { state }): Asked<Accepted>,
) -> Result<Answer<Value>, Fault> {
    let permit = api.services.gate.accept_state(&by, AcceptState { process, state }).await?;
    let accepted = api.services.hub.accept(&permit).await;
    accepted.map_err(|error| Fault::new(StatusCode::CONFLICT, "conflict", format!("{error}.")))?;
    let AcceptState { process, state } = permit.action();
    Ok(Answer(json!({ "process": process, "state": state })))
}

/// How the broker, the agents and their hosts are, for those who answer for them: a row for each check,
/// the worst first.
pub(super) async fn diagnostics(
    State(api): State<Arc<Api>>,
    ThePerson(by): ThePerson,
) -> Result<axum::Json<Vec<Value>>, Fault> {
    api.services.gate.read_diagnostics(&by).await?;
    let mut rows = Vec::new();
    for (process, at, diagnosis) in api.services.hub.diagnoses.all() {
        for check in diagnosis.checks {
            let row = json!({
                "process": process,
                "check": check.name,
                "state": check.state.code(),
                "detail": check.detail,
                "told": at,
            });
            rows.push((check.state, row));
        }
        for fact in diagnosis.facts {
            let row = json!({
                "process": process,
                "check": fact.name,
                "state": Value::Null,
                "detail": fact.value,
                "told": at,
            });
            rows.push((CheckState::Ok, row));
        }
    }
    rows.sort_by_key(|(state, _)| std::cmp::Reverse(*state));
    Ok(axum::Json(rows.into_iter().map(|(_, row)| row).collect()))
}
