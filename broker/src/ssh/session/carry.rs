//! The bytes of one session, both ways.

use std::time::Duration;

use audit::{EventKind, RecordingMode};
use bytes::Bytes;
use gate::{OpenSession, Permit};
use tokio::sync::mpsc;
use tokio::time::timeout;
use wire::broker::{SessionReceiver, SessionSender, SessionStream};
use wire::message::{SessionInput, SessionOutput};

use super::end::{End, LAST_WORDS};
use crate::drain::{Drain, Stage, in_words};
use crate::happening::Happening;
use crate::ssh::Services;
use crate::ssh::files::Files;
use crate::ssh::followers::Followers;
use crate::ssh::input::{Input, InputBuffer};
use crate::ssh::screen::{Gone, Screen};

/// How long an agent may take to hear that a session is over.
const TELL_AGENT: Duration = Duration::from_millis(100);

/// What both directions of a session work with.
pub(super) struct Carried<'a> {
    pub(super) services: &'a Services,
    pub(super) screen: &'a Screen,
    pub(super) permit: &'a Permit<OpenSession>,
    pub(super) followers: &'a Followers,
    pub(super) files: Option<&'a Files>,
    /// What others say to the person.
    pub(super) words: &'a tokio::sync::Mutex<mpsc::Receiver<String>>,
    /// How the host of the workspace goes out of service.
    pub(super) host: &'a Drain,
}

impl Carried<'_> {
    /// Carries bytes both ways until something ends the session; then tells the agent.
    pub(super) async fn carry(&self, mut stream: SessionStream, input: &InputBuffer) -> End {
        let end = {
            let sender = &mut stream.sender;
            let receiver = &mut stream.receiver;
            tokio::select! {
                biased;
                cause = self.permit.ended() => End::PermitEnded(cause),
                () = self.services.stopping.cancelled() => End::Stopping,
                end = self.unrecorded() => end,
                end = self.left_alone() => end,
                end = self.spoken_to() => end,
                end = self.drained() => end,
                end = self.outward(receiver) => end,
                end = self.inward(sender, input) => end,
            }
        };
        if let Some(last) = end.for_agent() {
            let _ = timeout(TELL_AGENT, stream.sender.end(last)).await;
        }
        end
    }

    /// Tells the person that the gate or the host of the workspace goes out of service; returns when
    /// that is.
    async fn drained(&self) -> End {
        let (mut gate, mut host) = (Stage::Open, Stage::Open);
        loop {
            let (what, what_is_left, stage) = tokio::select! {
                stage = self.services.drain.after(gate) => {
                    gate = stage;
                    ("This gate", "goes on", stage)
                }
                stage = self.host.after(host) => {
                    host = stage;
                    ("The host of this workspace", "ends with it", stage)
                }
            };
            match stage {
                Stage::Open => {}
                Stage::Closing(within) => {
                    let text = format!(
                        "{what} is taken out of service in {}. Finish what you are at; what you leave running with nohup or tmux {what_is_left}.",
                        in_words(within)
                    );
                    // A client that does not read must not hold up the end.
                    let _ = timeout(LAST_WORDS, self.screen.say(&text)).await;
                }
                Stage::Over if gate == Stage::Over => return End::Stopping,
                Stage::Over => return End::Draining,
            }
        }
    }

    async fn inward(&self, sender: &mut SessionSender, input: &InputBuffer) -> End {
        loop {
            let sent = match input.next().await {
                Input::Data(data) if self.followers.stage().answer(&data) => continue,
                Input::Data(data) => {
                    self.followers.tell(&Happening::Input(data.clone())).await;
                    match self.files {
                        None => sender.send(SessionInput::Stdin(data)).await.is_ok(),
                        Some(files) => match ask(files, sender, data, input).await {
                            Ok(sent) => sent,
                            Err(end) => return end,
                        },
                    }
                }
                Input::Eof => sender.send(SessionInput::StdinEof).await.is_ok(),
                Input::Resize(size) => {
                    self.followers.tell(&Happening::Resized(size)).await;
                    sender.send(SessionInput::Resize(size)).await.is_ok()
                }
                Input::Signal(name) => sender.send(SessionInput::Signal(name)).await.is_ok(),
                Input::Closed => return End::ClientGone,
            };
            if !sent {
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
                                if self.show(Happening::Output(piece)).await == Err(Gone) {
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
            let happening = match next {
                Ok(Some(SessionOutput::Stdout(data))) => Happening::Output(data),
                Ok(Some(SessionOutput::Stderr(data))) => Happening::Error(data),
                Ok(Some(SessionOutput::StdoutEof)) => Happening::OutputEnded,
                Ok(Some(SessionOutput::Exit(exited))) => return End::Exited(exited),
                Ok(Some(SessionOutput::Aborted { reason })) => return End::Aborted(reason),
                Ok(Some(SessionOutput::Opened { .. } | SessionOutput::Refused(_))) => {
                    return End::Aborted("the agent spoke out of turn".to_owned());
                }
                Ok(None) | Err(_) => return End::AgentLost,
            };
            if self.show(happening).await == Err(Gone) {
                return End::ClientGone;
            }
        }
    }

    /// Waits until the session must end because it is not recorded any more. That it is not is on
    /// record then; where it may go on, nothing ends here.
    async fn unrecorded(&self) -> End {
        let (reason, strict) = self.followers.broken().await;
        let kind = degraded(strict, reason.clone());
        let recorded = self.services.gate.record_in(self.permit, kind).await;
        if strict || recorded.is_err() {
            return End::NotRecorded(reason);
        }
        let text = "This session can no longer be recorded. It goes on, and that is on record.";
        self.screen.say(text).await.ok();
        std::future::pending().await
    }

    /// Waits until the second person has left whom the session takes.
    async fn left_alone(&self) -> End {
        if !self.permit.action().moderated {
            std::future::pending::<()>().await;
        }
        self.followers.stage().attended(false).await;
        match self.services.gate.moderator_left(self.permit).await {
            Ok(cause) => End::PermitEnded(cause),
            Err(refusal) => End::Aborted(refusal.message),
        }
    }

    /// Passes on what others say to the person.
    async fn spoken_to(&self) -> End {
        let mut words = self.words.lock().await;
        while let Some(text) = words.recv().await {
            if self.show(Happening::Said(text)).await == Err(Gone) {
                return End::ClientGone;
            }
        }
        std::future::pending().await
    }

    async fn show(&self, happening: Happening) -> Result<(), Gone> {
        self.followers.tell(&happening).await;
        self.screen.show(happening).await
    }
}

/// The record of a session that cannot be recorded.
pub(super) fn degraded(strict: bool, reason: String) -> EventKind {
    let mode = if strict { RecordingMode::Strict } else { RecordingMode::BestEffort };
    EventKind::RecordingDegraded { mode, reason }
}

/// Puts what the client sent before the mediator of files; whether the agent took what may pass.
async fn ask(
    files: &Files,
    sender: &mut SessionSender,
    data: Bytes,
    input: &InputBuffer,
) -> Result<bool, End> {
    let pieces = tokio::select! {
        pieces = files.asked(data) => pieces,
        () = input.closed() => return Err(End::ClientGone),
    };
    for piece in pieces.map_err(|broken| End::Aborted(broken.to_string()))? {
        if sender.send(SessionInput::Stdin(piece)).await.is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The agent takes no more: the command may have ended, and the other direction tells how.
async fn gone(input: &InputBuffer) -> End {
    input.closed().await;
    End::ClientGone
}
