//! The programme's own affairs: people, studies, datasets, grants, agents, services.
//!
//! Every request is put to the gate as it stands; there are no rules here.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Path, State};
use data_encoding::BASE64;
use gate::{NewDataset, NewDecoy, NewGrant, NewPerson, NewStudy};
use model::{AgentId, DatasetId, DecoyId, GrantId, PersonId, RoleId, StudyId, Timestamp};
use policy::{Channel, ChannelRules, Grantee};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Api;
use super::answer::{Answer, Asked, Fault};
use super::caller::ThePerson;
use super::identity::{base64, pem};

type Done = Result<Answer<serde_json::Value>, Fault>;
type House = State<Arc<Api>>;

/// `POST /v1/people`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    person: PersonId,
    name: String,
    #[serde(default)]
    roles: Vec<RoleId>,
}

/// `POST /v1/people/{person}/lock` and `POST /v1/grants/{grant}/revoke`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reason {
    reason: String,
}

/// `POST /v1/decoys`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decoy {
    kind: String,
    what: String,
    #[serde(default)]
    note: String,
}

/// `POST /v1/studies`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Study {
    study: StudyId,
    title: String,
    purposes: Vec<String>,
    until: Timestamp,
}

/// `POST /v1/studies/{study}/members`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    person: PersonId,
    role: RoleId,
}

/// `POST /v1/studies/{study}/channels`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channels {
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    refuse: Vec<String>,
}

/// `POST /v1/datasets`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    dataset: DatasetId,
    title: String,
    conditions: Vec<Vec<String>>,
}

/// `POST /v1/grants`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    study: StudyId,
    dataset: DatasetId,
    grantee: String,
    #[serde(default)]
    from: Option<Timestamp>,
    until: Timestamp,
}

/// `POST /v1/agents/token`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentToken {
    agent: AgentId,
}

/// `POST /v1/services/certificate`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    service: String,
    #[serde(default)]
    dns: Vec<String>,
    #[serde(default)]
    ips: Vec<IpAddr>,
    spki: String,
}

/// No fields.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

pub(super) async fn create_person(
    State(api): House,
    ThePerson(by): ThePerson,
    Asked(new): Asked<Person>,
) -> Done {
    let id = new.person.clone();
    api.services
        .gate
        .enrol_person(&by, NewPerson { person: new.person, name: new.name, roles: new.roles })
        .await?;
    Ok(Answer(json!({ "person": id })))
}

pub(super) async fn person_token(
    State(api): House,
    ThePerson(by): ThePerson,
    Path(person): Path<PersonId>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Done {
    let token = api.services.gate.person_token(&by, &person).await?;
    Ok(Answer(json!({ "token": token })))
}

pub(super) async fn lock_person(
    State(api): House,
    ThePerson(by): ThePerson,
    Path(person): Path<PersonId>,
    Asked(Reason { reason }): Asked<Reason>,
) -> Done {
    let ended = api.services.gate.lock_person(&by, &person, &reason).await?;
    Ok(Answer(json!({ "person": person, "sessions_ended": ended })))
}

pub(super) async fn unlock_person(
    State(api): House,
    ThePerson(by): ThePerson,
    Path(person): Path<PersonId>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Done {
    api.services.gate.unlock_person(&by, &person).await?;
    Ok(Answer(json!({ "person": person })))
}

pub(super) async fn add_decoy(State(api): House, ThePerson(by): ThePerson, Asked(new): Asked<Decoy>) -> Done {
    let kind = store::DecoyKind::from_code(&new.kind)
        .ok_or_else(|| Fault::malformed("A decoy is an address, a key or an object."))?;
    let decoy = api.services.gate.add_decoy(&by, NewDecoy { kind, what: new.what, note: new.note }).await?;
    Ok(Answer(json!({ "decoy": decoy })))
}

pub(super) async fn remove_decoy(
    State(api): House,
    ThePerson(by): ThePerson,
    Path(decoy): Path<DecoyId>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Done {
    api.services.gate.remove_decoy(&by, &decoy).await?;
    Ok(Answer(json!({ "decoy": decoy })))
}

pub(super) async fn decoys(
    State(api): House,
    ThePerson(by): ThePerson,
) -> Result<Answer<impl Serialize>, Fault> {
    Ok(Answer(api.services.gate.decoys(&by).await?))
}

pub(super) async fn create_study(
    State(api): House,
    ThePerson(by): ThePerson,
    Asked(new): Asked<Study>,
) -> Done {
    let id = new.study.clone();
    let new = NewStudy { study: new.study, title: new.title, purposes: new.purposes, until: new.until };
    api.services.gate.create_study(&by, new).await?;
    Ok(Answer(json!({ "study": id })))
}

pub(super) async fn add_member(
    State(api): House,
    ThePerson(by): ThePerson,
    Path(study): Path<StudyId>,
    Asked(Member { person, role }): Asked<Member>,
) -> Done {
    api.services.gate.add_member(&by, &study, &person, &role).await?;
    Ok(Answer(json!({ "study": study, "person": person, "role": role })))
}

pub(super) async fn channels(
    State(api): House,
    ThePerson(by): ThePerson,
    Path(study): Path<StudyId>,
) -> Done {
    let rules = api.services.gate.channels(&by, &study).await?;
    Ok(Answer(json!({ "study": study, "channels": listed(&rules) })))
}

pub(super) async fn set_channels(
    State(api): House,
    ThePerson(by): ThePerson,
    Path(study): Path<StudyId>,
    Asked(Channels { allow, refuse }): Asked<Channels>,
) -> Done {
    let named = |names: &[String]| {
        let parsed = names.iter().map(|name| name.parse::<Channel>()).collect::<Result<Vec<_>, _>>();
        parsed.map_err(|error| Fault::malformed(format!("{error}.")))
    };
    let (rules, ended) =
        api.services.gate.set_channels(&by, &study, &named(&allow)?, &named(&refuse)?).await?;
    Ok(Answer(json!({ "study": study, "channels": listed(&rules), "sessions_ended": ended })))
}

/// Every kind of channel, and whether it is open.
fn listed(rules: &ChannelRules) -> serde_json::Value {
    let offered = Channel::ALL.into_iter().filter(|channel| channel.is_offered());
    offered.map(|channel| json!({ "channel": channel.name(), "allowed": rules.allows(channel) })).collect()
}

pub(super) async fn create_dataset(
    State(api): House,
    ThePerson(by): ThePerson,
    Asked(new): Asked<Dataset>,
) -> Done {
    let id = new.dataset.clone();
    let new = NewDataset { dataset: new.dataset, title: new.title, conditions: new.conditions };
    api.services.gate.create_dataset(&by, new).await?;
    Ok(Answer(json!({ "dataset": id })))
}

pub(super) async fn create_grant(
    State(api): House,
    ThePerson(by): ThePerson,
    Asked(new): Asked<Grant>,
) -> Done {
    let grantee: Grantee = grantee(&new.grantee)?;
    let new = NewGrant { study: new.study, dataset: new.dataset, grantee, from: new.from, until: new.until };
    let grant = api.services.gate.grant(&by, new).await?;
    Ok(Answer(json!({ "grant": grant })))
}

pub(super) async fn revoke_grant(
    State(api): House,
    ThePerson(by): ThePerson,
    Path(grant): Path<GrantId>,
    Asked(Reason { reason }): Asked<Reason>,
) -> Done {
    let ended = api.services.gate.revoke_grant(&by, &grant, &reason).await?;
    Ok(Answer(json!({ "grant": grant, "sessions_ended": ended })))
}

pub(super) async fn agent_token(
    State(api): House,
    ThePerson(by): ThePerson,
    Asked(AgentToken { agent }): Asked<AgentToken>,
) -> Done {
    let token = api.services.gate.agent_token(&by, &agent).await?;
    Ok(Answer(json!({ "token": token })))
}

pub(super) async fn service_certificate(
    State(api): House,
    ThePerson(by): ThePerson,
    Asked(asked): Asked<Service>,
) -> Done {
    let spki = base64(&asked.spki, "public key")?;
    let issued =
        api.services.gate.service_certificate(&by, &asked.service, &asked.dns, &asked.ips, spki).await?;
    Ok(Answer(json!({
        "certificate_pem": pem(&issued.certificate),
        "ca_pem": pem(api.ca.der()),
        "expires": issued.expires,
    })))
}

macro_rules! lists {
    ($($name:ident)*) => {$(
        pub(super) async fn $name(State(api): House, ThePerson(by): ThePerson) -> Result<Answer<impl Serialize>, Fault> {
            Ok(Answer(api.services.gate.records(&by).await?.$name))
        }
    )*};
}

lists! { people studies datasets objects grants }

pub(super) async fn agents(State(api): House, ThePerson(by): ThePerson) -> Done {
    let agents = api.services.gate.records(&by).await?.agents;
    let loads = api.services.hub.loads();
    let list: Vec<_> = agents
        .iter()
        .map(|agent| {
            let mut row = serde_json::to_value(agent).unwrap_or_default();
            let load = loads.get(&agent.id);
            row["connected"] = load.is_some().into();
            if let Some(load) = load {
                row["sessions"] = load.sessions.into();
                row["workspaces"] = load.running.len().into();
                row["cpu_permille"] = load.cpu_permille.into();
                row["memory_permille"] = load.memory_permille.into();
            }
            row
        })
        .collect();
    Ok(Answer(list.into()))
}

pub(super) async fn intake_key(State(api): House, ThePerson(_): ThePerson) -> Done {
    let link = api.services.hub.choose().ok_or_else(super::no_agent)?;
    let key = BASE64.encode(&link.hello().intake_key);
    Ok(Answer(json!({ "agent": link.agent(), "key": key })))
}

/// A person, or a role that members of the study have.
fn grantee(text: &str) -> Result<Grantee, Fault> {
    text.parse::<PersonId>()
        .map(Grantee::Person)
        .or_else(|_| text.parse::<RoleId>().map(Grantee::Role))
        .map_err(|_| Fault::malformed("A grantee is a person (u:…) or a role in the study (role:…)."))
}
