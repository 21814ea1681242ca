//! What a workspace is called, and what it may use.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The most characters a name may have.
const NAME_MAX: usize = 32;

/// What a person calls one of their workspaces in a study: `main` unless they say otherwise.
///
/// It is lower-case letters, digits and `-` between them, so that it is safe behind a `+` in the user
/// name of SSH, in the name of a file, and joined by `.` to other names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkspaceName(String);

/// Why a text names no workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a workspace's name has 1 to {NAME_MAX} lower-case letters and digits, and '-' between them")]
pub struct WorkspaceNameError;

impl WorkspaceName {
    /// The name of the workspace that everybody begins with.
    pub const MAIN: &'static str = "main";

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the one that everybody begins with.
    pub fn is_main(&self) -> bool {
        self.0 == WorkspaceName::MAIN
    }
}

impl Default for WorkspaceName {
    fn default() -> WorkspaceName {
        WorkspaceName(WorkspaceName::MAIN.to_owned())
    }
}

impl FromStr for WorkspaceName {
    type Err = WorkspaceNameError;

    fn from_str(text: &str) -> Result<WorkspaceName, WorkspaceNameError> {
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let bytes = text.as_bytes();
        let inside = (1..=NAME_MAX).contains(&bytes.len()) && bytes.iter().all(|&c| plain(c) || c == b'-');
        if inside && plain(bytes[0]) && plain(bytes[bytes.len() - 1]) {
            Ok(WorkspaceName(text.to_owned()))
        } else {
            Err(WorkspaceNameError)
        }
    }
}

impl fmt::Display for WorkspaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for WorkspaceName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for WorkspaceName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<WorkspaceName, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

/// What one workspace may use at most, as its agent enforces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WorkspaceLimits {
    /// Processor time in hundredths of one processor.
    pub cpu_percent: u64,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The size of its home in MiB.
    pub disk_mib: u64,
    /// Processes and threads.
    pub processes: u64,
    /// Seconds after which it is stopped when nobody is in it.
    pub idle_secs: u64,
}

impl Default for WorkspaceLimits {
    fn default() -> WorkspaceLimits {
        WorkspaceLimits {
            cpu_percent: 400,
            memory_mib: 4096,
            disk_mib: 20 << 10,
            processes: 512,
            idle_secs: 30 * 60,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_are_safe_everywhere_are_names() {
        for good in ["main", "a", "big-run-2", "0"] {
            assert_eq!(good.parse::<WorkspaceName>().unwrap().as_str(), good);
        }
        let long = "x".repeat(NAME_MAX + 1);
        for bad in ["", "-a", "a-", "A", "a b", "a.b", "a+b", "../x", "a/b", "大", "a\n", &long] {
            assert!(bad.parse::<WorkspaceName>().is_err(), "{bad:?}");
        }
        assert!(WorkspaceName::default().is_main());
        assert!(serde_json::from_str::<WorkspaceName>("\"a/b\"").is_err());
    }
}
