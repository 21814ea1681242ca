//! The HTTPS front door: logins, enrolment, uploads, administration.
//!
//! HTTP/1.1 over TLS 1.3. Who calls is proved by a client certificate ([`caller`]); without one only
//! a login, an agent's enrolment, the health of the node, and the hashes of its log can be asked for.
//! Whatever else is asked goes to the gate; no rules are here.

pub mod answer;
mod approvals;
pub mod caller;
mod health;
mod identity;
mod kept;
mod recordings;
mod records;
mod sessions;
mod trail;
mod upload;
mod workspaces;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use certs::TrustDomain;
use certs::x509::CaCertificate;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::ssh::Services;
use crate::ssh::admission::{Admission, AdmissionLimits, Pass};
use crate::ssh::sever::Knife;
use answer::Fault;
use caller::{Caller, Identity};
pub use identity::SshEndpoint;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long the head of a request may take to arrive, and a connection may be idle.
const HEAD: Duration = Duration::from_secs(15);
/// The largest head of a request, in bytes.
const HEAD_SIZE: usize = 16 << 10;
/// The most header fields in one.
const HEADERS: usize = 64;

/// What every request works with.
pub struct Api {
    /// The gate, the agents, and what else the doors share.
    pub services: Arc<Services>,
    /// The trust domain.
    pub domain: TrustDomain,
    /// The authority of every X.509 certificate here.
    pub ca: CaCertificate,
    /// The authority of host certificates, an OpenSSH public key line.
    pub host_ca: String,
    /// Where people are told to connect with SSH.
    pub ssh: SshEndpoint,
}

/// The door: TLS over a listener.
pub struct ApiDoor {
    api: Arc<Api>,
    tls: TlsAcceptor,
    admission: Admission,
}

impl ApiDoor {
    /// A door with this TLS end.
    pub fn new(api: Api, tls: rustls::ServerConfig, limits: AdmissionLimits) -> ApiDoor {
        ApiDoor {
            api: Arc::new(api),
            tls: TlsAcceptor::from(Arc::new(tls)),
            admission: Admission::new(limits),
        }
    }

    /// Serves until the broker stops.
    pub async fn serve(&self, listener: TcpListener) {
        let router = router(Arc::clone(&self.api));
        let stopping = self.api.services.stopping.clone();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stopping.cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let knife = Knife::new();
                    let pass = self.admission.enter(peer.ip(), &knife);
                    let (api, tls, router) = (Arc::clone(&self.api), self.tls.clone(), router.clone());
                    tokio::spawn(async move {
                        if let Err(error) =
                            Box::pin(converse(&api, tls, router, stream, peer, knife, pass)).await
                        {
                            tracing::debug!(%peer, %error, "an API connection ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// One connection from its first byte to its last.
async fn converse(
    api: &Api,
    tls: TlsAcceptor,
    router: Router,
    stream: TcpStream,
    peer: SocketAddr,
    knife: Knife,
    mut pass: Pass,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let stream = timeout(HANDSHAKE, tls.accept(knife.guard(stream))).await??;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let identity = Identity::of(chain, &api.ca, &api.domain, api.services.gate.now());
    if let Identity::Known { .. } = identity {
        // Whoever has proved nothing may be pushed out by the next, and asks for little anyway.
        pass.establish()?;
    }
    let caller = Caller { peer, identity };
    let router = router.layer(axum::Extension(caller));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_SIZE)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return Ok(ended?),
        () = api.services.stopping.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    Ok(connection.await?)
}

fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/v1/health", get(health::health))
        .route("/v1/metrics", get(health::metrics))
        .route("/v1/diagnostics", get(health::diagnostics))
        .route("/v1/diagnostics/{process}/accept", post(health::accept))
        .route("/v1/login", post(identity::login))
        .route("/v1/agents/enrol", post(identity::enrol))
        .route("/v1/agents/renew", post(identity::renew))
        .route("/v1/agents/token", post(records::agent_token))
        .route("/v1/agents", get(records::agents))
        .route("/v1/intake-key", get(records::intake_key))
        .route("/v1/people", post(records::create_person).get(records::people))
        .route("/v1/people/{person}/token", post(records::person_token))
        .route("/v1/people/{person}/lock", post(records::lock_person))
        .route("/v1/people/{person}/unlock", post(records::unlock_person))
        .route("/v1/decoys", post(records::add_decoy).get(records::decoys))
        .route("/v1/decoys/{decoy}/remove", post(records::remove_decoy))
        .route("/v1/studies", post(records::create_study).get(records::studies))
        .route("/v1/studies/{study}/members", post(records::add_member))
        .route("/v1/studies/{study}/channels", post(records::set_channels).get(records::channels))
        .route("/v1/studies/{study}/recording", post(recordings::set_rule).get(recordings::rule))
        .route("/v1/studies/{study}/supervision", post(sessions::set_rule).get(sessions::rule))
        .route("/v1/sessions", get(sessions::list))
        .route("/v1/sessions/{session}/message", post(sessions::message))
        .route("/v1/sessions/{session}/kill", post(sessions::kill))
        .route("/v1/recordings", get(recordings::list))
        .route("/v1/recordings/{session}", get(recordings::play))
        .route("/v1/studies/{study}/limits", post(workspaces::set_limits).get(workspaces::limits))
        .route("/v1/workspaces", get(workspaces::list))
        .route("/v1/workspaces/stop", post(workspaces::stop))
        .route("/v1/workspaces/resume", post(workspaces::resume))
        .route("/v1/workspaces/remove", post(workspaces::remove))
        .route("/v1/agents/{agent}/drain", post(workspaces::drain_agent))
        .route("/v1/drain", post(workspaces::drain))
        .route("/v1/approvals", get(approvals::list))
        .route("/v1/approvals/{approval}/approve", post(approvals::approve))
        .route("/v1/approvals/{approval}/refuse", post(approvals::refuse))
        .route("/v1/datasets", post(records::create_dataset).get(records::datasets))
        .route("/v1/datasets/{dataset}/objects/{name}", put(upload::put))
        .route("/v1/objects", get(records::objects))
        .route("/v1/grants", post(records::create_grant).get(records::grants))
        .route("/v1/grants/{grant}/revoke", post(records::revoke_grant))
        .route("/v1/services/certificate", post(records::service_certificate))
        .route("/v1/kept", get(kept::list))
        .route("/v1/kept/{object}", get(kept::fetch))
        .route("/log/checkpoint", get(trail::checkpoint))
        .route("/log/tile/{*rest}", get(trail::tile))
        .fallback(|| async {
            Fault::new(StatusCode::NOT_FOUND, "not_found", "There is nothing at this address.")
        })
        .with_state(api)
}

fn no_agent() -> Fault {
    Fault::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "no_agent",
        "No host that takes files in is connected at the moment. Try again in a few minutes.",
    )
}
