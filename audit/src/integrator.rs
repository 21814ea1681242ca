//! The thread that publishes what is durable: bundles, tiles, and a checkpoint over them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::disk::{Prepared, make_dirs_unsynced, sync_dir, sync_together};
use crate::locks::{lock, wait};
use crate::shared::{Published, Shared};
use crate::tiles::{Kind, Tile, push_entry};
use crate::tree::{Edge, WIDTH, leaf_hash};
use crate::wal::Segment;

/// How many entries are held in memory at once.
const CHUNK: usize = 512;

/// How often what is durable is looked at while a checkpoint over it is due: what is done bit by bit
/// holds up the write-ahead log less than all of it at once.
const STEP: Duration = Duration::from_millis(20);

pub(crate) struct Integrator {
    shared: Arc<Shared>,
    every: Duration,
    edge: Edge,
    /// The bytes of the bundle that is not full yet.
    bundle: Vec<u8>,
    /// The partial files of the last checkpoint and of the one before it. Readers may be at either.
    partials: [BTreeSet<PathBuf>; 2],
    files: Files,
}

/// When the integrator was woken.
struct Moment {
    /// How many entries are durable.
    target: u64,
    /// Whether a checkpoint is due.
    due: bool,
    /// Whether it is the last.
    stop: bool,
}

impl Integrator {
    /// Goes on from where the last checkpoint left the tree, with the partial files of it.
    pub(crate) fn new(
        shared: Arc<Shared>,
        every: Duration,
        edge: Edge,
        bundle: Vec<u8>,
        partials: BTreeSet<PathBuf>,
    ) -> Integrator {
        let files = Files { dir: shared.dir.clone(), unsynced: Vec::new(), dirs: BTreeSet::new() };
        Integrator { shared, every, edge, bundle, partials: [partials, BTreeSet::new()], files }
    }

    /// Runs until it is told to stop, and then publishes what is left.
    pub(crate) fn run(mut self) {
        loop {
            match self.round() {
                Ok(false) => {}
                Ok(true) => return,
                // Without checkpoints the log proves nothing any more, so it takes nothing more.
                Err(cause) => return self.shared.fail_and_tell(cause),
            }
        }
    }

    /// From the first entry that waits to the checkpoint over it. True if it was the last.
    fn round(&mut self) -> io::Result<bool> {
        let published = self.edge.size();
        let mut due = None;
        loop {
            let moment = self.wait(due);
            due.get_or_insert_with(|| Instant::now() + self.every);
            self.integrate(moment.target)?;
            if moment.due {
                if self.edge.size() > published {
                    self.publish()?;
                }
                return Ok(moment.stop);
            }
        }
    }

    /// Waits for a first entry, or for more of them until a checkpoint is due.
    fn wait(&self, due: Option<Instant>) -> Moment {
        let shared = &*self.shared;
        let mut work = lock(&shared.work);
        let mut over = false;
        match due {
            None => {
                while work.target <= self.edge.size() && !work.stop {
                    work.idle = true;
                    work = wait(&shared.wake, work);
                }
                work.idle = false;
            }
            Some(due) => {
                let step = Instant::now() + STEP;
                while !work.stop && !work.hurry {
                    let now = Instant::now();
                    over = now >= due;
                    let left = step.min(due).saturating_duration_since(now);
                    if left.is_zero() {
                        break;
                    }
                    let waited = shared.wake.wait_timeout(work, left);
                    work = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
                }
            }
        }
        let hurry = std::mem::take(&mut work.hurry);
        Moment { target: work.target, due: over || hurry || work.stop, stop: work.stop }
    }

    /// Takes up entries until the tree has `target`. Full bundles and tiles are written and not synced.
    fn integrate(&mut self, target: u64) -> io::Result<()> {
        let Integrator { shared, edge, bundle, files, .. } = self;
        while edge.size() < target {
            let room = usize::try_from(target - edge.size()).map_or(CHUNK, |left| left.min(CHUNK));
            let entries = shared.read(edge.size(), room).map_err(io::Error::other)?;
            if entries.is_empty() {
                return Err(io::Error::other("entries that were written are not in the write-ahead log"));
            }
            for (_, entry) in entries {
                push_entry(bundle, &entry);
                edge.push(leaf_hash(&entry), |level, n, hashes| {
                    if hashes.len() < WIDTH {
                        return Ok(());
                    }
                    let kind = Kind::Level(level as u8);
                    files.write(Tile { kind, n, width: WIDTH as u16 }, hashes.as_flattened())
                })?;
                if edge.size().is_multiple_of(WIDTH as u64) {
                    let n = edge.size() / WIDTH as u64 - 1;
                    files.write(Tile { kind: Kind::Entries, n, width: WIDTH as u16 }, bundle)?;
                    bundle.clear();
                }
            }
        }
        Ok(())
    }

    /// Makes everything up to here durable and puts a checkpoint over it.
    fn publish(&mut self) -> io::Result<()> {
        let current = self.write_partials()?;
        let (shared, size) = (&*self.shared, self.edge.size());
        let note = shared.key.sign(size, &self.edge.root());
        self.files.sync(note.as_bytes())?;
        *lock(&shared.published) = Published { size, note, at: shared.clock.now() };
        self.forget(current);
        Ok(())
    }

    fn write_partials(&mut self) -> io::Result<BTreeSet<PathBuf>> {
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
                self.files.write(tile, bytes)?;
            }
            current.insert(path);
        }
        Ok(current)
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
        // Freeing a file takes its time, and the writer must not wait for it.
        while let Some(segment) = self.superfluous_segment() {
            let _ = fs::remove_file(&segment.path);
            drop(segment);
            self.shared.dropped.notify_all();
        }
    }

    fn superfluous_segment(&self) -> Option<Segment> {
        let mut segments = lock(&self.shared.segments);
        let superfluous = segments.len() > 1 && segments[0].next <= self.edge.size();
        if superfluous { segments.pop_front() } else { None }
    }
}

/// How many files may be written before they are synced.
const TOGETHER: usize = 128;

/// Files being written, and the folders whose names must be made durable afterwards.
struct Files {
    dir: PathBuf,
    unsynced: Vec<Prepared>,
    dirs: BTreeSet<PathBuf>,
}

impl Files {
    fn write(&mut self, tile: Tile, bytes: &[u8]) -> io::Result<()> {
        let path = self.dir.join(tile.path());
        let Some(parent) = path.parent() else { return Ok(()) };
        if !self.dirs.contains(parent) {
            make_dirs_unsynced(parent, &mut self.dirs)?;
            self.dirs.insert(parent.to_owned());
        }
        self.unsynced.push(Prepared::write(path, bytes)?);
        if self.unsynced.len() == TOGETHER { self.settle(None) } else { Ok(()) }
    }

    /// Makes what was written durable, together with a file that gets its name later.
    fn settle(&mut self, more: Option<&Prepared>) -> io::Result<()> {
        let files: Vec<&File> = self.unsynced.iter().chain(more).map(Prepared::file).collect();
        sync_together(&files)?;
        self.unsynced.drain(..).try_for_each(Prepared::place)
    }

    /// Makes everything durable, and then puts the checkpoint over it in the place of the last one.
    fn sync(&mut self, note: &[u8]) -> io::Result<()> {
        let checkpoint = Prepared::write(self.dir.join("checkpoint"), note)?;
        self.settle(Some(&checkpoint))?;
        let dirs: Vec<File> = self.dirs.iter().map(File::open).collect::<io::Result<_>>()?;
        self.dirs.clear();
        sync_together(&dirs.iter().collect::<Vec<_>>())?;
        checkpoint.place()?;
        sync_dir(&self.dir)
    }
}
