//! The shape of the database, step by step. A step that was released never changes.

use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr, Statement, TransactionTrait};

use crate::error::OpenError;

/// Statement by statement, since some drivers take one at a time; SQL that SQLite and PostgreSQL
/// both take.
const STEPS: &[&[&str]] =
    &[FIRST, DECOYS, CHANNELS, RECORDINGS, SUPERVISION, KEPT, WORKSPACES, SEALED, APPROVALS];

/// What a study permits inside a connection; studies of before get what a new one begins with.
const CHANNELS: &[&str] = &["ALTER TABLE study ADD COLUMN channels TEXT NOT NULL
        DEFAULT '[\"shell\",\"exec\",\"terminal\",\"environment\",\"upload\"]'"];

/// How sessions are supervised; what is left away has its default.
const SUPERVISION: &[&str] = &["ALTER TABLE study ADD COLUMN supervision TEXT NOT NULL DEFAULT '{}'"];

/// How sessions are recorded (what is left away has its default), and what was.
const RECORDINGS: &[&str] = &[
    "ALTER TABLE study ADD COLUMN recording TEXT NOT NULL DEFAULT '{}'",
    "CREATE TABLE recording (
        session TEXT PRIMARY KEY REFERENCES session (id), person TEXT NOT NULL REFERENCES person (id),
        study TEXT NOT NULL REFERENCES study (id), command TEXT, begun BIGINT NOT NULL,
        millis BIGINT NOT NULL, events BIGINT NOT NULL, bytes BIGINT NOT NULL, sha256 TEXT NOT NULL,
        stored_bytes BIGINT NOT NULL, stored_sha256 TEXT NOT NULL, elided BIGINT NOT NULL,
        outcome TEXT NOT NULL CHECK (outcome IN ('whole', 'interrupted', 'degraded')),
        record BIGINT NOT NULL)",
    "CREATE INDEX recording_begun ON recording (begun)",
];

/// The house's own records as secret shares. One thing is kept once.
const KEPT: &[&str] = &["CREATE TABLE kept (
        object TEXT PRIMARY KEY, kind TEXT NOT NULL CHECK (kind IN ('audit-segment', 'session-recording')),
        subject TEXT NOT NULL UNIQUE, first BIGINT, count BIGINT, begun_at BIGINT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('pending', 'stored', 'kept', 'moving', 'moved')),
        since BIGINT NOT NULL, size BIGINT, sha256 TEXT, content_root TEXT, manifest_root TEXT,
        record BIGINT, settled_at BIGINT,
        CHECK (state = 'pending' OR (size IS NOT NULL AND sha256 IS NOT NULL AND manifest_root IS NOT NULL)))"];

/// Workspaces by name and where they lie, what studies let them use, agents out of service, and where
/// the shares of an object lie. What was recorded before has the limits of a new study.
const WORKSPACES: &[&str] = &[
    "CREATE TABLE workspace (
        id TEXT PRIMARY KEY, study TEXT NOT NULL REFERENCES study (id),
        person TEXT NOT NULL REFERENCES person (id), name TEXT NOT NULL,
        agent TEXT NOT NULL REFERENCES agent (id), created_at BIGINT NOT NULL, used_at BIGINT NOT NULL,
        held_at BIGINT, held_by TEXT, held_reason TEXT, UNIQUE (study, person, name))",
    "CREATE INDEX workspace_person ON workspace (person)",
    "ALTER TABLE study ADD COLUMN limits TEXT",
    "ALTER TABLE agent ADD COLUMN draining_since BIGINT",
    "ALTER TABLE object ADD COLUMN backends TEXT",
];

/// The record that seals a recording, beside where it stands in the log: that part may leave the house.
const SEALED: &[&str] = &[
    "ALTER TABLE recording ADD COLUMN entry TEXT NOT NULL DEFAULT ''",
    "CREATE INDEX recording_record ON recording (record)",
    "CREATE INDEX kept_state ON kept (kind, state)",
];

/// What takes a second officer.
const APPROVALS: &[&str] = &[
    "CREATE TABLE approval (
        id TEXT PRIMARY KEY, matter TEXT NOT NULL, what TEXT NOT NULL,
        asked_by TEXT NOT NULL REFERENCES person (id), asked_at BIGINT NOT NULL, expires BIGINT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('asked', 'approved', 'refused', 'used')),
        decided_by TEXT REFERENCES person (id), decided_at BIGINT, reason TEXT,
        CHECK (state = 'asked' OR (decided_by IS NOT NULL AND decided_at IS NOT NULL)),
        CHECK (state NOT IN ('approved', 'used') OR decided_by <> asked_by))",
    "CREATE INDEX approval_asked ON approval (asked_at)",
    "CREATE INDEX approval_by ON approval (asked_by, state)",
];

const FIRST: &[&str] = &[
    "CREATE TABLE policy_epoch (id BIGINT PRIMARY KEY CHECK (id = 1), epoch BIGINT NOT NULL)",
    "INSERT INTO policy_epoch (id, epoch) VALUES (1, 1)",
    "CREATE TABLE person (
        id TEXT PRIMARY KEY, display_name TEXT NOT NULL, roles TEXT NOT NULL, recorded_at BIGINT NOT NULL,
        locked_at BIGINT, locked_by TEXT, locked_reason TEXT)",
    "CREATE TABLE device_key (
        public_key TEXT PRIMARY KEY, person TEXT NOT NULL REFERENCES person (id),
        enrolled_at BIGINT NOT NULL, retired_at BIGINT)",
    "CREATE INDEX device_key_person ON device_key (person)",
    "CREATE TABLE enrolment_token (
        hash TEXT PRIMARY KEY, subject TEXT NOT NULL, expires BIGINT NOT NULL, used_at BIGINT)",
    "CREATE TABLE study (
        id TEXT PRIMARY KEY, title TEXT NOT NULL, purposes TEXT NOT NULL, until BIGINT NOT NULL,
        closed_at BIGINT)",
    "CREATE TABLE membership (
        person TEXT NOT NULL REFERENCES person (id), study TEXT NOT NULL REFERENCES study (id),
        role TEXT NOT NULL, PRIMARY KEY (person, study, role))",
    "CREATE INDEX membership_study ON membership (study)",
    "CREATE TABLE dataset (id TEXT PRIMARY KEY, title TEXT NOT NULL, conditions TEXT NOT NULL)",
    "CREATE TABLE object (
        id TEXT PRIMARY KEY, dataset TEXT NOT NULL REFERENCES dataset (id), name TEXT NOT NULL,
        deposited_by TEXT NOT NULL REFERENCES person (id), begun_at BIGINT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('pending', 'stored', 'abandoned')),
        size BIGINT, manifest_root TEXT, settled_at BIGINT,
        CHECK (state <> 'stored' OR (size IS NOT NULL AND manifest_root IS NOT NULL)))",
    "CREATE UNIQUE INDEX object_name ON object (dataset, name) WHERE state <> 'abandoned'",
    "CREATE TABLE data_grant (
        id TEXT PRIMARY KEY, study TEXT NOT NULL REFERENCES study (id),
        dataset TEXT NOT NULL REFERENCES dataset (id), grantee TEXT NOT NULL,
        not_before BIGINT NOT NULL, not_after BIGINT NOT NULL, granted_by TEXT NOT NULL REFERENCES person (id),
        revoked_at BIGINT, revoked_by TEXT, revoked_reason TEXT)",
    "CREATE INDEX data_grant_study ON data_grant (study)",
    "CREATE TABLE agent (
        id TEXT PRIMARY KEY, enrolled_at BIGINT NOT NULL, last_seen BIGINT, retired_at BIGINT)",
    "CREATE TABLE session (
        id TEXT PRIMARY KEY, person TEXT NOT NULL REFERENCES person (id),
        study TEXT NOT NULL REFERENCES study (id), agent TEXT NOT NULL REFERENCES agent (id),
        opened BIGINT NOT NULL, closed_at BIGINT, outcome TEXT)",
    "CREATE INDEX session_open ON session (opened) WHERE closed_at IS NULL",
];

const DECOYS: &[&str] = &["CREATE TABLE decoy (
        id TEXT PRIMARY KEY, kind TEXT NOT NULL CHECK (kind IN ('address', 'key', 'object')),
        what TEXT NOT NULL UNIQUE, note TEXT NOT NULL, added_at BIGINT NOT NULL,
        added_by TEXT NOT NULL REFERENCES person (id))"];

/// Brings a database to the latest version, each step in a transaction of its own; a database of a
/// later version is refused untouched.
pub(crate) async fn migrate(db: &DatabaseConnection) -> Result<(), OpenError> {
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    let found = version(db).await.map_err(OpenError::Database)?;
    if found > known {
        return Err(OpenError::Newer { found, known });
    }
    for (number, step) in (1_i64..).zip(STEPS).filter(|(number, _)| *number > found) {
        apply(db, number, step).await.map_err(OpenError::Database)?;
    }
    Ok(())
}

async fn version(db: &DatabaseConnection) -> Result<i64, DbErr> {
    db.execute_unprepared("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT PRIMARY KEY)").await?;
    let latest = "SELECT COALESCE(MAX(version), 0) AS version FROM schema_version";
    let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), latest)).await?;
    row.map_or(Ok(0), |row| row.try_get("", "version"))
}

async fn apply(db: &DatabaseConnection, number: i64, step: &[&str]) -> Result<(), DbErr> {
    let tx = db.begin().await?;
    for statement in step {
        tx.execute_unprepared(statement).await?;
    }
    tx.execute_unprepared(&format!("INSERT INTO schema_version (version) VALUES ({number})")).await?;
    tx.commit().await
}
