//! What detection found: recorded first, then answered.

use audit::{Event, EventKind, FindingReaction};
use model::PersonId;
use store::StoreError;

use crate::leases::EndCause;
use crate::{Gate, Refusal};

/// Whom records name as having locked a person when detection did. Nobody can be enrolled as it.
pub(crate) const DETECTION: &str = "sekisho-detection";

/// What a person is told. It names no rule: whoever looks for what is watched should not learn it.
const TOLD: &str =
    "This session was ended by the security watch of this house. Please contact its security staff.";

impl Gate {
    /// Records a finding, an event of the kind [`EventKind::Finding`], and does what it says under
    /// `reaction`: the sessions of the person in that study end, or the person is locked out and all
    /// of theirs end. Returns how many sessions did.
    ///
    /// Who may be answered so is for detection to know; here it is only seen to that the person and
    /// the session belong together. Otherwise the finding is recorded, and nothing is done.
    pub async fn answer_finding(&self, mut event: Event) -> Result<usize, Refusal> {
        let holds = self.belongs(&event).await?;
        let EventKind::Finding { reaction, proven, .. } = &mut event.kind else {
            return Err(Refusal::malformed("This is no finding."));
        };
        if !(holds && *proven) {
            *reaction = FindingReaction::None;
        }
        let reaction = *reaction;
        let (gate, person, study) = (self.clone(), event.person.clone(), event.study.clone());
        self.to_the_end(async move {
            let index = gate.record(&event).await?;
            let Some(person) = person else { return Ok(0) };
            let cause = |cause| EndCause { cause, grant: None, message: TOLD.to_owned() };
            match (reaction, study) {
                (FindingReaction::None, _) => Ok(0),
                (FindingReaction::EndSession, Some(study)) => {
                    let cause = cause(audit::EndCause::Finding);
                    Ok(gate.inner.leases.end_member(&person, &study, &cause))
                }
                (FindingReaction::EndSession, None) => {
                    Ok(gate.inner.leases.end_person(&person, &cause(audit::EndCause::Finding)))
                }
                (FindingReaction::LockPerson, _) => {
                    gate.lock_for(&person, index, &cause(audit::EndCause::Finding)).await
                }
            }
        })
        .await
    }

    /// Locks a person because of the finding at `index`, and ends all of theirs.
    async fn lock_for(&self, person: &PersonId, index: u64, cause: &EndCause) -> Result<usize, Refusal> {
        let reason = format!("the finding recorded at {index}");
        let by = PersonId::from_name(DETECTION).map_err(|e| Refusal::malformed(e.to_string()))?;
        let locked = self.inner.store.lock_person(person, self.now(), &by, &reason).await;
        // Also if the records do not answer: what runs must end.
        let ended = self.inner.leases.end_person(person, cause);
        match locked {
            Ok(_) => {
                let kind = EventKind::PersonLocked { subject: person.clone(), reason };
                self.record(&self.happened(kind)).await?;
                Ok(ended)
            }
            // Somebody was faster.
            Err(StoreError::Transition { .. }) => Ok(ended),
            Err(error) => Err(Refusal::store(&error)),
        }
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
