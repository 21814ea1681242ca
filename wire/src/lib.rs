//! How broker and agent talk: messages, their framing, the order in which they are legal (a
//! sans-I/O machine), and a QUIC driver with mutual TLS.
//!
//! The broker serves, agents dial out and open no port. Both sides are authenticated by
//! certificates of one authority; who may be on which side is decided by SPIFFE identity. A
//! message too large, out of turn or malformed ends its stream with a typed error.
//!
//! [`sftp`] is what both need of the file transfer protocol that runs inside a session.

pub mod agent;
pub mod broker;
mod congestion;
pub mod frame;
pub mod machine;
pub mod message;
pub mod sftp;
mod socket;
mod stream;
pub mod tls;
mod transport;

pub use stream::{Receiver, Sender, StreamError};
pub use tls::Tls;
pub use transport::{CloseCode, Limits, LinkEnd};
