//! The log's end of the protocol.

use std::path::PathBuf;
use std::time::Duration;

use audit::{Cosignature, WitnessPublicKey};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::protocol::{ANSWER_MAX, AddCheckpoint, SIZE_TYPE, parse_size};
use crate::tls::{TlsError, connector};

/// How long a witness may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a witness is, as an operator names it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its address: `http://host:port` or `https://host:port`, and a path if it has one.
    pub url: String,
    /// Its public key, `name+hash+key`.
    pub key: String,
    /// Who vouches for its TLS certificate (PEM); needed with `https`.
    pub ca: Option<PathBuf>,
    /// What is shown to a witness that asks for a certificate: certificate and key (PEM).
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Why an operator's description of a witness is of no use.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Not an address.
    #[error("the url of a witness is http://host:port or https://host:port")]
    Url,
    /// Not a key.
    #[error("the key of a witness is a line name+hash+key, as in its key.pub: {0}")]
    Key(#[from] audit::KeyError),
    /// Nobody vouches for it.
    #[error("an https witness needs `ca`, a file with the authority of its certificate")]
    NoAuthority,
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Speaks to one witness.
pub struct Client {
    key: WitnessPublicKey,
    host: String,
    /// Host and port to connect to.
    address: String,
    path: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// What a witness says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It has signed; the signature was verified.
    Signed(Cosignature),
    /// It has signed a checkpoint of this size last.
    OtherSize(u64),
    /// It refuses, with this status, for this reason.
    Refused {
        /// The HTTP status: 409 another root, 422 no continuation, 403 and 404 a wrong configuration.
        status: u16,
        /// What it said, shortened and without control characters.
        reason: String,
    },
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It cannot be reached.
    #[error("no connection: {0}")]
    Connect(#[source] std::io::Error),
    /// It does not answer in time.
    #[error("no answer within {} seconds", PATIENCE.as_secs())]
    Time,
    /// What comes is no HTTP, or breaks off.
    #[error("the conversation broke off: {0}")]
    Http(#[source] hyper::Error),
    /// The answer is longer than one can be, or breaks off.
    #[error("the answer cannot be read")]
    Body,
    /// What should be its signature is not.
    #[error("what it sent is not its signature: {0}")]
    Signature(#[from] audit::NoteError),
}

impl Client {
    /// A client for the witness at `target`. Files are read now.
    pub fn new(target: &Target) -> Result<Client, TargetError> {
        let (secure, rest) = match target.url.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => return Err(TargetError::Url),
        };
        let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_end_matches('/');
        let host = address.rsplit_once(':').map(|(host, _)| host.trim_matches(['[', ']']));
        let host = host.filter(|host| !host.is_empty()).ok_or(TargetError::Url)?;
        let plain = |text: &str| text.bytes().all(|c| c.is_ascii_graphic());
        if !plain(address) || !plain(path) {
            return Err(TargetError::Url);
        }
        let tls = if secure {
            let ca = target.ca.as_deref().ok_or(TargetError::NoAuthority)?;
            let identity = target.identity.as_ref().map(|(c, k)| (c.as_path(), k.as_path()));
            let name = ServerName::try_from(host.to_owned()).map_err(|_| TargetError::Url)?;
            Some((connector(ca, identity)?, name))
        } else {
            None
        };
        let path = if path.is_empty() { String::new() } else { format!("/{path}") };
        let key = target.key.trim().parse()?;
        Ok(Client { key, host: address.to_owned(), address: address.to_owned(), path, tls })
    }

    /// The name of the witness.
    pub fn name(&self) -> &str {
        self.key.name()
    }

    /// Asks for a signature.
    pub async fn add_checkpoint(&self, request: &AddCheckpoint) -> Result<Answer, ClientError> {
        timeout(PATIENCE, self.ask(request)).await.map_err(|_| ClientError::Time)?
    }

    async fn ask(&self, request: &AddCheckpoint) -> Result<Answer, ClientError> {
        let stream = TcpStream::connect(&self.address).await.map_err(ClientError::Connect)?;
        let (status, kind, body) = match &self.tls {
            None => self.post(stream, request).await?,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await.map_err(ClientError::Connect)?;
                self.post(stream, request).await?
            }
        };
        if status == StatusCode::OK {
            let lines = std::str::from_utf8(&body).map_err(|_| ClientError::Body)?;
            return Ok(Answer::Signed(self.key.open(request.note.as_bytes(), lines)?));
        }
        let text = String::from_utf8_lossy(&body);
        if status == StatusCode::CONFLICT && kind {
            let size = text.strip_suffix('\n').and_then(parse_size).ok_or(ClientError::Body)?;
            return Ok(Answer::OtherSize(size));
        }
        let reason = text.trim().chars().filter(|c| !c.is_control()).take(200).collect();
        Ok(Answer::Refused { status: status.as_u16(), reason })
    }

    /// The status, whether the body is a size, and the body.
    async fn post(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: &AddCheckpoint,
    ) -> Result<(StatusCode, bool, Bytes), ClientError> {
        let builder = Request::builder().method(Method::POST).uri(format!("{}/add-checkpoint", self.path));
        let builder = builder.header(HOST, &self.host).header(CONTENT_TYPE, "text/plain; charset=utf-8");
        let post = builder.body(Full::new(Bytes::from(request.to_string())));
        // The address was checked to hold nothing that a head of HTTP could not.
        let Ok(post) = post else { return Err(ClientError::Body) };
        let io = TokioIo::new(stream);
        let (mut send, connection) =
            hyper::client::conn::http1::handshake(io).await.map_err(ClientError::Http)?;
        let talking = async {
            let answer = send.send_request(post).await.map_err(ClientError::Http)?;
            let status = answer.status();
            let kind = answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == SIZE_TYPE);
            let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
            Ok((status, kind, body.map_err(|_| ClientError::Body)?.to_bytes()))
        };
        tokio::pin!(connection, talking);
        tokio::select! {
            answer = &mut talking => answer,
            ended = &mut connection => match ended {
                Ok(()) => talking.await,
                Err(error) => Err(ClientError::Http(error)),
            },
        }
    }
}
