//! Acts that take a second officer: asked for, approved by somebody else, done once.
//!
//! Whoever wants to do such a thing asks by doing it: the gate takes the request on record and says no for
//! now. Somebody else who may do it too approves it, and the first does the same again: the same person,
//! the very same act, once, before the request expires. The record of the act then names both. An
//! approval is used up before the act is recorded, so that nothing is done twice with one; where the act
//! fails after that, it is asked for anew.

use std::time::Duration;

use audit::{DecisionRecord, Event, EventKind};
use model::{ApprovalId, PersonId};
use policy::{Action, AdminAction, Decision, Matter, Request};
use store::{Approval, ApprovalState};

use crate::events::{self, Basis};
use crate::refusal::{RefusalKind, sentence};
use crate::{Entry, Gate, Refusal, facts};

/// Requests in one list.
const LISTED: u64 = 1_000;
/// Requests of one person that may wait at a time.
const WAITING: usize = 50;
/// The longest reason, in characters.
const REASON_MAX: usize = 500;

/// Which acts take a second officer, and for how long a request is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalSettings {
    /// Which.
    pub rules: policy::ApprovalRules,
    /// How long a request may wait to be approved and then used.
    pub lifetime: Duration,
}

impl Default for ApprovalSettings {
    fn default() -> Self {
        ApprovalSettings { rules: policy::ApprovalRules::default(), lifetime: Duration::from_secs(24 * 3600) }
    }
}

/// The yes of a second officer, on its way into the record of an act.
#[derive(Debug, Clone)]
pub(crate) struct Seconded(PersonId);

impl Seconded {
    /// With the second officer in it, where there is one.
    pub(crate) fn marked(second: Option<Seconded>, decision: DecisionRecord) -> DecisionRecord {
        DecisionRecord { second: second.map(|Seconded(person)| person), ..decision }
    }
}

impl Gate {
    /// The second officer's yes for an act, if it takes one; without it the act is asked for and refused
    /// for now. `what` is the act, as its record will say. Call it before the act is decided and recorded.
    pub(crate) async fn second(
        &self,
        entry: &Entry,
        matter: Option<Matter>,
        what: &str,
    ) -> Result<Option<Seconded>, Refusal> {
        let settings = &self.inner.settings.approvals;
        let Some(matter) = matter.filter(|matter| settings.rules.takes_second(*matter)) else {
            return Ok(None);
        };
        // Who may not do it does not ask for it either.
        if let Action::Administer(action) = matter.action() {
            self.may(entry, action).await?;
        }
        let (gate, entry, what) = (self.clone(), entry.clone(), what.to_owned());
        self.to_the_end(async move {
            // One after the other: a request is made once.
            let _one_at_a_time = gate.inner.approving.lock().await;
            let (store, now) = (&gate.inner.store, gate.now());
            let found = store.open_approval(&entry.person, matter, &what, now).await;
            match found.map_err(|e| Refusal::store(&e))? {
                Some(Approval { id, state: ApprovalState::Approved { by, .. }, .. }) => {
                    let used = store.change_approval(&id, |state| state.make_use(now)).await;
                    used.map_err(|e| Refusal::store(&e))?;
                    // Who approved it and may not do it any more does not count.
                    let (decision, epoch) = gate.weigh_approval(&by, matter, Some(&entry.person)).await?;
                    match decision {
                        Decision::Permit(_) => Ok(Some(Seconded(by))),
                        Decision::Deny(denial) | Decision::Manual(denial) => {
                            tracing::warn!(approval = %id, %denial, "an approval does not hold any more");
                            let reason = "whoever approved this may not do so any more; ask for it again";
                            let kind = EventKind::AdminRefused {
                                action: matter.action().name().to_owned(),
                                code: "approval-void".to_owned(),
                                reason: sentence(reason),
                            };
                            let event = gate.happened_to(&entry, kind);
                            let void = gate.refuse(event, matter.action(), &denial, epoch).await?;
                            Err(Refusal {
                                code: "approval-void".to_owned(),
                                message: sentence(reason),
                                ..void
                            })
                        }
                    }
                }
                Some(waiting) => Err(needed(&waiting)),
                None => Err(needed(&gate.ask(&entry, matter, what).await?)),
            }
        })
        .await
    }

    async fn ask(&self, entry: &Entry, matter: Matter, what: String) -> Result<Approval, Refusal> {
        let (store, now) = (&self.inner.store, self.now());
        let waiting = store.approvals_waiting(&entry.person, now).await.map_err(|e| Refusal::store(&e))?;
        if waiting >= WAITING {
            return Err(conflict(format!(
                "You have asked for {WAITING} things that nobody has answered. Have some answered first, or take them back with `sekisho approvals refuse`."
            )));
        }
        let approval = Approval {
            id: ApprovalId::random(&*self.inner.entropy).map_err(|e| Refusal::entropy(&e))?,
            matter,
            what,
            asked_by: entry.person.clone(),
            asked_at: now,
            expires: now.plus(self.inner.settings.approvals.lifetime),
            state: ApprovalState::Asked,
        };
        let kind = EventKind::ApprovalRequested {
            approval: approval.id.clone(),
            matter: matter.name().to_owned(),
            what: approval.what.clone(),
            expires: approval.expires,
        };
        self.record(&self.happened_to(entry, kind)).await?;
        store.ask_approval(&approval).await.map_err(|e| Refusal::store(&e))?;
        Ok(approval)
    }

    /// What is less now, and was not when it was asked whether it takes a second officer, is not done.
    pub(crate) fn unchanged_meanwhile(&self, matter: Option<Matter>) -> Result<(), Refusal> {
        if matter.is_some_and(|matter| self.approval_rules().takes_second(matter)) {
            return Err(conflict("Somebody else changed this at the same moment. Do it again.".to_owned()));
        }
        Ok(())
    }

    /// What takes a second officer here.
    pub fn approval_rules(&self) -> &policy::ApprovalRules {
        &self.inner.settings.approvals.rules
    }

    /// Requests, newest first, for those who may list records.
    pub async fn approvals(&self, entry: &Entry) -> Result<Vec<Approval>, Refusal> {
        self.may(entry, AdminAction::ListRecords).await?;
        self.inner.store.approvals(LISTED).await.map_err(|e| Refusal::store(&e))
    }

    /// Approves what somebody else asked for. They do it then, not this.
    pub async fn approve(&self, entry: &Entry, id: &ApprovalId) -> Result<Approval, Refusal> {
        let (gate, entry, id) = (self.clone(), entry.clone(), id.clone());
        self.to_the_end(async move {
            let _one_at_a_time = gate.inner.approving.lock().await;
            let (approval, decision) = gate.answering(&entry, &id, true).await?;
            let kind = decided(&approval, true, None);
            let event = Event { decision: Some(decision), ..gate.happened_to(&entry, kind) };
            gate.record(&event).await?;
            let (by, at) = (entry.person.clone(), gate.now());
            let changed = gate.inner.store.change_approval(&id, |state| state.approve(by, at)).await;
            changed.map_err(|e| Refusal::store(&e))
        })
        .await
    }

    /// Refuses what somebody asked for, or takes back what one asked for oneself.
    pub async fn refuse_approval(
        &self,
        entry: &Entry,
        id: &ApprovalId,
        reason: &str,
    ) -> Result<Approval, Refusal> {
        if reason.trim().is_empty() || reason.chars().count() > REASON_MAX {
            return Err(Refusal::malformed(format!("A reason has 1 to {REASON_MAX} characters.")));
        }
        let (gate, entry, id, reason) = (self.clone(), entry.clone(), id.clone(), reason.to_owned());
        self.to_the_end(async move {
            let _one_at_a_time = gate.inner.approving.lock().await;
            let (approval, decision) = gate.answering(&entry, &id, false).await?;
            let kind = decided(&approval, false, Some(reason.clone()));
            let event = Event { decision: Some(decision), ..gate.happened_to(&entry, kind) };
            gate.record(&event).await?;
            let (by, at) = (entry.person.clone(), gate.now());
            let changed = gate.inner.store.change_approval(&id, |state| state.refuse(by, at, reason)).await;
            changed.map_err(|e| Refusal::store(&e))
        })
        .await
    }

    /// A request that somebody is about to answer, and what lets them. A yes takes somebody else.
    async fn answering(
        &self,
        entry: &Entry,
        id: &ApprovalId,
        yes: bool,
    ) -> Result<(Approval, DecisionRecord), Refusal> {
        let found = self.inner.store.approval(id).await.map_err(|e| Refusal::store(&e))?;
        let unknown = || Refusal::unknown(id.as_str());
        // To know of it at all takes to know of the records.
        self.may(entry, AdminAction::ListRecords).await?;
        let approval = found.ok_or_else(unknown)?;
        let other_than = yes.then_some(&approval.asked_by);
        let (decision, epoch) = self.weigh_approval(&entry.person, approval.matter, other_than).await?;
        let action = approval.matter.action();
        let basis = match decision {
            Decision::Permit(basis) => Basis::from(&basis),
            Decision::Deny(denial) | Decision::Manual(denial) => {
                let kind = EventKind::AdminRefused {
                    action: action.name().to_owned(),
                    code: denial.code().to_owned(),
                    reason: sentence(&denial.to_string()),
                };
                return Err(self.refuse(self.happened_to(entry, kind), action, &denial, epoch).await?);
            }
        };
        let answerable = match approval.state {
            ApprovalState::Asked => true,
            ApprovalState::Approved { .. } => !yes,
            ApprovalState::Refused { .. } | ApprovalState::Used { .. } => false,
        };
        if !answerable {
            return Err(conflict(format!("{id} is {} already.", approval.state.code())));
        }
        if self.now() >= approval.expires {
            return Err(conflict(format!("{id} has expired. {} may ask again.", approval.asked_by)));
        }
        Ok((approval, events::permitted(action, &basis, epoch)))
    }

    async fn weigh_approval(
        &self,
        person: &PersonId,
        matter: Matter,
        other_than: Option<&PersonId>,
    ) -> Result<(Decision, u64), Refusal> {
        let facts = facts::of_person(&self.inner.store, person).await.map_err(|e| Refusal::store(&e))?;
        let request = Request {
            person: person.clone(),
            study: None,
            dataset: None,
            action: matter.action(),
            purpose: None,
            now: self.now(),
        };
        let policies = self.inner.policies.load_full();
        let decision = match other_than {
            Some(asked_by) => policy::decide_approval(&request, asked_by, &policies, &facts),
            None => policy::decide(&request, &policies, &facts),
        };
        Ok((decision, policies.epoch()))
    }
}

fn decided(approval: &Approval, approved: bool, reason: Option<String>) -> EventKind {
    EventKind::ApprovalDecided {
        approval: approval.id.clone(),
        matter: approval.matter.name().to_owned(),
        what: approval.what.clone(),
        asked_by: approval.asked_by.clone(),
        approved,
        reason,
    }
}

fn needed(approval: &Approval) -> Refusal {
    let Approval { id, expires, .. } = approval;
    Refusal::new(
        RefusalKind::Denied,
        "approval-needed",
        format!(
            "This takes a second officer, so it is not done yet. It is asked for as {id}, until {expires}: somebody else who may do it runs `sekisho approvals approve {id}`, and then you do the same again."
        ),
    )
}

fn conflict(message: String) -> Refusal {
    Refusal::new(RefusalKind::Conflict, "conflict", message)
}
