//! `sekisho approvals`: what takes a second officer, and the answer to it.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{ApiError, printable};
use crate::args::Approvals;
use crate::fault::Fault;
use crate::home::Home;
use crate::{Surroundings, login, say, table};

/// The broker's answer; foreign bytes.
#[derive(Debug, Deserialize)]
struct Answer {
    approvals: Vec<Row>,
    matters: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Row {
    id: String,
    matter: String,
    what: String,
    asked_by: String,
    asked_at: String,
    expires: String,
    state: String,
    #[serde(default)]
    by: Option<String>,
    #[serde(default)]
    reason: Option<String>,
}

/// Lists requests, or answers one.
pub async fn approvals(around: &Surroundings, home: &Home, asked: &Approvals) -> Result<(), Fault> {
    let api = login::authenticated(around, home).await?;
    let (path, body) = match asked {
        Approvals::List { all } => {
            let answer: Value = api.get("/v1/approvals").await.map_err(|e| e.into_fault(api.url()))?;
            if around.json {
                around.print_json(&answer);
                return Ok(());
            }
            let answer: Answer = serde_json::from_value(answer)
                .map_err(|e| ApiError::NotUnderstood(e.to_string()).into_fault(api.url()))?;
            list(around, &answer, *all);
            return Ok(());
        }
        Approvals::Approve { approval } => (path_of(approval, "approve")?, json!({})),
        Approvals::Refuse { approval, reason } => (path_of(approval, "refuse")?, json!({ "reason": reason })),
    };
    let answer: Value = api.post(&path, &body).await.map_err(|e| e.into_fault(api.url()))?;
    if around.json {
        around.print_json(&answer);
        return Ok(());
    }
    let row: Row = serde_json::from_value(answer)
        .map_err(|e| ApiError::NotUnderstood(e.to_string()).into_fault(api.url()))?;
    let (id, what) = (printable(&row.id), printable(&row.what));
    match asked {
        Approvals::Refuse { .. } => around.print(&say!(ApprovalRefused, id = id, what = what)),
        _ => {
            let (who, until) = (printable(&row.asked_by), printable(&row.expires));
            around.print(&say!(Approved, id = id, who = who, what = what, until = until));
        }
    }
    Ok(())
}

fn list(around: &Surroundings, answer: &Answer, all: bool) {
    let open = |row: &&Row| all || matches!(row.state.as_str(), "asked" | "approved");
    let rows: Vec<Value> = answer.approvals.iter().filter(open).map(shown).collect();
    if rows.is_empty() {
        around.print(&say!(NoApprovals));
    } else {
        around.line(table::render(&rows).trim_end());
    }
    if answer.matters.is_empty() {
        around.print(&say!(NoMatters));
    } else {
        around.print(&say!(Matters, matters = printable(&answer.matters.join(", "))));
    }
}

fn shown(row: &Row) -> Value {
    json!({
        "approval": row.id,
        "matter": row.matter,
        "what": printable(&row.what),
        "asked_by": row.asked_by,
        "asked_at": row.asked_at,
        "expires": row.expires,
        "state": row.state,
        "by": row.by,
        "reason": row.reason.as_deref().map(printable),
    })
}

fn path_of(text: &str, verb: &str) -> Result<String, Fault> {
    let bare = text.strip_prefix(model::ApprovalId::PREFIX).unwrap_or(text);
    let id = model::ApprovalId::from_name(bare)
        .map_err(|e| Fault::usage(say!(BadName, text = text)).because(&e))?;
    Ok(format!("/v1/approvals/{id}/{verb}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Exit;

    #[test]
    fn requests_are_named_with_or_without_their_prefix() {
        assert_eq!(path_of("appr:a1", "approve").unwrap(), "/v1/approvals/appr:a1/approve");
        assert_eq!(path_of("a1", "refuse").unwrap(), "/v1/approvals/appr:a1/refuse");
        assert_eq!(path_of("../x", "approve").unwrap_err().exit, Exit::Usage);
    }
}
