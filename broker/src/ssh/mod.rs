//! The SSH front door.
//!
//! It proves who stands there ([`connection`]), takes what they want to the gate, and carries bytes
//! between their client and a workspace ([`session`]). It holds no rules.
//!
//! What it defends itself against: floods of connections ([`admission`], [`rate`]), clients that never finish
//! what they began (a deadline below the protocol, [`sever`]), that do not read (windows are
//! respected, and a session can be cut whatever its client does), or that send without end
//! ([`input`]). What it does not: a flood large enough to fill the machine's network or its accept
//! queue; that is for what stands before it.

pub mod admission;
mod algorithms;
mod choose;
mod connection;
mod files;
mod followers;
mod input;
mod issued;
pub mod rate;
mod refusals;
mod screen;
mod session;
pub mod sever;
pub mod stage;
mod supervise;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use certs::SshTrust;
use gate::Gate;
use model::PersonId;
use russh::keys::ssh_key::{Certificate, PrivateKey};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::drain::Drain;
use crate::feed::Sinks;
use crate::hub::Hub;
use crate::keeping::Keeping;
use crate::recordings::Recordings;
use crate::watch::Watch;
use admission::{Admission, AdmissionLimits, Pass};
use connection::Connection;
pub use issued::IssuedBook;
use rate::{Rate, Rates};
use refusals::Refused;
use sever::Knife;
use stage::Stages;

/// How long a client may take to prove who it is.
const PROVE: Duration = Duration::from_secs(20);
/// How long to wait when the machine has no more sockets to give.
const NO_SOCKETS: Duration = Duration::from_millis(100);

/// What every connection works with.
pub struct Services {
    /// The one door.
    pub gate: Gate,
    /// The agents that are connected.
    pub hub: Hub,
    /// Whose certificates are believed.
    pub trust: ArcSwap<SshTrust>,
    /// Which certificates were issued lately.
    pub issued: IssuedBook,
    /// How often each person may open something.
    pub openings: Rates<PersonId>,
    /// One slot for each session that may run at once.
    pub slots: Arc<Semaphore>,
    /// How far the collectors of the audit log are.
    pub sinks: Sinks,
    /// The house's own records on their way to the vault, and back.
    pub keeping: Keeping,
    /// How detection is.
    pub watch: Watch,
    /// What sessions looked like.
    pub recordings: Recordings,
    /// Sessions that go on.
    pub stages: Stages,
    /// How far the broker is on its way out of service.
    pub drain: Drain,
    /// Fires when the broker stops.
    pub stopping: CancellationToken,
    /// What must be finished before the process ends.
    pub tasks: TaskTracker,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services")
            .field("free_slots", &self.slots.available_permits())
            .finish_non_exhaustive()
    }
}

/// The key that the door identifies itself with, and the authority's word for it.
pub struct HostIdentity {
    /// An Ed25519 key.
    pub key: PrivateKey,
    /// The host certificate for it; without one, clients see a bare key.
    pub certificate: Option<Certificate>,
}

/// The door: a listener and what its connections work with.
pub struct SshDoor {
    services: Arc<Services>,
    config: ArcSwap<russh::server::Config>,
    admission: Admission,
    /// How often each address may connect.
    connections: Rates<IpAddr>,
    /// How often it is recorded that one did so too often.
    told: Rates<IpAddr>,
}

/// How often one address may connect. A hospital or a university often has one for everybody.
pub const CONNECTIONS: Rate = Rate { burst: 3000, per_second: 50.0 };
/// How often one person may open something inside a connection. Editors and browsers open many
/// things at once, and then few.
pub const OPENINGS: Rate = Rate { burst: 400, per_second: 10.0 };
/// How often it is recorded that an address connects too often.
const TOLD: Rate = Rate { burst: 1, per_second: 1.0 / 60.0 };

impl SshDoor {
    /// A door with this identity.
    pub fn new(services: Arc<Services>, identity: HostIdentity, limits: AdmissionLimits) -> SshDoor {
        let config = algorithms::server_config(identity.key, identity.certificate);
        SshDoor {
            services,
            config: ArcSwap::from_pointee(config),
            admission: Admission::new(limits),
            connections: Rates::new(CONNECTIONS),
            told: Rates::new(TOLD),
        }
    }

    /// New connections see this identity from now on.
    pub fn renew(&self, identity: HostIdentity) {
        self.config.store(Arc::new(algorithms::server_config(identity.key, identity.certificate)));
    }

    /// Connections that have not proved anything yet.
    pub fn half_open(&self) -> usize {
        self.admission.half_open()
    }

    /// Serves until the broker stops. Sessions that run then are ended by themselves; wait for
    /// [`Services::tasks`].
    pub async fn serve(&self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.services.stopping.cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => self.enter(stream, peer),
                Err(error) => {
                    // Either the client is gone already, or the process is out of sockets.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(NO_SOCKETS).await;
                }
            }
        }
    }

    fn enter(&self, stream: TcpStream, peer: SocketAddr) {
        let (address, now) = (admission::network(peer.ip()), self.services.gate.now());
        if self.connections.take(address, now).is_err() {
            if self.told.take(address, now).is_ok() {
                let event = Refused::too_often().event(now, peer);
                let services = Arc::clone(&self.services);
                self.services.tasks.spawn(async move {
                    if let Err(failed) = services.gate.record(&event).await {
                        tracing::error!(code = %failed.code, "a refusal could not be recorded");
                    }
                });
            }
            return;
        }
        let knife = Knife::new();
        let pass = self.admission.enter(peer.ip(), &knife);
        let config = self.config.load_full();
        let services = Arc::clone(&self.services);
        tokio::spawn(async move {
            if let Err(error) = converse(config, services, stream, peer, knife, pass).await {
                tracing::debug!(%peer, %error, "an SSH connection ended");
            }
        });
    }
}

/// One connection from its first byte to its last.
async fn converse(
    config: Arc<russh::server::Config>,
    services: Arc<Services>,
    stream: TcpStream,
    peer: SocketAddr,
    knife: Knife,
    pass: Pass,
) -> Result<(), russh::Error> {
    stream.set_nodelay(true)?;
    let proved = CancellationToken::new();
    let connection = Connection::new(services, peer, knife.clone(), pass, proved.clone());
    let stream = knife.guard(stream);
    let machine = async move { russh::server::run_stream(config, stream, connection).await?.await };
    // Boxed: what waits in thousands should be small.
    let mut machine = Box::pin(machine);
    tokio::select! {
        ended = &mut machine => return ended,
        () = proved.cancelled() => {}
        () = tokio::time::sleep(PROVE) => knife.cut(),
    }
    machine.await
}
