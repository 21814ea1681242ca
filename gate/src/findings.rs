//! What detection found: recorded first, then answered, and made up for if that was broken off.

use std::collections::BTreeMap;

use audit::{Event, EventKind, FindingReaction, Log, ReadError};
use model::{PersonId, SessionId, StudyId};
use serde_json::Value;
use store::{PersonState, StoreError};

use crate::leases::EndCause;
use crate::refusal::RefusalKind;
use crate::{Gate, Refusal};

/// Whom records name as having locked a person when detection did. Nobody can be enrolled as it.
pub(crate) const DETECTION: &str = "sekisho-detection";

/// What a person is told. It names no rule: whoever looks for what is watched should not learn it.
const TOLD: &str =
    "This session was ended by the security watch of this house. Please contact its security staff.";

/// Records that are looked at in one go for what is owed.
const BATCH: usize = 1024;

/// A finding on record, and what is still to be done because of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "what the finding calls for is not done before it is carried out"]
pub struct FindingRecord {
    index: u64,
    reaction: FindingReaction,
    person: Option<PersonId>,
    study: Option<StudyId>,
}

/// What came after something that happened, as far as its person goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aftermath {
    /// The session in which it happened goes on.
    pub session_open: bool,
    /// The log says that somebody let the person in again since.
    pub let_in_since: bool,
}

impl Gate {
    /// What came after the event at `index`, which happened in `session` if in any.
    pub async fn aftermath(
        &self,
        person: &PersonId,
        session: Option<&SessionId>,
        index: u64,
    ) -> Result<Aftermath, Refusal> {
        let session_open = session.is_some_and(|session| self.inner.leases.is_open(session));
        let (log, person) = (self.inner.log.clone(), person.clone());
        let reading = tokio::task::spawn_blocking(move || let_in(&log, &person, index));
        let let_in = reading.await.map_err(|error| unreadable(&error))?;
        Ok(Aftermath { session_open, let_in_since: let_in.map_err(|error| unreadable(&error))? })
    }

    /// Records a finding, an event of the kind [`EventKind::Finding`]. What it says under `reaction` is
    /// done by [`Gate::carry_out`]; a process that ends in between owes it, see [`Gate::make_up`].
    ///
    /// Who may be answered so is for detection to know; here it is only seen to that the person and
    /// the session belong together. Otherwise the finding is recorded, and nothing is to be done.
    pub async fn record_finding(&self, mut event: Event) -> Result<FindingRecord, Refusal> {
        let holds = self.belongs(&event).await?;
        let EventKind::Finding { reaction, proven, .. } = &mut event.kind else {
            return Err(Refusal::malformed("This is no finding."));
        };
        if !(holds && *proven) {
            *reaction = FindingReaction::None;
        }
        let reaction = *reaction;
        let index = self.record(&event).await?;
        Ok(FindingRecord { index, reaction, person: event.person, study: event.study })
    }

    /// Does what a finding on record calls for: the sessions of the person in that study end, or the
    /// person is locked out and all of theirs end. Returns how many sessions did. Twice is as good as
    /// once.
    pub async fn carry_out(&self, recorded: &FindingRecord) -> Result<usize, Refusal> {
        let FindingRecord { index, reaction, person, study } = recorded.clone();
        let Some(person) = person else { return Ok(0) };
        let gate = self.clone();
        self.to_the_end(async move {
            let cause = told();
            match (reaction, study) {
                (FindingReaction::None, _) => Ok(0),
                (FindingReaction::EndSession, Some(study)) => {
                    Ok(gate.inner.leases.end_member(&person, &study, &cause))
                }
                (FindingReaction::EndSession, None) => Ok(gate.inner.leases.end_person(&person, &cause)),
                (FindingReaction::LockPerson, _) => gate.lock_for(&person, index, &cause).await,
            }
        })
        .await
    }

    /// Carries out the locks that findings on record from the index `from` on call for and that were
    /// not carried out, because the process of then ended before; returns how many were owed. To be
    /// done before anybody is let in. Sessions need no making up: none outlives its process.
    ///
    /// A lock or an unlocking of that person that is on record after the finding settles it: it was
    /// carried out, or somebody knew of it and decided otherwise.
    pub async fn make_up(&self, from: u64) -> Result<usize, Refusal> {
        let log = self.inner.log.clone();
        let reading = tokio::task::spawn_blocking(move || Owed::read(&log, from));
        let owed = reading.await.map_err(|error| unreadable(&error))?.map_err(|error| unreadable(&error))?;
        let count = owed.0.len();
        for (person, index) in owed.0 {
            tracing::warn!(%person, index, "the lock of this finding is made up for");
            let recorded = FindingRecord {
                index,
                reaction: FindingReaction::LockPerson,
                person: Some(person),
                study: None,
            };
            self.carry_out(&recorded).await?;
        }
        Ok(count)
    }

    /// Locks a person because of the finding at `index`, and ends all of theirs.
    async fn lock_for(&self, person: &PersonId, index: u64, cause: &EndCause) -> Result<usize, Refusal> {
        let reason = format!("the finding recorded at {index}");
        let by = PersonId::from_name(DETECTION).map_err(|e| Refusal::malformed(e.to_string()))?;
        let store = &self.inner.store;
        let locked = store.lock_person(person, self.now(), &by, &reason).await;
        // Also if the records do not answer: what runs must end.
        let ended = self.inner.leases.end_person(person, cause);
        match locked {
            Ok(_) => {}
            // Somebody was faster, or this very lock was stored by a process that ended before it
            // was recorded.
            Err(StoreError::Transition { .. }) => {
                let known = store.person(person).await.map_err(|e| Refusal::store(&e))?;
                let own = known.is_some_and(|known| {
                    matches!(&known.state, PersonState::Locked { by: of, reason: why, .. } if *of == by && *why == reason)
                });
                if !own {
                    return Ok(ended);
                }
            }
            Err(StoreError::NotFound(_)) => {
                tracing::error!(%person, index, "a finding is about a person who is not on record");
                return Ok(ended);
            }
            Err(error) => return Err(Refusal::store(&error)),
        }
        self.record(&self.happened(EventKind::PersonLocked { subject: person.clone(), reason })).await?;
        Ok(ended)
    }

    /// Whether the session that an event names, if it is on record, is that person's.
    async fn belongs(&self, event: &Event) -> Result<bool, Refusal> {
        let (Some(person), Some(session)) = (&event.person, &event.session) else {
            return Ok(event.person.is_some());
        };
        let known = self.inner.store.session(session).await.map_err(|e| Refusal::store(&e))?;
        // One that was refused is not on record; the gate itself recorded who asked for it.
        Ok(known.is_none_or(|known| known.person == *person))
    }
}

/// What is said to whoever is ended or locked by a finding.
fn told() -> EndCause {
    EndCause { cause: audit::EndCause::Finding, grant: None, message: TOLD.to_owned() }
}

fn unreadable(error: &dyn std::error::Error) -> Refusal {
    tracing::error!(%error, "the log cannot be read for findings that were not answered");
    Refusal::new(
        RefusalKind::Unavailable,
        "audit-unavailable",
        "The audit log cannot be read for findings that were not answered. Please tell the operators.",
    )
}

/// Whether somebody let a person in again after the event at `index`. Blocks on the disk.
fn let_in(log: &Log, person: &PersonId, index: u64) -> Result<bool, ReadError> {
    const UNLOCKED: &str = "person_unlocked";
    let (mut at, end) = ((index + 1).max(log.local_from()?), log.durable_size());
    while at < end {
        let entries = log.read(at, BATCH)?;
        let Some((last, _)) = entries.last() else { break };
        at = last + 1;
        // Few entries say the word at all, so few are parsed.
        let maybe = |entry: &[u8]| entry.windows(UNLOCKED.len()).any(|word| word == UNLOCKED.as_bytes());
        for (_, entry) in entries.iter().filter(|(_, entry)| maybe(entry)) {
            let record: Value = serde_json::from_slice(entry).unwrap_or_default();
            let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str);
            let says = text("/metadata/event_code") == Some(UNLOCKED);
            if says && text("/unmapped/subject") == Some(person.as_str()) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The locks that findings on record call for and of which nothing on record came: the first such
/// finding of each person.
#[derive(Debug, Default)]
struct Owed(BTreeMap<PersonId, u64>);

impl Owed {
    /// What is owed at the end of the log by findings from `from` on. Blocks on the disk.
    fn read(log: &Log, from: u64) -> Result<Owed, ReadError> {
        // What was moved to the vault was judged, and answered, before it could be.
        let (mut owed, mut at, end) = (Owed::default(), from.max(log.local_from()?), log.durable_size());
        while at < end {
            let entries = log.read(at, BATCH)?;
            let Some((last, _)) = entries.last() else { break };
            at = last + 1;
            for (index, entry) in &entries {
                owed.note(*index, &serde_json::from_slice(entry).unwrap_or_default());
            }
        }
        Ok(owed)
    }

    /// Takes the next record into account.
    fn note(&mut self, index: u64, record: &Value) {
        let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str);
        let person = |pointer: &str| text(pointer)?.parse::<PersonId>().ok();
        match text("/metadata/event_code") {
            Some("finding") if text("/unmapped/reaction") == Some(FindingReaction::LockPerson.code()) => {
                if let Some(person) = person("/actor/user/uid") {
                    self.0.entry(person).or_insert(index);
                }
            }
            Some("person_locked" | "person_unlocked") => {
                if let Some(person) = person("/unmapped/subject") {
                    self.0.remove(&person);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Timestamp;

    fn record(kind: EventKind, person: Option<&str>) -> Value {
        let person = person.map(|name| PersonId::from_name(name).unwrap());
        let event = Event { person, ..Event::new(Timestamp::from_secs(1_790_000_000), kind) };
        serde_json::from_slice(&event.to_entry()).unwrap()
    }

    fn finding(person: Option<&str>, reaction: FindingReaction) -> Value {
        let kind = EventKind::Finding {
            rule: "r".to_owned(),
            name: None,
            title: "t".to_owned(),
            title_ja: None,
            level: audit::FindingLevel::Critical,
            tags: Vec::new(),
            evidence: vec![1],
            observed: Timestamp::from_secs(1_790_000_000),
            proven: true,
            decoy: None,
            repeated: 0,
            reaction,
        };
        record(kind, person)
    }

    fn locked(name: &str) -> Value {
        let subject = PersonId::from_name(name).unwrap();
        record(EventKind::PersonLocked { subject, reason: "r".to_owned() }, None)
    }

    fn unlocked(name: &str) -> Value {
        record(EventKind::PersonUnlocked { subject: PersonId::from_name(name).unwrap() }, Some("admin"))
    }

    fn owed(records: &[Value]) -> Vec<(String, u64)> {
        let mut owed = Owed::default();
        for (index, record) in (40..).zip(records) {
            owed.note(index, record);
        }
        owed.0.into_iter().map(|(person, index)| (person.to_string(), index)).collect()
    }

    #[test]
    fn a_lock_is_owed_until_something_came_of_it() {
        use FindingReaction::{EndSession, LockPerson, None as Nothing};
        let alice = |index| vec![("u:alice".to_owned(), index)];
        assert_eq!(owed(&[finding(Some("alice"), LockPerson)]), alice(40));
        assert_eq!(owed(&[finding(Some("alice"), LockPerson), locked("alice")]), []);
        // The first finding is the one that locks.
        assert_eq!(
            owed(&[finding(Some("alice"), LockPerson), finding(Some("alice"), LockPerson)]),
            alice(40)
        );
        // Somebody else's lock settles nothing; an unlocking does, and what comes after it counts anew.
        assert_eq!(owed(&[finding(Some("alice"), LockPerson), locked("bob")]), alice(40));
        let let_in = [finding(Some("alice"), LockPerson), locked("alice"), unlocked("alice")];
        assert_eq!(owed(&let_in), []);
        assert_eq!(owed(&[&let_in[..], &[finding(Some("alice"), LockPerson)]].concat()), alice(43));
        // Nothing else is owed: no mere finding, no session, nobody's lock, no record of another form.
        let other = [
            finding(Some("alice"), Nothing),
            finding(Some("alice"), EndSession),
            finding(None, LockPerson),
            Value::Null,
        ];
        assert_eq!(owed(&other), []);
    }
}
