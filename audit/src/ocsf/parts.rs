//! Parts of objects that several classes have.

use serde_json::{Value, json};

/// The name under which this system stands where OCSF asks for an application or a service.
pub(super) const SELF: &str = "sekisho";
/// OCSF's number for a type that it has no number for; `type` then says which.
pub(super) const OTHER: u8 = 99;
/// OCSF's number for a device that is a server.
pub(super) const SERVER: u8 = 1;

/// The host it happened on.
pub(super) fn device(agent: &model::AgentId) -> (&'static str, Value) {
    ("device", json!({ "type_id": SERVER, "uid": agent }))
}

pub(super) fn bucket(kind: &str, uid: &impl ToString, name: Option<&str>) -> (&'static str, Value) {
    let mut bucket = json!({ "type_id": OTHER, "type": kind, "uid": uid.to_string() });
    if let Some(name) = name {
        bucket["name"] = json!(name);
    }
    ("databucket", bucket)
}
