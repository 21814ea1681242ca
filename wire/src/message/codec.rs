use std::collections::VecDeque;

use bytes::Bytes;

use super::{
    AgentControl, BrokerControl, DepositInput, DepositOutput, FetchInput, FetchOutput, Hello, Load, Order,
    Refused, SessionInput, SessionOutput, VERSION,
};
use crate::frame::{Frame, FrameError, Tag, put_control, put_data};

/// What one side says on one kind of stream.
pub trait Message: Sized {
    /// Appends this message to `out`, as one frame or (for long data) several.
    fn encode(self, out: &mut VecDeque<Bytes>) -> Result<(), FrameError>;

    /// The message that `frame` is, or nothing if a frame of its tag is never said here.
    fn decode(frame: Frame) -> Result<Option<Self>, FrameError>;
}

impl Message for AgentControl {
    fn encode(self, out: &mut VecDeque<Bytes>) -> Result<(), FrameError> {
        match &self {
            AgentControl::Hello(hello) => put_control(Tag::Hello, hello, out),
            AgentControl::Report(report) => put_control(Tag::Report, report, out),
            AgentControl::Load(load) => put_control(Tag::Load, load, out),
        }
    }

    fn decode(frame: Frame) -> Result<Option<Self>, FrameError> {
        Ok(Some(match frame.tag {
            Tag::Hello => AgentControl::Hello(hello(&frame)?),
            Tag::Report => AgentControl::Report(frame.control()?),
            Tag::Load => AgentControl::Load(frame.control()?),
            _ => return Ok(None),
        }))
    }
}

/// Who speaks another version may word the rest otherwise; it is the version that they are told about.
fn hello(frame: &Frame) -> Result<Hello, FrameError> {
    frame.control().or_else(|error| match postcard::take_from_bytes::<u16>(&frame.body) {
        Ok((version, _)) if version != VERSION => Ok(Hello {
            version,
            agent: String::new(),
            kernel: String::new(),
            intake_key: [0; 32],
            keeping_key: [0; 32],
            backends: Vec::new(),
            near: Vec::new(),
            capacity: 0,
            load: Load::default(),
        }),
        _ => Err(error),
    })
}

impl Message for BrokerControl {
    fn encode(self, out: &mut VecDeque<Bytes>) -> Result<(), FrameError> {
        match &self {
            BrokerControl::Welcome { version, td } => put_control(Tag::Welcome, &(version, td), out),
            BrokerControl::Reject { reason } => put_control(Tag::Reject, reason, out),
            BrokerControl::Ack { seq } => put_control(Tag::Ack, seq, out),
            BrokerControl::Accept { state } => put_control(Tag::Accept, state, out),
            BrokerControl::Order { ticket } => put_control(Tag::ControlOrder, ticket, out),
        }
    }

    fn decode(frame: Frame) -> Result<Option<Self>, FrameError> {
        Ok(Some(match frame.tag {
            Tag::Welcome => {
                let (version, td) = frame.control()?;
                BrokerControl::Welcome { version, td }
            }
            Tag::Reject => BrokerControl::Reject { reason: frame.control()? },
            Tag::Ack => BrokerControl::Ack { seq: frame.control()? },
            Tag::Accept => BrokerControl::Accept { state: frame.control()? },
            Tag::ControlOrder => BrokerControl::Order { ticket: frame.control()? },
            _ => return Ok(None),
        }))
    }
}

impl Message for Order {
    fn encode(self, out: &mut VecDeque<Bytes>) -> Result<(), FrameError> {
        match &self {
            Order::Session(open) => put_control(Tag::OpenSession, open, out),
            Order::Deposit(open) => put_control(Tag::OpenDeposit, open, out),
            Order::Fetch(open) => put_control(Tag::OpenFetch, open, out),
        }
    }

    fn decode(frame: Frame) -> Result<Option<Self>, FrameError> {
        Ok(Some(match frame.tag {
            Tag::OpenSession => Order::Session(frame.control()?),
            Tag::OpenDeposit => Order::Deposit(frame.control()?),
            Tag::OpenFetch => Order::Fetch(frame.control()?),
            _ => return Ok(None),
        }))
    }
}

impl Message for SessionInput {
    fn encode(self, out: &mut VecDeque<Bytes>) -> Result<(), FrameError> {
        match self {
            SessionInput::Stdin(data) => put_data(Tag::Stdin, data, out),
            SessionInput::StdinEof => put_control(Tag::StdinEof, &(), out)?,
            SessionInput::Resize(size) => put_control(Tag::Resize, &size, out)?,
            SessionInput::Signal(name) => put_control(Tag::Signal, &name, out)?,
            SessionInput::Kill { reason } => put_control(Tag::Kill, &reason, out)?,
            SessionInput::Leave { reason } => put_control(Tag::Leave, &reason, out)?,
        }
        Ok(())
    }

    fn decode(frame: Frame) -> Result<Option<Self>, FrameError> {
        Ok(Some(match frame.tag {
            Tag::Stdin => SessionInput::Stdin(frame.data()?),
            Tag::StdinEof => SessionInput::StdinEof,
            Tag::Resize => SessionInput::Resize(frame.control()?),
            Tag::Signal => SessionInput::Signal(frame.control()?),
            Tag::Kill => SessionInput::Kill { reason: frame.control()? },
            Tag::Leave => SessionInput::Leave { reason: frame.control()? },
            _ => return Ok(None),
        }))
    }
}

impl Message for SessionOutput {
    fn encode(self, out: &mut VecDeque<Bytes>) -> Result<(), FrameError> {
        match self {
            SessionOutput::Opened { workspace, cold, notices } => {
                put_control(Tag::Opened, &(workspace, cold, notices), out)?;
            }
            SessionOutput::Refused(refused) => put_control(Tag::SessionRefused, &refused, out)?,
            SessionOutput::Stdout(data) => put_data(Tag::Stdout, data, out),
            SessionOutput::Stderr(data) => put_data(Tag::Stderr, data, out),
            SessionOutput::StdoutEof => put_control(Tag::StdoutEof, &(), out)?,
            SessionOutput::Exit(exited) => put_control(Tag::Exit, &exited, out)?,
            SessionOutput::Aborted { reason } => put_control(Tag::Aborted, &reason, out)?,
        }
        Ok(())
    }

    fn decode(frame: Frame) -> Result<Option<Self>, FrameError> {
        Ok(Some(match frame.tag {
            Tag::Opened => {
                let (workspace, cold, notices) = frame.control()?;
                SessionOutput::Opened { workspace, cold, notices }
            }
            Tag::SessionRefused => SessionOutput::Refused(frame.control::<Refused>()?),
            Tag::Stdout => SessionOutput::Stdout(frame.data()?),
            Tag::Stderr => SessionOutput::Stderr(frame.data()?),
            Tag::StdoutEof => SessionOutput::StdoutEof,
            Tag::Exit => SessionOutput::Exit(frame.control()?),
            Tag::Aborted => SessionOutput::Aborted { reason: frame.control()? },
            _ => return Ok(None),
        }))
    }
}

impl Message for DepositInput {
    fn encode(self, out: &mut VecDeque<Bytes>) -> Result<(), FrameError> {
        match self {
            DepositInput::Data(data) => put_data(Tag::Data, data, out),
            DepositInput::DataEof => put_control(Tag::DataEof, &(), out)?,
        }
        Ok(())
    }

    fn decode(frame: Frame) -> Result<Option<Self>, FrameError> {
        Ok(Some(match frame.tag {
            Tag::Data => DepositInput::Data(frame.data()?),
            Tag::DataEof => DepositInput::DataEof,
            _ => return Ok(None),
        }))
    }
}

impl Message for DepositOutput {
    fn encode(self, out: &mut VecDeque<Bytes>) -> Result<(), FrameError> {
        match &self {
            DepositOutput::Ready => put_control(Tag::Ready, &(), out),
            DepositOutput::Refused(refused) => put_control(Tag::DepositRefused, refused, out),
            DepositOutput::Progress { bytes } => put_control(Tag::Progress, bytes, out),
            DepositOutput::Deposited { size, root } => put_control(Tag::Deposited, &(size, root), out),
        }
    }

    fn decode(frame: Frame) -> Result<Option<Self>, FrameError> {
        Ok(Some(match frame.tag {
            Tag::Ready => DepositOutput::Ready,
            Tag::DepositRefused => DepositOutput::Refused(frame.control::<Refused>()?),
            Tag::Progress => DepositOutput::Progress { bytes: frame.control()? },
            Tag::Deposited => {
                let (size, root) = frame.control()?;
                DepositOutput::Deposited { size, root }
            }
            _ => return Ok(None),
        }))
    }
}

impl Message for FetchInput {
    fn encode(self, out: &mut VecDeque<Bytes>) -> Result<(), FrameError> {
        match self {
            FetchInput::Received => put_control(Tag::Received, &(), out),
        }
    }

    fn decode(frame: Frame) -> Result<Option<Self>, FrameError> {
        Ok((frame.tag == Tag::Received).then_some(FetchInput::Received))
    }
}

impl Message for FetchOutput {
    fn encode(self, out: &mut VecDeque<Bytes>) -> Result<(), FrameError> {
        match self {
            FetchOutput::Found { size } => put_control(Tag::Found, &size, out)?,
            FetchOutput::Refused(refused) => put_control(Tag::FetchRefused, &refused, out)?,
            FetchOutput::Piece(data) => put_data(Tag::Piece, data, out),
            FetchOutput::PieceEof => put_control(Tag::PieceEof, &(), out)?,
        }
        Ok(())
    }

    fn decode(frame: Frame) -> Result<Option<Self>, FrameError> {
        Ok(Some(match frame.tag {
            Tag::Found => FetchOutput::Found { size: frame.control()? },
            Tag::FetchRefused => FetchOutput::Refused(frame.control::<Refused>()?),
            Tag::Piece => FetchOutput::Piece(frame.data()?),
            Tag::PieceEof => FetchOutput::PieceEof,
            _ => return Ok(None),
        }))
    }
}
