//! Workspaces: which a person has, where they lie, and what becomes of them.
//!
//! A workspace may run while nobody is in it. What it rests on is then a permit of its own,
//! [`KeepWorkspace`], which ends when a grant is revoked or a person is locked, like that of a session;
//! whoever holds it has the workspace stopped.

use std::collections::BTreeSet;

use audit::{Change, Event, EventKind, RecordKind};
use certs::ticket::{Fate, Order, WorkspaceOrder};
use model::{AgentId, BackendId, PersonId, StudyId, WorkspaceId, WorkspaceName};
use policy::{Action, AdminAction, Decision, Denial, Limit, Request, StudyLimits};
use store::{Workspace, WorkspaceState};

use crate::events::{self, Basis};
use crate::refusal::RefusalKind;
use crate::{Entry, Gate, Permit, Refusal, facts};

/// How often the keeping of a workspace that keeps losing to changes of policy is decided again.
const DECIDE_AGAIN: usize = 8;

/// A workspace by the names that people use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The study.
    pub study: StudyId,
    /// The person's name for it.
    pub workspace: WorkspaceName,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let study = self.study.name();
        if self.workspace.is_main() { f.write_str(study) } else { write!(f, "{study}+{}", self.workspace) }
    }
}

/// Where a workspace lies, or could.
#[derive(Debug, Clone)]
pub struct Whereabouts {
    /// Which it is.
    pub workspace: WorkspaceId,
    /// The agent that has its home, once there is one.
    pub home: Option<AgentId>,
    /// Where shares of the study's datasets lie, as far as that is on record.
    pub backends: BTreeSet<BackendId>,
    /// Agents that take no new work.
    pub draining: BTreeSet<AgentId>,
}

/// A permitted run of a workspace, also while nobody is in it.
#[derive(Debug, Clone)]
pub struct KeepWorkspace {
    /// Which.
    pub workspace: WorkspaceId,
    basis: Vec<model::GrantId>,
    until: model::Timestamp,
}

impl crate::permit::sealed::Sealed for KeepWorkspace {}

/// Something ordered of the agent that has a workspace.
#[derive(Debug, Clone)]
pub struct Errand {
    /// Which workspace.
    pub workspace: WorkspaceId,
    /// Who has it.
    pub agent: AgentId,
    /// The sealed ticket.
    pub ticket: Vec<u8>,
}

impl Gate {
    /// The workspaces that a person could be meant to ask for: those they have, and the first one in
    /// each study where they have none.
    pub async fn choices(&self, person: &PersonId) -> Result<Vec<Target>, Refusal> {
        let store = &self.inner.store;
        let read = async {
            let studies: BTreeSet<StudyId> =
                store.memberships_of(person).await?.into_iter().map(|member| member.study).collect();
            let own = store.workspaces_of(person).await?;
            let mut choices = Vec::new();
            for study in studies {
                let open = store.study(&study).await?.is_some_and(|found| {
                    found.state == store::StudyState::Active && found.until > self.now()
                });
                if !open {
                    continue;
                }
                let before = choices.len();
                for workspace in own.iter().filter(|workspace| workspace.study == study) {
                    choices.push(Target { study: study.clone(), workspace: workspace.name.clone() });
                }
                if choices.len() == before {
                    choices.push(Target { study, workspace: WorkspaceName::default() });
                }
            }
            Ok(choices)
        };
        read.await.map_err(|e: store::StoreError| Refusal::store(&e))
    }

    /// Where a person's workspace lies, or what speaks for one place or another. It permits nothing.
    pub async fn whereabouts(&self, person: &PersonId, target: &Target) -> Result<Whereabouts, Refusal> {
        let store = &self.inner.store;
        let workspace = facts::workspace(&target.study, person, &target.workspace);
        let read = async {
            let home = store.workspace(&workspace).await?.map(|known| known.agent);
            let mut backends = BTreeSet::new();
            // It is asked for once in the life of a workspace.
            if home.is_none() {
                let grants = store.study_policy(&target.study).await?.grants;
                let datasets: BTreeSet<_> = grants.into_iter().map(|grant| grant.dataset).collect();
                for dataset in datasets {
                    for object in store.objects(&dataset).await? {
                        backends.extend(object.backends);
                    }
                }
            }
            let agents = store.agents().await?;
            let draining = agents.into_iter().filter(|agent| agent.draining_since.is_some());
            let draining = draining.map(|agent| agent.id).collect();
            Ok(Whereabouts { workspace, home, backends, draining })
        };
        read.await.map_err(|e: store::StoreError| Refusal::store(&e))
    }

    /// Lets a workspace run on, as long as its person may open a session there. Nothing is answered if
    /// what `held` permits is still all there is to permit.
    pub async fn keep_workspace(
        &self,
        agent: &AgentId,
        id: &WorkspaceId,
        held: Option<&Permit<KeepWorkspace>>,
    ) -> Result<Option<Permit<KeepWorkspace>>, Refusal> {
        let known = self.inner.store.workspace(id).await.map_err(|e| Refusal::store(&e))?;
        let known =
            known.filter(|known| known.agent == *agent).ok_or_else(|| Refusal::unknown(id.as_str()))?;
        let lease = self.inner.leases.register_quietly(&known.person, &known.study, &self.inner.clock);
        for _ in 0..DECIDE_AGAIN {
            let policies = self.inner.policies.load_full();
            let epoch = policies.epoch();
            let basis = match self.decide_keep(&known, &policies).await? {
                Ok(basis) => basis,
                // The end of the workspace is what is recorded of it.
                Err(denial) => return Err(Refusal::denied(&denial)),
            };
            lease.rest_on(basis.grants.clone(), Vec::new(), basis.until);
            if self.inner.policies.load().epoch() != epoch {
                continue;
            }
            let keep =
                KeepWorkspace { workspace: id.clone(), basis: basis.grants.clone(), until: basis.until };
            if held
                .is_some_and(|held| (&held.action().basis, held.action().until) == (&keep.basis, keep.until))
            {
                return Ok(None);
            }
            let kind = EventKind::RecordChanged {
                record: RecordKind::Workspace,
                id: format!("{id} runs on {agent}"),
                change: Change::Updated,
            };
            let event = Event {
                person: Some(known.person.clone()),
                study: Some(known.study.clone()),
                decision: Some(events::permitted(Action::OpenSession, &basis, epoch)),
                ..self.happened(kind)
            };
            return Ok(Some(Permit::mint(keep, self.record(&event).await?, lease)));
        }
        Err(Refusal::new(
            RefusalKind::Unavailable,
            "policy-changing",
            "The policy of this study is changing right now.",
        ))
    }

    async fn decide_keep(
        &self,
        workspace: &Workspace,
        policies: &policy::PolicySet,
    ) -> Result<Result<Basis, Denial>, Refusal> {
        let Workspace { person, study, .. } = workspace;
        if let Err(held) = is_open(workspace) {
            return Ok(Err(held));
        }
        let records =
            facts::of_study(&self.inner.store, person, study).await.map_err(|e| Refusal::store(&e))?;
        let ask = |action, dataset, purpose| Request {
            person: person.clone(),
            study: Some(study.clone()),
            dataset,
            action,
            purpose,
            now: self.now(),
        };
        let open = policy::decide(&ask(Action::OpenSession, None, None), policies, &records.facts(&[]));
        let mut basis = match open {
            Decision::Permit(basis) => Basis::from(&basis),
            Decision::Deny(denial) | Decision::Manual(denial) => return Ok(Err(denial)),
        };
        for granted in &records.datasets {
            for purpose in records.purposes() {
                let question = ask(Action::ReadDataset, Some(granted.id.clone()), Some(purpose));
                let decided = policy::decide(&question, policies, &records.facts(&granted.conditions));
                if let Decision::Permit(more) = decided {
                    basis.add(&more);
                    break;
                }
            }
        }
        if basis.grants.is_empty() {
            return Ok(Err(Denial::NothingGranted { study: study.clone() }));
        }
        Ok(Ok(basis))
    }

    /// A person's own workspaces, or those of a study for whoever may manage them there.
    pub async fn workspaces(
        &self,
        entry: &Entry,
        study: Option<&StudyId>,
    ) -> Result<Vec<Workspace>, Refusal> {
        let store = &self.inner.store;
        match study {
            None => {
                self.active(entry).await?;
                store.workspaces_of(&entry.person).await.map_err(|e| Refusal::store(&e))
            }
            Some(study) => {
                self.may_manage(entry, study).await?;
                store.workspaces_in(study).await.map_err(|e| Refusal::store(&e))
            }
        }
    }

    /// Stops a workspace. A person's own starts again when they enter it; another's is held until it is
    /// let go on.
    pub async fn stop_workspace(
        &self,
        entry: &Entry,
        person: &PersonId,
        target: &Target,
        reason: &str,
    ) -> Result<Errand, Refusal> {
        let known = self.find_workspace(person, target).await?;
        let own = *person == entry.person;
        let words = if own { "is stopped".to_owned() } else { format!("is held: {reason}") };
        self.manage(entry, &known, &words).await?;
        if !own {
            let at = self.now();
            let held = self.inner.store.hold_workspace(&known.id, at, &entry.person, reason).await;
            held.map_err(|e| Refusal::store(&e))?;
        }
        let why =
            if own { "you stopped it".to_owned() } else { format!("{} stopped it: {reason}", entry.person) };
        self.errand(&known.agent, &known.id, Fate::Stop, &why)
    }

    /// Lets a held workspace go on.
    pub async fn resume_workspace(
        &self,
        entry: &Entry,
        person: &PersonId,
        target: &Target,
    ) -> Result<(), Refusal> {
        let known = self.find_workspace(person, target).await?;
        if let WorkspaceState::Held { by, .. } = &known.state
            && *person == entry.person
            && *by != entry.person
        {
            // Whoever is held cannot let themselves go on, unless they may manage the study's anyway.
            self.may_manage(entry, &target.study).await?;
        }
        self.manage(entry, &known, "may run").await?;
        self.inner.store.release_workspace(&known.id).await.map_err(|e| Refusal::store(&e))
    }

    /// Gives a workspace up for good, with its home.
    pub async fn remove_workspace(
        &self,
        entry: &Entry,
        person: &PersonId,
        target: &Target,
    ) -> Result<Errand, Refusal> {
        let known = self.find_workspace(person, target).await?;
        if self.inner.live.sessions_in(&known.id) > 0 {
            return Err(Refusal::new(
                RefusalKind::Conflict,
                "in-use",
                "Somebody is in this workspace. End its sessions first.",
            ));
        }
        self.manage(entry, &known, "is given up").await?;
        let (person, study, name) = (known.person.clone(), known.study.clone(), known.name.clone());
        let fate = Fate::Remove { person, study, name };
        let errand = self.errand(&known.agent, &known.id, fate, "it was given up")?;
        self.inner.store.remove_workspace(&known.id).await.map_err(|e| Refusal::store(&e))?;
        Ok(errand)
    }

    /// The order that makes an agent stop a workspace that must not run.
    pub fn stop_order(&self, agent: &AgentId, workspace: &WorkspaceId, why: &str) -> Result<Errand, Refusal> {
        self.errand(agent, workspace, Fate::Stop, why)
    }

    /// What a study lets its people use.
    pub async fn limits(&self, entry: &Entry, study: &StudyId) -> Result<StudyLimits, Refusal> {
        self.may(entry, AdminAction::ListRecords).await?;
        let known = self.inner.store.study(study).await.map_err(|e| Refusal::store(&e))?;
        Ok(known.ok_or_else(|| Refusal::unknown(study.as_str()))?.limits)
    }

    /// Changes what a study lets its people use; returns what it is now. A workspace that runs keeps
    /// what it has until it starts again.
    pub async fn set_limits(
        &self,
        entry: &Entry,
        study: &StudyId,
        changes: &[(Limit, u64)],
    ) -> Result<StudyLimits, Refusal> {
        for (limit, to) in changes {
            let set = StudyLimits::default().set(*limit, *to);
            set.map_err(|out| Refusal::malformed(crate::refusal::sentence(&out.to_string())))?;
        }
        let said: String = changes.iter().map(|(limit, to)| format!(" {limit} {to}")).collect();
        let what = (RecordKind::Study, format!("{study} limits{said}"), Change::Updated);
        self.admit(entry, AdminAction::SetLimits, what).await?;
        let (gate, study, changes) = (self.clone(), study.clone(), changes.to_vec());
        self.to_the_end(async move {
            let _one_at_a_time = gate.inner.changing.lock().await;
            let store = &gate.inner.store;
            let known = store.study(&study).await.map_err(|e| Refusal::store(&e))?;
            let mut limits = known.ok_or_else(|| Refusal::unknown(study.as_str()))?.limits;
            for (limit, to) in changes {
                let set = limits.set(limit, to);
                set.map_err(|out| Refusal::malformed(crate::refusal::sentence(&out.to_string())))?;
            }
            store.set_limits(&study, &limits).await.map_err(|e| Refusal::store(&e))?;
            gate.reload_study(&study).await.map(|()| limits)
        })
        .await
    }

    /// Takes an agent out of service for a while, or back into it.
    pub async fn drain_agent(&self, entry: &Entry, agent: &AgentId, drain: bool) -> Result<(), Refusal> {
        let words = if drain { "takes no new work" } else { "takes work again" };
        let what = (RecordKind::Agent, format!("{agent} {words}"), Change::Updated);
        self.admit(entry, AdminAction::Drain, what).await?;
        let since = drain.then(|| self.now());
        self.inner.store.drain_agent(agent, since).await.map_err(|e| Refusal::store(&e))
    }

    /// Lets somebody take this broker out of service.
    pub async fn drain(&self, entry: &Entry) -> Result<(), Refusal> {
        let what = (RecordKind::Service, "broker drain".to_owned(), Change::Updated);
        self.admit(entry, AdminAction::Drain, what).await.map(drop)
    }

    fn errand(
        &self,
        agent: &AgentId,
        workspace: &WorkspaceId,
        fate: Fate,
        reason: &str,
    ) -> Result<Errand, Refusal> {
        let reason = reason.chars().take(300).collect();
        let order = Order::Workspace(WorkspaceOrder { workspace: workspace.clone(), fate, reason });
        let ticket = self.seal(agent, order)?;
        Ok(Errand { workspace: workspace.clone(), agent: agent.clone(), ticket })
    }

    async fn find_workspace(&self, person: &PersonId, target: &Target) -> Result<Workspace, Refusal> {
        let id = facts::workspace(&target.study, person, &target.workspace);
        let found = self.inner.store.workspace(&id).await.map_err(|e| Refusal::store(&e))?;
        found.ok_or_else(|| Refusal::unknown(&format!("the workspace {target} of {person}")))
    }

    /// Whether somebody may say what becomes of a workspace; it is recorded either way.
    async fn manage(&self, entry: &Entry, workspace: &Workspace, words: &str) -> Result<(), Refusal> {
        let kind = EventKind::RecordChanged {
            record: RecordKind::Workspace,
            id: format!("{} {words}", workspace.id),
            change: Change::Updated,
        };
        let decision = if workspace.person == entry.person {
            self.active(entry).await?;
            None
        } else {
            let (action, basis, epoch) = self.may_manage(entry, &workspace.study).await?;
            Some(events::permitted(action, &basis, epoch))
        };
        let study = Some(workspace.study.clone());
        self.record(&Event { study, decision, ..self.happened_to(entry, kind) }).await.map(drop)
    }

    /// By a role in the study, or in the programme.
    async fn may_manage(&self, entry: &Entry, study: &StudyId) -> Result<(Action, Basis, u64), Refusal> {
        let records =
            facts::of_study(&self.inner.store, &entry.person, study).await.map_err(|e| Refusal::store(&e))?;
        let policies = self.inner.policies.load_full();
        let request = Request {
            person: entry.person.clone(),
            study: Some(study.clone()),
            dataset: None,
            action: Action::ManageWorkspace,
            purpose: None,
            now: self.now(),
        };
        if let Decision::Permit(basis) = policy::decide(&request, &policies, &records.facts(&[])) {
            return Ok((Action::ManageWorkspace, Basis::from(&basis), policies.epoch()));
        }
        let action = AdminAction::ManageWorkspaces;
        let (basis, epoch) = self.may(entry, action).await?;
        Ok((Action::Administer(action), basis, epoch))
    }

    /// Whether somebody is on record and not locked: what one's own things take.
    async fn active(&self, entry: &Entry) -> Result<(), Refusal> {
        let facts =
            facts::of_person(&self.inner.store, &entry.person).await.map_err(|e| Refusal::store(&e))?;
        match facts.person {
            policy::Standing::Active => Ok(()),
            policy::Standing::Locked => Err(Refusal::denied(&Denial::PersonLocked)),
            policy::Standing::Unknown => Err(Refusal::denied(&Denial::UnknownPerson)),
        }
    }
}

/// Whether nobody holds a workspace.
pub(crate) fn is_open(workspace: &Workspace) -> Result<(), Denial> {
    match &workspace.state {
        WorkspaceState::Open => Ok(()),
        WorkspaceState::Held { by, reason, .. } => Err(Denial::WorkspaceHeld {
            study: workspace.study.clone(),
            workspace: workspace.name.clone(),
            by: by.clone(),
            reason: reason.clone(),
        }),
    }
}
