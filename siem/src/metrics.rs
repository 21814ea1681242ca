//! The state of sinks as metrics.

use model::metrics::{Exposition, Kind};

use crate::Status;
use crate::detect::{Level, WatchStatus};

/// Adds the figures of all sinks, by name.
pub fn expose<'a>(sinks: impl IntoIterator<Item = (&'a str, &'a Status)> + Clone, to: &mut Exposition) {
    let mut family = |name, kind, help, figure: fn(&Status) -> u64| {
        let mut family = to.family(name, kind, help);
        for (sink, status) in sinks.clone() {
            family.sample(&[("sink", sink)], figure(status) as f64);
        }
    };
    family(
        "sekisho_siem_connected",
        Kind::Gauge,
        "Whether the collector is connected (1) or not (0).",
        |s| u64::from(s.connected),
    );
    family(
        "sekisho_siem_lag_events",
        Kind::Gauge,
        "Events in the log that the collector does not have yet.",
        |s| s.lag,
    );
    family(
        "sekisho_siem_acknowledged_events",
        Kind::Gauge,
        "Events from the start of the log that count as delivered.",
        |s| s.delivered,
    );
    family(
        "sekisho_siem_sent_events_total",
        Kind::Counter,
        "Events sent since the start, repetitions included.",
        |s| s.sent,
    );
    family("sekisho_siem_errors_total", Kind::Counter, "Connections that failed or were lost.", |s| s.errors);
    family(
        "sekisho_siem_rejected_events_total",
        Kind::Counter,
        "Events that the collector will never take.",
        |s| s.rejected,
    );
}

/// Adds the figures of detection.
pub fn expose_detection(status: &WatchStatus, rules: usize, to: &mut Exposition) {
    let mut findings =
        to.family("sekisho_detection_findings_total", Kind::Counter, "Findings since the start.");
    for (level, count) in Level::ALL.into_iter().zip(status.findings) {
        findings.sample(&[("level", level.code())], count as f64);
    }
    let mut single = |name, kind, help, value| to.single(name, kind, help, value);
    single(
        "sekisho_detection_unsaid_total",
        Kind::Counter,
        "Findings not recorded, since the same had been or strangers caused too many.",
        status.unsaid as f64,
    );
    single(
        "sekisho_detection_events_total",
        Kind::Counter,
        "Events judged since the start.",
        status.evaluated as f64,
    );
    single(
        "sekisho_detection_seconds_total",
        Kind::Counter,
        "Time spent on reading and judging them.",
        status.micros as f64 / 1e6,
    );
    single(
        "sekisho_detection_lag_events",
        Kind::Gauge,
        "Events in the log that are not judged yet.",
        status.lag as f64,
    );
    single("sekisho_detection_rules", Kind::Gauge, "Rules in force that make findings.", rules as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sink_has_every_figure() {
        let status =
            Status { connected: true, lag: 3, delivered: 40, sent: 41, errors: 2, ..Status::default() };
        let mut exposition = Exposition::default();
        expose([("soc", &status), ("archive", &Status::default())], &mut exposition);
        let text = exposition.finish();
        assert!(text.contains("# TYPE sekisho_siem_lag_events gauge\n"));
        assert!(text.contains("sekisho_siem_lag_events{sink=\"soc\"} 3\n"));
        assert!(text.contains("sekisho_siem_connected{sink=\"archive\"} 0\n"));
        assert_eq!(text.matches("sink=\"soc\"").count(), 6);
    }
}
