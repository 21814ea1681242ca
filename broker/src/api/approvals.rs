//! Acts that take a second officer: which are asked for, and the answer to one.

use std::sync::Arc;

use axum::extract::{Path, State};
use model::ApprovalId;
use serde::Deserialize;
use serde_json::{Value, json};
use store::{Approval, ApprovalState};

use super::Api;
use super::answer::{Answer, Asked, Fault};
use super::caller::ThePerson;

type Done = Result<Answer<Value>, Fault>;
type House = State<Arc<Api>>;

/// `POST /v1/approvals/{approval}/refuse`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refuse {
    reason: String,
}

/// `GET /v1/approvals`: requests, newest first, and what takes a second officer here.
pub(super) async fn list(State(api): House, ThePerson(by): ThePerson) -> Done {
    let gate = &api.services.gate;
    let now = gate.now();
    let all: Vec<Value> = gate.approvals(&by).await?.iter().map(|one| told(one, now)).collect();
    let matters: Vec<&str> = gate.approval_rules().matters().map(policy::Matter::name).collect();
    Ok(Answer(json!({ "approvals": all, "matters": matters })))
}

/// `POST /v1/approvals/{approval}/approve`
pub(super) async fn approve(
    State(api): House,
    ThePerson(by): ThePerson,
    Path(approval): Path<ApprovalId>,
) -> Done {
    let gate = &api.services.gate;
    let approval = gate.approve(&by, &approval).await?;
    Ok(Answer(told(&approval, gate.now())))
}

pub(super) async fn refuse(
    State(api): House,
    ThePerson(by): ThePerson,
    Path(approval): Path<ApprovalId>,
    Asked(Refuse { reason }): Asked<Refuse>,
) -> Done {
    let gate = &api.services.gate;
    let approval = gate.refuse_approval(&by, &approval, &reason).await?;
    Ok(Answer(told(&approval, gate.now())))
}

/// One, with `expired` for what can come to nothing any more.
fn told(approval: &Approval, now: model::Timestamp) -> Value {
    let mut told = json!(approval);
    let open = matches!(approval.state, ApprovalState::Asked | ApprovalState::Approved { .. });
    if open && now >= approval.expires {
        told["state"] = json!("expired");
    }
    told
}
