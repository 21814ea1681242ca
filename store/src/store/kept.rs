//! The house's own records that are kept as secret shares.

use model::ObjectId;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect};

use super::{Store, insert, update};
use crate::entity::kept::{Column, Entity, Model};
use crate::error::StoreError;
use crate::kept::{KeptFile, KeptRecord, KeptState, KeptSubject};
use crate::records::TransitionError;
use crate::text;

/// The most records that one list has.
const LIST_MAX: u64 = 10_000;
/// Things that are asked about in one statement.
const AT_ONCE: usize = 500;

impl Store {
    /// Records that something is being kept. One thing is kept once.
    pub async fn begin_kept(&self, record: &KeptRecord) -> Result<(), StoreError> {
        let tx = self.write().await?;
        insert(&tx, &record.subject.to_string(), row(record)?).await?;
        tx.commit().await?;
        Ok(())
    }

    /// A record, by its object.
    pub async fn kept(&self, object: &ObjectId) -> Result<Option<KeptRecord>, StoreError> {
        find(&self.readers, object).await
    }

    /// A record, by what it is.
    pub async fn kept_of(&self, subject: &KeptSubject) -> Result<Option<KeptRecord>, StoreError> {
        let row = Entity::find().filter(Column::Subject.eq(subject.to_string())).one(&self.readers).await?;
        row.map(record).transpose()
    }

    /// Those of these things that are kept, or on their way, in no order.
    pub async fn kept_among(&self, subjects: &[KeptSubject]) -> Result<Vec<KeptRecord>, StoreError> {
        let mut found = Vec::new();
        for some in subjects.chunks(AT_ONCE) {
            let names = some.iter().map(ToString::to_string);
            let rows = Entity::find().filter(Column::Subject.is_in(names)).all(&self.readers).await?;
            found.extend(rows.into_iter().map(record).collect::<Result<Vec<_>, _>>()?);
        }
        Ok(found)
    }

    /// Parts of the audit log that have entries from `from` to before `to`, in order.
    pub async fn kept_segments(&self, from: u64, to: u64) -> Result<Vec<KeptRecord>, StoreError> {
        let most = |index: u64| i64::try_from(index).unwrap_or(i64::MAX);
        let rows = Entity::find()
            .filter(Column::Kind.eq("audit-segment"))
            .filter(Column::First.lt(most(to)))
            .filter(ExprTrait::gt(
                ExprTrait::add(Column::First.into_expr(), Column::Count.into_expr()),
                most(from),
            ))
            .order_by_asc(Column::First)
            .limit(LIST_MAX)
            .all(&self.readers)
            .await?;
        rows.into_iter().map(record).collect()
    }

    /// The last part of the audit log that is kept, or on its way there.
    pub async fn last_segment(&self) -> Result<Option<KeptRecord>, StoreError> {
        let row = Entity::find()
            .filter(Column::Kind.eq("audit-segment"))
            .order_by_desc(Column::First)
            .one(&self.readers)
            .await?;
        row.map(record).transpose()
    }

    /// Recordings of sessions, the newest first.
    pub async fn kept_recordings(&self) -> Result<Vec<KeptRecord>, StoreError> {
        let rows = Entity::find()
            .filter(Column::Kind.eq("session-recording"))
            .order_by_desc(Column::BegunAt)
            .order_by_desc(Column::Object)
            .limit(LIST_MAX)
            .all(&self.readers)
            .await?;
        rows.into_iter().map(record).collect()
    }

    /// Records in one state, of one kind or any, the oldest first, at most `max`.
    pub async fn kept_in(
        &self,
        kind: Option<&str>,
        state: &str,
        max: u64,
    ) -> Result<Vec<KeptRecord>, StoreError> {
        let mut found = Entity::find().filter(Column::State.eq(state));
        if let Some(kind) = kind {
            found = found.filter(Column::Kind.eq(kind));
        }
        let rows = found
            .order_by_asc(Column::First)
            .order_by_asc(Column::BegunAt)
            .limit(max)
            .all(&self.readers)
            .await?;
        rows.into_iter().map(record).collect()
    }

    /// Changes how far a record is. `since` is how many entries the audit log has now.
    pub async fn change_kept(
        &self,
        object: &ObjectId,
        since: u64,
        change: impl FnOnce(KeptState) -> Result<KeptState, TransitionError>,
    ) -> Result<KeptRecord, StoreError> {
        let tx = self.write().await?;
        let record = find(&tx, object).await?.ok_or_else(|| StoreError::NotFound(object.to_string()))?;
        let state = change(record.state.clone());
        let state = state.map_err(|source| StoreError::Transition { what: object.to_string(), source })?;
        // What is done again is still looked for from where it was first begun.
        let since = if state == record.state { record.since } else { since };
        let record = KeptRecord { state, since, ..record };
        update(&tx, object.as_str(), row(&record)?).await?;
        tx.commit().await?;
        Ok(record)
    }
}

async fn find(db: &impl ConnectionTrait, object: &ObjectId) -> Result<Option<KeptRecord>, StoreError> {
    let row = Entity::find_by_id(object.as_str()).one(db).await?;
    row.map(record).transpose()
}

fn row(kept: &KeptRecord) -> Result<Model, StoreError> {
    let whole = |number: u64| {
        i64::try_from(number)
            .map_err(|_| StoreError::Conflict(format!("{} is too large to record", kept.subject)))
    };
    let (record, at) = match &kept.state {
        KeptState::Pending | KeptState::Stored { .. } => (None, None),
        KeptState::Kept { record, at, .. }
        | KeptState::Moving { record, at, .. }
        | KeptState::Moved { record, at, .. } => (Some(*record), Some(*at)),
    };
    let file = kept.state.file();
    let entries = kept.subject.entries();
    Ok(Model {
        object: kept.object.to_string(),
        kind: kept.subject.kind().to_owned(),
        subject: kept.subject.to_string(),
        first: entries.map(|(first, _)| whole(first)).transpose()?,
        count: entries.map(|(_, count)| whole(count)).transpose()?,
        begun_at: kept.begun_at.as_millis(),
        state: kept.state.code().to_owned(),
        since: whole(kept.since)?,
        size: file.map(|file| whole(file.size)).transpose()?,
        sha256: file.map(|file| text::hex(&file.sha256)),
        content_root: file.and_then(|file| file.content_root.as_ref()).map(text::hex),
        manifest_root: file.map(|file| text::hex(&file.manifest_root)),
        record: record.map(whole).transpose()?,
        settled_at: at.map(model::Timestamp::as_millis),
    })
}

fn record(row: Model) -> Result<KeptRecord, StoreError> {
    let what = row.object.as_str();
    let number = |value: i64, part| u64::try_from(value).map_err(|_| text::damaged(what, part));
    let file = || {
        Ok::<_, StoreError>(KeptFile {
            size: number(text::required(what, row.size)?, "size")?,
            sha256: text::from_hex(what, &text::required(what, row.sha256.clone())?)?,
            content_root: row.content_root.as_deref().map(|root| text::from_hex(what, root)).transpose()?,
            manifest_root: text::from_hex(what, &text::required(what, row.manifest_root.clone())?)?,
        })
    };
    let settled = || {
        let index = number(text::required(what, row.record)?, "record")?;
        Ok::<_, StoreError>((index, text::at(text::required(what, row.settled_at)?)))
    };
    let state = match row.state.as_str() {
        "pending" => KeptState::Pending,
        "stored" => KeptState::Stored { file: file()? },
        "kept" | "moving" | "moved" => {
            let (file, (record, at)) = (file()?, settled()?);
            match row.state.as_str() {
                "kept" => KeptState::Kept { file, record, at },
                "moving" => KeptState::Moving { file, record, at },
                _ => KeptState::Moved { file, record, at },
            }
        }
        _ => return Err(text::damaged(what, "state")),
    };
    Ok(KeptRecord {
        object: text::id(what, &row.object)?,
        subject: row.subject.parse().map_err(|_| text::damaged(what, "subject"))?,
        begun_at: text::at(row.begun_at),
        since: number(row.since, "since")?,
        state,
    })
}
