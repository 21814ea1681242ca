//! What the agent and a workspace's PID 1 say to each other.
//!
//! They share one `SOCK_SEQPACKET` pair that the agent makes before the workspace starts: no name
//! in any file system leads to it, so nothing else in the workspace can reach it, and its end is
//! the end of the workspace. A packet is one `postcard` message; descriptors ride along.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The descriptor on which PID 1 finds its end of the pair: standard input, which an OCI runtime
/// hands on as it is.
pub const SOCKET_FD: RawFd = 0;
/// The most bytes a packet has. A packet is never cut: a longer one is refused by its sender.
pub const PACKET_MAX: usize = 128 * 1024;
/// The most descriptors that ride on a packet.
const DESCRIPTORS_MAX: usize = 3;
/// The first of the groups that mark the processes of sessions, and the end of them. A session has
/// the one of its number, [`mark_of`].
pub const FIRST_MARK: u32 = 40_000;
/// See [`FIRST_MARK`].
pub const MARKS_END: u32 = 50_000;
/// Where the container finds its PID 1.
pub const INIT: &str = "/.sekisho/init";
/// The host user and group that the workspace's root is.
pub const FIRST_HOST_ID: u32 = 200_000;
/// The user every session runs as, inside the workspace's user namespace.
pub const USER_ID: u32 = 1000;

/// The group that marks the processes of a session: no two that run at once have the same.
pub fn mark_of(session: u64) -> u32 {
    FIRST_MARK + (session % u64::from(MARKS_END - FIRST_MARK)) as u32
}

/// Agent → PID 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Start a session. Without a terminal three descriptors come along: standard input to read
    /// from, standard output and standard error to write to.
    Start(Start),
    /// Deliver a signal to the session's foreground process group, or else its leader's group.
    Signal {
        /// The session.
        id: u64,
        /// The number of the signal.
        signal: i32,
    },
    /// End every process of a session, also one that has ended and left some.
    Kill {
        /// The session.
        id: u64,
    },
    /// Hang a session up: what ignores that goes on.
    Leave {
        /// The session.
        id: u64,
    },
}

/// A session to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Chosen by the agent, never used twice in a workspace.
    pub id: u64,
    /// What runs.
    pub program: Program,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Where it starts.
    pub home: String,
    /// The terminal, if there is to be one.
    pub terminal: Option<Terminal>,
}

/// What runs in a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// A login shell.
    Shell,
    /// A command line for the shell.
    Command(Vec<u8>),
    /// This program again, as a server of files.
    Files {
        /// Whether files below `/data` may be read.
        data: bool,
    },
    /// This program again, as the near end of a connection to a port on loopback. It says on its
    /// standard error first how that went: [`CONNECTED`], or a sentence.
    Connect {
        /// The port.
        port: u16,
    },
}

/// What a [`Program::Connect`] that is connected says.
pub const CONNECTED: &str = "connected";

/// A terminal to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// Height in rows.
    pub rows: u16,
    /// Width in characters.
    pub cols: u16,
    /// Width in pixels.
    pub width_px: u16,
    /// Height in pixels.
    pub height_px: u16,
    /// Modes as opcode and argument (RFC 4254, section 8).
    pub modes: Vec<(u8, u32)>,
}

/// PID 1 → agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// Once, first: sessions can be started.
    Ready,
    /// The session runs. With a terminal, its master comes along.
    Started {
        /// The session.
        id: u64,
        /// Its leader, as numbered in the workspace.
        pid: i32,
    },
    /// The session could not be started.
    Failed {
        /// The session.
        id: u64,
        /// Why.
        reason: String,
    },
    /// The leader ended. If the session was killed, no process of it is left; if not, those are that
    /// were made to outlive it.
    Ended {
        /// The session.
        id: u64,
        /// How the leader ended.
        end: End,
    },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// With this status.
    Code(u8),
    /// By a signal.
    Signal {
        /// Its number.
        number: i32,
        /// Whether a core was dumped.
        core: bool,
    },
}

/// Sends one packet. On a non-blocking socket it may say [`io::ErrorKind::WouldBlock`], and then
/// nothing was sent.
pub fn send(socket: BorrowedFd<'_>, message: &impl Serialize, with: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = postcard::to_stdvec(message).map_err(io::Error::other)?;
    if bytes.len() > PACKET_MAX || with.len() > DESCRIPTORS_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the packet is too long"));
    }
    let raw: Vec<RawFd> = with.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    loop {
        match sendmsg::<()>(
            socket.as_raw_fd(),
            &[IoSlice::new(&bytes)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        ) {
            Ok(_) => return Ok(()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Receives one packet and what came along, or `None` when the other side is gone.
pub fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; PACKET_MAX];
    let mut control = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
    let (length, flags, descriptors) = loop {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let got =
            recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC);
        match got {
            Ok(message) => {
                let mut descriptors = Vec::new();
                for part in message.cmsgs()? {
                    if let ControlMessageOwned::ScmRights(raw) = part {
                        // SAFETY: the kernel has just made these descriptors for this process, and
                        // nothing else knows their numbers.
                        descriptors.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                    }
                }
                break (message.bytes, message.flags, descriptors);
            }
            Err(nix::errno::Errno::EINTR) => {}
            Err(nix::errno::Errno::ECONNRESET) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
    };
    if length == 0 {
        return Ok(None);
    }
    if flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a packet came cut off"));
    }
    Ok(Some((parse(&bytes[..length])?, descriptors)))
}

/// Reads the message of a packet.
pub fn parse<T: DeserializeOwned>(packet: &[u8]) -> io::Result<T> {
    match postcard::take_from_bytes(packet) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "bytes follow the message")),
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
    }

    #[test]
    fn a_packet_brings_its_message_and_its_descriptors() {
        let (here, there) = pair();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let notice = Notice::Started { id: 7, pid: 42 };
        send(here.as_fd(), &notice, &[writer.as_fd()]).unwrap();
        drop(writer);
        let (got, mut with) = receive::<Notice>(there.as_fd()).unwrap().unwrap();
        assert_eq!(got, notice);
        let mut file = std::fs::File::from(with.pop().unwrap());
        file.write_all(b"through").unwrap();
        drop(file);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }

    #[test]
    fn the_end_of_one_side_is_seen_by_the_other() {
        let (here, there) = pair();
        drop(here);
        assert!(receive::<Order>(there.as_fd()).unwrap().is_none());
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        assert!(parse::<Order>(&[9, 9, 9]).is_err());
        let mut bytes = postcard::to_stdvec(&Order::Kill { id: 1 }).unwrap();
        bytes.push(0);
        assert!(parse::<Order>(&bytes).is_err(), "trailing bytes");
        let (here, _there) = pair();
        let long = Order::Start(Start {
            id: 1,
            program: Program::Command(vec![b'x'; PACKET_MAX]),
            env: Vec::new(),
            home: "/".into(),
            terminal: None,
        });
        assert!(send(here.as_fd(), &long, &[]).is_err());
    }
}
