//! A second memory for a log: it signs only what continues what it signed before.
//!
//! [`Witness`] is the state machine with its folder, [`serve`] its HTTP door (C2SP tlog-witness), and
//! [`protocol`] what is said through it. [`Client`] is the other end; [`at_start`] compares a log with
//! its witness before the log is opened, and [`follow`] has each new checkpoint signed.
//!
//! What it does not defend against: a witness and a log in the same hands. Run it at another
//! institution, as another user on another machine. It cannot tell which entries are true, only that
//! none it has seen the hash of has changed since.

mod check;
mod client;
pub mod config;
mod counts;
mod follow;
pub mod protocol;
mod server;
mod state;
mod telling;
mod tls;

pub use check::{CheckError, Signed};
pub use client::{Answer, Client, ClientError, Target, TargetError};
pub use follow::{News, at_start, follow};
pub use server::serve;
pub use state::{Decision, OpenError, Witness};
pub use tls::{TlsError, acceptor};
