//! What the agent has the broker record.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::{BackendId, ObjectId, SessionId};
use sharding::vault::{Fault, FaultKind};
use tokio::time::Instant;
use wire::message::AgentEvent;

use crate::mount::{ReadFailure, Watch};

/// The same fault is reported once in this time.
const PAUSE: Duration = Duration::from_secs(5);
/// Faults remembered for that.
const REMEMBERED: usize = 1024;

/// Takes reports; called from where nothing may wait.
pub type Outlet = dyn Fn(AgentEvent) + Send + Sync;

/// Says whether there is room for what can also be counted.
pub type Room = dyn Fn() -> bool + Send + Sync;

/// Reports on their way. Clones share everything.
#[derive(Clone)]
pub struct Reports(Arc<Inner>);

struct Inner {
    outlet: Box<Outlet>,
    room: Box<Room>,
    told: Mutex<HashMap<What, Instant>>,
}

#[derive(PartialEq, Eq, Hash)]
struct What(ObjectId, Option<(BackendId, FaultKind)>);

impl Reports {
    /// Reports that go to `outlet`.
    pub fn new(outlet: Box<Outlet>) -> Reports {
        Reports::with_room(outlet, Box::new(|| true))
    }

    /// The same, with a say in what may be offered to `outlet`.
    pub fn with_room(outlet: Box<Outlet>, room: Box<Room>) -> Reports {
        Reports(Arc::new(Inner { outlet, room, told: Mutex::default() }))
    }

    /// Reports one event if there is room for it beside those that must not be lost.
    pub fn offer(&self, event: AgentEvent) -> bool {
        let has_room = (self.0.room)();
        if has_room {
            self.tell(event);
        }
        has_room
    }

    /// Reports that a backend did not give a good share to a reader outside of every session.
    pub fn of_backend(&self, fault: Fault) {
        self.fault(None, fault);
    }

    /// Reports one event.
    pub fn tell(&self, event: AgentEvent) {
        (self.0.outlet)(event);
    }

    /// Whether this is worth a report: a broken backend fails at every block.
    fn is_news(&self, what: What) -> bool {
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if told.len() >= REMEMBERED {
            told.retain(|_, at| now.duration_since(*at) < PAUSE);
        }
        if told.len() >= REMEMBERED {
            told.clear();
        }
        let news = told.get(&what).is_none_or(|at| now.duration_since(*at) >= PAUSE);
        if news {
            told.insert(what, now);
        }
        news
    }
}

impl Watch for Reports {
    fn fault(&self, session: Option<SessionId>, fault: Fault) {
        tracing::warn!(%fault, "a backend failed");
        if !self.is_news(What(fault.object.clone(), Some((fault.backend.clone(), fault.kind)))) {
            return;
        }
        self.tell(AgentEvent::ReadFault {
            session,
            object: fault.object,
            backend: fault.backend,
            institution: fault.institution,
            kind: kind(fault.kind),
            block: fault.block,
            detail: fault.detail,
        });
    }

    fn read_failed(&self, session: Option<SessionId>, failure: ReadFailure) {
        tracing::error!(object = %failure.object, detail = %failure.detail, "a read failed");
        if self.is_news(What(failure.object.clone(), None)) {
            let ReadFailure { object, block, detail } = failure;
            self.tell(AgentEvent::ReadFailed { session, object, block, detail });
        }
    }
}

impl fmt::Debug for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reports")
    }
}

fn kind(kind: FaultKind) -> wire::message::FaultKind {
    use wire::message::FaultKind as Wire;
    match kind {
        FaultKind::Missing => Wire::Missing,
        FaultKind::Corrupt => Wire::Corrupt,
        FaultKind::Short => Wire::Short,
        FaultKind::Unreachable => Wire::Unreachable,
        FaultKind::Timeout => Wire::Timeout,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_that_fails_at_every_block_is_not_reported_at_every_one() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let to = heard.clone();
        let reports = Reports::new(Box::new(move |event| to.lock().unwrap().push(event)));
        let fault = |block| Fault {
            backend: BackendId::from_name("north").unwrap(),
            institution: "North".into(),
            object: ObjectId::from_name("o").unwrap(),
            block: Some(block),
            kind: FaultKind::Missing,
            detail: String::new(),
        };
        for block in 0..50 {
            reports.fault(None, fault(block));
        }
        assert_eq!(heard.lock().unwrap().len(), 1);
        reports.fault(None, Fault { kind: FaultKind::Corrupt, ..fault(51) });
        assert_eq!(heard.lock().unwrap().len(), 2);
    }
}
