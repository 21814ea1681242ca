//! Who calls, as far as TLS has proved it.

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use certs::x509::{CaCertificate, Usage, sha256, verify_chain};
use certs::{SpiffeId, TrustDomain};
use data_encoding::HEXLOWER;
use gate::{Entry, Via};
use model::{AgentId, Timestamp};
use rustls::pki_types::CertificateDer;

use super::answer::Fault;

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Caller {
    /// From where.
    pub peer: std::net::SocketAddr,
    /// What the presented certificate proves.
    pub identity: Identity,
}

/// What a client certificate proves.
#[derive(Debug, Clone)]
pub enum Identity {
    /// None was presented.
    None,
    /// One was presented that proves nothing here, for this reason.
    Rejected(String),
    /// Somebody of this trust domain.
    Known {
        /// Who.
        id: SpiffeId,
        /// SHA-256 of the certificate, hexadecimal.
        fingerprint: String,
    },
}

impl Identity {
    /// What `chain`, whose key's possession TLS has verified, proves at `now`.
    pub fn of(
        chain: &[CertificateDer<'_>],
        ca: &CaCertificate,
        domain: &TrustDomain,
        now: Timestamp,
    ) -> Identity {
        let Some(leaf) = chain.first() else { return Identity::None };
        match verify_chain(chain, ca, domain, now, Usage::Client) {
            Ok(id) => {
                Identity::Known { id, fingerprint: format!("SHA256:{}", HEXLOWER.encode(&sha256(leaf))) }
            }
            Err(refusal) => Identity::Rejected(refusal.to_string()),
        }
    }
}

/// A person, proved by their certificate.
#[derive(Debug, Clone)]
pub struct ThePerson(pub Entry);

/// An agent, proved by its certificate.
#[derive(Debug, Clone)]
pub struct TheAgent(pub AgentId);

/// A service beside the system, proved by its certificate.
#[derive(Debug, Clone)]
pub struct TheService;

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        parts.extensions.get::<Caller>().cloned().ok_or_else(|| {
            Fault::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "The connection is not known. Please tell the operators.",
            )
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ThePerson {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let caller = Caller::from_request_parts(parts, state).await?;
        match caller.identity {
            Identity::Known { id: SpiffeId::Person(person), fingerprint } => Ok(ThePerson(Entry {
                person,
                peer: Some(caller.peer),
                via: Via::Api,
                key_fingerprint: fingerprint,
            })),
            other => Err(unknown(&other, "a person's")),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for TheAgent {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        match Caller::from_request_parts(parts, state).await?.identity {
            Identity::Known { id: SpiffeId::Agent(agent), .. } => Ok(TheAgent(agent)),
            other => Err(unknown(&other, "an agent's")),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for TheService {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        match Caller::from_request_parts(parts, state).await?.identity {
            Identity::Known { id: SpiffeId::Service(_), .. } => Ok(TheService),
            other => Err(unknown(&other, "a service's")),
        }
    }
}

fn unknown(identity: &Identity, needed: &str) -> Fault {
    let message = match identity {
        Identity::None => format!("This needs {needed} certificate. Run `sekisho login`, then try again."),
        Identity::Rejected(reason) => {
            format!("Your certificate is not accepted: {reason}. Run `sekisho login`.")
        }
        Identity::Known { .. } => format!("This needs {needed} certificate; yours is for something else."),
    };
    Fault::new(StatusCode::UNAUTHORIZED, "certificate", message)
}
