//! A recording as it is played: its events with pauses cut short, and a place in it.

use recording::cast::{At, CastError, Event, Reader};
use recording::screen::{Picture, Screen};

/// A recording that was read.
#[derive(Debug)]
pub struct Film {
    /// Columns and rows at the beginning.
    pub size: (u16, u16),
    events: Vec<At>,
    /// Its command, if it was not an interactive shell.
    pub command: Option<String>,
    /// When it began, in seconds since 1970.
    pub begun: Option<i64>,
}

impl Film {
    /// Reads an asciicast; no pause is longer than `idle` seconds, if that is given.
    pub fn read(cast: &[u8], idle: Option<f64>) -> Result<Film, CastError> {
        let mut reader = Reader::new();
        let mut events = reader.push(cast)?;
        let longest = idle.map(|seconds| (seconds * 1000.0) as u64);
        let (mut last, mut cut) = (0, 0);
        for at in &mut events {
            let pause = at.millis - last;
            last = at.millis;
            cut += pause - longest.map_or(pause, |longest| pause.min(longest));
            at.millis -= cut;
        }
        let header = reader.header().ok_or_else(|| CastError::Header("there is none".to_owned()))?;
        Ok(Film {
            size: (header.term.cols, header.term.rows),
            events,
            command: header.command.clone(),
            begun: header.timestamp,
        })
    }

    /// How long it is, in milliseconds.
    pub fn millis(&self) -> u64 {
        self.events.last().map_or(0, |at| at.millis)
    }

    /// At its beginning.
    pub fn begin(&self) -> Place<'_> {
        Place { film: self, screen: Screen::new(self.size.0, self.size.1), next: 0, millis: 0 }
    }
}

/// A place in a film.
#[derive(Debug)]
pub struct Place<'a> {
    film: &'a Film,
    screen: Screen,
    next: usize,
    millis: u64,
}

impl Place<'_> {
    /// Where, in milliseconds.
    pub fn millis(&self) -> u64 {
        self.millis
    }

    /// Goes to another place: on from here, or back from the beginning.
    pub fn seek(&mut self, millis: u64) {
        let millis = millis.min(self.film.millis());
        if millis < self.millis {
            *self = self.film.begin();
        }
        while let Some(at) = self.film.events.get(self.next).filter(|at| at.millis <= millis) {
            match &at.event {
                Event::Output(text) => self.screen.write(text.as_bytes()),
                Event::Resize(cols, rows) => self.screen.resize(*cols, *rows),
                Event::Input(_) | Event::Marker(_) | Event::Exit(_) => {}
            }
            self.next += 1;
        }
        self.millis = millis;
    }

    /// When the next thing happens.
    pub fn next(&self) -> Option<u64> {
        self.film.events.get(self.next).map(|at| at.millis)
    }

    /// The marker that was passed last, if it was passed within `millis`.
    pub fn marker(&self, millis: u64) -> Option<&str> {
        let passed = self.film.events[..self.next].iter().rev();
        let recent = passed.take_while(|at| at.millis + millis >= self.millis);
        recent.into_iter().find_map(|at| match &at.event {
            Event::Marker(label) => Some(label.as_str()),
            _ => None,
        })
    }

    /// Columns and rows of the terminal that was recorded, as it is here.
    pub fn size(&self) -> (u16, u16) {
        self.screen.size()
    }

    /// What is to be seen here, on a terminal of this many columns and rows.
    pub fn picture(&self, cols: u16, rows: u16) -> Picture {
        self.screen.picture(cols, rows)
    }

    /// The text that is to be seen here.
    #[cfg(test)]
    pub fn text(&self) -> String {
        self.screen.text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAST: &str = "{\"version\":3,\"term\":{\"cols\":20,\"rows\":4}}\n\
        [0.5, \"o\", \"one\\r\\n\"]\n[10, \"o\", \"two\\r\\n\"]\n[1, \"m\", \"here\"]\n\
        [0, \"r\", \"30x6\"]\n[1, \"o\", \"three\"]\n[0.5, \"x\", \"0\"]\n";

    #[test]
    fn a_place_is_the_same_however_it_was_come_to() {
        let film = Film::read(CAST.as_bytes(), None).unwrap();
        assert_eq!(film.millis(), 13_000);
        let mut place = film.begin();
        place.seek(600);
        assert_eq!((place.text().as_str(), place.next()), ("one", Some(10_500)));
        place.seek(99_000);
        assert_eq!((place.text().as_str(), place.millis(), place.next()), ("one\ntwo\nthree", 13_000, None));
        assert_eq!(place.size(), (30, 6));
        place.seek(11_000);
        assert_eq!((place.text().as_str(), place.size()), ("one\ntwo", (20, 4)));
        place.seek(11_600);
        assert_eq!(place.marker(1_000), Some("here"));
        place.seek(13_000);
        assert_eq!(place.marker(1_000), None);
    }

    #[test]
    fn pauses_are_cut_short() {
        let film = Film::read(CAST.as_bytes(), Some(2.0)).unwrap();
        assert_eq!(film.millis(), 5_000);
        let mut place = film.begin();
        place.seek(2_500);
        assert_eq!(place.text(), "one\ntwo");
    }
}
