//! A server of the SSH File Transfer Protocol, version 3, for one person in their workspace.
//!
//! It runs as the person and can do what they could do by hand: what confines it is the workspace.
//! Which way files may go is the broker's business, which sees every packet. One thing only this
//! side can see: what a name leads to. So unless it was told otherwise it opens nothing below
//! `/data` for reading, whatever links lead there.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, Metadata, OpenOptions, Permissions, ReadDir};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use model::Timestamp;
use nix::errno::Errno;
use wire::sftp::{CONTENT_HEAD, Fields, PACKET_MAX, Packet, Short, VERSION, code, kind, open};

mod content;

use content::{Out, Passage, Wanted, content_head};

/// The largest piece of content in one packet; what OpenSSH's server says too.
const CONTENT_MAX: usize = PACKET_MAX - 1024;
/// Files and directories open at once.
const HANDLES_MAX: usize = 1000;
/// From so much content on the kernel passes it on: what is smaller goes out together with its neighbours.
const PASSED_MIN: usize = 16 << 10;
/// Entries of a directory in one answer.
const ENTRIES: usize = 64;
/// Where datasets are.
const DATA: &str = "/data";

/// Flags of attributes (section 5 of the draft).
const SIZE: u32 = 1;
const OWNER: u32 = 2;
const MODE: u32 = 4;
const TIMES: u32 = 8;

/// Serves on standard input and output until the client is done.
pub fn serve(data: bool) -> io::Result<()> {
    nix::sys::prctl::set_dumpable(false)?;
    let mut input = File::from(crate::launch::take(0)?);
    let output = File::from(crate::launch::take(1)?);
    // The kernel hands pages on to pipes alone.
    let passage = if output.metadata()?.file_type().is_fifo() { Passage::open() } else { None };
    let mut server = Server { data, next: 0, open: BTreeMap::new(), out: Out::default(), output, passage };
    let mut held = vec![0; 2 * (PACKET_MAX + 4)];
    let (mut start, mut end) = (0, 0);
    loop {
        while let Some((packet, used)) = whole(&held[start..end])? {
            server.answer(packet)?;
            start += used;
            if server.out.held().len() >= PACKET_MAX {
                server.out.write_to(&server.output)?;
            }
        }
        server.out.write_to(&server.output)?;
        if held.len() - end < PACKET_MAX + 4 {
            held.copy_within(start..end, 0);
            (start, end) = (0, end - start);
        }
        match input.read(&mut held[end..]) {
            Ok(0) => return Ok(()),
            Ok(read) => end += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The first packet in `held` and how many bytes it takes, if it is there whole.
fn whole(held: &[u8]) -> io::Result<Option<(&[u8], usize)>> {
    let Some(length) = held.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if length == 0 || length > PACKET_MAX {
        return Err(io::Error::other("an sftp packet has an impossible length"));
    }
    Ok(held.get(4..4 + length).map(|packet| (packet, 4 + length)))
}

struct Server {
    data: bool,
    next: u32,
    open: BTreeMap<u32, Handle>,
    out: Out,
    output: File,
    passage: Option<Passage>,
}

enum Handle {
    File { file: Rc<File>, append: bool },
    Folder { path: PathBuf, entries: ReadDir },
}

/// Why a request fails.
enum Failed {
    Io(io::Error),
    Short,
    Handle,
    End,
    Says(u32, &'static str),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Failed {
        Failed::Io(error)
    }
}

impl From<nix::errno::Errno> for Failed {
    fn from(errno: nix::errno::Errno) -> Failed {
        Failed::Io(errno.into())
    }
}

impl From<Short> for Failed {
    fn from(_: Short) -> Failed {
        Failed::Short
    }
}

impl Failed {
    fn status(&self, id: u32) -> Packet {
        let (code, message) = match self {
            Failed::Io(error) => {
                let code = match error.kind() {
                    io::ErrorKind::NotFound => code::NO_SUCH_FILE,
                    io::ErrorKind::PermissionDenied => code::PERMISSION_DENIED,
                    _ => code::FAILURE,
                };
                (code, error.to_string())
            }
            Failed::Short => (code::BAD_MESSAGE, "the packet ends before its fields do".to_owned()),
            Failed::Handle => (code::FAILURE, "no such handle".to_owned()),
            Failed::End => (code::EOF, "the end".to_owned()),
            Failed::Says(code, message) => (*code, (*message).to_owned()),
        };
        Packet::status(id, code, &message)
    }
}

impl Server {
    /// Answers a request. A fault of the output is the end.
    fn answer(&mut self, packet: &[u8]) -> io::Result<()> {
        let mut fields = Fields::new(packet);
        let Ok(kind) = fields.u8() else { return Ok(()) };
        if kind == kind::INIT {
            let mut version = Packet::new(kind::VERSION).u32(VERSION);
            for (name, version_of) in [
                ("posix-rename@openssh.com", "1"),
                ("statvfs@openssh.com", "2"),
                ("fstatvfs@openssh.com", "2"),
                ("hardlink@openssh.com", "1"),
                ("fsync@openssh.com", "1"),
                ("lsetstat@openssh.com", "1"),
                ("limits@openssh.com", "1"),
                ("expand-path@openssh.com", "1"),
            ] {
                version = version.string(name.as_bytes()).string(version_of.as_bytes());
            }
            self.out.push(&version.finish());
            return Ok(());
        }
        let Ok(id) = fields.u32() else { return Ok(()) };
        if kind == kind::READ {
            return match self.wanted(fields) {
                Ok(wanted) => self.give(id, &wanted),
                Err(failed) => {
                    self.out.push(&failed.status(id).finish());
                    Ok(())
                }
            };
        }
        let answer = self.carry_out(kind, id, fields).unwrap_or_else(|failed| failed.status(id));
        self.out.push(&answer.finish());
        Ok(())
    }

    fn carry_out(&mut self, kind: u8, id: u32, mut fields: Fields<'_>) -> Result<Packet, Failed> {
        let done = || Packet::status(id, code::OK, "");
        match kind {
            kind::OPEN => self.open(id, fields),
            kind::CLOSE => {
                let number = number(&mut fields)?;
                self.open.remove(&number).ok_or(Failed::Handle)?;
                Ok(done())
            }
            kind::WRITE => {
                let number = number(&mut fields)?;
                let (offset, content) = (fields.u64()?, fields.string()?);
                match self.open.get(&number) {
                    Some(Handle::File { file, append: false }) => file.write_all_at(content, offset)?,
                    Some(Handle::File { file, append: true }) => (&mut &**file).write_all(content)?,
                    _ => return Err(Failed::Handle),
                }
                Ok(done())
            }
            kind::STAT => Ok(attributes(Packet::answer(kind::ATTRS, id), &fs::metadata(path(&mut fields)?)?)),
            kind::LSTAT => {
                let found = fs::symlink_metadata(path(&mut fields)?)?;
                Ok(attributes(Packet::answer(kind::ATTRS, id), &found))
            }
            kind::FSTAT => {
                let found = match self.open.get(&number(&mut fields)?) {
                    Some(Handle::File { file, .. }) => file.metadata()?,
                    Some(Handle::Folder { path, .. }) => fs::metadata(path)?,
                    None => return Err(Failed::Handle),
                };
                Ok(attributes(Packet::answer(kind::ATTRS, id), &found))
            }
            kind::SETSTAT => {
                let path = path(&mut fields)?;
                Changes::read(&mut fields)?.apply(path, true)?;
                Ok(done())
            }
            kind::FSETSTAT => {
                let Some(Handle::File { file, .. }) = self.open.get(&number(&mut fields)?) else {
                    return Err(Failed::Handle);
                };
                Changes::read(&mut fields)?.apply_to(file)?;
                Ok(done())
            }
            kind::OPENDIR => {
                let path = path(&mut fields)?;
                let folder = Handle::Folder { path: path.to_owned(), entries: fs::read_dir(path)? };
                self.opened(id, folder)
            }
            kind::READDIR => self.list(id, fields),
            kind::REMOVE => Ok(fs::remove_file(path(&mut fields)?).map(|()| done())?),
            kind::MKDIR => {
                let path = path(&mut fields)?;
                fs::create_dir(path)?;
                if let Some(mode) = Changes::read(&mut fields)?.mode {
                    // What the person's mask takes away stays away.
                    let made = fs::metadata(path)?.mode();
                    fs::set_permissions(path, Permissions::from_mode(made & mode))?;
                }
                Ok(done())
            }
            kind::RMDIR => Ok(fs::remove_dir(path(&mut fields)?).map(|()| done())?),
            kind::REALPATH => named(id, &real(path(&mut fields)?)?),
            kind::RENAME => {
                let (from, to) = (path(&mut fields)?, path(&mut fields)?);
                if fs::symlink_metadata(to).is_ok() {
                    return Err(Failed::Says(code::FAILURE, "the new name is taken"));
                }
                Ok(fs::rename(from, to).map(|()| done())?)
            }
            kind::READLINK => named(id, &fs::read_link(path(&mut fields)?)?),
            kind::SYMLINK => {
                // OpenSSH sends them in this order, against the draft, and everybody follows.
                let (target, link) = (path(&mut fields)?, path(&mut fields)?);
                Ok(std::os::unix::fs::symlink(target, link).map(|()| done())?)
            }
            kind::EXTENDED => self.extended(id, fields),
            _ => Err(Failed::Says(code::OP_UNSUPPORTED, "this is not offered here")),
        }
    }

    fn extended(&mut self, id: u32, mut fields: Fields<'_>) -> Result<Packet, Failed> {
        let done = || Packet::status(id, code::OK, "");
        let reply = || Packet::answer(kind::EXTENDED_REPLY, id);
        match fields.string()? {
            b"posix-rename@openssh.com" => {
                let (from, to) = (path(&mut fields)?, path(&mut fields)?);
                Ok(fs::rename(from, to).map(|()| done())?)
            }
            b"hardlink@openssh.com" => {
                let (from, to) = (path(&mut fields)?, path(&mut fields)?);
                Ok(fs::hard_link(from, to).map(|()| done())?)
            }
            b"lsetstat@openssh.com" => {
                let path = path(&mut fields)?;
                Changes::read(&mut fields)?.apply(path, false)?;
                Ok(done())
            }
            b"fsync@openssh.com" => match self.open.get(&number(&mut fields)?) {
                Some(Handle::File { file, .. }) => Ok(file.sync_all().map(|()| done())?),
                _ => Err(Failed::Handle),
            },
            b"limits@openssh.com" => {
                let content = CONTENT_MAX as u64;
                Ok(reply().u64(PACKET_MAX as u64).u64(content).u64(content).u64(HANDLES_MAX as u64))
            }
            b"expand-path@openssh.com" => {
                let asked = path(&mut fields)?;
                let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
                let full = asked.strip_prefix("~").map_or_else(|_| asked.to_owned(), |rest| home.join(rest));
                named(id, &real(&full)?)
            }
            b"statvfs@openssh.com" => {
                Ok(file_system(reply(), &nix::sys::statvfs::statvfs(path(&mut fields)?)?))
            }
            b"fstatvfs@openssh.com" => match self.open.get(&number(&mut fields)?) {
                Some(Handle::File { file, .. }) => {
                    Ok(file_system(reply(), &nix::sys::statvfs::fstatvfs(file)?))
                }
                _ => Err(Failed::Handle),
            },
            _ => Err(Failed::Says(code::OP_UNSUPPORTED, "this is not offered here")),
        }
    }

    fn open(&mut self, id: u32, mut fields: Fields<'_>) -> Result<Packet, Failed> {
        let (path, flags) = (path(&mut fields)?, fields.u32()?);
        let has = |flag| flags & flag != 0;
        let mode = Changes::read(&mut fields)?.mode.unwrap_or(0o666);
        let reads = has(open::READ) || !has(open::WRITE);
        let file = OpenOptions::new()
            .read(reads)
            .write(has(open::WRITE) && !has(open::APPEND))
            .append(has(open::APPEND))
            .create(has(open::CREAT) && !has(open::EXCL))
            .create_new(has(open::CREAT) && has(open::EXCL))
            .truncate(has(open::TRUNC) && !has(open::APPEND))
            .mode(mode & 0o777)
            // A pipe that nobody writes to would hold up everything.
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)?;
        let found = file.metadata()?.file_type();
        if found.is_dir() || found.is_fifo() || found.is_socket() || found.is_block_device() {
            return Err(Failed::Says(code::FAILURE, "this is no file"));
        }
        if reads && !self.data && is_data(&file)? {
            return Err(Failed::Says(code::PERMISSION_DENIED, "files below /data do not leave the enclave"));
        }
        self.opened(id, Handle::File { file: Rc::new(file), append: has(open::APPEND) })
    }

    fn opened(&mut self, id: u32, handle: Handle) -> Result<Packet, Failed> {
        if self.open.len() >= HANDLES_MAX {
            return Err(Failed::Says(code::FAILURE, "too many files are open"));
        }
        while self.open.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.open.insert(number, handle);
        Ok(Packet::answer(kind::HANDLE, id).string(&number.to_be_bytes()))
    }

    /// What a request for content asks for.
    fn wanted(&self, mut fields: Fields<'_>) -> Result<Wanted, Failed> {
        let number = number(&mut fields)?;
        let (offset, length) = (fields.u64()?, (fields.u32()? as usize).min(CONTENT_MAX));
        let Some(Handle::File { file, .. }) = self.open.get(&number) else { return Err(Failed::Handle) };
        Ok(Wanted { file: Rc::clone(file), offset, length })
    }

    /// Answers with content, or why there is none.
    fn give(&mut self, id: u32, wanted: &Wanted) -> io::Result<()> {
        if wanted.length >= PASSED_MIN && self.pass(id, wanted)? {
            return Ok(());
        }
        // The content is read to where it is sent from.
        let (head, content) = self.out.room(CONTENT_HEAD + wanted.length).split_at_mut(CONTENT_HEAD);
        let failed = match wanted.read(content) {
            Ok(0) if wanted.length > 0 => Failed::End,
            Ok(read) => {
                head.copy_from_slice(&content_head(id, read));
                self.out.keep(CONTENT_HEAD + read);
                return Ok(());
            }
            Err(error) => error.into(),
        };
        self.out.push(&failed.status(id).finish());
        Ok(())
    }

    /// Answers with content that the kernel hands from the file to the output, without that it is copied
    /// here. Whether it does.
    fn pass(&mut self, id: u32, wanted: &Wanted) -> io::Result<bool> {
        let Some(passage) = &self.passage else { return Ok(false) };
        let length = match passage.fill(wanted) {
            Ok(0) => {
                self.out.push(&Failed::End.status(id).finish());
                return Ok(true);
            }
            Ok(length) => length,
            // Not every file system can.
            Err(Errno::EINVAL) => return Ok(false),
            Err(errno) => {
                self.out.push(&Failed::from(errno).status(id).finish());
                return Ok(true);
            }
        };
        self.out.push(&content_head(id, length));
        self.out.write_to(&self.output)?;
        passage.empty(length, &self.output)?;
        Ok(true)
    }

    fn list(&mut self, id: u32, mut fields: Fields<'_>) -> Result<Packet, Failed> {
        let Some(Handle::Folder { entries, .. }) = self.open.get_mut(&number(&mut fields)?) else {
            return Err(Failed::Handle);
        };
        let mut names = Vec::new();
        let mut count = 0;
        for entry in entries.by_ref() {
            let entry = entry?;
            let Ok(found) = entry.metadata() else { continue };
            let name = entry.file_name();
            let row = Packet::new(0).string(name.as_bytes()).string(&long_name(name.as_bytes(), &found));
            names.extend_from_slice(&attributes(row, &found).finish()[5..]);
            count += 1;
            if count as usize == ENTRIES {
                break;
            }
        }
        if count == 0 {
            return Err(Failed::End);
        }
        Ok(Packet::answer(kind::NAME, id).u32(count).bytes(&names))
    }
}

/// What a client wants of a file's attributes.
#[derive(Debug, Default)]
struct Changes {
    size: Option<u64>,
    owner: Option<(u32, u32)>,
    mode: Option<u32>,
    times: Option<(u32, u32)>,
}

impl Changes {
    fn read(fields: &mut Fields<'_>) -> Result<Changes, Failed> {
        // Some clients leave empty attributes out.
        if fields.rest().is_empty() {
            return Ok(Changes::default());
        }
        let flags = fields.u32()?;
        let mut changes = Changes::default();
        if flags & SIZE != 0 {
            changes.size = Some(fields.u64()?);
        }
        if flags & OWNER != 0 {
            changes.owner = Some((fields.u32()?, fields.u32()?));
        }
        if flags & MODE != 0 {
            changes.mode = Some(fields.u32()?);
        }
        if flags & TIMES != 0 {
            changes.times = Some((fields.u32()?, fields.u32()?));
        }
        Ok(changes)
    }

    fn apply(&self, path: &Path, follow: bool) -> Result<(), Failed> {
        use nix::sys::stat::{UtimensatFlags, utimensat};
        use nix::sys::time::TimeSpec;
        if let Some(size) = self.size {
            OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path)?.set_len(size)?;
        }
        if let Some(mode) = self.mode
            && follow
        {
            fs::set_permissions(path, Permissions::from_mode(mode & 0o7777))?;
        }
        if let Some((read, changed)) = self.times {
            let flag = if follow { UtimensatFlags::FollowSymlink } else { UtimensatFlags::NoFollowSymlink };
            let at = |secs: u32| TimeSpec::new(secs.into(), 0);
            utimensat(nix::fcntl::AT_FDCWD, path, &at(read), &at(changed), flag)?;
        }
        if let Some((user, group)) = self.owner {
            let chown = if follow { std::os::unix::fs::chown } else { std::os::unix::fs::lchown };
            chown(path, Some(user), Some(group))?;
        }
        Ok(())
    }

    fn apply_to(&self, file: &File) -> Result<(), Failed> {
        if let Some(size) = self.size {
            file.set_len(size)?;
        }
        if let Some(mode) = self.mode {
            file.set_permissions(Permissions::from_mode(mode & 0o7777))?;
        }
        if let Some((read, changed)) = self.times {
            let at = |secs: u32| SystemTime::UNIX_EPOCH + Duration::from_secs(secs.into());
            file.set_times(FileTimes::new().set_accessed(at(read)).set_modified(at(changed)))?;
        }
        if let Some((user, group)) = self.owner {
            std::os::unix::fs::fchown(file, Some(user), Some(group))?;
        }
        Ok(())
    }
}

fn path<'a>(fields: &mut Fields<'a>) -> Result<&'a Path, Failed> {
    let bytes = fields.string()?;
    // An empty path is where the session begins.
    Ok(Path::new(if bytes.is_empty() { OsStr::new(".") } else { OsStr::from_bytes(bytes) }))
}

fn number(fields: &mut Fields<'_>) -> Result<u32, Failed> {
    let bytes = fields.string()?.try_into().map_err(|_| Failed::Handle)?;
    Ok(u32::from_be_bytes(bytes))
}

/// Whether an open file lies below [`DATA`], by whatever name it was opened.
fn is_data(file: &File) -> io::Result<bool> {
    Ok(fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?.starts_with(DATA))
}

/// A path without links and dots; its last part need not exist.
fn real(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Ok(real) => Ok(real),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let last = path.components().next_back();
            match (fs::canonicalize(parent), last) {
                (Ok(parent), Some(Component::Normal(name))) => Ok(parent.join(name)),
                _ => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

/// The answer that is one name, with attributes that say nothing.
fn named(id: u32, path: &Path) -> Result<Packet, Failed> {
    let name = path.as_os_str().as_bytes();
    Ok(Packet::answer(kind::NAME, id).u32(1).string(name).string(name).u32(0))
}

fn attributes(packet: Packet, found: &Metadata) -> Packet {
    let secs = |at: i64| u32::try_from(at).unwrap_or(0);
    packet
        .u32(SIZE | OWNER | MODE | TIMES)
        .u64(found.size())
        .u32(found.uid())
        .u32(found.gid())
        .u32(found.mode())
        .u32(secs(found.atime()))
        .u32(secs(found.mtime()))
}

/// A line as of `ls -l`, which clients show as it is.
fn long_name(name: &[u8], found: &Metadata) -> Vec<u8> {
    let kind = match found.file_type() {
        t if t.is_dir() => 'd',
        t if t.is_symlink() => 'l',
        t if t.is_fifo() => 'p',
        t if t.is_socket() => 's',
        t if t.is_block_device() => 'b',
        t if t.is_char_device() => 'c',
        _ => '-',
    };
    let bits: String =
        (0..9).map(|i| if found.mode() & (0o400 >> i) != 0 { ['r', 'w', 'x'][i % 3] } else { '-' }).collect();
    let when = Timestamp::from_secs(found.mtime()).to_string();
    let when = when.get(..16).unwrap_or(&when).replace('T', " ");
    let (links, user, group, size) = (found.nlink(), found.uid(), found.gid(), found.size());
    let mut line = format!("{kind}{bits} {links:>4} {user:<8} {group:<8} {size:>12} {when} ").into_bytes();
    line.extend_from_slice(name);
    line
}

fn file_system(packet: Packet, found: &nix::sys::statvfs::Statvfs) -> Packet {
    packet
        .u64(found.block_size())
        .u64(found.fragment_size())
        .u64(found.blocks())
        .u64(found.blocks_free())
        .u64(found.blocks_available())
        .u64(found.files())
        .u64(found.files_free())
        .u64(found.files_available())
        .u64(found.filesystem_id())
        .u64(0)
        .u64(found.name_max())
}
