use std::fmt;

use model::{DatasetId, PersonId, RoleId, StudyId, Timestamp};

use crate::channel::{CertificateRules, Channel, ChannelRules};
use crate::duo::{ConditionSet, Purpose};
use crate::recording::RecordingRule;
use crate::supervision::SupervisionRule;

/// What someone wants, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who asks, as authenticated by a certificate.
    pub person: PersonId,
    /// The study in whose name they ask; required to open a session or to read.
    pub study: Option<StudyId>,
    /// The dataset they ask for; required to read or to deposit.
    pub dataset: Option<DatasetId>,
    /// What they want to do.
    pub action: Action,
    /// What for. Without one, a study's work is for all of the study's purposes together, so each
    /// of them must be allowed.
    pub purpose: Option<Purpose>,
    /// The instant of the request.
    pub now: Timestamp,
}

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// To open a session in a study's workspace.
    OpenSession,
    /// To open one kind of channel in such a session.
    Channel(Channel),
    /// To read a dataset from within a study.
    ReadDataset,
    /// To stop another member's workspace in a study, or to let it go on.
    ManageWorkspace,
    /// To hand over a file into a dataset.
    Deposit,
    /// To receive one's own short-lived certificates.
    IssueCertificate,
    /// To see recordings of sessions.
    PlayRecording,
    /// To keep a record of the house itself, such as a part of its audit log, as secret shares.
    KeepRecord,
    /// To have such a record back.
    FetchRecord,
    /// To administer the programme.
    Administer(AdminAction),
}

/// The programme's administration, action by action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AdminAction {
    /// To record an approved study.
    CreateStudy,
    /// To record a dataset and its conditions of use.
    CreateDataset,
    /// To record a person, their roles in the programme, and a token for their first login.
    EnrolPerson,
    /// To lock a person out at once, or to let a locked one in again.
    LockPerson,
    /// To say which channels a study permits.
    SetChannels,
    /// To say how sessions of a study are recorded.
    SetRecording,
    /// To say how sessions of a study are supervised.
    SetSupervision,
    /// To say what workspaces of a study may use.
    SetLimits,
    /// To stop anybody's workspace, or to let it go on.
    ManageWorkspaces,
    /// To add a person to a study, or remove one.
    AddMember,
    /// To grant a study the use of a dataset.
    Grant,
    /// To revoke a grant.
    Revoke,
    /// To enrol an agent.
    EnrolAgent,
    /// To know how the processes of the house and their hosts are.
    ReadDiagnostics,
    /// To accept the state of a process and its host as the one that was meant.
    AcceptState,
    /// To take an agent out of service for a while, or the broker.
    Drain,
    /// To issue a certificate for a service.
    IssueService,
    /// To read the audit log.
    ReadAudit,
    /// To lay out decoys, and to know of them.
    ManageDecoys,
    /// To know which sessions go on.
    ListSessions,
    /// To look at a session that goes on.
    WatchSession,
    /// To type in somebody else's session.
    JoinSession,
    /// To say something on the terminal of a session.
    MessageSession,
    /// To end a session.
    KillSession,
    /// To list the programme's records.
    ListRecords,
}

impl AdminAction {
    /// Every one of them, in the order of the authorisation matrix.
    pub const ALL: [AdminAction; 25] = [
        AdminAction::CreateStudy,
        AdminAction::CreateDataset,
        AdminAction::EnrolPerson,
        AdminAction::LockPerson,
        AdminAction::SetChannels,
        AdminAction::SetRecording,
        AdminAction::SetSupervision,
        AdminAction::SetLimits,
        AdminAction::ManageWorkspaces,
        AdminAction::AddMember,
        AdminAction::Grant,
        AdminAction::Revoke,
        AdminAction::EnrolAgent,
        AdminAction::ReadDiagnostics,
        AdminAction::AcceptState,
        AdminAction::Drain,
        AdminAction::IssueService,
        AdminAction::ReadAudit,
        AdminAction::ManageDecoys,
        AdminAction::ListSessions,
        AdminAction::WatchSession,
        AdminAction::JoinSession,
        AdminAction::MessageSession,
        AdminAction::KillSession,
        AdminAction::ListRecords,
    ];
}

impl Action {
    /// Every one of them, in the order of the authorisation matrix.
    pub fn all() -> impl Iterator<Item = Action> {
        let own = [
            Action::OpenSession,
            Action::ReadDataset,
            Action::ManageWorkspace,
            Action::Deposit,
            Action::IssueCertificate,
            Action::PlayRecording,
            Action::KeepRecord,
            Action::FetchRecord,
        ];
        own.into_iter()
            .chain(Channel::ALL.into_iter().map(Action::Channel))
            .chain(AdminAction::ALL.into_iter().map(Action::Administer))
    }

    /// Its stable name in rules and in the audit log.
    pub const fn name(self) -> &'static str {
        match self {
            Action::OpenSession => "open-session",
            Action::Channel(channel) => channel.action(),
            Action::ReadDataset => "read-dataset",
            Action::ManageWorkspace => "manage-workspace",
            Action::Deposit => "deposit",
            Action::IssueCertificate => "issue-certificate",
            Action::PlayRecording => "play-recording",
            Action::KeepRecord => "keep-record",
            Action::FetchRecord => "fetch-record",
            Action::Administer(action) => match action {
                AdminAction::CreateStudy => "create-study",
                AdminAction::CreateDataset => "create-dataset",
                AdminAction::EnrolPerson => "enrol-person",
                AdminAction::LockPerson => "lock-person",
                AdminAction::SetChannels => "set-channels",
                AdminAction::SetRecording => "set-recording",
                AdminAction::SetSupervision => "set-supervision",
                AdminAction::ListSessions => "list-sessions",
                AdminAction::WatchSession => "watch-session",
                AdminAction::JoinSession => "join-session",
                AdminAction::MessageSession => "message-session",
                AdminAction::KillSession => "kill-session",
                AdminAction::SetLimits => "set-limits",
                AdminAction::ManageWorkspaces => "manage-workspaces",
                AdminAction::AddMember => "add-member",
                AdminAction::Grant => "grant",
                AdminAction::Revoke => "revoke",
                AdminAction::EnrolAgent => "enrol-agent",
                AdminAction::ReadDiagnostics => "read-diagnostics",
                AdminAction::AcceptState => "accept-state",
                AdminAction::Drain => "drain",
                AdminAction::IssueService => "issue-service",
                AdminAction::ReadAudit => "read-audit",
                AdminAction::ManageDecoys => "manage-decoys",
                AdminAction::ListRecords => "list-records",
            },
        }
    }

    /// The kind of thing it is done to, as the authorisation matrix names it.
    pub const fn resource(self) -> &'static str {
        match self {
            Action::OpenSession | Action::ManageWorkspace => "workspace",
            Action::Channel(_) => "channel",
            Action::ReadDataset | Action::Deposit => "dataset",
            Action::IssueCertificate => "certificate",
            Action::PlayRecording => "recording",
            Action::KeepRecord | Action::FetchRecord => "record",
            Action::Administer(action) => match action {
                AdminAction::CreateStudy
                | AdminAction::SetChannels
                | AdminAction::SetRecording
                | AdminAction::SetSupervision
                | AdminAction::SetLimits
                | AdminAction::AddMember => "study",
                AdminAction::ManageWorkspaces => "workspace",
                AdminAction::CreateDataset => "dataset",
                AdminAction::EnrolPerson | AdminAction::LockPerson => "person",
                AdminAction::Grant | AdminAction::Revoke => "grant",
                AdminAction::EnrolAgent | AdminAction::Drain => "agent",
                AdminAction::ReadDiagnostics | AdminAction::AcceptState => "host",
                AdminAction::IssueService => "service",
                AdminAction::ReadAudit => "audit",
                AdminAction::ManageDecoys => "decoy",
                AdminAction::ListSessions
                | AdminAction::WatchSession
                | AdminAction::JoinSession
                | AdminAction::MessageSession
                | AdminAction::KillSession => "session",
                AdminAction::ListRecords => "records",
            },
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the gate found out about the request before it asked. The default is the most suspicious:
/// nobody active, no study, no conditions known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// How the person stands.
    pub person: Standing,
    /// The roles that the person holds in the programme, not in a study.
    pub programme_roles: Vec<RoleId>,
    /// The study of the request, if it is on record.
    pub study: Option<StudyFacts>,
    /// The alternative sets of conditions under which the dataset of the request stands. None at
    /// all means that nobody recorded them, which no machine may take for "unrestricted".
    pub conditions: Vec<ConditionSet>,
    /// What the certificate of a request for a channel permits.
    pub certificate: CertificateRules,
}

/// How a person stands at the time of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// Not on record.
    #[default]
    Unknown,
    /// Locked out.
    Locked,
    /// On record and not locked.
    Active,
}

/// A study as it stands at the time of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StudyFacts {
    /// It was not closed or suspended.
    pub active: bool,
    /// The first instant at which its approval no longer holds.
    pub until: Timestamp,
    /// The purposes for which it was approved.
    pub purposes: Vec<Purpose>,
    /// The channels that it permits.
    pub channels: ChannelRules,
    /// How its sessions are recorded.
    pub recording: RecordingRule,
    /// How they are supervised.
    pub supervision: SupervisionRule,
}
