//! The objects of what agents observe in workspaces and of their hosts.

use std::net::IpAddr;

use model::observed::{Check, CheckState, ConnectionOutcome, NetworkFamily};
use serde_json::{Map, Value, json};

use super::parts::{SELF, SERVER, bucket, device};
use crate::EventKind;

/// OCSF's number for a launch by execve(2).
const EXEC: u8 = 3;
/// OCSF's number for a regular file.
const REGULAR_FILE: u8 = 1;
/// OCSF's numbers for where a connection goes.
const OUTBOUND: u8 = 2;
const LOCAL: u8 = 4;
/// OCSF's numbers for what was made of it, as an action and as a disposition.
const ALLOWED: u8 = 1;
const BLOCKED: u8 = 2;

/// What the event is about.
pub(super) fn about(kind: &EventKind) -> Vec<(&'static str, Value)> {
    use EventKind as K;
    match kind {
        K::ProcessStarted { agent, what, .. } => {
            let mut process = process(what.pid, Some(&what.program));
            process["cmd_line"] = json!(what.argv.join(" "));
            process["user"] = json!({ "uid": what.uid.to_string() });
            process["parent_process"] = self::process(what.parent_pid, what.parent_program.as_deref());
            if let Some(directory) = &what.directory {
                process["working_directory"] = json!(directory);
            }
            vec![("process", process), ("launch_type_id", json!(EXEC)), device(agent)]
        }
        K::ConnectionAttempted { agent, what, .. } => {
            let direction = if what.outcome == ConnectionOutcome::Blocked { OUTBOUND } else { LOCAL };
            let version = version(what.family, &what.address);
            vec![
                ("dst_endpoint", endpoint(&what.address, what.port)),
                ("connection_info", connection(what.protocol.code(), direction, version)),
                ("count", json!(what.count)),
                device(agent),
            ]
        }
        K::PacketDropped { agent, what, .. } => {
            let version = version(NetworkFamily::Other, &what.destination);
            vec![
                ("src_endpoint", endpoint(&what.source, what.source_port)),
                ("dst_endpoint", endpoint(&what.destination, what.destination_port)),
                ("connection_info", connection(what.protocol.code(), OUTBOUND, version)),
                ("traffic", json!({ "packets_out": what.count, "bytes_out": what.bytes })),
                ("count", json!(what.count)),
                device(agent),
            ]
        }
        K::FileRead { agent, what, .. } => {
            vec![bucket("object", &what.object, Some(&what.name)), device(agent)]
        }
        K::ActivityOverflowed { agent, .. } => vec![
            ("activity_name", json!("Overflow")),
            ("log_name", json!("workspace activity")),
            ("src_endpoint", json!({ "svc_name": SELF })),
            device(agent),
        ],
        K::AgentDiagnosed { agent, what, .. } => vec![assessments(&what.checks), device(agent)],
        K::BrokerDiagnosed { what, .. } => {
            vec![assessments(&what.checks), ("device", json!({ "type_id": SERVER, "name": "broker" }))]
        }
        _ => Vec::new(),
    }
}

/// Who acted, beside the person; and what became of it, where no policy decided.
pub(super) fn complete(kind: &EventKind, fields: &mut Map<String, Value>) {
    use EventKind as K;
    let by = match kind {
        K::ProcessStarted { what, .. } => Some((what.parent_pid, &what.parent_program)),
        K::ConnectionAttempted { what, .. } => Some((what.pid, &what.program)),
        K::PacketDropped { what, .. } => what.pid.map(|pid| (pid, &what.program)),
        K::FileRead { what, .. } => what.pid.map(|pid| (pid, &what.program)),
        _ => None,
    };
    if let Some((pid, program)) = by
        && let Some(actor) = fields.entry("actor").or_insert_with(|| json!({})).as_object_mut()
    {
        actor.insert("process".to_owned(), process(pid, program.as_deref()));
    }
    let fate = match kind {
        K::ConnectionAttempted { what, .. } if what.outcome != ConnectionOutcome::Blocked => ALLOWED,
        K::ConnectionAttempted { .. } | K::PacketDropped { .. } => BLOCKED,
        _ => return,
    };
    for field in ["action_id", "disposition_id"] {
        fields.entry(field).or_insert_with(|| json!(fate));
    }
}

fn process(pid: u32, program: Option<&str>) -> Value {
    let mut process = json!({ "pid": pid });
    if let Some(program) = program {
        let name = program.rsplit('/').next().unwrap_or(program);
        process["name"] = json!(name);
        process["path"] = json!(program);
        process["file"] = json!({ "name": name, "path": program, "type_id": REGULAR_FILE });
    }
    process
}

fn endpoint(address: &str, port: Option<u16>) -> Value {
    let mut endpoint = match address.parse::<IpAddr>() {
        Ok(ip) => json!({ "ip": ip }),
        Err(_) => json!({ "name": address }),
    };
    if let Some(port) = port {
        endpoint["port"] = json!(port);
    }
    endpoint
}

fn version(family: NetworkFamily, address: &str) -> u8 {
    match (family, address.parse::<IpAddr>()) {
        (NetworkFamily::Inet, _) | (_, Ok(IpAddr::V4(_))) => 4,
        (NetworkFamily::Inet6, _) | (_, Ok(IpAddr::V6(_))) => 6,
        _ => 99,
    }
}

fn connection(protocol: &str, direction: u8, version: u8) -> Value {
    json!({ "protocol_name": protocol, "direction_id": direction, "protocol_ver_id": version })
}

fn assessments(checks: &[Check]) -> (&'static str, Value) {
    let assessed = |check: &Check| {
        json!({
            "name": check.name,
            "desc": check.detail,
            "category": check.state.code(),
            "meets_criteria": check.state == CheckState::Ok,
        })
    };
    ("assessments", checks.iter().map(assessed).collect())
}
