//! The objects that a class requires beyond what every event has.

use std::net::SocketAddr;

use serde_json::{Map, Value, json};

use super::parts::{OTHER, SELF, bucket, device};
use super::{API, AUTHENTICATION, DATASTORE, PROCESS, SSH, observed};
use crate::{Event, EventKind, FindingReaction};

/// OCSF's number for a regular file.
const REGULAR_FILE: u8 = 1;
/// OCSF's number for SHA-256.
const SHA_256: u8 = 3;

/// Puts in what the class of the event requires, and the objects it is about.
pub(super) fn complete(event: &Event, class: u32, fields: &mut Map<String, Value>) {
    for (name, value) in about(event) {
        fields.insert(name.to_owned(), value);
    }
    observed::complete(&event.kind, fields);
    if let EventKind::Finding { reaction, .. } = &event.kind {
        // As an action and as a disposition: observed and detected, or denied and blocked.
        let (action, disposition) = if *reaction == FindingReaction::None { (3, 15) } else { (2, 2) };
        fields.entry("action_id").or_insert_with(|| json!(action));
        fields.entry("disposition_id").or_insert_with(|| json!(disposition));
        let peer = event.peer.as_deref().map(|peer| json!([{ "src_endpoint": endpoint(peer) }]));
        fields.extend(peer.map(|evidence| ("evidences".to_owned(), evidence)));
    }
    if matches!(class, API | DATASTORE | PROCESS) {
        fields.entry("actor").or_insert_with(|| json!({ "app_name": SELF }));
    }
    if matches!(class, API | DATASTORE) {
        // Required by these classes, also where nobody came from anywhere.
        fields.entry("src_endpoint").or_insert_with(|| json!({ "svc_name": SELF }));
    }
    if class == SSH {
        fields.entry("dst_endpoint").or_insert_with(|| json!({ "svc_name": SELF }));
    }
    if class == AUTHENTICATION {
        // Where somebody was turned away before they said who they are.
        fields.entry("user").or_insert_with(|| json!({ "name": "unknown" }));
        fields.entry("service").or_insert_with(|| json!({ "name": SELF }));
    }
}

/// The other end of a connection.
pub(super) fn endpoint(peer: &str) -> Value {
    match peer.parse::<SocketAddr>() {
        Ok(at) => json!({ "ip": at.ip(), "port": at.port() }),
        Err(_) => json!({ "name": peer }),
    }
}

fn about(event: &Event) -> Vec<(&'static str, Value)> {
    use EventKind as K;
    let user = event.person.as_ref().map(|person| ("user", json!({ "uid": person })));
    match &event.kind {
        K::Started { process, version } => vec![("app", json!({ "name": process, "version": version }))],
        K::Stopped { process, .. } => vec![("app", json!({ "name": process }))],
        K::LoginSucceeded { .. } | K::LoginRefused { .. } => user.into_iter().collect(),
        K::AuthRefused { door, principals, .. } => {
            let named = principals.first().map(|name| ("user", json!({ "name": name })));
            let service = ("service", json!({ "name": SELF, "uid": door.code() }));
            user.or(named).into_iter().chain([service]).collect()
        }
        K::CertificateIssued { certificate, subject, serial, .. } => {
            vec![("entity", json!({ "type": certificate.code(), "uid": serial, "name": subject }))]
        }
        K::TokenIssued { subject, .. } => {
            vec![("entity", json!({ "type": "enrolment-token", "name": subject }))]
        }
        K::AgentEnrolled { agent } => {
            vec![("entity", json!({ "type": "agent", "uid": agent })), device(agent)]
        }
        K::AgentConnected { agent, .. } | K::AgentLost { agent, .. } => {
            vec![("tunnel_type_id", json!(OTHER)), ("tunnel_type", json!("quic")), device(agent)]
        }
        K::SessionOpened { workspace, agent, .. } => {
            vec![("dst_endpoint", json!({ "svc_name": SELF, "uid": workspace })), device(agent)]
        }
        K::SessionClosed { bytes_in, bytes_out, .. } => {
            vec![("traffic", json!({ "bytes_in": bytes_in, "bytes_out": bytes_out }))]
        }
        K::FileTransferred { path, bytes, sha256, .. } => {
            let name = path.rsplit('/').next().unwrap_or(path);
            let mut file = json!({ "name": name, "path": path, "type_id": REGULAR_FILE, "size": bytes });
            if let Some(sha256) = sha256 {
                file["hashes"] =
                    json!([{ "algorithm_id": SHA_256, "algorithm": "SHA-256", "value": sha256 }]);
            }
            vec![("file", file), ("traffic", json!({ "bytes": bytes }))]
        }
        K::SessionWatched { .. } => vec![("activity_name", json!("Watched"))],
        K::SessionJoined { .. } => vec![("activity_name", json!("Joined"))],
        K::SessionMessage { .. } => vec![("activity_name", json!("Message"))],
        K::SessionKilled { .. } => vec![("activity_name", json!("Killed"))],
        K::ModeratorLeft {} => vec![("activity_name", json!("Moderator left"))],
        K::SessionRecorded { sha256, bytes, .. } => {
            let hash = json!([{ "algorithm_id": SHA_256, "algorithm": "SHA-256", "value": sha256 }]);
            let file =
                json!({ "name": "session.cast", "type_id": REGULAR_FILE, "size": bytes, "hashes": hash });
            vec![("file", file), ("activity_name", json!("Recorded"))]
        }
        K::RecordingDegraded { .. } => vec![("activity_name", json!("Recording degraded"))],
        K::RecordingPlayed { recorded, .. } => vec![
            ("api", json!({ "operation": "recording.play" })),
            ("resources", json!([{ "type": "recording", "uid": recorded }])),
        ],
        K::RecordingsSearched { .. } => vec![
            ("api", json!({ "operation": "recording.search" })),
            ("resources", json!([{ "type": "recording", "name": "all" }])),
        ],
        K::SessionRefused { .. }
        | K::ChannelOpened { .. }
        | K::ChannelRefused { .. }
        | K::SessionEnded { .. } => Vec::new(),
        K::DepositStarted { object, dataset, agent, .. } => {
            vec![bucket("dataset", dataset, Some(&object.to_string())), device(agent)]
        }
        K::DepositCompleted { object, dataset, .. } | K::DepositFailed { object, dataset, .. } => {
            vec![bucket("dataset", dataset, Some(&object.to_string()))]
        }
        K::DepositRefused { dataset, .. } => vec![bucket("dataset", dataset, None)],
        K::ReadFault { agent, backend, institution, .. } => {
            vec![bucket("backend", backend, Some(institution)), device(agent)]
        }
        K::ReadFailed { agent, object, .. } => vec![bucket("object", object, None), device(agent)],
        K::WorkspaceStarted { workspace, agent, .. } | K::WorkspaceStopped { workspace, agent, .. } => {
            vec![("entity", json!({ "type": "workspace", "uid": workspace })), device(agent)]
        }
        K::ProcessStarted { .. }
        | K::ConnectionAttempted { .. }
        | K::PacketDropped { .. }
        | K::FileRead { .. }
        | K::ActivityOverflowed { .. }
        | K::AgentDiagnosed { .. }
        | K::BrokerDiagnosed { .. } => observed::about(&event.kind),
        K::GrantCreated { grant, dataset, grantee, .. } => {
            access(json!({ "type": "study", "type_id": OTHER, "uid": grantee }), grant, dataset)
        }
        K::GrantRevoked { grant, dataset, .. } => {
            let holder = event.study.as_ref().map_or_else(|| grant.to_string(), ToString::to_string);
            access(json!({ "type": "study", "type_id": OTHER, "uid": holder }), grant, dataset)
        }
        K::PersonLocked { subject, .. } | K::PersonUnlocked { subject } => {
            vec![("user", json!({ "uid": subject }))]
        }
        K::RecordChanged { record, id, change } => vec![
            ("api", json!({ "operation": format!("{}.{}", record.code(), change.code()) })),
            ("resources", json!([{ "type": record.code(), "uid": id }])),
        ],
        K::ApprovalRequested { approval, what, .. } => vec![
            ("api", json!({ "operation": "approval.request" })),
            ("resources", json!([{ "type": "approval", "uid": approval, "name": what }])),
        ],
        K::ApprovalDecided { approval, what, approved, .. } => {
            let operation = if *approved { "approval.approve" } else { "approval.refuse" };
            vec![
                ("api", json!({ "operation": operation })),
                ("resources", json!([{ "type": "approval", "uid": approval, "name": what }])),
            ]
        }
        K::AuditRead { what } => vec![
            ("api", json!({ "operation": "audit.read" })),
            ("resources", json!([{ "type": "audit", "uid": what }])),
        ],
        K::AdminRefused { action, .. } => {
            vec![("api", json!({ "operation": action })), ("activity_name", json!("Refused"))]
        }
        K::Finding { rule, title, tags, evidence, observed, .. } => {
            finding(rule, title, tags, evidence, *observed)
        }
        K::RulesLoaded { .. } => {
            vec![("app", json!({ "name": "detection" })), ("activity_name", json!("Rules loaded"))]
        }
        K::RulesRefused { .. } => {
            vec![("app", json!({ "name": "detection" })), ("activity_name", json!("Rules refused"))]
        }
        K::RecordKept { object, what, agent, .. } => {
            let bucket = bucket("record", object, Some(what.code()));
            std::iter::once(bucket).chain(agent.as_ref().map(device)).collect()
        }
        K::RecordKeeping { object, what, .. }
        | K::RecordFetched { object, what, .. }
        | K::RecordMoved { object, what, .. } => vec![bucket("record", object, Some(what.code()))],
        K::KeptLagging { .. } => {
            vec![("app", json!({ "name": "keeping" })), ("activity_name", json!("Lagging"))]
        }
        K::KeptRecovered { .. } => {
            vec![("app", json!({ "name": "keeping" })), ("activity_name", json!("Recovered"))]
        }
        K::LogStopped { .. } => vec![("app", json!({ "name": "audit log" }))],
        K::WitnessLagging { witness, .. } => {
            vec![("app", json!({ "name": witness })), ("activity_name", json!("Lagging"))]
        }
        K::WitnessRecovered { witness } => {
            vec![("app", json!({ "name": witness })), ("activity_name", json!("Recovered"))]
        }
        K::WitnessRefused { witness, .. } => {
            vec![("app", json!({ "name": witness })), ("activity_name", json!("Refused"))]
        }
        K::SinkLagging { sink, .. } => {
            vec![("app", json!({ "name": sink })), ("activity_name", json!("Lagging"))]
        }
        K::SinkRejected { sink, .. } => {
            vec![("app", json!({ "name": sink })), ("activity_name", json!("Rejected"))]
        }
        K::SinkRecovered { sink } => {
            vec![("app", json!({ "name": sink })), ("activity_name", json!("Recovered"))]
        }
    }
}

fn finding(
    rule: &str,
    title: &str,
    tags: &[String],
    evidence: &[u64],
    observed: model::Timestamp,
) -> Vec<(&'static str, Value)> {
    /// OCSF's number for an analytic that is a rule.
    const RULE: u8 = 1;
    let trigger = evidence.last().copied().unwrap_or_default();
    let technique = |tag: &String| {
        let uid = tag.strip_prefix("attack.t")?;
        uid.starts_with(|c: char| c.is_ascii_digit())
            .then(|| json!({ "technique": { "uid": format!("T{uid}") } }))
    };
    let attacks: Vec<Value> = tags.iter().filter_map(technique).collect();
    let related: Vec<Value> = evidence.iter().map(|index| json!({ "uid": index.to_string() })).collect();
    let mut info = json!({
        "uid": format!("{rule}@{trigger}"),
        "title": title,
        "analytic": { "type_id": RULE, "uid": rule, "name": title },
        "related_events": related,
        "last_seen_time": observed.as_millis(),
    });
    if !attacks.is_empty() {
        info["attacks"] = json!(attacks);
    }

    vec![("finding_info", info), ("is_alert", json!(true))]
}

fn access(user: Value, grant: &model::GrantId, dataset: &model::DatasetId) -> Vec<(&'static str, Value)> {
    vec![
        ("user", user),
        ("privileges", json!(["read"])),
        (
            "resources",
            json!([
                { "type": "dataset", "uid": dataset },
                { "type": "grant", "uid": grant },
            ]),
        ),
    ]
}
