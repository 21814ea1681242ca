//! The SSH File Transfer Protocol, version 3 (draft-ietf-secsh-filexfer-02), without I/O.
//!
//! [`Mediator`] stands between a client and the server in a workspace and sees to it that files go
//! only the way they may, and that it is known which ones did. [`Fields`] and [`Packet`] read and
//! write single packets, for it and for that server.

mod mediator;
mod packet;

pub use mediator::{Broken, FileEvent, Mediator, Moved, Outcome, Refusals, Right, Rights};
pub use packet::{Fields, Packet, Short, code, kind, open};

/// The version spoken here.
pub const VERSION: u32 = 3;
/// The largest packet, in bytes, its length not counted. OpenSSH has the same.
pub const PACKET_MAX: usize = 256 << 10;
/// The head of a packet that carries content, in bytes: length, type, number of the request and the length
/// of what follows, which is the content of an answer and the handle of a request.
pub const CONTENT_HEAD: usize = 13;
/// The largest packet that carries no content of a file, in bytes.
pub const CONTROL_MAX: usize = 34_000;
/// The longest path, in bytes.
pub const PATH_MAX: usize = 4096;
/// The longest handle, in bytes (section 6.3 of the draft).
pub const HANDLE_MAX: usize = 256;
