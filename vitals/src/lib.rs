//! How a process is: told to machines on its own host, and looked at on that host.
//!
//! Every process of a house has a [`Door`]: `GET /health` and `GET /metrics` on the unix socket
//! [`SOCKET`] in its folder, and on an address of this host if its operator names one. It tells nothing
//! that names a person, and takes nothing in. [`Kernel`] and [`Folder`] are the files behind what
//! `model::diagnosis` and `model::declared` judge.
//!
//! What it does not defend against: whoever may connect to the socket, or to the address, learns all
//! that it tells. The socket is the process's own user's; an address is every user's of this host, and
//! is therefore off unless it is asked for.

mod door;
mod host;
mod own;
pub mod request;

pub use door::{Door, DoorError, SOCKET};
pub use host::{Folder, Kernel, Writer};

use model::metrics::{Exposition, Health};

/// A process that can be asked how it is. It is asked often: it answers from memory, and does not wait.
pub trait Vitals: Send + Sync + 'static {
    /// Whether it works.
    fn health(&self) -> Health;

    /// Its figures, besides those that every process has.
    fn figures(&self, to: &mut Exposition);
}

/// All figures of a process, those that every process has first, in the text format of Prometheus.
pub fn figures(vitals: &dyn Vitals) -> String {
    let mut figures = Exposition::default();
    own::expose(&vitals.health(), &mut figures);
    vitals.figures(&mut figures);
    figures.finish()
}
