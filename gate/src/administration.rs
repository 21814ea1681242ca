//! The programme's own affairs: people, studies, datasets, grants, agents, services.

use std::net::IpAddr;

use audit::{Change, Event, EventKind, RecordKind};
use certs::SpiffeId;
use certs::token::{Token, TokenKind};
use model::{AgentId, DatasetId, GrantId, PersonId, RoleId, StudyId, Timestamp};
use policy::duo::{ConditionSet, Purpose};
use policy::{
    Action, AdminAction, Channel, ChannelRules, Decision, Grantee, Matter, Membership, PolicySet, Request,
};
use store::{GrantState, PersonState, StudyState, TokenSubject};

use crate::approvals::Seconded;
use crate::events::{self, Basis};
use crate::leases::EndCause;
use crate::refusal::{RefusalKind, sentence};
use crate::{Entry, Gate, Permit, Refusal, facts};

/// A permitted act of administration.
#[derive(Debug, Clone)]
pub(crate) struct Administer;

impl crate::permit::sealed::Sealed for Administer {}

/// A person to be enrolled.
#[derive(Debug, Clone)]
pub struct NewPerson {
    /// Who.
    pub person: PersonId,
    /// The name people know them by.
    pub name: String,
    /// Roles in the programme: steward, security, operator.
    pub roles: Vec<RoleId>,
}

/// A research project that the committee approved.
#[derive(Debug, Clone)]
pub struct NewStudy {
    /// Which.
    pub study: StudyId,
    /// Its title.
    pub title: String,
    /// What it was approved for; the first is the purpose of a session that names none.
    pub purposes: Vec<String>,
    /// When the approval ends.
    pub until: Timestamp,
}

/// A set of files under the same conditions.
#[derive(Debug, Clone)]
pub struct NewDataset {
    /// Which.
    pub dataset: DatasetId,
    /// Its title.
    pub title: String,
    /// Alternative sets of DUO codes; one of them must fit a purpose.
    pub conditions: Vec<Vec<String>>,
}

/// The permission of a study to use a dataset.
#[derive(Debug, Clone)]
pub struct NewGrant {
    /// The study.
    pub study: StudyId,
    /// The dataset.
    pub dataset: DatasetId,
    /// Who in the study: a person, or everyone with a role there.
    pub grantee: Grantee,
    /// From when; now when not said.
    pub from: Option<Timestamp>,
    /// Until when.
    pub until: Timestamp,
}

/// A certificate for a service, such as a SIEM collector.
#[derive(Debug, Clone)]
pub struct ServiceCertificate {
    /// The certificate (DER).
    pub certificate: Vec<u8>,
    /// When it ends.
    pub expires: Timestamp,
}

/// Lists for those who may see them.
#[derive(Debug, Clone)]
pub struct Records {
    /// People.
    pub people: Vec<store::Person>,
    /// Studies.
    pub studies: Vec<store::Study>,
    /// Datasets.
    pub datasets: Vec<store::Dataset>,
    /// Stored files.
    pub objects: Vec<store::Object>,
    /// Grants.
    pub grants: Vec<store::Grant>,
    /// Agents.
    pub agents: Vec<store::Agent>,
}

impl Gate {
    /// Makes a person known to the programme.
    pub async fn enrol_person(&self, entry: &Entry, new: NewPerson) -> Result<(), Refusal> {
        let roles: String = new.roles.iter().map(|role| format!(" {role}")).collect();
        let matter = (!new.roles.is_empty()).then_some(Matter::Officers);
        let second = self.second(entry, matter, &format!("enrol {}{roles}", new.person)).await?;
        let what = (RecordKind::Person, new.person.to_string(), Change::Created);
        self.admit_seconded(entry, AdminAction::EnrolPerson, what, second).await?;
        self.create_person(new).await
    }

    /// Makes a one-time token with which a person's device enrols.
    pub async fn person_token(&self, entry: &Entry, person: &PersonId) -> Result<String, Refusal> {
        let known = self.inner.store.person(person).await.map_err(|e| Refusal::store(&e))?;
        let officer = known.as_ref().is_some_and(|known| !known.roles.is_empty());
        let matter = officer.then_some(Matter::Officers);
        let second = self.second(entry, matter, &format!("token for {person}")).await?;
        let what = (RecordKind::Person, person.to_string(), Change::Updated);
        self.admit_seconded(entry, AdminAction::EnrolPerson, what, second).await?;
        known.ok_or_else(|| Refusal::unknown(person.as_str()))?;
        self.make_token(Some(entry), TokenSubject::Person(person.clone())).await
    }

    /// Makes a one-time token with which an agent enrols.
    pub async fn agent_token(&self, entry: &Entry, agent: &AgentId) -> Result<String, Refusal> {
        let what = (RecordKind::Agent, agent.to_string(), Change::Updated);
        self.admit(entry, AdminAction::EnrolAgent, what).await?;
        self.make_token(Some(entry), TokenSubject::Agent(agent.clone())).await
    }

    /// Locks a person out: no certificate, no session, and every running one ends; returns how
    /// many did.
    pub async fn lock_person(
        &self,
        entry: &Entry,
        person: &PersonId,
        reason: &str,
    ) -> Result<usize, Refusal> {
        let what = (RecordKind::Person, person.to_string(), Change::Updated);
        self.admit(entry, AdminAction::LockPerson, what).await?;
        let (gate, entry, person, reason) = (self.clone(), entry.clone(), person.clone(), reason.to_owned());
        self.to_the_end(async move {
            let store = &gate.inner.store;
            store
                .lock_person(&person, gate.now(), &entry.person, &reason)
                .await
                .map_err(|e| Refusal::store(&e))?;
            let cause = EndCause {
                cause: audit::EndCause::PersonLocked,
                grant: None,
                message: format!("Your access has been locked by the security staff: {reason}"),
            };
            let ended = gate.inner.leases.end_person(&person, &cause);
            let kind = EventKind::PersonLocked { subject: person, reason };
            gate.record(&gate.happened_to(&entry, kind)).await?;
            Ok(ended)
        })
        .await
    }

    /// Lets a locked person in again.
    pub async fn unlock_person(&self, entry: &Entry, person: &PersonId) -> Result<(), Refusal> {
        let second = self.second(entry, Some(Matter::Unlock), &format!("unlock {person}")).await?;
        let what = (RecordKind::Person, person.to_string(), Change::Updated);
        self.admit_seconded(entry, AdminAction::LockPerson, what, second).await?;
        let (gate, entry, person) = (self.clone(), entry.clone(), person.clone());
        self.to_the_end(async move {
            gate.inner.store.unlock_person(&person).await.map_err(|e| Refusal::store(&e))?;
            gate.record(&gate.happened_to(&entry, EventKind::PersonUnlocked { subject: person })).await?;
            Ok(())
        })
        .await
    }

    /// Registers a study that the committee approved.
    pub async fn create_study(&self, entry: &Entry, new: NewStudy) -> Result<(), Refusal> {
        for purpose in &new.purposes {
            purpose.parse::<Purpose>().map_err(|e| Refusal::malformed(format!("{purpose}: {e}.")))?;
        }
        if new.purposes.is_empty() {
            return Err(Refusal::malformed(
                "A study has at least one purpose: GRU, HMB, POA, MDS or DS:MONDO:<number>.",
            ));
        }
        let what = (RecordKind::Study, new.study.to_string(), Change::Created);
        self.admit(entry, AdminAction::CreateStudy, what).await?;
        let study = store::Study {
            id: new.study,
            title: new.title,
            purposes: new.purposes,
            until: new.until,
            state: StudyState::Active,
            channels: ChannelRules::default(),
            recording: policy::RecordingRule::default(),
            supervision: policy::SupervisionRule::default(),
            limits: policy::StudyLimits::default(),
        };
        self.inner.store.create_study(&study).await.map_err(|e| Refusal::store(&e))?;
        Ok(())
    }

    /// Gives a person a role in a study.
    pub async fn add_member(
        &self,
        entry: &Entry,
        study: &StudyId,
        person: &PersonId,
        role: &RoleId,
    ) -> Result<(), Refusal> {
        let what = (RecordKind::Membership, format!("{study} {person} {role}"), Change::Created);
        self.admit(entry, AdminAction::AddMember, what).await?;
        let gate = self.clone();
        let member = Membership { person: person.clone(), study: study.clone(), role: role.clone() };
        self.to_the_end(async move {
            let _one_at_a_time = gate.inner.changing.lock().await;
            gate.inner.store.add_member(&member).await.map_err(|e| Refusal::store(&e))?;
            gate.reload_study(&member.study).await
        })
        .await
    }

    /// Takes a person's roles in a study away and ends their sessions there; returns how many did.
    pub async fn remove_member(
        &self,
        entry: &Entry,
        study: &StudyId,
        person: &PersonId,
    ) -> Result<usize, Refusal> {
        let what = (RecordKind::Membership, format!("{study} {person}"), Change::Closed);
        self.admit(entry, AdminAction::AddMember, what).await?;
        let (gate, study, person) = (self.clone(), study.clone(), person.clone());
        self.to_the_end(async move {
            let _one_at_a_time = gate.inner.changing.lock().await;
            let store = &gate.inner.store;
            let members = store.members(&study).await.map_err(|e| Refusal::store(&e))?;
            for member in members.iter().filter(|member| member.person == person) {
                store.remove_member(member).await.map_err(|e| Refusal::store(&e))?;
            }
            let reloaded = gate.reload_study(&study).await;
            let cause = EndCause {
                cause: audit::EndCause::MembershipEnded,
                grant: None,
                message: format!("You are no longer a member of {study}, so this session ends."),
            };
            let ended = gate.inner.leases.end_member(&person, &study, &cause);
            reloaded.map(|()| ended)
        })
        .await
    }

    /// The channels that a study permits.
    pub async fn channels(&self, entry: &Entry, study: &StudyId) -> Result<ChannelRules, Refusal> {
        self.may(entry, AdminAction::ListRecords).await?;
        let known = self.inner.store.study(study).await.map_err(|e| Refusal::store(&e))?;
        Ok(known.ok_or_else(|| Refusal::unknown(study.as_str()))?.channels)
    }

    /// Changes which channels a study permits, and ends every session that rests on one it no
    /// longer does; returns what it permits now and how many sessions ended.
    pub async fn set_channels(
        &self,
        entry: &Entry,
        study: &StudyId,
        allow: &[Channel],
        refuse: &[Channel],
    ) -> Result<(ChannelRules, usize), Refusal> {
        if let Some(channel) = allow.iter().find(|channel| !channel.is_offered()) {
            return Err(Refusal::malformed(format!(
                "{channel} cannot be allowed: {} not offered by this gate.",
                channel.words()
            )));
        }
        if let Some(both) = allow.iter().find(|channel| refuse.contains(channel)) {
            return Err(Refusal::malformed(format!("{both} is to be allowed and refused at once.")));
        }
        let said = |word: &str, channels: &[Channel]| {
            channels.iter().map(|channel| format!(" {word} {channel}")).collect::<String>()
        };
        let id = format!("{study}{}{}", said("allow", allow), said("refuse", refuse));
        let second = self.second(entry, Matter::in_channels(allow), &id).await?;
        let what = (RecordKind::Study, id, Change::Updated);
        self.admit_seconded(entry, AdminAction::SetChannels, what, second).await?;
        let (gate, study) = (self.clone(), study.clone());
        let (allow, refuse) = (allow.to_vec(), refuse.to_vec());
        self.to_the_end(async move {
            let _one_at_a_time = gate.inner.changing.lock().await;
            let store = &gate.inner.store;
            let known = store.study(&study).await.map_err(|e| Refusal::store(&e))?;
            let mut rules = known.ok_or_else(|| Refusal::unknown(study.as_str()))?.channels;
            allow.iter().for_each(|channel| rules.allow(*channel));
            refuse.iter().for_each(|channel| rules.refuse(*channel));
            store.set_channels(&study, &rules).await.map_err(|e| Refusal::store(&e))?;
            let reloaded = gate.reload_study(&study).await;
            let cause = EndCause {
                cause: audit::EndCause::ChannelRefused,
                grant: None,
                message: format!("What this session does is no longer open in {study}, so it ends."),
            };
            let ended = gate.inner.leases.end_channels(&study, &rules, &cause);
            reloaded.map(|()| (rules, ended))
        })
        .await
    }

    /// Registers a dataset with its data-use conditions.
    pub async fn create_dataset(&self, entry: &Entry, new: NewDataset) -> Result<(), Refusal> {
        if new.conditions.is_empty() {
            return Err(Refusal::malformed(
                "A dataset has at least one set of DUO codes, such as GRU or HMB.",
            ));
        }
        for set in &new.conditions {
            ConditionSet::parse(set).map_err(|e| Refusal::malformed(format!("{}: {e}.", set.join(" "))))?;
        }
        let what = (RecordKind::Dataset, new.dataset.to_string(), Change::Created);
        self.admit(entry, AdminAction::CreateDataset, what).await?;
        let dataset = store::Dataset { id: new.dataset, title: new.title, conditions: new.conditions };
        self.inner.store.create_dataset(&dataset).await.map_err(|e| Refusal::store(&e))?;
        Ok(())
    }

    /// Grants a dataset to a study until a date.
    pub async fn grant(&self, entry: &Entry, new: NewGrant) -> Result<GrantId, Refusal> {
        let from = new.from.unwrap_or_else(|| self.now());
        if new.until <= from {
            return Err(Refusal::malformed("A grant ends after it begins."));
        }
        let id = GrantId::random(&*self.inner.entropy).map_err(|e| Refusal::entropy(&e))?;
        let created = EventKind::GrantCreated {
            grant: id.clone(),
            dataset: new.dataset.clone(),
            grantee: new.grantee.to_string(),
            until: new.until,
        };
        self.admit_event(entry, AdminAction::Grant, Some(&new.study), created).await?;
        let (gate, by) = (self.clone(), entry.person.clone());
        self.to_the_end(async move {
            let _one_at_a_time = gate.inner.changing.lock().await;
            let study = new.study.clone();
            let grant = store::Grant {
                id: id.clone(),
                study: new.study,
                dataset: new.dataset,
                grantee: new.grantee,
                not_before: from,
                not_after: new.until,
                granted_by: by,
                state: GrantState::Active,
            };
            gate.inner.store.create_grant(&grant).await.map_err(|e| Refusal::store(&e))?;
            gate.reload_study(&study).await?;
            Ok(id)
        })
        .await
    }

    /// Revokes a grant and ends every session that rests on it; returns how many did.
    pub async fn revoke_grant(&self, entry: &Entry, grant: &GrantId, reason: &str) -> Result<usize, Refusal> {
        let found = self.inner.store.grant(grant).await.map_err(|e| Refusal::store(&e))?;
        let found = found.ok_or_else(|| Refusal::unknown(grant.as_str()))?;
        let revoked = EventKind::GrantRevoked {
            grant: grant.clone(),
            dataset: found.dataset.clone(),
            reason: reason.to_owned(),
        };
        self.admit_event(entry, AdminAction::Revoke, Some(&found.study), revoked).await?;
        let (gate, by, grant, reason) =
            (self.clone(), entry.person.clone(), grant.clone(), reason.to_owned());
        self.to_the_end(async move {
            let _one_at_a_time = gate.inner.changing.lock().await;
            let store = &gate.inner.store;
            store.revoke_grant(&grant, gate.now(), &by, &reason).await.map_err(|e| Refusal::store(&e))?;
            let reloaded = gate.reload_study(&found.study).await;
            let cause = EndCause {
                cause: audit::EndCause::GrantRevoked,
                grant: Some(grant.clone()),
                message: format!(
                    "The permission of {} to use {} was revoked ({reason}), so this session ends.",
                    found.study, found.dataset
                ),
            };
            let ended = gate.inner.leases.end_grant(&grant, &cause);
            reloaded.map(|()| ended)
        })
        .await
    }

    /// Issues a certificate for a service that the programme runs.
    pub async fn service_certificate(
        &self,
        entry: &Entry,
        service: &str,
        dns: &[String],
        ips: &[IpAddr],
        public_key: Vec<u8>,
    ) -> Result<ServiceCertificate, Refusal> {
        let what = (RecordKind::Service, service.to_owned(), Change::Updated);
        self.admit(entry, AdminAction::IssueService, what).await?;
        let issued = self
            .issue_x509(
                &SpiffeId::Service(service.to_owned()),
                dns,
                ips,
                public_key,
                self.inner.settings.service_lifetime,
            )
            .await?;
        Ok(ServiceCertificate { certificate: issued.certificate, expires: issued.expires })
    }

    /// Lets somebody read entries of the log; `what` says which. That is recorded in the log itself.
    pub async fn read_audit(&self, entry: &Entry, what: &str) -> Result<(), Refusal> {
        let kind = EventKind::AuditRead { what: what.to_owned() };
        self.admit_event(entry, AdminAction::ReadAudit, None, kind).await?;
        Ok(())
    }

    /// Permits that somebody reads how the processes of the house and their hosts are. That it was read
    /// is a record of its own: it stands in the log, too.
    pub async fn read_diagnostics(&self, entry: &Entry) -> Result<(), Refusal> {
        let kind = EventKind::AuditRead { what: "diagnostics".to_owned() };
        self.admit_event(entry, AdminAction::ReadDiagnostics, None, kind).await?;
        Ok(())
    }

    /// Everything there is, for those who may list it.
    pub async fn records(&self, entry: &Entry) -> Result<Records, Refusal> {
        self.may(entry, AdminAction::ListRecords).await?;
        let store = &self.inner.store;
        let read = async {
            let datasets = store.datasets().await?;
            let mut objects = Vec::new();
            for dataset in &datasets {
                objects.extend(store.objects(&dataset.id).await?);
            }
            Ok(Records {
                people: store.people().await?,
                studies: store.studies().await?,
                datasets,
                objects,
                grants: store.grants().await?,
                agents: store.agents().await?,
            })
        };
        read.await.map_err(|e: store::StoreError| Refusal::store(&e))
    }

    /// Founds an empty house: records its first administrator, and makes the one-time tokens with
    /// which that person's first device and the first agent enrol. It may be asked at every start:
    /// until they have enrolled, whoever lost a token on the way (or was killed before handing it
    /// out) gets a fresh one.
    pub async fn found(&self, admin: &PersonId, agent: &AgentId) -> Result<FirstTokens, Refusal> {
        let store = &self.inner.store;
        let people = store.people().await.map_err(|e| Refusal::store(&e))?;
        if people.is_empty() {
            let kind = EventKind::RecordChanged {
                record: RecordKind::Person,
                id: admin.to_string(),
                change: Change::Created,
            };
            self.record(&self.happened(kind)).await?;
            let roles = ["steward", "security", "operator"];
            let roles = roles.into_iter().filter_map(|role| RoleId::from_name(role).ok()).collect();
            let name = "First administrator".to_owned();
            self.create_person(NewPerson { person: admin.clone(), name, roles }).await?;
        }
        let mut first = FirstTokens { person: None, agent: None };
        let known = people.is_empty() || people.iter().any(|person| person.id == *admin);
        if known && store.device_keys(admin).await.map_err(|e| Refusal::store(&e))?.is_empty() {
            first.person = Some(self.make_token(None, TokenSubject::Person(admin.clone())).await?);
        }
        if store.agent(agent).await.map_err(|e| Refusal::store(&e))?.is_none() {
            first.agent = Some(self.make_token(None, TokenSubject::Agent(agent.clone())).await?);
        }
        Ok(first)
    }

    async fn create_person(&self, new: NewPerson) -> Result<(), Refusal> {
        if [crate::findings::DETECTION, crate::keeping::HOUSE].contains(&new.person.name()) {
            return Err(Refusal::malformed("This name stands for the house itself in records."));
        }
        if new.roles.iter().any(|role| role.name() == crate::keeping::HOUSE_ROLE) {
            return Err(Refusal::malformed("role:house is the house's own; no person has it."));
        }
        let person = store::Person {
            id: new.person,
            display_name: new.name,
            roles: new.roles,
            recorded_at: self.now(),
            state: PersonState::Active,
        };
        self.inner.store.create_person(&person).await.map_err(|e| Refusal::store(&e))?;
        Ok(())
    }

    async fn make_token(&self, entry: Option<&Entry>, subject: TokenSubject) -> Result<String, Refusal> {
        let ca = self.authorities().await?.x509_ca().map_err(|e| Refusal::signer(&e.into()))?;
        let (kind, name) = match &subject {
            TokenSubject::Person(person) => (TokenKind::Person, person.to_string()),
            TokenSubject::Agent(agent) => (TokenKind::Agent, agent.to_string()),
        };
        let token = Token::issue(kind, &ca, &*self.inner.entropy).map_err(|e| Refusal::entropy(&e))?;
        let expires = self.now().plus(self.inner.settings.token_lifetime);
        let issued = EventKind::TokenIssued { subject: name, expires };
        let event = match entry {
            Some(entry) => self.happened_to(entry, issued),
            None => self.happened(issued),
        };
        self.record(&event).await?;
        let row = store::EnrolmentToken { hash: token.hash(), subject, expires };
        self.inner.store.create_token(&row).await.map_err(|e| Refusal::store(&e))?;
        Ok(token.to_text().to_string())
    }

    pub(crate) async fn admit(
        &self,
        entry: &Entry,
        action: AdminAction,
        (record, id, change): (RecordKind, String, Change),
    ) -> Result<Permit<Administer>, Refusal> {
        self.admit_event(entry, action, None, EventKind::RecordChanged { record, id, change }).await
    }

    /// The same of what a second officer may have had to approve; see [`Gate::second`].
    pub(crate) async fn admit_seconded(
        &self,
        entry: &Entry,
        action: AdminAction,
        (record, id, change): (RecordKind, String, Change),
        second: Option<Seconded>,
    ) -> Result<Permit<Administer>, Refusal> {
        let kind = EventKind::RecordChanged { record, id, change };
        self.admit_as(entry, action, None, kind, second).await
    }

    /// Decides an act of administration and records it; what follows is done under its permit.
    pub(crate) async fn admit_event(
        &self,
        entry: &Entry,
        action: AdminAction,
        study: Option<&StudyId>,
        kind: EventKind,
    ) -> Result<Permit<Administer>, Refusal> {
        self.admit_as(entry, action, study, kind, None).await
    }

    async fn admit_as(
        &self,
        entry: &Entry,
        action: AdminAction,
        study: Option<&StudyId>,
        kind: EventKind,
        second: Option<Seconded>,
    ) -> Result<Permit<Administer>, Refusal> {
        let lease = self.inner.leases.register(&entry.person, study, &self.inner.clock);
        let (basis, epoch) = self.may(entry, action).await?;
        let decision = events::permitted(Action::Administer(action), &basis, epoch);
        let decision = Some(Seconded::marked(second, decision));
        let event = Event { study: study.cloned(), decision, ..self.happened_to(entry, kind) };
        Ok(Permit::mint(Administer, self.record(&event).await?, lease))
    }

    pub(crate) async fn may(&self, entry: &Entry, action: AdminAction) -> Result<(Basis, u64), Refusal> {
        let records =
            facts::of_person(&self.inner.store, &entry.person).await.map_err(|e| Refusal::store(&e))?;
        let request = Request {
            person: entry.person.clone(),
            study: None,
            dataset: None,
            action: Action::Administer(action),
            purpose: None,
            now: self.now(),
        };
        let policies = self.inner.policies.load_full();
        match policy::decide(&request, &policies, &records) {
            Decision::Permit(basis) => Ok((Basis::from(&basis), policies.epoch())),
            Decision::Deny(denial) | Decision::Manual(denial) => {
                let kind = EventKind::AdminRefused {
                    action: request.action.name().to_owned(),
                    code: denial.code().to_owned(),
                    reason: sentence(&denial.to_string()),
                };
                let event = self.happened_to(entry, kind);
                Err(self.refuse(event, request.action, &denial, policies.epoch()).await?)
            }
        }
    }

    /// Puts a changed study's policy in force. If it cannot be read or does not compile, the study
    /// is shut instead: an old policy must not outlive a revocation.
    pub(crate) async fn reload_study(&self, study: &StudyId) -> Result<(), Refusal> {
        let policies = self.inner.policies.load_full();
        let changed = match self.inner.store.study_policy(study).await {
            Ok(now) => policies
                .with_study(now.epoch, study, &now.memberships, &now.grants)
                .map_err(|error| broken_policy(study, &error)),
            Err(error) => Err(Refusal::store(&error)),
        };
        let (set, answer) = match changed {
            Ok(set) => (set, Ok(())),
            Err(refusal) => {
                let shut = policies.with_study(policies.epoch() + 1, study, &[], &[]);
                // Leaving rules out cannot fail; if it did, nothing at all would be permitted.
                let shut = shut.or_else(|_| PolicySet::build(policies.epoch() + 1, &[], &[]));
                (shut.map_err(|error| broken_policy(study, &error))?, Err(refusal))
            }
        };
        self.inner.policies.store(std::sync::Arc::new(set));
        answer
    }
}

/// The tokens of a house that is being founded.
#[derive(Debug, Clone)]
pub struct FirstTokens {
    /// For the first administrator, who has no device yet.
    pub person: Option<String>,
    /// For the first agent, which has not enrolled yet.
    pub agent: Option<String>,
}

fn broken_policy(study: &StudyId, error: &policy::PolicyError) -> Refusal {
    tracing::error!(%study, %error, "the stored policy does not compile; the study is shut");
    Refusal::new(
        RefusalKind::Unavailable,
        "policy-broken",
        "The change was stored, but the policy that follows from it does not compile, so the study is shut. Please tell the operators.",
    )
}
