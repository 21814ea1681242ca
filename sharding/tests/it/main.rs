//! The vault over backends that behave and that do not, and the tool that reads it offline.

mod azure;
mod cli;
mod faults;
mod hedging;
mod kills;
mod large;
mod liars;
mod lifecycle;
mod pace;
mod placement;
mod ranges;
mod s3;
mod secrecy;
mod server;
mod support;
mod tampering;
mod webdav;
