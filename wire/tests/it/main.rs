//! The driver over the loopback interface, with certificates of a throw-away authority.

mod admission;
mod party;
mod streams;
