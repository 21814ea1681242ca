use std::io;
use std::net::IpAddr;
use std::time::Duration;

use certs::ssh_key::PublicKey;
use certs::x509::CaCertificate;
use certs::{SpiffeId, TrustDomain};
use model::PersonId;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The largest request or answer, bytes.
pub const FRAME_MAX: usize = 64 * 1024;
/// How long one request, or its answer, may take.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// The first byte of each frame's content.
const VERSION: u8 = 1;

/// One request; a connection carries exactly one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// A person's OpenSSH certificate.
    SignUser(SignUser),
    /// A host's OpenSSH certificate.
    SignHost(SignHost),
    /// An X.509 certificate.
    IssueX509(IssueX509),
    /// The public halves of all keys.
    Authorities,
}

/// Asks for a person's OpenSSH certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignUser {
    /// Whose.
    pub person: PersonId,
    /// The person's key, one line as in `id_ed25519.pub`.
    pub public_key: String,
    /// How long it lives, seconds; at most `certs::ssh::USER_LIFETIME_MAX`.
    pub lifetime_secs: u64,
    /// From where it may be used: addresses and ranges separated by commas.
    pub source_address: Option<String>,
    /// Whether it permits a terminal.
    pub pty: bool,
    /// Whether it permits forwarded ports, as far as the study does.
    pub port_forwarding: bool,
    /// The only command that it is for, if it is for one.
    pub force_command: Option<String>,
}

/// Asks for a host's OpenSSH certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignHost {
    /// Host names and addresses by which clients reach it.
    pub principals: Vec<String>,
    /// The host's key, one line.
    pub public_key: String,
    /// How long it lives, seconds; at most `certs::ssh::HOST_LIFETIME_MAX`.
    pub lifetime_secs: u64,
}

/// Asks for an X.509 certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssueX509 {
    /// Whose.
    pub spiffe: SpiffeId,
    /// DNS names besides, for brokers and services.
    pub dns: Vec<String>,
    /// Addresses besides, for brokers and services.
    pub ips: Vec<IpAddr>,
    /// The holder's key: SubjectPublicKeyInfo, DER, ECDSA P-256.
    pub spki_der: Vec<u8>,
    /// How long it lives, seconds; at most `certs::x509::PERSON_LIFETIME_MAX` for people and
    /// `SERVICE_LIFETIME_MAX` for processes.
    pub lifetime_secs: u64,
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// An OpenSSH certificate, one line.
    Ssh(String),
    /// An X.509 certificate, DER.
    X509(Vec<u8>),
    /// The public halves of all keys.
    Authorities(Authorities),
    /// No, and why: a sentence.
    Refused(String),
}

/// The public halves of the signer's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorities {
    /// The trust domain that the signer issues for.
    pub domain: TrustDomain,
    /// What signs people's OpenSSH certificates, one line.
    pub user_ca: String,
    /// What signs hosts' OpenSSH certificates, one line.
    pub host_ca: String,
    /// The X.509 CA's certificate, DER.
    pub x509_ca_der: Vec<u8>,
}

impl Authorities {
    /// What signs people's OpenSSH certificates.
    pub fn user_ca_key(&self) -> Result<PublicKey, ProtocolError> {
        PublicKey::from_openssh(&self.user_ca).map_err(|_| ProtocolError::Malformed)
    }

    /// What signs hosts' OpenSSH certificates.
    pub fn host_ca_key(&self) -> Result<PublicKey, ProtocolError> {
        PublicKey::from_openssh(&self.host_ca).map_err(|_| ProtocolError::Malformed)
    }

    /// The X.509 CA's certificate.
    pub fn x509_ca(&self) -> Result<CaCertificate, ProtocolError> {
        CaCertificate::from_der(&self.x509_ca_der).map_err(|_| ProtocolError::Malformed)
    }
}

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// The connection failed or ended.
    #[error("the connection broke")]
    Io(#[from] io::Error),
    /// Larger than [`FRAME_MAX`].
    #[error("a message of {0} bytes is larger than the {FRAME_MAX} allowed")]
    TooLarge(usize),
    /// Of another version of the protocol.
    #[error("the other side speaks version {0} of the protocol; both must be of the same release")]
    Version(u8),
    /// Not a message of this protocol.
    #[error("the other side sent something that cannot be read")]
    Malformed,
}

impl Request {
    /// Reads the content of a frame from outside.
    pub fn decode(content: &[u8]) -> Result<Request, ProtocolError> {
        decode(content)
    }
}

impl Answer {
    /// Reads the content of a frame from outside.
    pub fn decode(content: &[u8]) -> Result<Answer, ProtocolError> {
        decode(content)
    }
}

/// Reads one message: length (u32 LE), version (one byte), postcard.
pub async fn read_frame<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
) -> Result<T, ProtocolError> {
    let length = usize::try_from(from.read_u32_le().await?).unwrap_or(usize::MAX);
    if length > FRAME_MAX {
        return Err(ProtocolError::TooLarge(length));
    }
    let mut content = vec![0; length];
    from.read_exact(&mut content).await?;
    decode(&content)
}

/// Writes one message.
pub async fn write_frame<T: Serialize>(
    to: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> Result<(), ProtocolError> {
    let body = postcard::to_stdvec(message).map_err(|_| ProtocolError::Malformed)?;
    let length = body.len() + 1;
    if length > FRAME_MAX {
        return Err(ProtocolError::TooLarge(length));
    }
    let mut frame =
        u32::try_from(length).map_err(|_| ProtocolError::TooLarge(length))?.to_le_bytes().to_vec();
    frame.push(VERSION);
    frame.extend_from_slice(&body);
    to.write_all(&frame).await?;
    to.flush().await?;
    Ok(())
}

fn decode<T: DeserializeOwned>(content: &[u8]) -> Result<T, ProtocolError> {
    let (&version, body) = content.split_first().ok_or(ProtocolError::Malformed)?;
    if version != VERSION {
        return Err(ProtocolError::Version(version));
    }
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        _ => Err(ProtocolError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn messages_survive_the_round_trip() {
        let request = Request::SignUser(SignUser {
            person: "u:alice".parse().unwrap(),
            public_key: "ssh-ed25519 AAAA".to_owned(),
            lifetime_secs: 900,
            source_address: Some("192.0.2.0/24".to_owned()),
            pty: true,
            port_forwarding: true,
            force_command: Some("true".to_owned()),
        });
        block_on(async {
            let mut frame = Vec::new();
            write_frame(&mut frame, &request).await.unwrap();
            assert_eq!(read_frame::<Request>(&mut frame.as_slice()).await.unwrap(), request);
            frame[4] = 9;
            let error = read_frame::<Request>(&mut frame.as_slice()).await.unwrap_err();
            assert!(matches!(error, ProtocolError::Version(9)));
        });
    }

    #[test]
    fn a_large_message_is_neither_read_nor_written() {
        block_on(async {
            let mut frame: &[u8] = &[0xff; 64];
            let error = read_frame::<Request>(&mut frame).await.unwrap_err();
            assert!(matches!(error, ProtocolError::TooLarge(_)));
            let large = Answer::X509(vec![0; FRAME_MAX]);
            assert!(write_frame(&mut Vec::new(), &large).await.is_err());
        });
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_parser(content in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Request::decode(&content);
            let _ = Answer::decode(&[&[VERSION], content.as_slice()].concat());
            let _ = Request::decode(&[&[VERSION], content.as_slice()].concat());
        }
    }
}
