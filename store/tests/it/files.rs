//! Files of records: who may read them, which are refused.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sea_orm::{ConnectionTrait, Database, DatabaseConnection, Statement};
use store::{OpenError, Store};

async fn raw(path: &Path) -> DatabaseConnection {
    Database::connect(format!("sqlite://{}?mode=rwc", path.display())).await.unwrap()
}

async fn text(db: &DatabaseConnection, query: &str) -> String {
    let statement = Statement::from_string(db.get_database_backend(), query);
    db.query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

#[tokio::test]
async fn a_file_is_private_and_opens_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.sqlite");
    let store = Store::open(&path).await.unwrap();
    let epoch = store.policy_epoch().await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let again = Store::open(&path).await.unwrap();
    assert_eq!(again.policy_epoch().await.unwrap(), epoch);
    again.close().await.unwrap();
    store.close().await.unwrap();
    let db = raw(&path).await;
    assert_eq!(text(&db, "PRAGMA journal_mode").await, "wal");
    assert_eq!(text(&db, "PRAGMA integrity_check").await, "ok");
}

#[tokio::test]
async fn a_database_of_a_later_version_is_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.sqlite");
    Store::open(&path).await.unwrap().close().await.unwrap();
    let db = raw(&path).await;
    db.execute_unprepared("INSERT INTO schema_version (version) VALUES (99)").await.unwrap();
    db.close().await.unwrap();
    let refused = Store::open(&path).await;
    let Err(error @ OpenError::Newer { found: 99, .. }) = refused else { panic!("{refused:?}") };
    assert!(error.to_string().contains("install the newer program"), "{error}");
}

#[tokio::test]
async fn a_step_that_fails_is_not_half_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.sqlite");
    // A table in the way makes the first step fail after it has made others.
    let db = raw(&path).await;
    db.execute_unprepared("CREATE TABLE session (x TEXT)").await.unwrap();
    db.close().await.unwrap();
    assert!(matches!(Store::open(&path).await, Err(OpenError::Database(_))));
    let db = raw(&path).await;
    let tables = text(&db, "SELECT group_concat(name) FROM sqlite_master WHERE type = 'table'").await;
    assert_eq!(tables, "session,schema_version");
    db.execute_unprepared("DROP TABLE session").await.unwrap();
    db.close().await.unwrap();
    Store::open(&path).await.unwrap();
}

#[tokio::test]
async fn what_is_no_database_and_what_cannot_be_reached_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.sqlite");
    std::fs::write(&path, "this is a letter, not a database, and longer than its header").unwrap();
    assert!(matches!(Store::open(&path).await, Err(OpenError::Database(_))));
    let missing = folder.path().join("no such folder").join("records.sqlite");
    assert!(matches!(Store::open(&missing).await, Err(OpenError::File { .. })));
}

#[tokio::test]
async fn a_damaged_record_is_named_and_not_guessed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.sqlite");
    let store = Store::open(&path).await.unwrap();
    let db = raw(&path).await;
    db.execute_unprepared("INSERT INTO dataset VALUES ('ds:wgs', 'x', 'not a list')").await.unwrap();
    let error = store.datasets().await.unwrap_err();
    assert!(error.to_string().contains("ds:wgs"), "{error}");
}
