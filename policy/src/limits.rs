//! What a study lets each of its people use: the size of a workspace, and how many of what.

use std::fmt;

use model::WorkspaceLimits;
use serde::{Deserialize, Serialize};

/// The limits of a study. The default is what a study begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StudyLimits {
    /// What each workspace may use.
    #[serde(flatten)]
    pub workspace: WorkspaceLimits,
    /// Workspaces that one person may have in the study.
    pub workspaces: u64,
    /// Sessions that one person may have in the study at once. Forwarded ports do not count.
    pub sessions: u64,
}

impl Default for StudyLimits {
    fn default() -> StudyLimits {
        StudyLimits { workspace: WorkspaceLimits::default(), workspaces: 3, sessions: 32 }
    }
}

/// One of the limits, by the name that it has on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// Processors, in hundredths of one.
    Cpus,
    /// Memory, in MiB.
    Memory,
    /// The home, in MiB.
    Disk,
    /// Processes and threads.
    Processes,
    /// Seconds without anybody in it.
    Idle,
    /// Workspaces of one person.
    Workspaces,
    /// Sessions of one person at once.
    Sessions,
}

impl Limit {
    /// Every one.
    pub const ALL: [Limit; 7] = [
        Limit::Cpus,
        Limit::Memory,
        Limit::Disk,
        Limit::Processes,
        Limit::Idle,
        Limit::Workspaces,
        Limit::Sessions,
    ];

    /// Its stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Limit::Cpus => "cpus",
            Limit::Memory => "memory",
            Limit::Disk => "disk",
            Limit::Processes => "processes",
            Limit::Idle => "idle",
            Limit::Workspaces => "workspaces",
            Limit::Sessions => "sessions",
        }
    }

    /// What a number of it may be. Below, nothing works; above, it is no limit.
    pub const fn range(self) -> (u64, u64) {
        match self {
            Limit::Cpus => (10, 102_400),
            Limit::Memory => (64, 16 << 20),
            Limit::Disk => (16, 64 << 20),
            Limit::Processes => (16, 1 << 20),
            Limit::Idle => (1, 30 * 24 * 3600),
            Limit::Workspaces => (1, 64),
            Limit::Sessions => (1, 1024),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A number that no such limit can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{limit} is from {least} to {most}, not {asked}")]
pub struct LimitOutOfRange {
    limit: Limit,
    least: u64,
    most: u64,
    asked: u64,
}

impl StudyLimits {
    /// One of the limits.
    pub fn get(&self, limit: Limit) -> u64 {
        match limit {
            Limit::Cpus => self.workspace.cpu_percent,
            Limit::Memory => self.workspace.memory_mib,
            Limit::Disk => self.workspace.disk_mib,
            Limit::Processes => self.workspace.processes,
            Limit::Idle => self.workspace.idle_secs,
            Limit::Workspaces => self.workspaces,
            Limit::Sessions => self.sessions,
        }
    }

    /// Changes one of the limits.
    pub fn set(&mut self, limit: Limit, to: u64) -> Result<(), LimitOutOfRange> {
        let (least, most) = limit.range();
        if !(least..=most).contains(&to) {
            return Err(LimitOutOfRange { limit, least, most, asked: to });
        }
        *match limit {
            Limit::Cpus => &mut self.workspace.cpu_percent,
            Limit::Memory => &mut self.workspace.memory_mib,
            Limit::Disk => &mut self.workspace.disk_mib,
            Limit::Processes => &mut self.workspace.processes,
            Limit::Idle => &mut self.workspace.idle_secs,
            Limit::Workspaces => &mut self.workspaces,
            Limit::Sessions => &mut self.sessions,
        } = to;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_stays_in_its_range() {
        let mut limits = StudyLimits::default();
        for limit in Limit::ALL {
            let (least, most) = limit.range();
            assert!(limits.set(limit, least - 1).is_err() && limits.set(limit, most + 1).is_err());
            limits.set(limit, most).unwrap();
            assert_eq!(limits.get(limit), most);
            limits.set(limit, least).unwrap();
            assert_eq!(limits.get(limit), least, "{limit}");
        }
    }
}
