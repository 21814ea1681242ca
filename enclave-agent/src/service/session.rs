//! A session: from the ticket to the exit status.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use certs::ticket::{Order, SessionOrder};
use model::{Clock, Timestamp};
use tokio::sync::mpsc;
use wire::StreamError;
use wire::agent::{SessionReceiver, SessionSender, SessionStream};
use wire::message::{Command, OpenSession, Refused, SessionInput, SessionOutput};

use super::{Service, full, input, refused};
use crate::init_protocol::{CONNECTED, End};
use crate::workspace::{Lost, Owner, Pipe, Process, Streams};

/// Bytes read from a session's output at once.
const CHUNK: usize = 64 * 1024;
/// Pieces of input that may wait for a process to read them.
const WAITING: usize = 4;
/// How long the processes of a session may take to be gone once they are killed.
const PATIENCE: Duration = Duration::from_millis(800);
/// How long the rest of a terminal's output may take that others hold open.
const REST: Duration = Duration::from_millis(100);
/// How long the broker may take to hear the last word.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long a connection on a workspace's loopback may take.
const CONNECT: Duration = Duration::from_secs(10);
/// The most that is heard of why it failed.
const SAID_MAX: usize = 512;
/// The clock is asked this often whether access has ended: it may be set meanwhile.
const LOOK: Duration = Duration::from_secs(1);

/// How a session ended.
enum Outcome {
    /// By itself; everything it wrote was sent.
    Exited(End),
    /// From outside, with a sentence for the person.
    Aborted(String),
    /// The person is gone, or the broker: nobody is there to be told. What was made to go on does.
    Left,
}

impl Service {
    pub(super) async fn session(&self, by: usize, open: OpenSession, stream: SessionStream, has_place: bool) {
        let SessionStream { mut sender, receiver } = stream;
        let gone = sender.gone();
        tokio::pin!(gone);
        // What is being started ends with the stream, too.
        let begun = tokio::select! {
            begun = self.begin(by, open, has_place) => begun,
            () = &mut gone => return,
        };
        let mut begun = match begun {
            Ok(begun) => begun,
            Err(refused) => {
                let _ = tokio::time::timeout(FAREWELL, sender.send(SessionOutput::Refused(refused))).await;
                return;
            }
        };
        let opened = SessionOutput::Opened {
            workspace: begun.order.workspace.clone(),
            cold: begun.stay.cold,
            notices: begun.stay.container.notices(),
        };
        let outcome = match sender.send(opened).await {
            Err(_) => Outcome::Left,
            Ok(()) => tokio::select! {
                biased;
                () = &mut gone => Outcome::Left,
                () = begun.stay.container.gone() => Outcome::Aborted(ended(&begun.stay)),
                () = until(&*self.clock, begun.order.access_until) => {
                    Outcome::Aborted("your access to this study has ended".to_owned())
                }
                outcome = pump(&begun.process, begun.streams, begun.forwards, &mut sender, receiver) => outcome,
            },
        };
        let last = match outcome {
            Outcome::Exited(end) => Some(SessionOutput::Exit(input::exited(end))),
            Outcome::Left => {
                begun.process.leave();
                None
            }
            Outcome::Aborted(reason) => {
                // No byte more, whatever processes there still are.
                begun.stay.withdraw();
                begun.process.kill();
                match tokio::time::timeout(PATIENCE, begun.process.ended()).await {
                    Ok(_) => {}
                    Err(_) => {
                        tracing::error!(session = %begun.order.session, "a session outlived its kill");
                        self.workspaces.condemn(&begun.order.workspace, "a session could not be ended").await;
                    }
                }
                Some(SessionOutput::Aborted { reason })
            }
        };
        if let Some(last) = last {
            let _ = tokio::time::timeout(FAREWELL, sender.send(last)).await;
        }
    }

    async fn begin(&self, by: usize, open: OpenSession, has_place: bool) -> Result<Begun, Refused> {
        let Order::Session(order) = self.open(&open.ticket)?.order else {
            return Err(refused(
                "ticket.other_order",
                "The gate's order is not one for a session. Try again.",
            ));
        };
        if !has_place {
            return Err(full());
        }
        let owner =
            Owner { study: order.study.clone(), person: order.person.clone(), workspace: order.name.clone() };
        let forwards = matches!(open.command, Command::Connect { .. });
        let launch = input::launch(&owner, open.command, open.pty, open.env)?;
        (self.ordered)(by, &order.session, &order.workspace);
        let stay = self.workspaces.enter(&order).await.map_err(|error| {
            tracing::error!(workspace = %order.workspace, error = %chain(&error), "no workspace");
            refused(
                "workspace.failed",
                "Your workspace could not be started. Try again; if it stays so, tell the operators.",
            )
        })?;
        let (process, streams) =
            stay.container.launch_for(&order.session, launch).await.map_err(|error| {
                tracing::error!(workspace = %order.workspace, error = %chain(&error), "no session");
                refused(
                    "session.failed",
                    "Your session could not be started. Try again; if it stays so, tell the operators.",
                )
            })?;
        if forwards {
            connected(&streams).await?;
        }
        Ok(Begun { order, process, streams, forwards, stay })
    }
}

/// A session that runs. The fields are dropped in this order: processes before data.
struct Begun {
    order: SessionOrder,
    process: Process,
    streams: Streams,
    /// Whether it is the end of a connection.
    forwards: bool,
    stay: super::Stay,
}

/// What a person is told whose workspace has ended.
fn ended(stay: &super::Stay) -> String {
    format!("the workspace ended ({})", stay.container.why())
}

/// Waits until the end of a connection says that it is connected.
async fn connected(streams: &Streams) -> Result<(), Refused> {
    let Streams::Pipes { error, .. } = streams else {
        return Err(refused("connect.failed", "The connection could not be started. Try again."));
    };
    let heard = async {
        let mut said = Vec::new();
        while said.len() < SAID_MAX
            && let Some(more) = piece(error).await
        {
            said.extend_from_slice(&more);
        }
        said.truncate(SAID_MAX);
        String::from_utf8_lossy(&said).trim().to_owned()
    };
    match tokio::time::timeout(CONNECT, heard).await {
        Ok(said) if said == CONNECTED => Ok(()),
        Ok(said) if !said.is_empty() => Err(refused("connect.refused", said)),
        Ok(_) | Err(_) => Err(refused("connect.failed", "The workspace did not connect in time. Try again.")),
    }
}

/// Moves bytes until the session ends by itself, the broker ends it or the stream breaks.
async fn pump(
    process: &Process,
    streams: Streams,
    forwards: bool,
    sender: &mut SessionSender,
    receiver: SessionReceiver,
) -> Outcome {
    let (waiting, pieces) = mpsc::channel(WAITING);
    match streams {
        Streams::Terminal(terminal) => {
            let hearing = hear(process, Some(&terminal), receiver, waiting);
            let writing = feed_terminal(&terminal, pieces);
            let output = async {
                // What goes on in the background may hold the terminal open: the leader's end counts.
                let ended = {
                    let sending = send_all(&terminal, sender, SessionOutput::Stdout);
                    tokio::select! {
                        sent = sending => {
                            sent?;
                            None
                        }
                        ended = process.ended() => Some(ended),
                    }
                };
                match ended {
                    Some(ended) => {
                        let rest = send_all(&terminal, sender, SessionOutput::Stdout);
                        match tokio::time::timeout(REST, rest).await {
                            Ok(sent) => sent.map(|()| ended),
                            Err(_) => Ok(ended),
                        }
                    }
                    None => Ok(process.ended().await),
                }
            };
            race(hearing, writing, output).await
        }
        Streams::Pipes { input, output, error } => {
            let hearing = hear(process, None, receiver, waiting);
            let writing = feed_pipe(input, pieces);
            let output = async {
                if forwards {
                    send_all(&output, sender, SessionOutput::Stdout).await?;
                    sender.send(SessionOutput::StdoutEof).await?;
                } else {
                    send_both(&output, &error, sender).await?;
                }
                Ok(process.ended().await)
            };
            race(hearing, writing, output).await
        }
    }
}

async fn race(
    hearing: impl Future<Output = Outcome>,
    writing: impl Future<Output = Infallible>,
    output: impl Future<Output = Result<Result<End, Lost>, StreamError>>,
) -> Outcome {
    tokio::select! {
        outcome = hearing => outcome,
        never = writing => match never {},
        ended = output => match ended {
            Ok(Ok(end)) => Outcome::Exited(end),
            Ok(Err(Lost)) => Outcome::Aborted("the workspace ended".to_owned()),
            Err(_) => Outcome::Left,
        },
    }
}

/// Takes what the broker says; returns when the session is to end.
async fn hear(
    process: &Process,
    terminal: Option<&Pipe>,
    mut receiver: SessionReceiver,
    waiting: mpsc::Sender<Option<Bytes>>,
) -> Outcome {
    loop {
        match receiver.next().await {
            // Whoever reads them is never gone before this function is.
            Ok(Some(SessionInput::Stdin(bytes))) => drop(waiting.send(Some(bytes)).await),
            Ok(Some(SessionInput::StdinEof)) => drop(waiting.send(None).await),
            Ok(Some(SessionInput::Resize(to))) => {
                if let Some(terminal) = terminal {
                    let (rows, cols, width_px, height_px) = input::size(to);
                    let _ = terminal.resize(rows, cols, width_px, height_px);
                }
            }
            Ok(Some(SessionInput::Signal(name))) => {
                if let Some(signal) = input::parse_signal(&name) {
                    process.signal(signal);
                }
            }
            Ok(Some(SessionInput::Kill { reason })) => return Outcome::Aborted(reason),
            Ok(Some(SessionInput::Leave { .. }) | None) | Err(_) => return Outcome::Left,
        }
    }
}

/// Writes input into a pipe; its end closes the pipe. What nobody reads any more is dropped.
async fn feed_pipe(input: Pipe, mut pieces: mpsc::Receiver<Option<Bytes>>) -> Infallible {
    let mut open = Some(input);
    while let Some(piece) = pieces.recv().await {
        let writes = match (&open, piece) {
            (Some(pipe), Some(bytes)) => pipe.write_all(&bytes).await.is_ok(),
            (_, None) => false,
            (None, Some(_)) => continue,
        };
        if !writes {
            open = None;
        }
    }
    std::future::pending().await
}

/// Writes input into a terminal, whose end of input is a character.
async fn feed_terminal(terminal: &Pipe, mut pieces: mpsc::Receiver<Option<Bytes>>) -> Infallible {
    const END_OF_TRANSMISSION: &[u8] = &[4];
    while let Some(piece) = pieces.recv().await {
        let bytes = piece.unwrap_or(Bytes::from_static(END_OF_TRANSMISSION));
        let _ = terminal.write_all(&bytes).await;
    }
    std::future::pending().await
}

async fn send_all(
    from: &Pipe,
    sender: &mut SessionSender,
    name: impl Fn(Bytes) -> SessionOutput,
) -> Result<(), StreamError> {
    while let Some(bytes) = piece(from).await {
        sender.send(name(bytes)).await?;
    }
    Ok(())
}

/// Sends both outputs in the order in which they are found.
async fn send_both(output: &Pipe, error: &Pipe, sender: &mut SessionSender) -> Result<(), StreamError> {
    loop {
        tokio::select! {
            bytes = piece(output) => match bytes {
                Some(bytes) => sender.send(SessionOutput::Stdout(bytes)).await?,
                None => return send_all(error, sender, SessionOutput::Stderr).await,
            },
            bytes = piece(error) => match bytes {
                Some(bytes) => sender.send(SessionOutput::Stderr(bytes)).await?,
                None => return send_all(output, sender, SessionOutput::Stdout).await,
            },
        }
    }
}

/// The next bytes, none at the end. It may be cancelled without loss.
async fn piece(from: &Pipe) -> Option<Bytes> {
    from.take(CHUNK).await.ok().filter(|bytes| !bytes.is_empty())
}

async fn until(clock: &dyn Clock, end: Timestamp) {
    loop {
        let left = end.since(clock.now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK)).await;
    }
}

/// An error with its sources, for the log.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        text.push_str(": ");
        text.push_str(&next.to_string());
        source = next.source();
    }
    text
}
