//! One-time tokens for enrolment: a secret that is taken once, and the fingerprint of the CA, so
//! that its bearer knows the right gate before trusting anything it says.
//!
//! Text: `skt1.<kind>.<secret>.<pin>`, kind `person` or `agent`, the secret 20 bytes and the pin
//! the SHA-256 of the CA's certificate (DER), both in lower-case base32 (RFC 4648, unpadded).

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use model::{Entropy, EntropyError};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::x509::{CaCertificate, sha256};

const PREFIX: &str = "skt1";
const SECRET_LEN: usize = 20;
/// Keeps these hashes apart from every other use of BLAKE3.
const HASH_CONTEXT: &str = "sekisho 2026 one-time token";

/// Who a token enrols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenKind {
    /// A person's device.
    Person,
    /// A process that runs workspaces.
    Agent,
}

/// Why a text is not a token. The text itself is never repeated: it may hold a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not an enrolment token; it looks like skt1.person.…, in one piece")]
pub struct TokenError;

/// The gate's certificate authority is not the one that the token names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the gate that answered is not the one that this token is for; \
     do not go on, and ask whoever gave you the token"
)]
pub struct WrongAuthority;

/// A one-time token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    kind: TokenKind,
    secret: Zeroizing<[u8; SECRET_LEN]>,
    pin: [u8; 32],
}

impl Token {
    /// A fresh one for the installation of `ca`.
    pub fn issue(
        kind: TokenKind,
        ca: &CaCertificate,
        entropy: &(impl Entropy + ?Sized),
    ) -> Result<Token, EntropyError> {
        let mut secret = Zeroizing::new([0; SECRET_LEN]);
        entropy.fill(secret.as_mut_slice())?;
        Ok(Token { kind, secret, pin: ca.fingerprint() })
    }

    /// Who it enrols.
    pub fn kind(&self) -> TokenKind {
        self.kind
    }

    /// The text to hand to its bearer.
    pub fn to_text(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(base32(self.secret.as_slice()));
        Zeroizing::new(format!("{PREFIX}.{}.{}.{}", self.kind, *secret, base32(&self.pin)))
    }

    /// What a record of the token holds: it identifies the secret and does not reveal it.
    pub fn hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(HASH_CONTEXT);
        hasher.update(self.kind.to_string().as_bytes());
        hasher.update(&[0]);
        hasher.update(self.secret.as_slice());
        *hasher.finalize().as_bytes()
    }

    /// The CA among the presented certificates that the token names.
    pub fn pinned_authority(
        &self,
        presented: &[CertificateDer<'_>],
    ) -> Result<CaCertificate, WrongAuthority> {
        presented
            .iter()
            .find(|der| sha256(der) == self.pin)
            .and_then(|der| CaCertificate::from_der(der).ok())
            .ok_or(WrongAuthority)
    }
}

impl fmt::Display for TokenKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TokenKind::Person => "person",
            TokenKind::Agent => "agent",
        })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, secret)", self.kind)
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Token, TokenError> {
        let mut parts = text.trim().split('.');
        let mut next = || parts.next().ok_or(TokenError);
        let (prefix, kind, secret, pin) = (next()?, next()?, next()?, next()?);
        if prefix != PREFIX || parts.next().is_some() {
            return Err(TokenError);
        }
        let kind = match kind {
            "person" => TokenKind::Person,
            "agent" => TokenKind::Agent,
            _ => return Err(TokenError),
        };
        Ok(Token { kind, secret: Zeroizing::new(unbase32(secret)?), pin: unbase32(pin)? })
    }
}

fn base32(bytes: &[u8]) -> String {
    BASE32_NOPAD.encode(bytes).to_ascii_lowercase()
}

fn unbase32<const N: usize>(text: &str) -> Result<[u8; N], TokenError> {
    if text.bytes().any(|c| c.is_ascii_uppercase()) {
        return Err(TokenError);
    }
    let upper = Zeroizing::new(text.to_ascii_uppercase());
    let bytes = Zeroizing::new(BASE32_NOPAD.decode(upper.as_bytes()).map_err(|_| TokenError)?);
    bytes.as_slice().try_into().map_err(|_| TokenError)
}
