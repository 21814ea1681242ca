//! The broker: the front doors of a node, and the wiring behind them.
//!
//! People come in with SSH ([`ssh`]), programs with HTTPS ([`api`]), agents dial in ([`hub`]). Who
//! may do what is decided at the gate; this room proves who stands there and carries bytes. It
//! holds no share of any genome and cannot ask for one: it hands agents signed tickets.

pub mod api;
pub mod config;
pub mod credentials;
pub mod diagnoses;
pub mod diagnosing;
pub mod drain;
pub mod feed;
pub mod happening;
pub mod hub;
pub mod keeping;
mod lingering;
pub mod node;
mod placement;
pub mod private;
pub mod process;
pub mod recordings;
mod reports;
pub mod ssh;
mod telling;
pub mod tls;
pub mod watch;
mod witnessing;
