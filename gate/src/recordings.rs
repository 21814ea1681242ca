//! Recordings of sessions: how a study has them made, what was made, and who may see it.

use audit::{Change, Event, EventKind, ReadError, RecordKind};
use model::{PersonId, SessionId, StudyId, Timestamp};
use policy::{Action, AdminAction, Decision, Matter, RecordingMode, RecordingRule, Request};
use store::{KeptSubject, Recording, RecordingFilter, RecordingOutcome};

use crate::events::{self, Basis};
use crate::keeping::FetchRecord;
use crate::refusal::sentence;
use crate::sessions::OpenSession;
use crate::{Entry, Gate, GateError, Permit, Refusal, facts};

/// Recordings in one answer.
const LISTED: u64 = 1_000;

/// A recording that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// When it began.
    pub begun: Timestamp,
    /// The command, where it was not an interactive shell.
    pub command: Option<String>,
    /// How long it is, in milliseconds.
    pub millis: u64,
    /// How many events it has.
    pub events: u64,
    /// How many bytes of asciicast.
    pub bytes: u64,
    /// Their SHA-256.
    pub sha256: [u8; 32],
    /// How many bytes are stored of it.
    pub stored_bytes: u64,
    /// Their SHA-256.
    pub stored_sha256: [u8; 32],
    /// Bytes of output that were left out.
    pub elided: u64,
    /// Whether it has everything else.
    pub outcome: RecordingOutcome,
}

/// Leave to see one recording.
#[derive(Debug, Clone)]
pub struct PlayRecording {
    /// The recording, as the log has sealed it.
    pub recording: Recording,
}

impl crate::permit::sealed::Sealed for PlayRecording {}

/// What is to be another than it is in how sessions of a study are recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordingChange {
    /// Whether, and what happens when it cannot be.
    pub mode: Option<RecordingMode>,
    /// Whether what people type is recorded too.
    pub input: Option<bool>,
    /// Whether commands without a terminal are.
    pub commands: Option<bool>,
    /// How much output of each minute is kept, in MiB.
    pub limit_mib: Option<u32>,
    /// Whether the lead of the study may see recordings.
    pub lead: Option<bool>,
}

impl RecordingChange {
    fn of(self, rule: RecordingRule) -> RecordingRule {
        RecordingRule {
            mode: self.mode.unwrap_or(rule.mode),
            input: self.input.unwrap_or(rule.input),
            commands: self.commands.unwrap_or(rule.commands),
            limit_mib: self.limit_mib.unwrap_or(rule.limit_mib),
            lead: self.lead.unwrap_or(rule.lead),
        }
    }

    /// As the record of the change says it.
    fn words(self) -> String {
        let yes = |on: bool| if on { "yes" } else { "no" };
        let parts = [
            self.mode.map(|mode| format!(" recording {mode}")),
            self.input.map(|on| format!(" input {}", if on { "all" } else { "none" })),
            self.commands.map(|on| format!(" commands {}", yes(on))),
            self.limit_mib.map(|mib| format!(" limit {mib} MiB")),
            self.lead.map(|on| format!(" lead {}", yes(on))),
        ];
        parts.into_iter().flatten().collect()
    }
}

impl Gate {
    /// How sessions of a study are recorded.
    pub async fn recording_rule(&self, entry: &Entry, study: &StudyId) -> Result<RecordingRule, Refusal> {
        self.may(entry, AdminAction::ListRecords).await?;
        let known = self.inner.store.study(study).await.map_err(|e| Refusal::store(&e))?;
        Ok(known.ok_or_else(|| Refusal::unknown(study.as_str()))?.recording)
    }

    /// Changes how sessions of a study are recorded. It holds for sessions that are opened from now
    /// on: those that run were told how they are.
    pub async fn set_recording(
        &self,
        entry: &Entry,
        study: &StudyId,
        change: RecordingChange,
    ) -> Result<RecordingRule, Refusal> {
        let id = format!("{study}{}", change.words());
        let known = self.inner.store.study(study).await.map_err(|e| Refusal::store(&e))?;
        let before = known.map_or_else(RecordingRule::default, |known| known.recording);
        let second = self.second(entry, Matter::in_recording(before, change.of(before)), &id).await?;
        let what = (RecordKind::Study, id, Change::Updated);
        let seconded = second.is_some();
        self.admit_seconded(entry, AdminAction::SetRecording, what, second).await?;
        let (gate, study) = (self.clone(), study.clone());
        self.to_the_end(async move {
            let _one_at_a_time = gate.inner.changing.lock().await;
            let store = &gate.inner.store;
            let known = store.study(&study).await.map_err(|e| Refusal::store(&e))?;
            let present = known.ok_or_else(|| Refusal::unknown(study.as_str()))?.recording;
            let rule = change.of(present);
            if !seconded && present != before {
                // Whether this takes a second officer was asked of another rule.
                gate.unchanged_meanwhile(Matter::in_recording(present, rule))?;
            }
            store.set_recording(&study, rule).await.map_err(|e| Refusal::store(&e))?;
            gate.reload_study(&study).await.map(|()| rule)
        })
        .await
    }

    /// Seals the recording of a session into the log, and then takes it on record.
    pub async fn session_recorded(
        &self,
        permit: &Permit<OpenSession>,
        recorded: Recorded,
    ) -> Result<(), Refusal> {
        let access = permit.action();
        let event = self.within(permit, sealed(&recorded));
        let (gate, session) = (self.clone(), access.session.clone());
        let (person, study) = (access.person.clone(), access.study.clone());
        self.to_the_end(async move {
            let record = gate.record(&event).await?;
            let entry = gate.written(record);
            let recording = recording(session, person, study, &recorded, (record, entry));
            gate.inner.store.add_recording(&recording).await.map_err(|e| Refusal::store(&e))
        })
        .await
    }

    /// The same for one that an earlier process left open. One that is on record already was sealed
    /// by it a moment before it ended.
    pub(crate) async fn seal_left_open(
        &self,
        session: &SessionId,
        recorded: &Recorded,
    ) -> Result<(), GateError> {
        let store = &self.inner.store;
        if store.recording(session).await?.is_some() {
            return Ok(());
        }
        let Some(known) = store.session(session).await? else {
            tracing::error!(%session, "there is a recording of a session that is not on record; it is left alone");
            return Ok(());
        };
        let event = Event {
            person: Some(known.person.clone()),
            session: Some(session.clone()),
            study: Some(known.study.clone()),
            ..self.happened(sealed(recorded))
        };
        let record = self.inner.log.append(&event).await?;
        self.inner.tallies.add(session, record);
        let sealed = (record, self.written(record));
        store.add_recording(&recording(known.id, known.person, known.study, recorded, sealed)).await?;
        Ok(())
    }

    /// What the log has at an index, as text.
    fn written(&self, index: u64) -> String {
        let entry = self.inner.log.read(index, 1).ok().and_then(|found| found.into_iter().next());
        entry.and_then(|(_, entry)| String::from_utf8(entry).ok()).unwrap_or_default()
    }

    /// The recordings that fit and that this person may see, newest first. Whoever may see none at
    /// all is refused.
    pub async fn recordings(
        &self,
        entry: &Entry,
        filter: &RecordingFilter,
    ) -> Result<Vec<Recording>, Refusal> {
        let store = &self.inner.store;
        let found = store.recordings(filter, LISTED).await.map_err(|e| Refusal::store(&e))?;
        let mut studies: Vec<Option<&StudyId>> = found.iter().map(|r| Some(&r.study)).collect();
        studies.push(filter.study.as_ref());
        studies.sort();
        studies.dedup();
        let mut seen: Vec<StudyId> = Vec::new();
        let mut refused = None;
        let mut any = false;
        for study in studies {
            let (request, decision, epoch) = self.weigh_playing(entry, study).await?;
            match decision {
                Decision::Permit(_) => {
                    any = true;
                    seen.extend(study.cloned());
                }
                Decision::Deny(denial) | Decision::Manual(denial) => {
                    refused = Some((request, denial, epoch));
                }
            }
        }
        if let (false, Some((request, denial, epoch))) = (any, refused) {
            let event = self.happened_to(entry, playing_refused(request.action, &denial));
            return Err(self.refuse(event, request.action, &denial, epoch).await?);
        }
        Ok(found.into_iter().filter(|recording| seen.contains(&recording.study)).collect())
    }

    /// Records that recordings were searched for a text. What was found is shown after that.
    pub async fn recordings_searched(&self, entry: &Entry, text: &str, found: u64) -> Result<(), Refusal> {
        let kind = EventKind::RecordingsSearched { text: text.to_owned(), found };
        self.record(&self.happened_to(entry, kind)).await.map(drop)
    }

    /// Lets somebody see the recording of a session.
    pub async fn play_recording(
        &self,
        entry: &Entry,
        session: &SessionId,
    ) -> Result<Permit<PlayRecording>, Refusal> {
        let found = self.inner.store.recording(session).await.map_err(|e| Refusal::store(&e))?;
        let study = found.as_ref().map(|recording| recording.study.clone());
        let lease = self.inner.leases.register(&entry.person, study.as_ref(), &self.inner.clock);
        let (request, decision, epoch) = self.weigh_playing(entry, study.as_ref()).await?;
        let basis = match decision {
            Decision::Permit(basis) => Basis::from(&basis),
            Decision::Deny(denial) | Decision::Manual(denial) => {
                let kind = playing_refused(request.action, &denial);
                let event = Event { study, ..self.happened_to(entry, kind) };
                return Err(self.refuse(event, request.action, &denial, epoch).await?);
            }
        };
        let recording = found.ok_or_else(|| Refusal::unknown(&format!("a recording of {session}")))?;
        self.holds_in_log(&recording)?;
        let kind = EventKind::RecordingPlayed {
            recorded: recording.session.clone(),
            whose: recording.person.clone(),
            sha256: hex(&recording.sha256),
        };
        let decision = Some(events::permitted(request.action, &basis, epoch));
        let event = Event { study, decision, ..self.happened_to(entry, kind) };
        let record = self.record(&event).await?;
        Ok(Permit::mint(PlayRecording { recording }, record, lease))
    }

    /// Lets somebody who may see a recording have it back from the vault for that.
    pub async fn fetch_recording(
        &self,
        entry: &Entry,
        recording: &Recording,
    ) -> Result<Permit<FetchRecord>, Refusal> {
        let study = &recording.study;
        let lease = self.inner.leases.register(&entry.person, Some(study), &self.inner.clock);
        let (request, decision, epoch) = self.weigh_playing(entry, Some(study)).await?;
        let basis = match decision {
            Decision::Permit(basis) => Basis::from(&basis),
            Decision::Deny(denial) | Decision::Manual(denial) => {
                let kind = playing_refused(request.action, &denial);
                let event = Event { study: Some(study.clone()), ..self.happened_to(entry, kind) };
                return Err(self.refuse(event, request.action, &denial, epoch).await?);
            }
        };
        let subject = KeptSubject::SessionRecording { session: recording.session.clone() };
        let kept = self.inner.store.kept_of(&subject).await.map_err(|e| Refusal::store(&e))?;
        let kept = kept.and_then(|kept| Some((kept.object, kept.state.kept()?.clone())));
        let Some((object, file)) = kept else {
            return Err(Refusal::new(
                crate::RefusalKind::Conflict,
                "recording-lost",
                "The file of this recording is not here, and no copy of it was kept as secret shares. Tell the security staff.",
            ));
        };
        if (file.size, file.sha256) != (recording.stored_bytes, recording.stored_sha256) {
            return Err(altered(recording));
        }
        let kind = EventKind::RecordFetched {
            object: object.clone(),
            what: audit::KeptKind::SessionRecording,
            first: None,
            count: None,
        };
        let event = Event {
            session: Some(recording.session.clone()),
            study: Some(study.clone()),
            decision: Some(events::permitted(request.action, &basis, epoch)),
            ..self.happened_to(entry, kind)
        };
        let record = self.record(&event).await?;
        Ok(Permit::mint(FetchRecord { object, subject, file }, record, lease))
    }

    async fn weigh_playing(
        &self,
        entry: &Entry,
        study: Option<&StudyId>,
    ) -> Result<(Request, Decision, u64), Refusal> {
        let store = &self.inner.store;
        let facts = match study {
            Some(study) => facts::of_study(store, &entry.person, study).await.map(|r| r.facts(&[])),
            None => facts::of_person(store, &entry.person).await,
        };
        let facts = facts.map_err(|e| Refusal::store(&e))?;
        let request = Request {
            person: entry.person.clone(),
            study: study.cloned(),
            dataset: None,
            action: Action::PlayRecording,
            purpose: None,
            now: self.now(),
        };
        let policies = self.inner.policies.load_full();
        let decision = policy::decide(&request, &policies, &facts);
        Ok((request, decision, policies.epoch()))
    }

    /// Whether the log says of this recording what the records do: those are a database, which can be
    /// changed without a trace.
    fn holds_in_log(&self, recording: &Recording) -> Result<(), Refusal> {
        let log = &self.inner.log;
        let entry = match log.read(recording.record, 1) {
            Ok(found) => found.into_iter().find(|(index, _)| *index == recording.record).map(|(_, e)| e),
            // That part of the log is in the vault. The tiles of hashes stay, and tell whether the copy
            // among the records is what stood there.
            Err(ReadError::Removed { .. }) => {
                let copy = recording.entry.as_bytes();
                let is = log.is_entry(recording.record, copy).map_err(|error| {
                    tracing::error!(session = %recording.session, %error, "a recording cannot be held against the log");
                    Refusal::new(
                        crate::RefusalKind::Unavailable,
                        "audit-unavailable",
                        "The audit log cannot be read at the moment. Please tell the operators.",
                    )
                })?;
                is.then(|| copy.to_vec())
            }
            Err(error) => {
                tracing::error!(session = %recording.session, %error, "the record of a recording cannot be read");
                None
            }
        };
        let event: serde_json::Value =
            entry.and_then(|entry| serde_json::from_slice(&entry).ok()).unwrap_or_default();
        let says =
            |pointer: &str, value: &str| event.pointer(pointer).and_then(|v| v.as_str()) == Some(value);
        let holds = says("/metadata/event_code", "session_recorded")
            && says("/metadata/correlation_uid", recording.session.as_str())
            && says("/unmapped/sha256", &hex(&recording.sha256))
            && says("/unmapped/stored_sha256", &hex(&recording.stored_sha256));
        if holds {
            return Ok(());
        }
        Err(altered(recording))
    }
}

fn altered(recording: &Recording) -> Refusal {
    tracing::error!(session = %recording.session, "the log does not say of a recording what the records do");
    Refusal::new(
        crate::RefusalKind::Conflict,
        "recording-altered",
        "The audit log knows this recording by another hash than the records do. It is not shown; tell the security staff, one of the two was altered.",
    )
}

fn playing_refused(action: Action, denial: &policy::Denial) -> EventKind {
    EventKind::AdminRefused {
        action: action.name().to_owned(),
        code: denial.code().to_owned(),
        reason: sentence(&denial.to_string()),
    }
}

fn sealed(recorded: &Recorded) -> EventKind {
    EventKind::SessionRecorded {
        sha256: hex(&recorded.sha256),
        bytes: recorded.bytes,
        stored_sha256: hex(&recorded.stored_sha256),
        stored_bytes: recorded.stored_bytes,
        events: recorded.events,
        duration_ms: recorded.millis,
        elided_bytes: recorded.elided,
        outcome: match recorded.outcome {
            RecordingOutcome::Whole => audit::RecordingOutcome::Whole,
            RecordingOutcome::Interrupted => audit::RecordingOutcome::Interrupted,
            RecordingOutcome::Degraded => audit::RecordingOutcome::Degraded,
        },
    }
}

fn recording(
    session: SessionId,
    person: PersonId,
    study: StudyId,
    recorded: &Recorded,
    (record, entry): (u64, String),
) -> Recording {
    Recording {
        session,
        person,
        study,
        command: recorded.command.clone(),
        begun: recorded.begun,
        millis: recorded.millis,
        events: recorded.events,
        bytes: recorded.bytes,
        sha256: recorded.sha256,
        stored_bytes: recorded.stored_bytes,
        stored_sha256: recorded.stored_sha256,
        elided: recorded.elided,
        outcome: recorded.outcome,
        record,
        entry,
    }
}

fn hex(hash: &[u8; 32]) -> String {
    hash.iter().map(|b| format!("{b:02x}")).collect()
}
