//! How the gate's doings become records.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use audit::{DecisionRecord, Event, EventKind, Log, ReadError};
use model::{GrantId, SessionId, Timestamp};
use policy::{Action, Denial};
use serde_json::Value;

use crate::{Entry, Gate, Refusal};

/// Records that are looked at in one go while sessions are counted again.
const RECOUNT: u64 = 4096;

/// What a permit rests on, gathered over the questions that made it up.
#[derive(Debug, Clone)]
pub(crate) struct Basis {
    pub rules: Vec<String>,
    pub grants: Vec<GrantId>,
    /// The first instant at which some of it no longer holds.
    pub until: Timestamp,
}

impl Basis {
    pub(crate) fn add(&mut self, more: &policy::Basis) {
        self.rules.extend(more.rules.iter().map(ToString::to_string));
        self.grants.extend(more.grants.iter().cloned());
        self.rules.sort();
        self.rules.dedup();
        self.grants.sort();
        self.grants.dedup();
        self.until = self.until.min(more.until());
    }
}

impl From<&policy::Basis> for Basis {
    fn from(basis: &policy::Basis) -> Basis {
        let mut own = Basis { rules: Vec::new(), grants: Vec::new(), until: Timestamp::MAX };
        own.add(basis);
        own
    }
}

/// A decision on its way into the log.
pub(crate) fn permitted(action: Action, basis: &Basis, epoch: u64) -> DecisionRecord {
    DecisionRecord {
        permit: true,
        action: action.name().to_owned(),
        code: "permit".to_owned(),
        rules: basis.rules.clone(),
        policy_epoch: epoch,
        reason: String::new(),
        second: None,
    }
}

/// A refusal on its way into the log. It holds the whole reason, also what the person is not told.
pub(crate) fn denied(action: Action, denial: &Denial, epoch: u64) -> DecisionRecord {
    let reason = match denial {
        Denial::Error(detail) => format!("{denial} [{detail}]"),
        other => other.to_string(),
    };
    DecisionRecord {
        permit: false,
        action: action.name().to_owned(),
        code: denial.code().to_owned(),
        rules: denial.rule().iter().map(ToString::to_string).collect(),
        policy_epoch: epoch,
        reason,
        second: None,
    }
}

impl Gate {
    /// An event of now, about nobody.
    pub(crate) fn happened(&self, kind: EventKind) -> Event {
        Event::new(self.now(), kind)
    }

    /// An event of now, about whoever stands at the door.
    pub(crate) fn happened_to(&self, entry: &Entry, kind: EventKind) -> Event {
        Event {
            person: Some(entry.person.clone()),
            device: Some(entry.key_fingerprint.clone()),
            peer: entry.peer.map(|peer| peer.to_string()),
            ..self.happened(kind)
        }
    }

    /// Records a denial and turns it into what the person is told.
    pub(crate) async fn refuse(
        &self,
        event: Event,
        action: Action,
        denial: &Denial,
        epoch: u64,
    ) -> Result<Refusal, Refusal> {
        let event = Event { decision: Some(denied(action, denial, epoch)), ..event };
        Ok(Refusal::denied(denial).recorded_at(self.record(&event).await?))
    }
}

/// Which records belong to a session, so that its last one can say whether they are complete.
#[derive(Debug, Default)]
pub(crate) struct Tallies(Mutex<HashMap<SessionId, Tally>>);

/// Where the records of one session lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub first: u64,
    pub last: u64,
    pub count: u64,
}

impl Tallies {
    pub(crate) fn begin(&self, session: &SessionId, index: u64) {
        self.lock().insert(session.clone(), Tally { first: index, last: index, count: 1 });
    }

    /// Counts a record; those of sessions that are not open count for nothing.
    pub(crate) fn add(&self, session: &SessionId, index: u64) {
        if let Some(tally) = self.lock().get_mut(session) {
            // Records of one session may become durable in another order than they were asked for.
            tally.first = tally.first.min(index);
            tally.last = tally.last.max(index);
            tally.count += 1;
        }
    }

    pub(crate) fn end(&self, session: &SessionId) -> Option<Tally> {
        self.lock().remove(session)
    }

    /// Counts the records of sessions that an earlier process left open, from the end of the log
    /// back to the beginning of the first of them. Blocks on the disk.
    pub(crate) fn recount(&self, log: &Log, sessions: &[SessionId]) -> Result<(), ReadError> {
        let mut unfound: HashSet<&SessionId> = sessions.iter().collect();
        let mut end = log.durable_size();
        while end > 0 && !unfound.is_empty() {
            let start = end.saturating_sub(RECOUNT);
            let mut at = start;
            while at < end {
                let entries = match log.read(at, usize::try_from(end - at).unwrap_or(usize::MAX)) {
                    // A session that was open when its first records were moved out of the house.
                    Err(ReadError::Removed { from, .. }) if from < end => {
                        at = from;
                        unfound.clear();
                        continue;
                    }
                    Err(ReadError::Removed { .. }) => return Ok(()),
                    read => read?,
                };
                let Some((last, _)) = entries.last() else { break };
                at = last + 1;
                for (index, entry) in &entries {
                    let record: Value = serde_json::from_slice(entry).unwrap_or_default();
                    let of = record.pointer("/metadata/correlation_uid").and_then(Value::as_str);
                    let Some(session) = sessions.iter().find(|s| Some(s.as_str()) == of) else { continue };
                    let mut tallies = self.lock();
                    let fresh = Tally { first: *index, last: *index, count: 0 };
                    let tally = tallies.entry(session.clone()).or_insert(fresh);
                    tally.first = tally.first.min(*index);
                    tally.last = tally.last.max(*index);
                    tally.count += 1;
                    if record.pointer("/metadata/event_code") == Some(&Value::from("session_opened")) {
                        unfound.remove(session);
                    }
                }
            }
            end = start;
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, Tally>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_counts_what_belongs_to_its_session() {
        let (tallies, session) = (Tallies::default(), SessionId::from_name("s1").unwrap());
        tallies.add(&session, 3);
        assert_eq!(tallies.end(&session), None);
        tallies.begin(&session, 7);
        tallies.add(&session, 9);
        tallies.add(&session, 8);
        assert_eq!(tallies.end(&session), Some(Tally { first: 7, last: 9, count: 3 }));
    }
}
