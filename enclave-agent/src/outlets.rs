//! Which of several brokers hears a report.
//!
//! What happened in a session or a workspace is told to the broker whose order it was; what is about the
//! agent itself, to all of them. A broker that is away hears it when it is back.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use model::{SessionId, WorkspaceId};
use wire::agent::BrokerLink;
use wire::message::AgentEvent;

/// Sessions that are remembered.
const REMEMBERED: usize = 65_536;

/// The brokers, and who ordered what. Clones share everything.
#[derive(Clone, Default)]
pub struct Outlets(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    links: Vec<BrokerLink>,
    /// Reports that some broker never got.
    lost: u64,
    sessions: HashMap<SessionId, usize>,
    in_order: VecDeque<SessionId>,
    /// The last that ordered something there, and all of them.
    workspaces: HashMap<WorkspaceId, (usize, BTreeSet<usize>)>,
}

impl Outlets {
    /// These are the brokers.
    pub fn connect(&self, links: &[BrokerLink]) {
        self.lock().links = links.to_vec();
    }

    /// The broker of this number ordered a session in a workspace.
    pub fn ordered(&self, by: usize, session: &SessionId, workspace: &WorkspaceId) {
        let mut inner = self.lock();
        if inner.in_order.len() >= REMEMBERED
            && let Some(oldest) = inner.in_order.pop_front()
        {
            inner.sessions.remove(&oldest);
        }
        if inner.sessions.insert(session.clone(), by).is_none() {
            inner.in_order.push_back(session.clone());
        }
        let known = inner.workspaces.entry(workspace.clone()).or_default();
        known.0 = by;
        known.1.insert(by);
    }

    /// Tells whoever is to hear it.
    pub fn tell(&self, event: &AgentEvent) {
        let links = {
            let mut inner = self.lock();
            let whose = inner.whose(event);
            if let AgentEvent::WorkspaceStopped { workspace, .. } = event {
                inner.workspaces.remove(workspace);
            }
            match whose.and_then(|at| inner.links.get(at)) {
                Some(link) => vec![link.clone()],
                None => inner.links.clone(),
            }
        };
        for link in links {
            if let Err(full) = link.try_report(event.clone()) {
                self.lock().lost += 1;
                tracing::error!(%full, "a report was lost: the broker does not take them");
            }
        }
    }

    /// Whether the broker of this number ordered something in a workspace.
    pub fn has_ordered(&self, by: usize, workspace: &WorkspaceId) -> bool {
        self.lock().workspaces.get(workspace).is_some_and(|(_, all)| all.contains(&by))
    }

    /// The most that waits for any of them.
    pub fn unacknowledged(&self) -> usize {
        self.lock().links.iter().map(BrokerLink::unacknowledged).max().unwrap_or(0)
    }

    /// How many reports some broker never got.
    pub fn lost(&self) -> u64 {
        self.lock().lost
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn whose(&self, event: &AgentEvent) -> Option<usize> {
        let (session, workspace) = match event {
            AgentEvent::ReadFault { session, .. } | AgentEvent::ReadFailed { session, .. } => {
                (session.as_ref(), None)
            }
            AgentEvent::WorkspaceStarted { workspace, .. }
            | AgentEvent::WorkspaceStopped { workspace, .. } => (None, Some(workspace)),
            AgentEvent::Observed { workspace, session, .. } => (session.as_ref(), Some(workspace)),
            AgentEvent::Diagnosed(_) => (None, None),
        };
        let of_session = session.and_then(|session| self.sessions.get(session));
        of_session
            .or_else(|| workspace.and_then(|workspace| Some(&self.workspaces.get(workspace)?.0)))
            .copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_goes_to_whoever_ordered_it() {
        let outlets = Outlets::default();
        let (one, two) = (SessionId::from_name("s1").unwrap(), SessionId::from_name("s2").unwrap());
        let workspace = WorkspaceId::from_name("brca.alice").unwrap();
        outlets.ordered(0, &one, &workspace);
        outlets.ordered(1, &two, &workspace);
        let whose = |event: &AgentEvent| outlets.lock().whose(event);
        let failed = |session: &SessionId| AgentEvent::ReadFailed {
            session: Some(session.clone()),
            object: model::ObjectId::from_name("o").unwrap(),
            block: None,
            detail: String::new(),
        };
        assert_eq!((whose(&failed(&one)), whose(&failed(&two))), (Some(0), Some(1)));
        let stopped = AgentEvent::WorkspaceStopped { workspace: workspace.clone(), reason: String::new() };
        assert_eq!(whose(&stopped), Some(1), "the last that ordered something there");
        outlets.tell(&stopped);
        assert_eq!(whose(&stopped), None);
        let odd = SessionId::from_name("s3").unwrap();
        assert_eq!(whose(&failed(&odd)), None, "all of them hear it");
    }
}
