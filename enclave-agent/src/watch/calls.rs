//! Executions and attempts to connect, seen as the kernel holds the caller: seccomp user notification
//! (seccomp_unotify(2)).
//!
//! The OCI runtime sends the filter's descriptor over a socket (`listenerPath` of the runtime
//! specification). A thread of the workspace's own takes each notification, looks at the caller's
//! memory while the caller stands still, checks that it is still the same caller, and lets the call go
//! on. Nothing is decided here: another thread of the caller may change what its memory says after it
//! was read. What may be executed and reached is decided by mounts, namespaces and the barrier.
//!
//! When the agent ends the descriptor closes, and the calls that wait and all further ones fail with
//! `ENOSYS` instead of waiting for ever.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use model::observed::Execution;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::{Value, json};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};

use super::processes::Actor;
use super::{Watcher, address, processes};

/// The calls that are looked at. `sendto` and its like are not: what they send outside is seen as
/// packets, and their addresses lie deeper than a filter can see.
const CALLS: [&str; 3] = ["execve", "execveat", "connect"];
/// `SECCOMP_IOCTL_NOTIF_RECV` of `linux/seccomp.h`: `_IOWR('!', 0, struct seccomp_notif)`.
const RECEIVE: libc::Ioctl = 0xc050_2100_u32 as libc::Ioctl;
/// `SECCOMP_IOCTL_NOTIF_SEND`: `_IOWR('!', 1, struct seccomp_notif_resp)`.
const SEND: libc::Ioctl = 0xc018_2101_u32 as libc::Ioctl;
/// `SECCOMP_IOCTL_NOTIF_ID_VALID`: `_IOW('!', 2, __u64)`.
const IS_VALID: libc::Ioctl = 0x4008_2102_u32 as libc::Ioctl;
/// `SECCOMP_IOCTL_NOTIF_SET_FLAGS`: `_IOW('!', 4, __u64)`.
const SET_FLAGS: libc::Ioctl = 0x4008_2104_u32 as libc::Ioctl;
/// Wake the one and the other on the same processor: they take turns.
const SYNCHRONOUS: u64 = 1;
/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`.
const CONTINUE: u32 = 1;
/// Bytes of the runtime's message beside the descriptor.
const STATE_MAX: usize = 64 * 1024;

/// Has the calls of a filter (the `seccomp` of an OCI specification) notified to a socket at `path`.
pub fn notify(filter: &mut Value, path: &Path) {
    let Some(rules) = filter["syscalls"].as_array_mut() else { return };
    for rule in rules.iter_mut() {
        if let Some(names) = rule["names"].as_array_mut() {
            names.retain(|name| name.as_str().is_none_or(|name| !CALLS.contains(&name)));
        }
    }
    rules.push(json!({ "names": CALLS, "action": "SCMP_ACT_NOTIFY" }));
    filter["listenerPath"] = json!(path);
}

/// Where the runtime brings the descriptor.
#[derive(Debug)]
pub struct Reception(UnixListener);

impl Reception {
    /// Waits at `path`, which must not be there yet.
    pub fn at(path: &Path) -> io::Result<Reception> {
        UnixListener::bind(path).map(Reception)
    }

    /// Takes the descriptor, and looks at calls from then on.
    pub async fn receive(self, watcher: Arc<Watcher>) -> io::Result<()> {
        let (stream, _) = self.0.accept().await?;
        let filter = receive(&stream).await?;
        std::thread::Builder::new().name("calls".to_owned()).spawn(move || serve(&filter, &watcher))?;
        Ok(())
    }
}

async fn receive(stream: &UnixStream) -> io::Result<OwnedFd> {
    stream
        .async_io(Interest::READABLE, || {
            let mut state = vec![0; STATE_MAX];
            let mut control = nix::cmsg_space!([RawFd; 4]);
            let mut parts = [io::IoSliceMut::new(&mut state)];
            let message = recvmsg::<()>(
                stream.as_raw_fd(),
                &mut parts,
                Some(&mut control),
                MsgFlags::MSG_CMSG_CLOEXEC,
            )?;
            let mut descriptors = Vec::new();
            for part in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(raw) = part {
                    // SAFETY: the kernel has just made these descriptors for this process, and nothing
                    // else knows their numbers.
                    descriptors.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                }
            }
            match (descriptors.pop(), descriptors.len()) {
                (Some(filter), 0) => Ok(filter),
                _ => Err(io::Error::other("the runtime did not send exactly the filter's descriptor")),
            }
        })
        .await
}

/// Lets calls go on, having looked at them, until no process of the workspace is left.
fn serve(filter: &OwnedFd, watcher: &Watcher) {
    // Older kernels do not know it, and do without.
    let _ = ask(filter, SET_FLAGS, SYNCHRONOUS as *mut libc::c_void);
    loop {
        // SAFETY: a descriptor that is borrowed for as long as `filter` lives.
        let there = unsafe { BorrowedFd::borrow_raw(filter.as_raw_fd()) };
        let mut waiting = [PollFd::new(there, PollFlags::POLLIN)];
        match poll(&mut waiting, PollTimeout::NONE) {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(errno) => return tracing::error!(%errno, "calls of a workspace can no longer be seen"),
        }
        let happened = waiting[0].revents().unwrap_or(PollFlags::POLLERR);
        if !happened.contains(PollFlags::POLLIN) {
            return;
        }
        // SAFETY: a notification of zeros is a valid one; the kernel asks for zeros.
        let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        match ask(filter, RECEIVE, (&raw mut call).cast()) {
            Ok(()) => answer(filter, &call, watcher),
            // The caller was killed, or a signal came.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => {}
            Err(error) => return tracing::error!(%error, "calls of a workspace can no longer be seen"),
        }
    }
}

fn answer(filter: &OwnedFd, call: &libc::seccomp_notif, watcher: &Watcher) {
    let seen = see(call, watcher);
    let mut id = call.id;
    // What was read is the caller's only if the caller is still there.
    let valid = ask(filter, IS_VALID, (&raw mut id).cast()).is_ok();
    let mut seen = Some(seen).filter(|_| valid);
    if matches!(seen, Some(Seen::Attempt(..))) {
        // Before the kernel sends anything: the packet is known by it.
        seen.take().into_iter().for_each(|seen| note(seen, watcher));
    }
    let mut response = libc::seccomp_notif_resp { id: call.id, val: 0, error: 0, flags: CONTINUE };
    // It fails where the caller is gone.
    let _ = ask(filter, SEND, (&raw mut response).cast());
    seen.into_iter().for_each(|seen| note(seen, watcher));
}

/// What a call is about.
enum Seen {
    /// An execution, by the mark of its session.
    Execution(Option<u32>, Execution),
    /// An attempt to connect.
    Attempt(Option<u32>, Actor, address::Address, model::observed::Transport),
    /// One beyond the budget: the program's name, if it is an execution.
    Beyond(Option<String>),
    /// Nothing to tell.
    Nothing,
}

fn see(call: &libc::seccomp_notif, watcher: &Watcher) -> Seen {
    let (pid, args) = (call.pid, &call.data.args);
    let number = libc::c_long::from(call.data.nr);
    let (path, arguments, base) = match number {
        libc::SYS_execve => (args[0], args[1], None),
        libc::SYS_execveat => (args[1], args[2], Some(args[0] as u32 as i32)),
        libc::SYS_connect => return see_connect(pid, args, watcher),
        _ => return Seen::Nothing,
    };
    let named = processes::text_at(pid, path, processes::path_max()).unwrap_or_default();
    if !watcher.has_budget(Instant::now()) {
        return Seen::Beyond(Some(named));
    }
    let Some((by, status)) = processes::actor(pid) else { return Seen::Nothing };
    let directory = processes::directory(pid);
    let base = base.filter(|base| *base != libc::AT_FDCWD);
    let (program, outcome) = processes::executable(pid, base, &named, directory.as_deref());
    let what = Execution {
        program,
        argv: processes::arguments(pid, arguments),
        directory,
        pid: by.pid,
        parent_pid: status.parent,
        parent_program: processes::program(status.parent),
        uid: by.uid,
        outcome,
    };
    Seen::Execution(status.mark, what)
}

fn see_connect(pid: u32, args: &[u64; 6], watcher: &Watcher) -> Seen {
    let length = usize::try_from(args[2]).unwrap_or(usize::MAX).min(address::ADDRESS_MAX);
    let to = processes::bytes_at(pid, args[1], length).and_then(|bytes| address::parse(&bytes));
    let Some(to) = to else { return Seen::Nothing };
    if !watcher.has_budget(Instant::now()) {
        return Seen::Beyond(None);
    }
    let Some((by, status)) = processes::actor(pid) else { return Seen::Nothing };
    let transport = processes::transport(status.group, args[0] as u32 as i32);
    Seen::Attempt(status.mark, by, to, transport)
}

fn note(seen: Seen, watcher: &Watcher) {
    match seen {
        Seen::Execution(mark, what) => watcher.executed(mark, what),
        Seen::Attempt(mark, by, to, transport) => watcher.attempted(mark, by, to, transport, Instant::now()),
        Seen::Beyond(program) => watcher.beyond(program),
        Seen::Nothing => {}
    }
}

fn ask(filter: &OwnedFd, call: libc::Ioctl, with: *mut libc::c_void) -> io::Result<()> {
    // SAFETY: each caller hands over what `call` takes: a pointer to a structure of the kernel's form
    // that lives through the call, or a plain number.
    if unsafe { libc::ioctl(filter.as_raw_fd(), call, with) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_structures() {
        let number = |direction: usize, size: usize, nr: usize| direction << 30 | size << 16 | 0x21 << 8 | nr;
        let (both, write) = (3, 1);
        assert_eq!(RECEIVE as usize, number(both, size_of::<libc::seccomp_notif>(), 0));
        assert_eq!(SEND as usize, number(both, size_of::<libc::seccomp_notif_resp>(), 1));
        assert_eq!(IS_VALID as usize, number(write, 8, 2));
        assert_eq!(SET_FLAGS as usize, number(write, 8, 4));
    }

    #[test]
    fn each_call_is_notified_and_allowed_nowhere_else() {
        let mut filter: Value = serde_json::from_str(include_str!("../../profile/seccomp.json")).unwrap();
        notify(&mut filter, Path::new("/run/x"));
        for call in CALLS {
            let rules = filter["syscalls"].as_array().unwrap();
            let naming = rules.iter().filter(|rule| rule["names"].as_array().unwrap().contains(&json!(call)));
            let actions: Vec<_> = naming.map(|rule| rule["action"].as_str().unwrap()).collect();
            assert_eq!(actions, ["SCMP_ACT_NOTIFY"], "{call}");
        }
        assert_eq!(filter["listenerPath"], "/run/x");
    }
}
