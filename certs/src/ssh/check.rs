use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use model::{PersonId, Timestamp};
use ssh_key::certificate::CertType;
use ssh_key::{Certificate, HashAlg, PublicKey};

use super::cidr::Cidr;
use super::issue::{BACKDATE, USER_LIFETIME_MAX, check_subject_key};
use super::refusal::CertRefusal;
use crate::name::excerpt;

/// Who stands at the door, as a certificate proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The person.
    pub person: PersonId,
    /// The certificate's serial number.
    pub serial: u64,
    /// When the certificate ends.
    pub expires: Timestamp,
    /// What the certificate permits, channel by channel.
    pub permits: SshPermits,
    /// SHA-256 fingerprint of the person's key, `SHA256:…`.
    pub key_fingerprint: String,
}

/// What a certificate permits; all else is refused.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SshPermits {
    /// A terminal.
    pub pty: bool,
    /// Forwarded ports.
    pub port_forwarding: bool,
    /// A forwarded agent.
    pub agent_forwarding: bool,
    /// Forwarded X11.
    pub x11: bool,
    /// The person's own start-up file.
    pub user_rc: bool,
    /// The only command, whatever the client asks for.
    pub force_command: Option<String>,
}

/// What a broker trusts.
#[derive(Debug, Clone)]
pub struct SshTrust {
    /// The keys that sign people's certificates.
    pub user_cas: Vec<PublicKey>,
    /// Serial numbers of revoked certificates.
    pub revoked_serials: BTreeSet<u64>,
    /// SHA-256 fingerprints (`SHA256:…`) of revoked keys, of people and of authorities.
    pub revoked_keys: BTreeSet<String>,
    /// The longest life a certificate may have.
    pub max_lifetime: Duration,
}

impl SshTrust {
    /// Trusts these keys, with nothing revoked and the usual longest life.
    pub fn new(user_cas: Vec<PublicKey>) -> SshTrust {
        SshTrust {
            user_cas,
            revoked_serials: BTreeSet::new(),
            revoked_keys: BTreeSet::new(),
            max_lifetime: USER_LIFETIME_MAX,
        }
    }
}

/// Every check that makes a certificate the proof of a person, save the possession of the key,
/// which the SSH transport proves. Nothing of the content is believed before the signature is.
pub fn check_user_certificate(
    certificate: &Certificate,
    trust: &SshTrust,
    now: Timestamp,
    peer: Option<IpAddr>,
) -> Result<Principal, CertRefusal> {
    let authority = certificate.signature_key();
    let authority_print = authority.fingerprint(HashAlg::Sha256).to_string();
    if !trust.user_cas.iter().any(|ca| ca.key_data() == authority) {
        return Err(CertRefusal::UnknownAuthority { fingerprint: authority_print });
    }
    certificate.verify_signature().map_err(|_| CertRefusal::BadSignature)?;
    if certificate.cert_type() != CertType::User {
        return Err(CertRefusal::NotUserCertificate);
    }
    check_subject_key(certificate.public_key()).map_err(|_| {
        CertRefusal::KeyType(
            excerpt(certificate.public_key().algorithm().as_ref()).escape_debug().to_string(),
        )
    })?;
    let key_fingerprint = certificate.public_key().fingerprint(HashAlg::Sha256).to_string();
    if trust.revoked_serials.contains(&certificate.serial())
        || trust.revoked_keys.contains(&key_fingerprint)
        || trust.revoked_keys.contains(&authority_print)
    {
        return Err(CertRefusal::Revoked);
    }
    let expires = check_window(certificate, trust.max_lifetime, now)?;
    let person = check_principals(certificate)?;
    let force_command = check_critical_options(certificate, peer)?;
    let permits = SshPermits { force_command, ..permits(certificate)? };
    Ok(Principal { person, serial: certificate.serial(), expires, permits, key_fingerprint })
}

/// A certificate is valid from `valid_after` up to, not including, `valid_before`.
fn check_window(
    certificate: &Certificate,
    max_lifetime: Duration,
    now: Timestamp,
) -> Result<Timestamp, CertRefusal> {
    let (from, to) = (certificate.valid_after(), certificate.valid_before());
    let max = max_lifetime.as_secs();
    let lifetime = to.saturating_sub(from);
    let until = i64::try_from(to).map_err(|_| CertRefusal::TooLong { lifetime: None, max })?;
    // The issuer's backdating is no part of the life that was asked for.
    if lifetime > max + BACKDATE.as_secs() {
        return Err(CertRefusal::TooLong { lifetime: Some(lifetime), max });
    }
    let from = Timestamp::from_secs(i64::try_from(from).unwrap_or(i64::MAX));
    let until = Timestamp::from_secs(until);
    if now >= until {
        Err(CertRefusal::Expired { at: until })
    } else if now < from {
        Err(CertRefusal::NotYetValid { from })
    } else {
        Ok(until)
    }
}

fn check_principals(certificate: &Certificate) -> Result<PersonId, CertRefusal> {
    match certificate.valid_principals() {
        [] => Err(CertRefusal::NoPrincipal),
        [one] if one == certificate.key_id() => one.parse().map_err(|_| CertRefusal::WrongPrincipal),
        _ => Err(CertRefusal::WrongPrincipal),
    }
}

/// Returns the forced command, if there is one.
fn check_critical_options(
    certificate: &Certificate,
    peer: Option<IpAddr>,
) -> Result<Option<String>, CertRefusal> {
    let mut force_command = None;
    for (name, value) in certificate.critical_options().iter() {
        match name.as_str() {
            "source-address" => {
                let allowed =
                    Cidr::parse_list(value).map_err(|_| CertRefusal::MalformedOption(name.clone()))?;
                if !peer.is_some_and(|ip| allowed.iter().any(|range| range.contains(ip))) {
                    return Err(CertRefusal::SourceAddress { peer });
                }
            }
            "force-command" if value.is_empty() => {
                return Err(CertRefusal::MalformedOption(name.clone()));
            }
            "force-command" => force_command = Some(value.clone()),
            _ => return Err(CertRefusal::UnknownCriticalOption(excerpt(name))),
        }
    }
    Ok(force_command)
}

/// Unknown extensions permit nothing and refuse nothing (PROTOCOL.certkeys).
fn permits(certificate: &Certificate) -> Result<SshPermits, CertRefusal> {
    let mut permits = SshPermits::default();
    for (name, value) in certificate.extensions().iter() {
        let permit = match name.as_str() {
            "permit-pty" => &mut permits.pty,
            "permit-port-forwarding" => &mut permits.port_forwarding,
            "permit-agent-forwarding" => &mut permits.agent_forwarding,
            "permit-X11-forwarding" => &mut permits.x11,
            "permit-user-rc" => &mut permits.user_rc,
            _ => continue,
        };
        if !value.is_empty() {
            return Err(CertRefusal::MalformedOption(name.clone()));
        }
        *permit = true;
    }
    Ok(permits)
}
