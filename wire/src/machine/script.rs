use std::fmt::Debug;

use crate::frame::Tag;
use crate::message::{
    AgentControl, BrokerControl, DepositInput, DepositOutput, FetchInput, FetchOutput, Message, Order,
    SessionInput, SessionOutput,
};

/// A message out of turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Something else has to come first.
    #[error("{0} came before what must come first")]
    TooEarly(&'static str),
    /// The last word was said already.
    #[error("{0} came after the last word")]
    TooLate(&'static str),
    /// It may be said once, or not after its end was announced.
    #[error("{0} came again, or after its end")]
    Again(&'static str),
    /// A sequence number that does not move forward.
    #[error("sequence number {seq} after {last}")]
    Sequence {
        /// What came.
        seq: u64,
        /// What came before.
        last: u64,
    },
    /// An acknowledgement of what was never sent.
    #[error("acknowledgement of {seq}, only {sent} was sent")]
    NeverSent {
        /// What is acknowledged.
        seq: u64,
        /// The highest number sent on this connection.
        sent: u64,
    },
    /// A frame that belongs to another kind of stream or to the other side.
    #[error("a {0:?} frame has no place in this direction of this stream")]
    NotHere(Tag),
    /// The stream ended before the last word.
    #[error("the stream ended before the last word")]
    EndedEarly,
}

/// The order in which the messages of one direction may come.
pub trait Script: Message {
    /// How far the conversation is.
    type State: Copy + Default + Debug + PartialEq;

    /// Where the conversation stands after this message.
    fn step(&self, state: Self::State) -> Result<Self::State, Violation>;

    /// Whether nothing may follow.
    fn is_over(state: Self::State) -> bool;
}

/// `Hello`, then reports with rising numbers and, between them, loads; it ends with the connection.
impl Script for AgentControl {
    type State = Option<u64>;

    fn step(&self, state: Self::State) -> Result<Self::State, Violation> {
        match (state, self) {
            (None, AgentControl::Hello(_)) => Ok(Some(0)),
            (None, AgentControl::Report(_)) => Err(Violation::TooEarly("Report")),
            (None, AgentControl::Load(_)) => Err(Violation::TooEarly("Load")),
            (Some(last), AgentControl::Load(_)) => Ok(Some(last)),
            (Some(_), AgentControl::Hello(_)) => Err(Violation::Again("Hello")),
            (Some(last), AgentControl::Report(report)) => rising(last, report.seq).map(Some),
        }
    }

    fn is_over(_: Self::State) -> bool {
        false
    }
}

/// The broker's half of the control stream.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Admission {
    /// Neither welcomed nor rejected.
    #[default]
    Pending,
    /// Welcomed; the last number acknowledged.
    Welcome(u64),
    /// Rejected.
    Rejected,
}

impl Script for BrokerControl {
    type State = Admission;

    fn step(&self, state: Self::State) -> Result<Self::State, Violation> {
        match (state, self) {
            (Admission::Pending, BrokerControl::Welcome { .. }) => Ok(Admission::Welcome(0)),
            (Admission::Pending, BrokerControl::Reject { .. }) => Ok(Admission::Rejected),
            (Admission::Pending, BrokerControl::Ack { .. }) => Err(Violation::TooEarly("Ack")),
            (Admission::Pending, BrokerControl::Accept { .. }) => Err(Violation::TooEarly("Accept")),
            (Admission::Pending, BrokerControl::Order { .. }) => Err(Violation::TooEarly("Order")),
            (Admission::Welcome(last), BrokerControl::Order { .. }) => Ok(Admission::Welcome(last)),
            (Admission::Welcome(last), BrokerControl::Ack { seq }) => {
                rising(last, *seq).map(Admission::Welcome)
            }
            (Admission::Welcome(last), BrokerControl::Accept { .. }) => Ok(Admission::Welcome(last)),
            (Admission::Welcome(_), BrokerControl::Welcome { .. } | BrokerControl::Reject { .. }) => {
                Err(Violation::Again("admission"))
            }
            (Admission::Rejected, _) => Err(Violation::TooLate("a message")),
        }
    }

    fn is_over(state: Self::State) -> bool {
        state == Admission::Rejected
    }
}

fn rising(last: u64, seq: u64) -> Result<u64, Violation> {
    if seq > last { Ok(seq) } else { Err(Violation::Sequence { seq, last }) }
}

/// One order; the stream goes on with the script the order asks for.
impl Script for Order {
    type State = bool;

    fn step(&self, said: bool) -> Result<bool, Violation> {
        if said { Err(Violation::Again("an order")) } else { Ok(true) }
    }

    fn is_over(said: bool) -> bool {
        said
    }
}

/// The input of a session or a deposit.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Input {
    /// Data may come.
    #[default]
    Flowing,
    /// Data has ended.
    Ended,
    /// Nothing may follow.
    Over,
}

impl Script for SessionInput {
    type State = Input;

    fn step(&self, state: Input) -> Result<Input, Violation> {
        match (state, self) {
            (Input::Over, _) => Err(Violation::TooLate("session input")),
            (_, SessionInput::Kill { .. } | SessionInput::Leave { .. }) => Ok(Input::Over),
            (state, SessionInput::Resize(_) | SessionInput::Signal(_)) => Ok(state),
            (Input::Flowing, SessionInput::Stdin(_)) => Ok(Input::Flowing),
            (Input::Flowing, SessionInput::StdinEof) => Ok(Input::Ended),
            (Input::Ended, SessionInput::Stdin(_)) => Err(Violation::Again("Stdin")),
            (Input::Ended, SessionInput::StdinEof) => Err(Violation::Again("StdinEof")),
        }
    }

    fn is_over(state: Input) -> bool {
        state == Input::Over
    }
}

impl Script for DepositInput {
    type State = Input;

    fn step(&self, state: Input) -> Result<Input, Violation> {
        match (state, self) {
            (Input::Flowing, DepositInput::Data(_)) => Ok(Input::Flowing),
            (Input::Flowing, DepositInput::DataEof) => Ok(Input::Over),
            (Input::Ended | Input::Over, _) => Err(Violation::TooLate("deposit data")),
        }
    }

    fn is_over(state: Input) -> bool {
        state == Input::Over
    }
}

/// The agent's answer to an order and what follows it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Answer {
    /// Not yet answered.
    #[default]
    Pending,
    /// Accepted.
    Running,
    /// The last word was said.
    Over,
}

impl Script for SessionOutput {
    type State = Answer;

    fn step(&self, state: Answer) -> Result<Answer, Violation> {
        match (state, self) {
            (Answer::Over, _) => Err(Violation::TooLate("session output")),
            (Answer::Pending, SessionOutput::Opened { .. }) => Ok(Answer::Running),
            (Answer::Pending, SessionOutput::Refused(_)) => Ok(Answer::Over),
            (Answer::Pending, _) => Err(Violation::TooEarly("session output")),
            (Answer::Running, SessionOutput::Opened { .. } | SessionOutput::Refused(_)) => {
                Err(Violation::Again("the answer"))
            }
            (
                Answer::Running,
                SessionOutput::Stdout(_) | SessionOutput::Stderr(_) | SessionOutput::StdoutEof,
            ) => Ok(Answer::Running),
            (Answer::Running, SessionOutput::Exit(_) | SessionOutput::Aborted { .. }) => Ok(Answer::Over),
        }
    }

    fn is_over(state: Answer) -> bool {
        state == Answer::Over
    }
}

impl Script for DepositOutput {
    type State = Answer;

    fn step(&self, state: Answer) -> Result<Answer, Violation> {
        match (state, self) {
            (Answer::Over, _) => Err(Violation::TooLate("a deposit's answer")),
            (_, DepositOutput::Refused(_)) => Ok(Answer::Over),
            (Answer::Pending, DepositOutput::Ready) => Ok(Answer::Running),
            (Answer::Pending, _) => Err(Violation::TooEarly("a deposit's progress")),
            (Answer::Running, DepositOutput::Ready) => Err(Violation::Again("Ready")),
            (Answer::Running, DepositOutput::Progress { .. }) => Ok(Answer::Running),
            (Answer::Running, DepositOutput::Deposited { .. }) => Ok(Answer::Over),
        }
    }

    fn is_over(state: Answer) -> bool {
        state == Answer::Over
    }
}

impl Script for FetchInput {
    type State = Input;

    fn step(&self, state: Input) -> Result<Input, Violation> {
        match state {
            Input::Flowing => Ok(Input::Over),
            Input::Ended | Input::Over => Err(Violation::TooLate("Received")),
        }
    }

    fn is_over(state: Input) -> bool {
        state == Input::Over
    }
}

impl Script for FetchOutput {
    type State = Answer;

    fn step(&self, state: Answer) -> Result<Answer, Violation> {
        match (state, self) {
            (Answer::Over, _) => Err(Violation::TooLate("a fetch's answer")),
            (_, FetchOutput::Refused(_)) => Ok(Answer::Over),
            (Answer::Pending, FetchOutput::Found { .. }) => Ok(Answer::Running),
            (Answer::Pending, _) => Err(Violation::TooEarly("a record's bytes")),
            (Answer::Running, FetchOutput::Found { .. }) => Err(Violation::Again("Found")),
            (Answer::Running, FetchOutput::Piece(_)) => Ok(Answer::Running),
            (Answer::Running, FetchOutput::PieceEof) => Ok(Answer::Over),
        }
    }

    fn is_over(state: Answer) -> bool {
        state == Answer::Over
    }
}
