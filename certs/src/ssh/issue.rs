use std::time::Duration;

use model::{Entropy, EntropyError, PersonId, Timestamp};
use ssh_key::certificate::{Builder, CertType};
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::public::{Ed25519PublicKey, KeyData};
use ssh_key::{Algorithm, Certificate, PrivateKey, PublicKey, Signature};
use zeroize::Zeroizing;

use super::cidr::Cidr;
use crate::name::{excerpt, is_host_name};

/// How far certificates are dated back, for clocks that run slow.
pub const BACKDATE: Duration = Duration::from_secs(60);
/// The usual life of a person's certificate.
pub const USER_LIFETIME_DEFAULT: Duration = Duration::from_secs(15 * 60);
/// The longest life of a person's certificate.
pub const USER_LIFETIME_MAX: Duration = Duration::from_secs(60 * 60);
/// The longest life of a host's certificate.
pub const HOST_LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);
const LIFETIME_MIN: Duration = Duration::from_secs(30);
const PRINCIPALS_MAX: usize = 32;

/// What a person's certificate is asked for.
#[derive(Debug, Clone)]
pub struct UserCertificateRequest {
    /// Whose it will be: its key id and its only principal.
    pub person: PersonId,
    /// The person's key.
    pub public_key: PublicKey,
    /// How long it lives from now on.
    pub lifetime: Duration,
    /// From where it may be used; from anywhere if empty.
    pub source_addresses: Vec<Cidr>,
    /// Whether it permits a terminal.
    pub pty: bool,
    /// Whether it permits forwarded ports, as far as the study does.
    pub port_forwarding: bool,
    /// The only command that it is for, if it is for one.
    pub force_command: Option<String>,
}

/// What a host's certificate is asked for.
#[derive(Debug, Clone)]
pub struct HostCertificateRequest {
    /// Host names and addresses by which clients reach it.
    pub principals: Vec<String>,
    /// The host's key.
    pub public_key: PublicKey,
    /// How long it lives from now on.
    pub lifetime: Duration,
}

/// Whatever can make Ed25519 signatures under a CA's key: a key in memory, or a quorum of signers.
pub trait SshSigner {
    /// The CA's public key, 32 bytes.
    fn public_key(&self) -> [u8; 32];
    /// Signs.
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SshSigningFailed>;
}

/// The CA's key did not sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the certificate authority's key did not sign: {0}")]
pub struct SshSigningFailed(pub String);

/// Why an OpenSSH certificate was not issued.
#[derive(Debug, thiserror::Error)]
pub enum SshIssueError {
    /// Longer or shorter than certificates of this kind live.
    #[error("this certificate lives from 30 s to {max} s, not {asked} s")]
    Lifetime {
        /// The most, seconds.
        max: u64,
        /// What was asked for, seconds.
        asked: u64,
    },
    /// A kind of key that is not accepted.
    #[error("keys of type {0} are not accepted; use an Ed25519 key")]
    KeyType(String),
    /// None, too many, or not a host name or address.
    #[error("a host certificate names 1 to {PRINCIPALS_MAX} host names or addresses")]
    Principals,
    /// No randomness for nonce and serial number.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// The certificate could not be encoded or signed.
    #[error("the certificate could not be made")]
    Signing(#[source] ssh_key::Error),
}

/// A fresh Ed25519 key, for a person's device or for a host.
pub fn generate_key(entropy: &(impl Entropy + ?Sized), comment: &str) -> Result<PrivateKey, EntropyError> {
    let mut seed = Zeroizing::new([0; 32]);
    entropy.fill(seed.as_mut_slice())?;
    let mut key = PrivateKey::from(Ed25519Keypair::from_seed(&seed));
    key.set_comment(comment);
    Ok(key)
}

/// Which kinds of key people and hosts may have: Ed25519 and ECDSA, on security keys too.
pub fn check_subject_key(key: &KeyData) -> Result<(), SshIssueError> {
    match key.algorithm() {
        Algorithm::Ed25519
        | Algorithm::SkEd25519
        | Algorithm::Ecdsa { .. }
        | Algorithm::SkEcdsaSha2NistP256 => Ok(()),
        other => Err(SshIssueError::KeyType(excerpt(other.as_ref()))),
    }
}

/// Issues a person's certificate, if the rules allow what is asked for.
pub fn issue_user_certificate(
    request: &UserCertificateRequest,
    ca: &dyn SshSigner,
    now: Timestamp,
    entropy: &(impl Entropy + ?Sized),
) -> Result<Certificate, SshIssueError> {
    let who = request.person.as_str();
    let mut builder = builder(&request.public_key, request.lifetime, USER_LIFETIME_MAX, now, entropy)?;
    let built = (|| {
        builder.cert_type(CertType::User)?.key_id(who)?.valid_principal(who)?;
        if request.pty {
            builder.extension("permit-pty", "")?;
        }
        if request.port_forwarding {
            builder.extension("permit-port-forwarding", "")?;
        }
        if let Some(command) = &request.force_command {
            builder.critical_option("force-command", command.as_str())?;
        }
        if !request.source_addresses.is_empty() {
            let list: Vec<String> = request.source_addresses.iter().map(Cidr::to_string).collect();
            builder.critical_option("source-address", list.join(","))?;
        }
        builder.sign(&Authority(ca))
    })();
    built.map_err(SshIssueError::Signing)
}

/// Issues a host's certificate, if the rules allow what is asked for.
pub fn issue_host_certificate(
    request: &HostCertificateRequest,
    ca: &dyn SshSigner,
    now: Timestamp,
    entropy: &(impl Entropy + ?Sized),
) -> Result<Certificate, SshIssueError> {
    let is_host = |p: &String| is_host_name(p) || p.parse::<std::net::IpAddr>().is_ok();
    let count = request.principals.len();
    if count == 0 || count > PRINCIPALS_MAX || !request.principals.iter().all(is_host) {
        return Err(SshIssueError::Principals);
    }
    let mut builder = builder(&request.public_key, request.lifetime, HOST_LIFETIME_MAX, now, entropy)?;
    let built = (|| {
        builder.cert_type(CertType::Host)?.key_id(request.principals[0].as_str())?;
        for principal in &request.principals {
            builder.valid_principal(principal.as_str())?;
        }
        builder.sign(&Authority(ca))
    })();
    built.map_err(SshIssueError::Signing)
}

fn builder(
    key: &PublicKey,
    lifetime: Duration,
    max: Duration,
    now: Timestamp,
    entropy: &(impl Entropy + ?Sized),
) -> Result<Builder, SshIssueError> {
    if lifetime < LIFETIME_MIN || lifetime > max {
        return Err(SshIssueError::Lifetime { max: max.as_secs(), asked: lifetime.as_secs() });
    }
    check_subject_key(key.key_data())?;
    let (mut nonce, mut serial) = ([0; 32], [0; 8]);
    entropy.fill(&mut nonce)?;
    entropy.fill(&mut serial)?;
    let secs = |at: Timestamp| u64::try_from(at.as_secs()).unwrap_or(0);
    let (from, until) = (secs(now.minus(BACKDATE)), secs(now.plus(lifetime)));
    let mut builder =
        Builder::new(nonce, key.key_data().clone(), from, until).map_err(SshIssueError::Signing)?;
    builder.serial(u64::from_be_bytes(serial)).map_err(SshIssueError::Signing)?;
    Ok(builder)
}

/// Lets the certificate builder sign through an [`SshSigner`].
struct Authority<'a>(&'a dyn SshSigner);

impl signature::Signer<Signature> for Authority<'_> {
    fn try_sign(&self, message: &[u8]) -> Result<Signature, signature::Error> {
        let bytes = self.0.sign(message).map_err(signature::Error::from_source)?;
        Signature::new(Algorithm::Ed25519, bytes).map_err(signature::Error::from_source)
    }
}

impl From<&Authority<'_>> for KeyData {
    fn from(authority: &Authority<'_>) -> KeyData {
        KeyData::Ed25519(Ed25519PublicKey(authority.0.public_key()))
    }
}

impl SshSigner for PrivateKey {
    fn public_key(&self) -> [u8; 32] {
        self.key_data().ed25519().map_or([0; 32], |pair| pair.public.0)
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SshSigningFailed> {
        let failed = |why: &str| SshSigningFailed(why.to_owned());
        let KeypairData::Ed25519(pair) = self.key_data() else { return Err(failed("it is not Ed25519")) };
        let signature: Signature =
            signature::Signer::try_sign(pair, message).map_err(|e| failed(&e.to_string()))?;
        signature.as_bytes().try_into().map_err(|_| failed("its signature has another length"))
    }
}
