//! A set of Sigma rules: read as a whole, or refused as a whole with the place of the fault.
//!
//! Sigma is what the published specification says (rules V2, correlations V2), with these limits:
//! no filter files, no `action:` collections, no correlation of correlations, and of correlations the
//! types that can be decided with bounded memory. A rule for a source that this house does not have,
//! or with a field that its events do not have, would never fit and is a fault.

use std::collections::HashMap;
use std::fmt;

use rsigma_eval::CompiledRule;
use serde::Serialize;

use super::Level;

/// The largest file of rules, in bytes.
pub(super) const FILE_MAX: usize = 256 << 10;
/// The most files of a set.
pub(super) const FILES_MAX: usize = 2048;
/// What the names of our own files begin with, so that a folder cannot have the same.
const OWN: &str = "sekisho:";

/// A file of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// What it is called, for people.
    pub name: String,
    /// What stands in it.
    pub text: String,
}

/// Why a set of rules is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
pub struct RuleError {
    /// The file.
    pub file: String,
    /// The line, counted from 1, where it could be told.
    pub line: Option<usize>,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.reason),
            None => write!(f, "{}: {}", self.file, self.reason),
        }
    }
}

/// What a rule says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleInfo {
    /// Its id, the same for ever.
    pub id: String,
    /// Its name, by which correlations, people and the configuration may call it.
    pub name: Option<String>,
    /// Its title.
    pub title: String,
    /// Its title in Japanese, under `title_ja`.
    pub title_ja: Option<String>,
    /// What it is about.
    pub description: Option<String>,
    /// The same in Japanese, under `description_ja`.
    pub description_ja: Option<String>,
    /// Its level; `medium` where it names none.
    pub level: Level,
    /// Its tags.
    pub tags: Vec<String>,
    /// What honest work may look like it.
    pub falsepositives: Vec<String>,
    /// The file it stands in.
    pub file: String,
    /// Whether it makes findings of its own, or only feeds correlations.
    pub reports: bool,
}

/// A rule about single events.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) info: RuleInfo,
    pub(super) compiled: CompiledRule,
    /// The correlations that count it, and as which of theirs.
    pub(super) feeds: Vec<(usize, usize)>,
}

/// A rule about several events.
#[derive(Debug)]
pub(super) struct Correlation {
    pub(super) info: RuleInfo,
    pub(super) shape: Shape,
    /// What must be equal, for each of its rules: the field is called differently by some.
    pub(super) group_by: Vec<Vec<String>>,
    pub(super) timespan: std::time::Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    /// That many events.
    Count(usize),
    /// That many different values of the field, which each of its rules may call differently.
    Values(usize, Vec<String>),
    /// One of each, in any order or in theirs.
    All { rules: usize, ordered: bool },
}

/// Rules that are used together.
#[derive(Debug, Default)]
pub struct RuleSet {
    pub(super) rules: Vec<Rule>,
    pub(super) correlations: Vec<Correlation>,
    pub(super) by_kind: HashMap<&'static str, Vec<usize>>,
    pub(super) hash: String,
}

impl RuleSet {
    /// The rules that this house comes with.
    pub fn builtin() -> Vec<Text> {
        let text =
            |(name, text): &(&str, &str)| Text { name: format!("{OWN}{name}"), text: (*text).to_owned() };
        super::BUILTIN.iter().map(text).collect()
    }

    /// Sixteen hexadecimal digits that stand for what the files of the set say.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// How many rules make findings.
    pub fn len(&self) -> usize {
        self.infos().filter(|info| info.reports).count()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What each rule says about itself, single events first.
    pub fn infos(&self) -> impl Iterator<Item = &RuleInfo> {
        self.rules.iter().map(|rule| &rule.info).chain(self.correlations.iter().map(|rule| &rule.info))
    }

    /// The longest time that a correlation looks back.
    pub fn longest(&self) -> std::time::Duration {
        self.correlations.iter().map(|rule| rule.timespan).max().unwrap_or_default()
    }

    /// The rules that may fit an event of this kind.
    pub(super) fn of_kind(&self, kind: &str) -> &[usize] {
        self.by_kind.get(kind).map(Vec::as_slice).unwrap_or_default()
    }
}

pub(super) fn fault(file: &str, line: Option<usize>, reason: impl Into<String>) -> RuleError {
    RuleError { file: file.to_owned(), line, reason: reason.into() }
}
