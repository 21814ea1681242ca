use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Refused;

/// Broker → agent, first on a fetch stream: hand out the record that this ticket names.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFetch {
    /// The sealed ticket; the agent checks it again.
    pub ticket: Vec<u8>,
}

/// Broker → agent on a fetch stream, after [`OpenFetch`]. Whoever gives up says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchInput {
    /// Last: everything arrived.
    Received,
}

/// Agent → broker on a fetch stream.
#[derive(Clone, PartialEq, Eq)]
pub enum FetchOutput {
    /// First: it was found, and its bytes follow.
    Found {
        /// How many.
        size: u64,
    },
    /// Last, at any point: it cannot be handed out (any further).
    Refused(Refused),
    /// The next bytes.
    Piece(Bytes),
    /// Last: there are no more. A stream that ends without this is abandoned.
    PieceEof,
}

impl fmt::Debug for OpenFetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenFetch").field("ticket_len", &self.ticket.len()).finish()
    }
}

impl fmt::Debug for FetchOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FetchOutput::Found { size } => f.debug_struct("Found").field("size", size).finish(),
            FetchOutput::Refused(refused) => f.debug_tuple("Refused").field(refused).finish(),
            FetchOutput::Piece(bytes) => write!(f, "Piece({} bytes)", bytes.len()),
            FetchOutput::PieceEof => f.write_str("PieceEof"),
        }
    }
}
