//! Which events a rule may be about, and which fields they have.

use rsigma_parser::{Detection, LogSource};

use super::rules::RuleError;
use super::view::{ALIASES, DECOY, FILE, NETWORK, PROCESS};

/// The kinds of events that a source stands for.
pub(super) fn kinds(source: &LogSource) -> Result<Vec<&'static str>, String> {
    let product = source.product.as_deref();
    let everything = || audit::event_kinds().collect::<Vec<_>>();
    match (source.category.as_deref(), source.service.as_deref(), product) {
        (None, None, Some("sekisho")) => Ok(everything()),
        (None, Some(kind), Some("sekisho")) => {
            let known = audit::event_kinds().find(|known| *known == kind);
            known.map(|kind| vec![kind]).ok_or_else(|| format!("no event is called {kind}; see docs/siem.md"))
        }
        (Some(category), None, None | Some("linux" | "sekisho")) => match category {
            "process_creation" => Ok(PROCESS.to_vec()),
            "network_connection" => Ok(NETWORK.to_vec()),
            "file_access" => Ok(FILE.to_vec()),
            other => Err(format!("this house has no events of the category {other}")),
        },
        _ => {
            Err("no event here comes from this source: product sekisho with an event's name as service, or \
                  product linux with category process_creation, network_connection or file_access"
                .to_owned())
        }
    }
}

/// Goes through the fields that a detection looks at.
pub(super) fn fields(
    detection: &Detection,
    each: &mut impl FnMut(&str) -> Result<(), RuleError>,
) -> Result<(), RuleError> {
    match detection {
        Detection::AllOf(items) => {
            items.iter().filter_map(|item| item.field.name.as_deref()).try_for_each(each)
        }
        Detection::AnyOf(all) => all.iter().try_for_each(|detection| fields(detection, each)),
        Detection::Keywords(_) => Ok(()),
    }
}

/// Whether some event of these kinds has the field. Of OCSF's own fields only the outermost name is
/// looked at.
pub(super) fn known(field: &str, kinds: &[&'static str]) -> bool {
    match field.split_once('.') {
        None if ALIASES.contains(&field) => {
            kinds.iter().any(|kind| PROCESS.contains(kind) || NETWORK.contains(kind) || FILE.contains(kind))
        }
        _ if field == DECOY => true,
        Some(("unmapped", rest)) => {
            let name = rest.split('.').next().unwrap_or_default();
            ["kind", "study", "device", "decision"].contains(&name)
                || kinds.iter().any(|kind| audit::event_fields(kind).any(|known| known == name))
        }
        _ => OCSF.contains(&field.split('.').next().unwrap_or_default()),
    }
}

/// The outermost names of exported events.
const OCSF: &[&str] = &[
    "action_id",
    "activity_id",
    "activity_name",
    "actor",
    "api",
    "app",
    "assessments",
    "authorizations",
    "category_uid",
    "class_uid",
    "connection_info",
    "count",
    "databucket",
    "device",
    "disposition_id",
    "dst_endpoint",
    "entity",
    "launch_type_id",
    "log_name",
    "message",
    "metadata",
    "privileges",
    "process",
    "resources",
    "service",
    "severity_id",
    "src_endpoint",
    "status_code",
    "status_detail",
    "status_id",
    "time",
    "time_dt",
    "traffic",
    "tunnel_type",
    "tunnel_type_id",
    "type_uid",
    "user",
];

/// Why a field is refused, and which would be right.
pub(super) fn no_field(field: &str, kinds: &[&str]) -> String {
    match kinds {
        [kind] => {
            let own: Vec<String> = audit::event_fields(kind).map(|name| format!("unmapped.{name}")).collect();
            format!("{kind} has no field {field}; its own are {}", own.join(", "))
        }
        _ => format!("no event of this source has a field {field}"),
    }
}
