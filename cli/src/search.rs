use model::{SessionId, Timestamp};
use serde_json::Value;

use crate::args::Search;
use crate::fault::Fault;
use crate::login::person_id;
use crate::records::{beginning, instant, study_id};

/// What an entry must be to be found.
#[derive(Debug, Default)]
pub struct Wanted {
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    kinds: Vec<String>,
    person: Option<String>,
    study: Option<String>,
    session: Option<String>,
    /// In lower case.
    text: Option<String>,
    /// Of each list, one must stand in the bytes of an entry: where none does, it need not be parsed.
    needles: Vec<Vec<String>>,
}

impl Wanted {
    /// What `search` asks for.
    pub fn new(search: &Search) -> Result<Wanted, Fault> {
        let mut wanted = Wanted {
            from: search.from.as_deref().map(beginning).transpose()?,
            to: search.to.as_deref().map(instant).transpose()?,
            kinds: search.kinds.clone(),
            person: search.person.as_deref().map(person_id).transpose()?.map(|id| id.to_string()),
            study: search.study.as_deref().map(study_id).transpose()?.map(|id| id.to_string()),
            session: search.session.as_deref().map(prefixed),
            text: search.text.as_ref().map(|text| text.to_lowercase()),
            needles: Vec::new(),
        };
        let quoted = |words: &[String]| words.iter().map(|word| format!("\"{word}\"")).collect();
        let ids = [&wanted.person, &wanted.study, &wanted.session].into_iter().flatten();
        let mut needles: Vec<Vec<String>> = ids.map(|id| quoted(std::slice::from_ref(id))).collect();
        if !wanted.kinds.is_empty() {
            needles.push(quoted(&wanted.kinds));
        }
        wanted.needles = needles;
        Ok(wanted)
    }

    /// Whether an entry can be meant, as far as its bytes show at a glance.
    pub fn may_fit(&self, entry: &[u8]) -> bool {
        let Ok(text) = std::str::from_utf8(entry) else { return false };
        self.needles.iter().all(|any| any.iter().any(|needle| text.contains(needle.as_str())))
    }

    /// Whether an entry, in its exported form, is meant.
    pub fn fits(&self, entry: &Value) -> bool {
        let text = |pointer: &str| entry.pointer(pointer).and_then(Value::as_str);
        let at = entry.get("time").and_then(Value::as_i64).map(Timestamp::from_millis);
        let is = |wanted: &Option<String>, places: &[&str]| match wanted {
            None => true,
            Some(wanted) => places.iter().any(|place| text(place) == Some(wanted.as_str())),
        };
        self.from.is_none_or(|from| at.is_some_and(|at| at >= from))
            && self.to.is_none_or(|to| at.is_some_and(|at| at <= to))
            && (self.kinds.is_empty()
                || text("/metadata/event_code")
                    .is_some_and(|code| self.kinds.iter().any(|kind| kind == code)))
            && is(&self.person, &["/actor/user/uid", "/unmapped/subject", "/unmapped/id"])
            && is(&self.study, &["/unmapped/study", "/unmapped/id"])
            && is(&self.session, &["/actor/session/uid"])
            && self.text.as_ref().is_none_or(|wanted| says(entry, wanted))
    }
}

/// A session, with or without its prefix.
fn prefixed(text: &str) -> String {
    if text.starts_with(SessionId::PREFIX) { text.to_owned() } else { format!("{}{text}", SessionId::PREFIX) }
}

/// Whether any text in an entry holds `wanted`, which is in lower case.
fn says(value: &Value, wanted: &str) -> bool {
    match value {
        Value::String(text) => text.to_lowercase().contains(wanted),
        Value::Array(items) => items.iter().any(|item| says(item, wanted)),
        Value::Object(fields) => fields.values().any(|item| says(item, wanted)),
        Value::Number(_) | Value::Bool(_) | Value::Null => false,
    }
}

#[cfg(test)]
mod tests {
    use audit::{Event, EventKind};
    use clap::Parser;
    use model::{PersonId, StudyId};

    use super::*;
    use crate::args::{Audit, Cli, Command};

    fn wanted(words: &str) -> Wanted {
        let line = format!("sekisho audit search --dir x {words}");
        match Cli::try_parse_from(line.split_whitespace()).unwrap().command {
            Command::Audit(Audit::Search(search)) => Wanted::new(&search).unwrap(),
            _ => unreachable!(),
        }
    }

    fn entry() -> Vec<u8> {
        let kind =
            EventKind::SessionRefused { code: "no-grant".to_owned(), reason: "No \"Grant\"".to_owned() };
        let event = Event {
            person: Some(PersonId::from_name("alice").unwrap()),
            study: Some(StudyId::from_name("brca").unwrap()),
            session: Some(SessionId::from_name("s1").unwrap()),
            ..Event::new("2026-11-23T12:00:00Z".parse().unwrap(), kind)
        };
        event.to_entry()
    }

    #[test]
    fn each_question_finds_what_fits_and_nothing_else() {
        let entry = entry();
        let value = audit::export("o", 0, &entry).unwrap();
        for fitting in [
            "",
            "--from 2026-11-23 --to 2026-11-23",
            "--from 2026-11-23T12:00:00Z --to 2026-11-23T12:00:00Z",
            "--kind session_opened --kind session_refused",
            "--person alice --study brca --session s1",
            "--person u:alice --study study:brca --session sess:s1",
            "--text NO-GRANT",
            "--text \"grant\"",
        ] {
            let wanted = wanted(fitting);
            assert!(wanted.may_fit(&entry) && wanted.fits(&value), "{fitting}");
        }
        for other in [
            "--from 2026-11-24",
            "--to 2026-11-22",
            "--from 2026-11-23T12:00:00.001Z",
            "--kind session_opened",
            "--person bob",
            "--study brc",
            "--session s2",
            "--text consent",
            "--person alice --kind stopped",
        ] {
            let wanted = wanted(other);
            assert!(!(wanted.may_fit(&entry) && wanted.fits(&value)), "{other}");
        }
    }

    #[test]
    fn what_is_skipped_at_a_glance_would_not_have_fitted() {
        let entry = entry();
        let value = audit::export("o", 0, &entry).unwrap();
        for words in ["--person bob", "--kind stopped", "--study heart", "--session s9", "--text x"] {
            let wanted = wanted(words);
            assert!(wanted.may_fit(&entry) || !wanted.fits(&value), "{words}");
        }
    }
}
