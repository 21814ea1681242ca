//! Which messages are legal when: the protocol without I/O.
//!
//! Every stream has two directions and each direction a script of its own: what may be said first,
//! what may follow, what must be last. [`Outbound`] holds the speaking side to the script and turns
//! messages into bytes, [`Inbound`] turns bytes into messages and holds the peer to it. Neither
//! knows a clock or a socket; the driver moves the bytes.
//!
//! | stream | opened by | opener says | the other says |
//! |---|---|---|---|
//! | control | agent | [`AgentControl`]: `Hello`, then `Report`s | [`BrokerControl`]: `Welcome` or `Reject`, then `Ack`s and `Accept`s |
//! | session | broker | [`Order::Session`], then [`SessionInput`] | [`SessionOutput`]: `Opened` or `Refused`, output, `Exit` or `Aborted` |
//! | deposit | broker | [`Order::Deposit`], then [`DepositInput`] | [`DepositOutput`]: `Ready` or `Refused`, `Progress`, `Deposited` or `Refused` |
//! | fetch | broker | [`Order::Fetch`], then [`FetchInput`]: `Received` | [`FetchOutput`]: `Found` or `Refused`, `Piece`s, `PieceEof` or `Refused` |
//!
//! The two directions of a stream are independent: input may be sent before `Opened` arrives (it
//! waits in the flow-control window), and input may be under way while `Exit` comes back.

mod reports;
mod script;

use std::collections::VecDeque;

use bytes::Bytes;

pub use reports::{QueueFull, ReportQueue};
pub use script::{Script, Violation};

use crate::frame::{Decoder, FrameError};
#[cfg(doc)]
use crate::message::{
    AgentControl, BrokerControl, DepositInput, DepositOutput, FetchInput, FetchOutput, Order, SessionInput,
    SessionOutput,
};

/// The peer (or, when sending, this side) left the protocol. The stream is of no more use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Bytes that are no message.
    #[error("what the peer sent is not a message: {0}")]
    Frame(#[from] FrameError),
    /// A message out of turn.
    #[error("a message out of turn: {0}")]
    Violation(#[from] Violation),
}

/// The speaking end of one direction.
#[derive(Debug, Default)]
pub struct Outbound<M: Script> {
    state: M::State,
}

impl<M: Script> Outbound<M> {
    /// At the beginning of the script.
    pub fn new() -> Outbound<M> {
        Outbound { state: M::State::default() }
    }

    /// Appends the bytes of `message` to `out`. On an error nothing is appended and the script
    /// stands where it stood.
    pub fn say(&mut self, message: M, out: &mut VecDeque<Bytes>) -> Result<(), ProtocolError> {
        let next = message.step(self.state)?;
        message.encode(out)?;
        self.state = next;
        Ok(())
    }

    /// Whether the last word is said: the stream is to be finished.
    pub fn is_over(&self) -> bool {
        M::is_over(self.state)
    }
}

/// The hearing end of one direction.
#[derive(Debug)]
pub struct Inbound<M: Script> {
    decoder: Decoder,
    state: M::State,
    failed: Option<ProtocolError>,
}

impl<M: Script> Default for Inbound<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Script> Inbound<M> {
    /// At the beginning of the script.
    pub fn new() -> Inbound<M> {
        Inbound { decoder: Decoder::default(), state: M::State::default(), failed: None }
    }

    /// Takes the next bytes of the stream; best only after [`Inbound::next_message`] returned nothing.
    pub fn push(&mut self, chunk: Bytes) {
        if self.failed.is_none() {
            self.decoder.push(chunk);
        }
    }

    /// The next message, or nothing until more is pushed. An error is final.
    pub fn next_message(&mut self) -> Result<Option<M>, ProtocolError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let result = self.decode();
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        result
    }

    /// The stream ended here. Fine only after the last word.
    pub fn end(&self) -> Result<(), ProtocolError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        self.decoder.end()?;
        if self.is_over() { Ok(()) } else { Err(Violation::EndedEarly.into()) }
    }

    /// Whether the last word was heard.
    pub fn is_over(&self) -> bool {
        M::is_over(self.state)
    }

    /// Goes on with another script on the same stream: what follows an order depends on the order.
    pub fn becomes<N: Script>(self) -> Inbound<N> {
        Inbound { decoder: self.decoder, state: N::State::default(), failed: self.failed }
    }

    fn decode(&mut self) -> Result<Option<M>, ProtocolError> {
        let Some(frame) = self.decoder.next_frame()? else { return Ok(None) };
        let tag = frame.tag;
        let message = M::decode(frame)?.ok_or(Violation::NotHere(tag))?;
        self.state = message.step(self.state)?;
        Ok(Some(message))
    }
}

/// Both directions of one stream, as one side sees them.
#[derive(Debug)]
pub struct Machine<Out: Script, In: Script> {
    /// What this side says.
    pub outbound: Outbound<Out>,
    /// What the peer says.
    pub inbound: Inbound<In>,
}

impl<Out: Script, In: Script> Machine<Out, In> {
    /// At the beginning of both scripts.
    pub fn new() -> Machine<Out, In> {
        Machine { outbound: Outbound::new(), inbound: Inbound::new() }
    }
}

impl<Out: Script, In: Script> Default for Machine<Out, In> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
