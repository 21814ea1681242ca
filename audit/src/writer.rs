//! The thread that makes entries durable: whatever waits is written as one batch and synced once.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::AppendError;
use crate::disk::Appendable;
use crate::shared::{Shared, lock};
use crate::wal::{BATCH_BODY_MAX, ENTRY_MAX, Segment, encode_batch};

/// How many entries may wait for the writer; beyond that, those who append wait for a place.
pub(crate) const QUEUE: usize = 1024;

pub(crate) enum Message {
    Append { entry: Vec<u8>, done: oneshot::Sender<Result<u64, AppendError>> },
    Close { done: oneshot::Sender<()> },
}

/// Opens a segment for writing at its end.
pub(crate) type Opener = Box<dyn Fn(&Path) -> io::Result<Box<dyn Appendable>> + Send>;

pub(crate) fn open_file(path: &Path) -> io::Result<Box<dyn Appendable>> {
    Ok(Box::new(OpenOptions::new().append(true).open(path)?) as Box<dyn Appendable>)
}

pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) opener: Opener,
    pub(crate) file: Box<dyn Appendable>,
    pub(crate) segment_bytes: u64,
}

type Waiting = (Vec<u8>, oneshot::Sender<Result<u64, AppendError>>);

impl Writer {
    /// Runs until the log is closed or nobody holds it any more; returns who waits for the end.
    pub(crate) fn run(mut self, mut queue: mpsc::Receiver<Message>) -> Option<oneshot::Sender<()>> {
        let mut closing = None;
        while let Some(message) = queue.blocking_recv() {
            let mut batch: Vec<Waiting> = Vec::new();
            let mut bytes = 0;
            let mut next = Some(message);
            while let Some(message) = next {
                match message {
                    Message::Append { entry, done } => {
                        bytes += entry.len();
                        batch.push((entry, done));
                    }
                    Message::Close { done } => {
                        queue.close();
                        closing = Some(done);
                    }
                }
                // Room for one more of any size.
                let room = batch.len() < QUEUE && bytes + ENTRY_MAX <= BATCH_BODY_MAX;
                next = if room { queue.try_recv().ok() } else { None };
            }
            if !batch.is_empty() {
                self.commit(batch);
            }
        }
        closing
    }

    fn commit(&mut self, batch: Vec<Waiting>) {
        let failed = self.shared.state.borrow().failed.clone();
        let written = match failed {
            Some(cause) => Err(cause),
            None => self.write(&batch).map_err(|cause| self.shared.fail(cause)),
        };
        match written {
            Ok(first) => {
                let next = first + batch.len() as u64;
                self.shared.state.send_modify(|state| state.durable = next);
                lock(&self.shared.work).target = next;
                self.shared.wake.notify_one();
                // Who no longer waits is told nothing; the entry stays.
                (first..).zip(batch).for_each(|(index, (_, done))| drop(done.send(Ok(index))));
            }
            Err(cause) => {
                for (_, done) in batch {
                    drop(done.send(Err(AppendError::Failed(Arc::clone(&cause)))));
                }
            }
        }
    }

    fn write(&mut self, batch: &[Waiting]) -> io::Result<u64> {
        self.rotate()?;
        let first = lock(&self.shared.segments).back().map_or(0, |s| s.next);
        let bytes = encode_batch(first, batch.iter().map(|(entry, _)| entry.as_slice()));
        self.file.append(&bytes)?;
        self.file.sync()?;
        if let Some(segment) = lock(&self.shared.segments).back_mut() {
            segment.push(batch.len(), bytes.len());
        }
        Ok(first)
    }

    fn rotate(&mut self) -> io::Result<()> {
        let next = match lock(&self.shared.segments).back() {
            Some(last) if last.len < self.segment_bytes || last.next == last.first => return Ok(()),
            last => last.map_or(0, |s| s.next),
        };
        let segment = Segment::create(&self.shared.dir.join("wal"), next)?;
        self.file = (self.opener)(&segment.path)?;
        lock(&self.shared.segments).push_back(segment);
        Ok(())
    }
}

/// Cuts a write that was never completed off the end of a segment.
pub(crate) fn cut(segment: &Segment) -> io::Result<()> {
    let file: File = OpenOptions::new().write(true).open(&segment.path)?;
    file.set_len(segment.len)?;
    file.sync_all()
}
