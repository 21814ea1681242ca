use bytes::{BufMut, Bytes, BytesMut};

/// Types of packets (section 3 of the draft).
#[allow(missing_docs, reason = "the names are the draft's")]
pub mod kind {
    pub const INIT: u8 = 1;
    pub const VERSION: u8 = 2;
    pub const OPEN: u8 = 3;
    pub const CLOSE: u8 = 4;
    pub const READ: u8 = 5;
    pub const WRITE: u8 = 6;
    pub const LSTAT: u8 = 7;
    pub const FSTAT: u8 = 8;
    pub const SETSTAT: u8 = 9;
    pub const FSETSTAT: u8 = 10;
    pub const OPENDIR: u8 = 11;
    pub const READDIR: u8 = 12;
    pub const REMOVE: u8 = 13;
    pub const MKDIR: u8 = 14;
    pub const RMDIR: u8 = 15;
    pub const REALPATH: u8 = 16;
    pub const STAT: u8 = 17;
    pub const RENAME: u8 = 18;
    pub const READLINK: u8 = 19;
    pub const SYMLINK: u8 = 20;
    pub const STATUS: u8 = 101;
    pub const HANDLE: u8 = 102;
    pub const DATA: u8 = 103;
    pub const NAME: u8 = 104;
    pub const ATTRS: u8 = 105;
    pub const EXTENDED: u8 = 200;
    pub const EXTENDED_REPLY: u8 = 201;
}

/// Status codes (section 7 of the draft).
#[allow(missing_docs, reason = "the names are the draft's")]
pub mod code {
    pub const OK: u32 = 0;
    pub const EOF: u32 = 1;
    pub const NO_SUCH_FILE: u32 = 2;
    pub const PERMISSION_DENIED: u32 = 3;
    pub const FAILURE: u32 = 4;
    pub const BAD_MESSAGE: u32 = 5;
    pub const OP_UNSUPPORTED: u32 = 8;
}

/// How a file is opened (section 6.3 of the draft).
#[allow(missing_docs, reason = "the names are the draft's")]
pub mod open {
    pub const READ: u32 = 0x01;
    pub const WRITE: u32 = 0x02;
    pub const APPEND: u32 = 0x04;
    pub const CREAT: u32 = 0x08;
    pub const TRUNC: u32 = 0x10;
    pub const EXCL: u32 = 0x20;
}

/// A packet ends before its fields do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an sftp packet ends before its fields do")]
pub struct Short;

/// Reads the fields of a packet, one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The fields in `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Fields<'a> {
        Fields(bytes)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Short> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Short)?;
        self.0 = rest;
        Ok(taken)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Short> {
        Ok(self.take(1)?[0])
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, Short> {
        let bytes = self.take(4)?.try_into().map_err(|_| Short)?;
        Ok(u32::from_be_bytes(bytes))
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, Short> {
        let bytes = self.take(8)?.try_into().map_err(|_| Short)?;
        Ok(u64::from_be_bytes(bytes))
    }

    /// A string: its length, and so many bytes.
    pub fn string(&mut self) -> Result<&'a [u8], Short> {
        let len = self.u32()?;
        self.take(usize::try_from(len).map_err(|_| Short)?)
    }

    /// What is left.
    pub const fn rest(&self) -> &'a [u8] {
        self.0
    }
}

/// A packet that is being written.
#[derive(Debug)]
pub struct Packet(BytesMut);

impl Packet {
    /// An empty packet of this type.
    pub fn new(kind: u8) -> Packet {
        let mut bytes = BytesMut::with_capacity(64);
        bytes.put_u32(0);
        bytes.put_u8(kind);
        Packet(bytes)
    }

    /// A packet of this type that answers request `id`.
    pub fn answer(kind: u8, id: u32) -> Packet {
        Packet::new(kind).u32(id)
    }

    /// The answer that says how a request went.
    pub fn status(id: u32, code: u32, message: &str) -> Packet {
        Packet::answer(kind::STATUS, id).u32(code).string(message.as_bytes()).string(b"en")
    }

    /// Appends four bytes.
    #[must_use]
    pub fn u32(mut self, value: u32) -> Packet {
        self.0.put_u32(value);
        self
    }

    /// Appends eight bytes.
    #[must_use]
    pub fn u64(mut self, value: u64) -> Packet {
        self.0.put_u64(value);
        self
    }

    /// Appends a string.
    #[must_use]
    pub fn string(mut self, value: &[u8]) -> Packet {
        // Nothing here is longer than a packet, which is far shorter than the length can say.
        self.0.put_u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(value);
        self
    }

    /// Appends bytes as they are.
    #[must_use]
    pub fn bytes(mut self, value: &[u8]) -> Packet {
        self.0.extend_from_slice(value);
        self
    }

    /// The whole packet, with its length in front.
    pub fn finish(mut self) -> Bytes {
        let len = u32::try_from(self.0.len() - 4).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&len.to_be_bytes());
        self.0.freeze()
    }
}
