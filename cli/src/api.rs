//! The broker's HTTPS API, as far as this program uses it. One request, one connection: the
//! program makes few, and a connection that outlives its certificate would be a nuisance.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use certs::TrustDomain;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use model::Timestamp;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::fault::{Exit, Fault, chain};
use crate::{say, tls};

/// More than any list that a person would read.
const ANSWER_MAX: usize = 8 << 20;
const CONNECT_TIME: Duration = Duration::from_secs(10);
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// A body that is sent.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Where the API is: `https://host[:port]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    host: String,
    port: u16,
}

impl Url {
    /// Reads an address; a path beyond `/` is refused.
    pub fn parse(text: &str) -> Result<Url, Fault> {
        let bad = || Fault::usage(say!(BadUrl, text = text));
        let uri: Uri = text.parse().map_err(|_| bad())?;
        if uri.scheme_str() != Some("https") || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(bad());
        }
        let authority = uri.authority().ok_or_else(bad)?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(bad());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Url { host, port: authority.port_u16().unwrap_or(8443) })
    }

    /// The host, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "https://{}", self.authority())
    }
}

/// The API at one address, spoken to as one identity.
#[derive(Clone)]
pub struct Api {
    url: Url,
    tls: Arc<ClientConfig>,
}

/// Why a request had no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Nobody answered, or the connection broke.
    #[error("{reason}")]
    Unreachable {
        /// In the operating system's words.
        reason: String,
    },
    /// Whoever answered is not a broker of our authority.
    #[error("its certificate was not accepted: {reason}")]
    Untrusted {
        /// What is wrong with it.
        reason: String,
    },
    /// A "no", or "not now", with the broker's reason.
    #[error("{message} ({code})")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// A stable word.
        code: String,
        /// A sentence for the person.
        message: String,
    },
    /// Not the answer that this version expects.
    #[error("{0}")]
    NotUnderstood(String),
}

#[derive(Deserialize)]
struct Failure {
    error: FailureBody,
}

/// The broker's `{"error": {"code", "message"}}`.
#[derive(Debug, Clone, Deserialize)]
pub struct FailureBody {
    /// A stable word.
    pub code: String,
    /// A sentence for the person.
    pub message: String,
}

impl Api {
    /// The API at an address.
    pub fn new(url: Url, tls: Arc<ClientConfig>) -> Api {
        Api { url, tls }
    }

    /// The address.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The trust domain that the broker's certificate names.
    pub async fn domain(&self) -> Result<TrustDomain, ApiError> {
        let stream = tokio::time::timeout(CONNECT_TIME, self.connect()).await;
        Ok(stream.unwrap_or_else(|_| Err(too_slow(CONNECT_TIME)))?.1)
    }

    /// GET.
    pub async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, ApiError> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    /// POST with a JSON body.
    pub async fn post<A: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<A, ApiError> {
        let body = serde_json::to_vec(body).map_err(|e| ApiError::NotUnderstood(e.to_string()))?;
        self.call(Method::POST, path, Bytes::from(body)).await
    }

    /// One request whose answer is small.
    async fn call<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<A, ApiError> {
        let mut request =
            Request::builder().method(method).uri(path).header(header::ACCEPT, "application/json");
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = Full::new(body).map_err(|never: Infallible| match never {}).boxed_unsync();
        let work = async {
            let response = self.send(request, body).await?;
            let status = response.status();
            (status, collect(response).await?).into_answer()
        };
        tokio::time::timeout(ANSWER_TIME, work).await.unwrap_or_else(|_| Err(too_slow(ANSWER_TIME)))
    }

    /// One request; the answer comes as soon as the broker begins one, which may be before it has
    /// read the whole body.
    pub async fn send(
        &self,
        request: hyper::http::request::Builder,
        body: Body,
    ) -> Result<Response<Incoming>, ApiError> {
        let request = request
            .header(header::HOST, self.url.authority())
            .header(header::USER_AGENT, concat!("sekisho/", env!("CARGO_PKG_VERSION")))
            .body(body)
            .map_err(|e| ApiError::NotUnderstood(e.to_string()))?;
        let connected = tokio::time::timeout(CONNECT_TIME, self.connect()).await;
        let (stream, _) = connected.unwrap_or_else(|_| Err(too_slow(CONNECT_TIME)))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
        // It ends when the answer has been read, or is dropped.
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(|e| broken(&e))
    }

    async fn connect(&self) -> Result<(TlsStream<TcpStream>, TrustDomain), ApiError> {
        let unreachable = |e: std::io::Error| ApiError::Unreachable { reason: e.to_string() };
        let tcp = TcpStream::connect((self.url.host(), self.url.port)).await.map_err(unreachable)?;
        tcp.set_nodelay(true).map_err(unreachable)?;
        let name = ServerName::try_from(self.url.host().to_owned())
            .map_err(|e| ApiError::Untrusted { reason: e.to_string() })?;
        let stream = tokio_rustls::TlsConnector::from(self.tls.clone()).connect(name, tcp).await;
        let stream = stream.map_err(|error| {
            match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
                Some(
                    tls @ (rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented),
                ) => ApiError::Untrusted { reason: tls.to_string() },
                Some(tls) => ApiError::NotUnderstood(tls.to_string()),
                None => unreachable(error),
            }
        })?;
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let domain = leaf.and_then(tls::broker_domain);
        let not_broker = || ApiError::Untrusted { reason: "it is not a broker's".to_owned() };
        Ok((stream, domain.ok_or_else(not_broker)?))
    }
}

/// Reads a whole answer, up to a bound.
pub async fn collect(response: Response<Incoming>) -> Result<Bytes, ApiError> {
    let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
    body.map(http_body_util::Collected::to_bytes).map_err(|e| ApiError::Unreachable { reason: chain(&*e) })
}

trait IntoAnswer {
    fn into_answer<A: DeserializeOwned>(self) -> Result<A, ApiError>;
}

impl IntoAnswer for (StatusCode, Bytes) {
    fn into_answer<A: DeserializeOwned>(self) -> Result<A, ApiError> {
        let (status, body) = self;
        if !status.is_success() {
            return Err(refusal(status, &body));
        }
        // An answer that says nothing is no content at all for the caller.
        let body: &[u8] = if body.is_empty() { b"null" } else { &body };
        serde_json::from_slice(body).map_err(|e| ApiError::NotUnderstood(e.to_string()))
    }
}

/// What an unsuccessful answer says; foreign bytes.
pub fn refusal(status: StatusCode, body: &[u8]) -> ApiError {
    let FailureBody { code, message } = match serde_json::from_slice::<Failure>(body) {
        Ok(failure) => failure.error,
        Err(_) => FailureBody { code: format!("http_{}", status.as_u16()), message: status.to_string() },
    };
    ApiError::Refused { status: status.as_u16(), code: printable(&code), message: printable(&message) }
}

/// Text from elsewhere without what would steer a terminal.
pub fn printable(text: &str) -> String {
    text.chars().take(2000).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn too_slow(after: Duration) -> ApiError {
    ApiError::Unreachable { reason: format!("no answer within {} s", after.as_secs()) }
}

fn broken(error: &hyper::Error) -> ApiError {
    if error.is_parse() {
        ApiError::NotUnderstood(chain(error))
    } else {
        ApiError::Unreachable { reason: chain(error) }
    }
}

impl ApiError {
    /// What the person is told.
    pub fn into_fault(self, at: &Url) -> Fault {
        match self {
            ApiError::Unreachable { reason } => {
                Fault::new(Exit::Unavailable, "unreachable", say!(Unreachable, at = at))
                    .why(reason)
                    .todo(say!(UnreachableTodo))
            }
            ApiError::Untrusted { reason } => {
                Fault::new(Exit::Refused, "untrusted", say!(Untrusted, at = at))
                    .why(reason)
                    .todo(say!(UntrustedTodo))
            }
            ApiError::Refused { status, code, message } => match status {
                401 | 403 => Fault::new(Exit::Refused, &code, say!(RefusedByBroker, message = message)),
                408 | 429 | 500.. => {
                    Fault::new(Exit::Unavailable, &code, say!(BusyBroker, message = message))
                }
                _ => Fault::failed(&code, say!(FailedAtBroker, message = message)),
            },
            ApiError::NotUnderstood(reason) => Fault::failed("not_understood", say!(NotUnderstood, at = at))
                .why(printable(&reason))
                .todo(say!(NotUnderstoodTodo)),
        }
    }
}

/// POST /v1/login
#[derive(Debug, Serialize)]
pub struct LoginBody {
    /// Who.
    pub person: String,
    /// The device's key, an OpenSSH public key line.
    pub ssh_public_key: String,
    /// When the proof was made.
    pub time: Timestamp,
    /// Makes the proof unique (base64).
    pub nonce: String,
    /// By the device's key, over the proof (base64).
    pub signature: String,
    /// One-time token, to enrol the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Seconds that the certificates need to live, when that is less than they may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<u64>,
    /// Public key of the device's TLS identity (DER SubjectPublicKeyInfo, base64).
    pub tls_public_key: String,
}

/// The answer to a login.
#[derive(Debug, Deserialize)]
pub struct LoginAnswer {
    /// OpenSSH user certificate, a line.
    pub ssh_certificate: String,
    /// TLS client certificate.
    pub tls_certificate_pem: String,
    /// The authority.
    pub ca_pem: String,
    /// The authority of host certificates, an OpenSSH public key line.
    pub host_ca: String,
    /// The broker's own host key, when it tells.
    #[serde(default)]
    pub host_key: Option<String>,
    /// Where the SSH door is.
    pub ssh: SshDoor,
    /// When the certificates end.
    pub expires: Timestamp,
}

/// Where the SSH door is.
#[derive(Debug, Deserialize)]
pub struct SshDoor {
    /// Host.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// GET /v1/intake-key
#[derive(Debug, Deserialize)]
pub struct IntakeKey {
    /// The agent whose intake enclave will open the file.
    pub agent: String,
    /// Its Crypt4GH public key (X25519, base64).
    pub key: String,
}

/// A token that was made.
#[derive(Debug, Deserialize)]
pub struct TokenAnswer {
    /// The text to hand over.
    pub token: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::Lang;

    #[test]
    fn addresses() {
        let url = Url::parse("https://gate.example.org").unwrap();
        assert_eq!(url.to_string(), "https://gate.example.org:8443");
        assert_eq!(Url::parse("https://[::1]:9/").unwrap().to_string(), "https://[::1]:9");
        assert_eq!(Url::parse("https://[::1]:9/").unwrap().host(), "::1");
        for bad in
            ["http://x", "x:1", "https://", "https://a@b", "https://x/v1", "https://x?y", "nonsense text"]
        {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_no_has_the_brokers_words_and_its_own_exit_code() {
        let url = Url::parse("https://x").unwrap();
        let no = |status: u16, body: &str| {
            refusal(StatusCode::from_u16(status).unwrap(), body.as_bytes()).into_fault(&url)
        };
        let denied = no(
            403,
            r#"{"error":{"code":"not_a_member","message":"You are not a member.\u001b[2J","more":1}}"#,
        );
        assert_eq!((denied.exit, denied.code.as_str()), (Exit::Refused, "not_a_member"));
        assert!(denied.text(Lang::En).contains("You are not a member. [2J"), "{}", denied.text(Lang::En));
        assert_eq!(no(409, r#"{"error":{"code":"conflict","message":"m"}}"#).exit, Exit::Failed);
        assert_eq!(no(503, "<html>").exit, Exit::Unavailable);
        assert_eq!(no(404, "").code, "http_404");
    }
}
