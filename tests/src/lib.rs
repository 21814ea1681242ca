//! The end-to-end stories: real binaries, real clients, real data.

pub mod collector;
pub mod command;
pub mod node;
pub mod plaintext;
pub mod story;
