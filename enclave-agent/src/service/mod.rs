//! Orders and how they are carried out: a ticket is opened, once, and what it says is done.

mod deposit;
mod fetch;
mod input;
mod registry;
mod session;
mod upkeep;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use certs::TrustDomain;
use certs::ticket::{SeenTickets, Ticket, TicketRefusal};
use certs::x509::CaCertificate;
use intake::crypt4gh::SecretKey;
use model::{AgentId, Clock, Entropy, SessionId, WorkspaceId};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use wire::agent::Incoming;
use wire::message::Refused;

pub use registry::{EnterError, Setup, Stay, Workspaces};
pub(crate) use session::chain;

/// What the key follows from that records of the house are encrypted to, beside that of deposits.
pub const KEEPING: &str = "sekisho kept records v1";

/// Tickets remembered until they expire, a minute at most.
const SEEN: usize = 65_536;

/// What the agent answers to, and what it answers with.
pub struct Service {
    /// Who this is.
    pub me: AgentId,
    /// The trust domain.
    pub domain: TrustDomain,
    /// Whose tickets count.
    pub ca: CaCertificate,
    /// Now.
    pub clock: Arc<dyn Clock>,
    /// For the shares of deposits.
    pub entropy: Arc<dyn Entropy>,
    /// What deposits are encrypted to. What records of the house are encrypted to follows from it, see
    /// [`KEEPING`].
    pub intake: SecretKey,
    /// The workspaces.
    pub workspaces: Workspaces,
    /// The tickets that were obeyed.
    pub seen: Seen,
    /// A permit for each order that is being carried out.
    pub places: Arc<Semaphore>,
    /// Hears which broker ordered a session.
    pub ordered: Box<Ordered>,
}

/// Hears which broker, by its number, ordered a session in a workspace.
pub type Ordered = dyn Fn(usize, &SessionId, &WorkspaceId) + Send + Sync;

/// The tickets that were obeyed.
#[derive(Debug)]
pub struct Seen(Mutex<SeenTickets>);

impl Default for Seen {
    fn default() -> Seen {
        Seen(Mutex::new(SeenTickets::new(SEEN)))
    }
}

impl Service {
    /// Carries out one order of the broker of this number, on a task of `tasks`.
    pub fn obey(self: &Arc<Self>, by: usize, incoming: Incoming, tasks: &TaskTracker) {
        let service = self.clone();
        tasks.spawn(async move {
            let permit = match &incoming {
                // An order to stop something is never one too many.
                Incoming::Workspace(_) => None,
                _ => service.places.clone().try_acquire_owned().ok(),
            };
            match incoming {
                Incoming::Session(open, stream) => service.session(by, open, stream, permit.is_some()).await,
                Incoming::Deposit(open, stream) => service.deposit(open, stream, permit.is_some()).await,
                Incoming::Fetch(open, stream) => service.fetch(open, stream, permit.is_some()).await,
                Incoming::Workspace(ticket) => service.upkeep(&ticket).await,
            }
        });
    }

    /// Opens a ticket for the first and last time.
    fn open(&self, sealed: &[u8]) -> Result<Ticket, Refused> {
        let now = self.clock.now();
        let opened = certs::ticket::open(sealed, &self.ca, &self.domain, &self.me, now).and_then(|ticket| {
            self.seen.0.lock().unwrap_or_else(PoisonError::into_inner).admit(&ticket, now)?;
            Ok(ticket)
        });
        opened.map_err(|refusal| {
            tracing::warn!(%refusal, "a ticket was refused");
            refused(
                ticket_code(&refusal),
                format!("The agent did not accept the gate's order: {refusal}. Try again."),
            )
        })
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("me", &self.me).finish_non_exhaustive()
    }
}

fn refused(code: &str, message: impl Into<String>) -> Refused {
    Refused { code: code.to_owned(), message: message.into() }
}

fn full() -> Refused {
    refused("agent.full", "This host runs as many sessions as it may. Try again when some have ended.")
}

fn ticket_code(refusal: &TicketRefusal) -> &'static str {
    match refusal {
        TicketRefusal::Malformed => "ticket.malformed",
        TicketRefusal::Chain(_) => "ticket.chain",
        TicketRefusal::Signer(_) => "ticket.signer",
        TicketRefusal::Signature => "ticket.signature",
        TicketRefusal::Rule(_) => "ticket.rule",
        TicketRefusal::OtherAgent(_) => "ticket.other_agent",
        TicketRefusal::NotYet(_) => "ticket.not_yet",
        TicketRefusal::Expired(_) => "ticket.expired",
        TicketRefusal::Replayed(_) => "ticket.replayed",
    }
}
