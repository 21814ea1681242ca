//! The thread that publishes what is durable: bundles, tiles, and a checkpoint over them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::disk::{Prepared, make_dirs, sync_dir, write_whole};
use crate::locks::{lock, wait};
use crate::shared::{Published, Shared};
use crate::tiles::{Kind, Tile, push_entry};
use crate::tree::{Edge, WIDTH, leaf_hash};

/// How many entries are held in memory at once.
const CHUNK: usize = 512;

pub(crate) struct Integrator {
    pub(crate) shared: Arc<Shared>,
    pub(crate) every: Duration,
    pub(crate) edge: Edge,
    /// The bytes of the bundle that is not full yet.
    pub(crate) bundle: Vec<u8>,
    /// The partial files of the last checkpoint and of the one before it. Readers may be at either.
    pub(crate) partials: [BTreeSet<PathBuf>; 2],
}

impl Integrator {
    /// Runs until it is told to stop, and then publishes what is left.
    pub(crate) fn run(mut self) {
        loop {
            let (target, stop) = self.next_target();
            if self.edge.size() < target
                && let Err(cause) = self.publish(target)
            {
                // Without checkpoints the log proves nothing any more, so it takes nothing more.
                self.shared.fail_and_tell(cause);
                return;
            }
            if stop {
                return;
            }
        }
    }

    /// Waits for entries, and then for more of them until a checkpoint is due.
    fn next_target(&self) -> (u64, bool) {
        let shared = &*self.shared;
        let mut work = lock(&shared.work);
        while work.target <= self.edge.size() && !work.stop {
            work.idle = true;
            work = wait(&shared.wake, work);
        }
        work.idle = false;
        let due = Instant::now() + self.every;
        while !work.stop && !work.hurry {
            let Some(left) = due.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) else {
                break;
            };
            let waited = shared.wake.wait_timeout(work, left);
            work = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        work.hurry = false;
        (work.target, work.stop)
    }

    fn publish(&mut self, target: u64) -> io::Result<()> {
        let mut files = Files { dir: &self.shared.dir, unsynced: Vec::new(), synced: BTreeSet::new() };
        while self.edge.size() < target {
            let room = usize::try_from(target - self.edge.size()).map_or(CHUNK, |left| left.min(CHUNK));
            let entries = self.shared.read(self.edge.size(), room).map_err(io::Error::other)?;
            if entries.is_empty() {
                return Err(io::Error::other("entries that were written are not in the write-ahead log"));
            }
            for (_, entry) in entries {
                push_entry(&mut self.bundle, &entry);
                self.edge.push(leaf_hash(&entry), |level, n, hashes| {
                    if hashes.len() < WIDTH {
                        return Ok(());
                    }
                    let kind = Kind::Level(level as u8);
                    files.write(Tile { kind, n, width: WIDTH as u16 }, hashes.as_flattened())
                })?;
                if self.edge.size().is_multiple_of(WIDTH as u64) {
                    let n = self.edge.size() / WIDTH as u64 - 1;
                    files.write(Tile { kind: Kind::Entries, n, width: WIDTH as u16 }, &self.bundle)?;
                    self.bundle.clear();
                }
            }
        }
        let current = self.write_partials(&mut files)?;
        files.sync()?;
        self.sign()?;
        self.forget(current);
        Ok(())
    }

    fn write_partials(&self, files: &mut Files<'_>) -> io::Result<BTreeSet<PathBuf>> {
        let size = self.edge.size();
        let mut current = BTreeSet::new();
        let levels = self.edge.levels().iter().enumerate();
        let tiles = levels.map(|(level, hashes)| (Kind::Level(level as u8), hashes.as_flattened()));
        for (kind, bytes) in tiles.chain([(Kind::Entries, &self.bundle[..])]) {
            let level = if let Kind::Level(level) = kind { u32::from(level) } else { 0 };
            let n = (size >> (8 * level)) / WIDTH as u64;
            let Some(tile) = Tile::at(kind, n, size) else { continue };
            let path = tile.path();
            if !self.partials[0].contains(&path) {
                files.write(tile, bytes)?;
            }
            current.insert(path);
        }
        Ok(current)
    }

    fn sign(&self) -> io::Result<()> {
        let shared = &*self.shared;
        let note = shared.key.sign(self.edge.size(), &self.edge.root());
        write_whole(&shared.dir.join("checkpoint"), note.as_bytes())?;
        sync_dir(&shared.dir)?;
        *lock(&shared.published) = Published { size: self.edge.size(), note, at: shared.clock.now() };
        Ok(())
    }

    /// Takes away what the checkpoint has made superfluous. That this fails does no harm.
    fn forget(&mut self, current: BTreeSet<PathBuf>) {
        let [last, before] = std::mem::take(&mut self.partials);
        for path in before.difference(&last).filter(|path| !current.contains(*path)) {
            let path = self.shared.dir.join(path);
            let _ = fs::remove_file(&path);
            // Works only once it is empty.
            let _ = path.parent().map(fs::remove_dir);
        }
        self.partials = [current, last];
        let mut segments = lock(&self.shared.segments);
        while segments.len() > 1 && segments[0].next <= self.edge.size() {
            let _ = fs::remove_file(&segments[0].path);
            segments.pop_front();
        }
        self.shared.dropped.notify_all();
    }
}

/// How many files may be written before they are synced. Synced together, most of them find that the
/// file system has done the work for the first already.
const TOGETHER: usize = 128;

/// Files being written, and the folders whose names must be made durable afterwards.
struct Files<'a> {
    dir: &'a Path,
    unsynced: Vec<Prepared>,
    synced: BTreeSet<PathBuf>,
}

impl Files<'_> {
    fn write(&mut self, tile: Tile, bytes: &[u8]) -> io::Result<()> {
        let path = self.dir.join(tile.path());
        let Some(parent) = path.parent() else { return Ok(()) };
        if !self.synced.contains(parent) {
            make_dirs(parent)?;
            self.synced.insert(parent.to_owned());
        }
        self.unsynced.push(Prepared::write(path, bytes)?);
        if self.unsynced.len() == TOGETHER { self.settle() } else { Ok(()) }
    }

    fn settle(&mut self) -> io::Result<()> {
        self.unsynced.drain(..).try_for_each(Prepared::settle)
    }

    fn sync(mut self) -> io::Result<()> {
        self.settle()?;
        self.synced.iter().try_for_each(|dir| sync_dir(dir))
    }
}
