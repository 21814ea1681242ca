//! Objects: files in datasets, and the deposits that bring them.

use model::{BackendId, DatasetId, ObjectId, Timestamp};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder};

use super::{Store, insert, update};
use crate::entity::object::{Column, Entity, Model};
use crate::error::StoreError;
use crate::records::{Object, ObjectState, TransitionError};
use crate::text;

const PENDING: &str = "pending";
const STORED: &str = "stored";
const ABANDONED: &str = "abandoned";

impl Store {
    /// Records an object at the beginning of its deposit. Its name must be free in the dataset.
    pub async fn create_object(&self, object: &Object) -> Result<(), StoreError> {
        let tx = self.write().await?;
        let what = format!("{} of {}", object.name, object.dataset);
        insert(&tx, &what, row(object)?).await?;
        tx.commit().await?;
        Ok(())
    }

    /// An object, if on record.
    pub async fn object(&self, id: &ObjectId) -> Result<Option<Object>, StoreError> {
        find(&self.readers, id).await
    }

    /// The objects of a dataset by name, those that can be read and those on their way.
    pub async fn objects(&self, dataset: &DatasetId) -> Result<Vec<Object>, StoreError> {
        let rows = Entity::find()
            .filter(Column::Dataset.eq(dataset.as_str()))
            .filter(Column::State.ne(ABANDONED))
            .order_by_asc(Column::Name)
            .all(&self.readers)
            .await?;
        rows.into_iter().map(record).collect()
    }

    /// Completes a deposit: from here on the object can be read. `size` is in bytes; its shares lie on
    /// `backends`.
    pub async fn complete_object(
        &self,
        id: &ObjectId,
        size: u64,
        manifest_root: [u8; 32],
        backends: &[BackendId],
        at: Timestamp,
    ) -> Result<Object, StoreError> {
        self.change_object(id, backends, |state| state.store(size, manifest_root, at)).await
    }

    /// Gives a deposit up, which frees its name.
    pub async fn abandon_object(&self, id: &ObjectId, at: Timestamp) -> Result<Object, StoreError> {
        self.change_object(id, &[], |state| state.abandon(at)).await
    }

    /// Gives up every deposit that is pending (after a restart none is under way); how many.
    pub async fn abandon_pending(&self, at: Timestamp) -> Result<u64, StoreError> {
        let tx = self.write().await?;
        let done = Entity::update_many()
            .col_expr(Column::State, Expr::value(ABANDONED))
            .col_expr(Column::SettledAt, Expr::value(at.as_millis()))
            .filter(Column::State.eq(PENDING))
            .exec(&tx)
            .await?;
        tx.commit().await?;
        Ok(done.rows_affected)
    }

    async fn change_object(
        &self,
        id: &ObjectId,
        backends: &[BackendId],
        change: impl FnOnce(ObjectState) -> Result<ObjectState, TransitionError>,
    ) -> Result<Object, StoreError> {
        let tx = self.write().await?;
        let object = find(&tx, id).await?.ok_or_else(|| StoreError::NotFound(id.to_string()))?;
        let state = change(object.state.clone());
        let state = state.map_err(|source| StoreError::Transition { what: id.to_string(), source })?;
        let object = Object { state, backends: backends.to_vec(), ..object };
        update(&tx, id.as_str(), row(&object)?).await?;
        tx.commit().await?;
        Ok(object)
    }
}

async fn find(db: &impl ConnectionTrait, id: &ObjectId) -> Result<Option<Object>, StoreError> {
    let row = Entity::find_by_id(id.as_str()).one(db).await?;
    row.map(record).transpose()
}

fn row(object: &Object) -> Result<Model, StoreError> {
    let (state, size, manifest_root, settled_at) = match &object.state {
        ObjectState::Pending => (PENDING, None, None, None),
        ObjectState::Stored { size, manifest_root, at } => {
            (STORED, Some(*size), Some(text::hex(manifest_root)), Some(*at))
        }
        ObjectState::Abandoned { at } => (ABANDONED, None, None, Some(*at)),
    };
    let size = size.map(i64::try_from).transpose();
    Ok(Model {
        id: object.id.to_string(),
        dataset: object.dataset.to_string(),
        name: object.name.clone(),
        deposited_by: object.deposited_by.to_string(),
        begun_at: object.begun_at.as_millis(),
        state: state.to_owned(),
        size: size.map_err(|_| StoreError::Conflict(format!("{} is too large to record", object.name)))?,
        manifest_root,
        settled_at: settled_at.map(Timestamp::as_millis),
        backends: if object.backends.is_empty() { None } else { Some(text::json(&object.backends)?) },
    })
}

fn record(row: Model) -> Result<Object, StoreError> {
    let what = row.id.as_str();
    let settled_at = || text::required(what, row.settled_at).map(text::at);
    let state = match row.state.as_str() {
        PENDING => ObjectState::Pending,
        STORED => ObjectState::Stored {
            size: u64::try_from(text::required(what, row.size)?).map_err(|_| text::damaged(what, "size"))?,
            manifest_root: text::from_hex(what, &text::required(what, row.manifest_root.clone())?)?,
            at: settled_at()?,
        },
        ABANDONED => ObjectState::Abandoned { at: settled_at()? },
        _ => return Err(text::damaged(what, "state")),
    };
    Ok(Object {
        id: text::id(what, &row.id)?,
        dataset: text::id(what, &row.dataset)?,
        deposited_by: text::id(what, &row.deposited_by)?,
        begun_at: text::at(row.begun_at),
        backends: match &row.backends {
            Some(backends) => text::from_json(what, backends)?,
            None => Vec::new(),
        },
        state,
        name: row.name.clone(),
    })
}
