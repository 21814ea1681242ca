use model::observed::{Attempt, CheckState, Diagnosis, Execution, FileRead, Overflow, Packets};
use model::{
    AgentId, ApprovalId, BackendId, DatasetId, GrantId, ObjectId, PersonId, SessionId, StudyId, Timestamp,
    WorkspaceId,
};
use serde::{Deserialize, Serialize};

/// One thing that happened, as the log will remember it.
///
/// Free text in it is cut to a bounded length when it is rendered (see [`Event::to_entry`]), so
/// that nothing a stranger sends can make an event too large to be recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub kind: EventKind,
    /// On whose behalf, where that is known.
    pub person: Option<PersonId>,
    /// With which of their devices: the fingerprint of the key or certificate it proved, `SHA256:…`.
    pub device: Option<String>,
    /// In which session.
    pub session: Option<SessionId>,
    /// For which study.
    pub study: Option<StudyId>,
    /// From where: `address:port` of the other end.
    pub peer: Option<String>,
    /// The decision that allowed or refused it, where one was taken.
    pub decision: Option<DecisionRecord>,
}

impl Event {
    /// An event about nobody in particular; the other fields are public and may be set.
    pub fn new(at: Timestamp, kind: EventKind) -> Event {
        Event { at, kind, person: None, device: None, session: None, study: None, peer: None, decision: None }
    }
}

/// What policy decided, and from which rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// Whether it was permitted.
    pub permit: bool,
    /// What was asked for, such as `OpenSession`.
    pub action: String,
    /// The stable code of the outcome, such as `permit` or `no-grant`.
    pub code: String,
    /// Names of the rules and grants that carried the decision.
    pub rules: Vec<String>,
    /// The version of the policy that decided.
    pub policy_epoch: u64,
    /// The sentence the person was told.
    pub reason: String,
    /// The second officer who had approved it, where it took one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<PersonId>,
}

/// What kinds of things happen, each with what must be known about it.
///
/// It serialises with a `kind` field in `snake_case`; those names are stable, and they are the
/// message ids of the feed to a collector. What a record says under `unmapped` is read back as the
/// event that it was, as far as nothing was cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(missing_docs, reason = "fields whose name and type say it all")]
pub enum EventKind {
    /// A process of the node began to serve.
    Started { process: String, version: String },
    /// A process of the node stopped in an orderly way.
    Stopped { process: String, reason: String },
    /// A person proved who they are.
    LoginSucceeded { method: String, key_fingerprint: String },
    /// A login was refused.
    LoginRefused { code: String, reason: String },
    /// The authority issued a certificate.
    CertificateIssued {
        certificate: CertificateKind,
        subject: String,
        serial: String,
        key_fingerprint: String,
        expires: Timestamp,
    },
    /// A one-time token for enrolment was handed out.
    TokenIssued { subject: String, expires: Timestamp },
    /// An agent got its identity.
    AgentEnrolled { agent: AgentId },
    /// An agent dialled in and is ready for work.
    AgentConnected { agent: AgentId, kernel: String, backends: Vec<String> },
    /// The connection of an agent is gone.
    AgentLost { agent: AgentId, reason: String },
    /// Somebody was turned away at a door before it was known what they wanted.
    AuthRefused {
        door: Door,
        fault: AuthFault,
        /// The sentence the person was told.
        reason: String,
        key_fingerprint: Option<String>,
        /// The principals that the presented certificate named.
        principals: Vec<String>,
        #[serde(with = "as_text")]
        serial: Option<u64>,
    },
    /// A session was permitted and opened.
    SessionOpened {
        workspace: WorkspaceId,
        agent: AgentId,
        pty: bool,
        /// The command, where it is not an interactive shell.
        command: Option<String>,
        datasets: Vec<DatasetId>,
        access_until: Timestamp,
        /// Whether it is recorded, and what happens when it cannot be.
        recording: RecordingMode,
        /// Whether what the person types is recorded too.
        recording_input: bool,
    },
    /// A session was asked for and refused.
    SessionRefused { code: String, reason: String },
    /// Something was permitted and opened inside a connection; `decision` names the rules.
    ChannelOpened {
        what: ChannelKind,
        /// The command, or where a forwarded connection leads.
        detail: String,
    },
    /// A person asked for something inside a connection and was refused; `decision` names the rule.
    ChannelRefused { what: ChannelKind, detail: String },
    /// A file was moved through the door by `sftp` or `scp`.
    FileTransferred {
        direction: Direction,
        /// As the client named it.
        path: String,
        /// Bytes of content that passed.
        bytes: u64,
        /// Hexadecimal; none if it did not pass whole and in order.
        sha256: Option<String>,
        outcome: TransferOutcome,
    },
    /// A session came to its end; with this record its story is complete.
    SessionClosed {
        exit: SessionExit,
        bytes_in: u64,
        bytes_out: u64,
        /// Index of the first event of this session.
        events_first: u64,
        /// Index of the last event of this session before this one.
        events_last: u64,
        /// How many events the session has, this one not counted.
        count: u64,
    },
    /// What a session looked like was recorded; this seals the recording.
    SessionRecorded {
        /// Of the asciicast, hexadecimal.
        sha256: String,
        /// Bytes of asciicast.
        bytes: u64,
        /// Of what is stored of it, encrypted; hexadecimal.
        stored_sha256: String,
        stored_bytes: u64,
        events: u64,
        duration_ms: u64,
        /// Bytes of output that were left out of it, each run marked with its length and hash.
        elided_bytes: u64,
        outcome: RecordingOutcome,
    },
    /// A session could not be recorded from here on.
    RecordingDegraded { mode: RecordingMode, reason: String },
    /// Somebody was given the recording of a session.
    RecordingPlayed { recorded: SessionId, whose: PersonId, sha256: String },
    /// Somebody looked through recordings for a text.
    RecordingsSearched { text: String, found: u64 },
    /// Somebody looks at a session that goes on.
    SessionWatched { whose: PersonId, told: bool },
    /// Somebody types in a session of another; by that person's own yes, or as the study says.
    SessionJoined { whose: PersonId, consented: bool },
    /// Something was said on the terminal of a session.
    SessionMessage { whose: PersonId, text: String },
    /// Somebody ended a session of another.
    SessionKilled { whose: PersonId, reason: String },
    /// The second person left whom a moderated session takes.
    ModeratorLeft {},
    /// A live session was ended from our side.
    SessionEnded { cause: EndCause, grant: Option<GrantId>, reason: String },
    /// A file began to come in.
    DepositStarted { object: ObjectId, dataset: DatasetId, name: String, agent: AgentId },
    /// A file lies, in shares, on all its backends.
    DepositCompleted {
        object: ObjectId,
        dataset: DatasetId,
        size: u64,
        /// Root of the manifest, hexadecimal.
        manifest_root: String,
    },
    /// A file was not taken in.
    DepositFailed { object: ObjectId, dataset: DatasetId, code: String, reason: String },
    /// A deposit was asked for and refused.
    DepositRefused { dataset: DatasetId, code: String, reason: String },
    /// A backend gave no share or a wrong one; the read went on with others.
    ReadFault {
        agent: AgentId,
        backend: BackendId,
        institution: String,
        object: ObjectId,
        block: Option<u64>,
        fault: ReadFaultKind,
        detail: String,
    },
    /// Too few good shares: the person got an error instead of bytes.
    ReadFailed { agent: AgentId, object: ObjectId, detail: String },
    /// A workspace came up.
    WorkspaceStarted { workspace: WorkspaceId, agent: AgentId, cold_ms: u64 },
    /// A workspace was taken down.
    WorkspaceStopped { workspace: WorkspaceId, agent: AgentId, reason: String },
    /// A program was executed in a workspace.
    ProcessStarted {
        workspace: WorkspaceId,
        agent: AgentId,
        #[serde(flatten)]
        what: Execution,
    },
    /// A process of a workspace asked for a connection, or sent a datagram, by address.
    ConnectionAttempted {
        workspace: WorkspaceId,
        agent: AgentId,
        #[serde(flatten)]
        what: Attempt,
    },
    /// Packets left a workspace, which has no network, and were dropped.
    PacketDropped {
        workspace: WorkspaceId,
        agent: AgentId,
        #[serde(flatten)]
        what: Packets,
    },
    /// A genome file was opened in a workspace, is being read, or was closed.
    FileRead {
        workspace: WorkspaceId,
        agent: AgentId,
        #[serde(flatten)]
        what: FileRead,
    },
    /// More was done in a workspace than is recorded one by one; the rest was counted.
    ActivityOverflowed {
        workspace: WorkspaceId,
        agent: AgentId,
        #[serde(flatten)]
        what: Overflow,
    },
    /// How an agent and its host are.
    AgentDiagnosed {
        agent: AgentId,
        /// The worst of the checks.
        state: CheckState,
        #[serde(flatten)]
        what: Diagnosis,
    },
    /// How the broker and its host are.
    BrokerDiagnosed {
        /// The worst of the checks.
        state: CheckState,
        #[serde(flatten)]
        what: Diagnosis,
    },
    /// A study may use a dataset until a date.
    GrantCreated { grant: GrantId, dataset: DatasetId, grantee: String, until: Timestamp },
    /// It may no longer.
    GrantRevoked { grant: GrantId, dataset: DatasetId, reason: String },
    /// A person was locked out, everywhere, at once.
    PersonLocked { subject: PersonId, reason: String },
    /// A lock was taken off.
    PersonUnlocked { subject: PersonId },
    /// A record was made, changed or closed.
    RecordChanged { record: RecordKind, id: String, change: Change },
    /// Somebody asked for something that takes a second officer.
    ApprovalRequested {
        approval: ApprovalId,
        /// What kind of act it is.
        matter: String,
        /// The act, as its own record will say.
        what: String,
        /// From when on it is neither approved nor done any more.
        expires: Timestamp,
    },
    /// Somebody answered that: a second officer, or whoever asked took it back.
    ApprovalDecided {
        approval: ApprovalId,
        matter: String,
        what: String,
        asked_by: PersonId,
        approved: bool,
        /// Why not.
        reason: Option<String>,
    },
    /// Somebody was given entries of this log.
    AuditRead { what: String },
    /// A request to administer was refused.
    AdminRefused { action: String, code: String, reason: String },
    /// A rule of detection fits what was recorded.
    Finding {
        /// The rule's id.
        rule: String,
        name: Option<String>,
        title: String,
        title_ja: Option<String>,
        level: FindingLevel,
        tags: Vec<String>,
        /// Indices in this log of the events behind it, oldest first.
        evidence: Vec<u64>,
        /// When the last of them happened.
        observed: Timestamp,
        /// Whether they prove who acted; the person is then named in the event.
        proven: bool,
        /// The decoy that was touched.
        decoy: Option<String>,
        /// How often the same was found since it was last recorded.
        repeated: u64,
        reaction: FindingReaction,
    },
    /// Rules of detection came into force.
    RulesLoaded {
        /// Sixteen hexadecimal digits that stand for what they say.
        set: String,
        rules: u64,
        /// Where they come from.
        source: String,
    },
    /// Rules of detection were refused as a whole; those of before stay in force.
    RulesRefused {
        /// The set that stays.
        set: String,
        file: String,
        line: Option<u64>,
        reason: String,
    },
    /// A record of the house itself is being kept as secret shares; `decision` names the rule. Of a
    /// session's recording the event names the session.
    RecordKeeping {
        object: ObjectId,
        what: KeptKind,
        /// Of a part of this log: index of its first entry.
        first: Option<u64>,
        /// And how many entries it has.
        count: Option<u64>,
    },
    /// It lies, in shares, on all its backends, and was read back from them whole.
    RecordKept {
        object: ObjectId,
        what: KeptKind,
        first: Option<u64>,
        count: Option<u64>,
        /// Which agent took it in; none where the broker was killed before it could say so.
        agent: Option<AgentId>,
        /// Bytes of the file that it is.
        size: u64,
        /// Of that file, hexadecimal.
        sha256: String,
        /// Of a part of this log: the RFC 6962 root over its entries, hexadecimal.
        root: Option<String>,
        /// Root of the manifest of its shares, hexadecimal.
        manifest_root: String,
    },
    /// Somebody was given such a record; `decision` names the rule.
    RecordFetched { object: ObjectId, what: KeptKind, first: Option<u64>, count: Option<u64> },
    /// The copy in the house goes: what it was can be had from the shares alone.
    RecordMoved { object: ObjectId, what: KeptKind, first: Option<u64>, count: Option<u64> },
    /// Records wait to be kept for longer than they should.
    KeptLagging {
        what: KeptKind,
        /// Entries of this log, or recordings, that wait.
        waiting: u64,
        last_error: String,
    },
    /// Nothing waits any more.
    KeptRecovered {
        what: KeptKind,
        /// The entries of this log below this index are kept, and the recordings that they seal.
        kept: u64,
    },
    /// This log takes nothing more but what ends.
    LogStopped { reason: String },
    /// The witness does not answer, or has fallen behind.
    WitnessLagging { witness: String, lag: u64, last_error: String },
    /// The witness has signed the last checkpoint again.
    WitnessRecovered { witness: String },
    /// The witness says that this log is not the one it knows.
    WitnessRefused { witness: String, reason: String },
    /// A collector has fallen behind or does not answer.
    SinkLagging { sink: String, lag: u64, last_error: String },
    /// A collector works again and has all but the last events.
    SinkRecovered { sink: String },
    /// A collector will never take some events; the feed went on without them.
    SinkRejected {
        sink: String,
        /// How many, since it was last said.
        count: u64,
        /// The last of them.
        index: u64,
        /// What the collector says.
        reason: String,
    },
}

impl EventKind {
    /// Whether it tells of an end. A log that has stopped for want of space still takes it.
    pub fn ends_something(&self) -> bool {
        use EventKind as K;
        matches!(
            self,
            K::Stopped { .. }
                | K::LogStopped { .. }
                | K::SessionEnded { .. }
                | K::SessionClosed { .. }
                | K::DepositFailed { .. }
                | K::WorkspaceStopped { .. }
                | K::AgentLost { .. }
        )
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $code:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $code)] $variant,)* }

        impl $name {
            /// The stable word that stands for it in the record.
            pub const fn code(self) -> &'static str {
                match self { $($name::$variant => $code,)* }
            }
        }
    )*};
}

codes! {
    /// What sort of certificate was issued.
    CertificateKind {
        /// OpenSSH, for a person.
        SshUser = "ssh-user",
        /// OpenSSH, for the broker.
        SshHost = "ssh-host",
        /// X.509, for a person, an agent or a service.
        X509 = "x509",
    }

    /// At which door somebody stood.
    Door {
        /// The SSH port.
        Ssh = "ssh",
        /// The HTTPS port.
        Api = "api",
        /// The port where agents dial in.
        Agents = "agents",
    }

    /// Why a proof of identity was not accepted.
    AuthFault {
        /// Signed by an authority that is not trusted here.
        UnknownAuthority = "unknown-authority",
        /// The validity is over.
        Expired = "expired",
        /// The validity has not begun.
        NotYetValid = "not-yet-valid",
        /// The certificate does not name the principal that is needed.
        WrongPrincipal = "wrong-principal",
        /// A plain key or password where a certificate is required.
        NoCertificate = "no-certificate",
        /// A host certificate, or another that is not for users.
        WrongType = "wrong-type",
        /// The signature does not verify.
        BadSignature = "bad-signature",
        /// Revoked by serial number or key.
        Revoked = "revoked",
        /// Presented from an address it does not allow.
        SourceAddress = "source-address",
        /// It carries a critical option that is not understood.
        UnknownOption = "unknown-option",
        /// It lives longer than the rules allow.
        TooLong = "too-long",
        /// A proof that was used before.
        Replayed = "replayed",
        /// The person is locked or unknown.
        PersonRefused = "person-refused",
        /// Too many attempts.
        TooMany = "too-many",
        /// It could not be read at all.
        Malformed = "malformed",
    }

    /// What was asked for inside a connection.
    ChannelKind {
        /// A login shell.
        Shell = "shell",
        /// A command.
        Exec = "exec",
        /// A terminal for either.
        Terminal = "terminal",
        /// Variables of the person's environment.
        Environment = "environment",
        /// The subsystem `sftp`.
        Sftp = "sftp",
        /// Files into the workspace.
        Upload = "upload",
        /// Files out of the workspace.
        Export = "export",
        /// Files below `/data` out of the workspace.
        ExportData = "export-data",
        /// `ssh -L`: a connection into the workspace.
        PortForwarding = "port-forwarding",
        /// `ssh -R`: a listener on the broker.
        RemoteForwarding = "remote-forwarding",
        /// `ssh -A`.
        AgentForwarding = "agent-forwarding",
        /// `ssh -X`.
        X11 = "x11",
        /// A subsystem other than `sftp`.
        Subsystem = "subsystem",
        /// A forwarded unix socket.
        StreamLocal = "stream-local",
        /// Anything else.
        Unknown = "unknown",
    }

    /// Whether a session is recorded, and what happens when it cannot be.
    RecordingMode {
        /// It is not.
        Off = "off",
        /// It goes on, and that is recorded.
        BestEffort = "best-effort",
        /// It ends.
        Strict = "strict",
    }

    /// Whether a recording has all that it should.
    RecordingOutcome {
        /// It does.
        Whole = "whole",
        /// The broker was stopped: it has what was on the disk by then.
        Interrupted = "interrupted",
        /// It could not be written any further, and the session went on.
        Degraded = "degraded",
    }

    /// Which way a file goes.
    Direction {
        /// Into the workspace.
        Upload = "upload",
        /// Out of it.
        Download = "download",
        /// Both, in one opening.
        Both = "both",
    }

    /// How the transfer of a file ended.
    TransferOutcome {
        /// The client closed the file.
        Completed = "completed",
        /// A read or a write failed.
        Failed = "failed",
        /// The session ended before the file was closed.
        Aborted = "aborted",
    }

    /// Why a live session was ended from our side.
    EndCause {
        /// The study no longer permits its channel.
        ChannelRefused = "channel-refused",
        /// A grant it stood on was revoked.
        GrantRevoked = "grant-revoked",
        /// A grant it stood on ran out.
        GrantExpired = "grant-expired",
        /// The person was locked.
        PersonLocked = "person-locked",
        /// The study was closed.
        StudyClosed = "study-closed",
        /// The person was taken out of the study.
        MembershipEnded = "membership-ended",
        /// The agent is gone.
        AgentLost = "agent-lost",
        /// Somebody who may ended it.
        Killed = "killed",
        /// The second person left whom it takes.
        ModeratorLeft = "moderator-left",
        /// It must be recorded, and could not be.
        RecordingFailed = "recording-failed",
        /// Detection found something that its policy answers so.
        Finding = "finding",
        /// The log can no longer record.
        AuditFailed = "audit-failed",
        /// The node shuts down.
        Shutdown = "shutdown",
    }

    /// What was wrong with a share.
    ReadFaultKind {
        /// It is not there.
        Missing = "missing",
        /// Its tag does not match.
        Corrupt = "corrupt",
        /// The backend could not be reached.
        Unreachable = "unreachable",
        /// The backend did not answer in time.
        Timeout = "timeout",
        /// Fewer bytes than there should be.
        Short = "short",
        /// The backend refused our credentials.
        Denied = "denied",
        /// Anything else.
        Other = "other",
    }

    /// What sort of record changed.
    RecordKind {
        /// A person.
        Person = "person",
        /// A study.
        Study = "study",
        /// A person's role in a study.
        Membership = "membership",
        /// A dataset.
        Dataset = "dataset",
        /// A stored file.
        Object = "object",
        /// An agent.
        Agent = "agent",
        /// A workspace of a person in a study.
        Workspace = "workspace",
        /// A service of another party.
        Service = "service",
        /// How a process and its host are meant to be.
        Declaration = "declaration",
        /// Something laid out to be touched by whoever should not; what it is, the log does not say.
        Decoy = "decoy",
    }

    /// What sort of record of the house is kept as secret shares.
    KeptKind {
        /// A part of the audit log.
        AuditSegment = "audit-segment",
        /// The recording of a session.
        SessionRecording = "session-recording",
    }

    /// How bad a finding is, in Sigma's words.
    FindingLevel {
        /// Worth knowing.
        Informational = "informational",
        /// Worth a look some day.
        Low = "low",
        /// Worth a look today.
        Medium = "medium",
        /// Somebody should look now.
        High = "high",
        /// Something is wrong for certain.
        Critical = "critical",
    }

    /// What a finding brought about.
    FindingReaction {
        /// It was recorded.
        None = "none",
        /// The session ends.
        EndSession = "end-session",
        /// The person is locked out, everywhere.
        LockPerson = "lock-person",
    }

    /// How a record changed.
    Change {
        /// It is new.
        Created = "created",
        /// It is another now.
        Updated = "updated",
        /// It ended.
        Closed = "closed",
    }
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum SessionExit {
    /// The command ended with this status.
    Code {
        /// 0 to 255.
        code: u8,
    },
    /// The command was ended by a signal.
    Signal {
        /// Its name without `SIG`.
        name: String,
    },
    /// The connection went away first, or the session was ended from our side.
    Aborted {
        /// Why, for people.
        reason: String,
    },
}

/// Serial numbers use all 64 bits, which many readers of JSON would round.
mod as_text {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(number: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        number.map(|n| n.to_string()).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}
