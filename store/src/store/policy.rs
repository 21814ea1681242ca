//! What policy is compiled from.

use model::StudyId;
use policy::GrantRule;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, TransactionTrait};

use super::Store;
use super::access::{grant_record, memberships};
use crate::entity::{grant, policy_epoch};
use crate::error::StoreError;
use crate::records::PolicySnapshot;
use crate::text::damaged;

impl Store {
    /// The number of the present state of everything that policy depends on.
    pub async fn policy_epoch(&self) -> Result<u64, StoreError> {
        epoch(&self.readers).await
    }

    /// All memberships and grants with the epoch that they belong to, from one instant.
    pub async fn policy_snapshot(&self) -> Result<PolicySnapshot, StoreError> {
        self.snapshot(None).await
    }

    /// The memberships and grants of one study with the epoch that they belong to, from one instant.
    pub async fn study_policy(&self, study: &StudyId) -> Result<PolicySnapshot, StoreError> {
        self.snapshot(Some(study)).await
    }

    async fn snapshot(&self, study: Option<&StudyId>) -> Result<PolicySnapshot, StoreError> {
        // Within a transaction all reads see the state that the first one saw.
        let tx = self.readers.begin().await?;
        let epoch = epoch(&tx).await?;
        let memberships = memberships(&tx, study).await?;
        let mut rows = grant::Entity::find()
            .filter(grant::Column::RevokedAt.is_null())
            .order_by_asc(grant::Column::Study)
            .order_by_asc(grant::Column::Id);
        if let Some(study) = study {
            rows = rows.filter(grant::Column::Study.eq(study.as_str()));
        }
        let rows = rows.all(&tx).await?;
        tx.commit().await?;
        let grants = rows.into_iter().map(rule).collect::<Result<_, _>>()?;
        Ok(PolicySnapshot { epoch, memberships, grants })
    }
}

async fn epoch(db: &impl ConnectionTrait) -> Result<u64, StoreError> {
    let row = policy_epoch::Entity::find_by_id(1).one(db).await?;
    let row = row.ok_or_else(|| damaged("the policy epoch", "row"))?;
    u64::try_from(row.epoch).map_err(|_| damaged("the policy epoch", "number"))
}

fn rule(row: grant::Model) -> Result<GrantRule, StoreError> {
    let grant = grant_record(row)?;
    Ok(GrantRule {
        grant: grant.id,
        grantee: grant.grantee,
        study: grant.study,
        dataset: grant.dataset,
        not_before: grant.not_before,
        not_after: grant.not_after,
    })
}
