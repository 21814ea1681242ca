//! The records of the programme: people, studies, datasets, grants, agents, sessions.
//!
//! They lie in SQLite, one file, written by one connection at a time. A call that returned without
//! an error is on disk (write-ahead log with `synchronous = FULL`); one that returned an error
//! changed nothing. Whatever policy depends on carries a number, the *policy epoch*, which grows in
//! the very transaction that changes it, so that nobody decides on rules older than the records
//! without being able to notice.
//!
//! What is not defended here: the file itself. Whoever can write it can grant themselves anything,
//! so it belongs to the broker's user alone (it is created with mode 0600); what was decided on it
//! is in the audit log, which the file's owner cannot change unseen.

mod approval;
mod entity;
mod error;
mod kept;
mod migration;
mod records;
mod store;
mod text;

pub use approval::{Approval, ApprovalState};
pub use error::{OpenError, StoreError, TakeError};
pub use kept::{KeptFile, KeptRecord, KeptState, KeptSubject, SubjectError};
pub use records::{
    Agent, AgentState, Claim, Dataset, Decoy, DecoyKind, DeviceKey, DeviceKeyState, EnrolmentToken, Grant,
    GrantState, Object, ObjectState, Person, PersonState, PolicySnapshot, Recording, RecordingOutcome,
    Session, SessionState, Study, StudyState, TokenSubject, TransitionError, Workspace, WorkspaceState,
};
pub use store::{RecordingFilter, Store};
