//! Proof of a person's device when it logs in: an SSH signature (PROTOCOL.sshsig of OpenSSH,
//! namespace [`NAMESPACE`], SHA-512) over a statement of who asks for certificates for which keys,
//! at which gate and when. `ssh-keygen -Y sign` can make one too.

use std::time::Duration;

use model::{PersonId, Timestamp};
use serde::{Deserialize, Serialize};
use ssh_key::{HashAlg, LineEnding, PrivateKey, PublicKey, SshSig};

use crate::ssh::check_subject_key;
use crate::{Replayed, Seen, TrustDomain};

/// The namespace of the signature: it counts for nothing else.
pub const NAMESPACE: &str = "login@sekisho";
/// How far the device's clock may be off, in either direction.
pub const TOLERANCE: Duration = Duration::from_secs(120);
/// The longest public key and signature that are read, bytes.
const TEXT_MAX: usize = 4096;

/// What a device states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginStatement {
    /// The installation that is meant.
    pub domain: TrustDomain,
    /// Who logs in.
    pub person: PersonId,
    /// The device's SSH key, one line as in `id_ed25519.pub`.
    pub ssh_public_key: String,
    /// The device's TLS key: SubjectPublicKeyInfo, DER; empty if none is asked for.
    pub tls_public_key: Vec<u8>,
    /// The device's time.
    pub time: Timestamp,
    /// Sixteen random bytes, different each time.
    pub nonce: [u8; 16],
}

/// A statement with its signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginProof {
    /// What is stated.
    pub statement: LoginStatement,
    /// The armoured SSH signature.
    pub signature: String,
}

/// Why a login proof could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the device's key did not sign")]
pub struct ProofError(#[source] ssh_key::Error);

/// Why a login proof does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginRefusal {
    /// For another installation.
    #[error("this login is meant for another gate ({0}); check the address")]
    OtherDomain(TrustDomain),
    /// The key or the signature cannot be read, or the key is of a kind that is not accepted.
    #[error("the key or its signature cannot be read; use an Ed25519 key")]
    Malformed,
    /// The signature was not made by that key over that statement.
    #[error("the signature does not match the key")]
    Signature,
    /// The device's clock is off.
    #[error("your machine's clock shows {theirs} and the gate's {ours}; set it right and try again")]
    Clock {
        /// What the device states.
        theirs: Timestamp,
        /// What the gate's clock shows.
        ours: Timestamp,
    },
    /// Used before.
    #[error("this login cannot be used: {0}")]
    Replayed(#[from] Replayed),
}

/// The nonces of recent logins.
pub type SeenLogins = Seen<[u8; 16]>;

impl LoginStatement {
    /// The bytes that are signed: every field with its length before it (u32 LE), in this order:
    /// domain, person, SSH key, TLS key, milliseconds since 1970 (i64 LE), nonce.
    pub fn message(&self) -> Vec<u8> {
        let time = self.time.as_millis().to_le_bytes();
        let fields: [&[u8]; 6] = [
            self.domain.as_str().as_bytes(),
            self.person.as_str().as_bytes(),
            self.ssh_public_key.as_bytes(),
            &self.tls_public_key,
            &time,
            &self.nonce,
        ];
        let mut message = b"sekisho login v1\0".to_vec();
        for field in fields {
            message.extend_from_slice(&u32::try_from(field.len()).unwrap_or(u32::MAX).to_le_bytes());
            message.extend_from_slice(field);
        }
        message
    }
}

impl LoginProof {
    /// Signs a statement with the device's key, which must be the one that it names.
    pub fn make(statement: LoginStatement, key: &PrivateKey) -> Result<LoginProof, ProofError> {
        let signature = key
            .sign(NAMESPACE, HashAlg::Sha512, &statement.message())
            .and_then(|signature| signature.to_pem(LineEnding::LF))
            .map_err(ProofError)?;
        Ok(LoginProof { statement, signature })
    }

    /// Verifies it for the installation `domain` and returns the device's key, without comment.
    /// Whether that key is the person's is for the caller to know.
    pub fn verify(
        &self,
        domain: &TrustDomain,
        now: Timestamp,
        seen: &mut SeenLogins,
    ) -> Result<PublicKey, LoginRefusal> {
        let statement = &self.statement;
        if statement.domain != *domain {
            return Err(LoginRefusal::OtherDomain(statement.domain.clone()));
        }
        if statement.ssh_public_key.len() > TEXT_MAX || self.signature.len() > TEXT_MAX {
            return Err(LoginRefusal::Malformed);
        }
        let key = PublicKey::from_openssh(&statement.ssh_public_key).map_err(|_| LoginRefusal::Malformed)?;
        check_subject_key(key.key_data()).map_err(|_| LoginRefusal::Malformed)?;
        let signature = SshSig::from_pem(&self.signature).map_err(|_| LoginRefusal::Malformed)?;
        key.verify(NAMESPACE, &statement.message(), &signature).map_err(|_| LoginRefusal::Signature)?;
        let off = now.since(statement.time).max(statement.time.since(now));
        if off > TOLERANCE {
            return Err(LoginRefusal::Clock { theirs: statement.time, ours: now });
        }
        // Only signed nonces are remembered: a stranger cannot fill the set.
        seen.admit(&statement.nonce, statement.time.plus(TOLERANCE), now)?;
        Ok(PublicKey::from(key.key_data().clone()))
    }
}
