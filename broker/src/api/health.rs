//! How the node is, for machines.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use model::metrics::{CONTENT_TYPE as METRICS, Exposition, Health, Kind, State as Condition};

use super::Api;
use super::answer::Fault;
use super::caller::TheService;

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
    let states: Vec<_> = services.sinks.states().collect();
    siem::metrics::expose(states.iter().map(|(name, status, _)| (*name, status)), &mut figures);
    Ok(([(CONTENT_TYPE, METRICS)], figures.finish()).into_response())
}
