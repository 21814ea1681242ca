use std::path::Path;

use certs::x509::KeyPair;
use data_encoding::BASE64;
use model::{AgentId, DatasetId, DecoyId, GrantId, PersonId, RoleId, StudyId, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Api, TokenAnswer, printable};
use crate::args::{
    Agent, Command, Dataset, Decoy, DecoyKind, Diagnostics, Drain, Grant, Join, Member, Object, Person,
    RecordingInput, RecordingMode, Service, Study, Workspace, WorkspaceOf, YesNo,
};
use crate::fault::{Fault, Message};
use crate::home::{self, Home, Mode, bad_file};
use crate::words::Key;
use crate::{Surroundings, login, say, table};

/// The commands that keep the programme's records: one question to the broker each.
pub async fn records(around: &Surroundings, home: &Home, command: &Command) -> Result<(), Fault> {
    if let Command::Service(Service::Certificate { service, dns, out }) = command {
        return certificate(around, home, service, dns, out).await;
    }
    let Some(ask) = ask(command)? else { return Ok(()) };
    let api = login::authenticated(around, home).await?;
    let answer: Value = match &ask.body {
        Some(body) => api.post(&ask.path, body).await,
        None => api.get(&ask.path).await,
    }
    .map_err(|e| e.into_fault(api.url()))?;
    if around.json {
        around.print_json(&answer);
        return Ok(());
    }
    tell(around, &api, ask.then, &answer)
}

/// What is asked, and how its answer is told.
#[derive(Debug)]
struct Ask {
    path: String,
    body: Option<Value>,
    then: Then,
}

#[derive(Debug)]
enum Then {
    Say(Message),
    Grant { study: StudyId, dataset: DatasetId, until: Timestamp },
    Token { subject: String, person: Option<PersonId> },
    Decoy,
    Channels { study: StudyId },
    Recording { study: StudyId },
    Supervision { study: StudyId },
    Limits { study: StudyId },
    Stopped,
    List,
}

fn ask(command: &Command) -> Result<Option<Ask>, Fault> {
    let list = |path: &str| Ask { path: path.to_owned(), body: None, then: Then::List };
    let post = |path: String, body: Value, then: Then| Ask { path, body: Some(body), then };
    let created = |what: &str| Then::Say(say!(Created, what = what));
    Ok(Some(match command {
        Command::Person(Person::List) => list("/v1/people"),
        Command::Person(Person::Create { person, name, roles }) => {
            let id = login::person_id(person)?;
            let roles: Vec<RoleId> = roles.iter().map(|r| role_id(r)).collect::<Result<_, _>>()?;
            let name = name.as_deref().unwrap_or(id.name());
            let body = json!({"person": id, "name": name, "roles": roles});
            post("/v1/people".to_owned(), body, created(id.as_str()))
        }
        Command::Person(Person::Token { person }) => {
            let id = login::person_id(person)?;
            let path = format!("/v1/people/{id}/token");
            post(path, json!({}), Then::Token { subject: id.to_string(), person: Some(id) })
        }
        Command::Person(Person::Lock { person, reason }) => {
            let id = login::person_id(person)?;
            let path = format!("/v1/people/{id}/lock");
            post(path, json!({"reason": reason}), Then::Say(say!(LockedOut, person = id)))
        }
        Command::Person(Person::Unlock { person }) => {
            let id = login::person_id(person)?;
            let path = format!("/v1/people/{id}/unlock");
            post(path, json!({}), Then::Say(say!(LetIn, person = id)))
        }
        Command::Decoy(Decoy::List) => list("/v1/decoys"),
        Command::Decoy(Decoy::Add { kind, what, note }) => {
            let body = json!({"kind": decoy_kind(*kind), "what": decoy_value(*kind, what)?, "note": note});
            post("/v1/decoys".to_owned(), body, Then::Decoy)
        }
        Command::Decoy(Decoy::Remove { decoy }) => {
            let id = id(decoy, DecoyId::PREFIX, DecoyId::from_name)?;
            let path = format!("/v1/decoys/{id}/remove");
            post(path, json!({}), Then::Say(say!(DecoyRemoved, decoy = id)))
        }
        Command::Study(Study::List) => list("/v1/studies"),
        Command::Study(Study::Create { study, title, purposes, until }) => {
            let id = study_id(study)?;
            let body = json!({"study": id, "title": title, "purposes": purposes, "until": instant(until)?});
            post("/v1/studies".to_owned(), body, created(id.as_str()))
        }
        Command::Study(Study::Channels { study, allow, refuse }) => {
            let study = study_id(study)?;
            let path = format!("/v1/studies/{study}/channels");
            let change = !allow.is_empty() || !refuse.is_empty();
            let body = change.then(|| json!({"allow": allow, "refuse": refuse}));
            Ask { path, body, then: Then::Channels { study } }
        }
        Command::Study(Study::Recording { study, mode, input, commands, limit, lead }) => {
            let study = study_id(study)?;
            let path = format!("/v1/studies/{study}/recording");
            let mut change = serde_json::Map::new();
            let yes = |answer: &YesNo| *answer == YesNo::Yes;
            let parts = [
                ("mode", mode.map(|mode| json!(recording_mode(mode)))),
                ("input", input.map(|input| json!(input == RecordingInput::All))),
                ("commands", commands.as_ref().map(|answer| json!(yes(answer)))),
                ("limit_mib", limit.map(|limit| json!(limit))),
                ("lead", lead.as_ref().map(|answer| json!(yes(answer)))),
            ];
            for (name, value) in parts {
                change.extend(value.map(|value| (name.to_owned(), value)));
            }
            let body = (!change.is_empty()).then_some(Value::Object(change));
            Ask { path, body, then: Then::Recording { study } }
        }
        Command::Study(Study::Supervision { study, told, join, moderated }) => {
            let study = study_id(study)?;
            let path = format!("/v1/studies/{study}/supervision");
            let mut change = serde_json::Map::new();
            let parts = [
                ("told", told.map(|answer| json!(answer == YesNo::Yes))),
                ("joining", join.map(|join| json!(joining(join)))),
                ("moderated", moderated.map(|answer| json!(answer == YesNo::Yes))),
            ];
            for (name, value) in parts {
                change.extend(value.map(|value| (name.to_owned(), value)));
            }
            let body = (!change.is_empty()).then_some(Value::Object(change));
            Ask { path, body, then: Then::Supervision { study } }
        }
        Command::Study(Study::Limits { study, limits }) => {
            let study = study_id(study)?;
            let path = format!("/v1/studies/{study}/limits");
            let named: serde_json::Map<String, Value> =
                limits.named().into_iter().map(|(name, to)| (name.to_owned(), to.into())).collect();
            let body = (!named.is_empty()).then_some(Value::Object(named));
            Ask { path, body, then: Then::Limits { study } }
        }
        Command::Ws(Workspace::List { study: None }) => list("/v1/workspaces"),
        Command::Ws(Workspace::List { study: Some(study) }) => {
            list(&format!("/v1/workspaces?study={}", study_id(study)?))
        }
        Command::Ws(Workspace::Stop { which, reason }) => {
            let mut body = workspace(which)?;
            body["reason"] = json!(reason);
            post("/v1/workspaces/stop".to_owned(), body, Then::Stopped)
        }
        Command::Ws(Workspace::Resume { which }) => {
            let said = say!(Resumed, workspace = which.workspace, study = which.study);
            post("/v1/workspaces/resume".to_owned(), workspace(which)?, Then::Say(said))
        }
        Command::Ws(Workspace::Remove { which }) => {
            let said = say!(WorkspaceRemoved, workspace = which.workspace, study = which.study);
            post("/v1/workspaces/remove".to_owned(), workspace(which)?, Then::Say(said))
        }
        Command::Drain(drain) => {
            let said = if drain.undo {
                say!(BackInService, what = "broker")
            } else {
                say!(Draining, what = "broker")
            };
            post("/v1/drain".to_owned(), leave(drain), Then::Say(said))
        }
        Command::Agent(Agent::Drain { agent, drain }) => {
            let id = id(agent, AgentId::PREFIX, AgentId::from_name)?;
            let said = if drain.undo { say!(BackInService, what = id) } else { say!(Draining, what = id) };
            post(format!("/v1/agents/{id}/drain"), leave(drain), Then::Say(said))
        }
        Command::Member(Member::Add { study, person, role }) => {
            let (study, person, role) = (study_id(study)?, login::person_id(person)?, role_id(role)?);
            let path = format!("/v1/studies/{study}/members");
            let said = say!(Added, person = person, role = role, study = study);
            post(path, json!({"person": person, "role": role}), Then::Say(said))
        }
        Command::Dataset(Dataset::List) => list("/v1/datasets"),
        Command::Dataset(Dataset::Create { dataset, title, conditions }) => {
            let id = dataset_id(dataset)?;
            let sets: Vec<Vec<&str>> = conditions
                .iter()
                .map(|set| set.split(',').map(str::trim).filter(|c| !c.is_empty()).collect())
                .collect();
            let body = json!({"dataset": id, "title": title, "conditions": sets});
            post("/v1/datasets".to_owned(), body, created(id.as_str()))
        }
        Command::Grant(Grant::List) => list("/v1/grants"),
        Command::Grant(Grant::Create { study, dataset, grantee, until }) => {
            let (study, dataset, until) = (study_id(study)?, dataset_id(dataset)?, instant(until)?);
            let grantee = if grantee.starts_with(RoleId::PREFIX) {
                role_id(grantee)?.to_string()
            } else {
                login::person_id(grantee)?.to_string()
            };
            let body = json!({"study": study, "dataset": dataset, "grantee": grantee, "until": until});
            post("/v1/grants".to_owned(), body, Then::Grant { study, dataset, until })
        }
        Command::Grant(Grant::Revoke { grant, reason }) => {
            let id = id(grant, GrantId::PREFIX, GrantId::from_name)?;
            let path = format!("/v1/grants/{id}/revoke");
            post(path, json!({"reason": reason}), Then::Say(say!(Revoked, grant = id)))
        }
        Command::Diagnostics { what: None } => list("/v1/diagnostics"),
        Command::Diagnostics { what: Some(Diagnostics::Accept { process, state }) } => {
            let process = match process.as_str() {
                "broker" => "broker".to_owned(),
                agent => id(agent, AgentId::PREFIX, AgentId::from_name)?.to_string(),
            };
            let path = format!("/v1/diagnostics/{process}/accept");
            post(path, json!({"state": state}), Then::Say(say!(StateAccepted, process = process)))
        }
        Command::Object(Object::List) => list("/v1/objects"),
        Command::Agent(Agent::List) => list("/v1/agents"),
        Command::Agent(Agent::Token { agent }) => {
            let id = id(agent, AgentId::PREFIX, AgentId::from_name)?;
            let then = Then::Token { subject: id.to_string(), person: None };
            post("/v1/agents/token".to_owned(), json!({"agent": id}), then)
        }
        // The others are not about records, or were dealt with before.
        Command::Service(_)
        | Command::Approvals(_)
        | Command::Rules(_)
        | Command::Up(_)
        | Command::Login(_)
        | Command::Ssh(_)
        | Command::Put(_)
        | Command::Play(_)
        | Command::Recordings(_)
        | Command::Sessions(_)
        | Command::Audit(_)
        | Command::Status(_) => return Ok(None),
    }))
}

fn recording_mode(mode: RecordingMode) -> &'static str {
    match mode {
        RecordingMode::Off => "off",
        RecordingMode::BestEffort => "best-effort",
        RecordingMode::Strict => "strict",
    }
}

fn joining(join: Join) -> &'static str {
    match join {
        Join::Never => "never",
        Join::Consent => "consent",
        Join::Always => "always",
    }
}

fn workspace(which: &WorkspaceOf) -> Result<Value, Fault> {
    let mut body = json!({"study": study_id(&which.study)?, "workspace": which.workspace});
    if let Some(person) = &which.person {
        body["person"] = json!(login::person_id(person)?);
    }
    Ok(body)
}

fn leave(drain: &Drain) -> Value {
    if drain.undo { json!({"undo": true}) } else { json!({"within_secs": drain.within.as_secs()}) }
}

fn decoy_kind(kind: DecoyKind) -> &'static str {
    match kind {
        DecoyKind::Address => "address",
        DecoyKind::Key => "key",
        DecoyKind::Object => "object",
    }
}

/// A key may be named by the file of its public half.
fn decoy_value(kind: DecoyKind, what: &str) -> Result<String, Fault> {
    /// More than any public key.
    const KEY_MAX: u64 = 64 << 10;
    if kind != DecoyKind::Key || what.starts_with("SHA256:") || what.starts_with("ssh-") {
        return Ok(what.to_owned());
    }
    let mut line = String::new();
    std::fs::File::open(what)
        .and_then(|file| std::io::Read::read_to_string(&mut std::io::Read::take(file, KEY_MAX), &mut line))
        .map_err(|error| Fault::failed("no_key", say!(NoDecoyKey, path = what)).because(&error))?;
    Ok(line.trim().to_owned())
}

fn tell(around: &Surroundings, api: &Api, then: Then, answer: &Value) -> Result<(), Fault> {
    match then {
        Then::Say(said) => around.print(&said),
        Then::Decoy => {
            let decoy = printable(answer["decoy"].as_str().unwrap_or("decoy"));
            around.print(&say!(DecoyAdded, decoy = decoy));
        }
        Then::Grant { study, dataset, until } => {
            let grant = printable(answer["grant"].as_str().unwrap_or("grant"));
            around.print(&say!(Granted, grant = grant, study = study, dataset = dataset, until = until));
        }
        Then::Token { subject, person } => {
            let token: TokenAnswer = serde_json::from_value(answer.clone())
                .map_err(|e| crate::api::ApiError::NotUnderstood(e.to_string()).into_fault(api.url()))?;
            // The advice goes to the other stream, so that `$(sekisho person token …)` is the token.
            eprintln!("{}", say!(TokenMade, subject = subject).text(around.lang));
            around.line(&printable(&token.token));
            if let Some(person) = person {
                eprintln!("{}", say!(TokenUse, api = api.url(), name = person.name()).text(around.lang));
            }
        }
        Then::Channels { study } => {
            let named = |open: bool| {
                let all = answer["channels"].as_array().map_or(&[][..], Vec::as_slice);
                let those = all.iter().filter(|row| row["allowed"].as_bool() == Some(open));
                let names: Vec<&str> = those.filter_map(|row| row["channel"].as_str()).collect();
                if names.is_empty() { "-".to_owned() } else { printable(&names.join(", ")) }
            };
            around.print(&say!(Channels, study = study, open = named(true), shut = named(false)));
            if let Some(ended @ 1..) = answer["sessions_ended"].as_u64() {
                around.print(&say!(ChannelsEnded, count = ended));
            }
        }
        Then::Recording { study } => {
            let word = |name: &str| printable(&answer[name].to_string().replace('"', ""));
            let key =
                if answer["input"].as_bool() == Some(true) { Key::RecordingAll } else { Key::RecordingShown };
            let yes = |name: &str| match answer[name].as_bool() {
                Some(true) => Key::Yes.text(around.lang),
                _ => Key::No.text(around.lang),
            };
            around.print(&say!(
                Recording,
                study = study,
                mode = word("mode"),
                what = key.text(around.lang),
                commands = yes("commands"),
                limit = word("limit_mib"),
                lead = yes("lead"),
            ));
        }
        Then::Supervision { study } => {
            let yes = |name: &str| match answer[name].as_bool() {
                Some(true) => Key::Yes.text(around.lang),
                _ => Key::No.text(around.lang),
            };
            let join = printable(answer["joining"].as_str().unwrap_or("-"));
            let (told, moderated) = (yes("told"), yes("moderated"));
            around.print(&say!(Supervision, study = study, told = told, join = join, moderated = moderated));
        }
        Then::Limits { study } => {
            let all = answer["limits"].as_object();
            let shown = |name: &str| {
                let value = all.and_then(|all| all.get(name)).and_then(Value::as_u64).unwrap_or(0);
                crate::sizes::shown(name, value)
            };
            around.print(&say!(
                Limits,
                study = study,
                cpus = shown("cpus"),
                memory = shown("memory"),
                disk = shown("disk"),
                processes = shown("processes"),
                idle = shown("idle"),
                workspaces = shown("workspaces"),
                sessions = shown("sessions")
            ));
        }
        Then::Stopped => {
            let workspace = printable(answer["workspace"].as_str().unwrap_or("workspace"));
            if answer["stopped"].as_bool() == Some(true) {
                around.print(&say!(Stopped, workspace = workspace));
            } else {
                let agent = printable(answer["agent"].as_str().unwrap_or("agent"));
                around.print(&say!(StopsLater, workspace = workspace, agent = agent));
            }
        }
        Then::List => match table::rows(answer) {
            Some(rows) if rows.is_empty() => around.print(&say!(Nothing)),
            Some(rows) => around.line(table::render(rows).trim_end()),
            None => around.print_json(answer),
        },
    }
    Ok(())
}

#[derive(Deserialize)]
struct CertificateAnswer {
    certificate_pem: String,
    #[serde(default)]
    ca_pem: Option<String>,
    #[serde(default)]
    expires: Option<Timestamp>,
}

/// Makes a key here, so that it never travels, and has the signer certify it.
async fn certificate(
    around: &Surroundings,
    home: &Home,
    service: &str,
    dns: &[String],
    out: &Path,
) -> Result<(), Fault> {
    let unusable = |e: certs::x509::KeyError| bad_file(&out.join("key.pem")).because(&e);
    let api = login::authenticated(around, home).await?;
    let key = KeyPair::generate(&*around.entropy).map_err(unusable)?;
    let body = json!({"service": service, "dns": dns, "spki": BASE64.encode(&key.spki().map_err(unusable)?)});
    let answer: CertificateAnswer =
        api.post("/v1/services/certificate", &body).await.map_err(|e| e.into_fault(api.url()))?;

    home::make_private_dir(out)?;
    let ca = match answer.ca_pem {
        Some(pem) => pem,
        None => home.read(Home::CA)?.map(|pem| pem.to_string()).unwrap_or_default(),
    };
    home::write_file(
        &out.join("key.pem"),
        login::key_pem(&key).map_err(unusable)?.as_bytes(),
        Mode::Private,
    )?;
    home::write_file(&out.join("cert.pem"), answer.certificate_pem.as_bytes(), Mode::Public)?;
    home::write_file(&out.join("ca.pem"), ca.as_bytes(), Mode::Public)?;
    if around.json {
        around.print_json(&json!({"service": service, "folder": out, "expires": answer.expires}));
    } else {
        let expires = answer.expires.map_or_else(|| "–".to_owned(), |at| at.to_string());
        around.print(&say!(ServiceWritten, service = service, expires = expires, folder = out.display()));
    }
    Ok(())
}

/// An identifier from what people type, with or without its prefix.
fn id<T>(text: &str, prefix: &str, from: fn(&str) -> Result<T, model::IdError>) -> Result<T, Fault> {
    from(text.strip_prefix(prefix).unwrap_or(text))
        .map_err(|e| Fault::usage(say!(BadName, text = text)).because(&e))
}

/// A study, with or without its prefix.
pub fn study_id(text: &str) -> Result<StudyId, Fault> {
    id(text, StudyId::PREFIX, StudyId::from_name)
}

fn dataset_id(text: &str) -> Result<DatasetId, Fault> {
    id(text, DatasetId::PREFIX, DatasetId::from_name)
}

fn role_id(text: &str) -> Result<RoleId, Fault> {
    id(text, RoleId::PREFIX, RoleId::from_name)
}

/// An instant; a bare date means its last millisecond in UTC, as "until" does among people.
pub fn instant(text: &str) -> Result<Timestamp, Fault> {
    at(text, "T23:59:59.999Z")
}

/// The same, but of a date its beginning.
pub fn beginning(text: &str) -> Result<Timestamp, Fault> {
    at(text, "T00:00:00.000Z")
}

fn at(text: &str, of_a_date: &str) -> Result<Timestamp, Fault> {
    let text = text.trim();
    let whole = if text.len() == 10 { format!("{text}{of_a_date}") } else { text.to_owned() };
    whole.parse().map_err(|_| Fault::usage(say!(BadUntil, text = text)))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Cli;

    fn asked(line: &str) -> Result<Ask, Fault> {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        Ok(ask(&cli.command)?.unwrap())
    }

    #[test]
    fn each_command_is_one_question() {
        let cases = [
            (
                "person create alice --role steward",
                "/v1/people",
                json!({"person": "u:alice", "name": "alice", "roles": ["role:steward"]}),
            ),
            ("person token u:alice", "/v1/people/u:alice/token", json!({})),
            ("person lock alice --reason lost", "/v1/people/u:alice/lock", json!({"reason": "lost"})),
            (
                "study create brca --title T --purpose HMB --until 2027-03-31",
                "/v1/studies",
                json!({"study": "study:brca", "title": "T", "purposes": ["HMB"], "until": "2027-03-31T23:59:59.999Z"}),
            ),
            (
                "study channels brca --allow export --refuse shell",
                "/v1/studies/study:brca/channels",
                json!({"allow": ["export"], "refuse": ["shell"]}),
            ),
            (
                "study recording brca --mode best-effort --input all --commands yes --limit 0",
                "/v1/studies/study:brca/recording",
                json!({"mode": "best-effort", "input": true, "commands": true, "limit_mib": 0}),
            ),
            (
                "study supervision brca --join never --moderated yes",
                "/v1/studies/study:brca/supervision",
                json!({"joining": "never", "moderated": true}),
            ),
            (
                "study limits brca --cpus 2 --memory 4GiB --idle 30m --sessions 10",
                "/v1/studies/study:brca/limits",
                json!({"cpus": 200, "memory": 4096, "idle": 1800, "sessions": 10}),
            ),
            (
                "ws stop brca big --person alice --reason hot",
                "/v1/workspaces/stop",
                json!({"study": "study:brca", "workspace": "big", "person": "u:alice", "reason": "hot"}),
            ),
            ("ws resume brca", "/v1/workspaces/resume", json!({"study": "study:brca", "workspace": "main"})),
            ("agent drain hall-1 --within 90s", "/v1/agents/agent:hall-1/drain", json!({"within_secs": 90})),
            ("drain --undo", "/v1/drain", json!({"undo": true})),
            (
                "member add brca alice",
                "/v1/studies/study:brca/members",
                json!({"person": "u:alice", "role": "role:researcher"}),
            ),
            (
                "dataset create wgs --title T --condition DS:MONDO:0007254,NPU --condition GRU",
                "/v1/datasets",
                json!({"dataset": "ds:wgs", "title": "T", "conditions": [["DS:MONDO:0007254", "NPU"], ["GRU"]]}),
            ),
            (
                "grant create --study brca --dataset wgs --until 2027-03-31T00:00:00Z",
                "/v1/grants",
                json!({"study": "study:brca", "dataset": "ds:wgs", "grantee": "role:researcher",
                    "until": "2027-03-31T00:00:00.000Z"}),
            ),
            (
                "grant create --study brca --dataset wgs --to alice --until 2027-03-31T00:00:00Z",
                "/v1/grants",
                json!({"study": "study:brca", "dataset": "ds:wgs", "grantee": "u:alice",
                    "until": "2027-03-31T00:00:00.000Z"}),
            ),
            (
                "grant revoke grant:ab12 --reason over",
                "/v1/grants/grant:ab12/revoke",
                json!({"reason": "over"}),
            ),
            ("agent token main", "/v1/agents/token", json!({"agent": "agent:main"})),
        ];
        for (line, path, body) in cases {
            let ask = asked(&format!("sekisho {line}")).unwrap();
            assert_eq!((ask.path.as_str(), ask.body.as_ref()), (path, Some(&body)), "{line}");
        }
        for what in ["person", "study", "dataset", "grant", "agent", "object", "ws"] {
            let ask = asked(&format!("sekisho {what} list")).unwrap();
            assert!(ask.body.is_none() && matches!(ask.then, Then::List), "{what}");
        }
    }

    #[test]
    fn nonsense_is_a_matter_of_usage() {
        for line in
            ["sekisho person token A/../b", "sekisho study create x --title T --purpose HMB --until soon"]
        {
            assert_eq!(asked(line).unwrap_err().exit, crate::fault::Exit::Usage, "{line}");
        }
    }
}
