//! Sessions that go on, and those who watch over them.

use audit::{Change, Event, EventKind, RecordKind};
use model::{PersonId, SessionId, StudyId};
use policy::{AdminAction, Joining, Matter, SupervisionRule};

use crate::leases::EndCause;
use crate::live::Carried;
use crate::permit::sealed::Sealed;
use crate::{Entry, Gate, OpenSession, Permit, Refusal, RefusalKind};

/// Leave to look at a session that goes on.
#[derive(Debug, Clone)]
pub struct WatchSession {
    /// Which.
    pub session: SessionId,
    /// Whose it is.
    pub whose: PersonId,
    /// Whether they are told.
    pub told: bool,
    /// Whether whoever looks may type in it too.
    pub joined: bool,
}

impl Sealed for WatchSession {}

/// What is to be another than it is in how sessions of a study are supervised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SupervisionChange {
    /// Whether a person is told that they are watched.
    pub told: Option<bool>,
    /// Who may type in somebody else's session.
    pub joining: Option<Joining>,
    /// Whether sessions start only with a second person.
    pub moderated: Option<bool>,
}

impl SupervisionChange {
    fn of(self, rule: SupervisionRule) -> SupervisionRule {
        SupervisionRule {
            told: self.told.unwrap_or(rule.told),
            joining: self.joining.unwrap_or(rule.joining),
            moderated: self.moderated.unwrap_or(rule.moderated),
        }
    }

    /// As the record of the change says it.
    fn words(self) -> String {
        let yes = |on: bool| if on { "yes" } else { "no" };
        let parts = [
            self.told.map(|on| format!(" told {}", yes(on))),
            self.joining.map(|joining| format!(" join {joining}")),
            self.moderated.map(|on| format!(" moderated {}", yes(on))),
        ];
        parts.into_iter().flatten().collect()
    }
}

impl Gate {
    /// How sessions of a study are supervised.
    pub async fn supervision_rule(&self, entry: &Entry, study: &StudyId) -> Result<SupervisionRule, Refusal> {
        self.may(entry, AdminAction::ListRecords).await?;
        self.supervision_of(study).await
    }

    /// Changes how sessions of a study are supervised. It holds for sessions that are opened from now
    /// on, and for whoever watches or joins from now on.
    pub async fn set_supervision(
        &self,
        entry: &Entry,
        study: &StudyId,
        change: SupervisionChange,
    ) -> Result<SupervisionRule, Refusal> {
        let id = format!("{study}{}", change.words());
        let known = self.inner.store.study(study).await.map_err(|e| Refusal::store(&e))?;
        let before = known.map_or_else(SupervisionRule::default, |known| known.supervision);
        let second = self.second(entry, Matter::in_supervision(before, change.of(before)), &id).await?;
        let what = (RecordKind::Study, id, Change::Updated);
        let seconded = second.is_some();
        self.admit_seconded(entry, AdminAction::SetSupervision, what, second).await?;
        let (gate, study) = (self.clone(), study.clone());
        self.to_the_end(async move {
            let _one_at_a_time = gate.inner.changing.lock().await;
            let present = gate.supervision_of(&study).await?;
            let rule = change.of(present);
            if !seconded && present != before {
                // Whether this takes a second officer was asked of another rule.
                gate.unchanged_meanwhile(Matter::in_supervision(present, rule))?;
            }
            gate.inner.store.set_supervision(&study, rule).await.map_err(|e| Refusal::store(&e))?;
            gate.reload_study(&study).await.map(|()| rule)
        })
        .await
    }

    /// Lets somebody know which sessions go on.
    pub async fn list_sessions(&self, entry: &Entry) -> Result<(), Refusal> {
        self.may(entry, AdminAction::ListSessions).await.map(drop)
    }

    /// Lets somebody look at a session that goes on.
    pub async fn watch_session(
        &self,
        entry: &Entry,
        session: &SessionId,
    ) -> Result<Permit<WatchSession>, Refusal> {
        let of = self.supervised(entry, AdminAction::WatchSession, session).await?;
        let told = self.supervision_of(&of.study).await?.told;
        let kind = EventKind::SessionWatched { whose: of.person.clone(), told };
        self.supervise(entry, AdminAction::WatchSession, of, kind, told, false).await
    }

    /// Who may join a session that goes on, if this person may ask for it at all.
    pub async fn joining(&self, entry: &Entry, session: &SessionId) -> Result<(PersonId, Joining), Refusal> {
        let of = self.supervised(entry, AdminAction::JoinSession, session).await?;
        let joining = self.supervision_of(&of.study).await?.joining;
        if joining == Joining::Never {
            let why = format!("in {} nobody types in somebody else's session; watch it instead", of.study);
            return Err(self.refuse_joining(entry, &of, "joining-refused", &why).await?);
        }
        Ok((of.person, joining))
    }

    /// The person did not let somebody join. What that somebody is told.
    pub async fn joining_declined(&self, entry: &Entry, session: &SessionId) -> Result<Refusal, Refusal> {
        let of = self.supervised(entry, AdminAction::JoinSession, session).await?;
        let why = format!("{} did not let you type in this session; watch it instead", of.person);
        self.refuse_joining(entry, &of, "joining-declined", &why).await
    }

    /// Lets somebody type in a session that goes on; `consented` is the person's own yes.
    pub async fn join_session(
        &self,
        entry: &Entry,
        session: &SessionId,
        consented: bool,
    ) -> Result<Permit<WatchSession>, Refusal> {
        let of = self.supervised(entry, AdminAction::JoinSession, session).await?;
        // The rule may have changed while the person thought about it.
        let holds = match self.supervision_of(&of.study).await?.joining {
            Joining::Never => false,
            Joining::Consent => consented,
            Joining::Always => true,
        };
        if !holds {
            let why = "the rules of the study changed meanwhile; ask again";
            return Err(self.refuse_joining(entry, &of, "joining-refused", why).await?);
        }
        let kind = EventKind::SessionJoined { whose: of.person.clone(), consented };
        self.supervise(entry, AdminAction::JoinSession, of, kind, true, true).await
    }

    /// Lets somebody say something on the terminal of a session that goes on.
    pub async fn message_session(
        &self,
        entry: &Entry,
        session: &SessionId,
        text: &str,
    ) -> Result<(), Refusal> {
        let of = self.supervised(entry, AdminAction::MessageSession, session).await?;
        let kind = EventKind::SessionMessage { whose: of.person.clone(), text: text.to_owned() };
        self.supervise(entry, AdminAction::MessageSession, of, kind, true, false).await.map(drop)
    }

    /// Ends a session that goes on.
    pub async fn kill_session(
        &self,
        entry: &Entry,
        session: &SessionId,
        reason: &str,
    ) -> Result<(), Refusal> {
        let of = self.supervised(entry, AdminAction::KillSession, session).await?;
        let kind = EventKind::SessionKilled { whose: of.person.clone(), reason: reason.to_owned() };
        let (gate, entry, session, reason) =
            (self.clone(), entry.clone(), session.clone(), reason.to_owned());
        self.to_the_end(async move {
            gate.supervise(&entry, AdminAction::KillSession, of, kind, true, false).await?;
            let cause = EndCause {
                cause: audit::EndCause::Killed,
                grant: None,
                message: format!("This session was ended by {}: {reason}", entry.person),
            };
            if gate.inner.leases.end_session(&session, &cause) == 0 {
                return Err(gone(&session));
            }
            Ok(())
        })
        .await
    }

    /// Records that the second person of a moderated session left, and says what its person is told.
    pub async fn moderator_left(&self, permit: &Permit<OpenSession>) -> Result<EndCause, Refusal> {
        self.record_in(permit, EventKind::ModeratorLeft {}).await?;
        Ok(EndCause {
            cause: audit::EndCause::ModeratorLeft,
            grant: None,
            message: "Sessions of this study take a second person, and the one who was there has left, so this session ends.".to_owned(),
        })
    }

    /// The session, if this person may do something about it.
    async fn supervised(
        &self,
        entry: &Entry,
        action: AdminAction,
        session: &SessionId,
    ) -> Result<Carried, Refusal> {
        self.may(entry, action).await?;
        self.inner.live.open(session).ok_or_else(|| gone(session))
    }

    async fn supervise(
        &self,
        entry: &Entry,
        action: AdminAction,
        of: Carried,
        kind: EventKind,
        told: bool,
        joined: bool,
    ) -> Result<Permit<WatchSession>, Refusal> {
        let lease = self.inner.leases.register(&entry.person, None, &self.inner.clock);
        let (basis, epoch) = self.may(entry, action).await?;
        let decision = Some(crate::events::permitted(policy::Action::Administer(action), &basis, epoch));
        let event = Event {
            session: Some(of.session.clone()),
            study: Some(of.study),
            decision,
            ..self.happened_to(entry, kind)
        };
        let record = self.record(&event).await?;
        let watch = WatchSession { session: of.session, whose: of.person, told, joined };
        Ok(Permit::mint(watch, record, lease))
    }

    async fn refuse_joining(
        &self,
        entry: &Entry,
        of: &Carried,
        code: &str,
        why: &str,
    ) -> Result<Refusal, Refusal> {
        let reason = crate::refusal::sentence(why);
        let kind = EventKind::AdminRefused {
            action: policy::Action::Administer(AdminAction::JoinSession).name().to_owned(),
            code: code.to_owned(),
            reason: reason.clone(),
        };
        let event = Event {
            session: Some(of.session.clone()),
            study: Some(of.study.clone()),
            ..self.happened_to(entry, kind)
        };
        let index = self.record(&event).await?;
        Ok(Refusal::new(RefusalKind::Denied, code, reason).recorded_at(index))
    }

    async fn supervision_of(&self, study: &StudyId) -> Result<SupervisionRule, Refusal> {
        let known = self.inner.store.study(study).await.map_err(|e| Refusal::store(&e))?;
        Ok(known.ok_or_else(|| Refusal::unknown(study.as_str()))?.supervision)
    }
}

fn gone(session: &SessionId) -> Refusal {
    Refusal::new(
        RefusalKind::NotFound,
        "no-such-session",
        format!("{session} is no session that goes on; `sekisho sessions` lists those that do."),
    )
}
