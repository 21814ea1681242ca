//! What the gate gathers before it asks policy.

use std::collections::BTreeSet;

use certs::ticket::ObjectOrder;
use model::{DatasetId, PersonId, StudyId, WorkspaceId, WorkspaceName};
use policy::duo::{ConditionSet, Purpose};
use policy::{Facts, Standing, StudyFacts, StudyLimits};
use sha2::{Digest, Sha256};
use store::{ObjectState, PersonState, Store, StoreError, StudyState};

/// What the records say of a person in a study.
#[derive(Debug)]
pub(crate) struct StudyRecords {
    facts: Facts,
    /// What the study lets its people use.
    pub limits: StudyLimits,
    /// Every dataset that some grant of the study names, with its conditions.
    pub datasets: Vec<GrantedDataset>,
}

/// A dataset under a grant, current or not.
#[derive(Debug)]
pub(crate) struct GrantedDataset {
    pub id: DatasetId,
    pub conditions: Vec<ConditionSet>,
}

impl StudyRecords {
    /// The facts for a question about a dataset under these conditions.
    pub(crate) fn facts(&self, conditions: &[ConditionSet]) -> Facts {
        Facts { conditions: conditions.to_vec(), ..self.facts.clone() }
    }

    /// How sessions of the study are recorded.
    pub(crate) fn recording(&self) -> policy::RecordingRule {
        self.facts.study.as_ref().map(|study| study.recording).unwrap_or_default()
    }

    /// How they are supervised.
    pub(crate) fn supervision(&self) -> policy::SupervisionRule {
        self.facts.study.as_ref().map(|study| study.supervision).unwrap_or_default()
    }

    /// The purposes that the study was approved for.
    pub(crate) fn purposes(&self) -> Vec<Purpose> {
        self.facts.study.as_ref().map(|study| study.purposes.clone()).unwrap_or_default()
    }

    /// The purpose of a session that names none: the first that the study was approved for.
    pub(crate) fn own_purpose(&self) -> Option<Purpose> {
        self.facts.study.as_ref().and_then(|study| study.purposes.first().cloned())
    }
}

/// The facts about a person outside any study. Whoever is not on record is nobody.
pub(crate) async fn of_person(store: &Store, person: &PersonId) -> Result<Facts, StoreError> {
    Ok(match store.person(person).await? {
        Some(found) => Facts {
            person: match found.state {
                PersonState::Active => Standing::Active,
                PersonState::Locked { .. } => Standing::Locked,
            },
            programme_roles: found.roles,
            ..Facts::default()
        },
        None => Facts::default(),
    })
}

/// The facts about a person in a study, and the datasets that the study was granted.
pub(crate) async fn of_study(
    store: &Store,
    person: &PersonId,
    study: &StudyId,
) -> Result<StudyRecords, StoreError> {
    let mut facts = of_person(store, person).await?;
    let found = store.study(study).await?;
    let limits = found.as_ref().map(|found| found.limits).unwrap_or_default();
    facts.study = found.map(|found| StudyFacts {
        active: found.state == StudyState::Active,
        until: found.until,
        // A purpose that no longer parses is left out: what cannot be read permits nothing.
        channels: found.channels.clone(),
        recording: found.recording,
        supervision: found.supervision,
        purposes: found.purposes.iter().filter_map(|p| p.parse().ok()).collect(),
    });
    let granted = store.study_policy(study).await?.grants;
    let named: BTreeSet<DatasetId> = granted.into_iter().map(|grant| grant.dataset).collect();
    let mut datasets = Vec::with_capacity(named.len());
    for id in named {
        let Some(found) = store.dataset(&id).await? else { continue };
        let conditions = found
            .conditions
            .iter()
            .map(|set| ConditionSet::parse(set))
            .collect::<Result<Vec<_>, _>>()
            // Conditions that cannot be read must not become fewer conditions: none at all is
            // what policy refuses to take for "unrestricted".
            .unwrap_or_default();
        datasets.push(GrantedDataset { id, conditions });
    }
    Ok(StudyRecords { facts, limits, datasets })
}

/// The files of a dataset that are wholly stored, as a ticket names them.
pub(crate) async fn objects(store: &Store, dataset: &DatasetId) -> Result<Vec<ObjectOrder>, StoreError> {
    let objects = store.objects(dataset).await?;
    Ok(objects
        .into_iter()
        .filter_map(|object| match object.state {
            ObjectState::Stored { size, manifest_root, .. } => {
                Some(ObjectOrder { object: object.id, name: object.name, size, manifest_root })
            }
            ObjectState::Pending | ObjectState::Abandoned { .. } => None,
        })
        .collect())
}

/// A person's workspace of this name in a study: always the same one, so that its home persists.
pub(crate) fn workspace(study: &StudyId, person: &PersonId, name: &WorkspaceName) -> WorkspaceId {
    let mut plain = format!("{}.{}", study.name(), person.name());
    if !name.is_main() {
        plain = format!("{plain}.{name}");
    }
    // A dot within a name would let two workspaces have one identifier, and long names do not fit: a
    // digest of all three does.
    let dotted = study.name().contains('.') || person.name().contains('.');
    WorkspaceId::from_name(&plain).ok().filter(|_| !dotted).unwrap_or_else(|| {
        let digest = Sha256::digest(format!("{study} {person} {name}").as_bytes());
        let hex: String = digest.iter().take(16).map(|b| format!("{b:02x}")).collect();
        WorkspaceId::from_name(&hex).unwrap_or_else(|_| unreachable!("hexadecimal digits are a name"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_workspaces_have_one_identifier() {
        let id = |study, person, name: &str| {
            let (study, person) = (StudyId::from_name(study).unwrap(), PersonId::from_name(person).unwrap());
            workspace(&study, &person, &name.parse().unwrap()).name().to_owned()
        };
        assert_eq!(id("brca", "alice", "main"), "brca.alice");
        assert_eq!(id("brca", "alice", "big"), "brca.alice.big");
        let long = "x".repeat(40);
        let all = [
            id("a", "b.c", "main"),
            id("a", "b", "c"),
            id("a.b", "c", "main"),
            id("a.b", "c", "d"),
            id(&long, &long, "main"),
            id(&long, &long, "big"),
        ];
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{all:?}");
    }
}
