//! How a host and what runs on it are, from what their files say: parsing and comparing, without I/O.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::Timestamp;
use crate::observed::{Check, CheckState, Diagnosis, DiagnosisCause, Fact};

/// Facts of this ending tell an instant that moves by itself; its moving is no change.
const INSTANT: &str = "_until";
/// The name of the fact that tells when a certificate ends.
pub const CERTIFICATE_UNTIL: &str = "certificate_until";
/// The name of the fact that tells which state is compared with the declared one: what is accepted.
pub const DECLARED_STATE: &str = "declared_state";
/// The longest value that is told.
const VALUE_MAX: usize = 200;
/// The most facts, checks and changes that are told.
const TOLD: usize = 60;

/// Where the kernel says how it is.
pub trait Files {
    /// The text of a file, if it can be read.
    fn read(&self, path: &str) -> Option<String>;
    /// The names in a folder; none if it cannot be read.
    fn list(&self, path: &str) -> Vec<String>;
}

/// A fact.
pub fn fact(name: impl Into<String>, value: impl AsRef<str>) -> Fact {
    Fact { name: name.into(), value: value.as_ref().trim().chars().take(VALUE_MAX).collect() }
}

/// A check.
pub fn check(name: impl Into<String>, state: CheckState, detail: impl AsRef<str>) -> Check {
    Check { name: name.into(), state, detail: detail.as_ref().trim().chars().take(VALUE_MAX).collect() }
}

/// The host: its kernel, the processor's flaws, and what the kernel does against intruders.
pub fn host(files: &dyn Files) -> (Vec<Fact>, Vec<Check>) {
    let text = |path: &str| files.read(path).map(|text| text.trim().to_owned());
    let mut facts = Vec::new();
    if let Some(kernel) = text("/proc/sys/kernel/osrelease") {
        facts.push(fact("kernel", kernel));
    }
    if let Some(system) = text("/etc/os-release").as_deref().and_then(pretty_name) {
        facts.push(fact("system", system));
    }
    let modules = text("/sys/kernel/security/lsm");
    facts.push(fact("lsm", modules.as_deref().unwrap_or("not readable")));

    let mut checks = Vec::new();
    const FLAWS: &str = "/sys/devices/system/cpu/vulnerabilities";
    let mut flaws = files.list(FLAWS);
    flaws.sort();
    flaws.truncate(TOLD / 2);
    for flaw in flaws {
        if let Some(said) = text(&format!("{FLAWS}/{flaw}")) {
            checks.push(check(format!("cpu.{flaw}"), mitigation(&said), said));
        }
    }
    let of = |good: bool, otherwise: CheckState| if good { CheckState::Ok } else { otherwise };
    let lockdown = text("/sys/kernel/security/lockdown");
    let (state, said) = match lockdown.as_deref().and_then(chosen) {
        Some(mode) => (of(mode != "none", CheckState::Warning), mode),
        None => (CheckState::Warning, "not readable"),
    };
    checks.push(check("lockdown", state, said));
    if let Some(modules) = &modules {
        let there = modules.split(',').any(|module| module == "landlock");
        checks.push(check("landlock", of(there, CheckState::Failed), modules));
    }
    for (name, path, good) in [
        ("address_space", "/proc/sys/kernel/randomize_va_space", &["2"][..]),
        ("unprivileged_bpf", "/proc/sys/kernel/unprivileged_bpf_disabled", &["1", "2"]),
        ("kernel_pointers", "/proc/sys/kernel/kptr_restrict", &["1", "2"]),
        ("ptrace", "/proc/sys/kernel/yama/ptrace_scope", &["1", "2", "3"]),
    ] {
        if let Some(value) = text(path) {
            checks.push(check(name, of(good.contains(&value.as_str()), CheckState::Warning), value));
        }
    }
    (facts, checks)
}

/// A certificate that ends at `until` and is renewed so long before.
pub fn certificate(until: Timestamp, renewed_before: Duration, now: Timestamp) -> (Fact, Check) {
    let left = until.since(now);
    let (state, word) = if left.is_zero() {
        (CheckState::Failed, "ended")
    } else if left < renewed_before / 2 {
        (CheckState::Warning, "should have been renewed; ends")
    } else {
        (CheckState::Ok, "ends")
    };
    (fact(CERTIFICATE_UNTIL, until.to_string()), check("certificate", state, format!("{word} {until}")))
}

/// When a certificate ends, now and after each renewal. Clones are the same.
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

    /// When.
    pub fn until(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// What was told last, so that only news is told besides what is told regularly.
#[derive(Debug, Default)]
pub struct Diary(Option<(Vec<Fact>, Vec<Check>)>);

impl Diary {
    /// What is to be told now, if anything: at the start, when something changed, and when it is time.
    pub fn consider(&mut self, mut facts: Vec<Fact>, mut checks: Vec<Check>, due: bool) -> Option<Diagnosis> {
        facts.truncate(TOLD);
        checks.truncate(TOLD);
        let (cause, changes) = match &self.0 {
            None => (DiagnosisCause::Start, Vec::new()),
            Some((old_facts, old_checks)) => {
                let changes = changes(old_facts, old_checks, &facts, &checks);
                match (changes.is_empty(), due) {
                    (false, _) => (DiagnosisCause::Change, changes),
                    (true, true) => (DiagnosisCause::Interval, changes),
                    (true, false) => return None,
                }
            }
        };
        self.0 = Some((facts.clone(), checks.clone()));
        Some(Diagnosis { cause, facts, checks, changes })
    }
}

fn changes(old_facts: &[Fact], old_checks: &[Check], facts: &[Fact], checks: &[Check]) -> Vec<String> {
    let values = |facts: &[Fact]| -> BTreeMap<String, String> {
        let still = facts.iter().filter(|fact| !fact.name.ends_with(INSTANT));
        still.map(|fact| (fact.name.clone(), fact.value.clone())).collect()
    };
    let states = |checks: &[Check]| -> BTreeMap<String, String> {
        checks.iter().map(|check| (check.name.clone(), check.state.code().to_owned())).collect()
    };
    let mut told = Vec::new();
    for (old, new) in [(values(old_facts), values(facts)), (states(old_checks), states(checks))] {
        let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
        names.sort();
        names.dedup();
        for name in names {
            let (before, after) = (old.get(name), new.get(name));
            if before != after {
                let word = |value: Option<&String>| value.map_or("nothing", String::as_str).to_owned();
                told.push(format!("{name}: {}, was {}", word(after), word(before)));
            }
        }
    }
    told.truncate(TOLD);
    told
}

/// What the kernel says of a flaw (Linux, `Documentation/admin-guide/hw-vuln`).
fn mitigation(said: &str) -> CheckState {
    let well = ["Not affected", "Mitigation", "KVM: Mitigation"].iter().any(|good| said.starts_with(good));
    if well { CheckState::Ok } else { CheckState::Warning }
}

/// The word in brackets.
fn chosen(text: &str) -> Option<&str> {
    text.split_once('[')?.1.split_once(']').map(|(word, _)| word)
}

fn pretty_name(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).map(|name| name.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    struct Some_(HashMap<&'static str, &'static str>);

    impl Files for Some_ {
        fn read(&self, path: &str) -> Option<String> {
            self.0.get(path).map(|text| (*text).to_owned())
        }

        fn list(&self, path: &str) -> Vec<String> {
            let below = |at: &&&str| at.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
            self.0.keys().filter(below).filter_map(|at| at.rsplit('/').next()).map(str::to_owned).collect()
        }
    }

    fn files() -> Some_ {
        Some_(HashMap::from([
            ("/proc/sys/kernel/osrelease", "6.12.1\n"),
            ("/etc/os-release", "ID=debian\nPRETTY_NAME=\"Debian 12\"\n"),
            ("/sys/kernel/security/lsm", "lockdown,landlock,yama"),
            ("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n"),
            ("/sys/devices/system/cpu/vulnerabilities/meltdown", "Not affected\n"),
            ("/sys/devices/system/cpu/vulnerabilities/mds", "Vulnerable: no microcode\n"),
            ("/proc/sys/kernel/randomize_va_space", "0\n"),
        ]))
    }

    fn state(checks: &[Check], name: &str) -> Option<CheckState> {
        checks.iter().find(|check| check.name == name).map(|check| check.state)
    }

    #[test]
    fn a_host_is_read_from_its_files() {
        let (facts, checks) = host(&files());
        assert_eq!(facts[0], fact("kernel", "6.12.1"));
        assert_eq!(facts[1], fact("system", "Debian 12"));
        for (name, expected) in [
            ("cpu.meltdown", CheckState::Ok),
            ("cpu.mds", CheckState::Warning),
            ("lockdown", CheckState::Ok),
            ("landlock", CheckState::Ok),
            ("address_space", CheckState::Warning),
        ] {
            assert_eq!(state(&checks, name), Some(expected), "{name}");
        }
        assert_eq!(state(&checks, "ptrace"), None, "what cannot be read is not judged");
        let (facts, checks) = host(&Some_(HashMap::new()));
        assert_eq!((facts.len(), checks.len()), (1, 1));
    }

    #[test]
    fn a_certificate_is_to_be_renewed_in_time() {
        let until = Timestamp::from_secs(1_000_000);
        let with =
            |left| certificate(until, Duration::from_secs(100), until.minus(Duration::from_secs(left)));
        assert_eq!(with(90).1.state, CheckState::Ok);
        assert_eq!(with(49).1.state, CheckState::Warning);
        assert_eq!(with(0).1.state, CheckState::Failed);
    }

    #[test]
    fn only_news_is_told_besides_what_is_told_regularly() {
        let mut diary = Diary::default();
        let facts = |kernel: &str, until: &str| vec![fact("kernel", kernel), fact(CERTIFICATE_UNTIL, until)];
        let checks = |state| vec![check("lockdown", state, "x")];
        let mut tell = |facts, checks, due| {
            diary.consider(facts, checks, due).map(|diagnosis| (diagnosis.cause, diagnosis.changes))
        };
        let ok = CheckState::Ok;
        assert_eq!(tell(facts("6.1", "a"), checks(ok), false), Some((DiagnosisCause::Start, vec![])));
        assert_eq!(tell(facts("6.1", "b"), checks(ok), false), None);
        assert_eq!(tell(facts("6.1", "b"), checks(ok), true), Some((DiagnosisCause::Interval, vec![])));
        let (cause, changes) = tell(facts("6.2", "b"), checks(CheckState::Failed), false).unwrap();
        assert_eq!(cause, DiagnosisCause::Change);
        assert_eq!(changes, ["kernel: 6.2, was 6.1", "lockdown: failed, was ok"]);
    }
}
