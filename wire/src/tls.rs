//! Mutual TLS 1.3 between broker and agent.
//!
//! Both sides present a certificate of the same authority; host names play no part, SPIFFE names
//! decide: an agent talks only to `broker/…`, a broker only to `agent/…`. Sessions are not resumed,
//! so every connection verifies a certificate afresh. The certificate and key may be replaced while
//! the process runs; connections made from then on use the new ones.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use certs::x509::{CaCertificate, ChainRefusal, Identity, Usage, verify_chain};
use certs::{SpiffeId, TrustDomain};
use model::{Clock, Timestamp};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// The protocol's name in the TLS handshake (RFC 7301).
pub const ALPN: &[u8] = b"sekisho-agent/1";

/// What one side needs to prove who it is and to know the other. Clones share everything.
#[derive(Clone)]
pub struct Tls {
    shared: Arc<Shared>,
}

struct Shared {
    domain: TrustDomain,
    ca: CaCertificate,
    clock: Arc<dyn Clock>,
    provider: Arc<CryptoProvider>,
    identity: RwLock<Arc<CertifiedKey>>,
}

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The private key cannot be used, or is not that of the certificate.
    #[error("the private key cannot be used with its certificate: {0}")]
    Key(#[source] rustls::Error),
    /// The TLS library refused the configuration.
    #[error("TLS could not be set up: {0}")]
    Setup(#[source] rustls::Error),
    /// The TLS library lacks what QUIC needs.
    #[error("TLS could not be set up for QUIC: {0}")]
    Quic(#[source] quinn::crypto::rustls::NoInitialCipherSuite),
}

impl Tls {
    /// Presents `identity`, trusts `ca` for names of `domain`; `clock` decides what has expired.
    pub fn new(
        domain: TrustDomain,
        ca: CaCertificate,
        identity: &Identity,
        clock: Arc<dyn Clock>,
    ) -> Result<Tls, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let identity = RwLock::new(certified(&provider, identity)?);
        Ok(Tls { shared: Arc::new(Shared { domain, ca, clock, provider, identity }) })
    }

    /// Presents another certificate from the next connection on.
    pub fn replace(&self, identity: &Identity) -> Result<(), TlsError> {
        let next = certified(&self.shared.provider, identity)?;
        *self.shared.identity.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    /// The trust domain.
    pub fn domain(&self) -> &TrustDomain {
        &self.shared.domain
    }

    /// For an agent, which trusts brokers.
    pub(crate) fn client(&self) -> Result<quinn::crypto::rustls::QuicClientConfig, TlsError> {
        let mut config =
            ClientConfig::builder_with_details(self.shared.provider.clone(), Arc::new(Time(self.clone())))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .map_err(TlsError::Setup)?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(OfBrokers(self.clone())))
                .with_client_cert_resolver(Arc::new(Own(self.clone())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        config.try_into().map_err(TlsError::Quic)
    }

    /// For a broker, which trusts agents.
    pub(crate) fn server(&self) -> Result<quinn::crypto::rustls::QuicServerConfig, TlsError> {
        let mut config =
            ServerConfig::builder_with_details(self.shared.provider.clone(), Arc::new(Time(self.clone())))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .map_err(TlsError::Setup)?
                .with_client_cert_verifier(Arc::new(OfAgents(self.clone())))
                .with_cert_resolver(Arc::new(Own(self.clone())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        config.try_into().map_err(TlsError::Quic)
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: Usage,
    ) -> Result<SpiffeId, rustls::Error> {
        let mut chain = vec![leaf.clone()];
        chain.extend_from_slice(intermediates);
        let now = Timestamp::from_secs(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        verify_chain(&chain, &self.shared.ca, &self.shared.domain, now, usage).map_err(|refusal| {
            rustls::Error::InvalidCertificate(match refusal {
                ChainRefusal::Empty | ChainRefusal::Malformed => CertificateError::BadEncoding,
                ChainRefusal::Time => CertificateError::Expired,
                ChainRefusal::Untrusted(_) => CertificateError::UnknownIssuer,
                ChainRefusal::Name(_) => CertificateError::ApplicationVerificationFailure,
            })
        })
    }

    fn signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signed, &self.shared.provider.signature_verification_algorithms)
    }

    fn own(&self) -> Arc<CertifiedKey> {
        self.shared.identity.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("domain", &self.shared.domain).finish_non_exhaustive()
    }
}

fn certified(provider: &CryptoProvider, identity: &Identity) -> Result<Arc<CertifiedKey>, TlsError> {
    CertifiedKey::from_der(identity.chain.clone(), identity.key.clone_key(), provider)
        .map(Arc::new)
        .map_err(TlsError::Key)
}

const WRONG_KIND: rustls::Error =
    rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);

/// All certificates of the system have keys on P-256.
fn schemes() -> Vec<SignatureScheme> {
    vec![SignatureScheme::ECDSA_NISTP256_SHA256]
}

#[derive(Debug)]
struct OfBrokers(Tls);

impl ServerCertVerifier for OfBrokers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.0.check(leaf, intermediates, now, Usage::Server)? {
            SpiffeId::Broker(_) => Ok(ServerCertVerified::assertion()),
            _ => Err(WRONG_KIND),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.shared.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

#[derive(Debug)]
struct OfAgents(Tls);

impl ClientCertVerifier for OfAgents {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        match self.0.check(leaf, intermediates, now, Usage::Client)? {
            SpiffeId::Agent(_) => Ok(ClientCertVerified::assertion()),
            _ => Err(WRONG_KIND),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.shared.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

#[derive(Debug)]
struct Own(Tls);

impl ResolvesServerCert for Own {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.own())
    }
}

impl ResolvesClientCert for Own {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.own())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Time(Tls);

impl rustls::time_provider::TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let secs = u64::try_from(self.0.shared.clock.now().as_secs()).ok()?;
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(secs)))
    }
}
