//! Workspaces: whose they are, and where they lie.

use model::{PersonId, StudyId, Timestamp, WorkspaceId};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, ModelTrait, QueryFilter, QueryOrder, Select};

use super::{Store, insert, update};
use crate::entity::workspace::{Column, Entity, Model};
use crate::error::StoreError;
use crate::records::{Claim, Workspace, WorkspaceState};
use crate::text;

impl Store {
    /// Notes that a workspace is entered, and records it first if it is new and its person has fewer
    /// than `most` in the study.
    pub async fn claim_workspace(&self, asked: &Workspace, most: u64) -> Result<Claim, StoreError> {
        let tx = self.write().await?;
        let claim = match find(&tx, &asked.id).await? {
            Some(known) => {
                let entered = Workspace { used_at: known.used_at.max(asked.used_at), ..known.clone() };
                update(&tx, asked.id.as_str(), row(&entered)).await?;
                Claim::Known(known)
            }
            None => {
                let own = Entity::find()
                    .filter(Column::Person.eq(asked.person.as_str()))
                    .filter(Column::Study.eq(asked.study.as_str()));
                let have = own.all(&tx).await?.len() as u64;
                if have >= most {
                    return Ok(Claim::TooMany(have));
                }
                insert(&tx, asked.id.as_str(), row(asked)).await?;
                Claim::Made
            }
        };
        tx.commit().await?;
        Ok(claim)
    }

    /// A workspace, if on record.
    pub async fn workspace(&self, id: &WorkspaceId) -> Result<Option<Workspace>, StoreError> {
        find(&self.readers, id).await
    }

    /// The workspaces of a person in all studies, by study and name.
    pub async fn workspaces_of(&self, person: &PersonId) -> Result<Vec<Workspace>, StoreError> {
        self.list(Entity::find().filter(Column::Person.eq(person.as_str()))).await
    }

    /// The workspaces of a study, by person and name.
    pub async fn workspaces_in(&self, study: &StudyId) -> Result<Vec<Workspace>, StoreError> {
        self.list(Entity::find().filter(Column::Study.eq(study.as_str()))).await
    }

    /// Every workspace, by study, person and name.
    pub async fn workspaces(&self) -> Result<Vec<Workspace>, StoreError> {
        self.list(Entity::find()).await
    }

    /// Stops a workspace until it is let go on, whoever held it before.
    pub async fn hold_workspace(
        &self,
        id: &WorkspaceId,
        at: Timestamp,
        by: &PersonId,
        reason: &str,
    ) -> Result<(), StoreError> {
        let held = WorkspaceState::Held { at, by: by.clone(), reason: reason.to_owned() };
        self.change_workspace(id, held).await
    }

    /// Lets a workspace go on.
    pub async fn release_workspace(&self, id: &WorkspaceId) -> Result<(), StoreError> {
        self.change_workspace(id, WorkspaceState::Open).await
    }

    /// Forgets a workspace.
    pub async fn remove_workspace(&self, id: &WorkspaceId) -> Result<(), StoreError> {
        let tx = self.write().await?;
        let found = Entity::find_by_id(id.as_str()).one(&tx).await?;
        found.ok_or_else(|| StoreError::NotFound(id.to_string()))?.delete(&tx).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn change_workspace(&self, id: &WorkspaceId, state: WorkspaceState) -> Result<(), StoreError> {
        let tx = self.write().await?;
        let known = find(&tx, id).await?.ok_or_else(|| StoreError::NotFound(id.to_string()))?;
        update(&tx, id.as_str(), row(&Workspace { state, ..known })).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn list(&self, which: Select<Entity>) -> Result<Vec<Workspace>, StoreError> {
        let ordered =
            which.order_by_asc(Column::Study).order_by_asc(Column::Person).order_by_asc(Column::Name);
        ordered.all(&self.readers).await?.into_iter().map(record).collect()
    }
}

async fn find(db: &impl ConnectionTrait, id: &WorkspaceId) -> Result<Option<Workspace>, StoreError> {
    let row = Entity::find_by_id(id.as_str()).one(db).await?;
    row.map(record).transpose()
}

fn row(workspace: &Workspace) -> Model {
    let (held_at, held_by, held_reason) = match &workspace.state {
        WorkspaceState::Open => (None, None, None),
        WorkspaceState::Held { at, by, reason } => {
            (Some(at.as_millis()), Some(by.to_string()), Some(reason.clone()))
        }
    };
    Model {
        id: workspace.id.to_string(),
        study: workspace.study.to_string(),
        person: workspace.person.to_string(),
        name: workspace.name.to_string(),
        agent: workspace.agent.to_string(),
        created_at: workspace.created_at.as_millis(),
        used_at: workspace.used_at.as_millis(),
        held_at,
        held_by,
        held_reason,
    }
}

fn record(row: Model) -> Result<Workspace, StoreError> {
    let what = row.id.as_str();
    let state = match row.held_at {
        None => WorkspaceState::Open,
        Some(at) => WorkspaceState::Held {
            at: text::at(at),
            by: text::id(what, &text::required(what, row.held_by)?)?,
            reason: text::required(what, row.held_reason)?,
        },
    };
    Ok(Workspace {
        id: text::id(what, &row.id)?,
        study: text::id(what, &row.study)?,
        person: text::id(what, &row.person)?,
        name: text::id(what, &row.name)?,
        agent: text::id(what, &row.agent)?,
        created_at: text::at(row.created_at),
        used_at: text::at(row.used_at),
        state,
    })
}
