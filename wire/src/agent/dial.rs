use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::{ClientConfig, Connection, Endpoint, TokioRuntime};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::{DepositStream, FetchStream, Incoming, SessionStream, Shared, Status};
use crate::machine::{ProtocolError, Violation};
use crate::message::{AgentControl, BrokerControl, Hello, Order};
use crate::socket;
use crate::stream::{Receiver, Sender, StreamError};
use crate::transport::{CloseCode, Limits, LinkEnd};

/// The first pause after a failure, and the longest.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long closing may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// A connection that lasted this long was a good one: the pauses begin anew.
const GOOD: Duration = Duration::from_secs(10);

/// Keeps one connection to the broker.
pub(super) struct Dialler {
    pub addr: String,
    pub config: ClientConfig,
    pub hello: Hello,
    pub limits: Limits,
    pub shared: Arc<Shared>,
    pub orders: mpsc::Sender<Incoming>,
    pub accepted: watch::Sender<Option<String>>,
    pub status: watch::Sender<Status>,
    pub stopped: watch::Receiver<bool>,
    /// The endpoint of the present connection, to see it off when the link is closed.
    pub endpoint: Mutex<Option<Endpoint>>,
}

/// Why there is no connection (any more).
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{addr} cannot be resolved: {source}")]
    Resolve { addr: String, source: std::io::Error },
    #[error("{addr} has no address")]
    NoAddress { addr: String },
    #[error("no UDP socket: {0}")]
    Socket(#[source] std::io::Error),
    #[error("{0} cannot be dialled: {1}")]
    Dial(SocketAddr, #[source] quinn::ConnectError),
    #[error("the broker did not admit this agent in time")]
    Slow,
    #[error("the broker rejected this agent: {0}")]
    Rejected(String),
    #[error("the broker left the protocol: {0}")]
    Protocol(#[source] ProtocolError),
    #[error(transparent)]
    Link(#[from] LinkEnd),
    #[error("the broker closed the control stream")]
    ControlEnded,
    #[error("the link was closed here")]
    Stopped,
}

impl From<StreamError> for Failure {
    fn from(error: StreamError) -> Failure {
        match error {
            StreamError::Protocol(error) => Failure::Protocol(error),
            StreamError::Abandoned => Failure::ControlEnded,
            StreamError::LinkLost(end) => Failure::Link(end),
        }
    }
}

impl From<Violation> for Failure {
    fn from(violation: Violation) -> Failure {
        Failure::Protocol(violation.into())
    }
}

impl Dialler {
    pub async fn run(mut self) {
        let mut attempts = 0;
        loop {
            let started = Instant::now();
            let mut stopped = self.stopped.clone();
            let failure = tokio::select! {
                failure = self.attempt(attempts) => failure,
                // An error means that the link was dropped.
                _ = stopped.wait_for(|stop| *stop) => Failure::Stopped,
            };
            if matches!(failure, Failure::Stopped) || self.orders.is_closed() {
                let endpoint = self.endpoint.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(endpoint) = endpoint {
                    let _ = timeout(FAREWELL, endpoint.wait_idle()).await;
                }
                self.status.send_replace(Status::Closed);
                return;
            }
            attempts = if started.elapsed() >= GOOD { 1 } else { attempts + 1 };
            let pause = self.pause(attempts, &failure);
            tracing::warn!(broker = %self.addr, %failure, ?pause, "no connection to the broker");
            self.status.send_replace(Status::Away { attempts, why: Some(failure.to_string()) });
            tokio::select! {
                () = sleep(pause) => {}
                _ = self.stopped.wait_for(|stop| *stop) => {}
            }
        }
    }

    /// Doubles from attempt to attempt, spread by up to a quarter so that many agents do not come
    /// back all at once. An agent that is not wanted does not insist.
    fn pause(&self, attempts: u32, failure: &Failure) -> Duration {
        let unwanted = match failure {
            Failure::Rejected(_) => true,
            Failure::Link(LinkEnd::ByPeer { code, .. }) => {
                matches!(code, Some(CloseCode::Rejected | CloseCode::Replaced | CloseCode::Expelled))
            }
            _ => false,
        };
        let pause = if unwanted { PAUSE_MAX } else { PAUSE * (1 << attempts.saturating_sub(1).min(6)) };
        let mut hasher = DefaultHasher::new();
        (&self.hello.intake_key, &self.hello.agent, attempts).hash(&mut hasher);
        let spread = (hasher.finish() % 256) as u32;
        pause.min(PAUSE_MAX) * (1024 - spread) / 1024
    }

    /// One connection from beginning to end; it returns why it ended.
    async fn attempt(&self, attempts: u32) -> Failure {
        let (endpoint, connection) = match timeout(self.limits.patience, self.dial(attempts)).await {
            Ok(Ok(dialled)) => dialled,
            Ok(Err(failure)) => return failure,
            Err(_) => return Failure::Slow,
        };
        // If this future is dropped, the guard tells the broker.
        let guard = Guard { endpoint, connection };
        let failure = self.serve(&guard.connection).await;
        let code = match &failure {
            Failure::Protocol(_) | Failure::ControlEnded => CloseCode::Protocol,
            _ => CloseCode::Done,
        };
        code.end(&guard.connection, failure.to_string().as_bytes());
        failure
    }

    async fn dial(&self, attempts: u32) -> Result<(Endpoint, Connection), Failure> {
        let found = tokio::net::lookup_host(&self.addr)
            .await
            .map_err(|source| Failure::Resolve { addr: self.addr.clone(), source })?;
        let found: Vec<SocketAddr> = found.collect();
        // A name may have several addresses: each attempt takes the next.
        let nth = attempts as usize % found.len().max(1);
        let remote = *found.get(nth).ok_or_else(|| Failure::NoAddress { addr: self.addr.clone() })?;
        let local: SocketAddr = match remote {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = socket::bind(local).map_err(Failure::Socket)?;
        let runtime = Arc::new(TokioRuntime);
        let endpoint = Endpoint::new_with_abstract_socket(Limits::endpoint(), None, socket, runtime)
            .map_err(Failure::Socket)?;
        *self.endpoint.lock().unwrap_or_else(PoisonError::into_inner) = Some(endpoint.clone());
        // Names play no part in who the broker is; TLS wants one all the same.
        let connecting = endpoint
            .connect_with(self.config.clone(), remote, "broker")
            .map_err(|error| Failure::Dial(remote, error))?;
        let connection = connecting.await.map_err(LinkEnd::from)?;
        Ok((endpoint, connection))
    }

    async fn serve(&self, connection: &Connection) -> Failure {
        let (mut sender, mut receiver, td) =
            match timeout(self.limits.patience, self.introduce(connection)).await {
                Ok(Ok(introduced)) => introduced,
                Ok(Err(failure)) => return failure,
                Err(_) => return Failure::Slow,
            };
        let remote = connection.remote_address();
        tracing::info!(%remote, %td, "connected to the broker");
        self.status.send_replace(Status::Connected { remote, td });
        self.shared.reports().reconnected();
        let ended = tokio::select! {
            ended = self.take_orders(connection) => ended,
            ended = self.send_reports(&mut sender) => ended,
            ended = self.take_answers(&mut receiver) => ended,
            end = connection.closed() => Err(LinkEnd::from(end).into()),
        };
        let Err(failure) = ended;
        // The other streams learn of an ended connection first; what the peer said about it counts.
        match connection.close_reason() {
            Some(end) => Failure::Link(end.into()),
            None => failure,
        }
    }

    async fn introduce(
        &self,
        connection: &Connection,
    ) -> Result<(Sender<AgentControl>, Receiver<BrokerControl>, String), Failure> {
        let (send, recv) = connection.open_bi().await.map_err(LinkEnd::from)?;
        let mut sender = Sender::new(send);
        let mut receiver = Receiver::new(recv);
        let load = {
            let mut latest = self.shared.load();
            latest.1 = true;
            latest.0.clone()
        };
        sender.send(AgentControl::Hello(Hello { load, ..self.hello.clone() })).await?;
        match receiver.next().await? {
            Some(BrokerControl::Welcome { td, .. }) => Ok((sender, receiver, td)),
            Some(BrokerControl::Reject { reason }) => Err(Failure::Rejected(reason)),
            Some(BrokerControl::Ack { .. } | BrokerControl::Accept { .. } | BrokerControl::Order { .. })
            | None => Err(Failure::ControlEnded),
        }
    }

    async fn send_reports(&self, sender: &mut Sender<AgentControl>) -> Result<Never, Failure> {
        loop {
            let next = self.shared.reports().next_to_send();
            let load = {
                let mut latest = self.shared.load();
                (!std::mem::replace(&mut latest.1, true)).then(|| latest.0.clone())
            };
            let waits = next.is_none() && load.is_none();
            if let Some(report) = next {
                sender.send(AgentControl::Report(report)).await?;
            }
            if let Some(load) = load {
                sender.send(AgentControl::Load(load)).await?;
            }
            if waits {
                self.shared.pending.notified().await;
            }
        }
    }

    async fn take_answers(&self, receiver: &mut Receiver<BrokerControl>) -> Result<Never, Failure> {
        loop {
            match receiver.next().await? {
                Some(BrokerControl::Ack { seq }) => {
                    let done = self.shared.reports().acknowledged(seq)?;
                    self.shared.room.add_permits(done);
                }
                Some(BrokerControl::Accept { state }) => drop(self.accepted.send_replace(Some(state))),
                Some(BrokerControl::Order { ticket }) => {
                    drop(self.orders.send(Incoming::Workspace(ticket)).await);
                }
                _ => return Err(Failure::ControlEnded),
            }
        }
    }

    /// Reads the order of each stream the broker opens, side by side, so that a stream without an
    /// order holds up nobody.
    async fn take_orders(&self, connection: &Connection) -> Result<Never, Failure> {
        let readers = Arc::new(Semaphore::new(self.limits.streams.max(1) as usize));
        let mut reading = JoinSet::new();
        loop {
            while reading.try_join_next().is_some() {}
            let (send, recv) = connection.accept_bi().await.map_err(LinkEnd::from)?;
            let Ok(place) = readers.clone().acquire_owned().await else { continue };
            let (orders, patience) = (self.orders.clone(), self.limits.patience);
            reading.spawn(async move {
                match timeout(patience, read_order(send, recv)).await {
                    Ok(Ok(incoming)) => drop(orders.send(incoming).await),
                    Ok(Err(error)) => tracing::warn!(%error, "a stream without a valid order"),
                    Err(_) => tracing::warn!("a stream whose order did not come in time"),
                }
                drop(place);
            });
        }
    }
}

/// What a loop without an end returns.
enum Never {}

async fn read_order(send: quinn::SendStream, recv: quinn::RecvStream) -> Result<Incoming, StreamError> {
    let mut receiver = Receiver::<Order>::new(recv);
    match receiver.next().await? {
        Some(Order::Session(open)) => {
            let stream = SessionStream { sender: Sender::new(send), receiver: receiver.becomes() };
            Ok(Incoming::Session(open, stream))
        }
        Some(Order::Deposit(open)) => {
            let stream = DepositStream { sender: Sender::new(send), receiver: receiver.becomes() };
            Ok(Incoming::Deposit(open, stream))
        }
        Some(Order::Fetch(open)) => {
            let stream = FetchStream { sender: Sender::new(send), receiver: receiver.becomes() };
            Ok(Incoming::Fetch(open, stream))
        }
        None => Err(StreamError::Abandoned),
    }
}

/// Closes the connection however its user ends.
struct Guard {
    endpoint: Endpoint,
    connection: Connection,
}

impl Drop for Guard {
    fn drop(&mut self) {
        CloseCode::Done.end(&self.connection, b"the agent closed the link");
        self.endpoint.close(CloseCode::Done.var(), b"the agent closed the link");
    }
}
