//! What broker and agent say to each other, by kind of stream.
//!
//! A control message travels as a tag and a `postcard` body; [`SessionInput::Stdin`] and the other
//! carriers of bulk bytes travel as a tag and the bytes themselves, so that relaying copies nothing.
//! The order in which messages are legal is the business of [`crate::machine`], their bytes that of
//! [`crate::frame`].

mod codec;
mod control;
mod deposit;
mod fetch;
mod session;

pub use codec::Message;
pub use control::{
    AgentControl, AgentEvent, BrokerControl, FaultKind, Hello, Load, RUNNING_MAX, Report, Running,
};
pub use deposit::{DepositInput, DepositOutput, OpenDeposit};
pub use fetch::{FetchInput, FetchOutput, OpenFetch};
pub use session::{Command, Exited, OpenSession, Pty, SessionInput, SessionOutput, WindowSize};

/// The version of the protocol spoken here. A broker rejects an agent that says another one.
pub const VERSION: u16 = 3;

/// Broker → agent, the first message on a stream that the broker opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// A session follows.
    Session(OpenSession),
    /// A deposit follows: a file, or a record of the house itself.
    Deposit(OpenDeposit),
    /// A record of the house is to be handed out.
    Fetch(OpenFetch),
}

/// The agent's answer to an order it will not carry out.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Refused {
    /// Stable and machine-readable, such as `ticket.expired`.
    pub code: String,
    /// A sentence for the person.
    pub message: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}
