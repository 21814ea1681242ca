//! What a session with a terminal looked like, kept so that it can be seen again.
//!
//! - [`cast`]: asciicast v3, the format in which a session is written down;
//! - [`sealed`]: chunks under authenticated encryption, readable up to the last whole one when the
//!   rest was lost;
//! - [`elide`]: how much of a flood of output is kept;
//! - [`screen`]: a terminal in memory, from which what is shown to a person is drawn anew;
//! - [`lines`]: the text of a terminal as a person saw it, for searching.
//!
//! Nothing here does I/O or asks the clock. Everything that comes out of a workspace is hostile:
//! bytes of a recording never reach a person's terminal themselves, [`screen::Screen`] draws what
//! they would have looked like. What is not defended here: a terminal program that can be harmed by
//! plain text and colours.

pub mod cast;
pub mod elide;
pub mod lines;
pub mod screen;
pub mod sealed;
mod strip;
