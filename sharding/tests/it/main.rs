//! The vault over backends that behave and that do not, and the tool that reads it offline.

mod cli;
mod faults;
mod lifecycle;
mod ranges;
mod secrecy;
mod support;
mod tampering;
