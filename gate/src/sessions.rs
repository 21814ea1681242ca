//! Opening and closing sessions.

use audit::{Event, EventKind, SessionExit};
use certs::ticket::{DatasetOrder, ObjectOrder, Order, SessionOrder, Ticket};
use model::{
    AgentId, DatasetId, PersonId, SessionId, StudyId, TicketId, Timestamp, WorkspaceId, WorkspaceLimits,
    WorkspaceName,
};
use policy::duo::Purpose;
use policy::{Action, CertificateRules, Decision, Denial, Limit, Request, Usage};
use store::{Claim, SessionState, WorkspaceState};

use crate::channels::{Asked, Closed, FileRights, Opening, Wanted};
use crate::events::{self, Basis};
use crate::leases::EndCause;
use crate::live::Carried;
use crate::order::{RecordingOrder, mode_of};
use crate::refusal::{RefusalKind, sentence};
use crate::{Entry, Gate, Permit, Refusal, facts};

/// How often a session that keeps losing to changes of policy is decided again.
const DECIDE_AGAIN: usize = 8;

/// A permitted stay of one person in the workspace of one study.
#[derive(Debug, Clone)]
pub struct OpenSession {
    /// This stay.
    pub session: SessionId,
    /// Who stays.
    pub person: PersonId,
    /// The fingerprint of the key that they proved.
    pub key_fingerprint: String,
    /// For which research project.
    pub study: StudyId,
    /// For which purpose, as policy prints it.
    pub purpose: String,
    /// Where.
    pub workspace: WorkspaceId,
    /// What its person calls it.
    pub name: WorkspaceName,
    /// What it may use.
    pub limits: WorkspaceLimits,
    /// What may be read there.
    pub datasets: Vec<DatasetAccess>,
    /// What was left out and why, for the person to read.
    pub notices: Vec<String>,
    /// Which way files may go, if this is a session of the subsystem `sftp`.
    pub files: FileRights,
    /// Whether variables of the person's environment may come along.
    pub environment: bool,
    /// How it is to be recorded, if it is.
    pub recording: Option<RecordingOrder>,
    /// Whether it starts only when a second person is there, and ends when they leave.
    pub moderated: bool,
    /// When the first of the grants ends, and the session with it.
    pub until: Timestamp,
}

impl crate::permit::sealed::Sealed for OpenSession {}

/// A dataset that a session may read.
#[derive(Debug, Clone)]
pub struct DatasetAccess {
    /// Which.
    pub dataset: DatasetId,
    /// Its files.
    pub objects: Vec<ObjectOrder>,
}

/// What a person asks for when they knock.
#[derive(Debug, Clone)]
pub struct SessionRequest {
    /// For which research project.
    pub study: StudyId,
    /// In which of the person's workspaces there; it is made if it is new.
    pub workspace: WorkspaceName,
    /// For which purpose; the first one of the study when none is named.
    pub purpose: Option<String>,
    /// The agent that would run the workspace.
    pub agent: AgentId,
    /// Whether a terminal is asked for.
    pub pty: bool,
    /// What is opened.
    pub wanted: Wanted,
    /// What the certificate permits.
    pub certificate: CertificateRules,
}

impl SessionRequest {
    fn command(&self) -> Option<&str> {
        match &self.wanted {
            Wanted::Exec(line) => Some(line),
            Wanted::Shell | Wanted::Sftp | Wanted::Forward(_) => None,
        }
    }
}

/// What said no.
enum No {
    Session(Denial),
    Channel(Box<Closed>),
}

/// How a session went.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How it ended.
    pub exit: SessionExit,
    /// Why it was ended from our side, when it was.
    pub ended: Option<EndCause>,
    /// Bytes from the client to the workspace.
    pub bytes_in: u64,
    /// Bytes from the workspace to the client.
    pub bytes_out: u64,
}

/// A session that is taken in and not yet recorded.
struct Place<'a> {
    gate: &'a Gate,
    session: Option<&'a SessionId>,
}

impl Place<'_> {
    fn keep(mut self) {
        self.session = None;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session {
            self.gate.inner.live.end(session);
        }
    }
}

impl Gate {
    /// Lets a person into the workspace of a study, for a purpose, with every dataset that policy
    /// permits for it.
    pub async fn open_session(
        &self,
        entry: &Entry,
        asked: &SessionRequest,
    ) -> Result<Permit<OpenSession>, Refusal> {
        let lease = self.inner.leases.register(&entry.person, Some(&asked.study), &self.inner.clock);
        let session = SessionId::random(&*self.inner.entropy).map_err(|e| Refusal::entropy(&e))?;
        lease.belongs_to(&session);
        for _ in 0..DECIDE_AGAIN {
            let policies = self.inner.policies.load_full();
            let epoch = policies.epoch();
            let about = |kind: EventKind| Event {
                session: Some(session.clone()),
                study: Some(asked.study.clone()),
                ..self.happened_to(entry, kind)
            };
            let (access, basis, opening) = match self
                .decide_session(entry, asked, &session, &policies)
                .await?
            {
                Ok(found) => found,
                Err(No::Session(denial)) => {
                    let kind = EventKind::SessionRefused {
                        code: denial.code().to_owned(),
                        reason: sentence(&denial.to_string()),
                    };
                    return Err(self.refuse(about(kind), Action::OpenSession, &denial, epoch).await?);
                }
                Err(No::Channel(closed)) => {
                    let Closed { channel, denial, kind } = *closed;
                    return Err(self.refuse(about(kind), Action::Channel(channel), &denial, epoch).await?);
                }
            };
            lease.rest_on(basis.grants.clone(), opening.channels.clone(), access.until);
            // Whoever revoked meanwhile swapped the policy before looking for leases: either they
            // found this one, or the epoch differs here.
            if self.inner.policies.load().epoch() != epoch {
                continue;
            }
            if let Err(full) = self.take_place(entry, asked, &access).await? {
                let kind = EventKind::SessionRefused {
                    code: full.code().to_owned(),
                    reason: sentence(&full.to_string()),
                };
                return Err(self.refuse(about(kind), Action::OpenSession, &full, epoch).await?);
            }
            // Given back unless the session comes to be.
            let place = Place { gate: self, session: Some(&session) };
            let kind = EventKind::SessionOpened {
                workspace: access.workspace.clone(),
                agent: asked.agent.clone(),
                pty: asked.pty,
                command: asked.command().map(str::to_owned),
                datasets: access.datasets.iter().map(|d| d.dataset.clone()).collect(),
                access_until: access.until,
                recording: mode_of(access.recording),
                recording_input: access.recording.is_some_and(|order| order.input),
            };
            let row = store::Session {
                id: session.clone(),
                person: entry.person.clone(),
                study: asked.study.clone(),
                agent: asked.agent.clone(),
                opened: self.now(),
                state: SessionState::Open,
            };
            self.inner.store.open_session(&row).await.map_err(|e| Refusal::store(&e))?;
            let decision = Some(events::permitted(Action::OpenSession, &basis, epoch));
            let opened = Event { decision, ..about(kind) };
            let (kind, decision) = opening.record(epoch);
            let channel = Event { decision: Some(decision), ..about(kind) };
            // Asked for together, so that both become durable in one write.
            let log = &self.inner.log;
            let recorded = match tokio::join!(log.append(&opened), log.append(&channel)) {
                (Ok(session), Ok(channel)) => Ok((session, channel)),
                (Err(error), _) | (_, Err(error)) => Err(Refusal::unrecorded(error)),
            };
            let (record, second) = match recorded {
                Ok(records) => records,
                Err(refusal) => {
                    let unrecorded = "aborted: the log took no record";
                    self.inner.store.close_session(&session, self.now(), unrecorded).await.ok();
                    return Err(refusal);
                }
            };
            self.inner.tallies.begin(&session, record);
            self.inner.tallies.add(&session, second);
            place.keep();
            return Ok(Permit::mint(access, record, lease));
        }
        Err(Refusal::new(
            RefusalKind::Unavailable,
            "policy-changing",
            "The policy of this study is changing right now. Try again in a moment.",
        ))
    }

    /// Takes a place for a session among those that the study gives its person, and one for its
    /// workspace if that is new.
    async fn take_place(
        &self,
        entry: &Entry,
        asked: &SessionRequest,
        access: &OpenSession,
    ) -> Result<Result<(), Denial>, Refusal> {
        let store = &self.inner.store;
        let study = store.study(&asked.study).await.map_err(|e| Refusal::store(&e))?;
        let limits = study.map(|study| study.limits).unwrap_or_default();
        let now = self.now();
        let wanted = store::Workspace {
            id: access.workspace.clone(),
            study: asked.study.clone(),
            person: entry.person.clone(),
            name: asked.workspace.clone(),
            agent: asked.agent.clone(),
            created_at: now,
            used_at: now,
            state: WorkspaceState::Open,
        };
        let claim =
            store.claim_workspace(&wanted, limits.workspaces).await.map_err(|e| Refusal::store(&e))?;
        let mut usage = Usage { counts: asked.wanted.counts(), known: true, ..Usage::default() };
        match claim {
            Claim::Made => {}
            Claim::TooMany(have) => usage = Usage { workspaces: have, known: false, ..usage },
            Claim::Known(known) => {
                if let Err(held) = crate::workspaces::is_open(&known) {
                    return Ok(Err(held));
                }
                if known.agent != asked.agent {
                    return Err(Refusal::new(
                        RefusalKind::Unavailable,
                        "workspace-moved",
                        "Your workspace lies on another host than a moment ago. Connect again.",
                    ));
                }
            }
        }
        if usage.known {
            let carried = Carried {
                session: access.session.clone(),
                agent: asked.agent.clone(),
                workspace: access.workspace.clone(),
                person: access.person.clone(),
                study: access.study.clone(),
                device: access.key_fingerprint.clone(),
                counts: usage.counts,
            };
            match self.inner.live.begin(carried, limits.get(Limit::Sessions)) {
                Ok(()) => return Ok(Ok(())),
                Err(have) => usage.sessions = have,
            }
        }
        Ok(limits.admits(&asked.study, &asked.workspace, &usage))
    }

    /// The order that makes an agent carry out a permitted session.
    pub fn session_ticket(&self, permit: &Permit<OpenSession>, agent: &AgentId) -> Result<Vec<u8>, Refusal> {
        let access = permit.action();
        let datasets = access
            .datasets
            .iter()
            .map(|d| DatasetOrder { dataset: d.dataset.clone(), objects: d.objects.clone() })
            .collect();
        self.seal(
            agent,
            Order::Session(SessionOrder {
                session: access.session.clone(),
                person: access.person.clone(),
                study: access.study.clone(),
                workspace: access.workspace.clone(),
                name: access.name.clone(),
                limits: access.limits,
                datasets,
                access_until: access.until,
            }),
        )
    }

    /// Closes a session: its last record says how it went and where its other records lie. The
    /// permit is used up.
    pub async fn close_session(&self, permit: Permit<OpenSession>, outcome: Outcome) -> Result<u64, Refusal> {
        let gate = self.clone();
        self.to_the_end(async move { gate.close(permit, outcome).await }).await
    }

    async fn close(&self, permit: Permit<OpenSession>, outcome: Outcome) -> Result<u64, Refusal> {
        let access = permit.action();
        let about = |kind: EventKind| Event {
            person: Some(access.person.clone()),
            device: Some(access.key_fingerprint.clone()),
            session: Some(access.session.clone()),
            study: Some(access.study.clone()),
            ..self.happened(kind)
        };
        if let Some(end) = &outcome.ended {
            let kind = EventKind::SessionEnded {
                cause: end.cause,
                grant: end.grant.clone(),
                reason: end.message.clone(),
            };
            self.record(&about(kind)).await?;
        }
        let tally = self.inner.tallies.end(&access.session);
        self.inner.live.end(&access.session);
        let (first, last, count) =
            tally.map_or((permit.record(), permit.record(), 1), |t| (t.first, t.last, t.count));
        let record = self
            .record(&about(EventKind::SessionClosed {
                exit: outcome.exit.clone(),
                bytes_in: outcome.bytes_in,
                bytes_out: outcome.bytes_out,
                events_first: first,
                events_last: last,
                count,
            }))
            .await?;
        let how = match (&outcome.ended, &outcome.exit) {
            (Some(end), _) => end.cause.code().to_owned(),
            (None, SessionExit::Code { code }) => format!("exit {code}"),
            (None, SessionExit::Signal { name }) => format!("signal {name}"),
            (None, SessionExit::Aborted { reason }) => format!("aborted: {reason}"),
        };
        self.inner
            .store
            .close_session(&access.session, self.now(), &how)
            .await
            .map_err(|e| Refusal::store(&e))?;
        Ok(record)
    }

    pub(crate) fn seal(&self, agent: &AgentId, order: Order) -> Result<Vec<u8>, Refusal> {
        let issued = self.now();
        let ticket = Ticket {
            id: TicketId::random(&*self.inner.entropy).map_err(|e| Refusal::entropy(&e))?,
            issued,
            expires: issued.plus(self.inner.settings.ticket_lifetime),
            agent: agent.clone(),
            order,
        };
        self.inner.tickets.load().seal(&ticket).map_err(|error| {
            tracing::error!(%error, "a ticket could not be sealed");
            Refusal::new(
                RefusalKind::Unavailable,
                "ticket",
                "This session could not be prepared: too many files for one session, or the ticket key failed. Please tell the operators.",
            )
        })
    }

    async fn decide_session(
        &self,
        entry: &Entry,
        asked: &SessionRequest,
        session: &SessionId,
        policies: &policy::PolicySet,
    ) -> Result<Result<(OpenSession, Basis, Opening), No>, Refusal> {
        let study = &asked.study;
        let records =
            facts::of_study(&self.inner.store, &entry.person, study).await.map_err(|e| Refusal::store(&e))?;
        let purpose = match asked.purpose.as_deref().map(str::parse::<Purpose>) {
            Some(Ok(purpose)) => Some(purpose),
            Some(Err(_)) => {
                let malformed = Denial::Malformed("a purpose is GRU, HMB, POA, MDS or DS:MONDO:<number>");
                return Ok(Err(No::Session(malformed)));
            }
            None => records.own_purpose(),
        };
        let now = self.now();
        let ask = |action: Action, dataset: Option<&DatasetId>| Request {
            person: entry.person.clone(),
            study: Some(study.clone()),
            dataset: dataset.cloned(),
            action,
            purpose: purpose.clone(),
            now,
        };
        let mut basis = match policy::decide(&ask(Action::OpenSession, None), policies, &records.facts(&[])) {
            Decision::Permit(basis) => Basis::from(&basis),
            Decision::Deny(denial) | Decision::Manual(denial) => return Ok(Err(No::Session(denial))),
        };
        let question =
            Asked { entry, study, certificate: asked.certificate, now, policies, records: &records };
        let opening = match question.open(&asked.wanted, asked.pty) {
            Ok(opening) => opening,
            Err(closed) => return Ok(Err(No::Channel(closed))),
        };
        let mut datasets = Vec::new();
        let mut denials = Vec::new();
        for granted in &records.datasets {
            let question = ask(Action::ReadDataset, Some(&granted.id));
            match policy::decide(&question, policies, &records.facts(&granted.conditions)) {
                Decision::Permit(more) => {
                    basis.add(&more);
                    let objects = facts::objects(&self.inner.store, &granted.id)
                        .await
                        .map_err(|e| Refusal::store(&e))?;
                    datasets.push(DatasetAccess { dataset: granted.id.clone(), objects });
                }
                Decision::Deny(denial) | Decision::Manual(denial) => denials.push(denial),
            }
        }
        // A workspace without data serves nobody: the first reason is the answer.
        if datasets.is_empty() {
            let nothing = || Denial::NothingGranted { study: study.clone() };
            return Ok(Err(No::Session(denials.into_iter().next().unwrap_or_else(nothing))));
        }
        let recording = RecordingOrder::of(records.recording(), &asked.wanted, asked.pty);
        let mut notices: Vec<String> = denials.iter().map(|denial| sentence(&denial.to_string())).collect();
        if asked.pty {
            notices.extend(recording.map(|order| order.notice().to_owned()));
        }
        let session = OpenSession {
            session: session.clone(),
            person: entry.person.clone(),
            key_fingerprint: entry.key_fingerprint.clone(),
            study: study.clone(),
            purpose: purpose.map(|p| p.to_string()).unwrap_or_default(),
            workspace: facts::workspace(study, &entry.person, &asked.workspace),
            name: asked.workspace.clone(),
            limits: records.limits.workspace,
            datasets,
            notices,
            files: opening.files,
            environment: opening.environment,
            recording,
            moderated: records.supervision().moderated,
            until: basis.until.min(opening.basis.until),
        };
        Ok(Ok((session, basis, opening)))
    }
}
