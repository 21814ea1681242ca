use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use certs::ssh_key::Certificate;
use rustls_pki_types::CertificateDer;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::protocol::{
    Answer, Authorities, IssueX509, ProtocolError, Request, SignHost, SignUser, TIMEOUT, read_frame,
    write_frame,
};

/// How many requests one client has under way at a time; further ones wait their turn.
const CONCURRENCY: usize = 16;

/// Why the signer did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// Nobody listens at the socket, or not for us.
    #[error(
        "the signer does not answer at {path}: check that sekisho-signer runs and lists this user in allow_uids"
    )]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// No answer in time.
    #[error("the signer did not answer within {} s; try again", TIMEOUT.as_secs())]
    TimedOut,
    /// It said no.
    #[error("the signer refused: {reason}")]
    Refused {
        /// Its sentence.
        reason: String,
    },
    /// It answered something that cannot be understood, or hung up.
    #[error("the signer's answer cannot be used: {0}")]
    Protocol(#[source] ProtocolError),
}

impl From<ProtocolError> for SignerError {
    fn from(error: ProtocolError) -> SignerError {
        SignerError::Protocol(error)
    }
}

/// Asks the signer over its socket: one connection for each request.
#[derive(Debug, Clone)]
pub struct SignerClient {
    socket: Arc<Path>,
    turns: Arc<Semaphore>,
}

impl SignerClient {
    /// For the signer at `socket`. It connects only when something is asked.
    pub fn new(socket: impl Into<PathBuf>) -> SignerClient {
        SignerClient { socket: socket.into().into(), turns: Arc::new(Semaphore::new(CONCURRENCY)) }
    }

    /// A person's OpenSSH certificate.
    pub async fn sign_user(&self, request: SignUser) -> Result<Certificate, SignerError> {
        ssh_certificate(self.ask(&Request::SignUser(request)).await?)
    }

    /// A host's OpenSSH certificate.
    pub async fn sign_host(&self, request: SignHost) -> Result<Certificate, SignerError> {
        ssh_certificate(self.ask(&Request::SignHost(request)).await?)
    }

    /// An X.509 certificate.
    pub async fn issue_x509(&self, request: IssueX509) -> Result<CertificateDer<'static>, SignerError> {
        match self.ask(&Request::IssueX509(request)).await? {
            Answer::X509(der) => Ok(CertificateDer::from(der)),
            _ => Err(ProtocolError::Malformed.into()),
        }
    }

    /// The public halves of the signer's keys.
    pub async fn authorities(&self) -> Result<Authorities, SignerError> {
        match self.ask(&Request::Authorities).await? {
            Answer::Authorities(authorities) => Ok(authorities),
            _ => Err(ProtocolError::Malformed.into()),
        }
    }

    /// One request, one answer; a refusal is an error.
    async fn ask(&self, request: &Request) -> Result<Answer, SignerError> {
        let exchange = async {
            // The semaphore is never closed.
            let _turn = self.turns.acquire().await;
            let mut stream = UnixStream::connect(&self.socket)
                .await
                .map_err(|source| SignerError::Unreachable { path: self.socket.to_path_buf(), source })?;
            write_frame(&mut stream, request).await?;
            Ok(read_frame(&mut stream).await?)
        };
        match timeout(TIMEOUT, exchange).await {
            Err(_) => Err(SignerError::TimedOut),
            Ok(Ok(Answer::Refused(reason))) => Err(SignerError::Refused { reason }),
            Ok(result) => result,
        }
    }
}

fn ssh_certificate(answer: Answer) -> Result<Certificate, SignerError> {
    match answer {
        Answer::Ssh(line) => Certificate::from_openssh(&line).map_err(|_| ProtocolError::Malformed.into()),
        _ => Err(ProtocolError::Malformed.into()),
    }
}
