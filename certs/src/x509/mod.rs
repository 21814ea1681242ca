//! X.509 certificates with SPIFFE names: ECDSA P-256 throughout, one CA, leaves that live for
//! hours.
//!
//! The CA carries a path length of zero and no name constraints: the field's verifier refuses
//! constraints on URIs altogether, so [`verify_chain`] compares the trust domain itself.

mod authority;
mod key;
mod verify;

pub use authority::{
    CA_LIFETIME, CaCertificate, CertificateAuthority, IssueError, LeafRequest, PERSON_LIFETIME_MAX,
    SERVICE_LIFETIME_MAX,
};
pub use key::{Identity, IdentityError, KeyError, KeyPair, check_public_key, sha256};
pub use verify::{ChainRefusal, Usage, spiffe_id, valid_until, verify_chain};
pub(crate) use verify::{SignedRefusal, verify_signed};
