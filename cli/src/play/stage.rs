//! The player in a terminal: keys, time, and a line of its own at the bottom.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use recording::screen::Picture;

use super::film::{Film, Place};

/// How far an arrow goes, in milliseconds.
const STEP: u64 = 5_000;
/// How often the line at the bottom is drawn while nothing happens.
const TICK: Duration = Duration::from_millis(250);
/// How long a marker that was passed stands there, in milliseconds.
const MARKED: u64 = 4_000;

/// Plays until the end or until somebody quits.
pub fn show(film: &Film, session: &str, at: u64, speed: f64) -> std::io::Result<()> {
    let terminal = Terminal::take()?;
    let mut player = Player::new(film, session, at, speed);
    let mut drawn: Option<Picture> = None;
    let mut size = terminal.size();
    loop {
        let now_size = terminal.size();
        if now_size != size {
            (size, drawn) = (now_size, None);
        }
        let (cols, rows) = size;
        let picture = player.place.picture(cols, rows.saturating_sub(1).max(1));
        let mut out = picture.draw(drawn.as_ref());
        drawn = Some(picture);
        out.extend_from_slice(b"\x1b7");
        out.extend_from_slice(format!("\x1b[{rows};1H\x1b[m\x1b[7m").as_bytes());
        out.extend_from_slice(player.line(cols).as_bytes());
        out.extend_from_slice(b"\x1b[m\x1b8");
        terminal.write(&out)?;
        let begun = Instant::now();
        for key in terminal.keys(player.wait())? {
            if player.press(key) == Go::Stop {
                return Ok(());
            }
        }
        player.pass(begun.elapsed());
    }
}

/// A key that means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Pause,
    Back,
    On,
    Faster,
    Slower,
    Next,
    Start,
    End,
    Quit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Go {
    On,
    Stop,
}

/// What is played, where, how fast.
struct Player<'a> {
    place: Place<'a>,
    session: &'a str,
    length: u64,
    speed: f64,
    paused: bool,
    /// Milliseconds of the film that have passed and are less than one.
    rest: f64,
}

impl<'a> Player<'a> {
    fn new(film: &'a Film, session: &'a str, at: u64, speed: f64) -> Player<'a> {
        let mut place = film.begin();
        place.seek(at);
        Player { place, session, length: film.millis(), speed, paused: false, rest: 0.0 }
    }

    /// How long to wait for a key.
    fn wait(&self) -> Duration {
        if self.paused {
            return TICK;
        }
        match self.place.next() {
            None => TICK,
            Some(next) => {
                let millis = next.saturating_sub(self.place.millis()) as f64 / self.speed;
                Duration::from_secs_f64((millis / 1000.0).max(0.001)).min(TICK)
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        if !self.paused {
            let millis = time.as_secs_f64() * 1000.0 * self.speed + self.rest;
            self.rest = millis.fract();
            self.place.seek(self.place.millis() + millis as u64);
            // At the end it stands still, so that it can be looked at and gone back in.
            self.paused = self.place.millis() >= self.length;
        }
    }

    fn press(&mut self, key: Key) -> Go {
        let here = self.place.millis();
        match key {
            Key::Quit => return Go::Stop,
            Key::Pause if here >= self.length => {
                self.place.seek(0);
                self.paused = false;
            }
            Key::Pause => self.paused = !self.paused,
            Key::Back => self.go(here.saturating_sub(STEP)),
            Key::On => self.go(here + STEP),
            Key::Start => self.go(0),
            Key::End => self.go(self.length),
            Key::Faster => self.speed = (self.speed * 2.0).min(64.0),
            Key::Slower => self.speed = (self.speed / 2.0).max(0.125),
            Key::Next => {
                self.paused = true;
                self.go(self.place.next().unwrap_or(self.length));
            }
        }
        Go::On
    }

    fn go(&mut self, millis: u64) {
        self.place.seek(millis);
        self.rest = 0.0;
    }

    /// The line at the bottom, as wide as the terminal.
    fn line(&self, cols: u16) -> String {
        let state = if self.paused { "‖" } else { "▶" };
        let (here, all) = (clock(self.place.millis()), clock(self.length));
        let (width, height) = self.place.size();
        let mut line =
            format!(" {state} {here} / {all}  ×{}  {width}×{height}  {}", self.speed, self.session);
        match self.place.marker(MARKED) {
            Some(label) => line += &format!("  ⚑ {label}"),
            None => line += "  space ←→ ↑↓ . q",
        }
        let width = usize::from(cols);
        let line: String = line.chars().filter(|c| !c.is_control()).take(width).collect();
        format!("{line:width$}")
    }
}

fn clock(millis: u64) -> String {
    let seconds = millis / 1000;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// The keys in what a terminal sent.
fn keys(mut bytes: &[u8]) -> Vec<Key> {
    const SEQUENCES: &[(&[u8], Key)] = &[
        (b"\x1b[A", Key::Faster),
        (b"\x1b[B", Key::Slower),
        (b"\x1b[C", Key::On),
        (b"\x1b[D", Key::Back),
        (b"\x1bOC", Key::On),
        (b"\x1bOD", Key::Back),
        (b"\x1bOA", Key::Faster),
        (b"\x1bOB", Key::Slower),
        (b"\x1b[H", Key::Start),
        (b"\x1b[F", Key::End),
        (b" ", Key::Pause),
        (b".", Key::Next),
        (b"+", Key::Faster),
        (b"-", Key::Slower),
        (b"q", Key::Quit),
        (b"\x03", Key::Quit),
        (b"\x04", Key::Quit),
    ];
    let mut found = Vec::new();
    while !bytes.is_empty() {
        match SEQUENCES.iter().find(|(sequence, _)| bytes.starts_with(sequence)) {
            Some((sequence, key)) => {
                found.push(*key);
                bytes = &bytes[sequence.len()..];
            }
            None => bytes = &bytes[1..],
        }
    }
    found
}

/// The terminal, given back as it was.
struct Terminal {
    before: Termios,
}

impl Terminal {
    fn take() -> std::io::Result<Terminal> {
        let before = tcgetattr(std::io::stdin().as_fd())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(std::io::stdin().as_fd(), SetArg::TCSAFLUSH, &raw)?;
        let terminal = Terminal { before };
        // A screen of its own, so that what was there before comes back.
        terminal.write(b"\x1b[?1049h\x1b[2J")?;
        Ok(terminal)
    }

    fn write(&self, bytes: &[u8]) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()
    }

    /// Columns and rows.
    fn size(&self) -> (u16, u16) {
        match rustix::termios::tcgetwinsize(std::io::stdout().as_fd()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col, size.ws_row),
            _ => (80, 24),
        }
    }

    /// What was pressed within a time.
    fn keys(&self, within: Duration) -> std::io::Result<Vec<Key>> {
        let stdin = std::io::stdin();
        let mut waiting = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        let millis = u16::try_from(within.as_millis()).unwrap_or(u16::MAX);
        match poll(&mut waiting, PollTimeout::from(millis)) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => return Ok(Vec::new()),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut bytes = [0; 256];
        match stdin.lock().read(&mut bytes)? {
            0 => Ok(vec![Key::Quit]),
            n => Ok(keys(&bytes[..n])),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.write(b"\x1b[?25h\x1b[m\x1b[?1049l");
        let _ = tcsetattr(std::io::stdin().as_fd(), SetArg::TCSAFLUSH, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAST: &str = "{\"version\":3,\"term\":{\"cols\":20,\"rows\":4}}\n\
        [1, \"o\", \"one\\r\\n\"]\n[9, \"o\", \"two\\r\\n\"]\n[1, \"m\", \"\\u001b]0;evil\\u0007\"]\n[9, \"x\", \"0\"]\n";

    #[test]
    fn keys_go_through_the_film() {
        let film = Film::read(CAST.as_bytes(), None).unwrap();
        let session = "s1";
        let mut player = Player::new(&film, session, 500, 2.0);
        player.pass(Duration::from_millis(250));
        assert_eq!((player.place.millis(), player.place.text().as_str()), (1_000, "one"));
        for key in keys(b"\x1b[C\x1b[C..x\x1b[A") {
            assert_eq!(player.press(key), Go::On);
        }
        assert_eq!((player.place.millis(), player.speed, player.paused), (20_000, 4.0, true));
        player.pass(Duration::from_secs(9));
        assert_eq!(player.place.millis(), 20_000);
        player.press(Key::Pause);
        assert_eq!((player.place.millis(), player.paused), (0, false));
        player.pass(Duration::from_secs(99));
        assert!(player.paused, "it stands at the end");
        assert_eq!(keys(b"q"), [Key::Quit]);
    }

    #[test]
    fn the_line_is_as_wide_as_the_terminal_and_steers_nothing() {
        let film = Film::read(CAST.as_bytes(), None).unwrap();
        let session = "s1";
        let mut player = Player::new(&film, session, 11_500, 1.0);
        let line = player.line(60);
        assert_eq!(line.chars().count(), 60);
        assert!(line.contains("0:11 / 0:20") && line.contains("20×4") && line.contains("evil"), "{line}");
        assert!(!line.contains('\u{1b}') && !line.contains('\u{7}'), "{line:?}");
        player.press(Key::Start);
        assert_eq!(player.line(10).chars().count(), 10);
        assert_eq!(clock(3_661_000), "1:01:01");
    }
}
