use std::time::Duration;

use model::Timestamp;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::CaCertificate;
use crate::{NameError, SpiffeId, TrustDomain};

/// What the holder of a certificate does with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// It serves.
    Server,
    /// It calls, or signs.
    Client,
}

/// Why a certificate chain was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainRefusal {
    /// No certificate was presented.
    #[error("no certificate was presented")]
    Empty,
    /// Not a certificate that can be read.
    #[error("the certificate cannot be read")]
    Malformed,
    /// Its time is over or has not come.
    #[error("the certificate is expired or not yet valid; check the clock, or renew it")]
    Time,
    /// Issued by someone else, or for another use, or damaged.
    #[error("the certificate was not issued by this installation's authority for this use ({0})")]
    Untrusted(String),
    /// It has no SPIFFE name, several, or a foreign one.
    #[error("the certificate does not name its holder: {0}")]
    Name(#[from] NameError),
}

/// Verifies a chain, leaf first, up to `ca` at `now`, and says who the leaf speaks for.
pub fn verify_chain(
    chain: &[CertificateDer<'_>],
    ca: &CaCertificate,
    domain: &TrustDomain,
    now: Timestamp,
    usage: Usage,
) -> Result<SpiffeId, ChainRefusal> {
    let (leaf, intermediates) = chain.split_first().ok_or(ChainRefusal::Empty)?;
    verified_leaf(leaf, intermediates, ca, now, usage)?;
    spiffe_id(leaf, domain)
}

/// Who `leaf` names. It verifies nothing: for certificates that a TLS stack has verified already.
pub fn spiffe_id(leaf: &CertificateDer<'_>, domain: &TrustDomain) -> Result<SpiffeId, ChainRefusal> {
    let (rest, parsed) = X509Certificate::from_der(leaf).map_err(|_| ChainRefusal::Malformed)?;
    let names = parsed.subject_alternative_name().map_err(|_| ChainRefusal::Malformed)?;
    if !rest.is_empty() {
        return Err(ChainRefusal::Malformed);
    }
    let mut uris = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Ok(SpiffeId::parse_uri(uri, domain)?),
        (None, _) => Err(NameError::Spiffe("no URI".to_owned()).into()),
        (Some(_), Some(_)) => Err(NameError::Spiffe("several URIs".to_owned()).into()),
    }
}

/// The last second at which `certificate` is valid; renew well before.
pub fn valid_until(certificate: &CertificateDer<'_>) -> Result<Timestamp, ChainRefusal> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| ChainRefusal::Malformed)?;
    Ok(Timestamp::from_secs(parsed.validity().not_after.timestamp()))
}

/// Verifies `leaf` and then its signature over `message`.
pub(crate) fn verify_signed(
    leaf: &CertificateDer<'_>,
    ca: &CaCertificate,
    domain: &TrustDomain,
    now: Timestamp,
    message: &[u8],
    signature: &[u8],
) -> Result<SpiffeId, SignedRefusal> {
    let verified = verified_leaf(leaf, &[], ca, now, Usage::Client)?;
    let id = spiffe_id(leaf, domain)?;
    verified
        .verify_signature(webpki::ring::ECDSA_P256_SHA256, message, signature)
        .map_err(|_| SignedRefusal::Signature)?;
    Ok(id)
}

/// Why signed bytes were refused.
pub(crate) enum SignedRefusal {
    Chain(ChainRefusal),
    Signature,
}

impl From<ChainRefusal> for SignedRefusal {
    fn from(refusal: ChainRefusal) -> SignedRefusal {
        SignedRefusal::Chain(refusal)
    }
}

fn verified_leaf<'a>(
    leaf: &'a CertificateDer<'a>,
    intermediates: &[CertificateDer<'_>],
    ca: &CaCertificate,
    now: Timestamp,
    usage: Usage,
) -> Result<EndEntityCert<'a>, ChainRefusal> {
    let end = EndEntityCert::try_from(leaf).map_err(|_| ChainRefusal::Malformed)?;
    let anchor = webpki::anchor_from_trusted_cert(ca.der()).map_err(|_| ChainRefusal::Malformed)?;
    let secs = u64::try_from(now.as_secs()).map_err(|_| ChainRefusal::Time)?;
    let time = UnixTime::since_unix_epoch(Duration::from_secs(secs));
    let usage = match usage {
        Usage::Server => KeyUsage::server_auth(),
        Usage::Client => KeyUsage::client_auth(),
    };
    end.verify_for_usage(
        &[webpki::ring::ECDSA_P256_SHA256],
        &[anchor],
        intermediates,
        time,
        usage,
        None,
        None,
    )
    .map_err(|e| match e {
        webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => ChainRefusal::Time,
        other => ChainRefusal::Untrusted(other.to_string()),
    })?;
    Ok(end)
}
