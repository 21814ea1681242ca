//! Eyes on a workspace: what is executed, connected to, sent and read in it.
//!
//! Nothing here decides anything, and nothing here is in anybody's way: what is seen is told in a
//! bounded number of events, and beyond that counted. Not seen are what a program does within itself,
//! datagrams to unix sockets, and what was executed or addressed after a change that another thread
//! made between the look and the call (see [`calls`]).

pub mod address;
mod attempts;
mod barrier;
mod budget;
mod calls;
pub mod packets;
pub mod processes;
mod readings;
pub mod refusal;
pub mod senders;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use model::observed::{Execution, Observation, Overflow, Transport};
use model::{SessionId, WorkspaceId};
use serde::Deserialize;
use sharding::vault::Fault;
use tokio::task::JoinHandle;
use wire::message::AgentEvent;

use crate::init_protocol::INIT;
use crate::mount::{Opening, ReadFailure, Watch};
use crate::reports::Reports;
use address::Address;
use attempts::Attempts;
pub(crate) use barrier::Barrier;
use budget::Budget;
pub(crate) use calls::{Reception, notify};
use packets::{Flows, Packet, Sender};
use processes::Actor;
use readings::{Opened, Readings};
use senders::Announced;

/// How often what is seen is told.
const TICK: Duration = Duration::from_millis(100);
/// How often it is told how much was only counted.
const SUMMARY: Duration = Duration::from_secs(10);
/// Programs that are named in such a summary.
const EXAMPLES: usize = 16;
/// Sessions that ended and are remembered, for what is still told of them.
const ENDED: usize = 256;

/// What is watched, and how much of it is told.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Eyes {
    /// Whether executions and attempts to connect are seen. It takes an OCI runtime that knows
    /// `listenerPath`: runc 1.1, crun 0.19.
    pub calls: bool,
    /// Whether packets are seen. It takes `/dev/net/tun`.
    pub packets: bool,
    /// Executions and attempts that are told one by one in a short time.
    pub burst: u32,
    /// How many of these become free again every second.
    pub per_second: u32,
}

impl Default for Eyes {
    fn default() -> Eyes {
        Eyes { calls: true, packets: true, burst: 500, per_second: 20 }
    }
}

/// The eyes on one workspace.
pub struct Watcher {
    workspace: WorkspaceId,
    reports: Reports,
    state: Mutex<State>,
}

struct State {
    budget: Budget,
    flows: Flows,
    announced: Announced,
    attempts: Attempts,
    readings: Readings,
    /// By the mark that their processes carry; whether they go on.
    sessions: HashMap<u32, (SessionId, bool)>,
    beyond: Beyond,
    summed_up: Instant,
}

/// What was only counted.
#[derive(Default)]
struct Beyond {
    processes: u64,
    connections: u64,
    /// Of other kinds, because the broker took no more.
    packets: u64,
    files: u64,
    programs: BTreeMap<String, u64>,
}

impl Watcher {
    /// Eyes that tell what they see to `reports`.
    pub fn new(workspace: WorkspaceId, eyes: &Eyes, reports: Reports) -> Arc<Watcher> {
        let now = Instant::now();
        let state = State {
            budget: Budget::new(eyes.burst, eyes.per_second, now),
            flows: Flows::default(),
            announced: Announced::default(),
            attempts: Attempts::default(),
            readings: Readings::default(),
            sessions: HashMap::new(),
            beyond: Beyond::default(),
            summed_up: now,
        };
        Arc::new(Watcher { workspace, reports, state: Mutex::new(state) })
    }

    /// Tells what is seen, until dropped.
    pub(crate) fn start(self: &Arc<Self>) -> Telling {
        let watcher = self.clone();
        Telling(tokio::spawn(async move {
            loop {
                tokio::time::sleep(TICK).await;
                watcher.tell(Instant::now(), false);
            }
        }))
    }

    /// Tells all that is left; nothing more comes.
    pub fn finish(&self) {
        self.tell(Instant::now(), true);
    }

    /// Processes that carry `mark` belong to `session` from now on.
    pub fn join(&self, mark: u32, session: &SessionId) {
        let mut state = self.lock();
        if state.sessions.len() >= ENDED {
            state.sessions.retain(|_, (_, goes_on)| *goes_on);
        }
        state.sessions.insert(mark, (session.clone(), true));
    }

    /// The session has ended.
    pub fn leave(&self, session: &SessionId) {
        for (known, goes_on) in self.lock().sessions.values_mut() {
            *goes_on &= known != session;
        }
    }

    pub(crate) fn has_budget(&self, now: Instant) -> bool {
        self.lock().budget.take(now)
    }

    pub(crate) fn executed(&self, mark: Option<u32>, what: Execution) {
        if mark.is_none() && is_pid_1(&what) {
            return;
        }
        let session = self.lock().session(mark);
        if !self.offer(session, Observation::Process(what)) {
            self.lock().beyond.processes += 1;
        }
    }

    pub(crate) fn attempted(
        &self,
        mark: Option<u32>,
        by: Actor,
        to: Address,
        transport: Transport,
        now: Instant,
    ) {
        let mut state = self.lock();
        state.announced.note(&by, mark, &to, transport, now);
        let session = state.session(mark);
        if !state.attempts.note(session, by, to, transport, now) {
            state.beyond.connections += 1;
        }
    }

    /// More was done than there is budget for.
    pub(crate) fn beyond(&self, program: Option<String>) {
        let mut state = self.lock();
        let Some(program) = program else {
            state.beyond.connections += 1;
            return;
        };
        state.beyond.processes += 1;
        let programs = &mut state.beyond.programs;
        if programs.len() < EXAMPLES || programs.contains_key(&program) {
            *programs.entry(program).or_default() += 1;
        }
    }

    /// Whether the sender of this packet is to be looked for, and given to [`Watcher::sent`].
    pub(crate) fn packet(&self, packet: &Packet, bytes: usize, now: Instant) -> bool {
        let mut state = self.lock();
        let announced = state.announced.take(packet, now);
        state.flows.note(packet, bytes, announced, now)
    }

    pub(crate) fn sent(&self, packet: &Packet, sender: Option<Sender>) {
        self.lock().flows.sent(packet, sender);
    }

    pub(crate) fn packets_lost(&self, count: u64) {
        self.lock().flows.note_others(count);
    }

    fn tell(&self, now: Instant, last: bool) {
        let (packets, others, summary) = {
            let mut state = self.lock();
            // Whose sender is not known, or carries no mark, is of a session if there is one alone.
            let only = state.only_session();
            let packets = if last { state.flows.rest() } else { state.flows.due(now) };
            let session = |mark| state.session(mark).or_else(|| only.clone());
            let packets: Vec<_> = packets.into_iter().map(|(mark, what)| (session(mark), what)).collect();
            let mut others = if last { state.attempts.rest() } else { state.attempts.due(now) };
            others.extend(if last { state.readings.rest() } else { state.readings.due(now) });
            let summary = if last || now.duration_since(state.summed_up) >= SUMMARY {
                state.summed_up = now;
                state.sum_up()
            } else {
                None
            };
            (packets, others, summary)
        };
        // An attempt to connect before the packet that it sends.
        for (session, what) in others.into_iter().chain(packets) {
            self.offer_or_count(session, what);
        }
        if let Some(summary) = summary {
            self.offer_or_count(None, summary);
        }
    }

    /// Says whether the broker takes it.
    fn offer(&self, session: Option<SessionId>, what: Observation) -> bool {
        self.reports.offer(AgentEvent::Observed { workspace: self.workspace.clone(), session, what })
    }

    fn offer_or_count(&self, session: Option<SessionId>, what: Observation) {
        if self.offer(session, what.clone()) {
            return;
        }
        let mut state = self.lock();
        let beyond = &mut state.beyond;
        match what {
            Observation::Process(_) => beyond.processes += 1,
            Observation::Connection(what) => beyond.connections += what.count,
            Observation::Packets(what) => beyond.packets += what.count,
            Observation::FileRead(_) => beyond.files += 1,
            Observation::Overflow(what) => {
                beyond.processes += what.processes;
                beyond.connections += what.connections;
                beyond.packets += what.packets;
                beyond.files += what.files;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it is the runtime that starts the workspace's first process, before there is any person.
fn is_pid_1(what: &Execution) -> bool {
    what.uid == 0 && what.program == INIT
}

impl State {
    fn session(&self, mark: Option<u32>) -> Option<SessionId> {
        mark.and_then(|mark| self.sessions.get(&mark)).map(|(session, _)| session.clone())
    }

    fn only_session(&self) -> Option<SessionId> {
        let mut on = self.sessions.values().filter(|(_, goes_on)| *goes_on);
        let first = on.next()?;
        on.next().is_none().then(|| first.0.clone())
    }

    fn sum_up(&mut self) -> Option<Observation> {
        let Beyond { processes, connections, packets, files, programs } = std::mem::take(&mut self.beyond);
        let packets = packets + self.flows.take_others();
        let files = files + self.readings.take_others();
        let mut examples: Vec<(String, u64)> = programs.into_iter().collect();
        examples.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let examples = examples.into_iter().map(|(program, count)| format!("{count} × {program}")).collect();
        let any = processes + connections + packets + files > 0;
        let what = Overflow { processes, connections, packets, files, examples };
        any.then_some(Observation::Overflow(what))
    }
}

impl Watch for Watcher {
    fn fault(&self, session: Option<SessionId>, fault: Fault) {
        self.reports.fault(session, fault);
    }

    fn read_failed(&self, session: Option<SessionId>, failure: ReadFailure) {
        self.reports.read_failed(session, failure);
    }

    fn opened(&self, opening: Opening<'_>) -> u64 {
        let (by, status) = processes::actor(opening.pid).unzip();
        let mut state = self.lock();
        let session = state.session(status.and_then(|status| status.mark));
        let Opening { file, .. } = opening;
        let what = Opened {
            session,
            program: by.as_ref().and_then(|by| by.program.clone()),
            object: file.object.clone(),
            dataset: file.dataset.clone(),
            name: file.name.clone(),
            size: file.size,
        };
        state.readings.open(what, by, Instant::now())
    }

    fn read(&self, handle: u64, bytes: usize) {
        self.lock().readings.read(handle, bytes as u64);
    }

    fn closed(&self, handle: u64) {
        self.lock().readings.close(handle, Instant::now());
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").field("workspace", &self.workspace).finish_non_exhaustive()
    }
}

/// A task that ends with its owner.
#[derive(Debug)]
pub(crate) struct Telling(pub JoinHandle<()>);

impl Drop for Telling {
    fn drop(&mut self) {
        self.0.abort();
    }
}
