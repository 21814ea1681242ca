//! Why somebody was turned away at the SSH door, for them to read and for the log.

use std::net::SocketAddr;

use audit::{AuthFault, Door, Event, EventKind};
use certs::{CertRefusal, Principal};
use model::{PersonId, Timestamp};
use russh::keys::ssh_key::{Certificate, HashAlg};

/// Somebody who was turned away.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    fault: AuthFault,
    /// The sentence that the client shows.
    pub(crate) reason: String,
    person: Option<PersonId>,
    key_fingerprint: Option<String>,
    principals: Vec<String>,
    serial: Option<u64>,
}

impl Refused {
    fn new(fault: AuthFault, reason: impl Into<String>) -> Refused {
        Refused {
            fault,
            reason: reason.into(),
            person: None,
            key_fingerprint: None,
            principals: Vec::new(),
            serial: None,
        }
    }

    /// A key was proved whose last certificate has ended.
    pub(crate) fn expired(person: PersonId, fingerprint: String, at: Timestamp) -> Refused {
        let reason = CertRefusal::Expired { at }.to_string();
        Refused {
            person: Some(person),
            key_fingerprint: Some(fingerprint),
            ..Refused::new(AuthFault::Expired, reason)
        }
    }

    /// An address connects more often than any honest one.
    pub(crate) fn too_often() -> Refused {
        let reason = "this address connects too often; what comes above the rate is closed unread";
        Refused::new(AuthFault::TooMany, reason)
    }

    /// The connection ended without a certificate that could be looked at; `bare` is the last key
    /// that was proved without one.
    pub(crate) fn nothing_proved(user: &str, bare: Option<String>) -> Refused {
        let what = if bare.is_some() { "a bare key" } else { "nothing" };
        let reason = format!("{what} was presented for {user:?} instead of a valid certificate");
        Refused { key_fingerprint: bare, ..Refused::new(AuthFault::NoCertificate, reason) }
    }

    /// The certificate is good and the user name can name no workspace.
    pub(crate) fn no_study(user: &str, principal: &Principal) -> Refused {
        let user: String = user.chars().take(64).collect();
        let reason = format!(
            "{user:?} is not the name of a study; connect as ssh STUDY@gate, with the name that the committee gave your study, or as ssh STUDY+WORKSPACE@gate"
        );
        Refused {
            person: Some(principal.person.clone()),
            key_fingerprint: Some(principal.key_fingerprint.clone()),
            serial: Some(principal.serial),
            ..Refused::new(AuthFault::WrongPrincipal, reason)
        }
    }

    /// The record of it. Nobody is named as the person unless our own authority vouched for them.
    pub(crate) fn event(&self, at: Timestamp, peer: SocketAddr) -> Event {
        let kind = EventKind::AuthRefused {
            door: Door::Ssh,
            fault: self.fault,
            reason: self.reason.clone(),
            key_fingerprint: self.key_fingerprint.clone(),
            principals: self.principals.clone(),
            serial: self.serial,
        };
        let mut event = Event::new(at, kind);
        event.person = self.person.clone();
        event.peer = Some(peer.to_string());
        event
    }
}

/// A certificate whose key was proved did not pass.
pub(crate) fn certificate_refused(certificate: &Certificate, refusal: &CertRefusal) -> Refused {
    let fault = match refusal {
        CertRefusal::UnknownAuthority { .. } => AuthFault::UnknownAuthority,
        CertRefusal::BadSignature => AuthFault::BadSignature,
        CertRefusal::NotUserCertificate | CertRefusal::KeyType(_) => AuthFault::WrongType,
        CertRefusal::NotYetValid { .. } => AuthFault::NotYetValid,
        CertRefusal::Expired { .. } => AuthFault::Expired,
        CertRefusal::TooLong { .. } => AuthFault::TooLong,
        CertRefusal::NoPrincipal | CertRefusal::WrongPrincipal => AuthFault::WrongPrincipal,
        CertRefusal::UnknownCriticalOption(_) | CertRefusal::MalformedOption(_) => AuthFault::UnknownOption,
        CertRefusal::SourceAddress { .. } => AuthFault::SourceAddress,
        CertRefusal::Revoked => AuthFault::Revoked,
    };
    Refused {
        key_fingerprint: Some(certificate.public_key().fingerprint(HashAlg::Sha256).to_string()),
        principals: certificate.valid_principals().iter().take(16).cloned().collect(),
        serial: Some(certificate.serial()),
        ..Refused::new(fault, refusal.to_string())
    }
}
