//! HTTPS for the clients of storage services: hyper over rustls on ring.
//!
//! `object_store` would bring another TLS stack with its own client; it takes this one instead.
//! Redirects are not followed and proxies not asked, so that credentials go where configuration
//! says and nowhere else. No answer is longer than a file of ours can be.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use http::header::{AUTHORIZATION, HeaderValue, USER_AGENT};
use http_body_util::{BodyExt, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::{Client, connect};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
    HttpResponseBody, HttpService,
};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::BackendError;
use super::access::Secret;
use crate::format::{HEADER, Manifest};

/// The longest file of ours, which is also more than any page of a listing.
const MAX_BODY: usize = HEADER + Manifest::MAX_LEN;
/// The longest answer that says what went wrong.
const MAX_COMPLAINT: usize = 256 << 10;
const CONNECT: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(30);
/// Connections that are kept for the next request.
const KEPT: usize = 16;
/// The longest file of certificates.
const MAX_CA: u64 = 1 << 20;

/// A client to one backend.
#[derive(Clone)]
pub(super) struct Transport {
    client: Client<HttpsConnector<connect::HttpConnector>, HttpRequestBody>,
    authorization: Option<HeaderValue>,
}

impl Transport {
    /// Believes the system's authorities and those in `ca`. Without `plain` it speaks TLS only.
    pub(super) fn new(ca: Option<&Path>, plain: bool) -> Result<Transport, BackendError> {
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| roots(format!("TLS cannot be set up: {error}"), None))?
            // Plain HTTP to this machine needs no roots, and a machine may have none.
            .with_root_certificates(if plain { RootCertStore::empty() } else { believed(ca)? })
            .with_no_client_auth();
        let mut tcp = connect::HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_keepalive(Some(IDLE));
        let builder = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls);
        let builder = if plain { builder.https_or_http() } else { builder.https_only() };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(KEPT)
            .build(builder.enable_http1().wrap_connector(tcp));
        Ok(Transport { client, authorization: None })
    }

    /// Shows a token with every request (RFC 6750).
    pub(super) fn bearing(self, token: &Secret) -> Result<Transport, BackendError> {
        self.showing(&Zeroizing::new(format!("Bearer {}", token.reveal())))
    }

    /// Shows a user and a password with every request (RFC 7617).
    pub(super) fn with_user(self, user: &Secret, password: &Secret) -> Result<Transport, BackendError> {
        let pair = Zeroizing::new(format!("{}:{}", user.reveal(), password.reveal()));
        self.showing(&Zeroizing::new(format!("Basic {}", BASE64.encode(pair.as_bytes()))))
    }

    fn showing(mut self, authorization: &str) -> Result<Transport, BackendError> {
        let mut value = HeaderValue::from_str(authorization).map_err(|_| {
            roots("the credentials have characters that HTTP does not carry".to_owned(), None)
        })?;
        value.set_sensitive(true);
        self.authorization = Some(value);
        Ok(self)
    }
}

fn roots(reason: String, source: Option<io::Error>) -> BackendError {
    BackendError::Roots { reason, source }
}

fn believed(ca: Option<&Path>) -> Result<RootCertStore, BackendError> {
    let mut store = RootCertStore::empty();
    // Some of the system's may be unreadable or odd; what counts is that there are any.
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca {
        let unreadable = |source| roots(format!("{} cannot be read", path.display()), Some(source));
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let mut pem = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, MAX_CA), &mut pem).map_err(unreadable)?;
        let mut added = 0;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let bad = |why: String| roots(format!("{}: no PEM certificate: {why}", path.display()), None);
            let certificate = certificate.map_err(|error| bad(error.to_string()))?;
            store.add(certificate).map_err(|error| bad(error.to_string()))?;
            added += 1;
        }
        if added == 0 {
            return Err(roots(format!("{} holds no PEM certificate", path.display()), None));
        }
    }
    if store.is_empty() {
        let reason = "this machine believes no authority: install ca-certificates, or name a file with `ca`";
        return Err(roots(reason.to_owned(), None));
    }
    Ok(store)
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transport")
    }
}

impl HttpConnector for Transport {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait::async_trait]
impl HttpService for Transport {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let agent = HeaderValue::from_static(concat!("sekisho/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(USER_AGENT, agent);
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let answer = self.client.request(request).await.map_err(|error| {
            let kind = if error.is_connect() { HttpErrorKind::Connect } else { kind(&error) };
            HttpError::new(kind, error)
        })?;
        let (head, body) = answer.into_parts();
        let limit = if head.status.is_success() { MAX_BODY } else { MAX_COMPLAINT };
        let body = Limited::new(body, limit).map_err(|error| HttpError::new(kind(&*error), Boxed(error)));
        Ok(HttpResponse::from_parts(head, HttpResponseBody::new(body)))
    }
}

/// What a client needs to know to decide whether to try again.
fn kind(error: &(dyn Error + 'static)) -> HttpErrorKind {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            if error.is_timeout() {
                return HttpErrorKind::Timeout;
            }
            if error.is_closed() || error.is_canceled() || error.is_incomplete_message() {
                return HttpErrorKind::Request;
            }
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return match error.kind() {
                io::ErrorKind::TimedOut => HttpErrorKind::Timeout,
                io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof => HttpErrorKind::Interrupted,
                _ => HttpErrorKind::Unknown,
            };
        }
        cause = error.source();
    }
    HttpErrorKind::Unknown
}

/// An error in a box, as an error.
#[derive(Debug)]
struct Boxed(Box<dyn Error + Send + Sync>);

impl fmt::Display for Boxed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Boxed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}
