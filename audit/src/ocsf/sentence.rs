//! What happened, in one English sentence.

use model::observed::{ProcessOutcome, ReadPhase};

use crate::{EventKind, FindingReaction, KeptKind};

pub(crate) fn sentence(kind: &EventKind) -> String {
    use EventKind as K;
    match kind {
        K::Started { process, version } => format!("{process} {version} started"),
        K::Stopped { process, reason } => format!("{process} stopped: {reason}"),
        K::LoginSucceeded { method, .. } => format!("logged in with {method}"),
        K::LoginRefused { reason, .. } => format!("login refused: {reason}"),
        K::CertificateIssued { certificate, subject, expires, .. } => {
            format!("{} certificate for {subject} issued, valid until {expires}", certificate.code())
        }
        K::TokenIssued { subject, expires } => {
            format!("enrolment token for {subject} issued, valid until {expires}")
        }
        K::AgentEnrolled { agent } => format!("{agent} enrolled"),
        K::AgentConnected { agent, .. } => format!("{agent} connected"),
        K::AgentLost { agent, reason } => format!("{agent} lost: {reason}"),
        K::AuthRefused { door, fault, reason, .. } => {
            format!("turned away at the {} door ({}): {reason}", door.code(), fault.code())
        }
        K::SessionOpened { workspace, agent, .. } => format!("session opened in {workspace} on {agent}"),
        K::SessionRefused { code, reason } => format!("session refused ({code}): {reason}"),
        K::ChannelOpened { what, detail } if detail.is_empty() => format!("{} opened", what.code()),
        K::ChannelOpened { what, detail } => format!("{} opened: {detail}", what.code()),
        K::FileTransferred { direction, path, bytes, outcome, .. } => {
            format!("{} of {path} {}, {bytes} bytes", direction.code(), outcome.code())
        }
        K::ChannelRefused { what, detail } => format!("{} refused: {detail}", what.code()),
        K::SessionClosed { count, .. } => format!("session closed after {count} events"),
        K::SessionWatched { whose, told: true } => {
            format!("the session of {whose} is watched; they are told")
        }
        K::SessionWatched { whose, told: false } => {
            format!("the session of {whose} is watched; they are not told")
        }
        K::SessionJoined { whose, consented: true } => {
            format!("the session of {whose} was joined, as they let them")
        }
        K::SessionJoined { whose, consented: false } => {
            format!("the session of {whose} was joined, as the rules of the study let them")
        }
        K::SessionMessage { whose, text } => format!("said on the terminal of {whose}: {text}"),
        K::SessionKilled { whose, reason } => format!("the session of {whose} was ended: {reason}"),
        K::ModeratorLeft {} => "the second person of a moderated session left".to_owned(),
        K::SessionRecorded { events, duration_ms, outcome, .. } => {
            format!("session recorded: {events} events in {duration_ms} ms, {}", outcome.code())
        }
        K::RecordingDegraded { reason, .. } => {
            format!("the session could not be recorded any further: {reason}")
        }
        K::RecordingPlayed { recorded, whose, .. } => {
            format!("the recording of {recorded} of {whose} was played")
        }
        K::RecordingsSearched { text, found } => {
            format!("recordings were searched for {text:?}: {found} have it")
        }
        K::SessionEnded { cause, reason, .. } => format!("session ended ({}): {reason}", cause.code()),
        K::DepositStarted { object, dataset, name, .. } => {
            format!("deposit of {name} as {object} into {dataset} began")
        }
        K::DepositCompleted { object, dataset, size, .. } => {
            format!("{object} of {size} bytes deposited into {dataset}")
        }
        K::DepositFailed { object, reason, .. } => format!("deposit of {object} failed: {reason}"),
        K::DepositRefused { dataset, code, reason } => {
            format!("deposit into {dataset} refused ({code}): {reason}")
        }
        K::ReadFault { backend, institution, object, fault, .. } => {
            format!("share of {object} on {backend} ({institution}) is {}", fault.code())
        }
        K::ReadFailed { object, detail, .. } => format!("{object} could not be read: {detail}"),
        K::WorkspaceStarted { workspace, agent, cold_ms } => {
            format!("{workspace} started on {agent} in {cold_ms} ms")
        }
        K::WorkspaceStopped { workspace, agent, reason } => {
            format!("{workspace} on {agent} stopped: {reason}")
        }
        K::ProcessStarted { workspace, what, .. } => {
            let (program, argv) = (&what.program, what.argv.join(" "));
            match what.outcome {
                ProcessOutcome::Started => format!("{program} was executed in {workspace}: {argv}"),
                other => format!("{program} was to be executed in {workspace} ({}): {argv}", other.code()),
            }
        }
        K::ConnectionAttempted { workspace, what, .. } => {
            let at = at(&what.address, what.port);
            format!(
                "a connection from {workspace} to {at} ({}) was asked for: {}",
                what.protocol.code(),
                what.outcome.code()
            )
        }
        K::PacketDropped { workspace, what, .. } => {
            let at = at(&what.destination, what.destination_port);
            let by = what.program.as_ref().map(|program| format!(" of {program}")).unwrap_or_default();
            let (count, protocol) = (what.count, what.protocol.code());
            format!("{count} packets{by} from {workspace} to {at} ({protocol}) were dropped")
        }
        K::FileRead { workspace, what, .. } => match what.phase {
            ReadPhase::Opened => format!("{} was opened in {workspace}", what.object),
            phase => {
                format!("{} bytes of {} were read in {workspace} ({})", what.bytes, what.object, phase.code())
            }
        },
        K::ActivityOverflowed { workspace, what, .. } => format!(
            "more was done in {workspace} than is recorded one by one: {} executions, {} connections, \
             {} packets, {} reads",
            what.processes, what.connections, what.packets, what.files
        ),
        K::AgentDiagnosed { agent, state, what } => {
            format!("{agent} examined itself ({}): {}", what.cause.code(), state.code())
        }
        K::BrokerDiagnosed { state, what } => {
            format!("the broker examined itself ({}): {}", what.cause.code(), state.code())
        }
        K::GrantCreated { grant, dataset, grantee, until } => {
            format!("{grant}: {grantee} may use {dataset} until {until}")
        }
        K::GrantRevoked { grant, dataset, reason } => format!("{grant} on {dataset} revoked: {reason}"),
        K::PersonLocked { subject, reason } => format!("{subject} locked: {reason}"),
        K::PersonUnlocked { subject } => format!("{subject} unlocked"),
        K::RecordChanged { record, id, change } => format!("{} {id} {}", record.code(), change.code()),
        K::ApprovalRequested { approval, matter, what, .. } => {
            format!("{what} ({matter}) takes a second officer and was asked for as {approval}")
        }
        K::ApprovalDecided { approval, what, asked_by, approved: true, .. } => {
            format!("{approval} of {asked_by} was approved: {what}")
        }
        K::ApprovalDecided { approval, what, asked_by, approved: false, reason, .. } => {
            let why = reason.as_deref().unwrap_or("no reason was given");
            format!("{approval} of {asked_by} was refused: {what} ({why})")
        }
        K::AuditRead { what } => format!("entries of the audit log were read: {what}"),
        K::AdminRefused { action, code, reason } => format!("{action} refused ({code}): {reason}"),
        K::Finding { title, level, evidence, reaction: FindingReaction::None, .. } => {
            format!("{} finding: {title} (events {})", level.code(), numbers(evidence))
        }
        K::Finding { title, level, evidence, reaction, .. } => {
            let done = reaction.code();
            format!("{} finding: {title} (events {}); {done}", level.code(), numbers(evidence))
        }
        K::RulesLoaded { set, rules, source } => {
            format!("{rules} rules of detection in force, set {set} from {source}")
        }
        K::RulesRefused { set, file, line, reason } => {
            let line = line.map(|line| format!(":{line}")).unwrap_or_default();
            format!("rules of detection refused, set {set} stays: {file}{line}: {reason}")
        }
        K::RecordKeeping { object, what, first, count } => {
            format!("{} is being kept as {object}", kept(*what, *first, *count))
        }
        K::RecordKept { object, what, first, count, size, .. } => {
            let what = kept(*what, *first, *count);
            format!("{what} is kept as {object}, {size} bytes in shares, and was read back")
        }
        K::RecordFetched { object, what, first, count } => {
            format!("{} was fetched from the shares of {object}", kept(*what, *first, *count))
        }
        K::RecordMoved { object, what, first, count } => {
            format!("{} leaves the house and stays as {object}", kept(*what, *first, *count))
        }
        K::KeptLagging { what, waiting, last_error } => {
            format!("{waiting} {} wait to be kept as shares: {last_error}", several(*what))
        }
        K::KeptRecovered { what: KeptKind::AuditSegment, kept } => {
            format!("all events below {kept} are kept as shares")
        }
        K::KeptRecovered { what: KeptKind::SessionRecording, kept } => {
            format!("all recordings that are sealed below {kept} are kept as shares")
        }
        K::LogStopped { reason } => format!("the audit log stopped: {reason}"),
        K::WitnessLagging { witness, lag, last_error } => {
            format!("{witness} has not signed the last {lag} events: {last_error}")
        }
        K::WitnessRecovered { witness } => format!("{witness} has signed all events"),
        K::WitnessRefused { witness, reason } => format!("{witness} refused the checkpoint: {reason}"),
        K::SinkLagging { sink, lag, last_error } => format!("{sink} is {lag} events behind: {last_error}"),
        K::SinkRecovered { sink } => format!("{sink} has all but the last events"),
        K::SinkRejected { sink, count, index, reason } => {
            format!("{sink} will not take {count} events, the last of them {index}: {reason}")
        }
    }
}

/// A record of the house, with the entries of this log that it has.
fn kept(what: KeptKind, first: Option<u64>, count: Option<u64>) -> String {
    match first.zip(count) {
        Some((first, count)) => {
            format!("{} of events {first} to {}", what.code(), first.saturating_add(count).saturating_sub(1))
        }
        None => what.code().to_owned(),
    }
}

fn several(what: KeptKind) -> &'static str {
    match what {
        KeptKind::AuditSegment => "events",
        KeptKind::SessionRecording => "recordings",
    }
}

fn at(address: &str, port: Option<u16>) -> String {
    port.map_or_else(|| address.to_owned(), |port| format!("{address} port {port}"))
}

fn numbers(all: &[u64]) -> String {
    all.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}
