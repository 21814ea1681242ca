//! How the broker, the agents and their hosts were when they last told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use model::Timestamp;
use model::diagnosis::CERTIFICATE_UNTIL;
use model::metrics::{Exposition, Kind};
use model::observed::{CheckState, Diagnosis};

/// The broker's own name among the processes.
pub const BROKER: &str = "broker";

/// What each process told last. Cheap to clone; every clone is the same.
#[derive(Debug, Clone, Default)]
pub struct Diagnoses(Arc<Mutex<BTreeMap<String, (Timestamp, Diagnosis)>>>);

impl Diagnoses {
    /// Keeps what a process told, in the place of what it told before.
    pub fn keep(&self, process: &str, at: Timestamp, diagnosis: Diagnosis) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(process.to_owned(), (at, diagnosis));
    }

    /// All of them, by process.
    pub fn all(&self) -> Vec<(String, Timestamp, Diagnosis)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(process, (at, diagnosis))| (process.clone(), *at, diagnosis.clone())).collect()
    }
}

/// Adds what is known of all processes as figures.
pub fn expose(all: &[(String, Timestamp, Diagnosis)], now: Timestamp, to: &mut Exposition) {
    let mut checks = to.family(
        "sekisho_diagnosis_checks",
        Kind::Gauge,
        "What was looked at on a host, by how it stands with it.",
    );
    for (process, _, diagnosis) in all {
        for state in [CheckState::Ok, CheckState::Warning, CheckState::Failed] {
            let count = diagnosis.checks.iter().filter(|check| check.state == state).count();
            checks.sample(&[("process", process.as_str()), ("state", state.code())], count as f64);
        }
    }
    let mut ages =
        to.family("sekisho_diagnosis_age_seconds", Kind::Gauge, "How long ago a process told how it is.");
    for (process, at, _) in all {
        ages.sample(&[("process", process.as_str())], now.since(*at).as_secs_f64());
    }
    let mut left = to.family(
        "sekisho_certificate_left_seconds",
        Kind::Gauge,
        "How long the certificate of a process is still valid, as it last told.",
    );
    for (process, _, diagnosis) in all {
        let until = diagnosis.facts.iter().find(|fact| fact.name == CERTIFICATE_UNTIL);
        if let Some(until) = until.and_then(|fact| fact.value.parse::<Timestamp>().ok()) {
            left.sample(&[("process", process.as_str())], until.since(now).as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::diagnosis::{certificate, check};
    use model::observed::DiagnosisCause;

    use super::*;

    const LIFETIME: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn every_process_has_its_figures() {
        let now = Timestamp::from_secs(1_000_000);
        let (until, valid) = certificate(now.plus(LIFETIME), LIFETIME / 2, now);
        let diagnosis = Diagnosis {
            cause: DiagnosisCause::Start,
            facts: vec![until],
            checks: vec![valid, check("x", CheckState::Failed, "y")],
            changes: Vec::new(),
        };
        let diagnoses = Diagnoses::default();
        diagnoses.keep("agent:main", now, diagnosis);
        let mut exposition = Exposition::default();
        expose(&diagnoses.all(), now.plus(Duration::from_secs(5)), &mut exposition);
        let text = exposition.finish();
        assert!(
            text.contains("sekisho_diagnosis_checks{process=\"agent:main\",state=\"failed\"} 1\n"),
            "{text}"
        );
        assert!(text.contains("sekisho_certificate_left_seconds{process=\"agent:main\"} 86395\n"), "{text}");
        assert!(text.contains("sekisho_diagnosis_age_seconds{process=\"agent:main\"} 5\n"), "{text}");
    }
}
