//! `sekisho recordings`: which there are, and in which a text was to be read.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::printable;
use crate::args::Recordings;
use crate::fault::Fault;
use crate::home::Home;
use crate::{Surroundings, login, records, say, table};

/// The broker's answer; foreign bytes.
#[derive(Debug, Deserialize)]
struct Answer {
    recordings: Vec<Row>,
    #[serde(default)]
    fetched: u64,
    #[serde(default)]
    not_searched: u64,
}

#[derive(Debug, Deserialize)]
struct Row {
    session: String,
    person: String,
    study: String,
    command: Option<String>,
    begun: String,
    millis: u64,
    bytes: u64,
    #[serde(default)]
    elided: u64,
    outcome: String,
    #[serde(default)]
    lies: String,
    #[serde(default)]
    hits: Vec<Hit>,
    #[serde(default)]
    count: u64,
}

#[derive(Debug, Deserialize)]
struct Hit {
    millis: u64,
    line: String,
}

/// Lists or searches.
pub async fn recordings(around: &Surroundings, home: &Home, args: &Recordings) -> Result<(), Fault> {
    let path = path(args)?;
    let api = login::authenticated(around, home).await?;
    let answer: Value = api.get(&path).await.map_err(|e| e.into_fault(api.url()))?;
    if around.json {
        around.print_json(&answer);
        return Ok(());
    }
    let answer: Answer = serde_json::from_value(answer)
        .map_err(|e| crate::api::ApiError::NotUnderstood(e.to_string()).into_fault(api.url()))?;
    if answer.recordings.is_empty() {
        around.print(&say!(NoRecordings));
    } else if args.text.is_none() {
        let rows: Vec<Value> = answer.recordings.iter().map(shown).collect();
        around.line(table::render(&rows).trim_end());
    }
    for row in answer.recordings.iter().filter(|row| !row.hits.is_empty()) {
        around.line(&format!(
            "{}  {}  {}  {}",
            printable(&row.session),
            printable(&row.begun),
            printable(&row.person),
            printable(&row.study)
        ));
        for hit in &row.hits {
            around.print(&say!(HitAt, at = clock(hit.millis), line = printable(&hit.line)));
        }
        let more = row.count.saturating_sub(row.hits.len() as u64);
        if more > 0 {
            around.print(&say!(HitsMore, count = more));
        }
    }
    if answer.fetched > 0 {
        eprintln!("{}", say!(RecordingsFetched, count = answer.fetched).text(around.lang));
    }
    if answer.not_searched > 0 {
        eprintln!("{}", say!(NotSearched, count = answer.not_searched).text(around.lang));
    }
    Ok(())
}

fn path(args: &Recordings) -> Result<String, Fault> {
    let asked = [
        ("person", args.person.as_deref().map(login::person_id).transpose()?.map(|id| id.to_string())),
        ("study", args.study.as_deref().map(records::study_id).transpose()?.map(|id| id.to_string())),
        ("from", args.from.as_deref().map(records::beginning).transpose()?.map(|at| at.to_string())),
        ("to", args.to.as_deref().map(records::instant).transpose()?.map(|at| at.to_string())),
        ("text", args.text.clone()),
    ];
    let mut path = "/v1/recordings".to_owned();
    for (name, value) in asked {
        if let Some(value) = value {
            path.push(if path.contains('?') { '&' } else { '?' });
            path += &format!("{name}={}", encoded(&value));
        }
    }
    Ok(path)
}

/// As a value in a query (RFC 3986): everything but what never means anything.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let one = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

fn shown(row: &Row) -> Value {
    json!({
        "session": row.session,
        "begun": row.begun,
        "person": row.person,
        "study": row.study,
        "length": clock(row.millis),
        "bytes": row.bytes,
        "left_out": row.elided,
        "state": row.outcome,
        "lies": row.lies,
        "command": row.command,
    })
}

fn clock(millis: u64) -> String {
    format!("{}:{:02}", millis / 60_000, millis / 1000 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stands_in_the_query() {
        let none = || Recordings { person: None, study: None, from: None, to: None, text: None };
        assert_eq!(path(&none()).unwrap(), "/v1/recordings");
        let args = Recordings {
            person: Some("alice".to_owned()),
            from: Some("2027-03-31".to_owned()),
            text: Some("rm -rf & 研究=1".to_owned()),
            ..none()
        };
        assert_eq!(
            path(&args).unwrap(),
            "/v1/recordings?person=u%3Aalice&from=2027-03-31T00%3A00%3A00.000Z&text=rm%20-rf%20%26%20%E7%A0%94%E7%A9%B6%3D1"
        );
        assert!(path(&Recordings { study: Some("../x".to_owned()), ..none() }).is_err());
    }
}
