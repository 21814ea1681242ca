//! The records as plain values. States are enums; a change of state is a method that refuses what
//! cannot follow.

use model::{
    AgentId, BackendId, DatasetId, DecoyId, GrantId, ObjectId, PersonId, RoleId, SessionId, StudyId,
    Timestamp, WorkspaceId, WorkspaceName,
};
use policy::{ChannelRules, GrantRule, Grantee, Membership, RecordingRule, StudyLimits, SupervisionRule};
use serde::Serialize;

/// A change that cannot follow the present state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is {from} and cannot become {to}")]
pub struct TransitionError {
    /// The present state, in a word.
    pub from: &'static str,
    /// The state asked for.
    pub to: &'static str,
}

/// A natural person on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Person {
    /// Who.
    pub id: PersonId,
    /// The name shown to others.
    pub display_name: String,
    /// The roles held in the programme.
    pub roles: Vec<RoleId>,
    /// When they were recorded.
    pub recorded_at: Timestamp,
    /// Whether they may do anything at all.
    pub state: PersonState,
}

/// Whether a person may do anything at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum PersonState {
    /// They may.
    Active,
    /// They are locked out.
    Locked {
        /// Since when.
        at: Timestamp,
        /// By whom.
        by: PersonId,
        /// Why.
        reason: String,
    },
}

impl PersonState {
    /// Locks an active person out.
    pub fn lock(self, at: Timestamp, by: PersonId, reason: String) -> Result<Self, TransitionError> {
        match self {
            PersonState::Active => Ok(PersonState::Locked { at, by, reason }),
            PersonState::Locked { .. } => Err(TransitionError { from: "locked", to: "locked" }),
        }
    }

    /// Lets a locked person in again.
    pub fn unlock(self) -> Result<Self, TransitionError> {
        match self {
            PersonState::Locked { .. } => Ok(PersonState::Active),
            PersonState::Active => Err(TransitionError { from: "active", to: "active" }),
        }
    }
}

/// The public key of a person's device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceKey {
    /// Whose.
    pub person: PersonId,
    /// The OpenSSH public key, `type base64`, without a comment.
    pub public_key: String,
    /// When it was enrolled.
    pub enrolled_at: Timestamp,
    /// Whether it still counts.
    pub state: DeviceKeyState,
}

/// Whether a device's key still counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum DeviceKeyState {
    /// It does.
    Active,
    /// It was withdrawn, for good.
    Retired {
        /// Since when.
        at: Timestamp,
    },
}

impl DeviceKeyState {
    /// Withdraws a key.
    pub fn retire(self, at: Timestamp) -> Result<Self, TransitionError> {
        match self {
            DeviceKeyState::Active => Ok(DeviceKeyState::Retired { at }),
            DeviceKeyState::Retired { .. } => Err(TransitionError { from: "retired", to: "retired" }),
        }
    }
}

/// For whom an enrolment token is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokenSubject {
    /// A person's first login from a device.
    Person(PersonId),
    /// An agent's first certificate.
    Agent(AgentId),
}

/// A one-time enrolment token. Only the hash of its secret is on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolmentToken {
    /// The hash of the secret.
    pub hash: [u8; 32],
    /// For whom it is.
    pub subject: TokenSubject,
    /// The first instant at which it no longer counts.
    pub expires: Timestamp,
}

/// An approved research project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Study {
    /// Which.
    pub id: StudyId,
    /// Its title.
    pub title: String,
    /// The purposes approved, as codes (`DS:MONDO:0004992`, `HMB`).
    pub purposes: Vec<String>,
    /// The first instant at which the approval no longer holds.
    pub until: Timestamp,
    /// Whether work goes on.
    pub state: StudyState,
    /// The channels that it permits inside a connection, by name.
    #[serde(serialize_with = "channel_names")]
    pub channels: ChannelRules,
    /// How its sessions are recorded.
    pub recording: RecordingRule,
    /// How they are supervised.
    pub supervision: SupervisionRule,
    /// What it lets its people use.
    pub limits: StudyLimits,
}

fn channel_names<S: serde::Serializer>(rules: &ChannelRules, to: S) -> Result<S::Ok, S::Error> {
    rules.names().serialize(to)
}

/// Whether work on a study goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum StudyState {
    /// It does.
    Active,
    /// It was closed, for good.
    Closed {
        /// Since when.
        at: Timestamp,
    },
}

impl StudyState {
    /// Closes an active study.
    pub fn close(self, at: Timestamp) -> Result<Self, TransitionError> {
        match self {
            StudyState::Active => Ok(StudyState::Closed { at }),
            StudyState::Closed { .. } => Err(TransitionError { from: "closed", to: "closed" }),
        }
    }
}

/// A set of objects under the same conditions of use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dataset {
    /// Which.
    pub id: DatasetId,
    /// Its title.
    pub title: String,
    /// Alternatives, each a list of codes of the Data Use Ontology.
    pub conditions: Vec<Vec<String>>,
}

/// A stored file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Object {
    /// Which.
    pub id: ObjectId,
    /// The dataset it belongs to.
    pub dataset: DatasetId,
    /// Its file name in the dataset; one object that is not abandoned has it.
    pub name: String,
    /// Who hands it over.
    pub deposited_by: PersonId,
    /// When the deposit began.
    pub begun_at: Timestamp,
    /// Where its shares lie, once they do; none known of those stored before this was recorded.
    pub backends: Vec<BackendId>,
    /// Whether it can be read.
    pub state: ObjectState,
}

/// Whether an object can be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum ObjectState {
    /// The deposit is going on.
    Pending,
    /// Its shares lie on the backends.
    Stored {
        /// Length of the file in bytes.
        size: u64,
        /// The root that its manifest must have.
        #[serde(serialize_with = "hex")]
        manifest_root: [u8; 32],
        /// Since when.
        at: Timestamp,
    },
    /// The deposit ended without success; the name is free again.
    Abandoned {
        /// Since when.
        at: Timestamp,
    },
}

impl ObjectState {
    /// Completes a deposit.
    pub fn store(self, size: u64, manifest_root: [u8; 32], at: Timestamp) -> Result<Self, TransitionError> {
        match self {
            ObjectState::Pending => Ok(ObjectState::Stored { size, manifest_root, at }),
            other => Err(TransitionError { from: other.word(), to: "stored" }),
        }
    }

    /// Gives a deposit up.
    pub fn abandon(self, at: Timestamp) -> Result<Self, TransitionError> {
        match self {
            ObjectState::Pending => Ok(ObjectState::Abandoned { at }),
            other => Err(TransitionError { from: other.word(), to: "abandoned" }),
        }
    }

    fn word(&self) -> &'static str {
        match self {
            ObjectState::Pending => "pending",
            ObjectState::Stored { .. } => "stored",
            ObjectState::Abandoned { .. } => "abandoned",
        }
    }
}

/// The permission of a study to use a dataset for a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Grant {
    /// Which.
    pub id: GrantId,
    /// The study.
    pub study: StudyId,
    /// The dataset.
    pub dataset: DatasetId,
    /// Who in the study.
    pub grantee: Grantee,
    /// The first instant at which it holds.
    pub not_before: Timestamp,
    /// The first instant at which it no longer holds.
    pub not_after: Timestamp,
    /// Who recorded it.
    pub granted_by: PersonId,
    /// Whether it was revoked.
    pub state: GrantState,
}

/// Whether a grant was revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum GrantState {
    /// It was not.
    Active,
    /// It was, for good.
    Revoked {
        /// Since when.
        at: Timestamp,
        /// By whom.
        by: PersonId,
        /// Why.
        reason: String,
    },
}

impl GrantState {
    /// Revokes an active grant.
    pub fn revoke(self, at: Timestamp, by: PersonId, reason: String) -> Result<Self, TransitionError> {
        match self {
            GrantState::Active => Ok(GrantState::Revoked { at, by, reason }),
            GrantState::Revoked { .. } => Err(TransitionError { from: "revoked", to: "revoked" }),
        }
    }
}

/// A process that runs workspaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Agent {
    /// Which.
    pub id: AgentId,
    /// When it was last enrolled.
    pub enrolled_at: Timestamp,
    /// When it was last connected, if ever.
    pub last_seen: Option<Timestamp>,
    /// Since when it takes no new work, if it is being taken out of service.
    pub draining_since: Option<Timestamp>,
    /// Whether it is trusted with work.
    pub state: AgentState,
}

/// Whether an agent is trusted with work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum AgentState {
    /// It is.
    Active,
    /// It no longer is, until it is enrolled anew.
    Retired {
        /// Since when.
        at: Timestamp,
    },
}

impl AgentState {
    /// Trusts an agent no longer.
    pub fn retire(self, at: Timestamp) -> Result<Self, TransitionError> {
        match self {
            AgentState::Active => Ok(AgentState::Retired { at }),
            AgentState::Retired { .. } => Err(TransitionError { from: "retired", to: "retired" }),
        }
    }
}

/// One stay of one person in a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Session {
    /// Which.
    pub id: SessionId,
    /// Whose.
    pub person: PersonId,
    /// In which study.
    pub study: StudyId,
    /// On which agent.
    pub agent: AgentId,
    /// Since when.
    pub opened: Timestamp,
    /// Whether it goes on.
    pub state: SessionState,
}

/// A workspace of a person in a study. It lies on one agent, where its home is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Workspace {
    /// Which.
    pub id: WorkspaceId,
    /// In which study.
    pub study: StudyId,
    /// Whose.
    pub person: PersonId,
    /// What they call it.
    pub name: WorkspaceName,
    /// Where it lies.
    pub agent: AgentId,
    /// Since when it is there.
    pub created_at: Timestamp,
    /// When it was last entered.
    pub used_at: Timestamp,
    /// Whether it may run.
    pub state: WorkspaceState,
}

/// Whether a workspace may run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum WorkspaceState {
    /// It starts whenever it is entered.
    Open,
    /// Somebody stopped it, until it is let go on.
    Held {
        /// Since when.
        at: Timestamp,
        /// Who.
        by: PersonId,
        /// Why.
        reason: String,
    },
}

/// What became of a claim on a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// It was there; where it lies is as recorded.
    Known(Workspace),
    /// It is there from now on.
    Made,
    /// The person has so many in the study already.
    TooMany(u64),
}

/// Whether a session goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum SessionState {
    /// It does.
    Open,
    /// It ended.
    Closed {
        /// When.
        at: Timestamp,
        /// How, in a word or two.
        outcome: String,
    },
}

impl SessionState {
    /// Ends an open session.
    pub fn close(self, at: Timestamp, outcome: String) -> Result<Self, TransitionError> {
        match self {
            SessionState::Open => Ok(SessionState::Closed { at, outcome }),
            SessionState::Closed { .. } => Err(TransitionError { from: "closed", to: "closed" }),
        }
    }
}

/// What a session looked like is kept, and what is known of that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Recording {
    /// Of which session.
    pub session: SessionId,
    /// Whose.
    pub person: PersonId,
    /// In which study.
    pub study: StudyId,
    /// The command, where it was not an interactive shell.
    pub command: Option<String>,
    /// When it began.
    pub begun: Timestamp,
    /// How long it is, in milliseconds.
    pub millis: u64,
    /// How many events it has.
    pub events: u64,
    /// How many bytes of asciicast.
    pub bytes: u64,
    /// Their SHA-256.
    #[serde(serialize_with = "as_hex")]
    pub sha256: [u8; 32],
    /// How many bytes are stored of it, sealed.
    pub stored_bytes: u64,
    /// Their SHA-256.
    #[serde(serialize_with = "as_hex")]
    pub stored_sha256: [u8; 32],
    /// Bytes of output that were left out of it.
    pub elided: u64,
    /// Whether it has everything else.
    pub outcome: RecordingOutcome,
    /// The index in the log of the record that seals it.
    pub record: u64,
    /// That record, as the log has it; empty where it could not be read again.
    #[serde(skip)]
    pub entry: String,
}

/// Whether a recording has all that it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordingOutcome {
    /// It does.
    Whole,
    /// Whoever wrote it was stopped: it has what was on the disk by then.
    Interrupted,
    /// It could not be written any further, and the session went on.
    Degraded,
}

impl RecordingOutcome {
    /// Its stable name in the database and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            RecordingOutcome::Whole => "whole",
            RecordingOutcome::Interrupted => "interrupted",
            RecordingOutcome::Degraded => "degraded",
        }
    }
}

fn as_hex<S: serde::Serializer>(hash: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
    hex_digits(hash).serialize(to)
}

/// Everything that policy is compiled from, read at one instant. Revoked grants are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySnapshot {
    /// The number of this state of the records.
    pub epoch: u64,
    /// Who has which role in which study.
    pub memberships: Vec<Membership>,
    /// The grants that are not revoked, expired ones among them.
    pub grants: Vec<GrantRule>,
}

pub(crate) fn hex<S: serde::Serializer>(bytes: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&hex_digits(bytes))
}

pub(crate) fn hex_digits(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Something laid out to be touched by whoever should not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decoy {
    /// Its identifier, by which the log calls it: it says nothing about what it is.
    pub id: DecoyId,
    /// What sort of thing it is.
    pub kind: DecoyKind,
    /// What it is: an IP address, the fingerprint of a key, a stored file or a dataset.
    pub what: String,
    /// Where it was laid out, for those who will have to find it again.
    pub note: String,
    /// Since when.
    pub added_at: Timestamp,
    /// By whom.
    pub added_by: PersonId,
}

/// What sort of thing a decoy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecoyKind {
    /// An IP address.
    Address,
    /// A key.
    Key,
    /// A stored file or a dataset.
    Object,
}

impl DecoyKind {
    /// The stable word that stands for it.
    pub const fn code(self) -> &'static str {
        match self {
            DecoyKind::Address => "address",
            DecoyKind::Key => "key",
            DecoyKind::Object => "object",
        }
    }

    /// The kind of that word.
    pub fn from_code(code: &str) -> Option<DecoyKind> {
        [DecoyKind::Address, DecoyKind::Key, DecoyKind::Object].into_iter().find(|kind| kind.code() == code)
    }
}
