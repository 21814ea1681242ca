//! How this agent and its host are, told at the start, at each change, and regularly.
//!
//! What the operator declared is kept as salted sums in `declared.json` of the agent's folder, made at
//! the first start. To declare anew, remove it and start again; the log shows the change. It guards
//! against what changes by mistake or unnoticed, not against root on this host, who can declare, too.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use certs::x509::sha256;
use data_encoding::HEXLOWER;
use model::diagnosis::{Declared, Diary, Files, Sums, certificate, check, drift, fact, host};
use model::observed::{Check, CheckState, Fact};
use model::{Clock, Entropy, Timestamp};
use tokio::time::Instant;
use wire::message::AgentEvent;

use crate::config::Config;
use crate::identity::RENEW_BEFORE;
use crate::reports::Reports;
use crate::workspace::{Place, SECCOMP};

/// How often it is looked for changes.
const LOOK: Duration = Duration::from_secs(60);
/// The file of what was declared.
const DECLARED: &str = "declared.json";
/// Bytes of a sum that are told.
const SHOWN: usize = 8;
/// Where a runtime without a path is found, as when it is run.
const PATH: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// When the agent's certificate ends, now and after each renewal.
#[derive(Debug, Clone)]
pub struct Ends(Arc<AtomicI64>);

impl Ends {
    /// At `until`.
    pub fn at(until: Timestamp) -> Ends {
        Ends(Arc::new(AtomicI64::new(until.as_millis())))
    }

    /// It was renewed.
    pub fn move_to(&self, until: Timestamp) {
        self.0.store(until.as_millis(), Ordering::Relaxed);
    }

    fn get(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// What is examined.
pub struct Examined {
    /// The agent's folder.
    pub dir: PathBuf,
    /// Its configuration.
    pub config: Config,
    /// Where workspaces run.
    pub place: Place,
    /// When the certificate ends.
    pub ends: Ends,
    /// Now.
    pub clock: Arc<dyn Clock>,
    /// For the salt.
    pub entropy: Arc<dyn Entropy>,
}

/// Examines and tells, until dropped.
pub async fn diagnose(examined: Examined, reports: Reports) {
    let interval = Duration::from_secs(examined.config.diagnose_secs);
    let examined = Arc::new(std::sync::Mutex::new((examined, Programs::default())));
    let (mut diary, mut told) = (Diary::default(), Instant::now());
    loop {
        let shared = examined.clone();
        let found = tokio::task::spawn_blocking(move || {
            let mut shared = shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let (examined, programs) = &mut *shared;
            examined.look(programs)
        });
        if let Ok((facts, checks)) = found.await {
            let due = told.elapsed() >= interval;
            if let Some(diagnosis) = diary.consider(facts, checks, due) {
                told = Instant::now();
                for check in diagnosis.checks.iter().filter(|check| check.state == CheckState::Failed) {
                    tracing::warn!(check = %check.name, detail = %check.detail, "not as it should be");
                }
                reports.tell(AgentEvent::Diagnosed(diagnosis));
            }
        }
        tokio::time::sleep(LOOK.min(interval)).await;
    }
}

impl Examined {
    fn look(&self, programs: &mut Programs) -> (Vec<Fact>, Vec<Check>) {
        let (mut facts, mut checks) = host(&Kernel);
        let runtime = found(&self.place.runtime.program);
        let own = std::env::current_exe().unwrap_or_default();
        facts.push(fact("agent", env!("CARGO_PKG_VERSION")));
        let mut things = configured(&self.config);
        things.push(("filter".to_owned(), SECCOMP.to_owned()));
        for (name, path) in [("runtime", &runtime), ("init", &self.place.init), ("program", &own)] {
            match programs.sum(path) {
                Ok(sum) => {
                    facts.push(fact(format!("{name}_sum"), &sum));
                    things.push((name.to_owned(), sum));
                }
                Err(error) => checks.push(check(
                    name,
                    CheckState::Failed,
                    format!("{} cannot be read: {error}", path.display()),
                )),
            }
        }
        facts.push(fact("runtime", programs.version(&runtime)));
        facts.push(fact("filter_sum", shown(SECCOMP.as_bytes())));
        checks.push(match self.declared(&things) {
            Ok(check) => check,
            Err(error) => {
                check("declared", CheckState::Failed, format!("{DECLARED} cannot be used: {error}"))
            }
        });
        for (name, on) in [("watch.calls", self.place.eyes.calls), ("watch.packets", self.place.eyes.packets)]
        {
            let (state, detail) =
                if on { (CheckState::Ok, "on") } else { (CheckState::Warning, "switched off") };
            checks.push(check(name, state, detail));
        }
        let (until, valid) = certificate(self.ends.get(), RENEW_BEFORE, self.clock.now());
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
        crate::identity::write(&path, &serde_json::to_string_pretty(&declared)?).map_err(io::Error::other)?;
        Ok(drift(&declared.sums, &declared.sums))
    }
}

/// The configuration as it is in force, defaults and all, by its keys.
fn configured(config: &Config) -> Vec<(String, String)> {
    let Config {
        agent,
        broker,
        api,
        enrol_token,
        k,
        backends,
        placement,
        runtime,
        init,
        run,
        sessions,
        idle_secs,
        cache_mib,
        limits,
        watch,
        diagnose_secs,
    } = config;
    let all: [(&str, &dyn std::fmt::Debug); 16] = [
        ("agent", agent),
        ("broker", broker),
        ("api", api),
        ("enrol_token", enrol_token),
        ("k", k),
        ("backends", backends),
        ("placement", placement),
        ("runtime", runtime),
        ("init", init),
        ("run", run),
        ("sessions", sessions),
        ("idle_secs", idle_secs),
        ("cache_mib", cache_mib),
        ("limits", limits),
        ("watch", watch),
        ("diagnose_secs", diagnose_secs),
    ];
    all.into_iter().map(|(name, value)| (format!("config.{name}"), format!("{value:?}"))).collect()
}

fn sums(salt: &str, things: &[(String, String)]) -> Sums {
    let sum = |(name, value): &(String, String)| {
        (name.clone(), HEXLOWER.encode(&sha256(format!("{salt}\n{name}\n{value}").as_bytes())))
    };
    things.iter().map(sum).collect()
}

fn shown(bytes: &[u8]) -> String {
    HEXLOWER.encode(&sha256(bytes)[..SHOWN])
}

/// The program that a name stands for.
fn found(program: &Path) -> PathBuf {
    if program.components().count() > 1 {
        return program.to_owned();
    }
    let places = PATH.iter().map(|place| Path::new(place).join(program));
    places.into_iter().find(|path| path.exists()).unwrap_or_else(|| program.to_owned())
}

/// Sums of programs, made anew when a file is another.
#[derive(Default)]
struct Programs {
    sums: Vec<(PathBuf, Stamp, String)>,
    version: Option<(Stamp, String)>,
}

/// What tells a file from another of its name: device, inode, size, and when it was changed.
type Stamp = (u64, u64, u64, i64, i64);

impl Programs {
    fn sum(&mut self, path: &Path) -> io::Result<String> {
        let stamp = stamp(path)?;
        if let Some((_, _, sum)) = self.sums.iter().find(|(known, of, _)| known == path && *of == stamp) {
            return Ok(sum.clone());
        }
        let sum = shown(&fs::read(path)?);
        self.sums.retain(|(known, ..)| known != path);
        self.sums.push((path.to_owned(), stamp, sum.clone()));
        Ok(sum)
    }

    /// The first line of what a program says of its version.
    fn version(&mut self, path: &Path) -> String {
        let Ok(stamp) = stamp(path) else { return "not found".to_owned() };
        if let Some((of, version)) = &self.version
            && *of == stamp
        {
            return version.clone();
        }
        let said = Command::new(path).arg("--version").env_clear().stdin(Stdio::null()).output();
        let version = match &said {
            Ok(output) => {
                String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned()
            }
            Err(error) => format!("cannot be run: {error}"),
        };
        self.version = Some((stamp, version.clone()));
        version
    }
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let file = fs::metadata(path)?;
    Ok((file.dev(), file.ino(), file.size(), file.ctime(), file.ctime_nsec()))
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
    use super::*;
    use crate::workspace::{Limits, Runtime};
    use model::{ManualClock, SeededEntropy};

    #[test]
    fn what_was_changed_is_named_and_its_value_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let init = dir.path().join("init");
        fs::write(&init, "one").unwrap();
        let now = Timestamp::from_secs(1_000_000);
        let mut examined = Examined {
            dir: dir.path().to_owned(),
            config: Config::default(),
            place: Place {
                runtime: Runtime { program: "true".into(), root: dir.path().join("root") },
                run: dir.path().join("run"),
                homes: dir.path().join("homes"),
                init: init.clone(),
                cgroup: "/x".to_owned(),
                limits: Limits::default(),
                eyes: crate::watch::Eyes::default(),
            },
            ends: Ends::at(now.plus(RENEW_BEFORE * 2)),
            clock: Arc::new(ManualClock::at(now)),
            entropy: Arc::new(SeededEntropy::new(1)),
        };
        let mut programs = Programs::default();
        let declared = |checks: &[Check]| checks.iter().find(|c| c.name == "declared").unwrap().clone();
        let (facts, checks) = examined.look(&mut programs);
        assert_eq!(declared(&checks).state, CheckState::Ok);
        assert!(facts.iter().any(|fact| fact.name == "runtime" && fact.value.contains("true")), "{facts:?}");
        assert_eq!(declared(&examined.look(&mut programs).1).state, CheckState::Ok);

        fs::write(&init, "two!").unwrap();
        examined.config.broker = "elsewhere.example:1".to_owned();
        let drifted = declared(&examined.look(&mut programs).1);
        assert_eq!(drifted.state, CheckState::Failed);
        assert_eq!(drifted.detail, "not as declared: config.broker, init");
        examined.ends.move_to(now);
        let (_, checks) = examined.look(&mut programs);
        assert!(checks.iter().any(|c| c.name == "certificate" && c.state == CheckState::Failed));
        fs::write(dir.path().join(DECLARED), "{}").unwrap();
        assert!(declared(&examined.look(&mut programs).1).detail.contains("cannot be used"));
    }
}
