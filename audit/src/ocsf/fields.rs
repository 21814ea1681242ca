//! How much each field of an exported event gives away, so that a collector need not see it all.

use model::observed::{Attempt, Diagnosis, Execution, FileRead, Overflow, Packets};

use crate::EventKind;

/// Who may know the value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sensitivity {
    /// Says nothing about anybody: numbers of classes, times, codes, the place in the log.
    Public,
    /// About the house: its agents, studies, datasets, rules, sizes.
    Internal,
    /// About a person, or text in which one may be named.
    Personal,
}

use Sensitivity::{Internal, Personal, Public};

/// The sensitivity of the value at `path` (the keys from the outermost; places in lists left out)
/// in an exported event whose `metadata.event_code` is `code`.
///
/// Every field of every kind of event is classed below, which the compiler sees to. Anything else,
/// such as a field of another version, counts as personal.
pub fn sensitivity(code: &str, path: &[&str]) -> Sensitivity {
    match path {
        ["unmapped", "kind"] => Public,
        ["unmapped", "study"] => Internal,
        ["unmapped", "device"] => Personal,
        ["unmapped", "decision", "permit" | "action" | "code" | "policy_epoch"] => Public,
        ["unmapped", "decision", "rules"] => Internal,
        ["unmapped", "decision", ..] => Personal,
        ["unmapped", field, ..] => {
            let known = of_kind(code).iter().find(|(name, _)| name == field);
            known.map_or(Personal, |(_, sensitivity)| *sensitivity)
        }
        _ => of_ocsf(path),
    }
}

/// The name of every kind of event, as it stands in `metadata.event_code`.
pub fn event_kinds() -> impl Iterator<Item = &'static str> {
    KINDS.iter().copied()
}

/// What events of this kind say under `unmapped`, beside what all of them may say there: `kind`,
/// `study`, `device` and `decision`.
pub fn event_fields(code: &str) -> impl Iterator<Item = &'static str> {
    of_kind(code).iter().map(|(name, _)| *name)
}

fn of_ocsf(path: &[&str]) -> Sensitivity {
    match path {
        [
            "activity_id" | "activity_name" | "category_uid" | "class_uid" | "type_uid" | "severity_id"
            | "status_id" | "time" | "time_dt" | "action_id" | "disposition_id" | "status_code"
            | "tunnel_type" | "tunnel_type_id" | "privileges",
        ] => Public,
        ["metadata", "correlation_uid"] => Internal,
        ["metadata", ..] => Public,
        ["authorizations", "decision"] | ["authorizations", "policy", "type" | "version"] => Public,
        ["authorizations", "policy", "name"] => Internal,
        ["actor", "app_name"] | ["src_endpoint" | "dst_endpoint", "svc_name"] => Public,
        ["actor", "session", "uid"] => Internal,
        ["device" | "entity" | "databucket" | "user", "type_id" | "type"] | ["resources", "type"] => Public,
        ["device" | "databucket", "uid"] => Internal,
        ["service", ..] => Public,
        ["app", ..] | ["api", ..] | ["traffic", ..] => Internal,
        // Of a process its number, which the host gives anew all the time.
        [.., "process" | "parent_process", "pid"] | [.., "file", "type_id"] => Public,
        // How a hash was made, without which the schema does not take it; the hash itself is the file's.
        [.., "file", "hashes", "algorithm" | "algorithm_id"] => Public,
        ["connection_info", ..] | ["launch_type_id" | "log_name" | "count"] => Public,
        ["finding_info", ..] | ["is_alert"] => Public,
        ["assessments", "meets_criteria"] => Public,
        ["assessments", ..] => Internal,
        // `message`, `status_detail`, `actor.user`, addresses, names, identifiers of things that
        // belong to a person.
        _ => Personal,
    }
}

/// From the name of each kind, and of each of its fields with its class: the table, and a match that
/// does not compile while a kind or a field is missing here.
/// What an event carries whole (`what`) is classed beside it, field by field.
macro_rules! classed {
    ($($code:literal $kind:ident { $($field:ident: $class:ident),* }
        $(+ $what:ident { $($part:ident: $part_class:ident),* })?)*) => {
        fn of_kind(code: &str) -> &'static [(&'static str, Sensitivity)] {
            match code {
                $($code => &[
                    $((stringify!($field), $class),)*
                    $($((stringify!($part), $part_class),)*)?
                ],)*
                _ => &[],
            }
        }

        const KINDS: &[&str] = &[$($code),*];

        const _: fn(&EventKind) -> &'static str = |kind| match kind {
            $(EventKind::$kind { $($field: _,)* $(what: $what { $($part: _),* })? } => $code,)*
        };
    };
}

classed! {
    "started" Started { process: Public, version: Public }
    "stopped" Stopped { process: Public, reason: Internal }
    "login_succeeded" LoginSucceeded { method: Public, key_fingerprint: Personal }
    "login_refused" LoginRefused { code: Public, reason: Personal }
    "certificate_issued" CertificateIssued {
        certificate: Public, subject: Personal, serial: Personal, key_fingerprint: Personal, expires: Public
    }
    "token_issued" TokenIssued { subject: Personal, expires: Public }
    "agent_enrolled" AgentEnrolled { agent: Internal }
    "agent_connected" AgentConnected { agent: Internal, kernel: Internal, backends: Internal }
    "agent_lost" AgentLost { agent: Internal, reason: Internal }
    "auth_refused" AuthRefused {
        door: Public, fault: Public, reason: Personal, key_fingerprint: Personal, principals: Personal,
        serial: Personal
    }
    "session_opened" SessionOpened {
        workspace: Personal, agent: Internal, pty: Public, command: Personal, datasets: Internal,
        access_until: Public, recording: Public, recording_input: Public
    }
    "session_refused" SessionRefused { code: Public, reason: Personal }
    "channel_opened" ChannelOpened { what: Public, detail: Personal }
    "channel_refused" ChannelRefused { what: Public, detail: Personal }
    "file_transferred" FileTransferred {
        direction: Public, path: Personal, bytes: Internal, sha256: Internal, outcome: Public
    }
    "session_closed" SessionClosed {
        exit: Internal, bytes_in: Internal, bytes_out: Internal, events_first: Public, events_last: Public,
        count: Public
    }
    "session_recorded" SessionRecorded {
        sha256: Internal, bytes: Internal, stored_sha256: Internal, stored_bytes: Internal, events: Internal,
        duration_ms: Internal, elided_bytes: Internal, outcome: Public
    }
    "recording_degraded" RecordingDegraded { mode: Public, reason: Internal }
    "recording_played" RecordingPlayed { recorded: Internal, whose: Personal, sha256: Internal }
    "recordings_searched" RecordingsSearched { text: Personal, found: Public }
    "session_watched" SessionWatched { whose: Personal, told: Public }
    "session_joined" SessionJoined { whose: Personal, consented: Public }
    "session_message" SessionMessage { whose: Personal, text: Personal }
    "session_killed" SessionKilled { whose: Personal, reason: Personal }
    "moderator_left" ModeratorLeft { }
    "session_ended" SessionEnded { cause: Public, grant: Internal, reason: Personal }
    "deposit_started" DepositStarted { object: Internal, dataset: Internal, name: Personal, agent: Internal }
    "deposit_completed" DepositCompleted {
        object: Internal, dataset: Internal, size: Internal, manifest_root: Internal
    }
    "deposit_failed" DepositFailed { object: Internal, dataset: Internal, code: Public, reason: Personal }
    "deposit_refused" DepositRefused { dataset: Internal, code: Public, reason: Personal }
    "read_fault" ReadFault {
        agent: Internal, backend: Internal, institution: Internal, object: Internal, block: Internal,
        fault: Public, detail: Internal
    }
    "read_failed" ReadFailed { agent: Internal, object: Internal, detail: Internal }
    "workspace_started" WorkspaceStarted { workspace: Personal, agent: Internal, cold_ms: Internal }
    "workspace_stopped" WorkspaceStopped { workspace: Personal, agent: Internal, reason: Internal }
    "process_started" ProcessStarted { workspace: Personal, agent: Internal } + Execution {
        program: Personal, argv: Personal, directory: Personal, pid: Public, parent_pid: Public,
        parent_program: Personal, uid: Internal, outcome: Public
    }
    "connection_attempted" ConnectionAttempted { workspace: Personal, agent: Internal } + Attempt {
        family: Public, protocol: Public, address: Personal, port: Personal, pid: Public, uid: Internal,
        program: Personal, count: Public, outcome: Public
    }
    "packet_dropped" PacketDropped { workspace: Personal, agent: Internal } + Packets {
        protocol: Public, source: Personal, source_port: Personal, destination: Personal,
        destination_port: Personal, count: Public, bytes: Public, attribution: Public, pid: Public,
        uid: Internal, program: Personal
    }
    "file_read" FileRead { workspace: Personal, agent: Internal } + FileRead {
        object: Internal, dataset: Internal, name: Personal, size: Internal, phase: Public,
        bytes: Internal, reads: Internal, pid: Public, program: Personal
    }
    "activity_overflowed" ActivityOverflowed { workspace: Personal, agent: Internal } + Overflow {
        processes: Public, connections: Public, packets: Public, files: Public, examples: Personal
    }
    "agent_diagnosed" AgentDiagnosed { agent: Internal, state: Public } + Diagnosis {
        cause: Public, facts: Internal, checks: Internal, changes: Internal
    }
    "broker_diagnosed" BrokerDiagnosed { state: Public } + Diagnosis {
        cause: Public, facts: Internal, checks: Internal, changes: Internal
    }
    "grant_created" GrantCreated { grant: Internal, dataset: Internal, grantee: Internal, until: Public }
    "grant_revoked" GrantRevoked { grant: Internal, dataset: Internal, reason: Personal }
    "person_locked" PersonLocked { subject: Personal, reason: Personal }
    "person_unlocked" PersonUnlocked { subject: Personal }
    "record_changed" RecordChanged { record: Public, id: Personal, change: Public }
    "approval_requested" ApprovalRequested {
        approval: Internal, matter: Public, what: Personal, expires: Public
    }
    "approval_decided" ApprovalDecided {
        approval: Internal, matter: Public, what: Personal, asked_by: Personal, approved: Public,
        reason: Personal
    }
    "audit_read" AuditRead { what: Internal }
    "admin_refused" AdminRefused { action: Public, code: Public, reason: Personal }
    "finding" Finding {
        rule: Public, name: Public, title: Public, title_ja: Public, level: Public, tags: Public,
        evidence: Public, observed: Public, proven: Public, decoy: Internal, repeated: Public,
        reaction: Public
    }
    "rules_loaded" RulesLoaded { set: Public, rules: Public, source: Internal }
    "rules_refused" RulesRefused { set: Public, file: Internal, line: Public, reason: Internal }
    "record_keeping" RecordKeeping { object: Internal, what: Public, first: Public, count: Public }
    "record_kept" RecordKept {
        object: Internal, what: Public, first: Public, count: Public, agent: Internal, size: Internal,
        sha256: Internal, root: Internal, manifest_root: Internal
    }
    "record_fetched" RecordFetched { object: Internal, what: Public, first: Public, count: Public }
    "record_moved" RecordMoved { object: Internal, what: Public, first: Public, count: Public }
    "kept_lagging" KeptLagging { what: Public, waiting: Public, last_error: Internal }
    "kept_recovered" KeptRecovered { what: Public, kept: Public }
    "log_stopped" LogStopped { reason: Internal }
    "witness_lagging" WitnessLagging { witness: Internal, lag: Public, last_error: Internal }
    "witness_recovered" WitnessRecovered { witness: Internal }
    "witness_refused" WitnessRefused { witness: Internal, reason: Internal }
    "sink_lagging" SinkLagging { sink: Internal, lag: Public, last_error: Internal }
    "sink_recovered" SinkRecovered { sink: Internal }
    "sink_rejected" SinkRejected { sink: Internal, count: Public, index: Public, reason: Personal }
}
