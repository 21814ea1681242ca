//! `sekisho play`: a recording of a session, in this terminal, as text, or as a page.
//!
//! What was recorded is hostile: it was written by programs in a workspace. In a terminal it is drawn
//! anew from a terminal in memory ([`recording::screen`]), as text it is stripped of everything else,
//! and on a page it is data.

mod film;
mod page;
mod reel;
mod stage;

use std::io::{IsTerminal, Write};
use std::path::Path;

use data_encoding::HEXLOWER;
use model::SessionId;
use recording::cast::{CastError, Event, Reader};
use recording::lines::Lines;
use recording::sealed::Ending;
use sha2::{Digest, Sha256};

use crate::api::printable;
use crate::args::Play;
use crate::fault::Fault;
use crate::home::{self, Home, Mode};
use crate::{Surroundings, login, say};
pub use film::Film;

/// Plays a recording.
pub async fn play(around: &Surroundings, home: &Home, args: &Play) -> Result<(), Fault> {
    if args.out.is_none() && args.cast.is_none() && !args.text && !std::io::stdout().is_terminal() {
        return Err(Fault::usage(say!(PlayNoTerminal)).todo(say!(PlayNoTerminalTodo)));
    }
    let (session, cast) = match (&args.session, args.sealed.as_deref().zip(args.key.as_deref())) {
        (Some(session), _) => {
            let session = session_id(session)?;
            let api = login::authenticated(around, home).await?;
            let cast = reel::fetched(around, &api, &session).await?;
            (session.name().to_owned(), cast)
        }
        (None, Some((sealed, key))) => unsealed(around, sealed, key)?,
        // The command line takes one of them.
        (None, None) => return Err(Fault::usage(say!(BadName, text = ""))),
    };
    if let Some(path) = &args.cast {
        home::write_file(path, &cast, Mode::Private)?;
        around.print(&say!(PlayWritten, path = path.display()));
        return Ok(());
    }
    let damaged = |e: CastError| Fault::failed("damaged", say!(PlayDamaged)).because(&e);
    if args.text {
        return text(&cast).map_err(damaged);
    }
    let film = Film::read(&cast, args.idle).map_err(damaged)?;
    if let Some(path) = &args.out {
        return write_page(around, path, &session, &cast, &film, args);
    }
    stage::show(&film, &session, args.at.unwrap_or_default(), args.speed)
        .map_err(|e| Fault::failed("terminal", say!(PlayTerminal)).because(&e))
}

/// A recording without a broker, with its name. Nothing says here that it is the one that the log has
/// sealed: whoever opens it is told its hash.
fn unsealed(around: &Surroundings, sealed: &Path, key: &Path) -> Result<(String, Vec<u8>), Fault> {
    let (cast, ending) = reel::opened(sealed, key)?;
    let hash = HEXLOWER.encode(&Sha256::digest(&cast));
    eprintln!("{}", say!(PlayUnsealed, hash = hash).text(around.lang));
    if ending == Ending::CutOff {
        eprintln!("{}", say!(PlayCutOff).text(around.lang));
    }
    let name = sealed.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    Ok((printable(name), cast))
}

/// A session from what people type, with or without its prefix.
pub fn session_id(text: &str) -> Result<SessionId, Fault> {
    let bare = text.strip_prefix(SessionId::PREFIX).unwrap_or(text);
    SessionId::from_name(bare).map_err(|e| Fault::usage(say!(BadName, text = text)).because(&e))
}

/// Prints what was to be read on the terminal.
fn text(cast: &[u8]) -> Result<(), CastError> {
    let (mut reader, mut lines) = (Reader::new(), Lines::default());
    let mut out = std::io::stdout().lock();
    let mut print = |lines: Vec<recording::lines::Line>| {
        for line in lines {
            // That nobody reads any more is no fault.
            let _ = writeln!(out, "{}", line.text);
        }
    };
    for at in reader.push(cast)? {
        if let Event::Output(text) = &at.event {
            print(lines.push(at.millis, text.as_bytes()));
        }
    }
    print(lines.end());
    Ok(())
}

fn write_page(
    around: &Surroundings,
    path: &Path,
    session: &str,
    cast: &[u8],
    film: &Film,
    args: &Play,
) -> Result<(), Fault> {
    let about = page::About {
        session,
        command: film.command.as_deref().map(printable),
        begun: film.begun.map(model::Timestamp::from_secs),
        hash: HEXLOWER.encode(&Sha256::digest(cast)),
        idle: args.idle,
        speed: args.speed,
        at: args.at.unwrap_or_default(),
        size: film.size,
    };
    let page = page::page(&about, cast, around.lang);
    home::write_file(path, page.as_bytes(), Mode::Private)?;
    around.print(&say!(PlayWritten, path = path.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Exit;

    #[test]
    fn sessions_are_named_with_or_without_their_prefix() {
        assert_eq!(session_id("sess:abc").unwrap(), session_id("abc").unwrap());
        assert_eq!(session_id("../x").unwrap_err().exit, Exit::Usage);
    }
}
