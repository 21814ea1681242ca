//! `sekisho sessions`: those that go on.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use model::SessionId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{ApiError, printable};
use crate::args::{Sessions, Supervise};
use crate::fault::{Exit, Fault};
use crate::home::Home;
use crate::play::session_id;
use crate::{Surroundings, login, say, table};

/// The broker's answer; foreign bytes.
#[derive(Debug, Deserialize)]
struct Answer {
    sessions: Vec<Row>,
}

#[derive(Debug, Deserialize)]
struct Row {
    session: String,
    person: String,
    study: String,
    since: String,
    what: String,
    terminal: bool,
    bytes_in: u64,
    bytes_out: u64,
    recorded: String,
    #[serde(default)]
    waiting: bool,
    #[serde(default)]
    watchers: Vec<Watcher>,
}

#[derive(Debug, Deserialize)]
struct Watcher {
    person: String,
    joined: bool,
}

/// Lists sessions, or does something about one.
pub async fn sessions(around: &Surroundings, home: &Home, args: &Sessions) -> Result<(), Fault> {
    match args.command.clone().unwrap_or(Supervise::List) {
        Supervise::List => list(around, home).await,
        Supervise::Watch { session } => look(around, home, "watch", &session_id(&session)?).await,
        Supervise::Join { session } => look(around, home, "join", &session_id(&session)?).await,
        Supervise::Message { session, text } => {
            let path = format!("/v1/sessions/{}/message", session_id(&session)?);
            let answer = post(around, home, &path, &json!({ "text": text })).await?;
            if around.json {
                around.print_json(&answer);
            } else if answer["said"].as_bool() == Some(true) {
                around.print(&say!(SessionSaid));
            } else {
                around.print(&say!(SessionUnsaid));
            }
            Ok(())
        }
        Supervise::Kill { session, reason } => {
            let id = session_id(&session)?;
            let path = format!("/v1/sessions/{id}/kill");
            let answer = post(around, home, &path, &json!({ "reason": reason })).await?;
            if around.json {
                around.print_json(&answer);
            } else {
                around.print(&say!(SessionKilled, session = id));
            }
            Ok(())
        }
    }
}

async fn post(around: &Surroundings, home: &Home, path: &str, body: &Value) -> Result<Value, Fault> {
    let api = login::authenticated(around, home).await?;
    api.post(path, body).await.map_err(|e| e.into_fault(api.url()))
}

async fn list(around: &Surroundings, home: &Home) -> Result<(), Fault> {
    let api = login::authenticated(around, home).await?;
    let answer: Value = api.get("/v1/sessions").await.map_err(|e| e.into_fault(api.url()))?;
    if around.json {
        around.print_json(&answer);
        return Ok(());
    }
    let answer: Answer = serde_json::from_value(answer)
        .map_err(|e| ApiError::NotUnderstood(e.to_string()).into_fault(api.url()))?;
    if answer.sessions.is_empty() {
        around.print(&say!(NoSessions));
        return Ok(());
    }
    let rows: Vec<Value> = answer.sessions.iter().map(shown).collect();
    around.line(table::render(&rows).trim_end());
    Ok(())
}

fn shown(row: &Row) -> Value {
    let watchers = row.watchers.iter().map(|w| format!("{}{}", w.person, if w.joined { "*" } else { "" }));
    let watchers: Vec<String> = watchers.collect();
    let state = if row.waiting { "waits for a second person" } else { "goes on" };
    json!({
        "session": row.session,
        "person": row.person,
        "study": row.study,
        "since": row.since,
        "what": printable(&row.what).chars().take(40).collect::<String>(),
        "terminal": if row.terminal { "yes" } else { "no" },
        "in": row.bytes_in,
        "out": row.bytes_out,
        "recorded": row.recorded,
        "state": state,
        "watched_by": if watchers.is_empty() { Value::Null } else { json!(watchers.join(", ")) },
    })
}

/// Becomes the stock OpenSSH client, with a terminal, as a visitor of a session.
async fn look(around: &Surroundings, home: &Home, word: &str, session: &SessionId) -> Result<(), Fault> {
    login::fresh(around, home).await?;
    let error = Command::new("ssh").args(arguments(home, word, session)).exec();
    Err(Fault::new(Exit::Unavailable, "no_ssh", say!(NoSsh)).because(&error).todo(say!(NoSshTodo)))
}

fn arguments(home: &Home, word: &str, session: &SessionId) -> Vec<OsString> {
    // Ctrl-] leaves; OpenSSH's own `~.` would be typed into what is joined by accident.
    let user = format!("{word}:{}@gate", session.name());
    let config = home.path(Home::SSH_CONFIG);
    vec!["-F".into(), config.into(), "-e".into(), "none".into(), "-t".into(), user.into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openssh_gets_the_visit_as_user_and_a_terminal() {
        let home = Home::locate(Some("/h".into()), None).unwrap();
        let words = arguments(&home, "watch", &session_id("sess:0a").unwrap());
        assert_eq!(words, ["-F", "/h/ssh_config", "-e", "none", "-t", "watch:0a@gate"]);
    }

    #[test]
    fn a_row_says_who_watches_and_who_types() {
        let row: Row = serde_json::from_value(json!({
            "session": "sess:1", "person": "u:alice", "study": "study:brca", "since": "x", "what": "a\u{1b}[2J",
            "terminal": true, "bytes_in": 1, "bytes_out": 2, "recorded": "strict", "waiting": true,
            "watchers": [{"person": "u:carol", "joined": true}, {"person": "u:dave", "joined": false}],
        }))
        .unwrap();
        let shown = shown(&row);
        assert_eq!(shown["watched_by"], "u:carol*, u:dave");
        assert_eq!((&shown["state"], &shown["what"]), (&json!("waits for a second person"), &json!("a [2J")));
    }
}
