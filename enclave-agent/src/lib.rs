//! The agent: it turns a ticket into a running workspace with the datasets the ticket grants, and
//! into nothing else.
//!
//! It dials out to the broker and opens no port to others: how it is, it tells on a socket of its own. It holds its own certificate, the key that
//! deposits are encrypted to, and read access to the share backends; it cannot issue a ticket and
//! knows no policy. What it defends against: a person inside a workspace who wants more than the
//! ticket says, and a broker that relays more than was signed. What it does not defend against:
//! root on its own host, who can read what permitted workspaces may read, and a flaw in the kernel
//! that the system-call filter leaves reachable.

pub mod agent;
pub mod backends;
pub mod config;
mod descriptors;
mod diagnosing;
pub mod enrol;
pub mod identity;
pub mod init_protocol;
pub mod leftovers;
mod load;
pub mod mount;
mod outlets;
pub mod reports;
pub mod service;
pub mod storage;
mod telling;
pub mod watch;
pub mod workspace;
