//! Bringing files in.

use audit::{Event, EventKind};
use certs::ticket::{DepositOrder, Order};
use model::{AgentId, BackendId, DatasetId, ObjectId, PersonId};
use policy::{Action, Decision, Request};
use store::ObjectState;

use crate::events::{self, Basis};
use crate::{Entry, Gate, Permit, Refusal, facts};

/// The most bytes a file's name may have: what file systems take.
const NAME_MAX: usize = 255;

/// A permitted deposit of one file into one dataset.
#[derive(Debug, Clone)]
pub struct Deposit {
    /// The object that the file becomes.
    pub object: ObjectId,
    /// Where it belongs.
    pub dataset: DatasetId,
    /// Its name there.
    pub name: String,
    /// Who brings it.
    pub person: PersonId,
}

impl crate::permit::sealed::Sealed for Deposit {}

impl Gate {
    /// Lets a person bring a file of this name into a dataset.
    pub async fn deposit(
        &self,
        entry: &Entry,
        dataset: &DatasetId,
        name: &str,
        agent: &AgentId,
    ) -> Result<Permit<Deposit>, Refusal> {
        check_name(name)?;
        let lease = self.inner.leases.register(&entry.person, None, &self.inner.clock);
        let records =
            facts::of_person(&self.inner.store, &entry.person).await.map_err(|e| Refusal::store(&e))?;
        let request = Request {
            person: entry.person.clone(),
            study: None,
            dataset: Some(dataset.clone()),
            action: Action::Deposit,
            purpose: None,
            now: self.now(),
        };
        let policies = self.inner.policies.load_full();
        let epoch = policies.epoch();
        let basis = match policy::decide(&request, &policies, &records) {
            Decision::Permit(basis) => Basis::from(&basis),
            Decision::Deny(denial) | Decision::Manual(denial) => {
                let event = self.happened_to(
                    entry,
                    EventKind::DepositRefused {
                        dataset: dataset.clone(),
                        code: denial.code().to_owned(),
                        reason: crate::refusal::sentence(&denial.to_string()),
                    },
                );
                return Err(self.refuse(event, Action::Deposit, &denial, epoch).await?);
            }
        };
        let deposit = Deposit {
            object: ObjectId::random(&*self.inner.entropy).map_err(|e| Refusal::entropy(&e))?,
            dataset: dataset.clone(),
            name: name.to_owned(),
            person: entry.person.clone(),
        };
        let row = store::Object {
            id: deposit.object.clone(),
            dataset: dataset.clone(),
            name: name.to_owned(),
            deposited_by: entry.person.clone(),
            begun_at: self.now(),
            backends: Vec::new(),
            state: ObjectState::Pending,
        };
        self.inner.store.create_object(&row).await.map_err(|e| Refusal::store(&e))?;
        let event = self.happened_to(
            entry,
            EventKind::DepositStarted {
                object: deposit.object.clone(),
                dataset: dataset.clone(),
                name: name.to_owned(),
                agent: agent.clone(),
            },
        );
        let decision = Some(events::permitted(Action::Deposit, &basis, epoch));
        let record = self.record(&Event { decision, ..event }).await?;
        Ok(Permit::mint(deposit, record, lease))
    }

    /// The order that makes an agent take a permitted deposit.
    pub fn deposit_ticket(&self, permit: &Permit<Deposit>, agent: &AgentId) -> Result<Vec<u8>, Refusal> {
        let deposit = permit.action();
        self.seal(
            agent,
            Order::Deposit(DepositOrder {
                object: deposit.object.clone(),
                dataset: deposit.dataset.clone(),
                name: deposit.name.clone(),
                person: deposit.person.clone(),
            }),
        )
    }

    /// The shares lie on `backends`: records the manifest's root, then lets readers see the file.
    pub async fn deposit_completed(
        &self,
        permit: Permit<Deposit>,
        size: u64,
        manifest_root: [u8; 32],
        backends: Vec<BackendId>,
    ) -> Result<u64, Refusal> {
        let gate = self.clone();
        self.to_the_end(async move {
            let deposit = permit.action();
            let event = gate.happened(EventKind::DepositCompleted {
                object: deposit.object.clone(),
                dataset: deposit.dataset.clone(),
                size,
                manifest_root: manifest_root.iter().map(|b| format!("{b:02x}")).collect(),
            });
            let record = gate.record(&Event { person: Some(deposit.person.clone()), ..event }).await?;
            let store = &gate.inner.store;
            store
                .complete_object(&deposit.object, size, manifest_root, &backends, gate.now())
                .await
                .map_err(|e| Refusal::store(&e))?;
            Ok(record)
        })
        .await
    }

    /// The deposit did not come to its end: the name is free again.
    pub async fn deposit_failed(
        &self,
        permit: Permit<Deposit>,
        code: &str,
        reason: &str,
    ) -> Result<u64, Refusal> {
        let gate = self.clone();
        let (code, reason) = (code.to_owned(), reason.to_owned());
        self.to_the_end(async move {
            let deposit = permit.action();
            let event = gate.happened(EventKind::DepositFailed {
                object: deposit.object.clone(),
                dataset: deposit.dataset.clone(),
                code,
                reason,
            });
            let record = gate.record(&Event { person: Some(deposit.person.clone()), ..event }).await?;
            gate.inner
                .store
                .abandon_object(&deposit.object, gate.now())
                .await
                .map_err(|e| Refusal::store(&e))?;
            Ok(record)
        })
        .await
    }
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let fits = !name.is_empty() && name.len() <= NAME_MAX && !name.starts_with('.') && !name.starts_with('-');
    if fits && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_' | b'+')) {
        Ok(())
    } else {
        Err(Refusal::malformed(
            "A file's name has letters, digits, '.', '-', '_' and '+', does not begin with a mark, and has at most 255 characters. Choose one with --name.",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::check_name;

    #[test]
    fn names_that_would_leave_the_dataset_are_refused() {
        for good in ["NA12878.chr22.tiny.bam", "q.fa.fai", "a+b_c-1"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "..", ".hidden", "-rf", "a/b", "a\0", "a b", "ゲノム", &"x".repeat(256)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
