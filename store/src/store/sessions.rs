//! Sessions.

use model::{SessionId, Timestamp};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use super::{Store, insert, update};
use crate::entity::session::{Column, Entity, Model};
use crate::error::StoreError;
use crate::records::{Session, SessionState};
use crate::text;

impl Store {
    /// Records a session that begins.
    pub async fn open_session(&self, session: &Session) -> Result<(), StoreError> {
        let tx = self.write().await?;
        insert(&tx, session.id.as_str(), row(session)).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Records how a session ended.
    pub async fn close_session(
        &self,
        id: &SessionId,
        at: Timestamp,
        outcome: &str,
    ) -> Result<(), StoreError> {
        let tx = self.write().await?;
        let found = Entity::find_by_id(id.as_str()).one(&tx).await?;
        let session = record(found.ok_or_else(|| StoreError::NotFound(id.to_string()))?)?;
        let state = session.state.close(at, outcome.to_owned());
        let state = state.map_err(|source| StoreError::Transition { what: id.to_string(), source })?;
        update(&tx, id.as_str(), row(&Session { state, ..session })).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Closes every session that is open (after a restart none goes on); how many.
    pub async fn close_open_sessions(&self, at: Timestamp, outcome: &str) -> Result<u64, StoreError> {
        let tx = self.write().await?;
        let done = Entity::update_many()
            .col_expr(Column::ClosedAt, Expr::value(at.as_millis()))
            .col_expr(Column::Outcome, Expr::value(outcome))
            .filter(Column::ClosedAt.is_null())
            .exec(&tx)
            .await?;
        tx.commit().await?;
        Ok(done.rows_affected)
    }

    /// A session, if on record.
    pub async fn session(&self, id: &SessionId) -> Result<Option<Session>, StoreError> {
        let row = Entity::find_by_id(id.as_str()).one(&self.readers).await?;
        row.map(record).transpose()
    }

    /// The latest sessions, newest first, at most `limit`.
    pub async fn sessions(&self, limit: u64) -> Result<Vec<Session>, StoreError> {
        let rows = Entity::find()
            .order_by_desc(Column::Opened)
            .order_by_asc(Column::Id)
            .limit(limit)
            .all(&self.readers)
            .await?;
        rows.into_iter().map(record).collect()
    }

    /// The sessions that go on, oldest first.
    pub async fn open_sessions(&self) -> Result<Vec<Session>, StoreError> {
        let rows = Entity::find()
            .filter(Column::ClosedAt.is_null())
            .order_by_asc(Column::Opened)
            .order_by_asc(Column::Id)
            .all(&self.readers)
            .await?;
        rows.into_iter().map(record).collect()
    }
}

fn row(session: &Session) -> Model {
    let (closed_at, outcome) = match &session.state {
        SessionState::Open => (None, None),
        SessionState::Closed { at, outcome } => (Some(at.as_millis()), Some(outcome.clone())),
    };
    Model {
        id: session.id.to_string(),
        person: session.person.to_string(),
        study: session.study.to_string(),
        agent: session.agent.to_string(),
        opened: session.opened.as_millis(),
        closed_at,
        outcome,
    }
}

fn record(row: Model) -> Result<Session, StoreError> {
    let what = row.id.as_str();
    let state = match row.closed_at {
        None => SessionState::Open,
        Some(at) => {
            SessionState::Closed { at: text::at(at), outcome: text::required(what, row.outcome.clone())? }
        }
    };
    Ok(Session {
        id: text::id(what, &row.id)?,
        person: text::id(what, &row.person)?,
        study: text::id(what, &row.study)?,
        agent: text::id(what, &row.agent)?,
        opened: text::at(row.opened),
        state,
    })
}
