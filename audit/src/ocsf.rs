//! How an event is classed in the Open Cybersecurity Schema Framework, version 1.8.

use crate::{Change, Event, EventKind};

/// The OCSF version whose numbers these are.
pub(crate) const VERSION: &str = "1.8.0";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    Informational = 1,
    Low = 2,
    Medium = 3,
    High = 4,
    Critical = 5,
}

/// The numbers of one event. Its category is the thousands of its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) class: u32,
    pub(crate) activity: u32,
    pub(crate) severity: Severity,
    pub(crate) success: bool,
}

const ACCOUNT_CHANGE: u32 = 3001;
const AUTHENTICATION: u32 = 3002;
const ENTITY_MANAGEMENT: u32 = 3004;
const USER_ACCESS: u32 = 3005;
const SSH: u32 = 4007;
const TUNNEL: u32 = 4014;
const LIFECYCLE: u32 = 6002;
const API: u32 = 6003;
const DATASTORE: u32 = 6005;

pub(crate) fn class(event: &Event) -> Class {
    use EventKind as K;
    use Severity::{Critical, High, Informational, Low, Medium};
    let (class, activity, severity, success) = match &event.kind {
        K::Started { .. } => (LIFECYCLE, 3, Informational, true),
        K::Stopped { .. } => (LIFECYCLE, 4, Informational, true),
        K::LoginSucceeded { .. } => (AUTHENTICATION, 1, Informational, true),
        K::LoginRefused { .. } | K::AuthRefused { .. } => (AUTHENTICATION, 1, Medium, false),
        K::CertificateIssued { .. } | K::TokenIssued { .. } => (ENTITY_MANAGEMENT, 1, Informational, true),
        K::AgentEnrolled { .. } => (ENTITY_MANAGEMENT, 6, Low, true),
        K::AgentConnected { .. } => (TUNNEL, 1, Informational, true),
        K::AgentLost { .. } => (TUNNEL, 2, Medium, false),
        K::SessionOpened { .. } => (SSH, 1, Informational, true),
        K::SessionRefused { .. } => (SSH, 5, Medium, false),
        K::ChannelRefused { .. } => (SSH, 5, Medium, false),
        K::SessionClosed { .. } => (SSH, 2, Informational, true),
        K::SessionEnded { .. } => (SSH, 3, Low, true),
        K::DepositStarted { .. } | K::DepositCompleted { .. } => (DATASTORE, 5, Informational, true),
        K::DepositFailed { .. } | K::DepositRefused { .. } => (DATASTORE, 5, Medium, false),
        K::ReadFault { .. } => (DATASTORE, 1, High, false),
        K::ReadFailed { .. } => (DATASTORE, 1, Critical, false),
        K::WorkspaceStarted { .. } => (ENTITY_MANAGEMENT, 10, Informational, true),
        K::WorkspaceStopped { .. } => (ENTITY_MANAGEMENT, 11, Informational, true),
        K::GrantCreated { .. } => (USER_ACCESS, 1, Informational, true),
        K::GrantRevoked { .. } => (USER_ACCESS, 2, Low, true),
        K::PersonLocked { .. } => (ACCOUNT_CHANGE, 9, Medium, true),
        K::PersonUnlocked { .. } => (ACCOUNT_CHANGE, 12, Low, true),
        K::RecordChanged { change: Change::Created, .. } => (API, 1, Informational, true),
        K::RecordChanged { change: Change::Updated, .. } => (API, 3, Informational, true),
        K::RecordChanged { change: Change::Closed, .. } => (API, 4, Informational, true),
        K::AdminRefused { .. } => (API, 99, Medium, false),
        K::LogStopped { .. } => (LIFECYCLE, 4, Critical, false),
        K::WitnessRefused { .. } => (LIFECYCLE, 99, Critical, false),
        K::WitnessLagging { .. } => (LIFECYCLE, 99, High, false),
        K::WitnessRecovered { .. } => (LIFECYCLE, 99, Informational, true),
        K::SinkLagging { .. } => (LIFECYCLE, 99, High, false),
        K::SinkRecovered { .. } => (LIFECYCLE, 99, Informational, true),
    };
    Class { class, activity, severity, success }
}
