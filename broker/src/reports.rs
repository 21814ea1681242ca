//! What agents report, as records.

use audit::{Event, EventKind, ReadFaultKind};
use gate::Gate;
use model::observed::{Actor, Diagnosis, Observation};
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
        AgentEvent::Diagnosed(diagnosis) => (diagnosed(from, diagnosis), None, None),
    };
    let event = Event { session, ..Event::new(gate.now(), kind) };
    gate.attribute(event, agent, workspace.as_ref())
}

fn observed(workspace: WorkspaceId, agent: AgentId, what: Observation) -> EventKind {
    match what {
        Observation::Process { by, parent_pid, parent_program, program, argv, directory, outcome } => {
            let Actor { pid, uid, program: _ } = by;
            EventKind::ProcessStarted {
                workspace,
                agent,
                program,
                argv,
                directory,
                pid,
                parent_pid,
                parent_program,
                uid,
                outcome,
            }
        }
        Observation::Connection { by, family, protocol, address, port, count, outcome } => {
            let Actor { pid, uid, program } = by;
            EventKind::ConnectionAttempted {
                workspace,
                agent,
                family,
                protocol,
                address,
                port,
                pid,
                uid,
                program,
                count,
                outcome,
            }
        }
        Observation::Packets {
            protocol,
            source,
            source_port,
            destination,
            destination_port,
            count,
            bytes,
        } => EventKind::PacketDropped {
            workspace,
            agent,
            protocol,
            source,
            source_port,
            destination,
            destination_port,
            count,
            bytes,
        },
        Observation::FileRead { by, object, dataset, name, size, phase, bytes, reads } => {
            let (pid, program) = by.map(|by| (by.pid, by.program)).unzip();
            EventKind::FileRead {
                workspace,
                agent,
                object,
                dataset,
                name,
                size,
                phase,
                bytes,
                reads,
                pid,
                program: program.flatten(),
            }
        }
        Observation::Overflow { processes, connections, packets, files, examples } => {
            EventKind::ActivityOverflowed {
                workspace,
                agent,
                processes,
                connections,
                packets,
                files,
                examples,
            }
        }
    }
}

fn diagnosed(agent: AgentId, diagnosis: Diagnosis) -> EventKind {
    let state = diagnosis.state();
    let Diagnosis { cause, facts, checks, changes } = diagnosis;
    EventKind::AgentDiagnosed { agent, cause, state, facts, checks, changes }
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
