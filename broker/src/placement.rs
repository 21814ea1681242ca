//! Which agent takes a workspace: pure, from what agents say of themselves.
//!
//! A workspace stays where it lies, because its home is there. A new one goes where it finds most of the
//! backends that it reads from near, and little going on; an agent that cannot reach them as well as
//! another, is full, or is being taken out of service is passed over.

use std::collections::BTreeSet;

use model::{AgentId, BackendId, WorkspaceId};

/// An agent, as far as it matters here.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) agent: AgentId,
    pub(crate) reaches: BTreeSet<BackendId>,
    pub(crate) near: BTreeSet<BackendId>,
    pub(crate) sessions: u32,
    pub(crate) capacity: u32,
    pub(crate) cpu_permille: u16,
    pub(crate) memory_permille: u16,
    pub(crate) running: BTreeSet<WorkspaceId>,
}

/// What is to be placed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) workspace: Option<WorkspaceId>,
    /// Where it lies, if it is there already.
    pub(crate) home: Option<AgentId>,
    /// Where shares of what it reads lie, if that is known.
    pub(crate) backends: BTreeSet<BackendId>,
    pub(crate) draining: BTreeSet<AgentId>,
}

/// Why there is no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoPlace {
    #[error(
        "No host for workspaces is connected at the moment. Try again in a few minutes; the operators see this too."
    )]
    NoAgent,
    #[error(
        "Your workspace lies on the host {0}, which is not connected at the moment. Try again in a few minutes; the operators see this too."
    )]
    Away(AgentId),
    #[error(
        "The host of your workspace, {0}, is being taken out of service. Try again later, or ask the operators."
    )]
    Draining(AgentId),
    #[error("All hosts for workspaces run as many sessions as they may. Try again when some have ended.")]
    Full,
}

impl NoPlace {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            NoPlace::NoAgent => "no-agent",
            NoPlace::Away(_) => "agent-away",
            NoPlace::Draining(_) => "agent-draining",
            NoPlace::Full => "agents-full",
        }
    }
}

/// How much lighter an agent counts, in thousandths, that has everything near.
const NEARNESS: u64 = 300;

/// The agent for it.
pub(crate) fn choose(candidates: &[Candidate], wanted: &Wanted) -> Result<AgentId, NoPlace> {
    let runs_it = |candidate: &&Candidate| {
        wanted.workspace.as_ref().is_some_and(|workspace| candidate.running.contains(workspace))
    };
    let is_home = |candidate: &&Candidate| wanted.home.as_ref() == Some(&candidate.agent);
    if let Some(home) = &wanted.home {
        // Where it runs already it may be entered to the last; nothing new starts there.
        return match candidates.iter().find(is_home) {
            None => Err(NoPlace::Away(home.clone())),
            Some(found) if wanted.draining.contains(home) && !runs_it(&found) => {
                Err(NoPlace::Draining(home.clone()))
            }
            Some(found) => Ok(found.agent.clone()),
        };
    }
    let open: Vec<&Candidate> =
        candidates.iter().filter(|candidate| !wanted.draining.contains(&candidate.agent)).collect();
    let Some(most) = open.iter().map(|candidate| candidate.reach(wanted)).max() else {
        return Err(NoPlace::NoAgent);
    };
    let able = open.into_iter().filter(|candidate| candidate.reach(wanted) == most);
    let roomy = able.filter(|candidate| candidate.sessions < candidate.capacity);
    let best = roomy.min_by_key(|candidate| (candidate.weight(wanted), candidate.agent.clone()));
    best.map(|best| best.agent.clone()).ok_or(NoPlace::Full)
}

impl Candidate {
    /// How many of the backends it reaches.
    fn reach(&self, wanted: &Wanted) -> usize {
        wanted.backends.intersection(&self.reaches).count()
    }

    /// How little speaks for it: the scarcest of what it has, less what is near.
    fn weight(&self, wanted: &Wanted) -> u64 {
        let sessions = u64::from(self.sessions) * 1000 / u64::from(self.capacity.max(1));
        let load = sessions.max(self.cpu_permille.into()).max(self.memory_permille.into());
        let near = wanted.backends.intersection(&self.near).count() as u64;
        let nearness = (near * NEARNESS).checked_div(wanted.backends.len() as u64).unwrap_or(0);
        (load + NEARNESS) - nearness
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str) -> AgentId {
        AgentId::from_name(name).unwrap()
    }

    fn backends(names: &str) -> BTreeSet<BackendId> {
        names.chars().map(|name| BackendId::from_name(&name.to_string()).unwrap()).collect()
    }

    fn candidate(name: &str, near: &str, sessions: u32, cpu: u16) -> Candidate {
        Candidate {
            agent: agent(name),
            reaches: backends("abc"),
            near: backends(near),
            sessions,
            capacity: 10,
            cpu_permille: cpu,
            memory_permille: 100,
            running: BTreeSet::new(),
        }
    }

    fn chosen(candidates: &[Candidate], wanted: &Wanted) -> Result<String, NoPlace> {
        choose(candidates, wanted).map(|agent| agent.name().to_owned())
    }

    #[test]
    fn a_new_workspace_goes_where_there_is_least_to_do() {
        let wanted = Wanted { backends: backends("abc"), ..Wanted::default() };
        let all =
            [candidate("one", "", 5, 100), candidate("two", "", 2, 100), candidate("three", "", 0, 900)];
        assert_eq!(chosen(&all, &wanted).unwrap(), "two");
        assert_eq!(chosen(&all[..1], &wanted).unwrap(), "one");
        assert_eq!(chosen(&[], &wanted), Err(NoPlace::NoAgent));
    }

    #[test]
    fn data_that_is_near_outweighs_some_load_and_not_all() {
        let wanted = Wanted { backends: backends("ab"), ..Wanted::default() };
        let all = [candidate("near", "abc", 3, 0), candidate("far", "", 1, 0)];
        assert_eq!(chosen(&all, &wanted).unwrap(), "near");
        let all = [candidate("near", "abc", 6, 0), candidate("far", "", 1, 0)];
        assert_eq!(chosen(&all, &wanted).unwrap(), "far");
        let unknown = Wanted::default();
        assert_eq!(chosen(&all, &unknown).unwrap(), "far", "nothing is near to what is not known");
    }

    #[test]
    fn who_is_full_or_draining_or_does_not_reach_the_data_is_passed_over() {
        let wanted = Wanted { backends: backends("abc"), ..Wanted::default() };
        let mut all =
            [candidate("full", "abc", 10, 0), candidate("blind", "", 0, 0), candidate("ok", "", 9, 0)];
        all[1].reaches = backends("a");
        assert_eq!(chosen(&all, &wanted).unwrap(), "ok");
        let draining = Wanted { draining: [agent("ok")].into(), ..wanted.clone() };
        assert_eq!(chosen(&all, &draining), Err(NoPlace::Full));
        assert_eq!(chosen(&all[..1], &wanted), Err(NoPlace::Full));
    }

    #[test]
    fn a_workspace_stays_where_its_home_is() {
        let workspace = model::WorkspaceId::from_name("brca.alice").unwrap();
        let mut all = [candidate("home", "", 10, 1000), candidate("idle", "abc", 0, 0)];
        let wanted =
            Wanted { workspace: Some(workspace.clone()), home: Some(agent("home")), ..Wanted::default() };
        assert_eq!(chosen(&all, &wanted).unwrap(), "home");
        assert_eq!(chosen(&all[1..], &wanted), Err(NoPlace::Away(agent("home"))));
        let draining = Wanted { draining: [agent("home")].into(), ..wanted };
        assert_eq!(chosen(&all, &draining), Err(NoPlace::Draining(agent("home"))));
        all[0].running.insert(workspace);
        assert_eq!(chosen(&all, &draining).unwrap(), "home", "it runs there: it may be entered");
    }
}
