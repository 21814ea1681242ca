//! Getting a certificate, once with a one-time token and then daily with the one at hand.
//!
//! The token names the authority. Before anything is sent the broker must show a chain that ends
//! in that authority; everything after goes over connections that trust it alone.

use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use certs::token::{Token, TokenError, TokenKind, WrongAuthority};
use certs::x509::{CaCertificate, Identity, KeyError, KeyPair};
use data_encoding::BASE64;
use model::{AgentId, Clock, Entropy};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};
use serde::{Deserialize, Serialize};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig, TlsProvider};

use crate::identity::{Enrolment, NotOurs};

/// How long one exchange may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// The most an answer may hold, bytes.
const ANSWER_MAX: u64 = 64 * 1024;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The token file holds no token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The token is for a person.
    #[error("this token enrols a person's device, not an agent; make one with `sekisho agent token`")]
    TokenKind,
    /// The broker is not the token's.
    #[error(transparent)]
    WrongAuthority(#[from] WrongAuthority),
    /// The address is not one.
    #[error("{0:?} is not an address like https://broker.example:8443")]
    Address(String),
    /// The broker cannot be reached.
    #[error("the broker cannot be reached")]
    Connect(#[source] io::Error),
    /// The exchange failed.
    #[error("the exchange with the broker failed")]
    Exchange(#[source] Box<ureq::Error>),
    /// The broker said no.
    #[error("the broker refused: {message} ({code})")]
    Refused {
        /// Stable.
        code: String,
        /// A sentence.
        message: String,
    },
    /// The broker's answer is not one.
    #[error("the broker's answer cannot be read")]
    Answer,
    /// The certificate is not this agent's.
    #[error("the broker sent a certificate that cannot be used")]
    NotOurs(#[from] NotOurs),
    /// There is no key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

/// Whom to ask, and as whom.
pub struct Office<'a> {
    /// The broker's API.
    pub api: &'a str,
    /// This agent.
    pub me: &'a AgentId,
    /// Now.
    pub clock: &'a dyn Clock,
    /// For keys.
    pub entropy: &'a dyn Entropy,
}

impl Office<'_> {
    /// Enrols with a one-time token. It blocks.
    pub fn enrol(&self, token_text: &str) -> Result<Enrolment, EnrolError> {
        let token: Token = token_text.trim().parse()?;
        if token.kind() != TokenKind::Agent {
            return Err(EnrolError::TokenKind);
        }
        let ca = self.meet(&token)?;
        let key = KeyPair::generate(self.entropy)?;
        let request =
            EnrolRequest { token: token_text.trim(), agent: self.me, spki: BASE64.encode(&key.spki()?) };
        self.certificate("/v1/agents/enrol", &request, &ca, None, &key)
    }

    /// Renews a certificate, for a new key. It blocks.
    pub fn renew(&self, old: &Enrolment) -> Result<Enrolment, EnrolError> {
        let key = KeyPair::generate(self.entropy)?;
        let request = RenewRequest { spki: BASE64.encode(&key.spki()?) };
        self.certificate("/v1/agents/renew", &request, &old.ca, Some(&old.identity), &key)
    }

    fn certificate(
        &self,
        path: &str,
        request: &impl Serialize,
        ca: &CaCertificate,
        identity: Option<&Identity>,
        key: &KeyPair,
    ) -> Result<Enrolment, EnrolError> {
        let answer: Certified = self.post(path, request, ca, identity)?;
        let key_der = key.to_private_key_der()?;
        let chain =
            Identity::from_pem(&answer.certificate_pem, &pem(key)?).map_err(|_| EnrolError::Answer)?;
        let identity = Identity { chain: chain.chain, key: key_der };
        // The authority stays the one that was met first, whatever the answer says.
        Ok(Enrolment::check(identity, ca.clone(), self.me, self.clock.now())?)
    }

    fn post<T: for<'de> Deserialize<'de>>(
        &self,
        path: &str,
        request: &impl Serialize,
        ca: &CaCertificate,
        identity: Option<&Identity>,
    ) -> Result<T, EnrolError> {
        let client = match identity {
            Some(identity) => {
                let chain: Vec<_> =
                    identity.chain.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
                let key = PrivateKey::from_pem(identity.key_pem().as_bytes())
                    .map_err(|error| EnrolError::Exchange(Box::new(error)))?;
                Some(ClientCert::new_with_certs(&chain, key))
            }
            None => None,
        };
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(RootCerts::new_with_certs(&[Certificate::from_der(ca.der()).to_owned()]))
            .client_cert(client)
            .build();
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .build()
            .into();
        let url = format!("{}{path}", self.api.trim_end_matches('/'));
        let mut answer =
            agent.post(&url).send_json(request).map_err(|error| EnrolError::Exchange(Box::new(error)))?;
        let good = answer.status().is_success();
        let text = answer
            .body_mut()
            .with_config()
            .limit(ANSWER_MAX)
            .read_to_string()
            .map_err(|error| EnrolError::Exchange(Box::new(error)))?;
        parse_answer(good, &text)
    }

    /// Connects once to see the broker's chain, and finds in it the authority that the token names.
    fn meet(&self, token: &Token) -> Result<CaCertificate, EnrolError> {
        let (host, address) =
            host_and_address(self.api).ok_or_else(|| EnrolError::Address(self.api.to_owned()))?;
        let name =
            ServerName::try_from(host.to_owned()).map_err(|_| EnrolError::Address(self.api.to_owned()))?;
        let pinned = Arc::new(Pinned { token: token.clone(), met: Mutex::default() });
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(EnrolError::Tls)?
            .dangerous()
            .with_custom_certificate_verifier(pinned.clone())
            .with_no_client_auth();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).map_err(EnrolError::Tls)?;
        let mut stream = connect(&address).map_err(EnrolError::Connect)?;
        let shaken = shake_hands(&mut client, &mut stream);
        let met = pinned.met.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (met, shaken) {
            (Some(Ok(ca)), Ok(())) => Ok(ca),
            (Some(Err(wrong)), _) => Err(wrong.into()),
            (_, Err(error)) => Err(EnrolError::Connect(error)),
            (None, Ok(())) => Err(WrongAuthority.into()),
        }
    }
}

/// Reads the token file, if it is there.
pub fn read_token(path: &Path) -> io::Result<Option<zeroize::Zeroizing<String>>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(zeroize::Zeroizing::new(text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[derive(Serialize)]
struct EnrolRequest<'a> {
    token: &'a str,
    agent: &'a AgentId,
    spki: String,
}

#[derive(Serialize)]
struct RenewRequest {
    spki: String,
}

/// The parts of the answer that are used.
#[derive(Debug, Deserialize)]
struct Certified {
    certificate_pem: String,
}

#[derive(Deserialize)]
struct Failed {
    error: Failure,
}

#[derive(Deserialize)]
struct Failure {
    code: String,
    message: String,
}

fn parse_answer<T: for<'de> Deserialize<'de>>(good: bool, text: &str) -> Result<T, EnrolError> {
    if good {
        return serde_json::from_str(text).map_err(|_| EnrolError::Answer);
    }
    let failed: Failed = serde_json::from_str(text).map_err(|_| EnrolError::Answer)?;
    Err(EnrolError::Refused { code: failed.error.code, message: failed.error.message })
}

fn pem(key: &KeyPair) -> Result<zeroize::Zeroizing<String>, EnrolError> {
    let identity = Identity { chain: Vec::new(), key: key.to_private_key_der()? };
    Ok(identity.key_pem())
}

/// `https://host:port` as host and what to connect to.
fn host_and_address(api: &str) -> Option<(&str, String)> {
    let rest = api.strip_prefix("https://")?;
    let authority = rest.split('/').next()?;
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse::<u16>().ok()?),
        _ => (authority, 443),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    (!host.is_empty()).then_some((host, address))
}

fn connect(address: &str) -> io::Result<TcpStream> {
    use std::net::ToSocketAddrs;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn shake_hands(client: &mut rustls::ClientConnection, stream: &mut TcpStream) -> io::Result<()> {
    while client.is_handshaking() {
        client.complete_io(stream)?;
    }
    client.send_close_notify();
    let _ = client.write_tls(stream);
    Ok(())
}

/// Accepts a chain that holds the authority that the token names. That the leaf was issued by it
/// is checked by the connection that follows, before anything is sent.
#[derive(Debug)]
struct Pinned {
    token: Token,
    met: Mutex<Option<Result<CaCertificate, WrongAuthority>>>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let mut presented = vec![leaf.clone()];
        presented.extend_from_slice(intermediates);
        let found = self.token.pinned_authority(&presented);
        let good = found.is_ok();
        *self.met.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        if good {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let provider = rustls::crypto::ring::default_provider();
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            signed,
            &provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let provider = rustls::crypto::ring::default_provider();
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            signed,
            &provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let apart = |api| host_and_address(api).map(|(host, address)| (host.to_owned(), address));
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(apart("https://localhost:8443"), pair("localhost", "localhost:8443"));
        assert_eq!(apart("https://b.example/x"), pair("b.example", "b.example:443"));
        assert_eq!(apart("https://[::1]:9"), pair("::1", "[::1]:9"));
        assert_eq!(apart("https://[::1]"), pair("::1", "[::1]:443"));
        assert_eq!(apart("http://x"), None);
        assert_eq!(apart("https://x:port"), None);
        assert_eq!(apart("https://"), None);
    }

    #[test]
    fn a_refusal_says_what_the_broker_said() {
        let text = r#"{"error":{"code":"token.used","message":"The token was used."}}"#;
        let error = parse_answer::<Certified>(false, text).unwrap_err();
        assert_eq!(error.to_string(), "the broker refused: The token was used. (token.used)");
        assert!(matches!(parse_answer::<Certified>(false, "<html>"), Err(EnrolError::Answer)));
        assert!(matches!(parse_answer::<Certified>(true, "{}"), Err(EnrolError::Answer)));
    }
}
