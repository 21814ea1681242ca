//! The thread that makes entries durable: whatever waits is written as one batch and synced once.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::disk::Storage;
use crate::locks::{lock, wait};
use crate::shared::{Message, Shared};
use crate::wal::{BATCH_BODY_MAX, ENTRY_MAX, Segment, encode_batch, segment_header};
use crate::{AppendError, Event, EventKind};

/// How many entries may wait for the writer; beyond that, those who append wait for a place.
pub(crate) const QUEUE: usize = 1024;

/// How many segments may wait to be published; beyond that, those who append wait for the disk.
const BEHIND_MAX: usize = 16;

/// Opens a segment for writing.
pub(crate) type Opener = Box<dyn Fn(&Path) -> io::Result<Box<dyn Storage>> + Send>;

pub(crate) fn open_file(path: &Path) -> io::Result<Box<dyn Storage>> {
    Ok(Box::new(OpenOptions::new().write(true).open(path)?) as Box<dyn Storage>)
}

pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) opener: Opener,
    pub(crate) file: Box<dyn Storage>,
    /// How long a segment may become by ordinary entries; the reserve begins there.
    pub(crate) segment_bytes: u64,
    /// How long every segment is from the beginning.
    pub(crate) capacity: u64,
    /// A write failed: what is on disk behind the last entry is not known, so nothing may follow.
    pub(crate) broken: bool,
    /// Whether the reserve says why nothing is taken any more.
    pub(crate) told: bool,
}

struct Waiting {
    entry: Vec<u8>,
    closing: bool,
    done: oneshot::Sender<Result<u64, AppendError>>,
}

impl Writer {
    /// Runs until the log is closed or nobody holds it any more; returns who waits for the end.
    pub(crate) fn run(&mut self, mut queue: mpsc::Receiver<Message>) -> Option<oneshot::Sender<()>> {
        let mut closing = None;
        let mut batch: Vec<Waiting> = Vec::with_capacity(QUEUE);
        while let Some(message) = queue.blocking_recv() {
            let mut bytes = 0;
            let mut next = Some(message);
            while let Some(message) = next {
                match message {
                    Message::Append { entry, closing, done } => {
                        bytes += entry.len();
                        batch.push(Waiting { entry, closing, done });
                    }
                    Message::Failed => {}
                    Message::Close { done } => {
                        queue.close();
                        closing = Some(done);
                    }
                }
                // Room for one more of any size.
                let room = batch.len() < QUEUE && bytes + ENTRY_MAX <= BATCH_BODY_MAX;
                next = if room { queue.try_recv().ok() } else { None };
            }
            self.commit(&mut batch);
        }
        closing
    }

    /// Gives back what was kept for later, so that a closed log is as long as what is in it.
    pub(crate) fn finish(self) {
        if self.broken {
            return;
        }
        // Where this fails, zeros stay behind the last batch: they mean nothing.
        let segments = lock(&self.shared.segments);
        for segment in segments.iter() {
            let _ = cut(segment);
        }
    }

    fn commit(&mut self, batch: &mut Vec<Waiting>) {
        if self.failure().is_none()
            && !batch.is_empty()
            && let Ok(first) = self.write(batch)
        {
            self.answer(batch.drain(..), Ok(first));
        }
        // Failed just now or before: of this batch, too, what ends may go into the reserve.
        if let Some(cause) = self.failure() {
            self.close_down(batch, &cause);
        }
    }

    fn failure(&self) -> Option<Arc<io::Error>> {
        self.shared.state.borrow().failed.clone()
    }

    /// What still goes into the reserve of a log that has failed: why it stopped, and what ends.
    fn close_down(&mut self, batch: &mut Vec<Waiting>, cause: &Arc<io::Error>) {
        if !self.broken && !self.told {
            self.told = true;
            let kind = EventKind::LogStopped { reason: cause.to_string() };
            let entry = Event::new(self.shared.clock.now(), kind).to_entry();
            let (done, _) = oneshot::channel();
            batch.insert(0, Waiting { entry, closing: true, done });
        }
        let (ending, refused): (Vec<_>, Vec<_>) = batch.drain(..).partition(|w| w.closing && !self.broken);
        for waiting in refused {
            drop(waiting.done.send(Err(AppendError::Failed(Arc::clone(cause)))));
        }
        if !ending.is_empty() {
            let result = self.write_reserved(&ending);
            self.answer(ending.into_iter(), result);
        }
    }

    fn answer(&mut self, batch: impl Iterator<Item = Waiting>, result: Result<u64, Arc<io::Error>>) {
        match result {
            // Who no longer waits is told nothing; the entry stays.
            Ok(first) => (first..).zip(batch).for_each(|(index, w)| drop(w.done.send(Ok(index)))),
            Err(cause) => {
                batch.for_each(|w| drop(w.done.send(Err(AppendError::Failed(Arc::clone(&cause))))));
            }
        }
    }

    /// Writes ordinary entries. An error has taken the log out of service.
    fn write(&mut self, batch: &[Waiting]) -> Result<u64, Arc<io::Error>> {
        let first = self.shared.state.borrow().durable;
        let bytes = encode_batch(first, batch.iter().map(|w| w.entry.as_slice()));
        let (len, empty) = self.end();
        if len + bytes.len() as u64 > self.segment_bytes && !empty {
            self.rotate(first, &bytes).map_err(|cause| self.shared.fail(cause))?;
            return Ok(self.acknowledge(batch.len(), bytes.len()));
        }
        self.put(&bytes, batch.len())
    }

    fn write_reserved(&mut self, batch: &[Waiting]) -> Result<u64, Arc<io::Error>> {
        let first = self.shared.state.borrow().durable;
        let bytes = encode_batch(first, batch.iter().map(|w| w.entry.as_slice()));
        if self.end().0 + bytes.len() as u64 > self.capacity {
            return Err(Arc::new(io::Error::new(
                io::ErrorKind::StorageFull,
                "the log was stopped, and the reserve for last records is used up",
            )));
        }
        self.put(&bytes, batch.len())
    }

    fn end(&self) -> (u64, bool) {
        lock(&self.shared.segments).back().map_or((0, true), |s| (s.len, s.next == s.first))
    }

    fn put(&mut self, bytes: &[u8], count: usize) -> Result<u64, Arc<io::Error>> {
        let at = self.end().0;
        let written = self.file.write_at(bytes, at).and_then(|()| self.file.sync());
        written.map_err(|cause| {
            self.broken = true;
            self.shared.fail(cause)
        })?;
        Ok(self.acknowledge(count, bytes.len()))
    }

    /// Notes a batch that is on disk, at the end of the last segment. Returns its first index.
    fn acknowledge(&self, count: usize, len: usize) -> u64 {
        if let Some(segment) = lock(&self.shared.segments).back_mut() {
            segment.push(count, len);
        }
        let mut first = 0;
        self.shared.state.send_modify(|state| {
            first = state.durable;
            state.durable += count as u64;
        });
        let mut work = lock(&self.shared.work);
        work.target = first + count as u64;
        if work.idle {
            self.shared.wake.notify_one();
        }
        first
    }

    /// Begins the next segment with a batch: one sync for both, and one for the name.
    fn rotate(&mut self, next: u64, batch: &[u8]) -> io::Result<()> {
        self.wait_for_publisher()?;
        let spare = self.shared.spare.take()?;
        let begun = (self.opener)(&spare).and_then(|mut file| {
            file.write_at(&[&segment_header(next), batch].concat(), 0)?;
            file.sync()?;
            Ok((file, Segment::place(&self.shared.dir.join("wal"), next, &spare)?))
        });
        // The last records of a log that stops here go into the segment before: none may follow it.
        let (file, segment) = begun.inspect_err(|_| drop(fs::remove_file(&spare)))?;
        self.file = file;
        lock(&self.shared.segments).push_back(segment);
        Ok(())
    }

    /// A disk too slow for tiles must not let the write-ahead log grow without end.
    fn wait_for_publisher(&self) -> io::Result<()> {
        let mut segments = lock(&self.shared.segments);
        while segments.len() >= BEHIND_MAX {
            if let Some(cause) = self.failure() {
                return Err(io::Error::new(cause.kind(), cause));
            }
            lock(&self.shared.work).hurry = true;
            self.shared.wake.notify_one();
            segments = wait(&self.shared.dropped, segments);
        }
        Ok(())
    }
}

/// Cuts off what stands behind the last good batch of a segment.
pub(crate) fn cut(segment: &Segment) -> io::Result<()> {
    let file: File = OpenOptions::new().write(true).open(&segment.path)?;
    file.set_len(segment.len)?;
    file.sync_all()
}
