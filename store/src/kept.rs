//! The house's own records that are kept as secret shares.

use std::fmt;
use std::str::FromStr;

use model::{ObjectId, SessionId, Timestamp};
use serde::Serialize;

use crate::records::{TransitionError, hex};

/// What is kept. It prints and parses as text that is the same for the same thing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum KeptSubject {
    /// A part of the audit log.
    AuditSegment {
        /// Index of its first entry.
        first: u64,
        /// How many entries.
        count: u64,
    },
    /// The recording of a session.
    SessionRecording {
        /// Which session.
        session: SessionId,
    },
}

/// A text that names nothing that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it names nothing that is kept")]
pub struct SubjectError;

impl KeptSubject {
    /// The stable word for its kind.
    pub const fn kind(&self) -> &'static str {
        match self {
            KeptSubject::AuditSegment { .. } => "audit-segment",
            KeptSubject::SessionRecording { .. } => "session-recording",
        }
    }

    /// Of a part of the log, the first entry and how many there are.
    pub fn entries(&self) -> Option<(u64, u64)> {
        match self {
            KeptSubject::AuditSegment { first, count } => Some((*first, *count)),
            KeptSubject::SessionRecording { .. } => None,
        }
    }

    /// Of a recording, the session.
    pub fn session(&self) -> Option<&SessionId> {
        match self {
            KeptSubject::AuditSegment { .. } => None,
            KeptSubject::SessionRecording { session } => Some(session),
        }
    }
}

impl fmt::Display for KeptSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeptSubject::AuditSegment { first, count } => write!(f, "entries:{first}+{count}"),
            KeptSubject::SessionRecording { session } => write!(f, "recording:{session}"),
        }
    }
}

impl FromStr for KeptSubject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        let subject = match text.split_once(':').ok_or(SubjectError)? {
            ("entries", range) => {
                let (first, count) = range.split_once('+').ok_or(SubjectError)?;
                KeptSubject::AuditSegment {
                    first: first.parse().map_err(|_| SubjectError)?,
                    count: count.parse().map_err(|_| SubjectError)?,
                }
            }
            ("recording", session) => {
                KeptSubject::SessionRecording { session: session.parse().map_err(|_| SubjectError)? }
            }
            _ => return Err(SubjectError),
        };
        if subject.to_string() == text { Ok(subject) } else { Err(SubjectError) }
    }
}

/// A record of the house that is kept, or on its way there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeptRecord {
    /// The object that it is; the same through all attempts.
    pub object: ObjectId,
    /// What it is.
    #[serde(flatten)]
    pub subject: KeptSubject,
    /// When it was first tried.
    pub begun_at: Timestamp,
    /// How far it is.
    #[serde(flatten)]
    pub state: KeptState,
    /// How many entries the audit log had when it came into this state: whatever the log says about
    /// that stands at this index or after.
    #[serde(skip)]
    pub since: u64,
}

/// What was deposited, as it was read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeptFile {
    /// Bytes.
    pub size: u64,
    /// SHA-256.
    #[serde(serialize_with = "hex")]
    pub sha256: [u8; 32],
    /// Of a part of the log: the RFC 6962 root over its entries.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "maybe_hex")]
    pub content_root: Option<[u8; 32]>,
    /// The root that its manifest must have.
    #[serde(serialize_with = "hex")]
    pub manifest_root: [u8; 32],
}

fn maybe_hex<S: serde::Serializer>(root: &Option<[u8; 32]>, to: S) -> Result<S::Ok, S::Error> {
    match root {
        Some(root) => hex(root, to),
        None => to.serialize_none(),
    }
}

/// How far a record is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum KeptState {
    /// It is being deposited, again and again if need be.
    Pending,
    /// It lies on the backends and was read back; the log may not say so yet.
    Stored {
        /// What was deposited.
        file: KeptFile,
    },
    /// The log says so.
    Kept {
        /// What was deposited.
        file: KeptFile,
        /// Where in the log.
        record: u64,
        /// Since when.
        at: Timestamp,
    },
    /// The copy in the house is going; it may be gone in part.
    Moving {
        /// What was deposited.
        file: KeptFile,
        /// Where in the log it says that it was kept.
        record: u64,
        /// Since when it was kept.
        at: Timestamp,
    },
    /// The copy in the house is gone.
    Moved {
        /// What was deposited.
        file: KeptFile,
        /// Where in the log it says that it was kept.
        record: u64,
        /// Since when it was kept.
        at: Timestamp,
    },
}

impl KeptState {
    /// The stable word for it.
    pub const fn code(&self) -> &'static str {
        match self {
            KeptState::Pending => "pending",
            KeptState::Stored { .. } => "stored",
            KeptState::Kept { .. } => "kept",
            KeptState::Moving { .. } => "moving",
            KeptState::Moved { .. } => "moved",
        }
    }

    /// What was deposited, once it was read back.
    pub fn file(&self) -> Option<&KeptFile> {
        match self {
            KeptState::Pending => None,
            KeptState::Stored { file }
            | KeptState::Kept { file, .. }
            | KeptState::Moving { file, .. }
            | KeptState::Moved { file, .. } => Some(file),
        }
    }

    /// What was deposited, once the log says so.
    pub fn kept(&self) -> Option<&KeptFile> {
        match self {
            KeptState::Pending | KeptState::Stored { .. } => None,
            other => other.file(),
        }
    }

    /// It was deposited and read back.
    pub fn store(self, file: KeptFile) -> Result<Self, TransitionError> {
        match self {
            KeptState::Pending => Ok(KeptState::Stored { file }),
            other => Err(TransitionError { from: other.code(), to: "stored" }),
        }
    }

    /// The log says so.
    pub fn keep(self, record: u64, at: Timestamp) -> Result<Self, TransitionError> {
        match self {
            KeptState::Stored { file } => Ok(KeptState::Kept { file, record, at }),
            other => Err(TransitionError { from: other.code(), to: "kept" }),
        }
    }

    /// The copy in the house is to go. What is going already may begin again.
    pub fn begin_move(self) -> Result<Self, TransitionError> {
        match self {
            KeptState::Kept { file, record, at } | KeptState::Moving { file, record, at } => {
                Ok(KeptState::Moving { file, record, at })
            }
            other => Err(TransitionError { from: other.code(), to: "moving" }),
        }
    }

    /// The copy in the house is gone.
    pub fn end_move(self) -> Result<Self, TransitionError> {
        match self {
            KeptState::Moving { file, record, at } => Ok(KeptState::Moved { file, record, at }),
            other => Err(TransitionError { from: other.code(), to: "moved" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_has_one_name() {
        let session = SessionId::from_name("s1").unwrap();
        for subject in [
            KeptSubject::AuditSegment { first: 65_536, count: 256 },
            KeptSubject::SessionRecording { session },
        ] {
            assert_eq!(subject.to_string().parse(), Ok(subject));
        }
        for bad in ["", "entries:1", "entries:01+256", "entries:-1+2", "recording:u:alice", "other:1+2"] {
            assert_eq!(bad.parse::<KeptSubject>(), Err(SubjectError), "{bad}");
        }
    }
}
