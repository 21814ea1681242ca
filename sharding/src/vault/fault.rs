//! Naming who misbehaved.

use std::fmt;

use model::{BackendId, ObjectId};

/// One backend's failure to give what it was given. Reading usually goes on without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Whose.
    pub backend: BackendId,
    /// Who runs it.
    pub institution: String,
    /// What was asked for.
    pub object: ObjectId,
    /// The block, counted from the beginning of the object; `None` for the manifest.
    pub block: Option<u64>,
    /// What was wrong.
    pub kind: FaultKind,
    /// More, for whoever repairs it. No secret and no data of the object.
    pub detail: String,
}

/// What was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// It says that it never had it.
    Missing,
    /// It gave other bytes than were deposited.
    Corrupt,
    /// It gave fewer bytes than were deposited.
    Short,
    /// It refused, or the way to it is broken.
    Unreachable,
    /// It did not answer in time.
    Timeout,
}

impl FaultKind {
    /// A stable word for logs.
    pub fn code(self) -> &'static str {
        match self {
            FaultKind::Missing => "missing",
            FaultKind::Corrupt => "corrupt",
            FaultKind::Short => "short",
            FaultKind::Unreachable => "unreachable",
            FaultKind::Timeout => "timeout",
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FaultKind::Missing => "does not have it",
            FaultKind::Corrupt => "gave other bytes than it was given",
            FaultKind::Short => "gave fewer bytes than it was given",
            FaultKind::Unreachable => "cannot be reached",
            FaultKind::Timeout => "did not answer in time",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) {}", self.backend, self.institution, self.kind)?;
        match self.block {
            Some(block) => write!(f, ": block {block} of {}", self.object)?,
            None => write!(f, ": manifest of {}", self.object)?,
        }
        if self.detail.is_empty() { Ok(()) } else { write!(f, " ({})", self.detail) }
    }
}

/// Where faults are told. Called from reading tasks: it must not block.
pub trait FaultSink: Send + Sync {
    /// Takes one.
    fn fault(&self, fault: Fault);
}

/// Drops them.
#[derive(Debug, Clone, Copy, Default)]
pub struct IgnoreFaults;

impl FaultSink for IgnoreFaults {
    fn fault(&self, _: Fault) {}
}

impl<F: Fn(Fault) + Send + Sync> FaultSink for F {
    fn fault(&self, fault: Fault) {
        self(fault);
    }
}
