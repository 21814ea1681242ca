//! Sessions that go on, for those who may see them while they do.
//!
//! A stage keeps what a terminal shows without costing the session anything: what is written is put
//! by, and drawn only when somebody looks. Whoever looks gets pictures, as fast as they take them: a slow
//! watcher sees fewer, and slows nobody. A flood is skipped, but for its end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use audit::RecordingMode;
use model::{PersonId, SessionId, StudyId, Timestamp};
use recording::screen::{Picture, Screen};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use wire::message::Pty;

use super::input::InputBuffer;
use crate::happening::Happening;

/// Output that is put by before it is drawn, in bytes.
const PUT_BY: usize = 128 << 10;
/// How much is drawn in each second while nobody looks, in bytes. What is beyond is skipped.
const DRAWN: usize = 1 << 20;
/// Words for the person that may wait.
const WORDS: usize = 8;
/// How many people may look at one session.
const WATCHERS: usize = 16;

/// Columns and rows of a terminal; a client may know of none.
pub(crate) fn size_of(pty: &Pty) -> (u16, u16) {
    let within = |number: u32, usual: u16| match u16::try_from(number) {
        Ok(0) => usual,
        Ok(number) => number,
        Err(_) => u16::MAX,
    };
    (within(pty.cols, 80), within(pty.rows, 24))
}

/// Every session that goes on. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Stages(Arc<Mutex<BTreeMap<SessionId, Arc<Stage>>>>);

/// What is known of a session from its beginning.
#[derive(Debug, Clone)]
pub struct Bill {
    /// Which.
    pub session: SessionId,
    /// Whose.
    pub person: PersonId,
    /// In which study.
    pub study: StudyId,
    /// Since when.
    pub since: Timestamp,
    /// What it is: `shell`, `sftp`, a port, or the command.
    pub what: String,
    /// Columns and rows of its terminal, if it has one.
    pub terminal: Option<(u16, u16)>,
    /// Whether it is recorded.
    pub recorded: RecordingMode,
}

/// A session that goes on.
#[derive(Debug)]
pub struct Stage {
    /// What is known of it.
    pub bill: Bill,
    inward: AtomicU64,
    outward: AtomicU64,
    scene: Mutex<Scene>,
    /// Counts up with everything that is shown.
    shown: watch::Sender<u64>,
    people: watch::Sender<Vec<Watcher>>,
    over: tokio_util::sync::CancellationToken,
    input: Arc<InputBuffer>,
    words: mpsc::Sender<String>,
    question: Mutex<Option<oneshot::Sender<bool>>>,
    waiting: std::sync::atomic::AtomicBool,
}

/// Somebody who looks at a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watcher {
    number: u64,
    /// Who.
    pub person: PersonId,
    /// Whether they may type.
    pub joined: bool,
}

/// What the terminal shows, as far as it was drawn, and what is put by.
#[derive(Debug)]
struct Scene {
    screen: Option<Screen>,
    put_by: Vec<u8>,
    /// How much may still be drawn of this second.
    left: usize,
    second: Instant,
}

impl Stages {
    /// A session begins; what its person is to read comes out of the receiver. It is over when the
    /// entry is dropped.
    pub(crate) fn enter(&self, bill: Bill, input: Arc<InputBuffer>) -> (Entered, mpsc::Receiver<String>) {
        let (words, heard) = mpsc::channel(WORDS);
        let screen = bill.terminal.map(|(cols, rows)| Screen::new(cols, rows));
        let scene = Scene { screen, put_by: Vec::new(), left: DRAWN, second: Instant::now() };
        let stage = Arc::new(Stage {
            bill,
            inward: AtomicU64::new(0),
            outward: AtomicU64::new(0),
            scene: Mutex::new(scene),
            shown: watch::Sender::new(0),
            people: watch::Sender::new(Vec::new()),
            over: tokio_util::sync::CancellationToken::new(),
            input,
            words,
            question: Mutex::new(None),
            waiting: std::sync::atomic::AtomicBool::new(false),
        });
        self.lock().insert(stage.bill.session.clone(), Arc::clone(&stage));
        (Entered { stages: self.clone(), stage }, heard)
    }

    /// A session that goes on.
    pub fn of(&self, session: &SessionId) -> Option<Arc<Stage>> {
        self.lock().get(session).cloned()
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Stage>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SessionId, Arc<Stage>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session on its stage, which it leaves when this is dropped.
#[derive(Debug)]
pub(crate) struct Entered {
    stages: Stages,
    pub(crate) stage: Arc<Stage>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.stages.lock().remove(&self.stage.bill.session);
        self.stage.over.cancel();
    }
}

/// A place from which a session is looked at, which is left when this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    stage: Arc<Stage>,
    number: u64,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.stage.people.send_modify(|people| people.retain(|one| one.number != self.number));
    }
}

impl Stage {
    /// Tells what happens.
    pub(crate) fn tell(&self, happening: &Happening) {
        match happening {
            Happening::Output(data) | Happening::Error(data) => {
                self.outward.fetch_add(data.len() as u64, Ordering::Relaxed);
                if self.bill.terminal.is_some() {
                    self.scene().take(data);
                    self.shown.send_modify(|count| *count += 1);
                }
            }
            Happening::Input(data) => {
                self.inward.fetch_add(data.len() as u64, Ordering::Relaxed);
            }
            Happening::Resized(size) => {
                let small = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
                self.scene().resize(small(size.cols), small(size.rows));
                self.shown.send_modify(|count| *count += 1);
            }
            // On the person's terminal alone.
            Happening::Said(_) | Happening::OutputEnded => {}
        }
    }

    /// What it shows now, for a terminal of this many columns and rows.
    pub(crate) fn picture(&self, cols: u16, rows: u16) -> Option<Picture> {
        let mut scene = self.scene();
        scene.draw();
        scene.screen.as_ref().map(|screen| screen.picture(cols, rows))
    }

    /// Fires with everything that is shown.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.shown.subscribe()
    }

    /// Waits until it is over.
    pub(crate) async fn ended(&self) {
        self.over.cancelled().await;
    }

    /// Bytes from the client and to it so far.
    pub fn bytes(&self) -> (u64, u64) {
        (self.inward.load(Ordering::Relaxed), self.outward.load(Ordering::Relaxed))
    }

    /// Who looks at it.
    pub fn watchers(&self) -> Vec<Watcher> {
        self.people.borrow().clone()
    }

    /// Somebody sits down to look; nobody does any more when there are too many.
    pub(crate) fn sit(self: &Arc<Stage>, person: PersonId, joined: bool) -> Option<Seat> {
        let mut number = None;
        self.people.send_modify(|people| {
            if people.len() < WATCHERS {
                let next = people.last().map_or(0, |last| last.number + 1);
                people.push(Watcher { number: next, person, joined });
                number = Some(next);
            }
        });
        number.map(|number| Seat { stage: Arc::clone(self), number })
    }

    /// Waits until somebody other than the person looks at it, or nobody does any more.
    pub(crate) async fn attended(&self, wanted: bool) {
        let mut people = self.people.subscribe();
        let other = |people: &Vec<Watcher>| people.iter().any(|one| one.person != self.bill.person);
        // The sender lives as long as this does.
        let _ = people.wait_for(|people| other(people) == wanted).await;
    }

    /// Whether it waits for a second person.
    pub fn waits(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(crate) fn set_waiting(&self, waiting: bool) {
        self.waiting.store(waiting, Ordering::Relaxed);
    }

    /// Says something to the person; `false` if they have not taken what was said before.
    pub(crate) fn say(&self, text: String) -> bool {
        self.words.try_send(text).is_ok()
    }

    /// Types for somebody who joined.
    pub(crate) fn input(&self) -> &InputBuffer {
        &self.input
    }

    /// Asks the person a question that they answer with a key; the answer. A question before it is
    /// answered with no.
    pub(crate) fn ask(&self, text: String) -> Option<oneshot::Receiver<bool>> {
        let (answer, answered) = oneshot::channel();
        *self.question() = Some(answer);
        if self.say(text) { Some(answered) } else { None }
    }

    /// Takes what the person typed as the answer to a question, if one was asked.
    pub(crate) fn answer(&self, typed: &[u8]) -> bool {
        match self.question().take() {
            Some(answer) if !answer.is_closed() => {
                let _ = answer.send(matches!(typed.first(), Some(b'y' | b'Y')));
                true
            }
            _ => false,
        }
    }

    /// Whether a question waits for its answer.
    pub fn is_asked(&self) -> bool {
        self.question().is_some()
    }

    fn question(&self) -> MutexGuard<'_, Option<oneshot::Sender<bool>>> {
        self.question.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn scene(&self) -> MutexGuard<'_, Scene> {
        self.scene.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Scene {
    fn take(&mut self, data: &[u8]) {
        // Of a piece that is larger than what is kept, its end.
        let data = &data[data.len().saturating_sub(PUT_BY)..];
        if self.put_by.len() + data.len() > PUT_BY {
            if self.second.elapsed() >= Duration::from_secs(1) {
                (self.second, self.left) = (Instant::now(), DRAWN);
            }
            if self.left >= self.put_by.len() {
                self.left -= self.put_by.len();
                self.draw();
            } else {
                // A flood: nobody could have read it.
                self.put_by.clear();
            }
        }
        self.put_by.extend_from_slice(data);
    }

    fn draw(&mut self) {
        if let Some(screen) = &mut self.screen {
            screen.write(&self.put_by);
        }
        self.put_by.clear();
    }

    fn resize(&mut self, cols: u16, rows: u16) {
        self.draw();
        if let Some(screen) = &mut self.screen {
            screen.resize(cols, rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn stages() -> (Stages, Entered, mpsc::Receiver<String>) {
        let stages = Stages::default();
        let bill = Bill {
            session: SessionId::from_name("s1").unwrap(),
            person: PersonId::from_name("alice").unwrap(),
            study: StudyId::from_name("brca").unwrap(),
            since: Timestamp::from_secs(1),
            what: "shell".to_owned(),
            terminal: Some((40, 5)),
            recorded: RecordingMode::Strict,
        };
        let (entered, heard) = stages.enter(bill, Arc::default());
        (stages, entered, heard)
    }

    fn shown(stage: &Stage) -> String {
        String::from_utf8(stage.picture(40, 5).unwrap().draw(None)).unwrap()
    }

    fn write(stage: &Stage, bytes: &[u8]) {
        stage.tell(&Happening::Output(Bytes::copy_from_slice(bytes)));
    }

    #[tokio::test]
    async fn whoever_comes_late_sees_what_is_there_and_a_flood_costs_little() {
        let (stages, entered, _heard) = stages();
        let stage = stages.of(&entered.stage.bill.session).unwrap();
        write(&stage, b"$ samtools view\r\n");
        assert!(shown(&stage).contains("samtools view"));
        let piece = vec![b'x'; 64 << 10];
        for _ in 0..1_000 {
            write(&stage, &piece);
        }
        assert!(stage.scene().put_by.capacity() <= 2 * PUT_BY);
        write(&stage, b"\r\n\x1b[2J\x1b[Hthe end");
        let seen = shown(&stage);
        assert!(seen.contains("the end") && !seen.contains("xx"), "{seen:?}");
        assert_eq!(stage.bytes().1, 17 + 1_000 * (64 << 10) + 16);
        drop(entered);
        stage.ended().await;
        assert!(stages.all().is_empty());
    }

    #[tokio::test]
    async fn a_second_person_is_somebody_else() {
        let (_stages, entered, _heard) = stages();
        let stage = Arc::clone(&entered.stage);
        let own = stage.sit(PersonId::from_name("alice").unwrap(), false).unwrap();
        let waiting = tokio::spawn({
            let stage = Arc::clone(&stage);
            async move { stage.attended(true).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        let seat = stage.sit(PersonId::from_name("carol").unwrap(), true).unwrap();
        waiting.await.unwrap();
        assert_eq!(stage.watchers().len(), 2);
        drop(seat);
        stage.attended(false).await;
        drop(own);
        let all: Vec<_> =
            (0..WATCHERS).map(|_| stage.sit(PersonId::from_name("carol").unwrap(), false).unwrap()).collect();
        assert!(stage.sit(PersonId::from_name("dave").unwrap(), false).is_none());
        drop(all);
        assert!(stage.watchers().is_empty());
    }

    #[tokio::test]
    async fn a_question_is_answered_with_a_key_and_once() {
        let (_stages, entered, mut heard) = stages();
        let stage = &entered.stage;
        assert!(!stage.answer(b"y"));
        for (typed, yes) in [(&b"y"[..], true), (b"n", false), (b"", false), (b"\r", false)] {
            let asked = stage.ask("May carol type here?".to_owned()).unwrap();
            assert_eq!(heard.recv().await.as_deref(), Some("May carol type here?"));
            assert!(stage.answer(typed));
            assert_eq!(asked.await.unwrap(), yes);
        }
        assert!(!stage.answer(b"y"));
        // Whoever asked and left gets no answer, and what is typed is typed.
        drop(stage.ask("?".to_owned()));
        assert!(!stage.answer(b"y"));
    }
}
