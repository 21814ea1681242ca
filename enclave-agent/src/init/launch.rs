//! From PID 1 to a person's shell.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use enclave_agent::init_protocol::{Program as What, Start, Terminal, USER_ID};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::unistd::{ForkResult, Gid, Pid, Uid, fork};

use crate::modes;

/// The shells to try, in this order.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];
/// Where a workspace has this program.
const OWN: &str = "/.sekisho/init";
/// The first word of this program as a server of files, and the one that opens `/data` to it.
pub const SFTP: &str = "sftp";
/// See [`SFTP`].
pub const SFTP_DATA: &str = "data";
/// The first word of this program as the end of a connection; the port follows.
pub const CONNECT: &str = "connect";
/// How many files a process may have open.
const OPEN_FILES: u64 = 16_384;
/// What a session's processes say to the out-of-memory killer: rather me than PID 1.
const OOM_SCORE: &[u8] = b"500";
/// Where a session may write. `/dev` is there for terminals, `/proc` for `/proc/self`.
const WRITABLE: [&str; 5] = ["/home", "/tmp", "/run", "/dev", "/proc"];

/// Borrows a descriptor by number.
pub fn borrow(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: used for the descriptor this program is started with, which is open throughout; a
    // wrong number is only an error from the kernel.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Takes possession of a descriptor this program was started with; children do not get it.
pub fn take(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: called once, at the start, for a descriptor that nothing else in here owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    Ok(fd)
}

/// Starts a session's leader; with a terminal, its master comes back.
pub fn launch(start: &Start, with: Vec<OwnedFd>, mark: u32) -> io::Result<(Pid, Option<OwnedFd>)> {
    let (stdio, master) = match &start.terminal {
        Some(terminal) => {
            let (master, slave) = open_terminal(terminal)?;
            (Stdio::Terminal(slave), Some(master))
        }
        None => {
            let [input, output, error] = <[OwnedFd; 3]>::try_from(with)
                .map_err(|_| io::Error::other("three descriptors were to come along"))?;
            (Stdio::Pipes([input, output, error]), None)
        }
    };
    let program = Program::of(start)?;
    // SAFETY: this program has one thread, so that the child may do whatever it likes.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok((child, master)),
        ForkResult::Child => {
            drop(master);
            let error = become_session(&stdio, &program, mark);
            // Standard error may not be in place yet, and then nobody sees this.
            eprintln!("sekisho-init: the session could not be started: {error}");
            // SAFETY: nothing of the parent's is to be run or flushed here.
            unsafe { libc::_exit(126) }
        }
    }
}

enum Stdio {
    Terminal(OwnedFd),
    Pipes([OwnedFd; 3]),
}

/// What to execute, made before the fork.
struct Program {
    /// The files to try, in this order.
    files: Vec<CString>,
    args: Vec<CString>,
    env: Vec<CString>,
    home: CString,
}

impl Program {
    fn of(start: &Start) -> io::Result<Program> {
        let text = |bytes: Vec<u8>| {
            CString::new(bytes)
                .map_err(|_| io::Error::other("a NUL byte stands in the command or environment"))
        };
        let shells = || SHELLS.into_iter().map(|shell| text(shell.into())).collect::<Result<Vec<_>, _>>();
        let own = || text(OWN.into()).map(|own| vec![own]);
        let own_args = |words: &[&str]| {
            std::iter::once(&"sekisho-init")
                .chain(words)
                .map(|word| text((*word).into()))
                .collect::<Result<Vec<_>, _>>()
        };
        let (files, args) = match &start.program {
            What::Command(line) => {
                (shells()?, vec![c"bash".to_owned(), c"-c".to_owned(), text(line.clone())?])
            }
            What::Shell => (shells()?, vec![c"-bash".to_owned()]),
            What::Files { data: true } => (own()?, own_args(&[SFTP, SFTP_DATA])?),
            What::Files { data: false } => (own()?, own_args(&[SFTP])?),
            What::Connect { port } => (own()?, own_args(&[CONNECT, &port.to_string()])?),
        };
        let env =
            start.env.iter().map(|(k, v)| text(format!("{k}={v}").into_bytes())).collect::<Result<_, _>>()?;
        Ok(Program { files, args, env, home: text(start.home.clone().into_bytes())? })
    }
}

/// Everything between the fork and the shell; returns only when it fails.
fn become_session(stdio: &Stdio, program: &Program, mark: u32) -> io::Error {
    match prepare(stdio, program, mark) {
        Ok(()) => {}
        Err(error) => return error,
    }
    let mut last = io::Error::other("there is no shell");
    for file in &program.files {
        let Err(errno) = nix::unistd::execve(file, &program.args, &program.env);
        last = errno.into();
    }
    last
}

fn prepare(stdio: &Stdio, program: &Program, mark: u32) -> io::Result<()> {
    nix::unistd::setsid()?;
    let [input, output, error] = match stdio {
        Stdio::Terminal(slave) => {
            // SAFETY: the descriptor is a terminal's and the argument a plain number.
            if unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0) } != 0 {
                return Err(io::Error::last_os_error());
            }
            [slave.as_fd(), slave.as_fd(), slave.as_fd()]
        }
        Stdio::Pipes([input, output, error]) => [input.as_fd(), output.as_fd(), error.as_fd()],
    };
    nix::unistd::dup2_stdin(input)?;
    nix::unistd::dup2_stdout(output)?;
    nix::unistd::dup2_stderr(error)?;
    // SAFETY: from here on only the three standard descriptors are used.
    if unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES)?;
    drop_privileges(mark)?;
    narrow();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o027));
    nix::unistd::chdir(program.home.as_c_str())?;
    for number in Signal::iterator().filter(|s| !matches!(s, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: it installs no handler.
        unsafe { signal(number, SigHandler::SigDfl) }?;
    }
    SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// Gives up every capability for good and takes on the person's identity and the session's mark.
fn drop_privileges(mark: u32) -> io::Result<()> {
    // The bounding set ends where the kernel knows no further capability.
    for capability in 0..64 {
        // SAFETY: a plain number goes in.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            break;
        }
    }
    let (uid, gid) = (Uid::from_raw(USER_ID), Gid::from_raw(USER_ID));
    nix::unistd::setgroups(&[gid, Gid::from_raw(mark)])?;
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)?;
    nix::sys::prctl::set_no_new_privs()?;
    Ok(())
}

/// Landlock, as far as this kernel has it: a second wall behind mounts and user id, so that a
/// mistake in either opens nothing for writing. Without it the workspace still stands.
fn narrow() {
    use landlock::{
        ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
        path_beneath_rules,
    };
    let abi = ABI::V6;
    let narrowed = (|| {
        Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(abi))?
            .create()?
            .add_rules(path_beneath_rules(["/"], AccessFs::from_read(abi)))?
            .add_rules(path_beneath_rules(WRITABLE, AccessFs::from_all(abi)))?
            .restrict_self()
    })();
    if let Err(error) = narrowed {
        eprintln!("sekisho-init: landlock is not in force: {error}");
    }
}

/// Makes a terminal of the workspace's own, owned by the person.
fn open_terminal(terminal: &Terminal) -> io::Result<(OwnedFd, OwnedFd)> {
    let user = Uid::from_raw(USER_ID);
    // A terminal belongs to whoever opens the multiplexer.
    nix::unistd::setfsuid(user);
    let master = nix::pty::posix_openpt(
        nix::fcntl::OFlag::O_RDWR | nix::fcntl::OFlag::O_NOCTTY | nix::fcntl::OFlag::O_CLOEXEC,
    );
    nix::unistd::setfsuid(Uid::from_raw(0));
    let master = master?;
    nix::pty::unlockpt(&master)?;
    // SAFETY: the descriptor is a terminal master; the call makes a new descriptor or fails.
    let slave = unsafe {
        libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC)
    };
    if slave < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it for us.
    let slave = unsafe { OwnedFd::from_raw_fd(slave) };
    let size = libc::winsize {
        ws_row: terminal.rows,
        ws_col: terminal.cols,
        ws_xpixel: terminal.width_px,
        ws_ypixel: terminal.height_px,
    };
    // SAFETY: the pointer is to a `winsize` that lives through the call.
    if unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } != 0 {
        return Err(io::Error::last_os_error());
    }
    modes::apply(slave.as_fd(), &terminal.modes)?;
    Ok((OwnedFd::from(master), slave))
}
