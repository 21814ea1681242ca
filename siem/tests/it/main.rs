//! The feed against collectors: real ones, and some of our own that misbehave.

mod http;
mod real;
mod sinks;
mod support;
mod syslog;
