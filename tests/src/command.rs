//! Running other people's programs, with a bound on everything.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Set when somebody asks the story to stop; everything that takes time looks at it.
pub static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The most output that is kept of one stream.
const OUTPUT_MAX: u64 = 256 << 20;

/// What a program did.
#[derive(Debug)]
pub struct Ran {
    line: String,
    /// Its exit status.
    pub status: ExitStatus,
    /// What it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error.
    pub stderr: Vec<u8>,
    /// How long it took.
    pub took: Duration,
}

impl Ran {
    /// The standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    /// The standard error as text.
    pub fn complaint(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim_end().to_owned()
    }

    /// The exit code; 128 + the signal for a program that a signal ended.
    pub fn code(&self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Demands success.
    pub fn ok(self) -> Result<Ran> {
        ensure!(self.status.success(), "{} ended with {}\n{}", self.line, self.code(), self.complaint());
        Ok(self)
    }

    /// Demands failure, with `reason` somewhere in what it wrote.
    pub fn refused(self, reason: &str) -> Result<Ran> {
        ensure!(!self.status.success(), "{} was to be refused and was not\n{}", self.line, self.text());
        let said = format!("{}\n{}", self.complaint(), self.text());
        ensure!(
            said.to_lowercase().contains(&reason.to_lowercase()),
            "{} was refused, but not because of {reason:?}:\n{said}",
            self.line
        );
        Ok(self)
    }
}

/// A program about to be run.
#[derive(Debug)]
pub struct Run {
    words: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    stdin: Vec<u8>,
    limit: Duration,
    account: Option<(u32, u32)>,
}

/// `run!("ssh", "-V")`: a program and its words.
pub fn run(program: impl AsRef<OsStr>) -> Run {
    Run {
        words: vec![program.as_ref().to_owned()],
        env: Vec::new(),
        stdin: Vec::new(),
        limit: Duration::from_secs(60),
        account: None,
    }
}

impl Run {
    /// Adds a word.
    pub fn arg(mut self, word: impl AsRef<OsStr>) -> Run {
        self.words.push(word.as_ref().to_owned());
        self
    }

    /// Adds words, split at blanks.
    pub fn args(mut self, words: &str) -> Run {
        self.words.extend(words.split_whitespace().map(OsString::from));
        self
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Run {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Gives it something to read.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Run {
        self.stdin = bytes.into();
        self
    }

    /// Runs it as another user and group.
    pub fn account(mut self, user: u32, group: u32) -> Run {
        self.account = Some((user, group));
        self
    }

    /// Bounds its time; a minute otherwise.
    pub fn within(mut self, limit: Duration) -> Run {
        self.limit = limit;
        self
    }

    /// As a person would type it.
    pub fn line(&self) -> String {
        let mut line = String::new();
        for word in &self.words {
            let word = word.to_string_lossy();
            let plain = word.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_./=:@+,%".contains(&c));
            let blank = if line.is_empty() { "" } else { " " };
            let _ = if plain { write!(line, "{blank}{word}") } else { write!(line, "{blank}'{word}'") };
        }
        line
    }

    /// A process for it, its standard streams piped.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]);
        if let Some((user, group)) = self.account {
            use std::os::unix::process::CommandExt;
            command.uid(user).gid(group);
        }
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it to its end.
    pub fn go(self) -> Result<Ran> {
        let line = self.line();
        let began = Instant::now();
        let mut child = self.command().spawn().with_context(|| format!("cannot start {line}"))?;
        let mut stdin = child.stdin.take().context("no stdin")?;
        let input = self.stdin;
        let feeder = thread::spawn(move || {
            use std::io::Write as _;
            // A program may end without reading everything.
            let _ = stdin.write_all(&input);
        });
        let out = drain(child.stdout.take().context("no stdout")?);
        let err = drain(child.stderr.take().context("no stderr")?);
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if began.elapsed() > self.limit || INTERRUPTED.load(Ordering::SeqCst) {
                child.kill().ok();
                child.wait().ok();
                ensure!(!INTERRUPTED.load(Ordering::SeqCst), "interrupted");
                bail!("{line} did not end within {:?}", self.limit);
            }
            thread::sleep(Duration::from_millis(2));
        };
        let took = began.elapsed();
        let stdout = out.join().unwrap_or_default();
        let stderr = err.join().unwrap_or_default();
        feeder.join().ok();
        Ok(Ran { line, status, stdout, stderr, took })
    }
}

fn drain(from: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        from.take(OUTPUT_MAX).read_to_end(&mut all).ok();
        all
    })
}

/// Waits until `done` says something, or fails with `what` after `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut done: impl FnMut() -> Option<T>) -> Result<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = done() {
            return Ok(found);
        }
        ensure!(!INTERRUPTED.load(Ordering::SeqCst), "interrupted");
        ensure!(began.elapsed() < limit, "{what}: not within {limit:?}");
        thread::sleep(Duration::from_millis(20));
    }
}
