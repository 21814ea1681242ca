//! Recordings of sessions.

use model::{PersonId, SessionId, StudyId, Timestamp};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect, Select};

use super::{Store, insert};
use crate::entity::recording::{Column, Entity, Model};
use crate::error::StoreError;
use crate::records::{Recording, RecordingOutcome};
use crate::text;

/// Of sessions that are closed, and not yet kept as secret shares. Their records are complete, so that
/// what is said about the recording later is not one of them.
const DUE: &str = "EXISTS (SELECT 1 FROM session
        WHERE session.id = recording.session AND session.closed_at IS NOT NULL)
    AND NOT EXISTS (SELECT 1 FROM kept
        WHERE kept.subject = 'recording:' || recording.session AND kept.state IN ('kept', 'moving', 'moved'))";

/// Which recordings are looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordingFilter {
    /// Those of this person.
    pub person: Option<PersonId>,
    /// Those in this study.
    pub study: Option<StudyId>,
    /// Those that began not before.
    pub from: Option<Timestamp>,
    /// Those that began not after.
    pub to: Option<Timestamp>,
}

impl Store {
    /// Takes a recording on record.
    pub async fn add_recording(&self, recording: &Recording) -> Result<(), StoreError> {
        let what = format!("the recording of {}", recording.session);
        let tx = self.write().await?;
        insert(&tx, &what, row(recording)).await?;
        tx.commit().await?;
        Ok(())
    }

    /// The recording of a session, if there is one.
    pub async fn recording(&self, session: &SessionId) -> Result<Option<Recording>, StoreError> {
        let row = Entity::find_by_id(session.as_str()).one(&self.readers).await?;
        row.map(record).transpose()
    }

    /// The recordings that fit, newest first, at most `limit`.
    pub async fn recordings(
        &self,
        filter: &RecordingFilter,
        limit: u64,
    ) -> Result<Vec<Recording>, StoreError> {
        let mut rows = Entity::find();
        if let Some(person) = &filter.person {
            rows = rows.filter(Column::Person.eq(person.as_str()));
        }
        if let Some(study) = &filter.study {
            rows = rows.filter(Column::Study.eq(study.as_str()));
        }
        if let Some(from) = filter.from {
            rows = rows.filter(Column::Begun.gte(from.as_millis()));
        }
        if let Some(to) = filter.to {
            rows = rows.filter(Column::Begun.lte(to.as_millis()));
        }
        rows.order_by_desc(Column::Begun)
            .order_by_asc(Column::Session)
            .limit(limit)
            .all(&self.readers)
            .await?
            .into_iter()
            .map(record)
            .collect()
    }

    /// Recordings that are to be kept as secret shares and are not yet, of those whose records have the
    /// index `from` or a later one: at most `max`, in the order of the log.
    pub async fn recordings_due(&self, from: u64, max: u64) -> Result<Vec<Recording>, StoreError> {
        let rows = due(from).order_by_asc(Column::Record).limit(max).all(&self.readers).await?;
        rows.into_iter().map(record).collect()
    }

    /// How many those are.
    pub async fn recordings_due_count(&self, from: u64) -> Result<u64, StoreError> {
        Ok(due(from).count(&self.readers).await?)
    }
}

fn due(from: u64) -> Select<Entity> {
    let from = i64::try_from(from).unwrap_or(i64::MAX);
    Entity::find().filter(Column::Record.gte(from)).filter(Expr::cust(DUE))
}

fn row(recording: &Recording) -> Model {
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    Model {
        session: recording.session.to_string(),
        person: recording.person.to_string(),
        study: recording.study.to_string(),
        command: recording.command.clone(),
        begun: recording.begun.as_millis(),
        millis: count(recording.millis),
        events: count(recording.events),
        bytes: count(recording.bytes),
        sha256: text::hex(&recording.sha256),
        stored_bytes: count(recording.stored_bytes),
        stored_sha256: text::hex(&recording.stored_sha256),
        elided: count(recording.elided),
        outcome: recording.outcome.name().to_owned(),
        record: count(recording.record),
        entry: recording.entry.clone(),
    }
}

fn record(row: Model) -> Result<Recording, StoreError> {
    let what = row.session.as_str();
    let count = |number: i64| u64::try_from(number).map_err(|_| text::damaged(what, "number"));
    let all = [RecordingOutcome::Whole, RecordingOutcome::Interrupted, RecordingOutcome::Degraded];
    let outcome = all.into_iter().find(|outcome| outcome.name() == row.outcome);
    Ok(Recording {
        session: text::id(what, &row.session)?,
        person: text::id(what, &row.person)?,
        study: text::id(what, &row.study)?,
        begun: text::at(row.begun),
        millis: count(row.millis)?,
        events: count(row.events)?,
        bytes: count(row.bytes)?,
        sha256: text::from_hex(what, &row.sha256)?,
        stored_bytes: count(row.stored_bytes)?,
        stored_sha256: text::from_hex(what, &row.stored_sha256)?,
        elided: count(row.elided)?,
        outcome: text::required(what, outcome)?,
        record: count(row.record)?,
        entry: row.entry,
        command: row.command,
    })
}
