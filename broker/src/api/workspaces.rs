//! Workspaces, what studies let them use, and going out of service.
//!
//! Every request is put to the gate as it stands; there are no rules here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use gate::Target;
use model::{AgentId, PersonId, StudyId, WorkspaceName};
use policy::{Limit, StudyLimits};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::answer::{Answer, Asked, Fault};
use super::caller::ThePerson;

type Done = Result<Answer<Value>, Fault>;
type House = State<Arc<Api>>;

/// How long a workspace may take to be gone before the answer says that it is not yet.
const GONE: Duration = Duration::from_secs(10);
/// The longest time that can be given for leaving.
const WITHIN_MAX: u64 = 86_400;

/// `GET /v1/workspaces`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Which {
    #[serde(default)]
    study: Option<StudyId>,
}

/// `POST /v1/workspaces/stop` and its like
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct One {
    study: StudyId,
    #[serde(default)]
    workspace: WorkspaceName,
    #[serde(default)]
    person: Option<PersonId>,
    #[serde(default)]
    reason: String,
}

/// `POST /v1/drain` and `POST /v1/agents/{agent}/drain`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leave {
    #[serde(default)]
    within_secs: u64,
    #[serde(default)]
    undo: bool,
}

pub(super) async fn list(
    State(api): House,
    ThePerson(by): ThePerson,
    Query(Which { study }): Query<Which>,
) -> Done {
    let known = api.services.gate.workspaces(&by, study.as_ref()).await?;
    let loads = api.services.hub.loads();
    let rows = known.iter().map(|workspace| {
        let load = loads.get(&workspace.agent);
        let runs = load.and_then(|load| load.running.iter().find(|one| one.workspace == workspace.id));
        let mut row = serde_json::to_value(workspace).unwrap_or_default();
        row["running"] = json!(runs.is_some());
        row["sessions"] = json!(runs.map_or(0, |one| one.sessions));
        row["idle_secs"] = json!(runs.map(|one| one.idle_secs));
        row["connected"] = json!(load.is_some());
        row
    });
    Ok(Answer(rows.collect()))
}

pub(super) async fn stop(State(api): House, ThePerson(by): ThePerson, Asked(one): Asked<One>) -> Done {
    let (person, target) = one.named(&by.person);
    let errand = api.services.gate.stop_workspace(&by, &person, &target, &one.reason).await?;
    let (agent, workspace) = (errand.agent.clone(), errand.workspace.clone());
    let told = api.services.hub.run(errand).await;
    let stopped = told && gone(&api, &agent, &workspace).await;
    Ok(Answer(json!({ "workspace": workspace, "agent": agent, "stopped": stopped })))
}

pub(super) async fn resume(State(api): House, ThePerson(by): ThePerson, Asked(one): Asked<One>) -> Done {
    let (person, target) = one.named(&by.person);
    api.services.gate.resume_workspace(&by, &person, &target).await?;
    Ok(Answer(json!({ "study": target.study, "workspace": target.workspace })))
}

pub(super) async fn remove(State(api): House, ThePerson(by): ThePerson, Asked(one): Asked<One>) -> Done {
    let (person, target) = one.named(&by.person);
    let errand = api.services.gate.remove_workspace(&by, &person, &target).await?;
    let (agent, workspace) = (errand.agent.clone(), errand.workspace.clone());
    let told = api.services.hub.run(errand).await;
    Ok(Answer(json!({ "workspace": workspace, "agent": agent, "told": told })))
}

impl One {
    fn named(&self, own: &PersonId) -> (PersonId, Target) {
        let target = Target { study: self.study.clone(), workspace: self.workspace.clone() };
        (self.person.clone().unwrap_or_else(|| own.clone()), target)
    }
}

/// Waits until an agent no longer says that it runs a workspace.
async fn gone(api: &Api, agent: &AgentId, workspace: &model::WorkspaceId) -> bool {
    let gone = async {
        loop {
            let loads = api.services.hub.loads();
            let load = loads.get(agent);
            if load.is_none_or(|load| !load.running.iter().any(|one| one.workspace == *workspace)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(GONE, gone).await.is_ok()
}

pub(super) async fn limits(State(api): House, ThePerson(by): ThePerson, Path(study): Path<StudyId>) -> Done {
    let limits = api.services.gate.limits(&by, &study).await?;
    Ok(Answer(json!({ "study": study, "limits": listed(&limits) })))
}

pub(super) async fn set_limits(
    State(api): House,
    ThePerson(by): ThePerson,
    Path(study): Path<StudyId>,
    Asked(changes): Asked<BTreeMap<String, u64>>,
) -> Done {
    let named = |name: &String| Limit::ALL.into_iter().find(|limit| limit.name() == name);
    let mut known = Vec::new();
    for (name, to) in &changes {
        let limit = named(name).ok_or_else(|| {
            let all = Limit::ALL.map(Limit::name).join(", ");
            let name: String = name.chars().take(64).collect();
            Fault::malformed(format!("{name:?} is no limit; the limits are {all}."))
        })?;
        known.push((limit, *to));
    }
    let limits = api.services.gate.set_limits(&by, &study, &known).await?;
    Ok(Answer(json!({ "study": study, "limits": listed(&limits) })))
}

fn listed(limits: &StudyLimits) -> Value {
    Limit::ALL.iter().map(|limit| (limit.name().to_owned(), Value::from(limits.get(*limit)))).collect()
}

pub(super) async fn drain_agent(
    State(api): House,
    ThePerson(by): ThePerson,
    Path(agent): Path<AgentId>,
    Asked(Leave { within_secs, undo }): Asked<Leave>,
) -> Done {
    let within = within(within_secs)?;
    let services = &api.services;
    services.gate.drain_agent(&by, &agent, !undo).await?;
    if undo {
        services.hub.drain(&agent).open();
    } else {
        services.hub.drain_within(&services.gate, &agent, within, &services.stopping);
    }
    let sessions = services.hub.loads().get(&agent).map_or(0, |load| load.sessions);
    Ok(Answer(json!({ "agent": agent, "draining": !undo, "sessions": sessions })))
}

pub(super) async fn drain(
    State(api): House,
    ThePerson(by): ThePerson,
    Asked(Leave { within_secs, undo }): Asked<Leave>,
) -> Done {
    let within = within(within_secs)?;
    api.services.gate.drain(&by).await?;
    if undo {
        api.services.drain.open();
    } else {
        api.services.drain.close(within);
    }
    Ok(Answer(json!({ "draining": !undo })))
}

fn within(secs: u64) -> Result<Duration, Fault> {
    if secs > WITHIN_MAX {
        return Err(Fault::malformed("Nobody can be given more than a day to leave."));
    }
    Ok(Duration::from_secs(secs))
}
