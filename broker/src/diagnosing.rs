//! How the broker, the agents and their hosts are: the broker examines itself and its host at the
//! start, at each change, and regularly; agents tell of theirs.
//!
//! How things are meant to be is kept in `declared.json` of the broker's folder (see [`Declared`]), made
//! at the first start, and made anew when somebody accepts how they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use audit::{Event, EventKind};
use gate::Gate;
use model::declared::{Process, Thing, shown};
use model::diagnosis::{DECLARED_STATE, Diary, Ends, certificate, check, fact, host};
use model::observed::{Check, CheckState, Fact};
use model::{Clock, Entropy};
use tokio::sync::watch;
use tokio::time::Instant;
use vitals::{Folder, Kernel};

use crate::config::Config;
use crate::credentials::LIFETIME;
use crate::diagnoses::{BROKER, Diagnoses};
use crate::private;

/// How often it is looked for changes.
const LOOK: Duration = Duration::from_secs(60);
/// What things are declared for.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What is examined.
pub struct Examined {
    dir: PathBuf,
    configured: Vec<Thing>,
    ends: Ends,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    program: Option<String>,
}

impl Examined {
    /// The broker in `dir`.
    pub fn new(
        dir: &Path,
        config: &Config,
        ends: &Ends,
        clock: &Arc<dyn Clock>,
        entropy: &Arc<dyn Entropy>,
    ) -> Examined {
        Examined {
            dir: dir.to_owned(),
            configured: configured(config),
            ends: ends.clone(),
            clock: Arc::clone(clock),
            entropy: Arc::clone(entropy),
            program: None,
        }
    }

    fn look(&mut self, accepted: Option<&str>) -> (Vec<Fact>, Vec<Check>) {
        let (mut facts, mut checks) = host(&Kernel);
        facts.push(fact("broker", VERSION));
        if self.program.is_none() {
            // The program that runs, whatever lies in its place by now.
            self.program = fs::read("/proc/self/exe").ok().map(|bytes| shown(&bytes));
        }
        let mut things = self.configured.clone();
        if let Some(sum) = &self.program {
            facts.push(fact("program_sum", sum));
            things.push(Thing::of_release("program", sum));
        }
        let folder = Folder::new(&self.dir, private::write);
        let process = Process { name: BROKER, version: VERSION };
        match process.judge(&things, accepted, &folder, &*self.entropy) {
            Ok(compared) => {
                facts.push(fact(DECLARED_STATE, compared.state));
                checks.push(compared.check);
            }
            Err(error) => {
                let unusable = format!("declared.json cannot be used: {error}");
                checks.push(check("declared", CheckState::Failed, unusable));
            }
        }
        let (until, valid) = certificate(self.ends.until(), LIFETIME / 2, self.clock.now());
        facts.push(until);
        checks.push(valid);
        (facts, checks)
    }
}

/// Examines the broker and its host, records what is to be told, and keeps it, until dropped; takes what
/// is `accepted` as how things are meant to be.
pub async fn diagnose(
    examined: Examined,
    gate: Gate,
    diagnoses: Diagnoses,
    mut accepted: watch::Receiver<Option<String>>,
    interval: Duration,
) {
    let examined = Arc::new(Mutex::new(examined));
    let (mut diary, mut told) = (Diary::default(), Instant::now());
    loop {
        let shared = Arc::clone(&examined);
        // None but what is accepted from now on.
        let state = accepted.has_changed().unwrap_or(false).then(|| accepted.borrow_and_update().clone());
        let found = tokio::task::spawn_blocking(move || {
            let mut examined = shared.lock().unwrap_or_else(PoisonError::into_inner);
            examined.look(state.flatten().as_deref())
        });
        if let Ok((facts, checks)) = found.await
            && let Some(diagnosis) = diary.consider(facts, checks, told.elapsed() >= interval)
        {
            told = Instant::now();
            diagnoses.keep(BROKER, gate.now(), diagnosis.clone());
            let kind = EventKind::BrokerDiagnosed { state: diagnosis.state(), what: diagnosis };
            if let Err(refusal) = gate.record(&Event::new(gate.now(), kind)).await {
                tracing::error!(code = %refusal.code, "how the broker is could not be recorded");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK.min(interval)) => {}
            Ok(()) = accepted.changed() => accepted.mark_changed(),
        }
    }
}

/// The configuration as it is in force, defaults and all, by its keys.
fn configured(config: &Config) -> Vec<Thing> {
    let Config {
        trust_domain,
        ssh,
        api,
        agents,
        names,
        addresses,
        signer,
        user,
        max_sessions,
        grace_secs,
        drain_secs,
        diagnose_secs,
        siem,
        detection,
        witness,
        retention,
        recordings,
        approvals,
        metrics,
    } = config;
    let all: [(&str, &dyn std::fmt::Debug); 19] = [
        ("trust_domain", trust_domain),
        ("ssh", ssh),
        ("api", api),
        ("agents", agents),
        ("names", names),
        ("addresses", addresses),
        ("signer", signer),
        ("user", user),
        ("max_sessions", max_sessions),
        ("grace_secs", grace_secs),
        ("drain_secs", drain_secs),
        ("diagnose_secs", diagnose_secs),
        ("siem", siem),
        ("detection", detection),
        ("witness", witness),
        ("retention", retention),
        ("recordings", recordings),
        ("approvals", approvals),
        ("metrics", metrics),
    ];
    all.into_iter()
        .map(|(name, value)| Thing::of_release(format!("config.{name}"), format!("{value:?}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use model::{ManualClock, SeededEntropy, Timestamp};

    use super::*;

    #[test]
    fn what_was_changed_is_named_and_its_value_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::from_secs(1_000_000);
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(now));
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(1));
        let look = |config: &Config, until, accepted: Option<&str>| {
            let (facts, checks) =
                Examined::new(dir.path(), config, &Ends::at(until), &clock, &entropy).look(accepted);
            let of = |name: &str| checks.iter().find(|check| check.name == name).unwrap().clone();
            (facts, of("declared"), of("certificate"))
        };
        let mut config = Config::default();
        let (_, declared, valid) = look(&config, now.plus(LIFETIME), None);
        assert_eq!((declared.state, valid.state), (CheckState::Ok, CheckState::Ok));
        config.names.push("other.example".to_owned());
        let (facts, declared, valid) = look(&config, now, None);
        assert_eq!((declared.state, valid.state), (CheckState::Failed, CheckState::Failed));
        assert!(declared.detail.ends_with(": config.names"), "{}", declared.detail);
        let state = facts.iter().find(|fact| fact.name == DECLARED_STATE).unwrap().value.clone();
        assert_eq!(look(&config, now, Some(&state)).1.state, CheckState::Ok);
        assert_eq!(look(&config, now, None).1.state, CheckState::Ok);
        let told: String = facts.iter().map(|fact| fact.value.as_str()).collect();
        assert!(!told.contains("other.example"));
    }
}
