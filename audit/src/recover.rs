//! Opening a log: what is on disk must be what the last checkpoint promised, and may be more.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::disk::{TEMPORARY, files_under, fill, is_temporary, make_dirs, sync_dir, write_whole};
use crate::space;
use crate::tiles::{Kind, Tile, push_entry, read_entries, read_hashes};
use crate::tree::{Edge, Hash, WIDTH, leaf_hash, levels_of, width_at};
use crate::wal::{Segment, Tail, segments_in};
use crate::writer::cut;
use crate::{Checkpoint, LogKey, OpenError};

/// A log as it was found, checked.
pub(crate) struct Recovered {
    pub(crate) lock: File,
    pub(crate) note: String,
    pub(crate) edge: Edge,
    pub(crate) bundle: Vec<u8>,
    pub(crate) partials: BTreeSet<PathBuf>,
    pub(crate) segments: VecDeque<Segment>,
}

/// Opens the log in `dir` or begins one. Nothing is changed before everything was checked.
///
/// The last segment is made `capacity` bytes long, so that what is recorded next has its place.
pub(crate) fn recover(dir: &Path, key: &LogKey, capacity: u64) -> Result<Recovered, OpenError> {
    let lock = lock_dir(dir)?;
    check_key(dir, key)?;
    let (note, checkpoint) = read_checkpoint(dir, key)?;
    let (edge, bundle) = read_edge(dir, &checkpoint)?;
    let (mut segments, torn) = read_wal(dir, &checkpoint)?;
    let wal = dir.join("wal");
    if torn && let Some(last) = segments.back() {
        cut(last).map_err(io_at("cut the unfinished write at the end of", &last.path))?;
    }
    let partials = clear_beyond(dir, checkpoint.size).map_err(io_at("tidy", &dir.join("tile")))?;
    make_dirs(&wal).map_err(io_at("make", &wal))?;
    match segments.back() {
        Some(last) => {
            let file = OpenOptions::new().write(true).open(&last.path);
            let filled = file.and_then(|file| fill(&file, last.len, capacity));
            filled
                .map_err(|e| keep_cut(last, e))
                .map_err(io_at("reserve space at the end of", &last.path))?;
        }
        None => {
            let spare = wal.join("first").with_extension(TEMPORARY);
            let made = space::make(&spare, capacity).and_then(|()| Segment::create(&wal, 0, &spare));
            let made = made.map_err(|e| keep_absent(&spare, e));
            segments.push_back(made.map_err(io_at("begin a segment in", &wal))?);
        }
    }
    Ok(Recovered { lock, note, edge, bundle, partials, segments })
}

/// What could not be reserved is not kept half: the disk is full, and the log as it was.
fn keep_cut(segment: &Segment, cause: io::Error) -> io::Error {
    let _ = cut(segment);
    cause
}

fn keep_absent(path: &Path, cause: io::Error) -> io::Error {
    let _ = fs::remove_file(path);
    cause
}

fn io_at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { doing, path, source }
}

fn inconsistent(what: String) -> OpenError {
    OpenError::Inconsistent { what }
}

fn lock_dir(dir: &Path) -> Result<File, OpenError> {
    if !dir.is_dir() {
        // The log says who did what: it is nobody else's to read.
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(dir).map_err(io_at("make", dir))?;
        if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
            sync_dir(parent).map_err(io_at("sync", parent))?;
        }
    }
    let path = dir.join("lock");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&path).map_err(io_at("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Busy(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(OpenError::Io { doing: "lock", path, source }),
    }
}

fn check_key(dir: &Path, key: &LogKey) -> Result<(), OpenError> {
    let path = dir.join("key.pub");
    let expected = format!("{}\n", key.public());
    match fs::read(&path) {
        Ok(found) if found == expected.as_bytes() => Ok(()),
        Ok(found) => Err(OpenError::OtherLog {
            path: dir.to_owned(),
            found: String::from_utf8_lossy(&found[..found.len().min(400)]).trim_end().to_owned(),
            expected: key.public().to_string(),
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            // The first thing written and the last that could be missing.
            for name in ["checkpoint", "wal", "tile"] {
                if dir.join(name).exists() {
                    return Err(inconsistent(format!("{} is missing", path.display())));
                }
            }
            write_whole(&path, expected.as_bytes()).map_err(io_at("write", &path))?;
            sync_dir(dir).map_err(io_at("sync", dir))
        }
        Err(source) => Err(OpenError::Io { doing: "read", path, source }),
    }
}

/// The last checkpoint; a log that is just beginning gets one over nothing, before any entry, so
/// that a missing one always means that it was taken away.
fn read_checkpoint(dir: &Path, key: &LogKey) -> Result<(String, Checkpoint), OpenError> {
    let path = dir.join("checkpoint");
    let note = match fs::read(&path) {
        Ok(note) => note,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            if dir.join("wal").exists() || dir.join("tile").exists() {
                return Err(inconsistent(format!("{} is missing", path.display())));
            }
            let note = key.empty_checkpoint();
            write_whole(&path, note.as_bytes()).map_err(io_at("write", &path))?;
            sync_dir(dir).map_err(io_at("sync", dir))?;
            note.into_bytes()
        }
        Err(source) => return Err(OpenError::Io { doing: "read", path, source }),
    };
    let checkpoint = Checkpoint::open(&note, key.public())
        .map_err(|fault| inconsistent(format!("{}: {fault}", path.display())))?;
    Ok((String::from_utf8_lossy(&note).into_owned(), checkpoint))
}

/// The right edge of the tree, which must have the promised root, and the unfinished bundle.
fn read_edge(dir: &Path, checkpoint: &Checkpoint) -> Result<(Edge, Vec<u8>), OpenError> {
    let size = checkpoint.size;
    let mut levels = Vec::new();
    for level in 0..levels_of(size) {
        let n = (size >> (8 * level)) / WIDTH as u64;
        let hashes = match Tile::at(Kind::Level(level as u8), n, size) {
            Some(tile) => read_hashes(dir, tile)?,
            None => Vec::new(),
        };
        levels.push(hashes);
    }
    let edge = Edge::from_levels(size, levels)
        .filter(|edge| edge.root() == checkpoint.root)
        .ok_or_else(|| inconsistent(format!("the tiles of {size} entries have another root")))?;
    let mut bundle = Vec::new();
    if let Some(tile) = Tile::at(Kind::Entries, size / WIDTH as u64, size) {
        let entries = read_entries(dir, tile)?;
        let hashes: Vec<Hash> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        if hashes != edge.levels()[0] || hashes.len() != width_at(size, 0) {
            return Err(inconsistent(format!("{} does not match its tile", tile.path().display())));
        }
        entries.iter().for_each(|entry| push_entry(&mut bundle, entry));
    }
    Ok((edge, bundle))
}

/// Reads the write-ahead log through. True: there is an unfinished write to cut off.
fn read_wal(dir: &Path, checkpoint: &Checkpoint) -> Result<(VecDeque<Segment>, bool), OpenError> {
    let size = checkpoint.size;
    let wal = dir.join("wal");
    let paths = segments_in(&wal).map_err(io_at("read", &wal))?;
    let mut segments: VecDeque<Segment> = VecDeque::new();
    let mut torn = false;
    let mut known = KnownHashes { dir, size, tile: None };
    for (i, path) in paths.iter().enumerate() {
        let (segment, tail) =
            Segment::scan::<OpenError>(path, |index, entry| known.check(path, index, entry))?;
        let name = path.display();
        match segments.back().map(|s| s.next) {
            Some(next) if next != segment.first => {
                let first = segment.first;
                return Err(inconsistent(format!(
                    "{name} begins with entry {first}, {next} should come next"
                )));
            }
            None if segment.first > size => {
                let first = segment.first;
                return Err(inconsistent(format!("entries {size} to {first} are missing before {name}")));
            }
            _ => {}
        }
        let (at, last) = (segment.len, i + 1 == paths.len());
        torn = match tail {
            Tail::Clean => false,
            Tail::Torn(_) if last && segment.next >= size => true,
            Tail::Torn(fault) | Tail::Damaged(fault) => {
                let next = segment.next;
                return Err(inconsistent(format!("{name}, byte {at}, from entry {next} on: {fault}")));
            }
        };
        segments.push_back(segment);
    }
    let end = segments.back().map_or(0, |s| s.next);
    if end < size {
        return Err(inconsistent(format!(
            "the write-ahead log ends after {end} entries, the checkpoint covers {size}"
        )));
    }
    Ok((segments, torn))
}

/// What the tiles say about entries that the write-ahead log still has.
struct KnownHashes<'a> {
    dir: &'a Path,
    size: u64,
    tile: Option<(u64, Vec<Hash>)>,
}

impl KnownHashes<'_> {
    fn check(&mut self, path: &Path, index: u64, entry: &[u8]) -> Result<(), OpenError> {
        let n = index / WIDTH as u64;
        let Some(tile) = Tile::at(Kind::Level(0), n, self.size).filter(|_| index < self.size) else {
            return Ok(());
        };
        if self.tile.as_ref().is_none_or(|(at, _)| *at != n) {
            self.tile = Some((n, read_hashes(self.dir, tile).map_err(OpenError::from)?));
        }
        let hash = self.tile.as_ref().and_then(|(_, hashes)| hashes.get((index % WIDTH as u64) as usize));
        if hash == Some(&leaf_hash(entry)) {
            Ok(())
        } else {
            let (path, tile) = (path.display(), tile.path());
            Err(inconsistent(format!("entry {index} differs between {path} and {}", tile.display())))
        }
    }
}

/// Takes away what was prepared for a checkpoint that never came, and leftovers of older ones.
/// Returns the partial files that belong to the checkpoint.
fn clear_beyond(dir: &Path, size: u64) -> io::Result<BTreeSet<PathBuf>> {
    let mut kept = BTreeSet::new();
    for path in files_under(dir)? {
        let inside = path.strip_prefix(dir).unwrap_or(&path).to_owned();
        let tile = Tile::from_path(&inside);
        let current = tile.is_some_and(|tile| Tile::at(tile.kind, tile.n, size) == Some(tile));
        if is_temporary(&path) || (tile.is_some() && !current) {
            fs::remove_file(&path)?;
            let _ = path.parent().map(fs::remove_dir);
        } else if current && tile.is_some_and(Tile::is_partial) {
            kept.insert(inside);
        }
    }
    Ok(kept)
}
