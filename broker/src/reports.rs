//! What agents report, as records.

use audit::{Event, EventKind, ReadFaultKind};
use gate::Gate;
use model::observed::Observation;
use model::{AgentId, WorkspaceId};
use wire::message::{AgentEvent, FaultKind};

/// The record of a report, with what is known here of whose it is.
pub(crate) fn record_of(gate: &Gate, agent: &AgentId, event: AgentEvent) -> Event {
    let from = agent.clone();
    let (kind, session, workspace) = match event {
        AgentEvent::ReadFault { session, object, backend, institution, kind, block, detail } => {
            let fault = fault_kind(kind);
            let kind =
                EventKind::ReadFault { agent: from, backend, institution, object, block, fault, detail };
            (kind, session, None)
        }
        AgentEvent::ReadFailed { session, object, block, detail } => {
            let detail = match block {
                Some(block) => format!("block {block}: {detail}"),
                None => detail,
            };
            (EventKind::ReadFailed { agent: from, object, detail }, session, None)
        }
        AgentEvent::WorkspaceStarted { workspace, cold_ms } => {
            let kind = EventKind::WorkspaceStarted { workspace: workspace.clone(), agent: from, cold_ms };
            (kind, None, Some(workspace))
        }
        AgentEvent::WorkspaceStopped { workspace, reason } => {
            let kind = EventKind::WorkspaceStopped { workspace: workspace.clone(), agent: from, reason };
            (kind, None, Some(workspace))
        }
        AgentEvent::Observed { workspace, session, what } => {
            (observed(workspace.clone(), from, what), session, Some(workspace))
        }
        AgentEvent::Diagnosed(what) => {
            (EventKind::AgentDiagnosed { agent: from, state: what.state(), what }, None, None)
        }
    };
    let event = Event { session, ..Event::new(gate.now(), kind) };
    gate.attribute(event, agent, workspace.as_ref())
}

fn observed(workspace: WorkspaceId, agent: AgentId, what: Observation) -> EventKind {
    match what {
        Observation::Process(what) => EventKind::ProcessStarted { workspace, agent, what },
        Observation::Connection(what) => EventKind::ConnectionAttempted { workspace, agent, what },
        Observation::Packets(what) => EventKind::PacketDropped { workspace, agent, what },
        Observation::FileRead(what) => EventKind::FileRead { workspace, agent, what },
        Observation::Overflow(what) => EventKind::ActivityOverflowed { workspace, agent, what },
    }
}

fn fault_kind(kind: FaultKind) -> ReadFaultKind {
    match kind {
        FaultKind::Missing => ReadFaultKind::Missing,
        FaultKind::Corrupt => ReadFaultKind::Corrupt,
        FaultKind::Short => ReadFaultKind::Short,
        FaultKind::Unreachable => ReadFaultKind::Unreachable,
        FaultKind::Timeout => ReadFaultKind::Timeout,
    }
}
