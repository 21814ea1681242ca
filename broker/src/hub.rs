//! The agents that are connected.
//!
//! Agents dial in; the hub keeps their links, records what they report (and acknowledges a report
//! only once its record is durable), and says which one takes the next workspace or file.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use audit::{Event, EventKind};
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use gate::{AcceptState, Gate, Permit};
use model::AgentId;
use model::diagnosis::DECLARED_STATE;
use model::observed::Fact;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::CloseCode;
use wire::broker::{AgentLink, AgentListener};
use wire::message::{AgentEvent, Report};

use crate::diagnoses::{BROKER, Diagnoses};
use crate::reports;

/// Reports of one agent that may be on their way to the disk at once.
const TOGETHER: usize = 64;

/// The agents that are connected. Cheap to clone; every clone is the same hub.
#[derive(Debug, Clone, Default)]
pub struct Hub {
    links: Arc<Mutex<BTreeMap<AgentId, AgentLink>>>,
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

    /// The agent that takes the next workspace or file.
    pub fn choose(&self) -> Option<AgentLink> {
        self.links().values().find(|link| link.end().is_none()).cloned()
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

    fn links(&self) -> std::sync::MutexGuard<'_, BTreeMap<AgentId, AgentLink>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
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
