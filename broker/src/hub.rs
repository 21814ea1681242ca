//! The agents that are connected.
//!
//! Agents dial in; the hub keeps their links, records what they report (and acknowledges a report
//! only once its record is durable), and says which one takes the next workspace or file.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use audit::{Event, EventKind};
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use gate::{AcceptState, Errand, Gate, Permit, Whereabouts};
use model::diagnosis::DECLARED_STATE;
use model::observed::Fact;
use model::{AgentId, WorkspaceId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::CloseCode;
use wire::broker::{AgentLink, AgentListener};
use wire::message::{AgentEvent, Load, Report};

use crate::diagnoses::{BROKER, Diagnoses};
use crate::drain::Drain;
use crate::lingering::{self, Keeping};
use crate::placement::{self, Candidate, NoPlace, Wanted};
use crate::reports;

/// Reports of one agent that may be on their way to the disk at once.
const TOGETHER: usize = 64;

/// The agents that are connected. Cheap to clone; every clone is the same hub.
#[derive(Debug, Clone, Default)]
pub struct Hub {
    links: Arc<Mutex<BTreeMap<AgentId, AgentLink>>>,
    drains: Arc<Mutex<BTreeMap<AgentId, Drain>>>,
    keeping: Keeping,
    /// How agents and the broker were when they last told.
    pub diagnoses: Diagnoses,
    /// The state of the broker and its host that was accepted last.
    accepted: watch::Sender<Option<String>>,
}

/// Why a state cannot be accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// It tells nothing, or another state.
    #[error("{0} is not in that state, or does not tell any more; look again with `sekisho diagnostics`")]
    Other(String),
    /// It is an agent that is away.
    #[error("{0} is not connected; try again when it is")]
    Away(String),
}

impl Hub {
    /// No agents.
    pub fn new() -> Hub {
        Hub::default()
    }

    /// The agent for a workspace.
    pub(crate) fn place(&self, at: &Whereabouts) -> Result<AgentLink, NoPlace> {
        let wanted = Wanted {
            workspace: Some(at.workspace.clone()),
            home: at.home.clone(),
            backends: at.backends.clone(),
            draining: at.draining.clone(),
        };
        let open: Vec<AgentLink> =
            self.links().values().filter(|link| link.end().is_none()).cloned().collect();
        let candidates: Vec<Candidate> = open.iter().map(candidate).collect();
        let chosen = placement::choose(&candidates, &wanted)?;
        open.into_iter().find(|link| *link.agent() == chosen).ok_or(NoPlace::NoAgent)
    }

    /// What the agents say of themselves.
    pub fn loads(&self) -> BTreeMap<AgentId, Load> {
        let open = |link: &&AgentLink| link.end().is_none();
        let links = self.links();
        links.values().filter(open).map(|link| (link.agent().clone(), link.load().borrow().clone())).collect()
    }

    /// A session begins in a workspace: it may run on when the session has ended.
    pub(crate) fn entered(&self, gate: &Gate, link: &AgentLink, workspace: &WorkspaceId) {
        self.keeping.hold(gate, link, workspace, false);
    }

    /// Has an agent stop a workspace.
    pub(crate) async fn stop(&self, gate: &Gate, agent: &AgentId, workspace: &WorkspaceId, why: &str) {
        let link = self.links().get(agent).cloned();
        if let Some(link) = link {
            lingering::stop(gate, &link, workspace, why).await;
        }
    }

    /// Takes an order to its agent; `false` if that is not connected.
    pub async fn run(&self, errand: Errand) -> bool {
        let link = self.links().get(&errand.agent).cloned();
        match link {
            Some(link) => link.order(errand.ticket).await.is_ok(),
            None => false,
        }
    }

    /// How far an agent is on its way out of service.
    pub fn drain(&self, agent: &AgentId) -> Drain {
        let mut drains = self.drains.lock().unwrap_or_else(PoisonError::into_inner);
        drains.entry(agent.clone()).or_default().clone()
    }

    /// Tells everybody who is on an agent, and stops what is left there after a while.
    pub fn drain_within(&self, gate: &Gate, agent: &AgentId, within: Duration, stopping: &CancellationToken) {
        let drain = self.drain(agent);
        drain.close(within);
        let (hub, gate, agent, stopping) = (self.clone(), gate.clone(), agent.clone(), stopping.clone());
        tokio::spawn(async move {
            let closing = drain.stage();
            tokio::select! {
                () = tokio::time::sleep(within) => {}
                // Taken back, or told anew.
                _ = drain.after(closing) => return,
                () = stopping.cancelled() => return,
            }
            drain.finish();
            let load = hub.loads().remove(&agent).unwrap_or_default();
            for running in load.running {
                hub.stop(&gate, &agent, &running.workspace, "its host is taken out of service").await;
            }
        });
    }

    /// The agent that takes the next file.
    pub fn choose(&self) -> Option<AgentLink> {
        self.links().values().find(|link| link.end().is_none()).cloned()
    }

    /// Every agent that is connected.
    pub fn each(&self) -> Vec<AgentLink> {
        self.links().values().filter(|link| link.end().is_none()).cloned().collect()
    }

    /// Who is connected.
    pub fn connected(&self) -> Vec<AgentId> {
        self.links().keys().cloned().collect()
    }

    /// Tells a process that its state is accepted as the one that was meant, if it is the one that the
    /// process told last.
    pub async fn accept(&self, permit: &Permit<AcceptState>) -> Result<(), AcceptError> {
        let AcceptState { process, state } = permit.action();
        let told = self.diagnoses.all().into_iter().find(|(of, ..)| of == process);
        let is = |fact: &Fact| fact.name == DECLARED_STATE && fact.value == *state;
        if !told.is_some_and(|(_, _, diagnosis)| diagnosis.facts.iter().any(is)) {
            return Err(AcceptError::Other(process.clone()));
        }
        if process == BROKER {
            self.accepted.send_replace(Some(state.clone()));
            return Ok(());
        }
        let away = || AcceptError::Away(process.clone());
        let agent = process.parse::<AgentId>().map_err(|_| away())?;
        let link = self.links().get(&agent).cloned().ok_or_else(away)?;
        link.accept_state(state).await.map_err(|_| away())
    }

    /// The state of the broker and its host that was accepted last, now and later.
    pub fn accepted(&self) -> watch::Receiver<Option<String>> {
        self.accepted.subscribe()
    }

    /// Takes agents in until the broker stops. The links stay open then, so that sessions can be
    /// ended in an orderly way: close the listener after them.
    pub async fn serve(
        &self,
        listener: &AgentListener,
        gate: Gate,
        stopping: CancellationToken,
        tasks: TaskTracker,
    ) {
        loop {
            let link = tokio::select! {
                link = listener.accept() => link,
                () = stopping.cancelled() => return,
            };
            let Some(link) = link else { return };
            let hub = self.clone();
            let (gate, stopping) = (gate.clone(), stopping.clone());
            tasks.spawn(async move { hub.keep(link, &gate, &stopping).await });
        }
    }

    /// One agent from its arrival to its loss.
    async fn keep(&self, link: AgentLink, gate: &Gate, stopping: &CancellationToken) {
        let agent = link.agent().clone();
        let backends = link.hello().backends.iter().map(|(id, at)| format!("{id} ({at})")).collect();
        let kernel = link.hello().kernel.clone();
        let arrived = EventKind::AgentConnected { agent: agent.clone(), kernel, backends };
        if let Err(refusal) = gate.record(&Event::new(gate.now(), arrived)).await {
            tracing::error!(%agent, code = %refusal.code, "an agent came and could not be recorded; it is sent away");
            return;
        }
        tracing::info!(%agent, "an agent is connected");
        self.links().insert(agent.clone(), link.clone());
        let reason = tokio::select! {
            reason = follow(&link, gate, &self.diagnoses) => reason,
            never = self.attend(&link, gate) => match never {},
            () = stopping.cancelled() => "the broker is stopping".to_owned(),
        };
        if !stopping.is_cancelled() {
            // It dials again, and what it could not report comes with it.
            link.close(CloseCode::Done, &reason);
        }
        {
            let mut links = self.links();
            // A newer link of the same agent stays: the transport has closed the older one.
            if links.get(&agent).is_some_and(|known| known.end().is_some()) {
                links.remove(&agent);
            }
        }
        tracing::info!(%agent, %reason, "an agent is gone");
        let lost = EventKind::AgentLost { agent: agent.clone(), reason };
        if let Err(refusal) = gate.record(&Event::new(gate.now(), lost)).await {
            tracing::error!(%agent, code = %refusal.code, "the loss of an agent could not be recorded");
        }
    }

    /// Sees to what an agent says it runs.
    async fn attend(&self, link: &AgentLink, gate: &Gate) -> std::convert::Infallible {
        let mut loads = link.load();
        loop {
            let load = loads.borrow_and_update().clone();
            self.keeping.settle(gate, link, &load);
            if loads.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    fn links(&self) -> std::sync::MutexGuard<'_, BTreeMap<AgentId, AgentLink>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn candidate(link: &AgentLink) -> Candidate {
    let hello = link.hello();
    let load = link.load().borrow().clone();
    Candidate {
        agent: link.agent().clone(),
        reaches: hello.backends.iter().map(|(backend, _)| backend.clone()).collect(),
        near: hello.near.iter().cloned().collect(),
        sessions: load.sessions,
        capacity: hello.capacity,
        cpu_permille: load.cpu_permille,
        memory_permille: load.memory_permille,
        running: load.running.into_iter().map(|running| running.workspace).collect(),
    }
}

/// Records reports until the link ends; returns why it did. Several at a time, so that they share
/// syncs; their order stays.
async fn follow(link: &AgentLink, gate: &Gate, diagnoses: &Diagnoses) -> String {
    let mut recording = FuturesOrdered::new();
    loop {
        tokio::select! {
            report = link.next_report(), if recording.len() < TOGETHER => match report {
                Ok(Report { seq, event }) => {
                    if let AgentEvent::Diagnosed(diagnosis) = &event {
                        diagnoses.keep(link.agent().as_str(), gate.now(), diagnosis.clone());
                    }
                    let event = reports::record_of(gate, link.agent(), event);
                    recording.push_back(async move { (seq, gate.record(&event).await) });
                }
                Err(end) => return end.to_string(),
            },
            Some((seq, recorded)) = recording.next() => {
                if let Err(refusal) = recorded {
                    // Unacknowledged, it comes again on the next link.
                    return format!("its report could not be recorded ({})", refusal.code);
                }
                if let Err(error) = link.ack(seq).await {
                    return error.to_string();
                }
            }
        }
    }
}
