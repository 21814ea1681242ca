use std::net::IpAddr;

use model::Timestamp;

/// Why an OpenSSH user certificate does not open the door. The text is for the person in front of
/// it; [`CertRefusal::code`] is for records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertRefusal {
    /// Signed by a key that is not one of ours.
    #[error(
        "your certificate was issued by an authority that this gate does not know ({fingerprint}); \
         run `sekisho login` against this gate"
    )]
    UnknownAuthority {
        /// SHA-256 fingerprint of the signing key.
        fingerprint: String,
    },
    /// The signature does not belong to the content.
    #[error("your certificate is damaged or forged: its signature does not match; run `sekisho login`")]
    BadSignature,
    /// A host certificate, or one of unknown type.
    #[error("this is a host certificate, not a person's; use the one that `sekisho login` wrote")]
    NotUserCertificate,
    /// A kind of key that is not accepted any more.
    #[error("keys of type {0} are not accepted; make an Ed25519 key and run `sekisho login`")]
    KeyType(String),
    /// Its time has not come.
    #[error("your certificate is valid only from {from}; check that your machine's clock is right")]
    NotYetValid {
        /// The first second of its life.
        from: Timestamp,
    },
    /// Its time is over.
    #[error("your certificate expired at {at}; run `sekisho login` for a new one")]
    Expired {
        /// The first second after its life.
        at: Timestamp,
    },
    /// It lives longer than any certificate may.
    #[error(
        "your certificate would be valid for {} but at most {max} s are allowed; run `sekisho login`",
        lifetime.map_or("ever".to_owned(), |secs| format!("{secs} s"))
    )]
    TooLong {
        /// From its first to its last second; none if it never ends.
        lifetime: Option<u64>,
        /// The most that is allowed, seconds.
        max: u64,
    },
    /// It names nobody, which OpenSSH takes for everybody.
    #[error("your certificate names no person; run `sekisho login`")]
    NoPrincipal,
    /// It names several, or not a person, or another one than its key id says.
    #[error("your certificate must name exactly one person, the one it was issued to; run `sekisho login`")]
    WrongPrincipal,
    /// A condition that this gate does not know and so cannot keep.
    #[error("your certificate carries the condition {0:?}, which this gate does not know")]
    UnknownCriticalOption(String),
    /// A condition or permission whose value cannot be read.
    #[error("your certificate carries {0:?} with a value that cannot be read")]
    MalformedOption(String),
    /// Presented from an address that it excludes.
    #[error(
        "your certificate may be used only from other addresses than {}; run `sekisho login` from here",
        peer.map_or("this unknown one".to_owned(), |ip| ip.to_string())
    )]
    SourceAddress {
        /// Where it was presented from, if known.
        peer: Option<IpAddr>,
    },
    /// Its serial number or its key was revoked.
    #[error("your certificate was revoked; ask the programme's security office")]
    Revoked,
}

impl CertRefusal {
    /// A word that stays the same when the sentences change.
    pub fn code(&self) -> &'static str {
        match self {
            CertRefusal::UnknownAuthority { .. } => "unknown_authority",
            CertRefusal::BadSignature => "bad_signature",
            CertRefusal::NotUserCertificate => "not_user_certificate",
            CertRefusal::KeyType(_) => "key_type",
            CertRefusal::NotYetValid { .. } => "not_yet_valid",
            CertRefusal::Expired { .. } => "expired",
            CertRefusal::TooLong { .. } => "too_long",
            CertRefusal::NoPrincipal => "no_principal",
            CertRefusal::WrongPrincipal => "wrong_principal",
            CertRefusal::UnknownCriticalOption(_) => "unknown_critical_option",
            CertRefusal::MalformedOption(_) => "malformed_option",
            CertRefusal::SourceAddress { .. } => "source_address",
            CertRefusal::Revoked => "revoked",
        }
    }
}
