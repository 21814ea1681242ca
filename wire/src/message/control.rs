use model::observed::{Diagnosis, Observation};
use model::{BackendId, ObjectId, SessionId, WorkspaceId};
use serde::{Deserialize, Serialize};

/// Agent → broker on the control stream, the first stream of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentControl {
    /// Once, first.
    Hello(Hello),
    /// Something happened. Sent again after a reconnection until it is acknowledged.
    Report(Report),
    /// How much is going on. The latest counts; nobody records it.
    Load(Load),
}

/// Broker → agent on the control stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerControl {
    /// The agent is in; orders may follow on streams of their own.
    Welcome {
        /// The version both sides speak from here on.
        version: u16,
        /// The broker's trust domain.
        td: String,
    },
    /// The agent is not let in; the connection ends.
    Reject {
        /// A sentence for the agent's operator.
        reason: String,
    },
    /// Every report up to and including `seq` is recorded.
    Ack {
        /// The highest sequence number recorded.
        seq: u64,
    },
    /// How the agent and its host are is from now on how they are meant to be, if it is still this
    /// state that they are in.
    Accept {
        /// The digits that stand for the state, as the agent told them.
        state: String,
    },
    /// Do something that needs no stream: a sealed ticket for a workspace. What comes of it is told
    /// by a report.
    Order {
        /// The sealed ticket; the agent checks it again.
        ticket: Vec<u8>,
    },
}

/// Who the agent is and what it can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The version of the protocol the agent speaks, [`crate::message::VERSION`].
    pub version: u16,
    /// The agent program's name and version.
    pub agent: String,
    /// The kernel's release, for diagnostics.
    pub kernel: String,
    /// The X25519 public key that Crypt4GH uploads are encrypted to.
    pub intake_key: [u8; 32],
    /// The X25519 public key that the broker encrypts records of the house itself to. It is another
    /// one, so that no upload can be passed off as such a record, which the agent hands out again.
    pub keeping_key: [u8; 32],
    /// The backends whose shares the agent can reach, each with the institution that runs it.
    pub backends: Vec<(BackendId, String)>,
    /// Those of them that are near: in the same building, or as good as.
    pub near: Vec<BackendId>,
    /// How many sessions may run at once.
    pub capacity: u32,
    /// How much is going on, as [`AgentControl::Load`] tells later.
    pub load: Load,
}

/// The most workspaces that one [`Load`] names.
pub const RUNNING_MAX: usize = 512;

/// How much is going on at an agent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Load {
    /// Sessions that run.
    pub sessions: u32,
    /// How busy the host's processors are, in thousandths of all of them.
    pub cpu_permille: u16,
    /// How much of the host's memory is in use, in thousandths.
    pub memory_permille: u16,
    /// The workspaces that run, at most [`RUNNING_MAX`].
    pub running: Vec<Running>,
}

/// A workspace that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Which.
    pub workspace: WorkspaceId,
    /// How many sessions are in it.
    pub sessions: u32,
    /// For how many seconds nobody has been in it.
    pub idle_secs: u32,
}

/// An [`AgentEvent`] with its place in the order of the agent's reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Counts up from 1 for as long as the agent process lives.
    pub seq: u64,
    /// What happened.
    pub event: AgentEvent,
}

/// What an agent has the broker record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentEvent {
    /// A backend did not give a good share; the read went on with others if it could.
    ReadFault {
        /// The session that read, if one did.
        session: Option<SessionId>,
        /// What was read.
        object: ObjectId,
        /// Which backend failed.
        backend: BackendId,
        /// The institution that runs it.
        institution: String,
        /// How it failed.
        kind: FaultKind,
        /// The block concerned, if one was.
        block: Option<u64>,
        /// A sentence for the operator.
        detail: String,
    },
    /// Too few good shares were left: a read failed.
    ReadFailed {
        /// The session that read, if one did.
        session: Option<SessionId>,
        /// What was read.
        object: ObjectId,
        /// The block concerned, if one was.
        block: Option<u64>,
        /// A sentence for the operator.
        detail: String,
    },
    /// A workspace runs.
    WorkspaceStarted {
        /// Which.
        workspace: WorkspaceId,
        /// Milliseconds from the order until it ran.
        cold_ms: u64,
    },
    /// A workspace is gone.
    WorkspaceStopped {
        /// Which.
        workspace: WorkspaceId,
        /// Why.
        reason: String,
    },
    /// Something was done in a workspace.
    Observed {
        /// Where.
        workspace: WorkspaceId,
        /// In which session, if that could be told.
        session: Option<SessionId>,
        /// What.
        what: Observation,
    },
    /// How the agent and its host are.
    Diagnosed(Diagnosis),
}

/// How a backend failed to give a good share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FaultKind {
    /// The share is not there.
    Missing,
    /// The share is there and is not what the manifest says.
    Corrupt,
    /// The share ends too early.
    Short,
    /// The backend cannot be reached, or answers with an error.
    Unreachable,
    /// The backend did not answer in time.
    Timeout,
}
