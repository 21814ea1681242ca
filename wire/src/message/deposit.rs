use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Refused;

/// Broker → agent, first on a deposit stream: take in the file that this ticket names.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenDeposit {
    /// The sealed ticket; the agent checks it again.
    pub ticket: Vec<u8>,
}

/// Broker → agent on a deposit stream, after [`OpenDeposit`].
#[derive(Clone, PartialEq, Eq)]
pub enum DepositInput {
    /// The next bytes of the Crypt4GH stream.
    Data(Bytes),
    /// The Crypt4GH stream is complete. A stream that ends without this is abandoned.
    DataEof,
}

/// Agent → broker on a deposit stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DepositOutput {
    /// First: send the data.
    Ready,
    /// Last, at any point: the deposit is not made and nothing is kept.
    Refused(Refused),
    /// How far it is.
    Progress {
        /// Plaintext bytes split so far.
        bytes: u64,
    },
    /// Last: the shares are durable.
    Deposited {
        /// Size of the plaintext in bytes.
        size: u64,
        /// Root of the manifest.
        root: [u8; 32],
    },
}

impl fmt::Debug for OpenDeposit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenDeposit").field("ticket_len", &self.ticket.len()).finish()
    }
}

impl fmt::Debug for DepositInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DepositInput::Data(data) => write!(f, "Data({} bytes)", data.len()),
            DepositInput::DataEof => f.write_str("DataEof"),
        }
    }
}
