//! One session: from the request for a shell to its last byte.
//!
//! The gate decides and records; an agent runs the command; this module carries bytes both ways
//! and sees to it that the session ends when its permit does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use audit::{Event, EventKind, SessionExit};
use bytes::Bytes;
use gate::{EndCause, Entry, OpenSession, Outcome, Permit, Refusal, RefusalKind, SessionRequest, Wanted};
use model::{AgentId, StudyId};
use policy::CertificateRules;
use russh::Disconnect;
use russh::server::Handle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use wire::message::{Command, Exited, Pty, SessionInput, SessionOutput};

use super::Services;
use super::files::Files;
use super::input::{Input, InputBuffer};
use super::rate::TooOften;
use super::screen::{Gone, Screen};
use super::sever::Knife;
use wire::broker::{AgentLink, SessionReceiver, SessionSender, SessionStream};

/// Exit status of a refusal (`EX_NOPERM`).
const NOT_PERMITTED: u8 = 77;
/// Exit status when something needed does not answer (`EX_UNAVAILABLE`).
const UNAVAILABLE: u8 = 69;
/// Exit status when the broker goes away for a while (`EX_TEMPFAIL`).
const TRY_LATER: u8 = 75;

/// How long an agent may take to start a workspace.
const START: Duration = Duration::from_secs(60);
/// How long the last words may take when a session is ended.
const LAST_WORDS: Duration = Duration::from_millis(350);
/// How long a client may take to hang up by itself after them.
const HANG_UP: Duration = Duration::from_millis(200);
/// How long the disconnect may take before the connection is cut.
const CUT: Duration = Duration::from_millis(200);
/// How long an agent may take to hear that a session is over.
const TELL_AGENT: Duration = Duration::from_millis(100);

/// What a client asks for.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) entry: Entry,
    pub(crate) study: StudyId,
    pub(crate) certificate: CertificateRules,
    pub(crate) purpose: Option<String>,
    pub(crate) wanted: Wanted,
    /// The bytes of the command, if it is one.
    pub(crate) line: Vec<u8>,
    /// What the client asked for, if its certificate forces another command.
    pub(crate) original: Option<String>,
    pub(crate) pty: Option<Pty>,
    pub(crate) env: Vec<(String, String)>,
    /// What was refused on the way here, for the person to read.
    pub(crate) notes: Vec<String>,
}

/// The ways to end the whole connection.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) handle: Handle,
    pub(crate) knife: Knife,
    /// Fires when the connection is gone.
    pub(crate) gone: CancellationToken,
}

#[derive(Debug, Default)]
struct Counts {
    inward: AtomicU64,
    outward: AtomicU64,
}

/// How a session ended.
#[derive(Debug)]
enum End {
    /// By itself.
    Exited(Exited),
    /// The agent ended it.
    Aborted(String),
    /// The agent is gone.
    AgentLost,
    /// The client is gone.
    ClientGone,
    /// The permit ended.
    PermitEnded(EndCause),
    /// The broker is stopping.
    Stopping,
}

/// Runs one session to its end.
pub(crate) async fn run(
    services: Arc<Services>,
    wish: Wish,
    screen: Screen,
    input: Arc<InputBuffer>,
    line: Line,
) {
    let told = serve(&services, wish, &screen, &input, &line).await;
    if told == Err(Gone) {
        tracing::debug!(channel = %screen.id(), "the client left");
    }
    input.close();
}

async fn serve(
    services: &Services,
    wish: Wish,
    screen: &Screen,
    input: &InputBuffer,
    line: &Line,
) -> Result<(), Gone> {
    for note in &wish.notes {
        screen.say(note).await?;
    }
    if let Err(TooOften { wait, first }) =
        services.openings.take(wish.entry.person.clone(), services.gate.now())
    {
        let text = format!(
            "You open things here faster than anybody can use them. Try again in {} s.",
            wait.as_secs() + 1
        );
        if first {
            record_refused(services, &wish, "too-often", &text).await;
        }
        return screen.fail(&text, TRY_LATER).await;
    }
    let Ok(_slot) = services.slots.clone().try_acquire_owned() else {
        return screen
            .fail("Too many sessions are open at this gate. Try again in a few minutes.", UNAVAILABLE)
            .await;
    };
    let Some(link) = services.hub.choose() else {
        record_refused(services, &wish, "no_host", "no host for workspaces is connected").await;
        let text = "No host for workspaces is connected at the moment. Try again in a few minutes; the operators see this too.";
        return screen.fail(text, UNAVAILABLE).await;
    };
    // Not interrupted when the client leaves: what was opened is closed properly below.
    let permit = match services.gate.open_session(&wish.entry, &asked(&wish, link.agent())).await {
        Ok(permit) => permit,
        Err(refusal) => return refuse(screen, &refusal).await,
    };
    for notice in &permit.action().notices {
        screen.say(notice).await.ok();
    }
    if !permit.action().environment && !wish.env.is_empty() {
        screen.say("This study lets no variables of your environment come along.").await.ok();
    }
    let counts = Counts::default();
    let files = (wish.wanted == Wanted::Sftp).then(|| Files::new(permit.action()));
    let (end, refused) = match start(services, &link, &permit, &wish, input).await {
        Ok(stream) => {
            screen.opened().await;
            let carried =
                Carried { services, screen, permit: &permit, counts: &counts, files: files.as_ref() };
            (carried.carry(stream, input).await, None)
        }
        Err(NotStarted::Refused { code, message }) => (End::Aborted(code), Some(message)),
        Err(NotStarted::End(end)) => (end, None),
    };
    if let Some(files) = &files {
        files.end(services, &permit).await;
    }
    finish(services, end, refused, screen, line, permit, &counts).await
}

fn asked(wish: &Wish, agent: &AgentId) -> SessionRequest {
    SessionRequest {
        study: wish.study.clone(),
        purpose: wish.purpose.clone(),
        agent: agent.clone(),
        pty: wish.pty.is_some(),
        wanted: wish.wanted.clone(),
        certificate: wish.certificate,
    }
}

/// The gate was not asked, so the refusal is recorded here.
async fn record_refused(services: &Services, wish: &Wish, code: &str, reason: &str) {
    let kind = EventKind::SessionRefused { code: code.to_owned(), reason: reason.to_owned() };
    let mut event = Event::new(services.gate.now(), kind);
    event.person = Some(wish.entry.person.clone());
    event.study = Some(wish.study.clone());
    event.peer = wish.entry.peer.map(|peer| peer.to_string());
    if let Err(refusal) = services.gate.record(&event).await {
        tracing::error!(code = %refusal.code, "a refusal could not be recorded");
    }
}

async fn refuse(screen: &Screen, refusal: &Refusal) -> Result<(), Gone> {
    let status = if refusal.kind == RefusalKind::Unavailable { UNAVAILABLE } else { NOT_PERMITTED };
    screen.fail(&refusal.message, status).await
}

enum NotStarted {
    Refused { code: String, message: String },
    End(End),
}

async fn start(
    services: &Services,
    link: &AgentLink,
    permit: &Permit<OpenSession>,
    wish: &Wish,
    input: &InputBuffer,
) -> Result<SessionStream, NotStarted> {
    let ticket = services
        .gate
        .session_ticket(permit, link.agent())
        .map_err(|refusal| NotStarted::Refused { code: refusal.code, message: refusal.message })?;
    let command = match wish.wanted {
        Wanted::Shell => Command::Shell,
        Wanted::Exec(_) => Command::Exec(wish.line.clone()),
        Wanted::Sftp => Command::Sftp { data: permit.action().files.export_data },
        Wanted::Forward(port) => Command::Connect { port },
    };
    let mut env = if permit.action().environment { wish.env.clone() } else { Vec::new() };
    env.extend(wish.original.iter().map(|line| ("SSH_ORIGINAL_COMMAND".to_owned(), line.clone())));
    let order = wire::message::OpenSession { ticket, command, pty: wish.pty.clone(), env };
    let opening = async {
        let mut stream = link.open_session(order).await.map_err(|_| End::AgentLost)?;
        match stream.receiver.next().await {
            Ok(Some(first)) => Ok((stream, first)),
            Ok(None) | Err(_) => Err(End::AgentLost),
        }
    };
    let opened = tokio::select! {
        opened = timeout(START, opening) => opened.unwrap_or_else(|_| Err(End::Aborted("the workspace did not start in time".to_owned()))),
        cause = permit.ended() => Err(End::PermitEnded(cause)),
        () = input.closed() => Err(End::ClientGone),
        () = services.stopping.cancelled() => Err(End::Stopping),
    };
    match opened.map_err(NotStarted::End)? {
        (stream, SessionOutput::Opened { .. }) => Ok(stream),
        (_, SessionOutput::Refused(refused)) => {
            Err(NotStarted::Refused { code: refused.code, message: refused.message })
        }
        (_, SessionOutput::Aborted { reason }) => Err(NotStarted::End(End::Aborted(reason))),
        (_, _) => Err(NotStarted::End(End::Aborted("the agent spoke out of turn".to_owned()))),
    }
}

/// What both directions of a session work with.
struct Carried<'a> {
    services: &'a Services,
    screen: &'a Screen,
    permit: &'a Permit<OpenSession>,
    counts: &'a Counts,
    files: Option<&'a Files>,
}

impl Carried<'_> {
    /// Carries bytes both ways until something ends the session; then tells the agent.
    async fn carry(&self, mut stream: SessionStream, input: &InputBuffer) -> End {
        let end = {
            let sender = &mut stream.sender;
            let receiver = &mut stream.receiver;
            tokio::select! {
                biased;
                cause = self.permit.ended() => End::PermitEnded(cause),
                () = self.services.stopping.cancelled() => End::Stopping,
                end = self.outward(receiver) => end,
                end = self.inward(sender, input) => end,
            }
        };
        let over = match &end {
            End::Exited(_) | End::AgentLost => None,
            // Either the agent ended it, and hears nothing any more, or this side did.
            End::Aborted(reason) => Some(reason.clone()),
            End::ClientGone => Some("the client left".to_owned()),
            End::PermitEnded(cause) => Some(cause.cause.code().to_owned()),
            End::Stopping => Some("the broker is stopping".to_owned()),
        };
        if let Some(reason) = over {
            let _ = timeout(TELL_AGENT, stream.sender.kill(reason)).await;
        }
        end
    }

    async fn inward(&self, sender: &mut SessionSender, input: &InputBuffer) -> End {
        loop {
            let message = match input.next().await {
                Input::Data(data) => {
                    self.counts.inward.fetch_add(data.len() as u64, Ordering::Relaxed);
                    let Some(files) = self.files else {
                        if sender.send(SessionInput::Stdin(data)).await.is_err() {
                            return gone(input).await;
                        }
                        continue;
                    };
                    let pieces = tokio::select! {
                        pieces = files.asked(data) => pieces,
                        () = input.closed() => return End::ClientGone,
                    };
                    match pieces {
                        Ok(pieces) => {
                            for piece in pieces {
                                if sender.send(SessionInput::Stdin(piece)).await.is_err() {
                                    return gone(input).await;
                                }
                            }
                        }
                        Err(broken) => return End::Aborted(broken.to_string()),
                    }
                    continue;
                }
                Input::Eof => SessionInput::StdinEof,
                Input::Resize(size) => SessionInput::Resize(size),
                Input::Signal(name) => SessionInput::Signal(name),
                Input::Closed => return End::ClientGone,
            };
            if sender.send(message).await.is_err() {
                return gone(input).await;
            }
        }
    }

    async fn outward(&self, receiver: &mut SessionReceiver) -> End {
        loop {
            let next = match self.files {
                None => receiver.next().await,
                Some(files) => {
                    let next = tokio::select! {
                        biased;
                        next = receiver.next() => Some(next),
                        () = files.answers() => None,
                    };
                    if let Some(Ok(Some(SessionOutput::Stdout(data)))) = &next
                        && let Err(broken) = files.answered(data.clone())
                    {
                        return End::Aborted(broken.to_string());
                    }
                    match files.deliver(self.services, self.permit, self.screen).await {
                        Ok(pieces) => {
                            for piece in pieces {
                                if self.write(piece).await == Err(Gone) {
                                    return End::ClientGone;
                                }
                            }
                        }
                        Err(refusal) => return End::Aborted(refusal.message),
                    }
                    match next {
                        None | Some(Ok(Some(SessionOutput::Stdout(_)))) => continue,
                        Some(other) => other,
                    }
                }
            };
            let written = match next {
                Ok(Some(SessionOutput::Stdout(data))) => self.write(data).await,
                Ok(Some(SessionOutput::Stderr(data))) => {
                    self.count(&data);
                    self.screen.stderr(data).await
                }
                Ok(Some(SessionOutput::StdoutEof)) => self.screen.eof().await,
                Ok(Some(SessionOutput::Exit(exited))) => return End::Exited(exited),
                Ok(Some(SessionOutput::Aborted { reason })) => return End::Aborted(reason),
                Ok(Some(SessionOutput::Opened { .. } | SessionOutput::Refused(_))) => {
                    return End::Aborted("the agent spoke out of turn".to_owned());
                }
                Ok(None) | Err(_) => return End::AgentLost,
            };
            if written == Err(Gone) {
                return End::ClientGone;
            }
        }
    }

    async fn write(&self, data: Bytes) -> Result<(), Gone> {
        self.count(&data);
        self.screen.stdout(data).await
    }

    fn count(&self, data: &Bytes) {
        self.counts.outward.fetch_add(data.len() as u64, Ordering::Relaxed);
    }
}

/// The agent takes no more: the command may have ended, and the other direction tells how.
async fn gone(input: &InputBuffer) -> End {
    input.closed().await;
    End::ClientGone
}

/// Records the end, then shows it to the person.
async fn finish(
    services: &Services,
    end: End,
    refused: Option<String>,
    screen: &Screen,
    line: &Line,
    permit: Permit<OpenSession>,
    counts: &Counts,
) -> Result<(), Gone> {
    let (exit, ended) = told(&end);
    let outcome = Outcome {
        exit,
        ended,
        bytes_in: counts.inward.load(Ordering::Relaxed),
        bytes_out: counts.outward.load(Ordering::Relaxed),
    };
    let session = permit.action().session.clone();
    let closing = async {
        if let Err(refusal) = services.gate.close_session(permit, outcome).await {
            tracing::error!(%session, code = %refusal.code, "the end of a session could not be recorded");
        }
    };
    match end {
        End::Exited(exited) => {
            closing.await;
            screen.exit(&exited).await
        }
        End::Aborted(reason) => {
            closing.await;
            let text = refused.unwrap_or(format!("The workspace ended this session: {reason}."));
            screen.fail(&text, UNAVAILABLE).await
        }
        End::AgentLost => {
            closing.await;
            let text = "The host of this workspace was lost. Connect again; what ran there is gone.";
            screen.fail(text, UNAVAILABLE).await
        }
        End::ClientGone => {
            closing.await;
            Err(Gone)
        }
        End::PermitEnded(EndCause { message, .. }) => {
            tokio::join!(closing, hang_up(screen, line, &message, NOT_PERMITTED));
            Ok(())
        }
        End::Stopping => {
            let text = "This gate is being stopped by its operators, and your session with it. Connect again in a few minutes.";
            tokio::join!(closing, hang_up(screen, line, text, TRY_LATER));
            Ok(())
        }
    }
}

/// Ends the whole connection within a second, whether or not the client reads.
async fn hang_up(screen: &Screen, line: &Line, text: &str, status: u8) {
    let _ = timeout(LAST_WORDS, screen.fail(text, status)).await;
    // A client that reads leaves by itself now, with the exit status; a disconnect would hide it.
    if timeout(HANG_UP, line.gone.cancelled()).await.is_ok() {
        return;
    }
    let bye = line.handle.disconnect(Disconnect::ByApplication, text.to_owned(), "en".to_owned());
    let _ = timeout(CUT, async {
        let _ = bye.await;
        line.gone.cancelled().await;
    })
    .await;
    line.knife.cut();
}

/// What the records say of an end: how it looked, and who ended it if we did.
fn told(end: &End) -> (SessionExit, Option<EndCause>) {
    let aborted = |reason: &str| SessionExit::Aborted { reason: reason.to_owned() };
    let ours =
        |cause: audit::EndCause, message: &str| EndCause { cause, grant: None, message: message.to_owned() };
    match end {
        End::Exited(Exited::Code(code)) => (SessionExit::Code { code: *code }, None),
        End::Exited(Exited::Signal { name, .. }) => (SessionExit::Signal { name: name.clone() }, None),
        End::Aborted(reason) => (aborted(reason), None),
        End::AgentLost => {
            let text = "the host of the workspace was lost";
            (aborted(text), Some(ours(audit::EndCause::AgentLost, text)))
        }
        End::ClientGone => (aborted("the client left"), None),
        End::PermitEnded(cause) => (aborted(cause.cause.code()), Some(cause.clone())),
        End::Stopping => {
            let text = "the broker is stopping";
            (aborted(text), Some(ours(audit::EndCause::Shutdown, text)))
        }
    }
}

/// Tells the person that something is not offered, and closes the channel.
pub(crate) async fn deny(screen: Screen, text: String, gone: CancellationToken) {
    tokio::select! {
        _ = screen.fail(&text, NOT_PERMITTED) => {}
        () = gone.cancelled() => {}
    }
}
