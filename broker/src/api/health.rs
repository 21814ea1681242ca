//! How the node is, for machines.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use gate::AcceptState;
use model::metrics::{CONTENT_TYPE as METRICS, Exposition, Health, Kind, State as Condition};
use model::observed::CheckState;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::answer::{Answer, Asked, Fault};
use super::caller::{ThePerson, TheService};
use crate::diagnoses;

/// Whether the node works, for anybody: it names nobody and nothing of the house.
pub(super) async fn health(State(api): State<Arc<Api>>) -> Response {
    let services = &api.services;
    let mut health = Health::new("broker", env!("CARGO_PKG_VERSION"));
    let log = services.gate.log();
    match log.failure() {
        None => health.check("audit_log", Condition::Ok, None),
        Some(_) => health.check("audit_log", Condition::Failed, Some("takes no records".to_owned())),
    };
    let agents = services.hub.connected().len();
    // A node without agents still answers people; they are told when they want to work.
    health.check("agents", Condition::Ok, Some(format!("{agents} connected")));
    let diagnoses = services.hub.diagnoses.all();
    let ill = diagnoses.iter().filter(|(_, _, diagnosis)| diagnosis.state() == CheckState::Failed).count();
    let condition = if ill > 0 { Condition::Degraded } else { Condition::Ok };
    let detail = (ill > 0).then(|| format!("{ill} of {} hosts are not as they should be", diagnoses.len()));
    health.check("diagnosis", condition, detail);
    let (mut sinks, mut behind) = (0, 0);
    for (_, _, failing) in services.sinks.states() {
        sinks += 1;
        behind += u32::from(failing);
    }
    let condition = if behind > 0 { Condition::Degraded } else { Condition::Ok };
    health.check(
        "siem",
        condition,
        (behind > 0).then(|| format!("{behind} of {sinks} collectors are behind")),
    );
    let keeping = services.keeping.status();
    let condition = if keeping.lagging { Condition::Degraded } else { Condition::Ok };
    health.check(
        "keeping",
        condition,
        keeping.lagging.then(|| format!("{} events wait to be kept as shares", keeping.waiting)),
    );
    let recordings = services.recordings.kept_status();
    let condition = if recordings.lagging { Condition::Degraded } else { Condition::Ok };
    health.check(
        "recordings",
        condition,
        recordings.lagging.then(|| format!("{} recordings wait to be kept as shares", recordings.waiting)),
    );
    let trouble = services.watch.trouble();
    let condition = if trouble.is_some() { Condition::Degraded } else { Condition::Ok };
    health.check("detection", condition, trouble.map(str::to_owned));
    let status = StatusCode::from_u16(health.http_status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    (status, axum::Json(health)).into_response()
}

/// Figures, for a service of the house that has a certificate.
pub(super) async fn metrics(State(api): State<Arc<Api>>, _: TheService) -> Result<Response, Fault> {
    let services = &api.services;
    let log = services.gate.log();
    let mut figures = Exposition::default();
    let mut gauge = |name, help, value| figures.single(name, Kind::Gauge, help, value);
    gauge(
        "sekisho_audit_log_works",
        "Whether the log takes records (1) or not (0).",
        f64::from(u8::from(log.failure().is_none())),
    );
    gauge("sekisho_audit_log_events", "Events that are on disk.", log.durable_size() as f64);
    gauge(
        "sekisho_audit_checkpoint_events",
        "Events that the last checkpoint covers.",
        log.checkpoint_size() as f64,
    );
    gauge("sekisho_agents_connected", "Agents that are connected.", services.hub.connected().len() as f64);
    gauge(
        "sekisho_session_slots_free",
        "Sessions that may still be opened.",
        services.slots.available_permits() as f64,
    );
    let keeping = services.keeping.status();
    gauge(
        "sekisho_kept_events",
        "Events from the start of the log that are kept as shares.",
        keeping.kept as f64,
    );
    gauge("sekisho_kept_waiting_events", "Events that wait to be kept as shares.", keeping.waiting as f64);
    gauge(
        "sekisho_kept_lagging",
        "Whether something waits to be kept for longer than it should (1) or not (0).",
        f64::from(u8::from(keeping.lagging)),
    );
    gauge(
        "sekisho_audit_local_from_events",
        "Events from the start of the log that may be in the vault alone.",
        keeping.local_from as f64,
    );
    let recordings = services.recordings.kept_status();
    gauge(
        "sekisho_recordings_waiting",
        "Recordings of closed sessions that wait to be kept as shares.",
        recordings.waiting as f64,
    );
    gauge(
        "sekisho_recordings_lagging",
        "Whether one waits to be kept for longer than it should (1) or not (0).",
        f64::from(u8::from(recordings.lagging)),
    );
    let mut counter = |name, help, value| figures.single(name, Kind::Counter, help, value);
    counter("sekisho_kept_records_total", "Records kept as shares since the start.", keeping.records as f64);
    counter(
        "sekisho_kept_failures_total",
        "Attempts to keep a record that failed since the start.",
        keeping.failures as f64,
    );
    counter(
        "sekisho_recordings_kept_total",
        "Recordings kept as shares since the start.",
        recordings.kept as f64,
    );
    diagnoses::expose(&services.hub.diagnoses.all(), services.gate.now(), &mut figures);
    let states: Vec<_> = services.sinks.states().collect();
    siem::metrics::expose(states.iter().map(|(name, status, _)| (*name, status)), &mut figures);
    let (watched, rules) = services.watch.figures();
    siem::metrics::expose_detection(&watched, rules, &mut figures);
    Ok(([(CONTENT_TYPE, METRICS)], figures.finish()).into_response())
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

/// How the broker, the agents and their hosts are, for those who may read the log, where it stands too:
/// a row for each check, the worst first.
pub(super) async fn diagnostics(
    State(api): State<Arc<Api>>,
    ThePerson(by): ThePerson,
) -> Result<axum::Json<Vec<Value>>, Fault> {
    api.services.gate.read_audit(&by, "diagnostics").await?;
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
