use std::path::Path;
use std::time::Duration;

use sea_orm::{
    ActiveModelTrait, ActiveValue, ConnectOptions, Database, DatabaseConnection, DatabaseTransaction,
    EntityTrait, IntoActiveModel, SqliteTransactionMode, TransactionOptions, TransactionTrait,
};

use crate::error::{OpenError, StoreError};
use crate::migration::migrate;
use crate::text::damaged;

mod access;
mod agents;
mod approvals;
mod decoys;
mod kept;
mod objects;
mod people;
mod policy;
mod recordings;
mod sessions;
mod tokens;
mod workspaces;

pub use recordings::RecordingFilter;

/// How long a call waits for the database before it fails.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many calls read at a time.
const READERS: u32 = 4;

/// The records. Cheap to clone; clones share the connections.
#[derive(Debug, Clone)]
pub struct Store {
    /// One connection: SQLite has one writer, and waiting here is fairer than waiting there.
    writer: DatabaseConnection,
    readers: DatabaseConnection,
}

impl Store {
    /// Opens the records in a file, creates it if there is none, and brings it to the latest version.
    pub async fn open(path: &Path) -> Result<Store, OpenError> {
        create_private(path)
            .map_err(|source| OpenError::File { path: path.display().to_string(), source })?;
        let writer = connect(Some(path), 1).await?;
        migrate(&writer).await?;
        let readers = connect(Some(path), READERS).await?;
        Ok(Store { writer, readers })
    }

    /// Records that are gone with the last clone, for tests.
    pub async fn in_memory() -> Result<Store, OpenError> {
        let writer = connect(None, 1).await?;
        migrate(&writer).await?;
        Ok(Store { readers: writer.clone(), writer })
    }

    /// Closes the connections after what is under way, so that the log is folded into the file.
    pub async fn close(self) -> Result<(), StoreError> {
        self.readers.close().await?;
        self.writer.close().await?;
        Ok(())
    }

    /// A transaction that writes. What is not committed is rolled back when it is dropped.
    async fn write(&self) -> Result<DatabaseTransaction, StoreError> {
        let sqlite_transaction_mode = Some(SqliteTransactionMode::Immediate);
        let options = TransactionOptions { sqlite_transaction_mode, ..TransactionOptions::default() };
        Ok(self.writer.begin_with_options(options).await?)
    }
}

/// The database's file holds who may do what: others on the machine have no business in it.
fn create_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path).map(drop)
}

async fn connect(path: Option<&Path>, connections: u32) -> Result<DatabaseConnection, OpenError> {
    let mut options = ConnectOptions::new("sqlite::memory:");
    options.max_connections(connections).min_connections(1).acquire_timeout(PATIENCE);
    options.sqlx_logging(false).record_stmt_in_spans(false);
    // A connection that is closed takes a database in memory with it.
    options.idle_timeout(None::<Duration>).max_lifetime(None::<Duration>);
    let path = path.map(Path::to_owned);
    options.map_sqlx_sqlite_opts(move |sqlite| {
        let sqlite = match &path {
            Some(path) => sqlite.in_memory(false).shared_cache(false).filename(path),
            None => sqlite,
        };
        sqlite
            .pragma("journal_mode", "WAL")
            .pragma("synchronous", "FULL")
            .pragma("trusted_schema", "OFF")
            .foreign_keys(true)
            .busy_timeout(PATIENCE)
    });
    Database::connect(options).await.map_err(OpenError::Database)
}

/// Writes a new row; `what` is how a person calls it.
async fn insert<M, A>(tx: &DatabaseTransaction, what: &str, model: M) -> Result<(), StoreError>
where
    M: IntoActiveModel<A>,
    A: ActiveModelTrait + Send,
{
    <A::Entity as EntityTrait>::insert(model.into_active_model())
        .exec_without_returning(tx)
        .await
        .map(drop)
        .map_err(|e| StoreError::writing(what, e))
}

/// Writes every column of a row that exists.
async fn update<M, A>(tx: &DatabaseTransaction, what: &str, model: M) -> Result<(), StoreError>
where
    M: IntoActiveModel<A>,
    A: ActiveModelTrait + sea_orm::ActiveModelBehavior + Send,
    <A::Entity as EntityTrait>::Model: IntoActiveModel<A>,
{
    let row = model.into_active_model().reset_all();
    row.update(tx).await.map(drop).map_err(|e| StoreError::writing(what, e))
}

/// Counts the policy epoch up, in the transaction of the change; the new number.
async fn bump(tx: &DatabaseTransaction) -> Result<u64, StoreError> {
    use crate::entity::policy_epoch::{ActiveModel, Entity};
    let row = Entity::find_by_id(1).one(tx).await?.ok_or_else(|| damaged("the policy epoch", "row"))?;
    let next = row.epoch.checked_add(1).ok_or_else(|| damaged("the policy epoch", "number"))?;
    let row = ActiveModel { id: ActiveValue::Unchanged(1), epoch: ActiveValue::Set(next) };
    row.update(tx).await?;
    u64::try_from(next).map_err(|_| damaged("the policy epoch", "number"))
}

#[cfg(test)]
mod tests {
    use sea_orm::{ConnectionTrait, Statement};

    use super::*;

    async fn pragma(db: &DatabaseConnection, name: &str) -> i64 {
        let statement = Statement::from_string(db.get_database_backend(), format!("PRAGMA {name}"));
        db.query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap()
    }

    #[tokio::test]
    async fn every_connection_is_set_up_to_be_durable_and_strict() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("records.sqlite")).await.unwrap();
        for db in [&store.writer, &store.readers] {
            assert_eq!(pragma(db, "synchronous").await, 2, "FULL");
            assert_eq!(pragma(db, "foreign_keys").await, 1);
            assert_eq!(pragma(db, "busy_timeout").await, 10_000);
            assert_eq!(pragma(db, "trusted_schema").await, 0);
        }
    }

    #[tokio::test]
    async fn a_write_that_is_given_up_leaves_the_connection_free() {
        let store = Store::in_memory().await.unwrap();
        let before = store.policy_epoch().await.unwrap();
        let tx = store.write().await.unwrap();
        bump(&tx).await.unwrap();
        drop(tx);
        assert_eq!(store.policy_epoch().await.unwrap(), before);
    }
}
