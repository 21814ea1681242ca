//! The vault over backends that behave and that do not, and the tool that reads it offline.

mod cli;
mod faults;
mod large;
mod lifecycle;
mod placement;
mod ranges;
mod s3;
mod secrecy;
mod support;
mod tampering;
