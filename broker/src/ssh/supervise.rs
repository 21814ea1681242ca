//! Looking at a session that goes on, and typing in it: `ssh watch:SESSION@gate`, `ssh join:SESSION@gate`.
//!
//! Whoever looks gets pictures of the terminal, drawn anew, as fast as they take them, and nothing of
//! what the workspace wrote itself. They leave with `q` (or Ctrl-C), or with Ctrl-] where they type.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gate::{Entry, Permit, WatchSession};
use model::SessionId;
use policy::Joining;
use recording::screen::Picture;
use tokio::time::{sleep, timeout};
use wire::message::{Exited, Pty};

use super::Services;
use super::input::{Input, InputBuffer};
use super::screen::{Gone, Screen};
use super::session::{NOT_PERMITTED, UNAVAILABLE};
use super::stage::{Stage, size_of};
use crate::happening::Happening;

/// The least time between two pictures.
const FRAME: Duration = Duration::from_millis(30);
/// How long a person may think about who wants to type in their session.
const CONSENT: Duration = Duration::from_secs(60);
/// Ctrl-]: leaves a session that was joined.
const LEAVE: u8 = 0x1d;

/// Who wants to look at what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Visit {
    pub(crate) session: SessionId,
    /// Whether they want to type too.
    pub(crate) join: bool,
}

impl Visit {
    /// The visit that an SSH user name stands for, if it stands for one.
    pub(crate) fn parse(user: &str) -> Option<Visit> {
        let (word, session) = user.split_once(':')?;
        let join = match word {
            "watch" => false,
            "join" => true,
            _ => return None,
        };
        let name = session.strip_prefix(SessionId::PREFIX).unwrap_or(session);
        Some(Visit { session: SessionId::from_name(name).ok()?, join })
    }
}

/// One visit to its end.
pub(crate) async fn run(
    services: Arc<Services>,
    entry: Entry,
    visit: Visit,
    pty: Option<Pty>,
    screen: Screen,
    input: Arc<InputBuffer>,
) {
    let told = tokio::select! {
        told = serve(&services, &entry, &visit, pty, &screen, &input) => told,
        () = services.stopping.cancelled() => screen.fail("This gate is being stopped.", UNAVAILABLE).await,
    };
    if told == Err(Gone) {
        tracing::debug!(channel = %screen.id(), "the client left");
    }
    input.close();
}

async fn serve(
    services: &Services,
    entry: &Entry,
    visit: &Visit,
    pty: Option<Pty>,
    screen: &Screen,
    input: &InputBuffer,
) -> Result<(), Gone> {
    let stage = services.stages.of(&visit.session);
    let permit = match permit(services, entry, visit, stage.as_deref(), screen, input).await? {
        Ok(permit) => permit,
        Err(text) => return screen.fail(&text, NOT_PERMITTED).await,
    };
    let Some(stage) = stage else {
        return screen.fail("This session has ended.", UNAVAILABLE).await;
    };
    let access = permit.action();
    let Some(_seat) = stage.sit(entry.person.clone(), access.joined) else {
        return screen.fail("Too many people look at this session already.", UNAVAILABLE).await;
    };
    if access.joined {
        stage.say(format!("{} types in this session now too.", entry.person));
    } else if access.told {
        stage.say(format!("{} watches this session.", entry.person));
    }
    let size = pty.as_ref().map_or((80, 24), size_of);
    let seen = Seen { stage: &stage, screen, input, permit: &permit };
    let why = seen.look(size).await;
    if access.joined || access.told {
        stage.say(format!("{} left.", entry.person));
    }
    screen.show(Happening::Output(Bytes::from_static(b"\x1b[?25h\x1b[m\x1b[?1049l"))).await?;
    match why? {
        Left::Enough => screen.exit(&Exited::Code(0)).await,
        Left::Over => {
            screen.say("This session has ended.").await?;
            screen.exit(&Exited::Code(0)).await
        }
        Left::Ended(text) => screen.fail(&text, NOT_PERMITTED).await,
    }
}

/// Asks the gate, and the person where that is the rule.
async fn permit(
    services: &Services,
    entry: &Entry,
    visit: &Visit,
    stage: Option<&Stage>,
    screen: &Screen,
    input: &InputBuffer,
) -> Result<Result<Permit<WatchSession>, String>, Gone> {
    let gate = &services.gate;
    let session = &visit.session;
    if !visit.join {
        return Ok(gate.watch_session(entry, session).await.map_err(|refusal| refusal.message));
    }
    let (whose, joining) = match gate.joining(entry, session).await {
        Ok(found) => found,
        Err(refusal) => return Ok(Err(refusal.message)),
    };
    let mut consented = false;
    if joining == Joining::Consent {
        screen.say(&format!("{whose} is asked whether you may type in their session.")).await?;
        let question = format!(
            "{} asks to type in this session too. y lets them; any other key does not.",
            entry.person
        );
        let asked = stage.and_then(|stage| stage.ask(question));
        let answer = async {
            match asked {
                Some(asked) => timeout(CONSENT, asked).await.is_ok_and(|answer| answer == Ok(true)),
                None => false,
            }
        };
        consented = tokio::select! {
            yes = answer => yes,
            () = input.closed() => return Err(Gone),
        };
        if !consented {
            return Ok(match gate.joining_declined(entry, session).await {
                Ok(refusal) | Err(refusal) => Err(refusal.message),
            });
        }
    }
    Ok(gate.join_session(entry, session, consented).await.map_err(|refusal| refusal.message))
}

/// How a visit ended.
enum Left {
    /// Whoever looked has seen enough.
    Enough,
    /// There is nothing more to see.
    Over,
    /// The permit ended.
    Ended(String),
}

/// A session, and who looks at it.
struct Seen<'a> {
    stage: &'a Arc<Stage>,
    screen: &'a Screen,
    input: &'a InputBuffer,
    permit: &'a Permit<WatchSession>,
}

impl Seen<'_> {
    async fn look(&self, mut size: (u16, u16)) -> Result<Left, Gone> {
        let begin = Bytes::from_static(b"\x1b[?1049h\x1b[2J");
        self.screen.show(Happening::Output(begin)).await?;
        let mut drawn: Option<Picture> = None;
        let mut changes = self.stage.changes();
        loop {
            changes.mark_unchanged();
            let picture = self.stage.picture(size.0, size.1.saturating_sub(1).max(1));
            let mut out = picture.as_ref().map_or_else(Vec::new, |picture| picture.draw(drawn.as_ref()));
            if drawn.is_none() {
                out.extend_from_slice(&self.line(size));
            }
            drawn = picture.or(drawn);
            let shown = async {
                if !out.is_empty() {
                    self.screen.show(Happening::Output(Bytes::from(out))).await?;
                }
                sleep(FRAME).await;
                // The sender lives as long as the stage does.
                let _ = changes.changed().await;
                Ok::<(), Gone>(())
            };
            tokio::select! {
                biased;
                cause = self.permit.ended() => return Ok(Left::Ended(cause.message)),
                () = self.stage.ended() => return Ok(Left::Over),
                given = self.take() => match given? {
                    Given::Leave => return Ok(Left::Enough),
                    Given::Size(new) => {
                        size = new;
                        drawn = None;
                    }
                },
                result = shown => result?,
            }
        }
    }

    /// What whoever looks does, until it matters here.
    async fn take(&self) -> Result<Given, Gone> {
        let joined = self.permit.action().joined;
        loop {
            match self.input.next().await {
                Input::Data(data) if joined => match data.iter().position(|byte| *byte == LEAVE) {
                    Some(_) => return Ok(Given::Leave),
                    // What the workspace does not take is not typed; nobody waits for it here.
                    None => {
                        let _ = self.stage.input().push(&data);
                    }
                },
                Input::Data(data) if data.iter().any(|byte| matches!(*byte, b'q' | 3 | 4 | LEAVE)) => {
                    return Ok(Given::Leave);
                }
                Input::Resize(size) => return Ok(Given::Size((small(size.cols), small(size.rows)))),
                // A client without a terminal may have nothing to send, and looks all the same.
                Input::Data(_) | Input::Signal(_) | Input::Eof => {}
                Input::Closed => return Err(Gone),
            }
        }
    }

    /// The line at the bottom.
    fn line(&self, (cols, rows): (u16, u16)) -> Vec<u8> {
        let bill = &self.stage.bill;
        let leave = if self.permit.action().joined { "Ctrl-] leaves" } else { "q leaves" };
        let what = if bill.terminal.is_some() { "" } else { "  (it has no terminal to show)" };
        let line = format!(" {} in {}: {}{what}  {leave}", bill.person, bill.study, bill.what);
        let width = usize::from(cols);
        let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(width).collect();
        format!("\x1b7\x1b[{rows};1H\x1b[m\x1b[7m{line:width$}\x1b[m\x1b8").into_bytes()
    }
}

enum Given {
    Leave,
    Size((u16, u16)),
}

fn small(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_name_says_what_is_wanted() {
        let session = SessionId::from_name("0a1b").unwrap();
        for (user, join) in [("watch:0a1b", false), ("watch:sess:0a1b", false), ("join:0a1b", true)] {
            assert_eq!(Visit::parse(user), Some(Visit { session: session.clone(), join }));
        }
        for user in ["brca", "watch", "watch:", "kill:0a1b", "watch:../x", "join:sess:"] {
            assert_eq!(Visit::parse(user), None, "{user}");
        }
    }
}
