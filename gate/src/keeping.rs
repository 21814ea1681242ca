//! The house's own records: kept as secret shares, had back, and moved out of the house.
//!
//! Nobody asks for them to be kept. Who acts is the house itself, under the role `role:house`, which no
//! person can be given; policy decides about it as about anybody, and the record of the decision names
//! no person. One permit covers a record with all the attempts that it takes while this process lives,
//! so that an agent that fails does not fill the log that is to be kept.

use audit::{Event, EventKind, KeptKind, Log, ReadError};
use certs::ticket::{FetchOrder, KeepOrder, Order};
use model::{AgentId, ObjectId, PersonId, RoleId};
use policy::{Action, Decision, Facts, Request, Standing};
use serde_json::Value;
use store::{KeptFile, KeptRecord, KeptState, KeptSubject, Recording};

use crate::events::{self, Basis};
use crate::refusal::{RefusalKind, sentence};
use crate::{Entry, Gate, GateError, Permit, Refusal, facts};

/// Who the house is to policy. Nobody can be enrolled as it.
pub(crate) const HOUSE: &str = "sekisho";
/// The role of the house. Nobody can be given it.
pub(crate) const HOUSE_ROLE: &str = "house";

/// Entries that are looked at in one go for what an earlier process may have recorded.
const LOOK: usize = 1024;

/// A record of the house that may be kept, and read back to see whether it is.
#[derive(Debug, Clone)]
pub struct KeepRecord {
    /// The object that it becomes.
    pub object: ObjectId,
    /// What it is.
    pub subject: KeptSubject,
}

/// A record of the house that may be had back.
#[derive(Debug, Clone)]
pub struct FetchRecord {
    /// The object that it is.
    pub object: ObjectId,
    /// What it is.
    pub subject: KeptSubject,
    /// What was deposited.
    pub file: KeptFile,
}

/// A record of the house whose copy in the house may go.
#[derive(Debug, Clone)]
pub struct MoveRecord {
    /// The object that it is.
    pub object: ObjectId,
    /// What it is.
    pub subject: KeptSubject,
}

impl crate::permit::sealed::Sealed for KeepRecord {}
impl crate::permit::sealed::Sealed for FetchRecord {}
impl crate::permit::sealed::Sealed for MoveRecord {}

impl Gate {
    /// Lets the house keep one of its records. What was begun before goes on under the same object;
    /// what is kept already is refused as a conflict.
    pub async fn keep_record(&self, subject: &KeptSubject) -> Result<Permit<KeepRecord>, Refusal> {
        let (lease, basis, epoch) = self.may_keep().await?;
        let store = &self.inner.store;
        let known = store.kept_of(subject).await.map_err(|e| Refusal::store(&e))?;
        let object = match known {
            Some(KeptRecord { object, state: KeptState::Pending, .. }) => object,
            Some(kept) => return Err(conflict(format!("{subject} is kept already, as {}.", kept.object))),
            None => {
                let object = ObjectId::random_kept(&*self.inner.entropy).map_err(|e| Refusal::entropy(&e))?;
                let row = KeptRecord {
                    object: object.clone(),
                    subject: subject.clone(),
                    begun_at: self.now(),
                    state: KeptState::Pending,
                    since: self.inner.log.durable_size(),
                };
                store.begin_kept(&row).await.map_err(|e| Refusal::store(&e))?;
                object
            }
        };
        let (what, first, count) = named(subject);
        let kind = EventKind::RecordKeeping { object: object.clone(), what, first, count };
        let decision = Some(events::permitted(Action::KeepRecord, &basis, epoch));
        let record = self.record(&Event { decision, ..self.about(subject, kind) }).await?;
        Ok(Permit::mint(KeepRecord { object, subject: subject.clone() }, record, lease))
    }

    /// The order that makes an agent take a record in.
    pub fn keep_ticket(&self, permit: &Permit<KeepRecord>, agent: &AgentId) -> Result<Vec<u8>, Refusal> {
        self.seal(agent, Order::Keep(KeepOrder { object: permit.action().object.clone() }))
    }

    /// The order that makes an agent hand out what it has just taken in, so that it can be compared.
    pub fn read_back_ticket(
        &self,
        permit: &Permit<KeepRecord>,
        agent: &AgentId,
        size: u64,
        manifest_root: [u8; 32],
    ) -> Result<Vec<u8>, Refusal> {
        let object = permit.action().object.clone();
        self.seal(agent, Order::Fetch(FetchOrder { object, size, manifest_root }))
    }

    /// A record lies in shares and was read back whole: the log says so, once, whatever happens in
    /// between. The permit is used up.
    pub async fn record_kept(
        &self,
        permit: Permit<KeepRecord>,
        agent: &AgentId,
        file: KeptFile,
    ) -> Result<KeptRecord, Refusal> {
        let (gate, agent) = (self.clone(), agent.clone());
        self.to_the_end(async move {
            let object = &permit.action().object;
            let since = gate.inner.log.durable_size();
            let store = &gate.inner.store;
            let stored = store.change_kept(object, since, |state| state.store(file)).await;
            gate.say_kept(&stored.map_err(|e| Refusal::store(&e))?, Some(agent)).await
        })
        .await
    }

    /// Lets a person have a record back.
    pub async fn fetch_record(
        &self,
        entry: &Entry,
        object: &ObjectId,
    ) -> Result<Permit<FetchRecord>, Refusal> {
        let lease = self.inner.leases.register(&entry.person, None, &self.inner.clock);
        let records =
            facts::of_person(&self.inner.store, &entry.person).await.map_err(|e| Refusal::store(&e))?;
        let request = self.question(&entry.person, Action::FetchRecord);
        let policies = self.inner.policies.load_full();
        let basis = match policy::decide(&request, &policies, &records) {
            Decision::Permit(basis) => Basis::from(&basis),
            Decision::Deny(denial) | Decision::Manual(denial) => {
                let kind = EventKind::AdminRefused {
                    action: Action::FetchRecord.name().to_owned(),
                    code: denial.code().to_owned(),
                    reason: sentence(&denial.to_string()),
                };
                let event = self.happened_to(entry, kind);
                return Err(self.refuse(event, Action::FetchRecord, &denial, policies.epoch()).await?);
            }
        };
        let found = self.inner.store.kept(object).await.map_err(|e| Refusal::store(&e))?;
        let found = found.ok_or_else(|| Refusal::unknown(object.as_str()))?;
        let Some(file) = found.state.kept().cloned() else {
            return Err(conflict(format!("{object} is not kept yet. Try again when it is.")));
        };
        let KeptRecord { object, subject, .. } = found;
        let (what, first, count) = named(&subject);
        let kind = EventKind::RecordFetched { object: object.clone(), what, first, count };
        let event = Event {
            session: subject.session().cloned(),
            decision: Some(events::permitted(Action::FetchRecord, &basis, policies.epoch())),
            ..self.happened_to(entry, kind)
        };
        let record = self.record(&event).await?;
        Ok(Permit::mint(FetchRecord { object, subject, file }, record, lease))
    }

    /// The order that makes an agent hand a record out.
    pub fn fetch_ticket(&self, permit: &Permit<FetchRecord>, agent: &AgentId) -> Result<Vec<u8>, Refusal> {
        let FetchRecord { object, file, .. } = permit.action();
        self.seal(
            agent,
            Order::Fetch(FetchOrder {
                object: object.clone(),
                size: file.size,
                manifest_root: file.manifest_root,
            }),
        )
    }

    /// Lets the copy in the house of a record that is kept go: that is on record before it goes. What
    /// was begun before goes on, and the log says it once.
    pub async fn move_record(&self, object: &ObjectId) -> Result<Permit<MoveRecord>, Refusal> {
        let (lease, basis, epoch) = self.may_keep().await?;
        let since = self.inner.log.durable_size();
        let store = &self.inner.store;
        let moving = store.change_kept(object, since, KeptState::begin_move).await;
        let KeptRecord { object, subject, since, .. } = moving.map_err(|e| Refusal::store(&e))?;
        let record = match self.said("record_moved", &object, since).await.map_err(unreadable)? {
            Some(index) => index,
            None => {
                let (what, first, count) = named(&subject);
                let kind = EventKind::RecordMoved { object: object.clone(), what, first, count };
                let decision = Some(events::permitted(Action::KeepRecord, &basis, epoch));
                self.record(&Event { decision, ..self.about(&subject, kind) }).await?
            }
        };
        Ok(Permit::mint(MoveRecord { object, subject }, record, lease))
    }

    /// The copy in the house is gone. The permit is used up.
    pub async fn record_moved(&self, permit: Permit<MoveRecord>) -> Result<KeptRecord, Refusal> {
        let size = self.inner.log.durable_size();
        let moved = self.inner.store.change_kept(&permit.action().object, size, KeptState::end_move).await;
        moved.map_err(|e| Refusal::store(&e))
    }

    /// The records that are kept, or on their way, for those who may list records: parts of the log
    /// with entries from `from` to before `to`, and recordings.
    pub async fn kept_records(
        &self,
        entry: &Entry,
        from: u64,
        to: u64,
    ) -> Result<(Vec<KeptRecord>, Vec<KeptRecord>), Refusal> {
        self.may(entry, policy::AdminAction::ListRecords).await?;
        let store = &self.inner.store;
        let read = async { Ok((store.kept_segments(from, to).await?, store.kept_recordings().await?)) };
        read.await.map_err(|e: store::StoreError| Refusal::store(&e))
    }

    /// Where the house's own keeping is: what only the house asks.
    pub fn kept(&self) -> Kept<'_> {
        Kept(&self.inner.store)
    }

    /// Says of what was kept, and could not be said then, that it is kept.
    pub async fn catch_up_kept(&self) -> Result<(), Refusal> {
        let gate = self.clone();
        let settled = async move { Ok(gate.settle_kept().await) };
        self.to_the_end(settled).await?.map_err(|error| {
            tracing::error!(%error, "what is kept cannot be said");
            Refusal::new(
                RefusalKind::Unavailable,
                "unavailable",
                "What is kept cannot be recorded at the moment. Please tell the operators.",
            )
        })
    }

    /// Says of what an earlier process had kept, and could not say any more, that it is kept.
    pub(crate) async fn settle_kept(&self) -> Result<(), GateError> {
        loop {
            let stored = self.inner.store.kept_in(None, "stored", 64).await?;
            if stored.is_empty() {
                return Ok(());
            }
            for record in stored {
                let said = self.said("record_kept", &record.object, record.since).await?;
                let index = match said {
                    Some(index) => index,
                    None => self.inner.log.append(&self.kept_event(&record, None)).await?,
                };
                let (size, now) = (self.inner.log.durable_size(), self.now());
                self.inner.store.change_kept(&record.object, size, |state| state.keep(index, now)).await?;
            }
        }
    }

    async fn say_kept(&self, record: &KeptRecord, agent: Option<AgentId>) -> Result<KeptRecord, Refusal> {
        let index = self.record(&self.kept_event(record, agent)).await?;
        let (size, now) = (self.inner.log.durable_size(), self.now());
        let kept = self.inner.store.change_kept(&record.object, size, |state| state.keep(index, now)).await;
        kept.map_err(|e| Refusal::store(&e))
    }

    fn kept_event(&self, record: &KeptRecord, agent: Option<AgentId>) -> Event {
        let hex = |bytes: &[u8; 32]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let (what, first, count) = named(&record.subject);
        let file = record.state.file();
        let kind = EventKind::RecordKept {
            object: record.object.clone(),
            what,
            first,
            count,
            agent,
            size: file.map_or(0, |file| file.size),
            sha256: file.map(|file| hex(&file.sha256)).unwrap_or_default(),
            root: file.and_then(|file| file.content_root.as_ref()).map(hex),
            manifest_root: file.map(|file| hex(&file.manifest_root)).unwrap_or_default(),
        };
        self.about(&record.subject, kind)
    }

    /// Asks policy whether the house may keep its records.
    async fn may_keep(&self) -> Result<(std::sync::Arc<crate::leases::Lease>, Basis, u64), Refusal> {
        let failed = |e: model::IdError| Refusal::malformed(e.to_string());
        let house = PersonId::from_name(HOUSE).map_err(failed)?;
        let role = RoleId::from_name(HOUSE_ROLE).map_err(failed)?;
        let lease = self.inner.leases.register(&house, None, &self.inner.clock);
        let facts = Facts { person: Standing::Active, programme_roles: vec![role], ..Facts::default() };
        let request = self.question(&house, Action::KeepRecord);
        let policies = self.inner.policies.load_full();
        match policy::decide(&request, &policies, &facts) {
            Decision::Permit(basis) => Ok((lease, Basis::from(&basis), policies.epoch())),
            Decision::Deny(denial) | Decision::Manual(denial) => {
                let kind = EventKind::AdminRefused {
                    action: Action::KeepRecord.name().to_owned(),
                    code: denial.code().to_owned(),
                    reason: sentence(&denial.to_string()),
                };
                let event = self.happened(kind);
                Err(self.refuse(event, Action::KeepRecord, &denial, policies.epoch()).await?)
            }
        }
    }

    fn question(&self, person: &PersonId, action: Action) -> Request {
        Request { person: person.clone(), study: None, dataset: None, action, purpose: None, now: self.now() }
    }

    fn about(&self, subject: &KeptSubject, kind: EventKind) -> Event {
        Event { session: subject.session().cloned(), ..self.happened(kind) }
    }

    /// Where the log says `code` of an object, from index `since` on.
    async fn said(
        &self,
        code: &'static str,
        object: &ObjectId,
        since: u64,
    ) -> Result<Option<u64>, ReadError> {
        let (log, object) = (self.inner.log.clone(), object.clone());
        let looking = tokio::task::spawn_blocking(move || find(&log, code, &object, since));
        // The runtime is going down: nothing is said twice by whoever ends here.
        looking.await.unwrap_or(Ok(None))
    }
}

/// The house's list of what it keeps.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a>(&'a store::Store);

impl Kept<'_> {
    /// A record, by what it is.
    pub async fn of(&self, subject: &KeptSubject) -> Result<Option<KeptRecord>, Refusal> {
        self.0.kept_of(subject).await.map_err(|e| Refusal::store(&e))
    }

    /// The last part of the log that is kept, or on its way.
    pub async fn last_segment(&self) -> Result<Option<KeptRecord>, Refusal> {
        self.0.last_segment().await.map_err(|e| Refusal::store(&e))
    }

    /// Parts of the log in one state, the oldest first, at most `max`.
    pub async fn segments_in(&self, state: &str, max: u64) -> Result<Vec<KeptRecord>, Refusal> {
        let found = self.0.kept_in(Some("audit-segment"), state, max).await;
        found.map_err(|e| Refusal::store(&e))
    }

    /// Recordings in one state, the oldest first, at most `max`.
    pub async fn recordings_in(&self, state: &str, max: u64) -> Result<Vec<KeptRecord>, Refusal> {
        let found = self.0.kept_in(Some("session-recording"), state, max).await;
        found.map_err(|e| Refusal::store(&e))
    }

    /// Those of these things that are kept, or on their way.
    pub async fn among(&self, subjects: &[KeptSubject]) -> Result<Vec<KeptRecord>, Refusal> {
        self.0.kept_among(subjects).await.map_err(|e| Refusal::store(&e))
    }

    /// Recordings of closed sessions that are not kept yet and whose records have the index `from` or a
    /// later one, at most `max`, in the order of the log.
    pub async fn recordings_due(&self, from: u64, max: u64) -> Result<Vec<Recording>, Refusal> {
        self.0.recordings_due(from, max).await.map_err(|e| Refusal::store(&e))
    }

    /// How many those are.
    pub async fn recordings_waiting(&self, from: u64) -> Result<u64, Refusal> {
        self.0.recordings_due_count(from).await.map_err(|e| Refusal::store(&e))
    }
}

fn find(log: &Log, code: &str, object: &ObjectId, since: u64) -> Result<Option<u64>, ReadError> {
    let mut at = since;
    loop {
        let entries = log.read(at, LOOK)?;
        let Some((last, _)) = entries.last() else { return Ok(None) };
        at = last + 1;
        for (index, entry) in &entries {
            let record: Value = serde_json::from_slice(entry).unwrap_or_default();
            let says =
                |pointer: &str, word: &str| record.pointer(pointer).and_then(Value::as_str) == Some(word);
            if says("/metadata/event_code", code) && says("/unmapped/object", object.as_str()) {
                return Ok(Some(*index));
            }
        }
    }
}

/// How a record stands in an event.
fn named(subject: &KeptSubject) -> (KeptKind, Option<u64>, Option<u64>) {
    let (first, count) = subject.entries().unzip();
    let what = match subject {
        KeptSubject::AuditSegment { .. } => KeptKind::AuditSegment,
        KeptSubject::SessionRecording { .. } => KeptKind::SessionRecording,
    };
    (what, first, count)
}

fn conflict(message: String) -> Refusal {
    Refusal::new(RefusalKind::Conflict, "conflict", message)
}

fn unreadable(error: ReadError) -> Refusal {
    tracing::error!(%error, "the audit log cannot be read");
    Refusal::new(
        RefusalKind::Unavailable,
        "audit-unavailable",
        "The audit log cannot be read at the moment. Please tell the operators.",
    )
}
