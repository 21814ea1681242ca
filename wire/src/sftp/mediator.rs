//! Threats: a client that opens what it may not read, reads through a handle it opened for writing,
//! sends packets that never end, or asks without taking answers. It is answered in the server's
//! place, and what it sends is bounded. Not defended here: symbolic links, which only the server in
//! the workspace can follow (it looks at what it has opened); and names, sizes and dates of files,
//! which whoever may use `sftp` at all may see.

use std::collections::{HashMap, VecDeque};

use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};

use super::packet::{Fields, Packet, Short, code, kind, open};
use super::{CONTENT_HEAD, CONTROL_MAX, HANDLE_MAX, PACKET_MAX, PATH_MAX};

/// Requests without an answer from which on the client is made to wait.
const OUTSTANDING: usize = 1024;
/// Files open at once.
const OPEN_FILES: usize = 1024;

/// Which way files may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rights {
    /// Into the workspace; with it, changes of what is there.
    pub upload: bool,
    /// Out of it.
    pub export: bool,
    /// Out of it, from below `/data`.
    pub export_data: bool,
}

/// One of [`Rights`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields of `Rights`")]
pub enum Right {
    Upload,
    Export,
    ExportData,
}

/// What a client is told that lacks a right.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "the fields of `Rights`")]
pub struct Refusals {
    pub upload: String,
    pub export: String,
    pub export_data: String,
}

/// Something that security staff want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileEvent {
    /// A file was closed, or will never be.
    Moved(Moved),
    /// A request was refused for want of a right.
    Refused {
        /// The right.
        right: Right,
        /// The path, as the client named it.
        path: String,
    },
}

/// What passed between an opening and its close.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// As the client named it.
    pub path: String,
    /// Bytes into the workspace; none if it was not opened for that.
    pub up: Option<u64>,
    /// Bytes out of it; none if it was not opened for that.
    pub down: Option<u64>,
    /// SHA-256 of what passed, if it went one way, from the beginning, and in order.
    pub sha256: Option<[u8; 32]>,
    /// How it ended.
    pub outcome: Outcome,
}

/// How the transfer of a file ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was closed, and nothing had failed.
    Completed,
    /// A read or a write failed, or the close.
    Failed,
    /// The session ended first.
    Aborted,
}

/// The stream is not SFTP any more, and the session is to be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Longer than any packet, or empty.
    #[error("an sftp packet has an impossible length ({0} bytes)")]
    Length(usize),
    /// Its fields do not fit into it.
    #[error(transparent)]
    Short(#[from] Short),
    /// Something else than `INIT` came first, or `INIT` came again.
    #[error("the sftp session did not begin as it must")]
    Beginning,
    /// A number of a request was used again before its answer came.
    #[error("request {0} was numbered like one that is not answered yet")]
    Reused(u32),
    /// The server answered what nobody asked.
    #[error("an answer came to request {0}, which nobody sent")]
    Unasked(u32),
}

/// Between a client and a server.
#[derive(Debug)]
pub struct Mediator {
    rights: Rights,
    refusals: Refusals,
    home: String,
    asking: Half,
    answering: Half,
    begun: bool,
    pending: HashMap<u32, Pending>,
    files: HashMap<Bytes, Box<File>>,
    /// Answers of our own, until the server's last one is through.
    ours: VecDeque<Bytes>,
    to_server: VecDeque<Bytes>,
    to_client: VecDeque<Bytes>,
    events: VecDeque<FileEvent>,
}

/// How far the current packet of one direction is.
#[derive(Debug, Default)]
struct Half {
    head: BytesMut,
    /// Bytes of the packet that are still to come and go where `to` says.
    left: usize,
    to: Option<Passing>,
    /// Where in its file the next of them stands.
    offset: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Passing {
    /// On, and nothing else.
    On,
    /// On, as content of this file.
    Content(Bytes),
    /// Away.
    Drop,
}

#[derive(Debug)]
enum Pending {
    Open(Box<File>),
    Close(Bytes),
    Read { handle: Bytes, offset: u64 },
    Write(Bytes),
    Other,
}

#[derive(Debug)]
struct File {
    path: String,
    up: Option<Flow>,
    down: Option<Flow>,
    failed: bool,
}

#[derive(Debug)]
struct Flow {
    digest: Sha256,
    next: u64,
    ordered: bool,
    bytes: u64,
}

impl Flow {
    fn new() -> Flow {
        Flow { digest: Sha256::new(), next: 0, ordered: true, bytes: 0 }
    }

    fn take(&mut self, offset: u64, data: &[u8]) {
        self.bytes = self.bytes.saturating_add(data.len() as u64);
        self.ordered &= offset == self.next;
        if self.ordered {
            self.digest.update(data);
            self.next = self.next.saturating_add(data.len() as u64);
        }
    }

    fn sha256(self) -> Option<[u8; 32]> {
        self.ordered.then(|| self.digest.finalize().into())
    }
}

impl File {
    fn moved(self, outcome: Outcome) -> Moved {
        let (up, down) = (self.up.as_ref().map(|f| f.bytes), self.down.as_ref().map(|f| f.bytes));
        let outcome = if self.failed && outcome == Outcome::Completed { Outcome::Failed } else { outcome };
        let sha256 = match (self.up, self.down) {
            _ if outcome != Outcome::Completed => None,
            (Some(flow), None) | (None, Some(flow)) => flow.sha256(),
            (Some(up), Some(down)) if down.bytes == 0 => up.sha256(),
            (Some(up), Some(down)) if up.bytes == 0 => down.sha256(),
            _ => None,
        };
        Moved { path: self.path, up, down, sha256, outcome }
    }
}

impl Mediator {
    /// A mediator for a session with these rights, which begins in `home`.
    pub fn new(rights: Rights, refusals: Refusals, home: impl Into<String>) -> Mediator {
        Mediator {
            rights,
            refusals,
            home: home.into(),
            asking: Half::default(),
            answering: Half::default(),
            begun: false,
            pending: HashMap::new(),
            files: HashMap::new(),
            ours: VecDeque::new(),
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Whether more of what the client sends may be put in. While it says no, answers must pass.
    pub fn takes(&self) -> bool {
        self.pending.len() + self.ours.len() + self.to_client.len() < OUTSTANDING
    }

    /// Puts in what the client sent. What may pass does so in pieces as large as they came.
    pub fn client(&mut self, data: Bytes) -> Result<(), Broken> {
        let mut run = Run::default();
        let mut at = 0;
        while at < data.len() {
            if self.asking.left > 0 {
                let piece = self.asking.take(&data[at..]);
                self.asked(&data[at..at + piece]);
                if self.asking.to == Some(Passing::Drop) {
                    run.end(&data, at, &mut self.to_server);
                } else {
                    run.begin(at);
                }
                at += piece;
                continue;
            }
            let whole = self.asking.head.is_empty();
            let (taken, length) = self.asking.gather(&data[at..], request_head)?;
            let Some(length) = length else {
                // Kept until it can be judged.
                run.end(&data, at, &mut self.to_server);
                return Ok(());
            };
            let head = self.asking.head.split().freeze();
            let passes = self.request(&head, length)?;
            if passes && whole {
                run.begin(at);
            } else {
                run.end(&data, at, &mut self.to_server);
            }
            if passes && !whole {
                self.to_server.push_back(head);
            }
            at += taken;
        }
        run.end(&data, at, &mut self.to_server);
        Ok(())
    }

    /// Puts in what the server answered. All of it passes; answers of our own go between.
    pub fn server(&mut self, data: Bytes) -> Result<(), Broken> {
        let mut run = Run::default();
        let mut at = 0;
        while at < data.len() {
            if self.answering.between() && !self.ours.is_empty() {
                run.end(&data, at, &mut self.to_client);
                self.flush();
            }
            run.begin(at);
            if self.answering.left > 0 {
                let piece = self.answering.take(&data[at..]);
                self.answered_content(&data[at..at + piece]);
                at += piece;
            } else {
                let (taken, length) = self.answering.gather(&data[at..], answer_head)?;
                at += taken;
                if let Some(length) = length {
                    self.answered(length)?;
                }
            }
        }
        run.end(&data, at, &mut self.to_client);
        self.flush();
        Ok(())
    }

    /// The next piece for the server.
    pub fn next_for_server(&mut self) -> Option<Bytes> {
        self.to_server.pop_front()
    }

    /// The next piece for the client.
    pub fn next_for_client(&mut self) -> Option<Bytes> {
        self.to_client.pop_front()
    }

    /// The next thing to be recorded. What was refused is told before the client's answer is out; a
    /// transfer, before the answer to its close is.
    pub fn next_event(&mut self) -> Option<FileEvent> {
        self.events.pop_front()
    }

    /// The session is over: what was open is told as well.
    pub fn end(&mut self) {
        let mut open: Vec<Box<File>> = self.files.drain().map(|(_, file)| file).collect();
        open.sort_by(|a, b| a.path.cmp(&b.path));
        self.events.extend(open.into_iter().map(|file| FileEvent::Moved(file.moved(Outcome::Aborted))));
    }

    fn asked(&mut self, content: &[u8]) {
        if let Some(Passing::Content(handle)) = &self.asking.to
            && let Some(flow) = self.files.get_mut(handle).and_then(|file| file.up.as_mut())
        {
            flow.take(self.asking.offset, content);
            self.asking.offset = self.asking.offset.saturating_add(content.len() as u64);
        }
    }

    fn answered_content(&mut self, content: &[u8]) {
        if let Some(Passing::Content(handle)) = &self.answering.to
            && let Some(flow) = self.files.get_mut(handle).and_then(|file| file.down.as_mut())
        {
            flow.take(self.answering.offset, content);
            self.answering.offset = self.answering.offset.saturating_add(content.len() as u64);
        }
    }

    /// The head of a request is there, or all of it: whether it passes.
    fn request(&mut self, head: &Bytes, length: usize) -> Result<bool, Broken> {
        let left = length + 4 - head.len();
        let mut fields = Fields::new(&head[4..]);
        let kind = fields.u8()?;
        if (kind == kind::INIT) == self.begun {
            return Err(Broken::Beginning);
        }
        if kind == kind::INIT {
            self.begun = true;
            return Ok(true);
        }
        let id = fields.u32()?;
        if self.pending.contains_key(&id) {
            return Err(Broken::Reused(id));
        }
        self.asking.left = left;
        match self.judge(kind, head, fields)? {
            Verdict::Pass(pending) => {
                if let Pending::Write(handle) = &pending {
                    let mut fields = Fields::new(&head[9 + 4 + handle.len()..]);
                    self.asking.offset = fields.u64()?;
                    if usize::try_from(fields.u32()?) != Ok(left) {
                        return Err(Short.into());
                    }
                    self.asking.to = Some(Passing::Content(handle.clone()));
                }
                self.pending.insert(id, pending);
                Ok(true)
            }
            Verdict::Answer(code, message) => {
                self.asking.to = Some(Passing::Drop);
                self.ours.push_back(Packet::status(id, code, &message).finish());
                self.flush();
                Ok(false)
            }
        }
    }

    fn judge(&mut self, kind: u8, head: &Bytes, mut fields: Fields<'_>) -> Result<Verdict, Broken> {
        let handle = |mut fields: Fields<'_>| fields.string().map(|h| head.slice_ref(h));
        Ok(match kind {
            kind::OPEN => {
                let path = fields.string()?;
                self.judge_open(path, fields.u32()?)
            }
            kind::CLOSE => Verdict::Pass(Pending::Close(handle(fields)?)),
            kind::READ => {
                let handle = handle(fields)?;
                let mut rest = Fields::new(&head[9 + 4 + handle.len()..]);
                let offset = rest.u64()?;
                match self.files.get(&handle) {
                    Some(file) if file.down.is_some() => Verdict::Pass(Pending::Read { handle, offset }),
                    _ => Verdict::failure("this handle is not open for reading"),
                }
            }
            kind::WRITE => {
                let handle = handle(fields)?;
                match self.files.get(&handle) {
                    Some(file) if file.up.is_some() => Verdict::Pass(Pending::Write(handle)),
                    _ => Verdict::failure("this handle is not open for writing"),
                }
            }
            kind::LSTAT
            | kind::FSTAT
            | kind::OPENDIR
            | kind::READDIR
            | kind::REALPATH
            | kind::STAT
            | kind::READLINK => Verdict::Pass(Pending::Other),
            kind::SETSTAT
            | kind::FSETSTAT
            | kind::REMOVE
            | kind::MKDIR
            | kind::RMDIR
            | kind::RENAME
            | kind::SYMLINK => self.judge_change(fields.string()?),
            kind::EXTENDED => match fields.string()? {
                b"posix-rename@openssh.com" | b"hardlink@openssh.com" | b"lsetstat@openssh.com" => {
                    self.judge_change(fields.string()?)
                }
                b"fsync@openssh.com"
                | b"limits@openssh.com"
                | b"expand-path@openssh.com"
                | b"statvfs@openssh.com"
                | b"fstatvfs@openssh.com" => Verdict::Pass(Pending::Other),
                _ => Verdict::Answer(code::OP_UNSUPPORTED, "this is not offered here".to_owned()),
            },
            _ => Verdict::Answer(code::OP_UNSUPPORTED, "this is not offered here".to_owned()),
        })
    }

    fn judge_open(&mut self, path: &[u8], flags: u32) -> Verdict {
        if path.len() > PATH_MAX {
            return Verdict::failure("the path is too long");
        }
        let reads = flags & open::READ != 0;
        let writes = flags & (open::WRITE | open::APPEND | open::CREAT | open::TRUNC) != 0;
        if writes && !self.rights.upload {
            return self.refuse(Right::Upload, path);
        }
        // An opening that says neither opens for reading in some servers.
        if (reads || !writes) && !self.rights.export {
            return self.refuse(Right::Export, path);
        }
        if (reads || !writes) && !self.rights.export_data && is_data(path, &self.home) {
            return self.refuse(Right::ExportData, path);
        }
        let opening = self.pending.values().filter(|pending| matches!(pending, Pending::Open(_))).count();
        if self.files.len() + opening >= OPEN_FILES {
            return Verdict::failure("too many files are open");
        }
        Verdict::Pass(Pending::Open(Box::new(File {
            path: shown(path),
            up: writes.then(Flow::new),
            down: (reads || !writes).then(Flow::new),
            failed: false,
        })))
    }

    fn judge_change(&mut self, path: &[u8]) -> Verdict {
        if self.rights.upload { Verdict::Pass(Pending::Other) } else { self.refuse(Right::Upload, path) }
    }

    fn refuse(&mut self, right: Right, path: &[u8]) -> Verdict {
        self.events.push_back(FileEvent::Refused { right, path: shown(path) });
        let message = match right {
            Right::Upload => &self.refusals.upload,
            Right::Export => &self.refusals.export,
            Right::ExportData => &self.refusals.export_data,
        };
        Verdict::Answer(code::PERMISSION_DENIED, message.clone())
    }

    /// The head of an answer is there, or all of it.
    fn answered(&mut self, length: usize) -> Result<(), Broken> {
        let head = self.answering.head.split().freeze();
        self.answering.left = length + 4 - head.len();
        self.answering.to = Some(Passing::On);
        let mut fields = Fields::new(&head[4..]);
        let kind = fields.u8()?;
        if kind == kind::VERSION {
            return Ok(());
        }
        let id = fields.u32()?;
        let pending = self.pending.remove(&id).ok_or(Broken::Unasked(id))?;
        match (kind, pending) {
            (kind::HANDLE, Pending::Open(file)) => {
                let handle = fields.string()?;
                if handle.len() > HANDLE_MAX {
                    return Err(Broken::Length(handle.len()));
                }
                self.files.insert(Bytes::copy_from_slice(handle), file);
            }
            (kind::DATA, Pending::Read { handle, offset }) => {
                self.answering.offset = offset;
                self.answering.to = Some(Passing::Content(handle));
            }
            (kind::STATUS, Pending::Close(handle)) => {
                let outcome = if fields.u32()? == code::OK { Outcome::Completed } else { Outcome::Failed };
                if let Some(file) = self.files.remove(&handle) {
                    self.events.push_back(FileEvent::Moved(file.moved(outcome)));
                }
            }
            (kind::STATUS, Pending::Write(handle) | Pending::Read { handle, .. }) => {
                let ended = fields.u32()?;
                if ended != code::OK
                    && ended != code::EOF
                    && let Some(file) = self.files.get_mut(&handle)
                {
                    file.failed = true;
                }
            }
            (kind::DATA, _) => return Err(Broken::Unasked(id)),
            _ => {}
        }
        Ok(())
    }

    /// Our own answers go out between two of the server's.
    fn flush(&mut self) {
        if self.answering.between() {
            self.to_client.append(&mut self.ours);
        }
    }
}

enum Verdict {
    Pass(Pending),
    Answer(u32, String),
}

impl Verdict {
    fn failure(message: &str) -> Verdict {
        Verdict::Answer(code::FAILURE, message.to_owned())
    }
}

impl Half {
    /// Whether the last packet is through and the next has not begun.
    fn between(&self) -> bool {
        self.left == 0 && self.head.is_empty()
    }

    /// Takes bytes until the head of a packet is complete: how many, and then the packet's length.
    fn gather(
        &mut self,
        data: &[u8],
        head: impl Fn(&[u8], usize) -> Result<usize, Broken>,
    ) -> Result<(usize, Option<usize>), Broken> {
        let mut taken = 0;
        loop {
            let (length, needed) = match self.head.first_chunk::<4>() {
                Some(length) => {
                    let length = u32::from_be_bytes(*length) as usize;
                    if length == 0 || length > PACKET_MAX {
                        return Err(Broken::Length(length));
                    }
                    (length, if self.head.len() < 5 { 5 } else { head(&self.head, length)? })
                }
                None => (0, 4),
            };
            if self.head.len() >= 5 && self.head.len() == needed {
                return Ok((taken, Some(length)));
            }
            if taken == data.len() {
                return Ok((taken, None));
            }
            let more = (data.len() - taken).min(needed - self.head.len());
            self.head.extend_from_slice(&data[taken..taken + more]);
            taken += more;
        }
    }

    /// How many of these bytes belong to the current packet; they are behind it now.
    fn take(&mut self, data: &[u8]) -> usize {
        let piece = data.len().min(self.left);
        self.left -= piece;
        piece
    }
}

/// A part of a chunk that passes as it is.
#[derive(Debug, Default)]
struct Run(Option<usize>);

impl Run {
    fn begin(&mut self, at: usize) {
        self.0.get_or_insert(at);
    }

    fn end(&mut self, chunk: &Bytes, at: usize, to: &mut VecDeque<Bytes>) {
        if let Some(start) = self.0.take()
            && start < at
        {
            to.push_back(chunk.slice(start..at));
        }
    }
}

/// How many bytes of a request are needed before it is judged: all of it, but for content.
fn request_head(head: &[u8], length: usize) -> Result<usize, Broken> {
    if head.get(4) != Some(&kind::WRITE) {
        return if length > CONTROL_MAX { Err(Broken::Length(length)) } else { Ok(length + 4) };
    }
    if head.len() < CONTENT_HEAD {
        return within(CONTENT_HEAD, length);
    }
    let handle = Fields::new(&head[9..]).u32()? as usize;
    if handle > HANDLE_MAX {
        return Err(Broken::Length(handle));
    }
    within(CONTENT_HEAD + handle + 12, length)
}

/// The same of an answer: lists of names and attributes are not looked into.
fn answer_head(head: &[u8], length: usize) -> Result<usize, Broken> {
    match head.get(4) {
        Some(&(kind::DATA | kind::STATUS)) => within(CONTENT_HEAD, length),
        Some(&(kind::NAME | kind::ATTRS | kind::EXTENDED_REPLY)) => within(9, length),
        _ if length > CONTROL_MAX => Err(Broken::Length(length)),
        _ => Ok(length + 4),
    }
}

fn within(needed: usize, length: usize) -> Result<usize, Broken> {
    if needed > length + 4 { Err(Short.into()) } else { Ok(needed) }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(&path[..path.len().min(PATH_MAX)]).into_owned()
}

/// Whether a path names something below `/data`, as far as its text says.
fn is_data(path: &[u8], home: &str) -> bool {
    let mut parts: Vec<&[u8]> = Vec::new();
    let start: &[u8] = if path.first() == Some(&b'/') { b"" } else { home.as_bytes() };
    for part in start.split(|c| *c == b'/').chain(path.split(|c| *c == b'/')) {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.first() == Some(&&b"data"[..])
}

#[cfg(test)]
#[path = "mediator_tests.rs"]
mod tests;
