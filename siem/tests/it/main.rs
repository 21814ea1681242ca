//! The feed against collectors: real ones, and some of our own that misbehave.

mod http;
mod leaving;
mod real;
mod rules;
mod sinks;
mod support;
mod syslog;
mod watch;
