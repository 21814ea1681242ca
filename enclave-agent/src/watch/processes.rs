//! What can be seen of a process from outside: its memory, and what `/proc` says.
//!
//! All of it is the process's own to change at any moment: it is what was seen, not what is so.

use std::ffi::CString;
use std::fs;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use model::observed::{ProcessOutcome, Transport};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use crate::init_protocol::{FIRST_HOST_ID, FIRST_MARK, MARKS_END};

/// The longest path that is read.
const PATH_MAX: usize = 1024;
/// The longest argument that is read, and the most of them.
const ARGUMENT_MAX: usize = 256;
const ARGUMENTS_MAX: usize = 24;
/// Reads of another's memory end at pages, so that a missing one spoils only what is in it.
const PAGE: usize = 4096;

/// A process of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// Its number on the host.
    pub pid: u32,
    /// Its user, as numbered in the workspace.
    pub uid: u32,
    /// Its program, if it could be read.
    pub program: Option<String>,
}

/// What `/proc/PID/status` says of a process (proc(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its thread group.
    pub group: i32,
    /// Its parent.
    pub parent: u32,
    /// Its user, as numbered in the workspace.
    pub uid: u32,
    /// The group that marks its session.
    pub mark: Option<u32>,
}

/// Asks for the status of a process or thread.
pub fn status(pid: u32) -> Option<Status> {
    parse_status(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

/// Reads a status. Numbers of users and groups are those of the host.
pub fn parse_status(text: &str) -> Option<Status> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = |name: &str| field(name)?.split_whitespace().next()?.parse::<u32>().ok();
    let marks = FIRST_HOST_ID + FIRST_MARK..FIRST_HOST_ID + MARKS_END;
    let mut groups = field("Groups")?.split_whitespace().filter_map(|group| group.parse::<u32>().ok());
    Some(Status {
        group: i32::try_from(number("Tgid")?).ok()?,
        parent: number("PPid")?,
        uid: number("Uid")?.saturating_sub(FIRST_HOST_ID),
        mark: groups.find(|group| marks.contains(group)).map(|group| group - FIRST_HOST_ID),
    })
}

/// The program of a process.
pub fn program(pid: u32) -> Option<String> {
    link(&format!("/proc/{pid}/exe"))
}

/// The directory a process is in.
pub fn directory(pid: u32) -> Option<String> {
    link(&format!("/proc/{pid}/cwd"))
}

/// Who a process is.
pub fn actor(pid: u32) -> Option<(Actor, Status)> {
    let status = status(pid)?;
    Some((Actor { pid, uid: status.uid, program: program(pid) }, status))
}

/// A text in the memory of a process, up to its end or so many bytes.
pub fn text_at(pid: u32, address: u64, max: usize) -> Option<String> {
    let mut found = Vec::new();
    let mut at = usize::try_from(address).ok().filter(|at| *at != 0)?;
    while found.len() < max {
        let length = (PAGE - at % PAGE).min(max - found.len());
        let part = memory(pid, at, length)?;
        if let Some(end) = part.iter().position(|byte| *byte == 0) {
            found.extend_from_slice(&part[..end]);
            return Some(lossy(&found));
        }
        found.extend_from_slice(&part);
        at = at.checked_add(length)?;
    }
    Some(lossy(&found))
}

/// Bytes of the memory of a process; fewer where a page is missing.
pub fn bytes_at(pid: u32, address: u64, length: usize) -> Option<Vec<u8>> {
    let mut found = Vec::new();
    let mut at = usize::try_from(address).ok().filter(|at| *at != 0)?;
    while found.len() < length {
        let part = (PAGE - at % PAGE).min(length - found.len());
        match memory(pid, at, part) {
            Some(bytes) => found.extend_from_slice(&bytes),
            None => break,
        }
        at = at.checked_add(part)?;
    }
    (!found.is_empty()).then_some(found)
}

/// The arguments that a process hands to execve(2).
pub fn arguments(pid: u32, address: u64) -> Vec<String> {
    let Some(table) = bytes_at(pid, address, (ARGUMENTS_MAX + 1) * 8) else { return Vec::new() };
    let pointers: Vec<u64> = table
        .chunks_exact(8)
        .map(|eight| eight.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte)))
        .take_while(|pointer| *pointer != 0)
        .collect();
    let more = pointers.len() > ARGUMENTS_MAX;
    let read = pointers.iter().take(ARGUMENTS_MAX);
    let mut arguments: Vec<String> = read.map_while(|at| text_at(pid, *at, ARGUMENT_MAX)).collect();
    if more {
        arguments.push("[more]".to_owned());
    }
    arguments
}

/// The file that a process names to execve(2) or execveat(2): its name in the workspace with links
/// followed, and what will come of executing it.
pub fn executable(
    pid: u32,
    base: Option<i32>,
    named: &str,
    directory: Option<&str>,
) -> (String, ProcessOutcome) {
    let unknown = || (named.to_owned(), ProcessOutcome::Unknown);
    if named.is_empty() {
        // execveat(2) with AT_EMPTY_PATH: the descriptor itself.
        let Some(base) = base else { return (String::new(), ProcessOutcome::NotFound) };
        return link(&format!("/proc/{pid}/fd/{base}"))
            .map_or_else(unknown, |name| (name, ProcessOutcome::Started));
    }
    for own in ["/proc/self/", "/proc/thread-self/"] {
        if let Some(rest) = named.strip_prefix(own) {
            return link(&format!("/proc/{pid}/{rest}"))
                .map_or_else(unknown, |name| (name, ProcessOutcome::Started));
        }
    }
    let base = base.and_then(|base| link(&format!("/proc/{pid}/fd/{base}")));
    let full = match (named.starts_with('/'), base.as_deref().or(directory)) {
        (true, _) => named.to_owned(),
        (false, Some(base)) => format!("{base}/{named}"),
        (false, None) => return unknown(),
    };
    let root = open(Path::new(&format!("/proc/{pid}/root")), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
    let Ok(root) = root else { return unknown() };
    let Ok(path) = CString::new(full.trim_start_matches('/')) else { return unknown() };
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match openat2(root.as_fd(), path.as_c_str(), how) {
        Ok(file) => {
            let name = link(&format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or(full);
            (name, outcome(&file))
        }
        Err(nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR) => (full, ProcessOutcome::NotFound),
        Err(nix::errno::Errno::EACCES) => (full, ProcessOutcome::Denied),
        Err(_) => (full, ProcessOutcome::Unknown),
    }
}

/// What is spoken over a socket of a process, seen through a copy of its descriptor.
pub fn transport(group: i32, descriptor: i32) -> Transport {
    let copied = || -> Option<OwnedFd> {
        // SAFETY: plain numbers go in; what comes out is a new descriptor or an error.
        let process = unsafe { libc::syscall(libc::SYS_pidfd_open, group, 0) };
        let process = owned(process)?;
        // SAFETY: as above; the first descriptor is open throughout.
        owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), descriptor, 0) })
    };
    let Some(socket) = copied() else { return Transport::Other };
    let option = |name: i32| {
        let (mut value, mut length) = (0i32, 4u32);
        // SAFETY: the pointers are to a number and its length, which live through the call.
        let got = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                name,
                (&raw mut value).cast(),
                &raw mut length,
            )
        };
        (got == 0).then_some(value)
    };
    match (option(libc::SO_DOMAIN), option(libc::SO_PROTOCOL), option(libc::SO_TYPE)) {
        (Some(libc::AF_UNIX), _, Some(libc::SOCK_STREAM)) => Transport::Stream,
        (Some(libc::AF_UNIX), _, Some(_)) => Transport::Datagram,
        (_, Some(libc::IPPROTO_TCP), _) => Transport::Tcp,
        (_, Some(libc::IPPROTO_UDP), _) => Transport::Udp,
        (_, Some(libc::IPPROTO_ICMP), _) => Transport::Icmp,
        (_, Some(libc::IPPROTO_ICMPV6), _) => Transport::Icmp6,
        (_, Some(libc::IPPROTO_SCTP), _) => Transport::Sctp,
        _ => Transport::Other,
    }
}

fn owned(descriptor: libc::c_long) -> Option<OwnedFd> {
    let descriptor = i32::try_from(descriptor).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: the kernel has just made it for this process, and nothing else knows its number.
    Some(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn outcome(file: &OwnedFd) -> ProcessOutcome {
    let Ok(stat) = fstat(file) else { return ProcessOutcome::Unknown };
    let regular = stat.st_mode & libc::S_IFMT == libc::S_IFREG;
    let noexec = fstatvfs(file).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_NOEXEC));
    if regular && stat.st_mode & 0o111 != 0 && !noexec {
        ProcessOutcome::Started
    } else {
        ProcessOutcome::Denied
    }
}

fn memory(pid: u32, at: usize, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    let pid = Pid::from_raw(i32::try_from(pid).ok()?);
    let read =
        process_vm_readv(pid, &mut [IoSliceMut::new(&mut bytes)], &[RemoteIoVec { base: at, len: length }]);
    bytes.truncate(read.ok().filter(|read| *read > 0)?);
    Some(bytes)
}

fn link(path: &str) -> Option<String> {
    let target = fs::read_link(path).ok()?;
    Some(target.to_string_lossy().chars().take(PATH_MAX).collect())
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The longest path that is read.
pub const fn path_max() -> usize {
    PATH_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_with_the_workspaces_numbers() {
        let text = "Name:\tGroups:\t999\nTgid:\t70\nPid:\t71\nPPid:\t12\nUid:\t201000\t201000\t201000\t201000\n\
                    Groups:\t201000 240007 \n";
        // A name may hold anything but the end of a line.
        let status = parse_status(&text.replace("Name:\tGroups:\t999", "Name:\tx")).unwrap();
        assert_eq!(status, Status { group: 70, parent: 12, uid: 1000, mark: Some(FIRST_MARK + 7) });
        assert_eq!(parse_status(""), None);
        assert_eq!(parse_status("Tgid: x\nGroups:"), None);
    }

    #[test]
    fn ones_own_memory_is_read_to_its_end() {
        let me = std::process::id();
        let text = CString::new("samtools").unwrap();
        assert_eq!(text_at(me, text.as_ptr() as u64, 64).as_deref(), Some("samtools"));
        assert_eq!(text_at(me, text.as_ptr() as u64, 3).as_deref(), Some("sam"));
        assert_eq!((text_at(me, 0, 9), text_at(me, 16, 9)), (None, None));
        let argument = CString::new("x").unwrap();
        let many = vec![argument.as_ptr(); 100];
        let read = arguments(me, many.as_ptr() as u64);
        assert_eq!((read.len(), read.last().unwrap().as_str()), (ARGUMENTS_MAX + 1, "[more]"));
        let few = [argument.as_ptr(), std::ptr::null()];
        assert_eq!(arguments(me, few.as_ptr() as u64), ["x"]);
    }

    #[test]
    fn a_file_is_found_by_the_name_it_is_called_by() {
        let me = std::process::id();
        let (name, outcome) = executable(me, None, "/bin/sh", None);
        assert!(name.starts_with("/usr/bin/") || name.starts_with("/bin/"), "{name}");
        assert_eq!(outcome, ProcessOutcome::Started);
        assert_eq!(executable(me, None, "no/such", Some("/usr")).1, ProcessOutcome::NotFound);
        assert_eq!(executable(me, None, "etc/passwd", Some("/")).1, ProcessOutcome::Denied);
        assert_eq!(executable(me, None, "/proc/self/exe", None).0, program(me).unwrap());
    }
}
