//! One session: from the request for a shell to its last byte.
//!
//! The gate decides and records; an agent runs the command; [`carry`] carries bytes both ways and
//! sees to it that the session ends when its permit does. What happens is told in one vocabulary
//! ([`crate::happening`]) to the client and to whoever else follows.

mod carry;
mod end;

use std::sync::Arc;
use std::time::Duration;

use audit::{Event, EventKind, RecordingMode};
use gate::{Entry, OpenSession, Permit, Refusal, RefusalKind, SessionRequest, Target, Wanted};
use model::AgentId;
use policy::CertificateRules;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use wire::broker::{AgentLink, SessionStream};
use wire::message::{Command, Pty, SessionOutput};

use super::Services;
use super::choose;
use super::files::Files;
use super::followers::Followers;
use super::input::InputBuffer;
use super::rate::TooOften;
use super::screen::{Gone, Screen};
use super::stage::{Bill, Stage, size_of};
use crate::drain;
use crate::recordings::{Recorder, Sheet};
use carry::{Carried, degraded};
pub(crate) use end::Line;
use end::{End, TRY_LATER, finish};
pub(crate) use end::{NOT_PERMITTED, UNAVAILABLE};

/// What is told to whoever comes while the gate goes out of service.
const CLOSING: &str =
    "This gate is being taken out of service by its operators. Connect again in a few minutes.";
/// How long an agent may take to start a workspace.
const START: Duration = Duration::from_secs(60);

/// How long a session waits for the second person that it takes.
const COMPANY: Duration = Duration::from_secs(600);

/// What a client asks for.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) entry: Entry,
    pub(crate) target: Target,
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
    input: &Arc<InputBuffer>,
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
    if services.drain.stage() != drain::Stage::Open {
        return screen.fail(CLOSING, TRY_LATER).await;
    }
    let Ok(_slot) = services.slots.clone().try_acquire_owned() else {
        return screen
            .fail("Too many sessions are open at this gate. Try again in a few minutes.", UNAVAILABLE)
            .await;
    };
    let at = match services.gate.whereabouts(&wish.entry.person, &wish.target).await {
        Ok(at) => at,
        Err(refusal) => return refuse(screen, &refusal).await,
    };
    let link = match services.hub.place(&at) {
        Ok(link) => link,
        Err(none) => {
            let text = none.to_string();
            record_refused(services, &wish, none.code(), &text).await;
            return screen.fail(&text, UNAVAILABLE).await;
        }
    };
    // Not interrupted when the client leaves: what was opened is closed properly below.
    let permit = match services.gate.open_session(&wish.entry, &asked(&wish, link.agent())).await {
        Ok(permit) => permit,
        Err(refusal) => {
            let refusal = choose::with_advice(services, &wish.entry.person, refusal).await;
            return refuse(screen, &refusal).await;
        }
    };
    for notice in &permit.action().notices {
        screen.say(notice).await.ok();
    }
    if !permit.action().environment && !wish.env.is_empty() {
        screen.say("This study lets no variables of your environment come along.").await.ok();
    }
    let (recorder, unrecorded) = match record(services, &permit, &wish).await {
        Ok(recorder) => (recorder, None),
        Err(end) => (None, Some(end)),
    };
    let (entered, words) = services.stages.enter(bill(services, &permit, &wish), Arc::clone(input));
    let words = tokio::sync::Mutex::new(words);
    let followers = Followers::new(entered, recorder);
    let files = (wish.wanted == Wanted::Sftp).then(|| Files::new(permit.action()));
    let started = match unrecorded {
        Some(end) => Err(NotStarted::End(end)),
        None => match attended(services, &permit, followers.stage(), screen, input).await {
            Ok(()) => start(services, &link, &permit, &wish, input).await,
            Err(end) => Err(NotStarted::End(end)),
        },
    };
    let (end, refused) = match started {
        Ok((stream, notices)) => {
            services.hub.entered(&services.gate, &link, &permit.action().workspace);
            for notice in notices {
                screen.say(&notice).await.ok();
            }
            screen.opened().await;
            let host = services.hub.drain(link.agent());
            let carried = Carried {
                services,
                screen,
                permit: &permit,
                followers: &followers,
                files: files.as_ref(),
                words: &words,
                host: &host,
            };
            (carried.carry(stream, input).await, None)
        }
        Err(NotStarted::Refused { code, message }) => (End::Aborted(code), Some(message)),
        Err(NotStarted::End(end)) => (end, None),
    };
    if let Some(files) = &files {
        files.end(services, &permit).await;
    }
    finish(services, end, refused, screen, line, permit, followers).await
}

fn asked(wish: &Wish, agent: &AgentId) -> SessionRequest {
    SessionRequest {
        study: wish.target.study.clone(),
        workspace: wish.target.workspace.clone(),
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
    event.study = Some(wish.target.study.clone());
    event.peer = wish.entry.peer.map(|peer| peer.to_string());
    if let Err(refusal) = services.gate.record(&event).await {
        tracing::error!(code = %refusal.code, "a refusal could not be recorded");
    }
}

async fn refuse(screen: &Screen, refusal: &Refusal) -> Result<(), Gone> {
    let status = if refusal.kind == RefusalKind::Unavailable { UNAVAILABLE } else { NOT_PERMITTED };
    screen.fail(&refusal.message, status).await
}

/// What those see of a session who may look on.
fn bill(services: &Services, permit: &Permit<OpenSession>, wish: &Wish) -> Bill {
    let access = permit.action();
    Bill {
        session: access.session.clone(),
        person: access.person.clone(),
        study: access.study.clone(),
        since: services.gate.now(),
        what: match &wish.wanted {
            Wanted::Shell => "shell".to_owned(),
            Wanted::Exec(line) => line.clone(),
            Wanted::Sftp => "sftp".to_owned(),
            Wanted::Forward(port) => format!("port {port}"),
        },
        terminal: wish.pty.as_ref().map(size_of),
        recorded: match access.recording {
            None => RecordingMode::Off,
            Some(order) if order.strict => RecordingMode::Strict,
            Some(_) => RecordingMode::BestEffort,
        },
    }
}

/// Waits for the second person, if the session takes one.
async fn attended(
    services: &Services,
    permit: &Permit<OpenSession>,
    stage: &Arc<Stage>,
    screen: &Screen,
    input: &InputBuffer,
) -> Result<(), End> {
    if !permit.action().moderated {
        return Ok(());
    }
    let session = &permit.action().session;
    let text = format!(
        "Sessions of this study start when a second person is there. Ask somebody who may watch to run: sekisho sessions watch {}",
        session.name()
    );
    screen.say(&text).await.map_err(|Gone| End::ClientGone)?;
    stage.set_waiting(true);
    let came = tokio::select! {
        () = stage.attended(true) => Ok(()),
        cause = permit.ended() => Err(End::PermitEnded(cause)),
        () = input.closed() => Err(End::ClientGone),
        () = services.stopping.cancelled() => Err(End::Stopping),
        () = tokio::time::sleep(COMPANY) => Err(End::Aborted("no second person came in time".to_owned())),
    };
    stage.set_waiting(false);
    came
}

/// Begins the recording of a session, if it is to be recorded.
async fn record(
    services: &Services,
    permit: &Permit<OpenSession>,
    wish: &Wish,
) -> Result<Option<Recorder>, End> {
    let access = permit.action();
    let Some(order) = access.recording else { return Ok(None) };
    let (cols, rows) = wish.pty.as_ref().map_or((80, 24), size_of);
    let term = wish.pty.as_ref().map(|pty| pty.term.clone());
    let sheet = Sheet {
        session: access.session.clone(),
        begun: services.gate.now(),
        cols,
        rows,
        term,
        command: match &wish.wanted {
            Wanted::Exec(line) => Some(line.clone()),
            Wanted::Shell | Wanted::Sftp | Wanted::Forward(_) => None,
        },
    };
    let recordings = services.recordings.clone();
    let begun = tokio::task::spawn_blocking(move || recordings.begin(&sheet, order)).await;
    let reason = match begun {
        Ok(Ok(recorder)) => return Ok(Some(recorder)),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    let recorded = services.gate.record_in(permit, degraded(order.strict, reason.clone())).await;
    if order.strict || recorded.is_err() { Err(End::NotRecorded(reason)) } else { Ok(None) }
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
) -> Result<(SessionStream, Vec<String>), NotStarted> {
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
        (stream, SessionOutput::Opened { notices, .. }) => Ok((stream, notices)),
        (_, SessionOutput::Refused(refused)) => {
            Err(NotStarted::Refused { code: refused.code, message: refused.message })
        }
        (_, SessionOutput::Aborted { reason }) => Err(NotStarted::End(End::Aborted(reason))),
        (_, _) => Err(NotStarted::End(End::Aborted("the agent spoke out of turn".to_owned()))),
    }
}

/// Tells the person that something is not offered, and closes the channel.
pub(crate) async fn deny(screen: Screen, text: String, gone: CancellationToken) {
    tokio::select! {
        _ = screen.fail(&text, NOT_PERMITTED) => {}
        () = gone.cancelled() => {}
    }
}
