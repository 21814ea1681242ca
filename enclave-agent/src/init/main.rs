//! PID 1 of a workspace.
//!
//! It starts sessions on the agent's request, reaps, and ends sessions with everything they
//! started. It runs as root of the workspace's user namespace, keeps only the capabilities for
//! that, and has no dealings with the people whose sessions it starts: its only input is the
//! socket pair it was born with. When the agent's end of that closes, it ends, and with it, by the
//! kernel's rule for PID 1, every process of the workspace.
//!
//! Every process of a session carries a supplementary group of that session alone. It is
//! inherited, and without capabilities it cannot be dropped: neither `setsid` nor a double fork
//! gets a process out of its session. What a session leaves running when its person goes (`nohup`,
//! `tmux`) still carries it, and ends with the workspace at the latest.
//!
//! The same program serves files ([`sftp`]) and ends forwarded connections ([`connect`]); then it
//! is a process of a session like any other, without privileges.

mod connect;
mod launch;
mod modes;
mod processes;
mod sftp;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use enclave_agent::init_protocol::{End, Notice, Order, SOCKET_FD, Start, mark_of, receive, send};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// How long to wait before looking again for what a session left.
const SWEEP_EVERY: Duration = Duration::from_millis(2);
/// After so many looks everything is stopped for a moment, so that nothing can outrun the sweep.
const SWEEPS_BEFORE_STOPPING_ALL: u32 = 40;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let ran = match words.as_slice() {
        [] => run(),
        [launch::SFTP] => sftp::serve(false),
        [launch::SFTP, launch::SFTP_DATA] => sftp::serve(true),
        [launch::CONNECT, port] => connect::relay(port),
        _ => Err(io::Error::other("this program is started by the agent, inside a workspace")),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sekisho-init: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    if !nix::sys::stat::fstat(launch::borrow(SOCKET_FD))
        .is_ok_and(|s| s.st_mode & libc::S_IFMT == libc::S_IFSOCK)
    {
        return Err(io::Error::other("this program is started by the agent, inside a workspace"));
    }
    let socket = launch::take(SOCKET_FD)?;
    nix::sys::prctl::set_dumpable(false)?;
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    children.thread_block()?;
    let died = SignalFd::with_flags(&children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut sessions = Sessions { socket: socket.as_fd(), running: BTreeMap::new(), left: BTreeSet::new() };
    send(socket.as_fd(), &Notice::Ready, &[])?;
    loop {
        let mut waiting =
            [PollFd::new(socket.as_fd(), PollFlags::POLLIN), PollFd::new(died.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waiting, sessions.next_look()) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let (ordered, reap) = (waiting[0].any().unwrap_or(true), waiting[1].any().unwrap_or(true));
        if reap {
            while matches!(died.read_signal(), Ok(Some(_))) {}
        }
        sessions.reap();
        if ordered {
            match receive::<Order>(socket.as_fd())? {
                Some((order, with)) => sessions.obey(order, with)?,
                None => return Ok(()),
            }
        }
        sessions.sweep()?;
    }
}

struct Session {
    /// None of a session that ended before and left something.
    leader: Option<Pid>,
    mark: u32,
    ending: bool,
    end: Option<End>,
    sweeps: u32,
}

struct Sessions<'a> {
    socket: BorrowedFd<'a>,
    running: BTreeMap<u64, Session>,
    /// Marks of sessions that ended by themselves: some of their processes may go on.
    left: BTreeSet<u32>,
}

impl Sessions<'_> {
    fn obey(&mut self, order: Order, with: Vec<OwnedFd>) -> io::Result<()> {
        match order {
            Order::Start(start) => self.start(&start, with),
            Order::Signal { id, signal } => {
                if let (Some(session), Ok(signal)) = (self.running.get(&id), Signal::try_from(signal))
                    && session.end.is_none()
                    && let Some(leader) = session.leader
                {
                    processes::signal_group(leader, signal);
                }
                Ok(())
            }
            Order::Kill { id } => {
                let mark = mark_of(id);
                let left = || Session { leader: None, mark, ending: true, end: None, sweeps: 0 };
                self.running.entry(id).or_insert_with(left).ending = true;
                Ok(())
            }
            Order::Leave { id } => {
                if let Some(leader) = self.running.get(&id).and_then(|session| session.leader) {
                    processes::signal_group(leader, Signal::SIGHUP);
                    processes::signal_group(leader, Signal::SIGCONT);
                }
                Ok(())
            }
        }
    }

    fn start(&mut self, start: &Start, with: Vec<OwnedFd>) -> io::Result<()> {
        let id = start.id;
        let failed = |reason: String| send(self.socket, &Notice::Failed { id, reason }, &[]);
        let mark = mark_of(id);
        if self.running.values().any(|session| session.mark == mark) {
            return failed("there are too many sessions".to_owned());
        }
        // Marks come round again: whatever went on all that time keeps its own.
        if self.left.contains(&mark) {
            if processes::is_marked(mark)? {
                return failed("there are too many sessions; try again".to_owned());
            }
            self.left.remove(&mark);
        }
        match launch::launch(start, with, mark) {
            Ok((leader, master)) => {
                let session = Session { leader: Some(leader), mark, ending: false, end: None, sweeps: 0 };
                self.running.insert(id, session);
                let with: Vec<BorrowedFd<'_>> = master.iter().map(AsFd::as_fd).collect();
                send(self.socket, &Notice::Started { id, pid: leader.as_raw() }, &with)
            }
            Err(error) => failed(error.to_string()),
        }
    }

    fn reap(&mut self) {
        loop {
            let (pid, end) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, End::Code(code.to_le_bytes()[0])),
                Ok(WaitStatus::Signaled(pid, signal, core)) => {
                    (pid, End::Signal { number: signal as i32, core })
                }
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => continue,
            };
            if let Some(session) = self.running.values_mut().find(|session| session.leader == Some(pid)) {
                session.end.get_or_insert(end);
            }
        }
    }

    fn sweep(&mut self) -> io::Result<()> {
        let mut gone = Vec::new();
        for (id, session) in &self.running {
            if let (false, Some(end)) = (session.ending, session.end) {
                self.left.insert(session.mark);
                gone.push((*id, Some(end)));
            }
        }
        for (id, session) in self.running.iter_mut().filter(|(_, session)| session.ending) {
            session.sweeps += 1;
            let left = if session.sweeps < SWEEPS_BEFORE_STOPPING_ALL {
                processes::kill_marked(session.mark)?
            } else {
                processes::stop_all_and_kill_marked(session.mark)?
            };
            if !left && (session.end.is_some() || session.leader.is_none()) {
                self.left.remove(&session.mark);
                gone.push((*id, session.end));
            }
        }
        for (id, end) in gone {
            self.running.remove(&id);
            if let Some(end) = end {
                send(self.socket, &Notice::Ended { id, end }, &[])?;
            }
        }
        Ok(())
    }

    fn next_look(&self) -> PollTimeout {
        if self.running.values().any(|session| session.ending) {
            PollTimeout::try_from(SWEEP_EVERY).unwrap_or(PollTimeout::ZERO)
        } else {
            PollTimeout::NONE
        }
    }
}
