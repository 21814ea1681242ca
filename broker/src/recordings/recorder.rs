//! The recorder of one session.
//!
//! The session hands over what happens and waits when the recorder is behind: a slow disk slows the
//! session that writes to it, and nobody else. What is handed over is on the disk a second later.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use gate::{Recorded, RecordingOrder};
use model::{Clock, SessionId, Timestamp};
use recording::cast::Writer;
use recording::elide::Elider;
use recording::sealed::CHUNK;
use store::RecordingOutcome;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::header;
use super::tape::Tape;
use crate::happening::Happening;

/// Things that wait to be recorded, each of at most a frame of the wire.
const WAITING: usize = 16;
/// How long what happened may be in memory alone.
const FLUSH: Duration = Duration::from_secs(1);

/// What stands at the head of a recording.
#[derive(Debug, Clone)]
pub struct Sheet {
    /// Of which session.
    pub session: SessionId,
    /// When it begins.
    pub begun: Timestamp,
    /// Columns of the terminal, or of what is taken for one.
    pub cols: u16,
    /// Its rows.
    pub rows: u16,
    /// `TERM`.
    pub term: Option<String>,
    /// The command, where it is not an interactive shell.
    pub command: Option<String>,
}

/// Where a session hands over what happens in it.
pub struct Recorder {
    /// What happens when nothing more can be recorded.
    pub order: RecordingOrder,
    session: SessionId,
    notes: mpsc::Sender<Note>,
    broken: watch::Receiver<Option<String>>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("session", &self.session).finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum Note {
    Happened(Timestamp, Happening),
    Over(Timestamp, Option<i32>, oneshot::Sender<Recorded>),
}

impl Recorder {
    pub(super) fn begin(
        sheet: &Sheet,
        order: RecordingOrder,
        mut tape: Tape,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Recorder> {
        let (writer, first) = Writer::begin(&header(sheet));
        tape.put(first.as_bytes())?;
        tape.flush()?;
        let scribe = Scribe {
            begun: sheet.begun,
            command: sheet.command.clone(),
            writer,
            elider: Elider::new(order.limit),
            input: order.input,
            lines: String::new(),
            events: 0,
            elided: 0,
            millis: 0,
        };
        let (notes, incoming) = mpsc::channel(WAITING);
        let (breaking, broken) = watch::channel(None);
        tokio::spawn(run(scribe, tape, incoming, breaking));
        Ok(Recorder { order, session: sheet.session.clone(), notes, broken, clock })
    }

    /// Of which session it is the recorder.
    pub fn session(&self) -> &SessionId {
        &self.session
    }

    /// Hands over what happens. Waits while the recorder is behind; does nothing once it is broken.
    pub async fn tell(&self, happening: &Happening) {
        let note = Note::Happened(self.clock.now(), happening.clone());
        let _ = self.notes.send(note).await;
    }

    /// Waits until nothing more can be recorded; why.
    pub async fn broken(&self) -> String {
        let mut broken = self.broken.clone();
        let reason = broken.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            // The recorder is gone, and so nothing breaks any more.
            None => std::future::pending().await,
        }
    }

    /// Ends the recording; what was recorded, if it can be told.
    pub async fn finish(self, status: Option<i32>) -> Option<Recorded> {
        let (answer, recorded) = oneshot::channel();
        self.notes.send(Note::Over(self.clock.now(), status, answer)).await.ok()?;
        recorded.await.ok()
    }
}

async fn run(
    mut scribe: Scribe,
    mut tape: Tape,
    mut incoming: mpsc::Receiver<Note>,
    breaking: watch::Sender<Option<String>>,
) {
    let mut notes = Vec::new();
    let mut due: Option<Instant> = None;
    let mut whole = true;
    loop {
        let flush = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let late = tokio::select! {
            taken = incoming.recv_many(&mut notes, WAITING) => {
                if taken == 0 {
                    // The session is gone without a word: what is there is closed properly.
                    notes.push(Note::Over(scribe.last(), None, oneshot::channel().0));
                }
                false
            }
            () = flush => true,
        };
        let mut over = None;
        for note in notes.drain(..) {
            match note {
                Note::Happened(..) if !whole => {}
                Note::Happened(at, happening) => scribe.take(at, &happening),
                Note::Over(at, status, answer) => {
                    if whole {
                        scribe.end(at, status);
                    }
                    over = Some(answer);
                }
            }
        }
        if whole && (late || over.is_some() || scribe.lines.len() >= CHUNK) {
            let (text, ended) = (std::mem::take(&mut scribe.lines), over.is_some());
            let written = tokio::task::spawn_blocking(move || {
                let result = tape.put(text.as_bytes()).and_then(|()| match (ended, late) {
                    (true, _) => tape.end(),
                    (false, true) => tape.flush(),
                    (false, false) => Ok(()),
                });
                (tape, result)
            });
            let Ok((back, result)) = written.await else { return };
            tape = back;
            due = if late { None } else { due };
            if let Err(error) = result {
                whole = false;
                breaking.send_replace(Some(error.to_string()));
            }
        }
        if let Some(answer) = over {
            let outcome = if whole { RecordingOutcome::Whole } else { RecordingOutcome::Degraded };
            let _ = answer.send(scribe.recorded(&tape, outcome));
            return;
        }
        if whole && due.is_none() && scribe.dirty() {
            due = Some(Instant::now() + FLUSH);
        }
    }
}

/// Writes down what happens, without a clock and a file of its own.
#[derive(Debug)]
struct Scribe {
    begun: Timestamp,
    command: Option<String>,
    writer: Writer,
    elider: Elider,
    input: bool,
    lines: String,
    events: u64,
    elided: u64,
    millis: u64,
}

impl Scribe {
    fn take(&mut self, at: Timestamp, happening: &Happening) {
        self.to(at);
        let before = self.lines.len();
        match happening {
            Happening::Output(data) | Happening::Error(data) => {
                let (ended, kept) = self.elider.take(self.millis, data);
                if let Some(elided) = ended {
                    self.left_out(elided);
                }
                let without = self.lines.len();
                self.writer.output(self.millis, kept, &mut self.lines);
                self.elider.wrote(self.lines.len() - without);
            }
            Happening::Input(data) if self.input => {
                self.writer.input(self.millis, data, &mut self.lines);
            }
            Happening::Resized(size) => {
                let small = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
                self.writer.resize(self.millis, small(size.cols), small(size.rows), &mut self.lines);
            }
            Happening::Said(text) => {
                self.writer.marker(self.millis, &format!("sekisho: {text}"), &mut self.lines);
            }
            Happening::Input(_) | Happening::OutputEnded => {}
        }
        self.count(before);
    }

    fn end(&mut self, at: Timestamp, status: Option<i32>) {
        self.to(at);
        if let Some(elided) = self.elider.end() {
            self.left_out(elided);
        }
        let before = self.lines.len();
        self.writer.exit(self.millis, status, &mut self.lines);
        self.count(before);
    }

    fn left_out(&mut self, elided: recording::elide::Elided) {
        self.elided += elided.bytes;
        self.writer.marker(self.millis, &elided.label(), &mut self.lines);
    }

    fn to(&mut self, at: Timestamp) {
        let millis = u64::try_from(at.since(self.begun).as_millis()).unwrap_or(u64::MAX);
        self.millis = self.millis.max(millis);
    }

    fn last(&self) -> Timestamp {
        self.begun.plus(Duration::from_millis(self.millis))
    }

    fn count(&mut self, before: usize) {
        self.events += self.lines[before..].bytes().filter(|b| *b == b'\n').count() as u64;
    }

    fn dirty(&self) -> bool {
        !self.lines.is_empty()
    }

    fn recorded(&self, tape: &Tape, outcome: RecordingOutcome) -> Recorded {
        let (sha256, stored_sha256) = tape.hashes();
        Recorded {
            begun: self.begun,
            command: self.command.clone(),
            millis: self.millis,
            events: self.events,
            bytes: tape.bytes,
            sha256,
            stored_bytes: tape.stored,
            stored_sha256,
            elided: self.elided,
            outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use recording::cast::{At, Event, Reader};
    use wire::message::WindowSize;

    fn scribe(input: bool, limit: Option<u64>) -> (Scribe, String) {
        let sheet = Sheet {
            session: SessionId::from_name("s1").unwrap(),
            begun: Timestamp::from_secs(1_000),
            cols: 80,
            rows: 24,
            term: None,
            command: None,
        };
        let (writer, first) = Writer::begin(&header(&sheet));
        let scribe = Scribe {
            begun: sheet.begun,
            command: None,
            writer,
            elider: Elider::new(limit),
            input,
            lines: String::new(),
            events: 0,
            elided: 0,
            millis: 0,
        };
        (scribe, first)
    }

    fn events(first: &str, scribe: &Scribe) -> Vec<Event> {
        let events = Reader::new().push(format!("{first}{}", scribe.lines).as_bytes()).unwrap();
        assert_eq!(events.len() as u64, scribe.events);
        events.into_iter().map(|At { event, .. }| event).collect()
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_secs(1_000).plus(Duration::from_millis(millis))
    }

    #[test]
    fn what_is_typed_is_written_down_only_where_the_order_says_so() {
        for input in [false, true] {
            let (mut scribe, first) = scribe(input, None);
            scribe.take(at(5), &Happening::Output(Bytes::from_static(b"Password: ")));
            scribe.take(at(900), &Happening::Input(Bytes::from_static(b"hunter2\r")));
            scribe.take(at(901), &Happening::Error(Bytes::from_static(b"no\r\n")));
            let size = WindowSize { cols: 100, rows: 30, width_px: 0, height_px: 0 };
            scribe.take(at(950), &Happening::Resized(size));
            scribe.end(at(1_000), Some(1));
            assert_eq!(scribe.lines.contains("hunter2"), input);
            let seen = events(&first, &scribe);
            assert_eq!(seen.len(), if input { 5 } else { 4 });
            assert_eq!(seen.last(), Some(&Event::Exit(1)));
            assert!(seen.contains(&Event::Resize(100, 30)));
        }
    }

    #[test]
    fn a_flood_is_left_out_and_marked_with_its_length_and_hash() {
        // What is around the ten characters counts as well.
        let (mut scribe, first) = scribe(false, Some(10));
        scribe.take(at(1), &Happening::Output(Bytes::from_static(b"0123456789abc")));
        scribe.take(at(2), &Happening::Output(Bytes::from_static(b"def")));
        scribe.take(at(60_001), &Happening::Output(Bytes::from_static(b"again")));
        scribe.end(at(60_002), None);
        assert_eq!(scribe.elided, 6);
        let seen = events(&first, &scribe);
        let Event::Marker(label) = &seen[1] else { panic!("{seen:?}") };
        assert_eq!(recording::elide::Elided::bytes_in(label), Some(6));
        assert_eq!(seen[2], Event::Output("again".to_owned()));
    }
}
