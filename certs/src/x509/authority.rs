use std::net::IpAddr;
use std::time::Duration;

use model::{Entropy, EntropyError, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::key::PublicPoint;
use super::{KeyError, KeyPair, sha256};
use crate::name::is_host_name;
use crate::ssh::BACKDATE;
use crate::{NameError, SpiffeId, TrustDomain};

/// How long the CA's own certificate lives.
pub const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// The longest life of a person's certificate.
pub const PERSON_LIFETIME_MAX: Duration = Duration::from_secs(60 * 60);
/// The longest life of a process's certificate.
pub const SERVICE_LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// The shortest life that is worth issuing.
const LIFETIME_MIN: Duration = Duration::from_secs(30);
/// The most alternative names of one certificate.
const NAMES_MAX: usize = 16;

/// The CA's certificate: what every end of a connection trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaCertificate(CertificateDer<'static>);

impl CaCertificate {
    /// From DER; it must be a CA's certificate.
    pub fn from_der(der: &[u8]) -> Result<CaCertificate, IssueError> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| IssueError::NotAnAuthority)?;
        if !rest.is_empty() || !certificate.is_ca() {
            return Err(IssueError::NotAnAuthority);
        }
        Ok(CaCertificate(CertificateDer::from(der.to_vec())))
    }

    /// From PEM; the first certificate of the text.
    pub fn from_pem(pem: &str) -> Result<CaCertificate, IssueError> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| IssueError::NotAnAuthority)?;
        CaCertificate::from_der(&der)
    }

    /// The certificate, DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.0
    }

    /// The certificate as PEM.
    pub fn pem(&self) -> String {
        crate::pem::encode("CERTIFICATE", &self.0)
    }

    /// SHA-256 of the DER: what enrolment tokens pin.
    pub fn fingerprint(&self) -> [u8; 32] {
        sha256(&self.0)
    }
}

/// What a certificate is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafRequest {
    /// Who it will speak for.
    pub spiffe: SpiffeId,
    /// DNS names besides; for brokers and services only.
    pub dns: Vec<String>,
    /// IP addresses besides; for brokers and services only.
    pub ip: Vec<IpAddr>,
    /// The holder's public key: SubjectPublicKeyInfo, DER, ECDSA P-256.
    pub public_key: Vec<u8>,
    /// How long it lives from now on.
    pub lifetime: Duration,
}

/// Why a certificate was not issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// Longer or shorter than certificates of this kind live.
    #[error("a certificate for {holder} lives from 30 s to {max} s, not {asked} s")]
    Lifetime {
        /// Who it was asked for.
        holder: String,
        /// The most, in seconds.
        max: u64,
        /// What was asked for, in seconds.
        asked: u64,
    },
    /// DNS names or addresses for someone who is not a server, or too many.
    #[error("only brokers and services have DNS names and addresses, and at most {NAMES_MAX} of them")]
    NamesNotAllowed,
    /// Not a host name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The public key is not usable.
    #[error("the public key is not usable: {0}")]
    Key(#[from] KeyError),
    /// No randomness for a serial number.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// The given certificate is not a CA's, or not that of the given key.
    #[error("this is not the certificate of the certificate authority")]
    NotAnAuthority,
    /// The certificate could not be encoded.
    #[error("the certificate could not be encoded")]
    Encoding(#[source] rcgen::Error),
}

/// The certificate authority with its key.
#[derive(Debug)]
pub struct CertificateAuthority {
    domain: TrustDomain,
    certificate: CaCertificate,
    key: KeyPair,
}

impl CertificateAuthority {
    /// A new one: its certificate signs itself and lives for [`CA_LIFETIME`].
    pub fn create(
        domain: TrustDomain,
        key: KeyPair,
        now: Timestamp,
        entropy: &(impl Entropy + ?Sized),
    ) -> Result<CertificateAuthority, IssueError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(format!("Sekisho CA of {domain}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, now, CA_LIFETIME);
        params.serial_number = Some(serial(entropy)?);
        let certificate = params.self_signed(&key).map_err(IssueError::Encoding)?;
        let certificate = CaCertificate(certificate.into());
        Ok(CertificateAuthority { domain, certificate, key })
    }

    /// From what was kept; the certificate must be that of the key.
    pub fn load(
        domain: TrustDomain,
        certificate: CaCertificate,
        key: KeyPair,
    ) -> Result<CertificateAuthority, IssueError> {
        let (_, parsed) =
            X509Certificate::from_der(&certificate.0).map_err(|_| IssueError::NotAnAuthority)?;
        if parsed.public_key().raw != key.spki()? {
            return Err(IssueError::NotAnAuthority);
        }
        Ok(CertificateAuthority { domain, certificate, key })
    }

    /// The CA's certificate.
    pub fn certificate(&self) -> &CaCertificate {
        &self.certificate
    }

    /// The trust domain it issues for.
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// Issues a leaf, if the rules allow what is asked for. It is backdated by a minute, for
    /// clocks that run slow.
    pub fn issue(
        &self,
        request: &LeafRequest,
        now: Timestamp,
        entropy: &(impl Entropy + ?Sized),
    ) -> Result<CertificateDer<'static>, IssueError> {
        request.check()?;
        let public_key = PublicPoint::from_spki(&request.public_key)?;
        let uri = request.spiffe.uri(&self.domain);
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(request.spiffe.to_string());
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match request.spiffe {
            SpiffeId::Broker(_) | SpiffeId::Service(_) => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
            _ => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.subject_alt_names.push(SanType::URI(uri.try_into().map_err(IssueError::Encoding)?));
        for name in &request.dns {
            let name = name.as_str().try_into().map_err(IssueError::Encoding)?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.subject_alt_names.extend(request.ip.iter().copied().map(SanType::IpAddress));
        set_validity(&mut params, now, request.lifetime);
        params.serial_number = Some(serial(entropy)?);
        let issuer =
            Issuer::from_ca_cert_der(self.certificate.der(), &self.key).map_err(IssueError::Encoding)?;
        let leaf = params.signed_by(&public_key, &issuer).map_err(IssueError::Encoding)?;
        Ok(leaf.into())
    }
}

impl LeafRequest {
    /// The rules: how long whose certificate may live, and who may have host names.
    pub fn check(&self) -> Result<(), IssueError> {
        let max = if self.spiffe.is_person() { PERSON_LIFETIME_MAX } else { SERVICE_LIFETIME_MAX };
        if self.lifetime < LIFETIME_MIN || self.lifetime > max {
            return Err(IssueError::Lifetime {
                holder: self.spiffe.to_string(),
                max: max.as_secs(),
                asked: self.lifetime.as_secs(),
            });
        }
        let server = matches!(self.spiffe, SpiffeId::Broker(_) | SpiffeId::Service(_));
        let names = self.dns.len() + self.ip.len();
        if names > NAMES_MAX || (names > 0 && !server) {
            return Err(IssueError::NamesNotAllowed);
        }
        match self.dns.iter().find(|name| !is_host_name(name)) {
            Some(bad) => Err(NameError::Domain(crate::name::excerpt(bad)).into()),
            None => Ok(()),
        }
    }
}

fn common_name(name: String) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    // 64 characters is the upper bound of a common name (RFC 5280, appendix A).
    distinguished.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    distinguished
}

fn set_validity(params: &mut CertificateParams, now: Timestamp, lifetime: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since = |at: Timestamp| Duration::from_secs(u64::try_from(at.as_secs()).unwrap_or(0));
    params.not_before = epoch + since(now.minus(BACKDATE));
    params.not_after = epoch + since(now.plus(lifetime));
}

/// A positive serial number of 127 bits.
fn serial(entropy: &(impl Entropy + ?Sized)) -> Result<SerialNumber, EntropyError> {
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes)?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}
