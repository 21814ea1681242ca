//! The broker's own keys and certificates: asked of the signer at the start, renewed before they end.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use certs::ticket::TicketKey;
use certs::x509::{CaCertificate, Identity, KeyPair, valid_until};
use certs::{SpiffeId, SshTrust, TrustDomain};
use model::{Clock, Entropy, Timestamp};
use rustls::pki_types::CertificateDer;
use signer::{IssueX509, SignHost, SignerClient, SignerError};
use ssh_key::{LineEnding, PrivateKey};
use zeroize::Zeroizing;

use crate::private;
use crate::ssh::HostIdentity;

/// How long the broker's certificates live.
pub(crate) const LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// How long the signer may take to appear when everything starts together.
const SIGNER_START: Duration = Duration::from_secs(30);
/// How soon a failed renewal is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(30);
/// A suspended machine sleeps through timers; so the clock is looked at this often.
const LOOK: Duration = Duration::from_secs(60);

/// Why the broker has no credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The signer.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// What the signer answered cannot be used.
    #[error("the signer's answer cannot be used: {0}")]
    Answer(String),
    /// Another installation's signer.
    #[error(
        "this broker belongs to {ours} and the signer to {theirs}: check trust_domain in both configurations"
    )]
    OtherDomain {
        /// The broker's.
        ours: TrustDomain,
        /// The signer's.
        theirs: TrustDomain,
    },
    /// No randomness, or an unusable key.
    #[error("a key could not be made: {0}")]
    Key(String),
    /// A file of the broker's folder.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// What the operating system says.
        source: std::io::Error,
    },
}

/// Where certificates come from.
#[derive(Clone)]
pub struct Issuer {
    /// The signer.
    pub signer: SignerClient,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The trust domain of this broker.
    pub domain: TrustDomain,
    /// Names under which clients reach the broker.
    pub names: Vec<String>,
    /// Addresses under which clients reach the broker.
    pub addresses: Vec<IpAddr>,
}

/// Whom the installation trusts.
#[derive(Debug, Clone)]
pub struct Trust {
    /// The X.509 authority.
    pub ca: CaCertificate,
    /// Whose OpenSSH user certificates are believed.
    pub ssh: SshTrust,
    /// The authority of host certificates, an OpenSSH public key line.
    pub host_ca: String,
}

/// Everything the broker identifies itself with.
pub struct Credentials {
    /// Towards agents and API clients.
    pub broker: Identity,
    /// Towards the collector of the audit log.
    pub siem: Identity,
    /// Towards SSH clients.
    pub host: HostIdentity,
    /// Signs tickets.
    pub tickets: TicketKey,
    /// When the first of them ends.
    pub until: Timestamp,
}

impl Issuer {
    /// Whom to trust. Waits for a signer that is just starting.
    pub async fn trust(&self) -> Result<Trust, CredentialError> {
        let deadline = tokio::time::Instant::now() + SIGNER_START;
        let authorities = loop {
            match self.signer.authorities().await {
                Ok(authorities) => break authorities,
                Err(error) if is_starting(&error) && tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => return Err(error.into()),
            }
        };
        if authorities.domain != self.domain {
            return Err(CredentialError::OtherDomain {
                ours: self.domain.clone(),
                theirs: authorities.domain,
            });
        }
        let unusable = |e: signer::ProtocolError| CredentialError::Answer(e.to_string());
        let user_ca = authorities.user_ca_key().map_err(unusable)?;
        Ok(Trust {
            ca: authorities.x509_ca().map_err(unusable)?,
            ssh: SshTrust::new(vec![user_ca]),
            host_ca: authorities.host_ca,
        })
    }

    /// Fresh certificates, on fresh keys; the SSH host key alone is kept in `dir`.
    pub async fn credentials(&self, dir: &Path) -> Result<Credentials, CredentialError> {
        let (broker, until) =
            self.x509(SpiffeId::Broker("main".to_owned()), &self.names, &self.addresses).await?;
        let (siem, siem_until) = self.x509(SpiffeId::Siem("main".to_owned()), &[], &[]).await?;
        let (ticket, ticket_until) = self.leaf(SpiffeId::Ticket("main".to_owned()), &[], &[]).await?;
        let host = self.host(dir).await?;
        // Whoever comes for the first time knows the authority by its digest only, from a one-time
        // token: it must be in what is shown.
        let authorities = self.signer.authorities().await?;
        let ca = authorities.x509_ca().map_err(|e| CredentialError::Answer(e.to_string()))?;
        let mut broker = broker;
        broker.chain.push(ca.der().clone());
        Ok(Credentials {
            broker,
            siem,
            host,
            tickets: TicketKey::new(ticket.0, ticket.1),
            until: until.min(siem_until).min(ticket_until),
        })
    }

    async fn x509(
        &self,
        spiffe: SpiffeId,
        dns: &[String],
        ips: &[IpAddr],
    ) -> Result<(Identity, Timestamp), CredentialError> {
        let ((key, certificate), until) = self.leaf(spiffe, dns, ips).await?;
        let key = key.to_private_key_der().map_err(|e| CredentialError::Key(e.to_string()))?;
        Ok((Identity { chain: vec![certificate], key }, until))
    }

    async fn leaf(
        &self,
        spiffe: SpiffeId,
        dns: &[String],
        ips: &[IpAddr],
    ) -> Result<((KeyPair, CertificateDer<'static>), Timestamp), CredentialError> {
        let unmade = |e: certs::x509::KeyError| CredentialError::Key(e.to_string());
        let key = KeyPair::generate(&*self.entropy).map_err(unmade)?;
        let request = IssueX509 {
            spiffe,
            dns: dns.to_vec(),
            ips: ips.to_vec(),
            spki_der: key.spki().map_err(unmade)?,
            lifetime_secs: LIFETIME.as_secs(),
        };
        let certificate = self.signer.issue_x509(request).await?;
        let until = valid_until(&certificate).map_err(|e| CredentialError::Answer(e.to_string()))?;
        Ok(((key, certificate), until))
    }

    async fn host(&self, dir: &Path) -> Result<HostIdentity, CredentialError> {
        let path = dir.join("ssh_host_ed25519_key");
        let unread = |source| CredentialError::File { path: path.display().to_string(), source };
        let text = private::read_or_make(&path, || {
            let key = certs::ssh::generate_key(&*self.entropy, "sekisho").map_err(std::io::Error::other)?;
            let text = key.to_openssh(LineEnding::LF).map_err(std::io::Error::other)?;
            Ok(Zeroizing::new(text.to_string()))
        })
        .map_err(unread)?;
        let key = PrivateKey::from_openssh(&*text).map_err(|e| unread(std::io::Error::other(e)))?;
        let principals =
            self.names.iter().cloned().chain(self.addresses.iter().map(ToString::to_string)).collect();
        let public_key = key.public_key().to_openssh().map_err(|e| CredentialError::Key(e.to_string()))?;
        let request = SignHost { principals, public_key, lifetime_secs: LIFETIME.as_secs() };
        let certificate = self.signer.sign_host(request).await?;
        Ok(HostIdentity { key, certificate: Some(certificate) })
    }

    /// Renews the credentials when half their life is over, for ever; `install` puts them in place.
    pub async fn keep_fresh(
        &self,
        dir: &Path,
        mut until: Timestamp,
        install: impl Fn(Credentials) -> Result<(), String>,
    ) {
        let mut renew_at = self.halfway(until);
        loop {
            while self.clock.now() < renew_at {
                tokio::time::sleep(LOOK).await;
            }
            let renewed = match self.credentials(dir).await {
                Ok(credentials) => {
                    let next = credentials.until;
                    install(credentials).map(|()| next)
                }
                Err(error) => Err(error.to_string()),
            };
            match renewed {
                Ok(next) => {
                    tracing::info!(until = %next, "the broker's certificates were renewed");
                    until = next;
                    renew_at = self.halfway(until);
                }
                Err(error) => {
                    tracing::error!(%error, %until, "the broker's certificates could not be renewed; trying again");
                    tokio::time::sleep(TRY_AGAIN).await;
                }
            }
        }
    }

    fn halfway(&self, until: Timestamp) -> Timestamp {
        let now = self.clock.now();
        now.plus(until.since(now) / 2)
    }
}

/// Whether the signer may be there in a moment.
fn is_starting(error: &SignerError) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    match error {
        SignerError::Unreachable { source, .. } => matches!(source.kind(), NotFound | ConnectionRefused),
        SignerError::TimedOut => true,
        SignerError::Refused { .. } | SignerError::Protocol(_) => false,
    }
}
