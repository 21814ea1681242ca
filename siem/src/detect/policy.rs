//! What a finding brings about.

use std::time::Duration;

use model::Timestamp;
use serde::Deserialize;

use super::{Finding, Level};

/// Where the session of an event is over, or it was in none, sessions of that person that are open now
/// end for this long after it. Later they are other sessions, in which nothing was found.
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

/// How it stands with whom a finding is about, when it is answered. Detection may have been away, or
/// behind, since the event, and wall clocks jump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// When that is.
    pub now: Timestamp,
    /// The session in which it happened goes on.
    pub session_open: bool,
    /// Somebody let the person in again after it had happened.
    pub let_in_since: bool,
}

impl Policy {
    /// What `finding` brings about. Nothing, unless it proves who acted.
    ///
    /// A lock does not depend on how long ago that was: whoever touched what nobody has a use for while
    /// nobody looked is not let in once it is known. Only a person's decision that came after it is
    /// not overruled. To end a session is about that session: while it goes on, however old the event.
    pub fn reaction(&self, finding: &Finding, standing: &Standing) -> Reaction {
        let subject = &finding.subject;
        let (Some(person), true) = (&subject.person, subject.proven) else { return Reaction::None };
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
            Reaction::LockPerson if self.never_lock.contains(person) => end(finding, standing),
            Reaction::LockPerson if standing.let_in_since => Reaction::None,
            Reaction::EndSession => end(finding, standing),
            other => other,
        }
    }
}

fn end(finding: &Finding, standing: &Standing) -> Reaction {
    let concerns = standing.session_open || standing.now.since(finding.at) <= FRESH;
    if concerns { Reaction::EndSession } else { Reaction::None }
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

    fn after(millis: i64) -> Standing {
        let now = Timestamp::from_millis(1_000_000 + millis);
        Standing { now, session_open: false, let_in_since: false }
    }

    #[test]
    fn levels_and_names_decide() {
        let policy = Policy {
            end_session: Some(Level::High),
            lock_person: Some(Level::Critical),
            rules: vec![Response { rule: "mild".to_owned(), reaction: Reaction::None }],
            never_lock: vec!["u:admin".to_owned()],
        };
        let of = |level, person| policy.reaction(&finding(level, Some(person), true), &after(500));
        assert_eq!(of(Level::Medium, "u:a"), Reaction::None);
        assert_eq!(of(Level::High, "u:a"), Reaction::EndSession);
        assert_eq!(of(Level::Critical, "u:a"), Reaction::LockPerson);
        assert_eq!(of(Level::Critical, "u:admin"), Reaction::EndSession);
        let mild = Finding { rule: "mild".to_owned(), ..finding(Level::Critical, Some("u:a"), true) };
        assert_eq!(policy.reaction(&mild, &after(500)), Reaction::None);
        assert_eq!(
            Policy::default().reaction(&finding(Level::Critical, Some("u:a"), true), &after(500)),
            Reaction::None
        );
    }

    #[test]
    fn what_is_not_proven_brings_nothing_about() {
        let policy = Policy {
            end_session: Some(Level::Informational),
            lock_person: Some(Level::Informational),
            ..Policy::default()
        };
        let of = |person, proven| policy.reaction(&finding(Level::Critical, person, proven), &after(500));
        assert_eq!(of(Some("u:a"), false), Reaction::None);
        assert_eq!(of(None, true), Reaction::None);
    }

    #[test]
    fn a_lock_comes_however_late_and_an_end_only_to_what_it_concerns() {
        let policy = Policy {
            end_session: Some(Level::High),
            lock_person: Some(Level::Critical),
            never_lock: vec!["u:admin".to_owned()],
            ..Policy::default()
        };
        let week = after(7 * 86_400_000);
        let of = |level, person, standing: &Standing| {
            policy.reaction(&finding(level, Some(person), true), standing)
        };
        for standing in [after(301_000), week, Standing { session_open: true, ..week }, after(-86_400_000)] {
            assert_eq!(of(Level::Critical, "u:a", &standing), Reaction::LockPerson, "{standing:?}");
        }
        for session_open in [false, true] {
            let let_in = Standing { let_in_since: true, session_open, ..week };
            assert_eq!(of(Level::Critical, "u:a", &let_in), Reaction::None, "somebody decided otherwise");
        }
        for (level, person) in [(Level::High, "u:a"), (Level::Critical, "u:admin")] {
            for (standing, expected) in [
                (after(299_000), Reaction::EndSession),
                (after(301_000), Reaction::None),
                (Standing { session_open: true, ..week }, Reaction::EndSession),
            ] {
                assert_eq!(of(level, person, &standing), expected, "{standing:?}");
            }
        }
    }
}
