//! How this agent and its host are, told at the start, at each change, and regularly.
//!
//! How things are meant to be is kept in `declared.json` of the agent's folder (see [`Declared`]), made
//! at the first start, and made anew when somebody accepts how they are.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use model::declared::{Process, Thing, shown};
use model::diagnosis::{DECLARED_STATE, Diary, Ends, certificate, check, fact, host};
use model::observed::{Check, CheckState, Fact};
use model::{Clock, Entropy};
use tokio::sync::watch;
use tokio::time::Instant;
use vitals::{Folder, Kernel};
use wire::message::AgentEvent;

use crate::config::Config;
use crate::identity::RENEW_BEFORE;
use crate::reports::Reports;
use crate::workspace::{Place, SECCOMP};

/// How often it is looked for changes.
const LOOK: Duration = Duration::from_secs(60);
/// What things are declared for.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Where a runtime without a path is found, as when it is run.
const PATH: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

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

/// Examines and tells, until dropped; takes what is `accepted` as how things are meant to be. The worst
/// of what it finds it says to `worst` each time.
pub async fn diagnose(
    examined: Examined,
    reports: Reports,
    worst: &watch::Sender<Option<CheckState>>,
    mut accepted: watch::Receiver<Option<String>>,
) {
    let interval = Duration::from_secs(examined.config.diagnose_secs);
    let examined = Arc::new(std::sync::Mutex::new((examined, Programs::default())));
    let (mut diary, mut told) = (Diary::default(), Instant::now());
    loop {
        let shared = examined.clone();
        // None but what is accepted from now on.
        let state = accepted.has_changed().unwrap_or(false).then(|| accepted.borrow_and_update().clone());
        let found = tokio::task::spawn_blocking(move || {
            let mut shared = shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let (examined, programs) = &mut *shared;
            examined.look(programs, state.flatten().as_deref())
        });
        if let Ok((facts, checks)) = found.await {
            let due = told.elapsed() >= interval;
            worst.send_replace(checks.iter().map(|check| check.state).max());
            if let Some(diagnosis) = diary.consider(facts, checks, due) {
                told = Instant::now();
                for check in diagnosis.checks.iter().filter(|check| check.state == CheckState::Failed) {
                    tracing::warn!(check = %check.name, detail = %check.detail, "not as it should be");
                }
                reports.tell(AgentEvent::Diagnosed(diagnosis));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK.min(interval)) => {}
            Ok(()) = accepted.changed() => accepted.mark_changed(),
        }
    }
}

impl Examined {
    fn look(&self, programs: &mut Programs, accepted: Option<&str>) -> (Vec<Fact>, Vec<Check>) {
        let (mut facts, mut checks) = host(&Kernel);
        let runtime = found(&self.place.runtime.program);
        let own = std::env::current_exe().unwrap_or_default();
        facts.push(fact("agent", VERSION));
        let mut things = configured(&self.config);
        things.push(Thing::of_release("filter", SECCOMP));
        let thing = [Thing::of_host, Thing::of_release, Thing::of_release];
        for ((name, path), thing) in
            [("runtime", &runtime), ("init", &self.place.init), ("program", &own)].into_iter().zip(thing)
        {
            match programs.sum(path) {
                Ok(sum) => {
                    facts.push(fact(format!("{name}_sum"), &sum));
                    things.push(thing(name, sum));
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
        let folder = Folder::new(&self.dir, crate::identity::replace);
        let process = Process { name: self.config.agent.as_str(), version: VERSION };
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
        for (name, on) in [("watch.calls", self.place.eyes.calls), ("watch.packets", self.place.eyes.packets)]
        {
            let (state, detail) =
                if on { (CheckState::Ok, "on") } else { (CheckState::Warning, "switched off") };
            checks.push(check(name, state, detail));
        }
        let (until, valid) = certificate(self.ends.until(), RENEW_BEFORE, self.clock.now());
        facts.push(until);
        checks.push(valid);
        (facts, checks)
    }
}

/// The configuration as it is in force, defaults and all, by its keys.
fn configured(config: &Config) -> Vec<Thing> {
    let Config {
        agent,
        broker,
        brokers,
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
        alone_secs,
        homes,
        cache_mib,
        limits,
        watch,
        diagnose_secs,
        metrics,
    } = config;
    let all: [(&str, &dyn std::fmt::Debug); 20] = [
        ("agent", agent),
        ("broker", broker),
        ("brokers", brokers),
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
        ("alone_secs", alone_secs),
        ("homes", homes),
        ("cache_mib", cache_mib),
        ("limits", limits),
        ("watch", watch),
        ("diagnose_secs", diagnose_secs),
        ("metrics", metrics),
    ];
    all.into_iter()
        .map(|(name, value)| Thing::of_release(format!("config.{name}"), format!("{value:?}")))
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::{Limits, Runtime};
    use model::{ManualClock, SeededEntropy, Timestamp};

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
                homes: crate::workspace::Homes { folders: dir.path().join("homes"), disks: None },
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
        let (facts, checks) = examined.look(&mut programs, None);
        assert_eq!(declared(&checks).state, CheckState::Ok);
        assert!(facts.iter().any(|fact| fact.name == "runtime" && fact.value.contains("true")), "{facts:?}");
        assert_eq!(declared(&examined.look(&mut programs, None).1).state, CheckState::Ok);

        fs::write(&init, "two!").unwrap();
        examined.config.broker = "elsewhere.example:1".to_owned();
        let drifted = declared(&examined.look(&mut programs, None).1);
        assert_eq!(drifted.state, CheckState::Failed);
        assert!(drifted.detail.ends_with(": config.broker, init"), "{}", drifted.detail);
        let (facts, _) = examined.look(&mut programs, None);
        let state = facts.iter().find(|fact| fact.name == DECLARED_STATE).unwrap().value.clone();
        assert!(
            drifted.detail.contains(&format!("diagnostics accept agent:main {state}")),
            "{}",
            drifted.detail
        );
        assert_eq!(declared(&examined.look(&mut programs, Some(&state)).1).state, CheckState::Ok);
        assert_eq!(declared(&examined.look(&mut programs, None).1).state, CheckState::Ok);
        examined.ends.move_to(now);
        let (_, checks) = examined.look(&mut programs, None);
        assert!(checks.iter().any(|c| c.name == "certificate" && c.state == CheckState::Failed));
        fs::write(dir.path().join("declared.json"), "{}").unwrap();
        assert!(declared(&examined.look(&mut programs, None).1).detail.contains("cannot be used"));
    }
}
