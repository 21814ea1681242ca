//! What happens in a session, in one vocabulary for everybody who follows it: the person's client,
//! and whoever keeps or watches it besides.

use bytes::Bytes;
use wire::message::WindowSize;

/// One thing that happens in a session. Bytes are shared, not copied, however many follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// Bytes from standard output, or from the terminal.
    Output(Bytes),
    /// Bytes from standard error.
    Error(Bytes),
    /// Bytes from the person.
    Input(Bytes),
    /// The terminal has another size.
    Resized(WindowSize),
    /// The workspace sends no more; input may go on.
    OutputEnded,
    /// The house said something to the person.
    Said(String),
}
