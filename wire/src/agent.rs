//! The agent's end: it dials the broker, again and again if need be, and takes orders.

mod dial;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use crate::machine::{QueueFull, ReportQueue};
use crate::message::{
    AgentEvent, DepositInput, DepositOutput, FetchInput, FetchOutput, Hello, Load, OpenDeposit, OpenFetch,
    OpenSession, SessionInput, SessionOutput,
};
use crate::stream::{Receiver, Sender};
use crate::tls::{Tls, TlsError};
use crate::transport::Limits;

/// What the agent says in a session.
pub type SessionSender = Sender<SessionOutput>;
/// What the agent hears in a session.
pub type SessionReceiver = Receiver<SessionInput>;
/// What the agent says in a deposit.
pub type DepositSender = Sender<DepositOutput>;
/// What the agent hears in a deposit.
pub type DepositReceiver = Receiver<DepositInput>;

/// What the agent says in a fetch.
pub type FetchSender = Sender<FetchOutput>;
/// What the agent hears in a fetch.
pub type FetchReceiver = Receiver<FetchInput>;

/// A session that the agent has to answer, first with `Opened` or `Refused`.
#[derive(Debug)]
pub struct SessionStream {
    /// To the broker.
    pub sender: SessionSender,
    /// From the broker.
    pub receiver: SessionReceiver,
}

/// A deposit that the agent has to answer, first with `Ready` or `Refused`.
#[derive(Debug)]
pub struct DepositStream {
    /// To the broker.
    pub sender: DepositSender,
    /// From the broker.
    pub receiver: DepositReceiver,
}

/// A fetch that the agent has to answer, first with `Found` or `Refused`.
#[derive(Debug)]
pub struct FetchStream {
    /// To the broker.
    pub sender: FetchSender,
    /// From the broker.
    pub receiver: FetchReceiver,
}

/// An order of the broker.
#[derive(Debug)]
pub enum Incoming {
    /// Run a session.
    Session(OpenSession, SessionStream),
    /// Take in a file.
    Deposit(OpenDeposit, DepositStream),
    /// Hand out a record of the house.
    Fetch(OpenFetch, FetchStream),
    /// Do with a workspace what the sealed ticket says.
    Workspace(Vec<u8>),
}

/// How it stands with the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Not connected; it is tried again.
    Away {
        /// Attempts since the last connection.
        attempts: u32,
        /// Why the last connection or attempt ended, once one has.
        why: Option<String>,
    },
    /// Connected and admitted.
    Connected {
        /// The broker's address.
        remote: SocketAddr,
        /// The broker's trust domain.
        td: String,
    },
    /// The link was closed here.
    Closed,
}

/// A link to the broker that mends itself. What runs on a connection ends with it; reports
/// survive. The link ends when its last clone is dropped.
#[derive(Debug, Clone)]
pub struct BrokerLink {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    orders: tokio::sync::Mutex<mpsc::Receiver<Incoming>>,
    accepted: watch::Receiver<Option<String>>,
    status: watch::Receiver<Status>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// What the link and the task that dials have in common.
struct Shared {
    reports: Mutex<ReportQueue>,
    // A permit for every report that still fits.
    room: Semaphore,
    pending: Notify,
    /// The latest, and whether the present connection has been told.
    load: Mutex<(Load, bool)>,
}

/// Dials the broker at `addr` (`host:port`) and keeps the link up. It returns at once; whether the
/// broker is there shows in [`BrokerLink::status`] and [`BrokerLink::connected`].
pub fn connect(addr: impl Into<String>, tls: &Tls, hello: Hello) -> Result<BrokerLink, TlsError> {
    connect_with(addr, tls, hello, Limits::default())
}

/// [`connect`] with other limits.
pub fn connect_with(
    addr: impl Into<String>,
    tls: &Tls,
    hello: Hello,
    limits: Limits,
) -> Result<BrokerLink, TlsError> {
    let mut config = quinn::ClientConfig::new(Arc::new(tls.client()?));
    config.transport_config(limits.transport(limits.streams));
    let shared = Arc::new(Shared {
        reports: Mutex::new(ReportQueue::new(limits.reports)),
        room: Semaphore::new(limits.reports),
        pending: Notify::new(),
        load: Mutex::new((hello.load.clone(), true)),
    });
    // As many orders as streams, so that taking them in never blocks on the queue for long.
    let (orders_in, orders) = mpsc::channel(limits.streams.max(1) as usize);
    let (status_in, status) = watch::channel(Status::Away { attempts: 0, why: None });
    let (accepted_in, accepted) = watch::channel(None);
    let (stop, stopped) = watch::channel(false);
    let dialler = dial::Dialler {
        addr: addr.into(),
        config,
        hello,
        limits,
        shared: shared.clone(),
        orders: orders_in,
        accepted: accepted_in,
        status: status_in,
        stopped,
        endpoint: Mutex::new(None),
    };
    let task = tokio::spawn(dialler.run());
    let orders = tokio::sync::Mutex::new(orders);
    Ok(BrokerLink { handle: Arc::new(Handle { shared, orders, accepted, status, stop, task }) })
}

impl BrokerLink {
    /// The broker's next order, over whichever connection is up; nothing once the link is closed.
    pub async fn accept(&self) -> Option<Incoming> {
        self.handle.orders.lock().await.recv().await
    }

    /// The state of this agent and its host that was accepted last, now and later.
    pub fn accepted(&self) -> watch::Receiver<Option<String>> {
        self.handle.accepted.clone()
    }

    /// Has the broker record `event`; waits while too many reports are unacknowledged. It returns
    /// when the report is queued, not when it is recorded.
    pub async fn report(&self, event: AgentEvent) {
        // The semaphore is never closed; were it, a report too many would be refused below.
        if let Ok(permit) = self.handle.shared.room.acquire().await {
            permit.forget();
        }
        let _ = self.handle.shared.push(event);
    }

    /// [`BrokerLink::report`] for where nothing may wait.
    pub fn try_report(&self, event: AgentEvent) -> Result<(), QueueFull> {
        match self.handle.shared.room.try_acquire() {
            Ok(permit) => permit.forget(),
            Err(_) => return Err(QueueFull(self.unacknowledged())),
        }
        self.handle.shared.push(event)
    }

    /// Tells the broker how much is going on; of several that wait the latest is sent.
    pub fn tell_load(&self, load: Load) {
        *self.handle.shared.load() = (load, false);
        self.handle.shared.pending.notify_one();
    }

    /// How many reports the broker has not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.handle.shared.reports().len()
    }

    /// How it stands, now and later.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.handle.status.clone()
    }

    /// Completes when the broker has admitted this agent; `false` if the link was closed instead.
    pub async fn connected(&self) -> bool {
        let mut status = self.handle.status.clone();
        let up = |status: &Status| matches!(status, Status::Connected { .. } | Status::Closed);
        match status.wait_for(up).await {
            Ok(status) => *status != Status::Closed,
            Err(_) => false,
        }
    }

    /// Closes the link and waits until the broker was told.
    pub async fn close(&self) {
        let _ = self.handle.stop.send(true);
        let mut status = self.handle.status.clone();
        let _ = status.wait_for(|status| *status == Status::Closed).await;
    }
}

impl Shared {
    fn push(&self, event: AgentEvent) -> Result<(), QueueFull> {
        self.reports().push(event)?;
        self.pending.notify_one();
        Ok(())
    }

    fn load(&self) -> std::sync::MutexGuard<'_, (Load, bool)> {
        self.load.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reports(&self) -> std::sync::MutexGuard<'_, ReportQueue> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerLink").field("status", &*self.status.borrow()).finish_non_exhaustive()
    }
}
