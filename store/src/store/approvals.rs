//! What takes a second officer.

use model::{ApprovalId, PersonId, Timestamp};
use policy::Matter;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use super::{Store, insert, update};
use crate::approval::{Approval, ApprovalState};
use crate::entity::approval::{Column, Entity, Model};
use crate::error::StoreError;
use crate::records::TransitionError;
use crate::text;

impl Store {
    /// Records that something was asked for.
    pub async fn ask_approval(&self, approval: &Approval) -> Result<(), StoreError> {
        let tx = self.write().await?;
        insert(&tx, approval.id.as_str(), row(approval)).await?;
        tx.commit().await?;
        Ok(())
    }

    /// A request.
    pub async fn approval(&self, id: &ApprovalId) -> Result<Option<Approval>, StoreError> {
        find(&self.readers, id).await
    }

    /// Requests, newest first, at most `max`.
    pub async fn approvals(&self, max: u64) -> Result<Vec<Approval>, StoreError> {
        let rows = Entity::find().order_by_desc(Column::AskedAt).order_by_asc(Column::Id).limit(max);
        rows.all(&self.readers).await?.into_iter().map(record).collect()
    }

    /// How many requests of a person wait for an answer at `now`.
    pub async fn approvals_waiting(&self, by: &PersonId, now: Timestamp) -> Result<usize, StoreError> {
        let rows = open(now).filter(Column::AskedBy.eq(by.as_str())).filter(Column::State.eq("asked"));
        Ok(rows.all(&self.readers).await?.len())
    }

    /// The request of a person for exactly this that is open at `now`, the approved ones first.
    pub async fn open_approval(
        &self,
        by: &PersonId,
        matter: Matter,
        what: &str,
        now: Timestamp,
    ) -> Result<Option<Approval>, StoreError> {
        let row = open(now)
            .filter(Column::AskedBy.eq(by.as_str()))
            .filter(Column::Matter.eq(matter.name()))
            .filter(Column::What.eq(what))
            // "approved" comes before "asked".
            .order_by_asc(Column::State)
            .order_by_asc(Column::AskedAt)
            .one(&self.readers)
            .await?;
        row.map(record).transpose()
    }

    /// Changes what became of a request: of two who change it at once, one finds it changed.
    pub async fn change_approval(
        &self,
        id: &ApprovalId,
        change: impl FnOnce(ApprovalState) -> Result<ApprovalState, TransitionError>,
    ) -> Result<Approval, StoreError> {
        let tx = self.write().await?;
        let approval = find(&tx, id).await?.ok_or_else(|| StoreError::NotFound(id.to_string()))?;
        let state = change(approval.state);
        let state = state.map_err(|source| StoreError::Transition { what: id.to_string(), source })?;
        let approval = Approval { state, ..approval };
        update(&tx, id.as_str(), row(&approval)).await?;
        tx.commit().await?;
        Ok(approval)
    }
}

/// Those that can still come to something.
fn open(now: Timestamp) -> sea_orm::Select<Entity> {
    let found = Entity::find().filter(Column::Expires.gt(now.as_millis()));
    found.filter(Column::State.is_in(["asked", "approved"]))
}

async fn find(db: &impl ConnectionTrait, id: &ApprovalId) -> Result<Option<Approval>, StoreError> {
    let row = Entity::find_by_id(id.as_str()).one(db).await?;
    row.map(record).transpose()
}

fn row(approval: &Approval) -> Model {
    let (by, at, reason) = match &approval.state {
        ApprovalState::Asked => (None, None, None),
        ApprovalState::Approved { by, at } | ApprovalState::Used { by, at } => (Some(by), Some(at), None),
        ApprovalState::Refused { by, at, reason } => (Some(by), Some(at), Some(reason.clone())),
    };
    Model {
        id: approval.id.to_string(),
        matter: approval.matter.name().to_owned(),
        what: approval.what.clone(),
        asked_by: approval.asked_by.to_string(),
        asked_at: approval.asked_at.as_millis(),
        expires: approval.expires.as_millis(),
        state: approval.state.code().to_owned(),
        decided_by: by.map(ToString::to_string),
        decided_at: at.map(|at| at.as_millis()),
        reason,
    }
}

fn record(row: Model) -> Result<Approval, StoreError> {
    let what = row.id.as_str();
    let by = || text::id::<PersonId>(what, &text::required(what, row.decided_by.clone())?);
    let at = || Ok::<_, StoreError>(text::at(text::required(what, row.decided_at)?));
    let state = match row.state.as_str() {
        "asked" => ApprovalState::Asked,
        "approved" => ApprovalState::Approved { by: by()?, at: at()? },
        "used" => ApprovalState::Used { by: by()?, at: at()? },
        "refused" => {
            ApprovalState::Refused { by: by()?, at: at()?, reason: text::required(what, row.reason.clone())? }
        }
        _ => return Err(text::damaged(what, "state")),
    };
    Ok(Approval {
        id: text::id(what, &row.id)?,
        matter: row.matter.parse().map_err(|_| text::damaged(what, "matter"))?,
        asked_by: text::id(what, &row.asked_by)?,
        asked_at: text::at(row.asked_at),
        expires: text::at(row.expires),
        state,
        what: row.what,
    })
}
