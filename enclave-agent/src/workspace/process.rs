//! A session's processes, as the agent holds them.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};

use super::link::{Link, Lost, Said};
use super::pipe::Pipe;
use crate::init_protocol::{End, Notice, Order, Program, Start, Terminal, mark_of};

/// How long PID 1 may take to start a session.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a widened pipe holds, in bytes; what the kernel gives to everybody.
const WIDE_PIPE: i32 = 1 << 20;

/// What to start.
#[derive(Debug, Clone)]
pub struct Launch {
    /// What runs.
    pub program: Program,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// The directory to start in.
    pub home: String,
    /// The terminal, if there is to be one.
    pub terminal: Option<Terminal>,
}

/// Why a session was not started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The workspace ended meanwhile.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// PID 1 could not.
    #[error("the workspace could not start it: {0}")]
    Failed(String),
    /// PID 1 did not answer.
    #[error("the workspace did not answer within {} s", PATIENCE.as_secs())]
    Slow,
    /// The agent could not make its pipes.
    #[error("the agent could not make the session's pipes")]
    Pipes(#[from] io::Error),
}

/// Where a session's bytes go in and come out.
#[derive(Debug)]
pub enum Streams {
    /// One way for both directions.
    Terminal(Pipe),
    /// Three pipes.
    Pipes {
        /// To write to; dropping it is the end of input.
        input: Pipe,
        /// To read from.
        output: Pipe,
        /// To read from.
        error: Pipe,
    },
}

/// A session's processes. Dropping it kills every one of them, unless the session has ended or was left.
#[derive(Debug)]
pub struct Process {
    id: u64,
    link: Link,
    said: Mutex<mpsc::Receiver<Said>>,
    ended: AtomicBool,
}

impl Process {
    /// Starts a session. `known` hears of the group that will mark its processes before there are any.
    pub(super) async fn launch(
        link: &Link,
        launch: Launch,
        known: impl FnOnce(u32),
    ) -> Result<(Process, Streams), LaunchError> {
        let (id, said) = link.register();
        known(mark_of(id));
        let process =
            Process { id, link: link.clone(), said: Mutex::new(said), ended: AtomicBool::new(false) };
        let start = Start {
            id,
            program: launch.program,
            env: launch.env,
            home: launch.home,
            terminal: launch.terminal,
        };
        let (with, ours) = if start.terminal.is_some() {
            (Vec::new(), None)
        } else {
            let (input_there, input) = std::io::pipe()?;
            let (output, output_there) = std::io::pipe()?;
            let (error, error_there) = std::io::pipe()?;
            widen(&input);
            widen(&output);
            let ours = (OwnedFd::from(input), OwnedFd::from(output), OwnedFd::from(error));
            (vec![input_there.into(), output_there.into(), error_there.into()], Some(ours))
        };
        link.order(Order::Start(start), with)?;
        let (notice, mut with) = match tokio::time::timeout(PATIENCE, process.next()).await {
            Ok(Some(said)) => said,
            Ok(None) => return Err(Lost.into()),
            Err(_) => return Err(LaunchError::Slow),
        };
        match notice {
            Notice::Started { .. } => {}
            Notice::Failed { reason, .. } => {
                process.ended.store(true, Ordering::Relaxed);
                return Err(LaunchError::Failed(reason));
            }
            Notice::Ready | Notice::Ended { .. } => {
                return Err(LaunchError::Failed("it answered out of turn".to_owned()));
            }
        }
        let streams = match ours {
            Some((input, output, error)) => Streams::Pipes {
                input: Pipe::new(input)?,
                output: Pipe::new(output)?,
                error: Pipe::new(error)?,
            },
            None => match with.pop() {
                Some(master) => Streams::Terminal(Pipe::new(master)?),
                None => return Err(LaunchError::Failed("no terminal came along".to_owned())),
            },
        };
        Ok((process, streams))
    }

    /// Waits until the session's leader has ended, and every process of the session if it was killed.
    pub async fn ended(&self) -> Result<End, Lost> {
        loop {
            match self.next().await {
                Some((Notice::Ended { end, .. }, _)) => {
                    self.ended.store(true, Ordering::Relaxed);
                    return Ok(end);
                }
                Some(_) => {}
                None => return Err(Lost),
            }
        }
    }

    /// Signals the foreground process group.
    pub fn signal(&self, signal: i32) {
        let _ = self.link.order(Order::Signal { id: self.id, signal }, Vec::new());
    }

    /// Ends every process of the session.
    pub fn kill(&self) {
        let _ = self.link.order(Order::Kill { id: self.id }, Vec::new());
    }

    /// Hangs up: what ignores that goes on, and nothing more is heard of the session.
    pub fn leave(&self) {
        if !self.ended.swap(true, Ordering::Relaxed) {
            let _ = self.link.order(Order::Leave { id: self.id }, Vec::new());
        }
    }

    async fn next(&self) -> Option<Said> {
        self.said.lock().await.recv().await
    }
}

/// Lets a pipe hold more, for streams of many small packets. Without it they are only slower.
fn widen(pipe: &impl std::os::fd::AsFd) {
    let _ = nix::fcntl::fcntl(pipe, nix::fcntl::FcntlArg::F_SETPIPE_SZ(WIDE_PIPE));
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.ended.load(Ordering::Relaxed) {
            self.kill();
        }
        self.link.forget(self.id);
    }
}
