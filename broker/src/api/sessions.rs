//! Sessions that go on: which there are, a word to one, the end of one; and how a study has its
//! sessions supervised.

use std::sync::Arc;

use axum::extract::{Path, State};
use gate::SupervisionChange;
use model::{SessionId, StudyId};
use policy::{Joining, SupervisionRule};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::answer::{Answer, Asked, Fault};
use super::caller::ThePerson;
use crate::ssh::stage::Stage;

type Done = Result<Answer<Value>, Fault>;
type House = State<Arc<Api>>;

/// The longest word to a session, in bytes.
const TEXT: usize = 500;

/// `POST /v1/studies/{study}/supervision`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    told: Option<bool>,
    joining: Option<Joining>,
    moderated: Option<bool>,
}

/// `POST /v1/sessions/{session}/message`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    text: String,
}

/// `POST /v1/sessions/{session}/kill`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kill {
    reason: String,
}

pub(super) async fn rule(State(api): House, ThePerson(by): ThePerson, Path(study): Path<StudyId>) -> Done {
    let rule = api.services.gate.supervision_rule(&by, &study).await?;
    Ok(Answer(told(&study, rule)))
}

pub(super) async fn set_rule(
    State(api): House,
    ThePerson(by): ThePerson,
    Path(study): Path<StudyId>,
    Asked(Rule { told: announced, joining, moderated }): Asked<Rule>,
) -> Done {
    let change = SupervisionChange { told: announced, joining, moderated };
    let rule = api.services.gate.set_supervision(&by, &study, change).await?;
    Ok(Answer(told(&study, rule)))
}

fn told(study: &StudyId, rule: SupervisionRule) -> Value {
    let mut told = json!(rule);
    told["study"] = json!(study);
    told
}

pub(super) async fn list(State(api): House, ThePerson(by): ThePerson) -> Done {
    api.services.gate.list_sessions(&by).await?;
    let sessions: Vec<Value> = api.services.stages.all().iter().map(|stage| shown(stage)).collect();
    Ok(Answer(json!({ "sessions": sessions })))
}

fn shown(stage: &Stage) -> Value {
    let bill = &stage.bill;
    let (inward, outward) = stage.bytes();
    let watchers: Vec<Value> = stage
        .watchers()
        .iter()
        .map(|watcher| json!({ "person": watcher.person, "joined": watcher.joined }))
        .collect();
    json!({
        "session": bill.session,
        "person": bill.person,
        "study": bill.study,
        "since": bill.since,
        "what": bill.what,
        "terminal": bill.terminal.is_some(),
        "bytes_in": inward,
        "bytes_out": outward,
        "recorded": bill.recorded,
        "waiting": stage.waits(),
        "watchers": watchers,
    })
}

pub(super) async fn message(
    State(api): House,
    ThePerson(by): ThePerson,
    Path(session): Path<SessionId>,
    Asked(Message { text }): Asked<Message>,
) -> Done {
    if text.trim().is_empty() || text.len() > TEXT {
        return Err(Fault::malformed(format!("A message has 1 to {TEXT} bytes.")));
    }
    api.services.gate.message_session(&by, &session, &text).await?;
    let stage = api.services.stages.of(&session);
    let said = stage.is_some_and(|stage| stage.say(format!("{}: {text}", by.person)));
    Ok(Answer(json!({ "session": session, "said": said })))
}

pub(super) async fn kill(
    State(api): House,
    ThePerson(by): ThePerson,
    Path(session): Path<SessionId>,
    Asked(Kill { reason }): Asked<Kill>,
) -> Done {
    if reason.trim().is_empty() || reason.len() > TEXT {
        return Err(Fault::malformed(format!("A reason has 1 to {TEXT} bytes.")));
    }
    api.services.gate.kill_session(&by, &session, &reason).await?;
    Ok(Answer(json!({ "session": session })))
}
