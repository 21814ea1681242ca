//! Whom this program talks to: only a broker of the authority it was enrolled with. The machine's
//! list of public authorities plays no part.

use std::sync::{Arc, OnceLock};

use certs::x509::{CaCertificate, Identity};
use certs::{SpiffeId, TrustDomain};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Recognises the authority's certificate (DER), as an enrolment token does.
pub type Pin = Arc<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// A configuration that trusts this authority and shows this identity.
///
/// # Errors
/// The authority's certificate or the identity cannot be used.
pub fn trusting(ca: &CaCertificate, identity: Option<Identity>) -> Result<Arc<ClientConfig>, Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier_of(ca.der())?);
    Ok(Arc::new(match identity {
        Some(Identity { chain, key }) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    }))
}

/// First contact: the authority is the one among the certificates the server shows that the token
/// recognises; the server's own must then be of that authority. Read it from
/// [`FirstContact::authority`] after the handshake.
pub fn first_contact(pin: Pin) -> Result<(Arc<ClientConfig>, Arc<FirstContact>), Error> {
    let verifier = Arc::new(FirstContact { pin, found: OnceLock::new() });
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_no_client_auth();
    Ok((Arc::new(config), verifier))
}

/// Learns the authority from a server, by the pin.
pub struct FirstContact {
    pin: Pin,
    found: OnceLock<CertificateDer<'static>>,
}

impl FirstContact {
    /// The authority's certificate, once a handshake has succeeded.
    pub fn authority(&self) -> Option<&CertificateDer<'static>> {
        self.found.get()
    }
}

impl std::fmt::Debug for FirstContact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FirstContact").field("found", &self.found.get().is_some()).finish()
    }
}

impl ServerCertVerifier for FirstContact {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ca = intermediates
            .iter()
            .find(|c| (self.pin)(c))
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let verified = verifier_of(ca)?.verify_server_cert(leaf, intermediates, name, ocsp, now)?;
        let first = self.found.get_or_init(|| ca.clone().into_owned());
        if first == ca {
            Ok(verified)
        } else {
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &provider().signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &provider().signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// The trust domain of a broker's certificate, whose signature the handshake has checked. `None`
/// when it is not a broker's: a service of the same authority must not pass for one.
pub fn broker_domain(leaf: &CertificateDer<'_>) -> Option<TrustDomain> {
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    let domain = names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix("spiffe://")?.split('/').next()?.parse().ok(),
        _ => None,
    })?;
    match certs::x509::spiffe_id(leaf, &domain) {
        Ok(SpiffeId::Broker(_)) => Some(domain),
        _ => None,
    }
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())).clone()
}

fn verifier_of(ca: &CertificateDer<'_>) -> Result<Arc<WebPkiServerVerifier>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone().into_owned())?;
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|e| Error::General(e.to_string()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use certs::x509::{CertificateAuthority, KeyPair, LeafRequest};
    use model::{SeededEntropy, Timestamp};

    use super::*;

    const NOW: i64 = 1_790_000_000;

    fn authority(seed: u64) -> CertificateAuthority {
        let entropy = SeededEntropy::new(seed);
        let key = KeyPair::generate(&entropy).unwrap();
        let domain = "sekisho.test".parse().unwrap();
        CertificateAuthority::create(domain, key, Timestamp::from_secs(NOW), &entropy).unwrap()
    }

    fn leaf(of: &CertificateAuthority, spiffe: SpiffeId, host: &str) -> CertificateDer<'static> {
        let entropy = SeededEntropy::new(7);
        let public_key = KeyPair::generate(&entropy).unwrap().spki().unwrap();
        let lifetime = Duration::from_secs(3600);
        let request =
            LeafRequest { spiffe, dns: vec![host.to_owned()], ip: Vec::new(), public_key, lifetime };
        of.issue(&request, Timestamp::from_secs(NOW), &entropy).unwrap()
    }

    fn broker() -> SpiffeId {
        SpiffeId::Broker("main".to_owned())
    }

    fn contact(
        pinned: &CertificateAuthority,
        shown: &[CertificateDer<'static>],
    ) -> (Result<(), Error>, Arc<FirstContact>) {
        let wanted = pinned.certificate().clone();
        let (_, verifier) = first_contact(Arc::new(move |der| der == wanted.der().as_ref())).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW.unsigned_abs()));
        (verifier.verify_server_cert(&shown[0], &shown[1..], &name, &[], now).map(|_| ()), verifier)
    }

    #[test]
    fn the_pinned_authority_is_learnt() {
        let ca = authority(1);
        let der = ca.certificate().der().clone();
        let (result, verifier) = contact(&ca, &[leaf(&ca, broker(), "localhost"), der.clone()]);
        result.unwrap();
        assert_eq!(verifier.authority(), Some(&der));
    }

    #[test]
    fn another_authority_is_refused_even_beside_the_pinned_one() {
        let (ours, theirs) = (authority(1), authority(2));
        let der = |ca: &CertificateAuthority| ca.certificate().der().clone();
        for shown in [
            vec![leaf(&theirs, broker(), "localhost"), der(&theirs)],
            vec![leaf(&theirs, broker(), "localhost"), der(&ours)],
            vec![leaf(&ours, broker(), "elsewhere"), der(&ours)],
            vec![leaf(&ours, broker(), "localhost")],
        ] {
            let (result, verifier) = contact(&ours, &shown);
            assert!(result.is_err());
            assert_eq!(verifier.authority(), None);
        }
    }

    #[test]
    fn a_service_is_no_broker() {
        let ca = authority(1);
        let domain = broker_domain(&leaf(&ca, broker(), "localhost")).unwrap();
        assert_eq!(domain.as_str(), "sekisho.test");
        assert_eq!(broker_domain(&leaf(&ca, SpiffeId::Service("web".to_owned()), "localhost")), None);
        assert_eq!(broker_domain(&CertificateDer::from(vec![0x30, 0])), None);
    }
}
