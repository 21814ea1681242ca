//! The end-to-end stories: real binaries, real clients, real data.

use std::path::PathBuf;

pub mod browser;
pub mod collector;
pub mod command;
pub mod crowd;
pub mod measure;
pub mod node;
pub mod plaintext;
pub mod story;
pub mod watched;

/// The folder of the public data that comes with the sources.
pub fn data() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/data/giab_tiny"))
}
