//! Agents.

use model::{AgentId, Timestamp};
use sea_orm::{ConnectionTrait, EntityTrait, QueryOrder};

use super::{Store, insert, update};
use crate::entity::agent::{Column, Entity, Model};
use crate::error::StoreError;
use crate::records::{Agent, AgentState};
use crate::text;

impl Store {
    /// Records an agent as enrolled, or enrols one anew that is on record.
    pub async fn enrol_agent(&self, id: &AgentId, at: Timestamp) -> Result<(), StoreError> {
        let tx = self.write().await?;
        let enrolled = Agent {
            id: id.clone(),
            enrolled_at: at,
            last_seen: None,
            draining_since: None,
            state: AgentState::Active,
        };
        match find(&tx, id).await? {
            None => insert(&tx, id.as_str(), row(&enrolled)).await?,
            Some(before) => {
                let again = Agent { last_seen: before.last_seen, ..enrolled };
                update(&tx, id.as_str(), row(&again)).await?;
            }
        }
        tx.commit().await?;
        Ok(())
    }

    /// Notes that an agent was connected; the time never goes back.
    pub async fn agent_seen(&self, id: &AgentId, at: Timestamp) -> Result<(), StoreError> {
        self.change_agent(id, |agent| Ok(Agent { last_seen: agent.last_seen.max(Some(at)), ..agent })).await
    }

    /// Trusts an agent no longer.
    pub async fn retire_agent(&self, id: &AgentId, at: Timestamp) -> Result<(), StoreError> {
        self.change_agent(id, |agent| {
            let state = agent.state.retire(at);
            let state = state.map_err(|source| StoreError::Transition { what: id.to_string(), source })?;
            Ok(Agent { state, ..agent })
        })
        .await
    }

    /// Notes that an agent takes no new work since then, or that it does again.
    pub async fn drain_agent(&self, id: &AgentId, since: Option<Timestamp>) -> Result<(), StoreError> {
        self.change_agent(id, |agent| Ok(Agent { draining_since: since, ..agent })).await
    }

    /// An agent, if on record.
    pub async fn agent(&self, id: &AgentId) -> Result<Option<Agent>, StoreError> {
        find(&self.readers, id).await
    }

    /// Every agent, by identifier.
    pub async fn agents(&self) -> Result<Vec<Agent>, StoreError> {
        let rows = Entity::find().order_by_asc(Column::Id).all(&self.readers).await?;
        rows.into_iter().map(record).collect()
    }

    async fn change_agent(
        &self,
        id: &AgentId,
        change: impl FnOnce(Agent) -> Result<Agent, StoreError>,
    ) -> Result<(), StoreError> {
        let tx = self.write().await?;
        let agent = find(&tx, id).await?.ok_or_else(|| StoreError::NotFound(id.to_string()))?;
        update(&tx, id.as_str(), row(&change(agent)?)).await?;
        tx.commit().await?;
        Ok(())
    }
}

async fn find(db: &impl ConnectionTrait, id: &AgentId) -> Result<Option<Agent>, StoreError> {
    let row = Entity::find_by_id(id.as_str()).one(db).await?;
    row.map(record).transpose()
}

fn row(agent: &Agent) -> Model {
    let retired_at = match agent.state {
        AgentState::Active => None,
        AgentState::Retired { at } => Some(at.as_millis()),
    };
    Model {
        id: agent.id.to_string(),
        enrolled_at: agent.enrolled_at.as_millis(),
        last_seen: agent.last_seen.map(Timestamp::as_millis),
        retired_at,
        draining_since: agent.draining_since.map(Timestamp::as_millis),
    }
}

fn record(row: Model) -> Result<Agent, StoreError> {
    let state = match row.retired_at {
        None => AgentState::Active,
        Some(at) => AgentState::Retired { at: text::at(at) },
    };
    Ok(Agent {
        id: text::id("an agent", &row.id)?,
        enrolled_at: text::at(row.enrolled_at),
        last_seen: row.last_seen.map(text::at),
        draining_since: row.draining_since.map(text::at),
        state,
    })
}
