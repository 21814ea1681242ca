//! How the broker, the agents and their hosts are: the broker examines itself and its host at the
//! start, at each change, and regularly; agents tell of theirs.
//!
//! What the operator declared is kept as salted sums in `declared.json` of the broker's folder, made at
//! the first start. To declare anew, remove it and start again; the log shows the change.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use audit::{Event, EventKind};
use certs::x509::sha256;
use data_encoding::HEXLOWER;
use gate::Gate;
use model::diagnosis::{Declared, Diary, Files, Sums, certificate, check, drift, fact, host};
use model::observed::{Check, CheckState, Fact};
use model::{Clock, Entropy, Timestamp};
use tokio::time::Instant;

use crate::config::Config;
use crate::credentials::LIFETIME;
use crate::diagnoses::Diagnoses;
use crate::private;

/// How often it is looked for changes.
const LOOK: Duration = Duration::from_secs(60);
/// The file of what was declared.
const DECLARED: &str = "declared.json";
/// Bytes of a sum that are told.
const SHOWN: usize = 8;
/// The broker's own name among the processes.
const BROKER: &str = "broker";

/// When the first of the broker's certificates ends, now and after each renewal.
#[derive(Debug, Clone)]
pub struct Ends(Arc<AtomicI64>);

impl Ends {
    /// At `until`.
    pub fn at(until: Timestamp) -> Ends {
        Ends(Arc::new(AtomicI64::new(until.as_millis())))
    }

    /// They were renewed.
    pub fn move_to(&self, until: Timestamp) {
        self.0.store(until.as_millis(), Ordering::Relaxed);
    }
}

/// What is examined.
pub struct Examined {
    dir: PathBuf,
    configured: Vec<(String, String)>,
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

    fn look(&mut self) -> (Vec<Fact>, Vec<Check>) {
        let (mut facts, mut checks) = host(&Kernel);
        facts.push(fact("broker", env!("CARGO_PKG_VERSION")));
        if self.program.is_none() {
            // The program that runs, whatever lies in its place by now.
            self.program =
                fs::read("/proc/self/exe").ok().map(|bytes| HEXLOWER.encode(&sha256(&bytes)[..SHOWN]));
        }
        let mut things = self.configured.clone();
        if let Some(sum) = &self.program {
            facts.push(fact("program_sum", sum));
            things.push(("program".to_owned(), sum.clone()));
        }
        checks.push(match self.declared(&things) {
            Ok(check) => check,
            Err(error) => {
                check("declared", CheckState::Failed, format!("{DECLARED} cannot be used: {error}"))
            }
        });
        let until = Timestamp::from_millis(self.ends.0.load(Ordering::Relaxed));
        let (until, valid) = certificate(until, LIFETIME / 2, self.clock.now());
        facts.push(until);
        checks.push(valid);
        (facts, checks)
    }

    /// Compares things with how they were declared, which is how they are if nothing was declared yet.
    fn declared(&self, things: &[(String, String)]) -> io::Result<Check> {
        let path = self.dir.join(DECLARED);
        let declared: Option<Declared> = match fs::read(&path) {
            Ok(bytes) => Some(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let Some(declared) = declared {
            return Ok(drift(&declared.sums, &sums(&declared.salt, things)));
        }
        let mut salt = [0; 16];
        self.entropy.fill(&mut salt).map_err(io::Error::other)?;
        let salt = HEXLOWER.encode(&salt);
        let declared = Declared { sums: sums(&salt, things), salt };
        private::write(&path, &serde_json::to_vec_pretty(&declared)?)?;
        Ok(drift(&declared.sums, &declared.sums))
    }
}

/// Examines the broker and its host, records what is to be told, and keeps it, until dropped.
pub async fn diagnose(examined: Examined, gate: Gate, diagnoses: Diagnoses, interval: Duration) {
    let examined = Arc::new(Mutex::new(examined));
    let (mut diary, mut told) = (Diary::default(), Instant::now());
    loop {
        let shared = Arc::clone(&examined);
        let found =
            tokio::task::spawn_blocking(move || shared.lock().unwrap_or_else(PoisonError::into_inner).look());
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
        tokio::time::sleep(LOOK.min(interval)).await;
    }
}

/// The configuration as it is in force, defaults and all, by its keys.
fn configured(config: &Config) -> Vec<(String, String)> {
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
        drain_secs,
        diagnose_secs,
        siem,
        detection,
        witness,
    } = config;
    let all: [(&str, &dyn std::fmt::Debug); 14] = [
        ("trust_domain", trust_domain),
        ("ssh", ssh),
        ("api", api),
        ("agents", agents),
        ("names", names),
        ("addresses", addresses),
        ("signer", signer),
        ("user", user),
        ("max_sessions", max_sessions),
        ("drain_secs", drain_secs),
        ("diagnose_secs", diagnose_secs),
        ("siem", siem),
        ("detection", detection),
        ("witness", witness),
    ];
    all.into_iter().map(|(name, value)| (format!("config.{name}"), format!("{value:?}"))).collect()
}

fn sums(salt: &str, things: &[(String, String)]) -> Sums {
    let sum = |(name, value): &(String, String)| {
        (name.clone(), HEXLOWER.encode(&sha256(format!("{salt}\n{name}\n{value}").as_bytes())))
    };
    things.iter().map(sum).collect()
}

/// The files of the kernel that runs.
struct Kernel;

impl Files for Kernel {
    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(path).ok()
    }

    fn list(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use model::{ManualClock, SeededEntropy};

    use super::*;

    #[test]
    fn what_was_changed_is_named_and_its_value_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::from_secs(1_000_000);
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(now));
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(1));
        let look = |config: &Config, until| {
            let (facts, checks) =
                Examined::new(dir.path(), config, &Ends::at(until), &clock, &entropy).look();
            let of = |name: &str| checks.iter().find(|check| check.name == name).unwrap().clone();
            (facts, of("declared"), of("certificate"))
        };
        let mut config = Config::default();
        let (_, declared, valid) = look(&config, now.plus(LIFETIME));
        assert_eq!((declared.state, valid.state), (CheckState::Ok, CheckState::Ok));
        config.names.push("other.example".to_owned());
        let (facts, declared, valid) = look(&config, now);
        assert_eq!((declared.state, valid.state), (CheckState::Failed, CheckState::Failed));
        assert_eq!(declared.detail, "not as declared: config.names");
        let told: String = facts.iter().map(|fact| fact.value.as_str()).collect();
        assert!(!told.contains("other.example"));
    }
}
