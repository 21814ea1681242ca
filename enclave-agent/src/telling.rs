//! How the agent is, for whoever looks after its host: health and figures.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use model::diagnosis::Ends;
use model::metrics::{Exposition, Health, Kind, State};
use model::observed::CheckState;
use model::{AgentId, Clock};
use sharding::vault::BackendStats;
use tokio::sync::{Semaphore, watch};
use vitals::Vitals;
use wire::agent::{BrokerLink, Status};

use crate::identity::RENEW_BEFORE;
use crate::outlets::Outlets;
use crate::service::Workspaces;
use crate::storage::Storage;

/// An agent that can be asked how it is, from before it is enrolled.
pub(crate) struct Telling {
    pub(crate) me: AgentId,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) storage: Storage,
    /// Orders that may be carried out at once.
    pub(crate) places: Arc<Semaphore>,
    pub(crate) capacity: usize,
    /// The worst of what was found when the agent and its host were last examined.
    pub(crate) diagnosis: watch::Sender<Option<CheckState>>,
    /// What there is once the agent is enrolled.
    pub(crate) enrolled: OnceLock<Enrolled>,
}

/// What an enrolled agent has.
pub(crate) struct Enrolled {
    pub(crate) links: Vec<BrokerLink>,
    pub(crate) outlets: Outlets,
    pub(crate) workspaces: Workspaces,
    pub(crate) ends: Ends,
}

impl Telling {
    fn certificate_left(&self) -> Option<Duration> {
        self.enrolled.get().map(|enrolled| enrolled.ends.until().since(self.clock.now()))
    }

    /// How many brokers are connected, and how many there are; none before it is enrolled.
    fn connected(&self) -> Option<(usize, usize)> {
        let links = &self.enrolled.get()?.links;
        let connected = |link: &&BrokerLink| matches!(*link.status().borrow(), Status::Connected { .. });
        Some((links.iter().filter(connected).count(), links.len()))
    }
}

impl Vitals for Telling {
    fn health(&self) -> Health {
        let mut health = Health::new(self.me.as_str(), env!("CARGO_PKG_VERSION"));
        let (state, detail) = match self.connected() {
            None => (State::Degraded, Some("waits for a one-time token".to_owned())),
            Some((connected, all)) if connected == all => (State::Ok, None),
            // What runs goes on; of those that are away nothing new comes.
            Some((connected, all)) => (State::Degraded, Some(format!("{connected} of {all} connected"))),
        };
        health.check("broker", state, detail);
        let (state, detail) = match self.certificate_left() {
            Some(left) if left.is_zero() => (State::Failed, Some("ended".to_owned())),
            Some(left) if left < RENEW_BEFORE / 2 => {
                (State::Degraded, Some("should have been renewed".to_owned()))
            }
            _ => (State::Ok, None),
        };
        health.check("certificate", state, detail);
        let (state, detail) = match *self.diagnosis.borrow() {
            Some(CheckState::Failed) => {
                (State::Degraded, Some("this host is not as it should be".to_owned()))
            }
            _ => (State::Ok, None),
        };
        health.check("diagnosis", state, detail);
        let stats = self.storage.stats();
        let shunned: Vec<&str> = stats.iter().filter(|of| of.shunned).map(|of| of.backend.as_str()).collect();
        let (state, detail) = match shunned.is_empty() {
            true => (State::Ok, None),
            false => {
                (State::Degraded, Some(format!("asked last, since they failed: {}", shunned.join(", "))))
            }
        };
        health.check("backends", state, detail);
        health
    }

    fn figures(&self, to: &mut Exposition) {
        let mut gauge = |name, help, value| to.single(name, Kind::Gauge, help, value);
        let connected = self.connected().map_or(0, |(connected, _)| connected);
        gauge("sekisho_agent_connected", "Brokers that are connected.", connected as f64);
        let free = self.places.available_permits();
        let carried = self.capacity.saturating_sub(free);
        gauge("sekisho_agent_orders", "Sessions, deposits and readings that go on.", carried as f64);
        gauge("sekisho_agent_order_places_free", "How many more may.", free as f64);
        if let Some(enrolled) = self.enrolled.get() {
            let running = enrolled.workspaces.running().len();
            gauge("sekisho_agent_workspaces", "Workspaces that run.", running as f64);
            let waiting = enrolled.outlets.unacknowledged();
            gauge("sekisho_agent_reports_waiting", "Reports that a broker has yet to take.", waiting as f64);
        }
        let lost = self.enrolled.get().map_or(0, |enrolled| enrolled.outlets.lost()) as f64;
        let help = "Reports that a broker never got.";
        to.single("sekisho_agent_reports_lost_total", Kind::Counter, help, lost);
        if let Some(left) = self.certificate_left() {
            let help = "How long the certificate of a process is still valid.";
            let mut left_of = to.family("sekisho_certificate_left_seconds", Kind::Gauge, help);
            left_of.sample(&[("process", self.me.as_str())], left.as_secs_f64());
        }
        expose_backends(&self.storage.stats(), to);
    }
}

/// A figure of a backend: its name, its kind, what it means, and where it is found.
type Figure = (&'static str, Kind, &'static str, fn(&BackendStats) -> f64);

const FIGURES: [Figure; 10] = [
    ("sekisho_backend_requests_total", Kind::Counter, "Requests to read, list and remove.", |of| {
        of.requests as f64
    }),
    ("sekisho_backend_writes_total", Kind::Counter, "Requests to write.", |of| of.writes as f64),
    ("sekisho_backend_failed_writes_total", Kind::Counter, "Those not acknowledged.", |of| {
        of.failed_writes as f64
    }),
    ("sekisho_backend_read_bytes_total", Kind::Counter, "Bytes of shares that came.", |of| {
        of.bytes_read as f64
    }),
    ("sekisho_backend_written_bytes_total", Kind::Counter, "Bytes that were acknowledged.", |of| {
        of.bytes_written as f64
    }),
    ("sekisho_backend_hedges_total", Kind::Counter, "Requests because another backend was late.", |of| {
        of.hedges as f64
    }),
    ("sekisho_backend_hedges_won_total", Kind::Counter, "Those that were answered before it.", |of| {
        of.hedges_won as f64
    }),
    ("sekisho_backend_shunned", Kind::Gauge, "Whether a backend is asked last for now.", |of| {
        f64::from(u8::from(of.shunned))
    }),
    ("sekisho_backend_median_seconds", Kind::Gauge, "What half of its last answers took at most.", |of| {
        of.median.map_or(f64::NAN, |median| median.as_secs_f64())
    }),
    ("sekisho_backend_p95_seconds", Kind::Gauge, "What 19 of 20 of its last answers took at most.", |of| {
        of.high.map_or(f64::NAN, |high| high.as_secs_f64())
    }),
];

fn expose_backends(stats: &[BackendStats], to: &mut Exposition) {
    for (name, kind, help, figure) in FIGURES {
        let mut family = to.family(name, kind, help);
        for of in stats {
            family.sample(&[("backend", of.backend.as_str())], figure(of));
        }
    }
    let mut faults = to.family("sekisho_backend_faults_total", Kind::Counter, "Shares that were no good.");
    for of in stats {
        for (kind, count) in &of.faults {
            let labels = [("backend", of.backend.as_str()), ("fault", kind.code())];
            faults.sample(&labels, *count as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{ManualClock, Timestamp};

    use super::*;

    #[test]
    fn an_agent_tells_how_it_is_before_it_is_enrolled() {
        let telling = Telling {
            me: AgentId::from_name("main").unwrap(),
            clock: Arc::new(ManualClock::at(Timestamp::from_secs(1_790_000_000))),
            storage: Storage::new(Vec::new(), 2),
            places: Arc::new(Semaphore::new(8)),
            capacity: 8,
            diagnosis: watch::Sender::default(),
            enrolled: OnceLock::new(),
        };
        let health = telling.health();
        assert_eq!((health.status, health.process.as_str()), (State::Degraded, "agent:main"));
        assert_eq!(health.checks["broker"].detail.as_deref(), Some("waits for a one-time token"));
        let _place = telling.places.try_acquire().unwrap();
        telling.diagnosis.send_replace(Some(CheckState::Failed));
        assert_eq!(telling.health().checks["diagnosis"].state, State::Degraded);
        let mut figures = Exposition::default();
        telling.figures(&mut figures);
        let text = figures.finish();
        for part in
            ["sekisho_agent_connected 0\n", "sekisho_agent_orders 1\n", "sekisho_agent_order_places_free 7\n"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn backends_are_told_apart() {
        let stats = [BackendStats {
            backend: "backend:a".parse().unwrap(),
            requests: 3,
            writes: 0,
            failed_writes: 0,
            bytes_read: 70,
            bytes_written: 0,
            hedges: 1,
            hedges_won: 0,
            faults: [(sharding::vault::FaultKind::Missing, 2)].into(),
            median: Some(Duration::from_millis(5)),
            high: None,
            shunned: true,
        }];
        let mut figures = Exposition::default();
        expose_backends(&stats, &mut figures);
        let text = figures.finish();
        for part in [
            "sekisho_backend_requests_total{backend=\"backend:a\"} 3\n",
            "sekisho_backend_read_bytes_total{backend=\"backend:a\"} 70\n",
            "sekisho_backend_shunned{backend=\"backend:a\"} 1\n",
            "sekisho_backend_median_seconds{backend=\"backend:a\"} 0.005\n",
            "sekisho_backend_p95_seconds{backend=\"backend:a\"} NaN\n",
            "sekisho_backend_faults_total{backend=\"backend:a\",fault=\"missing\"} 2\n",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
