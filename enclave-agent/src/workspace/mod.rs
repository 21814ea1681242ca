//! Workspaces: a container for each person in each study, started when a session needs it.

mod bundle;
mod container;
mod home;
mod link;
mod pipe;
mod process;
mod runtime;

pub(crate) use bundle::SECCOMP;
pub use bundle::{Limits, Owner, make_dir};
pub use container::{Container, Place, StartError};
pub use home::Homes;
pub(crate) use home::close as close_home;
pub use link::Lost;
pub use pipe::Pipe;
pub use process::{Launch, LaunchError, Process, Streams};
pub use runtime::{Runtime, RuntimeError};
