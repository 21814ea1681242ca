//! One-time enrolment tokens.

use model::Timestamp;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use super::{Store, insert};
use crate::entity::enrolment_token::{Column, Entity, Model};
use crate::error::{StoreError, TakeError};
use crate::records::{EnrolmentToken, TokenSubject};
use crate::text;

impl Store {
    /// Records a token by the hash of its secret.
    pub async fn create_token(&self, token: &EnrolmentToken) -> Result<(), StoreError> {
        let row = Model {
            hash: text::hex(&token.hash),
            subject: match &token.subject {
                TokenSubject::Person(person) => person.to_string(),
                TokenSubject::Agent(agent) => agent.to_string(),
            },
            expires: token.expires.as_millis(),
            used_at: None,
        };
        let tx = self.write().await?;
        insert(&tx, "this token", row).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Takes a token: of any number of callers at most one receives its subject, ever.
    pub async fn take_token(&self, hash: &[u8; 32], now: Timestamp) -> Result<TokenSubject, TakeError> {
        let tx = self.write().await?;
        // The update is the test: it meets a row only while the token is unused and not expired.
        let taken = Entity::update_many()
            .col_expr(Column::UsedAt, Expr::value(now.as_millis()))
            .filter(Column::Hash.eq(text::hex(hash)))
            .filter(Column::UsedAt.is_null())
            .filter(Column::Expires.gt(now.as_millis()))
            .exec(&tx)
            .await
            .map_err(StoreError::from)?;
        let row = Entity::find_by_id(text::hex(hash)).one(&tx).await.map_err(StoreError::from)?;
        let row = row.ok_or(TakeError::Unknown)?;
        if taken.rows_affected != 1 {
            return Err(if row.used_at.is_some() { TakeError::Used } else { TakeError::Expired });
        }
        let subject = subject(&row.subject)?;
        tx.commit().await.map_err(StoreError::from)?;
        Ok(subject)
    }
}

fn subject(text: &str) -> Result<TokenSubject, StoreError> {
    if text.starts_with(model::AgentId::PREFIX) {
        Ok(TokenSubject::Agent(text::id("a token", text)?))
    } else {
        Ok(TokenSubject::Person(text::id("a token", text)?))
    }
}
