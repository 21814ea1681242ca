//! Decoys: things laid out to be touched by whoever should not.

use model::DecoyId;
use sea_orm::{EntityTrait, QueryOrder};

use super::{Store, insert};
use crate::entity::decoy::{Column, Entity, Model};
use crate::error::StoreError;
use crate::records::{Decoy, DecoyKind};
use crate::text;

impl Store {
    /// Records a decoy. One thing is one decoy.
    pub async fn add_decoy(&self, decoy: &Decoy) -> Result<(), StoreError> {
        let row = Model {
            id: decoy.id.to_string(),
            kind: decoy.kind.code().to_owned(),
            what: decoy.what.clone(),
            note: decoy.note.clone(),
            added_at: decoy.added_at.as_millis(),
            added_by: decoy.added_by.to_string(),
        };
        let tx = self.write().await?;
        insert(&tx, "this decoy", row).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Forgets a decoy; it is an ordinary thing again.
    pub async fn remove_decoy(&self, id: &DecoyId) -> Result<(), StoreError> {
        let tx = self.write().await?;
        let gone = Entity::delete_by_id(id.as_str()).exec(&tx).await?;
        if gone.rows_affected == 0 {
            return Err(StoreError::NotFound(id.to_string()));
        }
        tx.commit().await?;
        Ok(())
    }

    /// Every decoy, oldest first.
    pub async fn decoys(&self) -> Result<Vec<Decoy>, StoreError> {
        let rows = Entity::find().order_by_asc(Column::AddedAt).order_by_asc(Column::Id);
        rows.all(&self.readers).await?.into_iter().map(record).collect()
    }
}

fn record(row: Model) -> Result<Decoy, StoreError> {
    Ok(Decoy {
        kind: DecoyKind::from_code(&row.kind).ok_or_else(|| text::damaged(&row.id, "kind"))?,
        added_at: text::at(row.added_at),
        added_by: text::id(&row.id, &row.added_by)?,
        id: text::id("a decoy", &row.id)?,
        what: row.what,
        note: row.note,
    })
}
