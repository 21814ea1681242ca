//! RELP, the Reliable Event Logging Protocol: syslog messages that the other side acknowledges.
//!
//! [`Relp`] is the client's side of one connection, without I/O: bytes in, bytes out. What the other
//! side sends is bounded and checked; it can claim to have a message it was sent, and nothing else
//! can be known about that.

mod frame;

use std::collections::VecDeque;

pub use frame::{ANSWER_MAX, Decoder, Frame, FrameError};

/// Messages that may wait for their acknowledgement: what librelp allows.
pub const WINDOW: usize = 128;
/// The last number of a transaction before they begin anew.
const TRANSACTION_MAX: u32 = 999_999_999;

/// Why a connection has to end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelpError {
    /// It sent what is no RELP.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It answered what was never asked, or twice.
    #[error("the collector answered transaction {0}, which is not open")]
    Unasked(u32),
    /// It does not want to speak with us, or does not take a message.
    #[error("the collector refused {what}: {answer}")]
    Refused {
        /// What was refused.
        what: &'static str,
        /// Its answer, as far as it can be shown.
        answer: String,
    },
    /// It cannot take syslog messages.
    #[error("the collector offers no syslog over RELP")]
    NoSyslog,
    /// It sent a command that only a client sends.
    #[error("the collector sent the command {0:?}")]
    Command(String),
    /// It ends the session.
    #[error("the collector closes the session")]
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Opening,
    Open,
    Closing,
}

/// One message under way.
#[derive(Debug)]
struct Pending {
    transaction: u32,
    next: u64,
    acknowledged: bool,
}

/// A RELP session from the side that sends.
#[derive(Debug)]
pub struct Relp {
    state: State,
    decoder: Decoder,
    transaction: u32,
    window: VecDeque<Pending>,
    out: Vec<u8>,
}

impl Default for Relp {
    fn default() -> Self {
        Relp::new()
    }
}

impl Relp {
    /// A session that begins by offering itself.
    pub fn new() -> Relp {
        let offers = concat!(
            "relp_version=0\nrelp_software=sekisho,",
            env!("CARGO_PKG_VERSION"),
            "\ncommands=syslog\n"
        );
        let mut relp = Relp {
            state: State::Opening,
            decoder: Decoder::default(),
            transaction: 0,
            window: VecDeque::new(),
            out: Vec::new(),
        };
        relp.command("open", offers.as_bytes());
        relp
    }

    /// Bytes to be sent, if there are some.
    pub fn transmit(&mut self) -> Option<Vec<u8>> {
        (!self.out.is_empty()).then(|| std::mem::take(&mut self.out))
    }

    /// How many messages may be sent now: none until the session is open.
    pub fn room(&self) -> usize {
        if self.state == State::Open { WINDOW - self.window.len() } else { 0 }
    }

    /// Whether the other side has agreed to the session.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// How many messages wait for their acknowledgement.
    pub fn waiting(&self) -> usize {
        self.window.len()
    }

    /// Sends a message; once it and all before it are acknowledged, all entries below `next` are
    /// delivered. False, and nothing is sent, if there is no [room](Relp::room).
    pub fn send(&mut self, next: u64, message: &[u8]) -> bool {
        if self.room() == 0 {
            return false;
        }
        let transaction = self.command("syslog", message);
        self.window.push_back(Pending { transaction, next, acknowledged: false });
        true
    }

    /// Says goodbye; nothing can be sent afterwards.
    pub fn close(&mut self) {
        if self.state != State::Closing {
            self.state = State::Closing;
            self.command("close", b"");
        }
    }

    /// Takes what the other side sent. It returns the entries below which everything is delivered,
    /// if that has moved. After an error the session is over.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Option<u64>, RelpError> {
        let mut delivered = None;
        let mut rest = bytes;
        while let Some(frame) = self.decoder.next_frame(&mut rest)? {
            match frame.command.as_str() {
                "rsp" => delivered = self.answered(&frame)?.or(delivered),
                "serverclose" => return Err(RelpError::Closed),
                other => return Err(RelpError::Command(other.to_owned())),
            }
        }
        Ok(delivered)
    }

    fn answered(&mut self, frame: &Frame) -> Result<Option<u64>, RelpError> {
        if self.state == State::Closing && frame.transaction == self.transaction {
            return Ok(None);
        }
        if self.state == State::Opening {
            if frame.transaction != 1 {
                return Err(RelpError::Unasked(frame.transaction));
            }
            if !is_200(&frame.data) {
                return Err(RelpError::Refused { what: "the session", answer: shown(&frame.data) });
            }
            let offers = String::from_utf8_lossy(&frame.data);
            let commands = offers.lines().find_map(|line| line.strip_prefix("commands="));
            if !commands.is_some_and(|commands| commands.split(',').any(|c| c.trim() == "syslog")) {
                return Err(RelpError::NoSyslog);
            }
            self.state = State::Open;
            return Ok(None);
        }
        let open = self.window.iter_mut().find(|p| p.transaction == frame.transaction && !p.acknowledged);
        let Some(pending) = open else { return Err(RelpError::Unasked(frame.transaction)) };
        if !is_200(&frame.data) {
            return Err(RelpError::Refused { what: "a message", answer: shown(&frame.data) });
        }
        pending.acknowledged = true;
        let mut delivered = None;
        while self.window.front().is_some_and(|p| p.acknowledged) {
            delivered = self.window.pop_front().map(|p| p.next).or(delivered);
        }
        Ok(delivered)
    }

    fn command(&mut self, command: &str, data: &[u8]) -> u32 {
        self.transaction = if self.transaction >= TRANSACTION_MAX { 1 } else { self.transaction + 1 };
        self.out.extend_from_slice(format!("{} {command} {}", self.transaction, data.len()).as_bytes());
        if !data.is_empty() {
            self.out.push(b' ');
            self.out.extend_from_slice(data);
        }
        self.out.push(b'\n');
        self.transaction
    }
}

fn is_200(data: &[u8]) -> bool {
    data.starts_with(b"200") && !data.get(3).is_some_and(u8::is_ascii_digit)
}

fn shown(data: &[u8]) -> String {
    String::from_utf8_lossy(data).chars().take(100).flat_map(char::escape_default).collect()
}

#[cfg(test)]
#[path = "relp/tests.rs"]
mod tests;
