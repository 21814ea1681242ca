//! The broker's end: it listens, admits agents and gives them orders.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use certs::SpiffeId;
use certs::x509::spiffe_id;
use model::AgentId;
use quinn::{Connection, Endpoint, ServerConfig, TokioRuntime};
use rustls_pki_types::CertificateDer;
use tokio::sync::{Mutex, Semaphore, mpsc, watch};
use tokio::time::timeout;

use crate::message::{
    AgentControl, BrokerControl, DepositInput, DepositOutput, FetchInput, FetchOutput, Hello, Load,
    OpenDeposit, OpenFetch, OpenSession, Order, Report, SessionInput, SessionOutput, VERSION,
};
use crate::socket;
use crate::stream::{Receiver, Sender, StreamError};
use crate::tls::{Tls, TlsError};
use crate::transport::{CloseCode, Limits, LinkEnd};

/// What the broker says in a session.
pub type SessionSender = Sender<SessionInput>;
/// What the broker hears in a session.
pub type SessionReceiver = Receiver<SessionOutput>;
/// What the broker says in a deposit.
pub type DepositSender = Sender<DepositInput>;
/// What the broker hears in a deposit.
pub type DepositReceiver = Receiver<DepositOutput>;

/// What the broker says in a fetch.
pub type FetchSender = Sender<FetchInput>;
/// What the broker hears in a fetch.
pub type FetchReceiver = Receiver<FetchOutput>;

/// A session on its way: the first message received is `Opened` or `Refused`.
#[derive(Debug)]
pub struct SessionStream {
    /// To the agent.
    pub sender: SessionSender,
    /// From the agent.
    pub receiver: SessionReceiver,
}

/// A deposit on its way: the first message received is `Ready` or `Refused`.
#[derive(Debug)]
pub struct DepositStream {
    /// To the agent.
    pub sender: DepositSender,
    /// From the agent.
    pub receiver: DepositReceiver,
}

/// A fetch on its way: the first message received is `Found` or `Refused`.
#[derive(Debug)]
pub struct FetchStream {
    /// To the agent.
    pub sender: FetchSender,
    /// From the agent.
    pub receiver: FetchReceiver,
}

/// Admitted agents that nobody has accepted yet; more wait outside.
const ADMITTED: usize = 16;

/// Why the broker does not listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be used.
    #[error("agents cannot be awaited on UDP {addr}: {source}")]
    Address {
        /// The address asked for.
        addr: SocketAddr,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Why an order did not go out.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// As many streams are open as the agent allows, and none became free in time.
    #[error("the agent has no room for another session at present")]
    Busy,
    /// The order could not be sent.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// Waits for agents on a UDP port. Handshakes go on in the background, so an agent that is slow
/// or hostile holds up nobody. Of one agent's connections the newest stays.
#[derive(Debug)]
pub struct AgentListener {
    endpoint: Endpoint,
    addr: SocketAddr,
    admitted: Mutex<mpsc::Receiver<AgentLink>>,
    newest: Newest,
}

/// The newest connection of each agent.
type Newest = Arc<std::sync::Mutex<HashMap<AgentId, Connection>>>;

impl AgentListener {
    /// Listens on `addr`; port 0 takes a free one.
    pub fn bind(addr: SocketAddr, tls: &Tls) -> Result<AgentListener, BindError> {
        AgentListener::bind_with(addr, tls, Limits::default())
    }

    /// Listens with other limits.
    pub fn bind_with(addr: SocketAddr, tls: &Tls, limits: Limits) -> Result<AgentListener, BindError> {
        let mut config = ServerConfig::with_crypto(Arc::new(tls.server()?));
        // The agent opens one stream, for control.
        config
            .transport_config(limits.transport(1))
            .max_incoming(limits.handshakes)
            .incoming_buffer_size(64 * 1024)
            .incoming_buffer_size_total(4 * 1024 * 1024);
        let socket = socket::bind(addr).map_err(|source| BindError::Address { addr, source })?;
        let runtime = Arc::new(TokioRuntime);
        let endpoint = Endpoint::new_with_abstract_socket(Limits::endpoint(), Some(config), socket, runtime)
            .map_err(|source| BindError::Address { addr, source })?;
        let addr = endpoint.local_addr().map_err(|source| BindError::Address { addr, source })?;
        let (sender, admitted) = mpsc::channel(ADMITTED);
        let newest = Newest::default();
        tokio::spawn(listen(endpoint.clone(), tls.clone(), limits, newest.clone(), sender));
        Ok(AgentListener { endpoint, addr, admitted: Mutex::new(admitted), newest })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// The next admitted agent, or nothing once the listener is closed.
    pub async fn accept(&self) -> Option<AgentLink> {
        self.admitted.lock().await.recv().await
    }

    /// Closes every connection and waits until the agents were told.
    pub async fn close(&self, reason: &str) {
        self.end(reason);
        self.endpoint.wait_idle().await;
    }

    fn end(&self, reason: &str) {
        for connection in self.newest.lock().unwrap_or_else(PoisonError::into_inner).values() {
            CloseCode::Done.end(connection, reason.as_bytes());
        }
        self.endpoint.close(CloseCode::Done.var(), reason.as_bytes());
    }
}

impl Drop for AgentListener {
    fn drop(&mut self) {
        self.end("the broker stops");
    }
}

/// A connected agent. Clones share the connection.
#[derive(Debug, Clone)]
pub struct AgentLink {
    link: Arc<Link>,
}

#[derive(Debug)]
struct Link {
    connection: Connection,
    agent: AgentId,
    hello: Hello,
    patience: std::time::Duration,
    reports: Mutex<Receiver<AgentControl>>,
    load: watch::Sender<Load>,
    acks: Mutex<Acks>,
}

#[derive(Debug)]
struct Acks {
    sender: Sender<BrokerControl>,
    last: u64,
}

impl AgentLink {
    /// Who it is, by its certificate.
    pub fn agent(&self) -> &AgentId {
        &self.link.agent
    }

    /// What it said of itself.
    pub fn hello(&self) -> &Hello {
        &self.link.hello
    }

    /// How much is going on there, now and later. It moves while somebody awaits reports.
    pub fn load(&self) -> watch::Receiver<Load> {
        self.link.load.subscribe()
    }

    /// Where it calls from at present.
    pub fn remote(&self) -> SocketAddr {
        self.link.connection.remote_address()
    }

    /// The round-trip time, estimated.
    pub fn round_trip(&self) -> std::time::Duration {
        self.link.connection.rtt()
    }

    /// Orders a session. It does not wait for the answer, which is the first message received.
    pub async fn open_session(&self, open: OpenSession) -> Result<SessionStream, OpenError> {
        let (sender, receiver) = self.open(Order::Session(open)).await?;
        Ok(SessionStream { sender, receiver })
    }

    /// Orders a deposit. It does not wait for the answer, which is the first message received.
    pub async fn open_deposit(&self, open: OpenDeposit) -> Result<DepositStream, OpenError> {
        let (sender, receiver) = self.open(Order::Deposit(open)).await?;
        Ok(DepositStream { sender, receiver })
    }

    /// Orders a record of the house. It does not wait for the answer, which is the first message
    /// received.
    pub async fn open_fetch(&self, open: OpenFetch) -> Result<FetchStream, OpenError> {
        let (sender, receiver) = self.open(Order::Fetch(open)).await?;
        Ok(FetchStream { sender, receiver })
    }

    /// The agent's next report. After a reconnection those not acknowledged come again, so a
    /// report may come twice; its number is the same while the agent's process lives.
    pub async fn next_report(&self) -> Result<Report, StreamError> {
        let mut reports = self.link.reports.lock().await;
        loop {
            match reports.next().await {
                Ok(Some(AgentControl::Report(report))) => return Ok(report),
                Ok(Some(AgentControl::Load(load))) => drop(self.link.load.send_replace(load)),
                // The script allows nothing else; an end of the control stream is an end of the link.
                Ok(_) => {
                    self.close(CloseCode::Protocol, "the control stream ended");
                    return Err(StreamError::Abandoned);
                }
                Err(error) => {
                    self.close(CloseCode::Protocol, &error.to_string());
                    return Err(error);
                }
            }
        }
    }

    /// Gives an order that has no stream of its own: a sealed ticket for a workspace.
    pub async fn order(&self, ticket: Vec<u8>) -> Result<(), StreamError> {
        self.link.acks.lock().await.sender.send(BrokerControl::Order { ticket }).await
    }

    /// Tells the agent that everything up to `seq` is recorded.
    pub async fn ack(&self, seq: u64) -> Result<(), StreamError> {
        let mut acks = self.link.acks.lock().await;
        if seq > acks.last {
            acks.sender.send(BrokerControl::Ack { seq }).await?;
            acks.last = seq;
        }
        Ok(())
    }

    /// Tells the agent that this state of its, by the digits it told, is accepted as the one meant.
    pub async fn accept_state(&self, state: &str) -> Result<(), StreamError> {
        let mut acks = self.link.acks.lock().await;
        acks.sender.send(BrokerControl::Accept { state: state.to_owned() }).await
    }

    /// Completes when the connection has ended.
    pub async fn closed(&self) -> LinkEnd {
        self.link.connection.closed().await.into()
    }

    /// How the connection ended, if it has.
    pub fn end(&self) -> Option<LinkEnd> {
        self.link.connection.close_reason().map(LinkEnd::from)
    }

    /// Ends the connection with everything on it.
    pub fn close(&self, code: CloseCode, reason: &str) {
        code.end(&self.link.connection, reason.as_bytes());
    }

    async fn open<Out: crate::machine::Script, In: crate::machine::Script>(
        &self,
        order: Order,
    ) -> Result<(Sender<Out>, Receiver<In>), OpenError> {
        let opening = async {
            let (send, recv) =
                self.link.connection.open_bi().await.map_err(|e| StreamError::LinkLost(e.into()))?;
            Ok((Sender::after(order, send).await?, Receiver::new(recv)))
        };
        timeout(self.link.patience, opening).await.unwrap_or(Err(OpenError::Busy))
    }
}

/// Takes connections until the endpoint closes.
async fn listen(
    endpoint: Endpoint,
    tls: Tls,
    limits: Limits,
    newest: Newest,
    admitted: mpsc::Sender<AgentLink>,
) {
    let handshakes = Arc::new(Semaphore::new(limits.handshakes));
    while let Some(incoming) = endpoint.accept().await {
        // Prove the source address before anything is spent on it: a forged one gets no further.
        if !incoming.remote_address_validated() && incoming.may_retry() {
            let _ = incoming.retry();
            continue;
        }
        let Ok(place) = handshakes.clone().try_acquire_owned() else {
            tracing::warn!(remote = %incoming.remote_address(), "too many handshakes at once: one refused");
            incoming.refuse();
            continue;
        };
        let (tls, admitted, newest) = (tls.clone(), admitted.clone(), newest.clone());
        let patience = limits.patience;
        tokio::spawn(async move {
            let remote = incoming.remote_address();
            let admission = async {
                let connection = incoming.accept().map_err(LinkEnd::from)?.await.map_err(LinkEnd::from)?;
                admit(connection, &tls, patience).await
            };
            let link = match timeout(patience, admission).await {
                Ok(Ok(link)) => link,
                Ok(Err(error)) => {
                    tracing::warn!(%remote, %error, "an agent was not admitted");
                    return;
                }
                Err(_) => {
                    tracing::warn!(%remote, "an agent took too long to introduce itself");
                    return;
                }
            };
            replace(&newest, &link);
            if admitted.send(link).await.is_err() {
                tracing::debug!(%remote, "nobody awaits agents any more");
            }
            // Kept until here: agents that nobody accepts count as under way.
            drop(place);
        });
    }
}

/// Remembers the link as its agent's newest and closes the one before.
fn replace(newest: &std::sync::Mutex<HashMap<AgentId, Connection>>, link: &AgentLink) {
    let mut newest = newest.lock().unwrap_or_else(PoisonError::into_inner);
    newest.retain(|_, connection| connection.close_reason().is_none());
    if let Some(old) = newest.insert(link.agent().clone(), link.link.connection.clone()) {
        tracing::warn!(agent = %link.agent(), remote = %link.remote(), "an agent connected again: its older connection is closed");
        CloseCode::Replaced.end(&old, b"another connection of this agent took its place");
    }
}

/// Why an agent was not admitted.
#[derive(Debug, thiserror::Error)]
enum NotAdmitted {
    #[error(transparent)]
    Link(#[from] LinkEnd),
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("it presented no certificate of an agent")]
    NoAgent,
    #[error("it ended before it said who it is")]
    NoHello,
    #[error("it speaks version {0} of the protocol, this broker {VERSION}")]
    Version(u16),
}

async fn admit(
    connection: Connection,
    tls: &Tls,
    patience: std::time::Duration,
) -> Result<AgentLink, NotAdmitted> {
    let agent = peer(&connection, tls).ok_or(NotAdmitted::NoAgent)?;
    let (send, recv) = connection.accept_bi().await.map_err(LinkEnd::from)?;
    let mut sender = Sender::<BrokerControl>::new(send);
    let mut reports = Receiver::<AgentControl>::new(recv);
    let hello = match reports.next().await? {
        Some(AgentControl::Hello(hello)) => hello,
        _ => return Err(NotAdmitted::NoHello),
    };
    if hello.version != VERSION {
        let refusal = NotAdmitted::Version(hello.version);
        let reason = format!("{refusal}; install the same release on both");
        sender.send(BrokerControl::Reject { reason: reason.clone() }).await?;
        sender.gone().await;
        CloseCode::Rejected.end(&connection, reason.as_bytes());
        return Err(refusal);
    }
    sender.send(BrokerControl::Welcome { version: VERSION, td: tls.domain().to_string() }).await?;
    Ok(AgentLink {
        link: Arc::new(Link {
            connection,
            agent,
            load: watch::Sender::new(hello.load.clone()),
            hello,
            patience,
            reports: Mutex::new(reports),
            acks: Mutex::new(Acks { sender, last: 0 }),
        }),
    })
}

/// The agent that the verified certificate names.
fn peer(connection: &Connection, tls: &Tls) -> Option<AgentId> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    match spiffe_id(chain.first()?, tls.domain()) {
        Ok(SpiffeId::Agent(agent)) => Some(agent),
        _ => None,
    }
}
