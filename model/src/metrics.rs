//! Figures and health of a process, in the forms that machines ask for: the Prometheus text format
//! 0.0.4, and one JSON shape. No I/O: whoever has a door serves them.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// The media type of what [`Exposition::finish`] gives.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What sort of figure a family has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only goes up while the process lives; its name ends in `_total`.
    Counter,
}

/// Metrics of one moment, written one family after another.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// Begins a family. `name` has letters, digits and `_` only (anything else becomes `_`); `help`
    /// is one sentence.
    pub fn family<'a>(&'a mut self, name: &str, kind: Kind, help: &str) -> Family<'a> {
        let name = identifier(name);
        let word = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {word}\n");
        Family { name, to: &mut self.text }
    }

    /// A family with a single figure.
    pub fn single(&mut self, name: &str, kind: Kind, help: &str, value: f64) {
        self.family(name, kind, help).sample(&[], value);
    }

    /// The text.
    pub fn finish(self) -> String {
        self.text
    }
}

/// A family that is being written.
#[derive(Debug)]
pub struct Family<'a> {
    name: String,
    to: &'a mut String,
}

impl Family<'_> {
    /// One figure, told from the others of the family by its labels.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: f64) -> &mut Self {
        self.to.push_str(&self.name);
        for (place, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.to, "{}{}=\"{text}\"", if place == 0 { '{' } else { ',' }, identifier(label));
        }
        if !labels.is_empty() {
            self.to.push('}');
        }
        let _ = match value {
            v if v.is_nan() => writeln!(self.to, " NaN"),
            v if v.is_infinite() => writeln!(self.to, " {}Inf", if v > 0.0 { '+' } else { '-' }),
            v => writeln!(self.to, " {v}"),
        };
        self
    }
}

fn identifier(name: &str) -> String {
    let plain = |(place, c): (usize, char)| {
        if c.is_ascii_alphabetic() || c == '_' || (place > 0 && c.is_ascii_digit()) { c } else { '_' }
    };
    name.chars().enumerate().map(plain).collect()
}

/// How well something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// All is well.
    Ok,
    /// It works, and somebody should look.
    Degraded,
    /// It does not work.
    Failed,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// How it is.
    pub state: State,
    /// What is wrong, for people; no secrets, no names of people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The health of a process: its worst check, and each of them by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The worst of the checks.
    pub status: State,
    /// Which process.
    pub process: String,
    /// Its version.
    pub version: String,
    /// What was looked at.
    pub checks: BTreeMap<String, Check>,
}

impl Health {
    /// A process that is well so far.
    pub fn new(process: &str, version: &str) -> Health {
        Health {
            status: State::Ok,
            process: process.to_owned(),
            version: version.to_owned(),
            checks: BTreeMap::new(),
        }
    }

    /// Adds what was found about one thing; `detail` says what is wrong, if something is.
    pub fn check(&mut self, name: &str, state: State, detail: Option<String>) -> &mut Self {
        self.status = self.status.max(state);
        self.checks.insert(name.to_owned(), Check { state, detail });
        self
    }

    /// The status of HTTP that goes with it: 200 while work can be done, 503 otherwise.
    pub fn http_status(&self) -> u16 {
        if self.status == State::Failed { 503 } else { 200 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_read_like_this() {
        let mut exposition = Exposition::default();
        exposition
            .family("lag-events", Kind::Gauge, "How far\nbehind.")
            .sample(&[("sink", "a\"b\\c\nd")], 3.0);
        exposition.single("up", Kind::Gauge, "Up.", 0.5);
        exposition.single("1st", Kind::Counter, "x", f64::INFINITY);
        assert_eq!(
            exposition.finish(),
            concat!(
                "# HELP lag_events How far\\nbehind.\n# TYPE lag_events gauge\n",
                "lag_events{sink=\"a\\\"b\\\\c\\nd\"} 3\n",
                "# HELP up Up.\n# TYPE up gauge\nup 0.5\n",
                "# HELP _st x\n# TYPE _st counter\n_st +Inf\n",
            )
        );
    }

    #[test]
    fn health_is_that_of_the_worst_check() {
        let mut health = Health::new("broker", "0.1.0");
        health.check("log", State::Ok, None).check("sink soc", State::Degraded, Some("3 behind".to_owned()));
        assert_eq!((health.status, health.http_status()), (State::Degraded, 200));
        health.check("signer", State::Failed, None);
        assert_eq!((health.status, health.http_status()), (State::Failed, 503));
        assert_eq!(
            serde_json::to_string(&health).unwrap(),
            concat!(
                r#"{"status":"failed","process":"broker","version":"0.1.0","checks":{"log":{"state":"ok"},"#,
                r#""signer":{"state":"failed"},"sink soc":{"state":"degraded","detail":"3 behind"}}}"#,
            )
        );
    }
}
