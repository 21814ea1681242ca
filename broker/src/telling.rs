//! How the node is, for machines: at its API, and at a door of its own on this host.

use std::sync::Arc;

use model::metrics::{Exposition, Health, Kind, State};
use model::observed::CheckState;
use vitals::Vitals;

use crate::diagnoses;
use crate::ssh::Services;

/// A node that can be asked how it is.
pub(crate) struct Telling(pub(crate) Arc<Services>);

impl Vitals for Telling {
    fn health(&self) -> Health {
        let services = &self.0;
        let mut health = Health::new("broker", env!("CARGO_PKG_VERSION"));
        let log = services.gate.log();
        match log.failure() {
            None => health.check("audit_log", State::Ok, None),
            Some(_) => health.check("audit_log", State::Failed, Some("takes no records".to_owned())),
        };
        let agents = services.hub.connected().len();
        // A node without agents still answers people; they are told when they want to work.
        health.check("agents", State::Ok, Some(format!("{agents} connected")));
        let diagnoses = services.hub.diagnoses.all();
        let ill =
            diagnoses.iter().filter(|(_, _, diagnosis)| diagnosis.state() == CheckState::Failed).count();
        let condition = if ill > 0 { State::Degraded } else { State::Ok };
        let detail =
            (ill > 0).then(|| format!("{ill} of {} hosts are not as they should be", diagnoses.len()));
        health.check("diagnosis", condition, detail);
        let (mut sinks, mut behind) = (0, 0);
        for (_, _, failing) in services.sinks.states() {
            sinks += 1;
            behind += u32::from(failing);
        }
        let condition = if behind > 0 { State::Degraded } else { State::Ok };
        health.check(
            "siem",
            condition,
            (behind > 0).then(|| format!("{behind} of {sinks} collectors are behind")),
        );
        let keeping = services.keeping.status();
        let condition = if keeping.lagging { State::Degraded } else { State::Ok };
        health.check(
            "keeping",
            condition,
            keeping.lagging.then(|| format!("{} events wait to be kept as shares", keeping.waiting)),
        );
        let recordings = services.recordings.kept_status();
        let condition = if recordings.lagging { State::Degraded } else { State::Ok };
        health.check(
            "recordings",
            condition,
            recordings
                .lagging
                .then(|| format!("{} recordings wait to be kept as shares", recordings.waiting)),
        );
        let trouble = services.watch.trouble();
        let condition = if trouble.is_some() { State::Degraded } else { State::Ok };
        health.check("detection", condition, trouble.map(str::to_owned));
        health
    }

    fn figures(&self, figures: &mut Exposition) {
        let services = &self.0;
        let log = services.gate.log();
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
        gauge(
            "sekisho_agents_connected",
            "Agents that are connected.",
            services.hub.connected().len() as f64,
        );
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
        gauge(
            "sekisho_kept_waiting_events",
            "Events that wait to be kept as shares.",
            keeping.waiting as f64,
        );
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
        counter(
            "sekisho_kept_records_total",
            "Records kept as shares since the start.",
            keeping.records as f64,
        );
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
        diagnoses::expose(&services.hub.diagnoses.all(), services.gate.now(), figures);
        let states: Vec<_> = services.sinks.states().collect();
        siem::metrics::expose(states.iter().map(|(name, status, _)| (*name, status)), figures);
        let (watched, rules) = services.watch.figures();
        siem::metrics::expose_detection(&watched, rules, figures);
    }
}
