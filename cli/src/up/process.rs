//! One child process: started so that it ends with this one, watched, signalled, never confused
//! with another that got its number.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::up::Room;

/// The longest line of readiness.
const LINE_MAX: u64 = 4096;

/// What a child did.
#[derive(Debug)]
pub enum Report {
    /// It is ready, and said this about it.
    Ready(Room, String),
    /// It ended, so.
    Exited(Room, String),
}

/// A running child. Signals go through the task that would reap it, so that they never reach a
/// process that got its number later.
#[derive(Debug)]
pub struct Handle {
    signals: mpsc::Sender<Signal>,
}

impl Handle {
    /// Sends a signal, if the child still runs.
    pub fn signal(&self, signal: Signal) {
        // The queue is longer than the signals that one stop takes.
        let _ = self.signals.try_send(signal);
    }
}

/// Starts `program --dir dir`. Its standard error goes to the end of `log`, its number to
/// `pid_file`. Must be called on a thread that lives as long as the child may: the kernel ends the
/// child when that thread ends.
pub fn start(
    room: Room,
    program: &Path,
    dir: &Path,
    log: &Path,
    pid_file: PathBuf,
    reports: mpsc::Sender<Report>,
) -> io::Result<Handle> {
    // The folder may belong to a process with fewer rights: a link there leads nowhere.
    let log = File::options()
        .create(true)
        .append(true)
        .mode(0o640)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(log)?;
    let mut command = Command::new(program);
    command.arg("--dir").arg(dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
    // Its own group: Ctrl-C on the terminal is for the supervisor, which stops them in order.
    command.process_group(0);
    let parent = nix::unistd::getpid();
    // SAFETY: runs in the child between fork and exec; it makes only the system calls prctl and
    // getppid, which are async-signal-safe, and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
            // The parent may have gone before the wish was registered.
            if nix::unistd::getppid() == parent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
        });
    }
    let child = command.spawn()?;
    if let Some(number) = child.id() {
        fs::write(&pid_file, format!("{number} {}\n", started_at(number).unwrap_or_default()))?;
    }
    let (signals, wanted) = mpsc::channel(8);
    tokio::spawn(watch(room, child, pid_file, wanted, reports));
    Ok(Handle { signals })
}

async fn watch(
    room: Room,
    mut child: Child,
    pid_file: PathBuf,
    mut wanted: mpsc::Receiver<Signal>,
    reports: mpsc::Sender<Report>,
) {
    if let Some(stdout) = child.stdout.take() {
        tokio::spawn(listen(room, BufReader::new(stdout), reports.clone()));
    }
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            Some(signal) = wanted.recv() => send(&child, signal),
        }
    };
    let _ = fs::remove_file(&pid_file);
    let how = status.map_or_else(|e| e.to_string(), describe);
    let _ = reports.send(Report::Exited(room, how)).await;
}

fn send(child: &Child, signal: Signal) {
    // There is a number only until the child has been reaped.
    if let Some(number) = child.id().and_then(|n| i32::try_from(n).ok()) {
        let _ = kill(Pid::from_raw(number), signal);
    }
}

/// Waits for the line of readiness, then reads on so that the pipe never fills.
async fn listen(room: Room, mut from: BufReader<tokio::process::ChildStdout>, reports: mpsc::Sender<Report>) {
    loop {
        let mut line = Vec::new();
        match (&mut from).take(LINE_MAX).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&line);
        if let Some(said) = line.trim_end().strip_prefix("ready") {
            let _ = reports.send(Report::Ready(room, said.trim().to_owned())).await;
        }
    }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(number)) => match Signal::try_from(number) {
            Ok(signal) => format!("signal {signal}"),
            Err(_) => format!("signal {number}"),
        },
        (None, None) => status.to_string(),
    }
}

/// Ends the process that an earlier supervisor noted in `pid_file` and left behind, if it is still
/// the same one and runs `program`. Returns its number.
pub async fn end_leftover(pid_file: &Path, program: &Path, patience: Duration) -> Option<u32> {
    let noted = fs::read_to_string(pid_file).ok()?;
    let _ = fs::remove_file(pid_file);
    let (number, started) = noted.trim().split_once(' ')?;
    let (number, started): (u32, u64) = (number.parse().ok()?, started.parse().ok()?);
    let same = || started_at(number) == Some(started) && runs(number, program);
    if !same() {
        return None;
    }
    let pid = Pid::from_raw(i32::try_from(number).ok()?);
    let _ = kill(pid, Signal::SIGTERM);
    let until = tokio::time::Instant::now() + patience;
    while same() {
        if tokio::time::Instant::now() >= until {
            let _ = kill(pid, Signal::SIGKILL);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Some(number)
}

/// When a process started, in the kernel's ticks since boot (field 22 of proc_pid_stat(5)): with
/// its number it tells a process from a later one. A zombie has ended.
fn started_at(number: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
    // The name in field 2 may hold anything, spaces and brackets too.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn runs(number: u32, program: &Path) -> bool {
    let Ok(runs) = fs::read_link(format!("/proc/{number}/exe")) else { return false };
    // A rebuilt program's old file shows as deleted.
    let name =
        |p: &Path| p.file_name().map(|n| n.to_string_lossy().trim_end_matches(" (deleted)").to_owned());
    name(&runs) == name(program)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Fake {
        dir: tempfile::TempDir,
        program: PathBuf,
    }

    fn fake(script: &str) -> Fake {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("fake");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Fake { dir, program }
    }

    impl Fake {
        fn start(&self) -> (Handle, mpsc::Receiver<Report>) {
            let (sender, reports) = mpsc::channel(8);
            let (log, pid) = (self.dir.path().join("log"), self.dir.path().join("pid"));
            // Between writing a program and running it, a fork elsewhere in this process may hold
            // the file open for writing for a moment.
            loop {
                match start(Room::Agent, &self.program, self.dir.path(), &log, pid.clone(), sender.clone()) {
                    Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy => continue,
                    other => return (other.unwrap(), reports),
                }
            }
        }
    }

    #[tokio::test]
    async fn a_child_gets_ready_is_asked_to_end_and_leaves_no_number() {
        let fake = fake(
            "trap 'exit 7' TERM; echo words >&2; echo noise; echo \"ready dir=$2\"; while :; do sleep 0.05; done",
        );
        let (handle, mut reports) = fake.start();
        let Some(Report::Ready(Room::Agent, said)) = reports.recv().await else { panic!("not ready") };
        assert_eq!(said, format!("dir={}", fake.dir.path().display()));
        assert!(fake.dir.path().join("pid").exists());
        handle.signal(Signal::SIGTERM);
        let Some(Report::Exited(Room::Agent, how)) = reports.recv().await else { panic!("not ended") };
        assert_eq!(how, "exit code 7");
        assert!(!fake.dir.path().join("pid").exists());
        assert_eq!(fs::read_to_string(fake.dir.path().join("log")).unwrap(), "words\n");
    }

    #[tokio::test]
    async fn how_it_ended_is_told() {
        let fake = fake("kill -9 $$");
        let (_handle, mut reports) = fake.start();
        let Some(Report::Exited(_, how)) = reports.recv().await else { panic!("not ended") };
        assert_eq!(how, "signal SIGKILL");
    }

    #[tokio::test]
    async fn a_leftover_is_ended_and_a_stranger_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let mut left = Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let number = left.id().unwrap();
        let sleep = fs::read_link(format!("/proc/{number}/exe")).unwrap();
        let born = started_at(number).unwrap();
        let patience = Duration::from_secs(5);

        fs::write(&pid, format!("{number} {}\n", born + 1)).unwrap();
        assert_eq!(end_leftover(&pid, &sleep, patience).await, None, "another start time");
        fs::write(&pid, format!("{number} {born}\n")).unwrap();
        assert_eq!(end_leftover(&pid, Path::new("/bin/other"), patience).await, None, "another program");
        fs::write(&pid, format!("{number} {born}\n")).unwrap();
        assert_eq!(end_leftover(&pid, &sleep, patience).await, Some(number));
        assert!(!left.wait().await.unwrap().success());
        assert!(!pid.exists());
    }
}
