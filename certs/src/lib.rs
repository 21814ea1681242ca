//! Who you are: the rules for the certificates, tickets, tokens and proofs by which people and
//! processes know each other, and the custody of the keys that sign them.
//!
//! Nothing here does I/O or asks for the time or for randomness: both are parameters, so every
//! rule about expiry is a plain function of its input.
//!
//! | what | who makes it | who checks it |
//! |---|---|---|
//! | OpenSSH user and host certificate ([`ssh`]) | signer | broker; OpenSSH clients |
//! | X.509 certificate with a SPIFFE name ([`x509`]) | signer | every TLS peer |
//! | ticket ([`ticket`]) | gate | agent |
//! | one-time token ([`token`]) | gate | gate, once; it also pins the CA for its bearer |
//! | login proof ([`login`]) | a person's device | gate |
//!
//! What is *not* defended here: a stolen device key within the life of a certificate (locks end
//! live sessions, elsewhere), and the memory of the process that holds an unsealed CA key
//! ([`custody`] guards it at rest only).

pub mod custody;
pub mod login;
mod name;
mod pem;
mod replay;
pub mod ssh;
pub mod ticket;
pub mod token;
pub mod x509;

pub use name::{NameError, SpiffeId, TrustDomain};
pub use replay::{Replayed, Seen};
pub use ssh::{CertRefusal, Principal, SshPermits, SshTrust, check_user_certificate};
pub use ssh_key;
