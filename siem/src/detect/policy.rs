//! What a finding brings about.

use std::time::Duration;

use model::Timestamp;
use serde::Deserialize;

use super::{Finding, Level};

/// An event older than this brings nothing about: whoever acted then may be long gone, and the
/// detector was not there to see it.
const FRESH: Duration = Duration::from_secs(300);

/// What is done at once when a rule fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reaction {
    /// It is recorded.
    None,
    /// The session ends.
    EndSession,
    /// The person is locked out, everywhere.
    LockPerson,
}

/// What one rule brings about, whatever its level.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Response {
    /// The rule's id or name.
    pub rule: String,
    /// What is done.
    pub reaction: Reaction,
}

/// What findings bring about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// From this level on the session ends. None: no level ends one.
    pub end_session: Option<Level>,
    /// From this level on the person is locked. None: no level locks anybody.
    pub lock_person: Option<Level>,
    /// What certain rules bring about, whatever their level.
    pub rules: Vec<Response>,
    /// People whose sessions end where others are locked, `u:…`: whoever unlocks must not be locked
    /// out by what somebody left in their workspace.
    pub never_lock: Vec<String>,
}

impl Policy {
    /// What `finding` brings about at `now`. Nothing, unless it proves who acted, in which session,
    /// and that this was just now.
    pub fn reaction(&self, finding: &Finding, now: Timestamp) -> Reaction {
        let subject = &finding.subject;
        let (Some(person), true) = (&subject.person, subject.proven) else { return Reaction::None };
        if now.since(finding.at) > FRESH {
            return Reaction::None;
        }
        let from = |level: Option<Level>| level.is_some_and(|level| finding.level >= level);
        let named = self
            .rules
            .iter()
            .find(|response| response.rule == finding.rule || Some(&response.rule) == finding.name.as_ref());
        let reaction = match named {
            Some(response) => response.reaction,
            None if from(self.lock_person) => Reaction::LockPerson,
            None if from(self.end_session) => Reaction::EndSession,
            None => Reaction::None,
        };
        match reaction {
            Reaction::LockPerson if self.never_lock.contains(person) => Reaction::EndSession,
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Subject;
    use super::*;

    fn finding(level: Level, person: Option<&str>, proven: bool) -> Finding {
        Finding {
            rule: "r".to_owned(),
            name: None,
            title: "t".to_owned(),
            title_ja: None,
            level,
            tags: Vec::new(),
            evidence: vec![1],
            at: Timestamp::from_millis(1_000_000),
            subject: Subject { person: person.map(str::to_owned), proven, ..Subject::default() },
            decoy: None,
            repeated: 0,
        }
    }

    #[test]
    fn levels_and_names_decide() {
        let now = Timestamp::from_millis(1_000_500);
        let policy = Policy {
            end_session: Some(Level::High),
            lock_person: Some(Level::Critical),
            rules: vec![Response { rule: "mild".to_owned(), reaction: Reaction::None }],
            never_lock: vec!["u:admin".to_owned()],
        };
        let of = |level, person| policy.reaction(&finding(level, Some(person), true), now);
        assert_eq!(of(Level::Medium, "u:a"), Reaction::None);
        assert_eq!(of(Level::High, "u:a"), Reaction::EndSession);
        assert_eq!(of(Level::Critical, "u:a"), Reaction::LockPerson);
        assert_eq!(of(Level::Critical, "u:admin"), Reaction::EndSession);
        let mild = Finding { rule: "mild".to_owned(), ..finding(Level::Critical, Some("u:a"), true) };
        assert_eq!(policy.reaction(&mild, now), Reaction::None);
        assert_eq!(
            Policy::default().reaction(&finding(Level::Critical, Some("u:a"), true), now),
            Reaction::None
        );
    }

    #[test]
    fn what_is_not_proven_or_long_past_brings_nothing_about() {
        let policy = Policy {
            end_session: Some(Level::Informational),
            lock_person: Some(Level::Informational),
            ..Policy::default()
        };
        let now = Timestamp::from_millis(1_000_500);
        assert_eq!(policy.reaction(&finding(Level::Critical, Some("u:a"), false), now), Reaction::None);
        assert_eq!(policy.reaction(&finding(Level::Critical, None, true), now), Reaction::None);
        let later = Timestamp::from_millis(1_000_000 + 301_000);
        assert_eq!(policy.reaction(&finding(Level::Critical, Some("u:a"), true), later), Reaction::None);
    }
}
