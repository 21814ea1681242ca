//! What takes a second officer: what was asked for, and what became of it.

use model::{ApprovalId, PersonId, Timestamp};
use policy::Matter;
use serde::Serialize;

use crate::records::TransitionError;

/// Something that somebody wants to do and somebody else must approve first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Approval {
    /// Which.
    pub id: ApprovalId,
    /// What kind of act it is.
    pub matter: Matter,
    /// The act itself, as the record of it will say: an approval is for this and nothing else.
    pub what: String,
    /// Who asked.
    pub asked_by: PersonId,
    /// When.
    pub asked_at: Timestamp,
    /// From when on it is neither approved nor used any more.
    pub expires: Timestamp,
    /// What became of it.
    #[serde(flatten)]
    pub state: ApprovalState,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum ApprovalState {
    /// Nobody has answered.
    Asked,
    /// Somebody else has approved it, and it is not done yet.
    Approved {
        /// Who.
        by: PersonId,
        /// When.
        at: Timestamp,
    },
    /// It was refused, or taken back.
    Refused {
        /// By whom.
        by: PersonId,
        /// When.
        at: Timestamp,
        /// Why.
        reason: String,
    },
    /// It was approved, and done: once.
    Used {
        /// Who had approved it.
        by: PersonId,
        /// When it was done.
        at: Timestamp,
    },
}

impl ApprovalState {
    /// The stable word for it.
    pub const fn code(&self) -> &'static str {
        match self {
            ApprovalState::Asked => "asked",
            ApprovalState::Approved { .. } => "approved",
            ApprovalState::Refused { .. } => "refused",
            ApprovalState::Used { .. } => "used",
        }
    }

    /// Somebody else approves it.
    pub fn approve(self, by: PersonId, at: Timestamp) -> Result<Self, TransitionError> {
        match self {
            ApprovalState::Asked => Ok(ApprovalState::Approved { by, at }),
            other => Err(TransitionError { from: other.code(), to: "approved" }),
        }
    }

    /// It is refused, also after it was approved, as long as it is not done.
    pub fn refuse(self, by: PersonId, at: Timestamp, reason: String) -> Result<Self, TransitionError> {
        match self {
            ApprovalState::Asked | ApprovalState::Approved { .. } => {
                Ok(ApprovalState::Refused { by, at, reason })
            }
            other => Err(TransitionError { from: other.code(), to: "refused" }),
        }
    }

    /// What was approved is done.
    pub fn make_use(self, at: Timestamp) -> Result<Self, TransitionError> {
        match self {
            ApprovalState::Approved { by, .. } => Ok(ApprovalState::Used { by, at }),
            other => Err(TransitionError { from: other.code(), to: "used" }),
        }
    }
}
