//! Whose a session or a workspace is, so that what an agent reports of it names the person.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use audit::Event;
use model::{AgentId, PersonId, SessionId, StudyId, WorkspaceId};

use crate::Gate;

/// Ended sessions that are remembered: what happened in them may be reported a moment later.
const REMEMBERED: usize = 1024;

/// One session, as an agent carries it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Carried {
    pub session: SessionId,
    pub agent: AgentId,
    pub workspace: WorkspaceId,
    pub person: PersonId,
    pub study: StudyId,
    pub device: String,
    /// Whether it counts where the study says how many there may be.
    pub counts: bool,
}

/// The sessions that go on, and the last of those that ended.
#[derive(Debug, Default)]
pub(crate) struct Live(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    open: HashMap<SessionId, Carried>,
    ended: VecDeque<Carried>,
}

impl Live {
    /// Takes a session in, unless its person has `most` in the study already: how many, then.
    pub(crate) fn begin(&self, carried: Carried, most: u64) -> Result<(), u64> {
        let mut inner = self.lock();
        let same =
            |other: &&Carried| other.counts && other.person == carried.person && other.study == carried.study;
        let have = inner.open.values().filter(same).count() as u64;
        if carried.counts && have >= most {
            return Err(have);
        }
        inner.open.insert(carried.session.clone(), carried);
        Ok(())
    }

    /// How many sessions go on in a workspace.
    pub(crate) fn sessions_in(&self, workspace: &WorkspaceId) -> usize {
        self.lock().open.values().filter(|carried| carried.workspace == *workspace).count()
    }

    pub(crate) fn end(&self, session: &SessionId) {
        let mut inner = self.lock();
        if let Some(carried) = inner.open.remove(session) {
            if inner.ended.len() >= REMEMBERED {
                inner.ended.pop_front();
            }
            inner.ended.push_back(carried);
        }
    }

    /// The session, if it goes on.
    pub(crate) fn open(&self, session: &SessionId) -> Option<Carried> {
        self.lock().open.get(session).cloned()
    }

    /// The session, if this agent carries it out or did a moment ago.
    fn of_session(&self, agent: &AgentId, session: &SessionId) -> Option<Carried> {
        let inner = self.lock();
        let ended = || inner.ended.iter().rev().find(|carried| carried.session == *session);
        inner.open.get(session).or_else(ended).filter(|carried| carried.agent == *agent).cloned()
    }

    /// A session in this workspace. A workspace is one person's in one study.
    fn of_workspace(&self, agent: &AgentId, workspace: &WorkspaceId) -> Option<Carried> {
        let inner = self.lock();
        let hit = |carried: &&Carried| carried.workspace == *workspace && carried.agent == *agent;
        inner.open.values().find(hit).or_else(|| inner.ended.iter().rev().find(hit)).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate {
    /// Says in an event that `agent` reports whose it is: of a session, its person, study and device;
    /// of a workspace, its person and study. A session that this agent does not carry out, in this
    /// workspace if one is given, is taken out of the event: no agent speaks for another's.
    pub fn attribute(&self, event: Event, agent: &AgentId, workspace: Option<&WorkspaceId>) -> Event {
        let live = &self.inner.live;
        let of_session = event
            .session
            .as_ref()
            .and_then(|session| live.of_session(agent, session))
            .filter(|carried| workspace.is_none_or(|workspace| carried.workspace == *workspace));
        if let Some(carried) = of_session {
            return Event {
                person: Some(carried.person),
                study: Some(carried.study),
                device: Some(carried.device),
                ..event
            };
        }
        let whose = workspace.and_then(|workspace| live.of_workspace(agent, workspace));
        let (person, study) = whose.map(|carried| (carried.person, carried.study)).unzip();
        Event { session: None, person, study, ..event }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carried(session: &str, agent: &str) -> Carried {
        Carried {
            session: SessionId::from_name(session).unwrap(),
            agent: AgentId::from_name(agent).unwrap(),
            workspace: WorkspaceId::from_name("brca.alice").unwrap(),
            person: PersonId::from_name("alice").unwrap(),
            study: StudyId::from_name("brca").unwrap(),
            device: "SHA256:abc".to_owned(),
            counts: true,
        }
    }

    #[test]
    fn a_session_is_known_to_its_agent_alone_and_for_a_while_after_its_end() {
        let live = Live::default();
        let (one, other) = (carried("s1", "a"), AgentId::from_name("b").unwrap());
        live.begin(one.clone(), 1).unwrap();
        assert_eq!(live.begin(carried("s2", "a"), 1), Err(1));
        assert_eq!(live.sessions_in(&one.workspace), 1);
        assert_eq!(live.of_session(&one.agent, &one.session), Some(one.clone()));
        assert_eq!(live.of_session(&other, &one.session), None);
        assert_eq!(live.of_workspace(&other, &one.workspace), None);
        live.end(&one.session);
        assert_eq!(live.of_session(&one.agent, &one.session), Some(one.clone()));
        for n in 0..REMEMBERED {
            let next = carried(&format!("t{n}"), "a");
            live.begin(next.clone(), 1).unwrap();
            live.end(&next.session);
        }
        assert_eq!(live.of_session(&one.agent, &one.session), None);
        assert_eq!(live.lock().ended.len(), REMEMBERED);
        assert!(live.of_workspace(&one.agent, &one.workspace).is_some());
    }
}
