//! An event in the form of the Open Cybersecurity Schema Framework, version 1.8, with the profiles
//! `host` (who acted), `datetime` (`time_dt`) and `security_control` (what was decided, by which rule).
//!
//! Each event is valid by the published schema of its class. What OCSF has no field for stands under
//! `unmapped`, as the event says it; `infra/siem/validate-ocsf` checks any exported log.

mod fields;
mod objects;
mod observed;
mod parts;
mod sentence;

use model::observed::{CheckState, ConnectionOutcome, ProcessOutcome};
use serde_json::{Map, Value, json};

pub use fields::{Sensitivity, event_fields, event_kinds, sensitivity};

use crate::{Change, Event, EventKind, FindingLevel, RecordingOutcome, TransferOutcome};

/// The OCSF version whose numbers these are.
const VERSION: &str = "1.8.0";
/// The profiles that every event states.
const PROFILES: [&str; 3] = ["datetime", "host", "security_control"];
/// Rules of a decision that are repeated in OCSF's own form; all of them are under `unmapped`.
const RULES_MAX: usize = 8;

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
struct Class {
    class: u32,
    activity: u32,
    severity: Severity,
    success: bool,
}

const PROCESS: u32 = 1007;
const EVENT_LOG: u32 = 1008;
const FINDING: u32 = 2004;
const ACCOUNT_CHANGE: u32 = 3001;
const AUTHENTICATION: u32 = 3002;
const ENTITY_MANAGEMENT: u32 = 3004;
const USER_ACCESS: u32 = 3005;
const NETWORK: u32 = 4001;
const SSH: u32 = 4007;
const TUNNEL: u32 = 4014;
const CONFIG_STATE: u32 = 5002;
const LIFECYCLE: u32 = 6002;
const API: u32 = 6003;
const DATASTORE: u32 = 6005;

/// The event as the log keeps it: everything but the name of the log and the index, which
/// [`crate::export`] adds.
pub(crate) fn record(event: &Event) -> Value {
    let class = class(event);
    let mut unmapped = serde_json::to_value(&event.kind).unwrap_or_default();
    let code = unmapped.get("kind").cloned().unwrap_or_default();
    if let Some(fields) = unmapped.as_object_mut() {
        if let Some(study) = &event.study {
            fields.insert("study".to_owned(), json!(study));
        }
        if let Some(device) = &event.device {
            fields.insert("device".to_owned(), json!(device));
        }
        if let Some(decision) = &event.decision {
            fields.insert("decision".to_owned(), json!(decision));
        }
    }
    let mut metadata = json!({
        "version": VERSION,
        "profiles": PROFILES,
        "event_code": code,
        "product": { "name": "Sekisho", "vendor_name": "Sekisho", "version": env!("CARGO_PKG_VERSION") },
    });
    // All events of a session are found by it.
    if let Some(session) = &event.session {
        metadata["correlation_uid"] = json!(session);
    }
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    put("activity_id", json!(class.activity));
    put("category_uid", json!(class.class / 1000));
    put("class_uid", json!(class.class));
    put("type_uid", json!(class.class * 100 + class.activity));
    put("severity_id", json!(class.severity as u8));
    put("status_id", json!(if class.success { 1 } else { 2 }));
    put("time", json!(event.at.as_millis()));
    put("time_dt", json!(event.at));
    put("message", json!(sentence::sentence(&event.kind)));
    put("metadata", metadata);
    put("unmapped", unmapped);
    fields.extend(actor(event));
    // The life of a program, a process and the state of a host come from no endpoint; of a finding it
    // is part of the evidence.
    let placeless = matches!(class.class, LIFECYCLE | PROCESS | CONFIG_STATE | FINDING);
    let peer = event.peer.as_deref().filter(|_| !placeless);
    fields.extend(peer.map(|peer| ("src_endpoint".to_owned(), objects::endpoint(peer))));
    fields.extend(decision(event));
    objects::complete(event, class.class, &mut fields);
    Value::Object(fields)
}

/// Who acted, in which session, with which device.
fn actor(event: &Event) -> Option<(String, Value)> {
    let mut actor = Map::new();
    if let Some(person) = &event.person {
        let mut user = json!({ "uid": person });
        if let Some(device) = &event.device {
            user["credential_uid"] = json!(device);
        }
        actor.insert("user".to_owned(), user);
    }
    if let Some(session) = &event.session {
        actor.insert("session".to_owned(), json!({ "uid": session }));
    }
    (!actor.is_empty()).then(|| ("actor".to_owned(), Value::Object(actor)))
}

/// What policy said: allowed or denied, and a rule with the epoch of the policy for each that matched.
fn decision(event: &Event) -> Map<String, Value> {
    let Some(decision) = &event.decision else { return Map::new() };
    let word = if decision.permit { "permit" } else { "deny" };
    let policy = |name: &str| json!({ "name": name, "version": decision.policy_epoch.to_string(), "type": decision.action });
    let authorization = |name: &str| json!({ "decision": word, "policy": policy(name) });
    let authorizations: Vec<Value> = if decision.rules.is_empty() {
        vec![authorization(&decision.code)]
    } else {
        decision.rules.iter().take(RULES_MAX).map(|rule| authorization(rule)).collect()
    };
    let number = if decision.permit { 1 } else { 2 };
    let mut fields = Map::new();
    fields.insert("action_id".to_owned(), json!(number));
    fields.insert("disposition_id".to_owned(), json!(number));
    fields.insert("status_code".to_owned(), json!(decision.code));
    fields.insert("authorizations".to_owned(), json!(authorizations));
    if !decision.reason.is_empty() {
        fields.insert("status_detail".to_owned(), json!(decision.reason));
    }
    fields
}

fn class(event: &Event) -> Class {
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
        K::ChannelOpened { .. } => (SSH, 1, Informational, true),
        K::FileTransferred { outcome, .. } => (SSH, 6, Low, *outcome == TransferOutcome::Completed),
        K::ChannelRefused { .. } => (SSH, 5, Medium, false),
        K::SessionClosed { .. } => (SSH, 2, Informational, true),
        K::SessionWatched { .. } | K::SessionMessage { .. } => (SSH, 99, Low, true),
        K::SessionJoined { .. } | K::SessionKilled { .. } => (SSH, 99, Medium, true),
        K::ModeratorLeft { .. } => (SSH, 99, Medium, false),
        K::SessionRecorded { outcome: RecordingOutcome::Whole, .. } => (SSH, 99, Informational, true),
        K::SessionRecorded { .. } => (SSH, 99, Medium, false),
        K::RecordingDegraded { .. } => (SSH, 99, High, false),
        K::RecordingPlayed { .. } | K::RecordingsSearched { .. } => (API, 2, Low, true),
        K::SessionEnded { .. } => (SSH, 3, Low, true),
        K::DepositStarted { .. } | K::DepositCompleted { .. } => (DATASTORE, 5, Informational, true),
        K::DepositFailed { .. } | K::DepositRefused { .. } => (DATASTORE, 5, Medium, false),
        K::ReadFault { .. } => (DATASTORE, 1, High, false),
        K::ReadFailed { .. } => (DATASTORE, 1, Critical, false),
        K::WorkspaceStarted { .. } => (ENTITY_MANAGEMENT, 10, Informational, true),
        K::WorkspaceStopped { .. } => (ENTITY_MANAGEMENT, 11, Informational, true),
        K::ProcessStarted { what, .. } => {
            (PROCESS, 1, Informational, what.outcome == ProcessOutcome::Started)
        }
        K::ConnectionAttempted { what, .. } => match what.outcome {
            ConnectionOutcome::Blocked => (NETWORK, 5, Medium, false),
            ConnectionOutcome::Loopback | ConnectionOutcome::Local => (NETWORK, 1, Informational, true),
        },
        K::PacketDropped { .. } => (NETWORK, 5, High, false),
        K::FileRead { .. } => (DATASTORE, 1, Informational, true),
        K::ActivityOverflowed { .. } => (EVENT_LOG, 99, Medium, false),
        K::AgentDiagnosed { state, .. } | K::BrokerDiagnosed { state, .. } => match state {
            CheckState::Ok => (CONFIG_STATE, 2, Informational, true),
            CheckState::Warning => (CONFIG_STATE, 2, Low, true),
            CheckState::Failed => (CONFIG_STATE, 2, High, false),
        },
        K::GrantCreated { .. } => (USER_ACCESS, 1, Informational, true),
        K::GrantRevoked { .. } => (USER_ACCESS, 2, Low, true),
        K::PersonLocked { .. } => (ACCOUNT_CHANGE, 9, Medium, true),
        K::PersonUnlocked { .. } => (ACCOUNT_CHANGE, 12, Low, true),
        K::RecordChanged { change: Change::Created, .. } => (API, 1, Informational, true),
        K::RecordChanged { change: Change::Updated, .. } => (API, 3, Informational, true),
        K::RecordChanged { change: Change::Closed, .. } => (API, 4, Informational, true),
        K::ApprovalRequested { .. } => (API, 1, Low, true),
        K::ApprovalDecided { .. } => (API, 3, Low, true),
        K::AuditRead { .. } => (API, 2, Low, true),
        K::AdminRefused { .. } => (API, 99, Medium, false),
        // As a status, 1 says of a finding that it is new.
        K::Finding { level, .. } => (FINDING, 1, severity(*level), true),
        K::RulesLoaded { .. } => (LIFECYCLE, 99, Low, true),
        K::RulesRefused { .. } => (LIFECYCLE, 99, High, false),
        K::RecordKeeping { .. } | K::RecordKept { .. } => (DATASTORE, 5, Informational, true),
        K::RecordFetched { .. } => (DATASTORE, 1, Low, true),
        K::RecordMoved { .. } => (DATASTORE, 7, Low, true),
        K::KeptLagging { .. } => (LIFECYCLE, 99, High, false),
        K::KeptRecovered { .. } => (LIFECYCLE, 99, Informational, true),
        K::LogStopped { .. } => (LIFECYCLE, 4, Critical, false),
        K::WitnessRefused { .. } => (LIFECYCLE, 99, Critical, false),
        K::WitnessLagging { .. } => (LIFECYCLE, 99, High, false),
        K::WitnessRecovered { .. } => (LIFECYCLE, 99, Informational, true),
        K::SinkLagging { .. } => (LIFECYCLE, 99, High, false),
        K::SinkRecovered { .. } => (LIFECYCLE, 99, Informational, true),
        K::SinkRejected { .. } => (LIFECYCLE, 99, High, false),
    };
    Class { class, activity, severity, success }
}

fn severity(level: FindingLevel) -> Severity {
    match level {
        FindingLevel::Informational => Severity::Informational,
        FindingLevel::Low => Severity::Low,
        FindingLevel::Medium => Severity::Medium,
        FindingLevel::High => Severity::High,
        FindingLevel::Critical => Severity::Critical,
    }
}

#[cfg(test)]
#[path = "ocsf/tests.rs"]
mod tests;
