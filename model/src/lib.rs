//! What everything else speaks of: identifiers, instants, the two things a pure function may not take
//! from the air, time ([`Clock`]) and randomness ([`Entropy`]), the forms in which a process tells how
//! it is ([`metrics`]), the words for what is observed in workspaces ([`observed`]), and what to think of
//! the state of a host ([`diagnosis`], [`declared`]).
//!
//! No I/O happens here. The two ambient sources live in [`ambient`], the only module of the tree
//! that may ask the operating system for them; binaries construct them and hand them down.

pub mod ambient;
mod clock;
pub mod declared;
pub mod diagnosis;
mod entropy;
mod id;
pub mod metrics;
pub mod observed;
mod workspace;

pub use clock::{Clock, ManualClock, Timestamp, TimestampError};
pub use entropy::{Entropy, EntropyError, SeededEntropy};
pub use id::{
    AgentId, ApprovalId, BackendId, DatasetId, DecoyId, GrantId, IdError, ObjectId, PersonId, RoleId,
    SessionId, StudyId, TicketId, WorkspaceId,
};
pub use workspace::{WorkspaceLimits, WorkspaceName, WorkspaceNameError};
