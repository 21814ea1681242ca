//! Studies, their members, datasets and grants.

use model::{DatasetId, GrantId, PersonId, StudyId, Timestamp};
use policy::{ChannelRules, Membership, RecordingRule, StudyLimits, SupervisionRule};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, ModelTrait, QueryFilter, QueryOrder};

use super::{Store, bump, insert, update};
use crate::entity::{dataset, grant, membership, study};
use crate::error::StoreError;
use crate::records::{Dataset, Grant, GrantState, Study, StudyState};
use crate::text;

impl Store {
    /// Records a study; the policy epoch after it.
    pub async fn create_study(&self, study: &Study) -> Result<u64, StoreError> {
        let tx = self.write().await?;
        insert(&tx, study.id.as_str(), study_row(study)?).await?;
        let epoch = bump(&tx).await?;
        tx.commit().await?;
        Ok(epoch)
    }

    /// A study, if on record.
    pub async fn study(&self, id: &StudyId) -> Result<Option<Study>, StoreError> {
        find_study(&self.readers, id).await
    }

    /// Every study, by identifier.
    pub async fn studies(&self) -> Result<Vec<Study>, StoreError> {
        let rows = study::Entity::find().order_by_asc(study::Column::Id).all(&self.readers).await?;
        rows.into_iter().map(study_record).collect()
    }

    /// Moves the end of a study's approval, either way; the policy epoch after it.
    pub async fn set_study_until(&self, id: &StudyId, until: Timestamp) -> Result<u64, StoreError> {
        self.change_study(id, |study| Ok(Study { until, ..study })).await
    }

    /// Says which channels a study permits; the policy epoch after it.
    pub async fn set_channels(&self, id: &StudyId, channels: &ChannelRules) -> Result<u64, StoreError> {
        self.change_study(id, |study| Ok(Study { channels: channels.clone(), ..study })).await
    }

    /// Says how sessions of a study are recorded; the policy epoch after it.
    pub async fn set_recording(&self, id: &StudyId, recording: RecordingRule) -> Result<u64, StoreError> {
        self.change_study(id, |study| Ok(Study { recording, ..study })).await
    }

    /// Says how sessions of a study are supervised; the policy epoch after it.
    pub async fn set_supervision(
        &self,
        id: &StudyId,
        supervision: SupervisionRule,
    ) -> Result<u64, StoreError> {
        self.change_study(id, |study| Ok(Study { supervision, ..study })).await
    }

    /// Says what a study lets its people use; the policy epoch after it.
    pub async fn set_limits(&self, id: &StudyId, limits: &StudyLimits) -> Result<u64, StoreError> {
        self.change_study(id, |study| Ok(Study { limits: *limits, ..study })).await
    }

    /// Closes a study, for good; the policy epoch after it.
    pub async fn close_study(&self, id: &StudyId, at: Timestamp) -> Result<u64, StoreError> {
        self.change_study(id, |study| {
            let state = study.state.close(at);
            let state = state.map_err(|source| StoreError::Transition { what: id.to_string(), source })?;
            Ok(Study { state, ..study })
        })
        .await
    }

    /// Gives a person a role in a study; the policy epoch after it.
    pub async fn add_member(&self, member: &Membership) -> Result<u64, StoreError> {
        let row = membership::Model {
            person: member.person.to_string(),
            study: member.study.to_string(),
            role: member.role.to_string(),
        };
        let what = format!("{} as {} of {}", member.person, member.role, member.study);
        let tx = self.write().await?;
        insert(&tx, &what, row).await?;
        let epoch = bump(&tx).await?;
        tx.commit().await?;
        Ok(epoch)
    }

    /// Takes a role in a study from a person; the policy epoch after it.
    pub async fn remove_member(&self, member: &Membership) -> Result<u64, StoreError> {
        let key = (member.person.to_string(), member.study.to_string(), member.role.to_string());
        let tx = self.write().await?;
        let row = membership::Entity::find_by_id(key).one(&tx).await?.ok_or_else(|| {
            StoreError::NotFound(format!("{} as {} of {}", member.person, member.role, member.study))
        })?;
        row.delete(&tx).await?;
        let epoch = bump(&tx).await?;
        tx.commit().await?;
        Ok(epoch)
    }

    /// Who has which role in a study.
    pub async fn members(&self, study: &StudyId) -> Result<Vec<Membership>, StoreError> {
        memberships(&self.readers, Some(study)).await
    }

    /// The roles of one person in all studies.
    pub async fn memberships_of(&self, person: &PersonId) -> Result<Vec<Membership>, StoreError> {
        let rows = membership::Entity::find()
            .filter(membership::Column::Person.eq(person.as_str()))
            .order_by_asc(membership::Column::Study)
            .order_by_asc(membership::Column::Role)
            .all(&self.readers)
            .await?;
        rows.iter().map(member_record).collect()
    }

    /// Records a dataset; the policy epoch after it.
    pub async fn create_dataset(&self, dataset: &Dataset) -> Result<u64, StoreError> {
        let tx = self.write().await?;
        insert(&tx, dataset.id.as_str(), dataset_row(dataset)?).await?;
        let epoch = bump(&tx).await?;
        tx.commit().await?;
        Ok(epoch)
    }

    /// A dataset, if on record.
    pub async fn dataset(&self, id: &DatasetId) -> Result<Option<Dataset>, StoreError> {
        let row = dataset::Entity::find_by_id(id.as_str()).one(&self.readers).await?;
        row.map(dataset_record).transpose()
    }

    /// Every dataset, by identifier.
    pub async fn datasets(&self) -> Result<Vec<Dataset>, StoreError> {
        let rows = dataset::Entity::find().order_by_asc(dataset::Column::Id).all(&self.readers).await?;
        rows.into_iter().map(dataset_record).collect()
    }

    /// Replaces the conditions under which a dataset may be used; the policy epoch after it.
    pub async fn set_conditions(
        &self,
        id: &DatasetId,
        conditions: &[Vec<String>],
    ) -> Result<u64, StoreError> {
        let tx = self.write().await?;
        let row = dataset::Entity::find_by_id(id.as_str()).one(&tx).await?;
        let row = row.ok_or_else(|| StoreError::NotFound(id.to_string()))?;
        let conditions = text::json(&conditions)?;
        update(&tx, id.as_str(), dataset::Model { conditions, ..row }).await?;
        let epoch = bump(&tx).await?;
        tx.commit().await?;
        Ok(epoch)
    }

    /// Records a grant; the policy epoch after it.
    pub async fn create_grant(&self, grant: &Grant) -> Result<u64, StoreError> {
        let tx = self.write().await?;
        insert(&tx, grant.id.as_str(), grant_row(grant)).await?;
        let epoch = bump(&tx).await?;
        tx.commit().await?;
        Ok(epoch)
    }

    /// A grant, if on record.
    pub async fn grant(&self, id: &GrantId) -> Result<Option<Grant>, StoreError> {
        find_grant(&self.readers, id).await
    }

    /// Every grant, by identifier, revoked ones among them.
    pub async fn grants(&self) -> Result<Vec<Grant>, StoreError> {
        let rows = grant::Entity::find().order_by_asc(grant::Column::Id).all(&self.readers).await?;
        rows.into_iter().map(grant_record).collect()
    }

    /// Revokes a grant, for good; the policy epoch after it.
    pub async fn revoke_grant(
        &self,
        id: &GrantId,
        at: Timestamp,
        by: &PersonId,
        reason: &str,
    ) -> Result<u64, StoreError> {
        let tx = self.write().await?;
        let grant = find_grant(&tx, id).await?.ok_or_else(|| StoreError::NotFound(id.to_string()))?;
        let state = grant.state.revoke(at, by.clone(), reason.to_owned());
        let state = state.map_err(|source| StoreError::Transition { what: id.to_string(), source })?;
        update(&tx, id.as_str(), grant_row(&Grant { state, ..grant })).await?;
        let epoch = bump(&tx).await?;
        tx.commit().await?;
        Ok(epoch)
    }

    async fn change_study(
        &self,
        id: &StudyId,
        change: impl FnOnce(Study) -> Result<Study, StoreError>,
    ) -> Result<u64, StoreError> {
        let tx = self.write().await?;
        let study = find_study(&tx, id).await?.ok_or_else(|| StoreError::NotFound(id.to_string()))?;
        update(&tx, id.as_str(), study_row(&change(study)?)?).await?;
        let epoch = bump(&tx).await?;
        tx.commit().await?;
        Ok(epoch)
    }
}

/// Who has which role, in one study or in all.
pub(super) async fn memberships(
    db: &impl ConnectionTrait,
    study: Option<&StudyId>,
) -> Result<Vec<Membership>, StoreError> {
    let mut rows = membership::Entity::find()
        .order_by_asc(membership::Column::Study)
        .order_by_asc(membership::Column::Person)
        .order_by_asc(membership::Column::Role);
    if let Some(study) = study {
        rows = rows.filter(membership::Column::Study.eq(study.as_str()));
    }
    rows.all(db).await?.iter().map(member_record).collect()
}

pub(super) fn grant_record(row: grant::Model) -> Result<Grant, StoreError> {
    let what = row.id.as_str();
    let state = match row.revoked_at {
        None => GrantState::Active,
        Some(at) => GrantState::Revoked {
            at: text::at(at),
            by: text::id(what, &text::required(what, row.revoked_by)?)?,
            reason: text::required(what, row.revoked_reason)?,
        },
    };
    Ok(Grant {
        id: text::id(what, &row.id)?,
        study: text::id(what, &row.study)?,
        dataset: text::id(what, &row.dataset)?,
        grantee: text::id(what, &row.grantee)?,
        not_before: text::at(row.not_before),
        not_after: text::at(row.not_after),
        granted_by: text::id(what, &row.granted_by)?,
        state,
    })
}

async fn find_study(db: &impl ConnectionTrait, id: &StudyId) -> Result<Option<Study>, StoreError> {
    let row = study::Entity::find_by_id(id.as_str()).one(db).await?;
    row.map(study_record).transpose()
}

async fn find_grant(db: &impl ConnectionTrait, id: &GrantId) -> Result<Option<Grant>, StoreError> {
    let row = grant::Entity::find_by_id(id.as_str()).one(db).await?;
    row.map(grant_record).transpose()
}

fn study_row(study: &Study) -> Result<study::Model, StoreError> {
    let closed_at = match study.state {
        StudyState::Active => None,
        StudyState::Closed { at } => Some(at.as_millis()),
    };
    Ok(study::Model {
        id: study.id.to_string(),
        title: study.title.clone(),
        purposes: text::json(&study.purposes)?,
        until: study.until.as_millis(),
        closed_at,
        channels: text::json(&study.channels.names())?,
        recording: text::json(&study.recording)?,
        supervision: text::json(&study.supervision)?,
        limits: Some(text::json(&study.limits)?),
    })
}

fn study_record(row: study::Model) -> Result<Study, StoreError> {
    let what = row.id.as_str();
    let state = match row.closed_at {
        None => StudyState::Active,
        Some(at) => StudyState::Closed { at: text::at(at) },
    };
    let names: Vec<String> = text::from_json(what, &row.channels)?;
    let channels = ChannelRules::parse(&names).map_err(|_| text::damaged(what, "channels"))?;
    let limits = match &row.limits {
        Some(limits) => text::from_json(what, limits)?,
        None => StudyLimits::default(),
    };
    Ok(Study {
        id: text::id(what, &row.id)?,
        recording: text::from_json(what, &row.recording)?,
        supervision: text::from_json(what, &row.supervision)?,
        purposes: text::from_json(what, &row.purposes)?,
        until: text::at(row.until),
        title: row.title,
        state,
        channels,
        limits,
    })
}

fn member_record(row: &membership::Model) -> Result<Membership, StoreError> {
    let what = "a membership";
    Ok(Membership {
        person: text::id(what, &row.person)?,
        study: text::id(what, &row.study)?,
        role: text::id(what, &row.role)?,
    })
}

fn dataset_row(dataset: &Dataset) -> Result<dataset::Model, StoreError> {
    Ok(dataset::Model {
        id: dataset.id.to_string(),
        title: dataset.title.clone(),
        conditions: text::json(&dataset.conditions)?,
    })
}

fn dataset_record(row: dataset::Model) -> Result<Dataset, StoreError> {
    let what = row.id.as_str();
    Ok(Dataset {
        id: text::id(what, &row.id)?,
        conditions: text::from_json(what, &row.conditions)?,
        title: row.title,
    })
}

fn grant_row(grant: &Grant) -> grant::Model {
    let (revoked_at, revoked_by, revoked_reason) = match &grant.state {
        GrantState::Active => (None, None, None),
        GrantState::Revoked { at, by, reason } => {
            (Some(at.as_millis()), Some(by.to_string()), Some(reason.clone()))
        }
    };
    grant::Model {
        id: grant.id.to_string(),
        study: grant.study.to_string(),
        dataset: grant.dataset.to_string(),
        grantee: grant.grantee.to_string(),
        not_before: grant.not_before.as_millis(),
        not_after: grant.not_after.as_millis(),
        granted_by: grant.granted_by.to_string(),
        revoked_at,
        revoked_by,
        revoked_reason,
    }
}
