//! Real workspaces on this machine: they need root and an OCI runtime.

mod bench;
mod mount;
mod session;
mod watch;
mod workspace;
