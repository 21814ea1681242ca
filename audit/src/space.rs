//! Space that is taken before it is needed: the next segment of the write-ahead log is always there
//! already, so that a full disk is noticed while there is still room to say so.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex};

use crate::disk::{TEMPORARY, fill, sync_dir};
use crate::locks::{lock, wait};

/// The next segment.
pub(crate) struct Spare {
    dir: PathBuf,
    capacity: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
enum State {
    Wanted,
    Ready,
    Failed(io::ErrorKind, String),
    Ended,
}

impl Spare {
    /// The spare segment of the write-ahead log in `dir`.
    pub(crate) fn new(dir: PathBuf, capacity: u64) -> Spare {
        Spare { dir, capacity, state: Mutex::new(State::Wanted), changed: Condvar::new() }
    }

    /// Makes the spare whenever it is wanted, until [`Spare::end`]. `fail` hears why it could not
    /// be made; that is the end, too.
    pub(crate) fn keep(&self, fail: impl Fn(io::Error)) {
        loop {
            let mut state = lock(&self.state);
            while matches!(*state, State::Ready) {
                state = wait(&self.changed, state);
            }
            if !matches!(*state, State::Wanted) {
                return;
            }
            drop(state);
            let made = make(&self.path(), self.capacity);
            let mut state = lock(&self.state);
            match made {
                _ if matches!(*state, State::Ended) => return,
                Ok(()) => *state = State::Ready,
                Err(cause) => {
                    *state = State::Failed(cause.kind(), cause.to_string());
                    drop(state);
                    self.changed.notify_all();
                    // Half a spare is of no use to anybody.
                    let _ = fs::remove_file(self.path());
                    return fail(cause);
                }
            }
            self.changed.notify_all();
        }
    }

    /// The path of the spare, which the caller renames. Waits until there is one.
    pub(crate) fn take(&self) -> io::Result<PathBuf> {
        let mut state = lock(&self.state);
        while matches!(*state, State::Wanted) {
            state = wait(&self.changed, state);
        }
        match &*state {
            State::Failed(kind, why) => return Err(io::Error::new(*kind, why.clone())),
            State::Ended => return Err(io::Error::other("the log is being closed")),
            State::Wanted | State::Ready => {}
        }
        let path = self.dir.join("taken.tmp");
        fs::rename(self.path(), &path)?;
        *state = State::Wanted;
        drop(state);
        self.changed.notify_all();
        Ok(path)
    }

    /// Ends [`Spare::keep`].
    pub(crate) fn end(&self) {
        *lock(&self.state) = State::Ended;
        self.changed.notify_all();
    }

    /// Gives the space back; after [`Spare::keep`] has returned.
    pub(crate) fn give_back(&self) {
        let _ = fs::remove_file(self.path());
    }

    fn path(&self) -> PathBuf {
        spare_path(&self.dir)
    }
}

/// Where the spare segment of the write-ahead log in `dir` lies.
pub(crate) fn spare_path(dir: &Path) -> PathBuf {
    dir.join("spare").with_extension(TEMPORARY)
}

/// Makes a file of `capacity` zeros at `path`, all of them on disk.
pub(crate) fn make(path: &Path, capacity: u64) -> io::Result<()> {
    let file = File::create(path)?;
    fill(&file, 0, capacity)?;
    path.parent().map_or(Ok(()), sync_dir)
}
