//! How a process and its host were declared to be, and whether they still are: sums and comparing,
//! without I/O.
//!
//! What was declared is kept in the process's folder, as salted sums; what was there at the first start
//! is declared by that. It guards against what changes by mistake or unnoticed, not against root on
//! that host, who can declare, too.
//!
//! What was declared was so for one version of the program. Another version brings other files and
//! other settings with it: that is no drift but an upgrade, which somebody says yes to.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Entropy;
use crate::diagnosis::check;
use crate::observed::{Check, CheckState};

/// Bytes of a sum that are told.
const SHOWN: usize = 8;
/// The name of the check.
const DECLARED: &str = "declared";

/// Something that is compared with what was declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thing {
    /// What it is called.
    pub name: String,
    /// How it is: a value, or the sum of a file.
    pub value: String,
    /// Whether another version of the program may bring another one with it.
    pub of_release: bool,
}

impl Thing {
    /// Something that comes with the program, or is understood by it: its files, its settings.
    pub fn of_release(name: impl Into<String>, value: impl Into<String>) -> Thing {
        Thing { name: name.into(), value: value.into(), of_release: true }
    }

    /// Something of the host.
    pub fn of_host(name: impl Into<String>, value: impl Into<String>) -> Thing {
        Thing { name: name.into(), value: value.into(), of_release: false }
    }
}

/// What a folder keeps of how things were declared. What is summed up may be short and easy to guess,
/// so each sum is made with a salt that never leaves the folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declared {
    /// Put before everything that is summed up; hexadecimal.
    salt: String,
    /// The version of the program that things were declared for; none was kept once.
    #[serde(default)]
    version: Option<String>,
    /// A sum of each thing, by its name.
    sums: BTreeMap<String, String>,
}

/// What a comparison came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// How it stands.
    pub check: Check,
    /// Sixteen digits that stand for how things are now: what is accepted is this and nothing else.
    pub state: String,
}

/// Where a process keeps what was declared.
pub trait Keep {
    /// What is kept; none if nothing was declared yet.
    fn read(&self) -> io::Result<Option<Declared>>;
    /// Keeps it, in the place of what was kept.
    fn write(&self, declared: &Declared) -> io::Result<()>;
}

/// A process that is compared with what was declared.
#[derive(Debug, Clone, Copy)]
pub struct Process<'a> {
    /// What somebody who accepts its state calls it.
    pub name: &'a str,
    /// The version of its program.
    pub version: &'a str,
}

impl Process<'_> {
    /// Compares things with what is kept. How they are is declared if nothing was before, and if it is
    /// the state that was `accepted`.
    pub fn judge(
        &self,
        things: &[Thing],
        accepted: Option<&str>,
        kept: &dyn Keep,
        entropy: &dyn Entropy,
    ) -> io::Result<Compared> {
        let declared = match kept.read()? {
            Some(declared) => declared,
            None => {
                let mut salt = [0; 16];
                entropy.fill(&mut salt).map_err(io::Error::other)?;
                let declared = Declared::new(&salt, self.version, things);
                kept.write(&declared)?;
                declared
            }
        };
        let compared = declared.compare(self, things);
        if accepted != Some(compared.state.as_str()) || compared.check.state == CheckState::Ok {
            return Ok(compared);
        }
        let again = Declared::salted(declared.salt, self.version, things);
        kept.write(&again)?;
        Ok(again.compare(self, things))
    }
}

impl Declared {
    /// Declares that things are to be as they are, for this version of the program.
    fn new(salt: &[u8; 16], version: &str, things: &[Thing]) -> Declared {
        Declared::salted(hex(salt), version, things)
    }

    fn salted(salt: String, version: &str, things: &[Thing]) -> Declared {
        let sums = things.iter().map(|thing| (thing.name.clone(), sum(&salt, thing))).collect();
        Declared { salt, version: Some(version.to_owned()), sums }
    }

    /// Compares things with how they were declared. It names what is another, and says nothing of how
    /// it is.
    fn compare(&self, process: &Process<'_>, things: &[Thing]) -> Compared {
        let Process { name: process, version } = process;
        let now = Declared::salted(self.salt.clone(), version, things);
        let state = now.state();
        let of_host = |name: &str| things.iter().any(|thing| thing.name == name && !thing.of_release);
        let mut names: Vec<&str> = self.sums.keys().chain(now.sums.keys()).map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        names.retain(|name| self.sums.get(*name) != now.sums.get(*name));
        let accept = format!("accept with `sekisho diagnostics accept {process} {state}`");
        let same = self.version.as_deref() == Some(*version);
        let check = match (same, names.is_empty()) {
            (true, true) => check(DECLARED, CheckState::Ok, "everything is as it was declared"),
            (true, false) => check(
                DECLARED,
                CheckState::Failed,
                format!("not as declared; {accept}: {}", names.join(", ")),
            ),
            (false, _) => {
                let from = self.version.as_deref().unwrap_or("an earlier version");
                let bad = names.iter().any(|name| of_host(name));
                let state = if bad { CheckState::Failed } else { CheckState::Warning };
                let others = if names.is_empty() { "nothing else is another" } else { &names.join(", ") };
                check(DECLARED, state, format!("upgraded from {from} to {version}; {accept}: {others}"))
            }
        };
        Compared { check, state }
    }

    fn state(&self) -> String {
        let mut hasher = Sha256::new();
        let parts = self.sums.iter().flat_map(|(name, sum)| [name.as_str(), sum.as_str()]);
        for part in [self.salt.as_str(), self.version.as_deref().unwrap_or_default()].into_iter().chain(parts)
        {
            // Lengths first, so that no two states look alike.
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hex(&hasher.finalize()[..SHOWN])
    }
}

/// The sum of a file, as it is told: its beginning.
pub fn shown(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes)[..SHOWN])
}

fn sum(salt: &str, thing: &Thing) -> String {
    hex(&Sha256::digest(format!("{salt}\n{}\n{}", thing.name, thing.value)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeededEntropy;

    fn things(config: &str, program: &str, runtime: &str) -> Vec<Thing> {
        vec![
            Thing::of_release("config.k", config),
            Thing::of_release("program", program),
            Thing::of_host("runtime", runtime),
        ]
    }

    fn compare(declared: &Declared, version: &str, things: &[Thing]) -> Compared {
        declared.compare(&Process { name: "agent:main", version }, things)
    }

    fn told(declared: &Declared, version: &str, things: &[Thing]) -> (CheckState, String) {
        let compared = compare(declared, version, things);
        assert_eq!(compared.state.len(), 2 * SHOWN);
        (compared.check.state, compared.check.detail.replace(&compared.state, "STATE"))
    }

    #[test]
    fn drift_is_named_and_not_shown() {
        let was = things("3", "aa", "runc");
        let declared = Declared::new(&[7; 16], "1.0", &was);
        assert_eq!(told(&declared, "1.0", &was).0, CheckState::Ok);
        let (state, detail) = told(&declared, "1.0", &things("4", "aa", "crun"));
        assert_eq!(state, CheckState::Failed);
        assert_eq!(
            detail,
            "not as declared; accept with `sekisho diagnostics accept agent:main STATE`: config.k, runtime"
        );
        let kept = serde_json::to_string(&declared).unwrap();
        assert!(!kept.contains("runc") && serde_json::from_str::<Declared>(&kept).unwrap() == declared);
        // What is gone, and what is new.
        let more = [&was[1..], &[Thing::of_host("init", "x")]].concat();
        assert!(told(&declared, "1.0", &more).1.ends_with(": config.k, init"));
    }

    #[test]
    fn an_upgrade_is_no_drift_until_the_host_is_another_too() {
        let was = things("3", "aa", "runc");
        let declared = Declared::new(&[7; 16], "1.0", &was);
        let (state, detail) = told(&declared, "1.1", &things("3", "bb", "runc"));
        assert_eq!(state, CheckState::Warning);
        assert_eq!(
            detail,
            "upgraded from 1.0 to 1.1; accept with `sekisho diagnostics accept agent:main STATE`: program"
        );
        let (state, detail) = told(&declared, "1.1", &things("3", "bb", "crun"));
        assert_eq!(state, CheckState::Failed, "{detail}");
        // Back again, nothing is another; and what is accepted is how things are from then on.
        assert_eq!(told(&declared, "1.0", &was).0, CheckState::Ok);
        let now = things("3", "bb", "runc");
        let accepted = Declared::new(&[7; 16], "1.1", &now);
        assert_eq!(told(&accepted, "1.1", &now).0, CheckState::Ok);
        assert_eq!(told(&accepted, "1.0", &was).0, CheckState::Warning, "a downgrade is told as well");
    }

    struct Memory(std::cell::RefCell<Option<Declared>>);

    impl Keep for Memory {
        fn read(&self) -> io::Result<Option<Declared>> {
            Ok(self.0.borrow().clone())
        }

        fn write(&self, declared: &Declared) -> io::Result<()> {
            *self.0.borrow_mut() = Some(declared.clone());
            Ok(())
        }
    }

    #[test]
    fn the_first_state_is_declared_and_later_ones_when_they_are_accepted() {
        let kept = Memory(None.into());
        let entropy = SeededEntropy::new(1);
        let judge = |version, things: &[Thing], accepted: Option<&str>| {
            Process { name: "broker", version }.judge(things, accepted, &kept, &entropy).unwrap()
        };
        let (one, two) = (things("3", "aa", "runc"), things("3", "bb", "runc"));
        assert_eq!(judge("1.0", &one, None).check.state, CheckState::Ok);
        let upgraded = judge("1.1", &two, None);
        assert_eq!(upgraded.check.state, CheckState::Warning);
        // Another state than the one that somebody saw is not accepted.
        let drifted = judge("1.1", &things("4", "bb", "runc"), Some(&upgraded.state));
        assert_eq!(drifted.check.state, CheckState::Warning);
        assert_eq!(judge("1.1", &two, Some("0123456789abcdef")).check.state, CheckState::Warning);
        let accepted = judge("1.1", &two, Some(&upgraded.state));
        assert_eq!((accepted.check.state, &accepted.state), (CheckState::Ok, &upgraded.state));
        assert_eq!(judge("1.1", &two, None).check.state, CheckState::Ok);
        assert_eq!(judge("1.1", &one, None).check.state, CheckState::Failed);
    }

    #[test]
    fn what_an_earlier_version_kept_is_understood() {
        let kept = r#"{"salt":"00","sums":{"config.k":"ff"}}"#;
        let declared: Declared = serde_json::from_str(kept).unwrap();
        let (state, detail) = told(&declared, "1.0", &things("3", "aa", "runc"));
        assert_eq!(state, CheckState::Failed, "the runtime was not declared: {detail}");
        assert!(detail.starts_with("upgraded from an earlier version to 1.0"), "{detail}");
        assert!(serde_json::from_str::<Declared>(r#"{"salt":"00"}"#).is_err());
    }

    #[test]
    fn a_state_stands_for_one_state_alone() {
        let declared = Declared::new(&[7; 16], "1.0", &things("3", "aa", "runc"));
        let state = |version: &str, things: &[Thing]| compare(&declared, version, things).state;
        let one = state("1.0", &things("3", "aa", "runc"));
        assert_eq!(one, state("1.0", &things("3", "aa", "runc")));
        for other in [state("1.1", &things("3", "aa", "runc")), state("1.0", &things("3", "ab", "runc"))] {
            assert_ne!(one, other);
        }
    }
}
