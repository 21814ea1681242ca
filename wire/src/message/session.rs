use std::fmt;

use bytes::Bytes;
use model::WorkspaceId;
use serde::{Deserialize, Serialize};

use super::Refused;

/// Broker → agent, first on a session stream: run this for the bearer of this ticket.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSession {
    /// The sealed ticket; the agent checks it again.
    pub ticket: Vec<u8>,
    /// What to run.
    pub command: Command,
    /// The terminal, if the person asked for one.
    pub pty: Option<Pty>,
    /// Environment the person's client sent and the broker let through.
    pub env: Vec<(String, String)>,
}

/// What runs in the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A login shell.
    Shell,
    /// A command line for the shell, as the client sent it.
    Exec(Vec<u8>),
    /// The server of [`crate::sftp`]. The broker mediates; the server sees to what only it can see.
    Sftp {
        /// Whether files below `/data` may be opened for reading, by whatever name.
        data: bool,
    },
    /// A connection to a port on the workspace's loopback: its bytes are input and output.
    Connect {
        /// The port.
        port: u16,
    },
}

/// The terminal asked for (RFC 4254, section 6.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pty {
    /// The value of `TERM`.
    pub term: String,
    /// Width in characters.
    pub cols: u32,
    /// Height in rows.
    pub rows: u32,
    /// Width in pixels, 0 if not known.
    pub width_px: u32,
    /// Height in pixels, 0 if not known.
    pub height_px: u32,
    /// Terminal modes as opcode and argument (RFC 4254, section 8).
    pub modes: Vec<(u8, u32)>,
}

impl Pty {
    /// The terminal's size.
    pub fn size(&self) -> WindowSize {
        WindowSize { cols: self.cols, rows: self.rows, width_px: self.width_px, height_px: self.height_px }
    }
}

/// The size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Width in characters.
    pub cols: u32,
    /// Height in rows.
    pub rows: u32,
    /// Width in pixels, 0 if not known.
    pub width_px: u32,
    /// Height in pixels, 0 if not known.
    pub height_px: u32,
}

/// Broker → agent on a session stream, after [`OpenSession`].
#[derive(Clone, PartialEq, Eq)]
pub enum SessionInput {
    /// Bytes for standard input.
    Stdin(Bytes),
    /// Standard input ends; output goes on.
    StdinEof,
    /// The terminal has another size now.
    Resize(WindowSize),
    /// Deliver a signal, named as in RFC 4254 section 6.9, without `SIG`.
    Signal(String),
    /// End the session at once, with every process that it started.
    Kill {
        /// Why, for the agent's log.
        reason: String,
    },
    /// The person is gone: the session ends as a terminal does that is hung up, and what was made to
    /// outlive that goes on.
    Leave {
        /// Why, for the agent's log.
        reason: String,
    },
}

/// Agent → broker on a session stream.
#[derive(Clone, PartialEq, Eq)]
pub enum SessionOutput {
    /// First: it runs.
    Opened {
        /// Where.
        workspace: WorkspaceId,
        /// Whether the workspace was started for this session.
        cold: bool,
        /// What the person should know of it, such as that its disk is full.
        notices: Vec<String>,
    },
    /// First and last: it does not run.
    Refused(Refused),
    /// Bytes from standard output, or from the terminal.
    Stdout(Bytes),
    /// Bytes from standard error.
    Stderr(Bytes),
    /// Of a connection: the workspace sends no more, and may still take input.
    StdoutEof,
    /// Last: it ended by itself, and all it wrote has been sent.
    Exit(Exited),
    /// Last: it was ended, or failed, from outside; output may be missing.
    Aborted {
        /// A sentence for the person.
        reason: String,
    },
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exited {
    /// With this exit status.
    Code(u8),
    /// By a signal.
    Signal {
        /// Named as in RFC 4254 section 6.10, without `SIG`.
        name: String,
        /// Whether the core was dumped.
        core: bool,
    },
}

// What people type and read does not belong in a log: these show lengths.

impl fmt::Debug for OpenSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let command = match &self.command {
            Command::Shell => "shell".to_owned(),
            Command::Exec(line) => format!("exec, {} bytes", line.len()),
            Command::Sftp { .. } => "sftp".to_owned(),
            Command::Connect { port } => format!("connect to {port}"),
        };
        f.debug_struct("OpenSession")
            .field("ticket_len", &self.ticket.len())
            .field("command", &command)
            .field("pty", &self.pty)
            .field("env_len", &self.env.len())
            .finish()
    }
}

impl fmt::Debug for SessionInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SessionInput::Stdin(data) => write!(f, "Stdin({} bytes)", data.len()),
            SessionInput::StdinEof => f.write_str("StdinEof"),
            SessionInput::Resize(size) => f.debug_tuple("Resize").field(size).finish(),
            SessionInput::Signal(name) => f.debug_tuple("Signal").field(name).finish(),
            SessionInput::Kill { reason } => f.debug_struct("Kill").field("reason", reason).finish(),
            SessionInput::Leave { reason } => f.debug_struct("Leave").field("reason", reason).finish(),
        }
    }
}

impl fmt::Debug for SessionOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SessionOutput::Opened { workspace, cold, .. } => {
                f.debug_struct("Opened").field("workspace", workspace).field("cold", cold).finish()
            }
            SessionOutput::Refused(refused) => f.debug_tuple("Refused").field(refused).finish(),
            SessionOutput::Stdout(data) => write!(f, "Stdout({} bytes)", data.len()),
            SessionOutput::Stderr(data) => write!(f, "Stderr({} bytes)", data.len()),
            SessionOutput::StdoutEof => f.write_str("StdoutEof"),
            SessionOutput::Exit(exited) => f.debug_tuple("Exit").field(exited).finish(),
            SessionOutput::Aborted { reason } => f.debug_struct("Aborted").field("reason", reason).finish(),
        }
    }
}
