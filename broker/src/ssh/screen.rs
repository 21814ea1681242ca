//! The client's side of one channel: what the person sees.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use russh::server::{ChannelOpenHandle, Handle, Msg};
use russh::{ChannelId, ChannelOpenFailure, ChannelWriteHalf, Sig};
use wire::message::Exited;

use crate::happening::Happening;

/// Standard error, as extended data (RFC 4254, section 5.2).
const STDERR: u32 = 1;

/// The client is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// Writes to one channel, never more than the client's window allows.
#[derive(Debug)]
pub(crate) struct Screen {
    channel: ChannelWriteHalf<Msg>,
    handle: Handle,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// A session. If its terminal is raw, a line ends in `\r\n`.
    Session { raw: bool },
    /// A forwarded connection, which has no place for words once it stands; `reply` says whether it
    /// does, until then.
    Forward { reply: Mutex<Option<Reply>> },
}

/// The answer to the opening of a channel, still to be given.
struct Reply(ChannelOpenHandle);

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reply")
    }
}

impl Screen {
    pub(crate) fn new(channel: ChannelWriteHalf<Msg>, handle: Handle, raw: bool) -> Screen {
        Screen { channel, handle, kind: Kind::Session { raw } }
    }

    /// The screen of a forwarded connection that is still to be answered.
    pub(crate) fn forward(
        channel: ChannelWriteHalf<Msg>,
        handle: Handle,
        reply: ChannelOpenHandle,
    ) -> Screen {
        Screen { channel, handle, kind: Kind::Forward { reply: Mutex::new(Some(Reply(reply))) } }
    }

    /// What was asked for runs.
    pub(crate) async fn opened(&self) {
        if let Some(reply) = self.reply() {
            reply.accept().await;
        }
    }

    /// Shows what happens in the session, where the client has not done it itself.
    pub(crate) async fn show(&self, happening: Happening) -> Result<(), Gone> {
        match happening {
            Happening::Output(data) => self.stdout(data).await,
            Happening::Error(data) => self.stderr(data).await,
            Happening::OutputEnded => self.eof().await,
            Happening::Said(text) => self.say(&text).await,
            Happening::Input(_) | Happening::Resized(_) => Ok(()),
        }
    }

    /// The workspace sends no more; input may go on.
    async fn eof(&self) -> Result<(), Gone> {
        self.channel.eof().await.map_err(|_| Gone)
    }

    fn reply(&self) -> Option<ChannelOpenHandle> {
        match &self.kind {
            Kind::Session { .. } => None,
            Kind::Forward { reply } => {
                reply.lock().unwrap_or_else(PoisonError::into_inner).take().map(|reply| reply.0)
            }
        }
    }

    pub(crate) fn id(&self) -> ChannelId {
        self.channel.id()
    }

    /// Output of the workspace. Waits until the client has room for it.
    pub(crate) async fn stdout(&self, data: Bytes) -> Result<(), Gone> {
        self.channel.data_bytes(data).await.map_err(|_| Gone)
    }

    /// Error output of the workspace. Waits until the client has room for it.
    async fn stderr(&self, data: Bytes) -> Result<(), Gone> {
        self.channel.extended_data_bytes(STDERR, data).await.map_err(|_| Gone)
    }

    /// A line from the broker itself, on standard error.
    pub(crate) async fn say(&self, text: &str) -> Result<(), Gone> {
        match self.kind {
            Kind::Session { raw } => self.stderr(line(text, raw)).await,
            Kind::Forward { .. } => Ok(()),
        }
    }

    /// Says how the command ended and closes the channel.
    pub(crate) async fn exit(&self, exited: &Exited) -> Result<(), Gone> {
        match exited {
            _ if matches!(self.kind, Kind::Forward { .. }) => {}
            Exited::Code(code) => self.channel.exit_status(u32::from(*code)).await.map_err(|_| Gone)?,
            Exited::Signal { name, core } => self
                .handle
                .exit_signal_request(self.id(), signal(name), *core, String::new(), String::new())
                .await
                .map_err(|()| Gone)?,
        }
        self.channel.eof().await.map_err(|_| Gone)?;
        self.channel.close().await.map_err(|_| Gone)
    }

    /// Says why, and closes the channel with a status of `sysexits.h`.
    pub(crate) async fn fail(&self, text: &str, status: u8) -> Result<(), Gone> {
        if let Some(reply) = self.reply() {
            let reason = format!("sekisho: {}", plain(text));
            reply.reject(ChannelOpenFailure::Other { code: 1, reason }).await;
            return Ok(());
        }
        self.say(text).await?;
        self.exit(&Exited::Code(status)).await
    }
}

/// One line as the broker speaks it. What comes from elsewhere cannot move the person's cursor.
fn line(text: &str, raw: bool) -> Bytes {
    let end = if raw { "\r\n" } else { "\n" };
    let start = if raw { "\r\n" } else { "" };
    Bytes::from(format!("{start}sekisho: {}{end}", plain(text)))
}

fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The signal of this RFC 4254 name.
pub(crate) fn signal(name: &str) -> Sig {
    match name {
        "ABRT" => Sig::ABRT,
        "ALRM" => Sig::ALRM,
        "FPE" => Sig::FPE,
        "HUP" => Sig::HUP,
        "ILL" => Sig::ILL,
        "INT" => Sig::INT,
        "KILL" => Sig::KILL,
        "PIPE" => Sig::PIPE,
        "QUIT" => Sig::QUIT,
        "SEGV" => Sig::SEGV,
        "TERM" => Sig::TERM,
        "USR1" => Sig::USR1,
        other => Sig::Custom(other.to_owned()),
    }
}

/// The RFC 4254 name of a signal, if it is one that people may send.
pub(crate) fn signal_name(signal: &Sig) -> Option<&'static str> {
    Some(match signal {
        Sig::ABRT => "ABRT",
        Sig::ALRM => "ALRM",
        Sig::FPE => "FPE",
        Sig::HUP => "HUP",
        Sig::ILL => "ILL",
        Sig::INT => "INT",
        Sig::KILL => "KILL",
        Sig::PIPE => "PIPE",
        Sig::QUIT => "QUIT",
        Sig::SEGV => "SEGV",
        Sig::TERM => "TERM",
        Sig::USR1 => "USR1",
        Sig::Custom(name) if name == "USR2" => "USR2",
        Sig::Custom(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cannot_move_the_cursor() {
        assert_eq!(line("no\u{1b}[2J\nway", false), "sekisho: no [2J way\n");
        assert_eq!(line("a", true), "\r\nsekisho: a\r\n");
    }

    #[test]
    fn signals_keep_their_names() {
        for name in ["TERM", "USR2", "INT"] {
            assert_eq!(signal_name(&signal(name)), Some(name));
        }
        assert_eq!(signal_name(&signal("EXPLODE")), None);
    }
}
