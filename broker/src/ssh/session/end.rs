//! How a session ends, and how that is recorded and told.

use std::time::Duration;

use audit::SessionExit;
use gate::{EndCause, OpenSession, Outcome, Permit};
use russh::Disconnect;
use russh::server::Handle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use wire::message::{Exited, SessionInput};

use crate::recordings::Recorder;
use crate::ssh::Services;
use crate::ssh::followers::Followers;
use crate::ssh::screen::{Gone, Screen};
use crate::ssh::sever::Knife;

/// Exit status of a refusal (`EX_NOPERM`).
pub(crate) const NOT_PERMITTED: u8 = 77;
/// Exit status when something needed does not answer (`EX_UNAVAILABLE`).
pub(crate) const UNAVAILABLE: u8 = 69;
/// Exit status when the broker goes away for a while (`EX_TEMPFAIL`).
pub(super) const TRY_LATER: u8 = 75;

/// How long the last words may take when a session is ended.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(350);
/// How long a client may take to hang up by itself after them.
const HANG_UP: Duration = Duration::from_millis(200);
/// How long the disconnect may take before the connection is cut.
const CUT: Duration = Duration::from_millis(200);
/// The ways to end the whole connection.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) handle: Handle,
    pub(crate) knife: Knife,
    /// Fires when the connection is gone.
    pub(crate) gone: CancellationToken,
}

/// What a person is told whose session must be recorded and cannot be.
const NOT_RECORDED: &str = "Sessions of this study are recorded, and this one cannot be at the moment, so it ends. Please tell the operators; nothing is wrong with your access.";

/// How a session ended.
#[derive(Debug)]
pub(super) enum End {
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
    /// It must be recorded, and cannot be, for this reason.
    NotRecorded(String),
    /// The host of the workspace is taken out of service.
    Draining,
}

impl End {
    /// What the agent is told, if it has to be. Whoever leaves, or is sent away for a while, leaves
    /// what was made to go on; what may no longer be is killed.
    pub(super) fn for_agent(&self) -> Option<SessionInput> {
        let leave = |reason: &str| Some(SessionInput::Leave { reason: reason.to_owned() });
        match self {
            End::Exited(_) | End::AgentLost => None,
            // Either the agent ended it, and hears nothing any more, or this side did.
            End::Aborted(reason) => Some(SessionInput::Kill { reason: reason.clone() }),
            End::ClientGone => leave("the client left"),
            End::PermitEnded(cause) => Some(SessionInput::Kill { reason: cause.cause.code().to_owned() }),
            End::Stopping => leave("the broker is stopping"),
            End::Draining => leave("the host is taken out of service"),
            End::NotRecorded(_) => Some(SessionInput::Kill { reason: "it cannot be recorded".to_owned() }),
        }
    }
}

/// Records the end, then shows it to the person.
pub(super) async fn finish(
    services: &Services,
    end: End,
    refused: Option<String>,
    screen: &Screen,
    line: &Line,
    permit: Permit<OpenSession>,
    mut followers: Followers,
) -> Result<(), Gone> {
    let (exit, ended) = told(&end);
    let (bytes_in, bytes_out) = followers.stage().bytes();
    let outcome = Outcome { exit, ended, bytes_in, bytes_out };
    let session = permit.action().session.clone();
    let status = match &end {
        End::Exited(Exited::Code(code)) => Some(i32::from(*code)),
        _ => None,
    };
    let recorder = followers.take_recorder();
    let closing = async {
        if let Some(recorder) = recorder {
            seal(services, &permit, recorder, status).await;
        }
        if let Err(refusal) = services.gate.close_session(permit, outcome).await {
            tracing::error!(%session, code = %refusal.code, "the end of a session could not be recorded");
        }
        services.recordings.session_closed();
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
            let text = "The host of this workspace was lost from sight. Connect again in a moment: what you left running there with nohup or tmux is there still, unless the host itself went down.";
            screen.fail(text, TRY_LATER).await
        }
        End::ClientGone => {
            closing.await;
            Err(Gone)
        }
        End::PermitEnded(EndCause { message, .. }) => {
            tokio::join!(closing, hang_up(screen, line, &message, NOT_PERMITTED));
            Ok(())
        }
        End::NotRecorded(_) => {
            tokio::join!(closing, hang_up(screen, line, NOT_RECORDED, UNAVAILABLE));
            Ok(())
        }
        End::Stopping => {
            let text = "This gate is being stopped by its operators, and your session with it. Connect again in a few minutes; what you left running with nohup or tmux goes on.";
            tokio::join!(closing, hang_up(screen, line, text, TRY_LATER));
            Ok(())
        }
        End::Draining => {
            closing.await;
            let text = "The host of this workspace is taken out of service, and your session ends. Connect again later.";
            screen.fail(text, TRY_LATER).await
        }
    }
}

/// Ends a recording and has the log seal it.
async fn seal(services: &Services, permit: &Permit<OpenSession>, recorder: Recorder, status: Option<i32>) {
    let session = recorder.session().clone();
    let Some(recorded) = recorder.finish(status).await else {
        // What is on the disk is sealed at the next start.
        tracing::error!(%session, "the recorder of a session is gone");
        return;
    };
    match services.gate.session_recorded(permit, recorded).await {
        Ok(()) => services.recordings.keep(&session),
        Err(refusal) => {
            tracing::error!(%session, code = %refusal.code, "a recording could not be sealed; it waits for the next start");
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
        End::NotRecorded(reason) => {
            let text = format!("it must be recorded and cannot be: {reason}");
            (aborted(&text), Some(ours(audit::EndCause::RecordingFailed, &text)))
        }
        End::Stopping => {
            let text = "the broker is stopping";
            (aborted(text), Some(ours(audit::EndCause::Shutdown, text)))
        }
        End::Draining => {
            let text = "the host of the workspace is taken out of service";
            (aborted(text), Some(ours(audit::EndCause::Shutdown, text)))
        }
    }
}
