use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::disk::{each_file_under, is_temporary};
use crate::error::{VerifyError, fault};
use crate::local::local_from;
use crate::space::spare_path;
use crate::sweep::sweep;
use crate::tiles::{Kind, Tile, parse_bundle, parse_hashes, push_entry};
use crate::tree::{Edge, Hash, WIDTH, leaf_hash, reduce};
use crate::wal::{BatchFault, Segment, Tail, segments_in};
use crate::witnessed::{Kept, Witnessed};
use crate::{Checkpoint, LogPublicKey, ReadError, WitnessPublicKey};

/// What a log was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyReport {
    /// How many entries the checkpoint covers.
    pub size: u64,
    /// How many entries there are, those with it that no checkpoint covers yet.
    pub entries: u64,
    /// The root over the first `size` of them, recomputed from their bytes.
    pub root: Hash,
    /// The signed checkpoint.
    pub checkpoint: String,
    /// How many bytes were read and found to be what they should.
    pub bytes: u64,
    /// Bytes at the end of the write-ahead log of a write that was not completed. Such a write was
    /// not acknowledged; opening the log cuts it off.
    pub unfinished: u64,
    /// Whether a process has the log open.
    pub live: bool,
    /// How far a witness has come, if the log has one.
    pub witnessed: Option<Witnessed>,
    /// Entries that were moved to the vault and are not here: their hashes were compared, their bytes
    /// were not.
    pub removed: u64,
    /// Entries that were moved to the vault, and were fetched and compared.
    pub fetched: u64,
}

/// How often a log that changes while it is read is looked at before a fault counts.
const ATTEMPTS: u32 = 5;

/// How often the write-ahead log of a live log is listed anew before a missing file counts.
const LISTINGS: u32 = 100;

/// Reads every byte of the log in `dir`: recomputes all hashes from the entries, and compares the
/// write-ahead log, the bundles, the tiles and the signed checkpoint with one another and `key`.
///
/// It changes nothing and may run while the log grows. It reads on all processors, and needs memory
/// for the write-ahead log (a few megabytes), however long the log is.
///
/// Where a witness has signed, `checkpoint.witnessed` must be signed by the log, too, and the log must
/// continue it. Whether the witness signed it is for [`verify_witnessed`].
pub fn verify_dir(dir: &Path, key: &LogPublicKey) -> Result<VerifyReport, VerifyError> {
    verify_with(dir, None, key, None)
}

/// The same, and the last checkpoint that a witness has signed must be there and be signed by
/// `witness`. It says how far the log was shown to the witness; only the witness itself knows whether
/// it has signed more since.
pub fn verify_witnessed(
    dir: &Path,
    key: &LogPublicKey,
    witness: &WitnessPublicKey,
) -> Result<VerifyReport, VerifyError> {
    verify_with(dir, None, key, Some(witness))
}

/// Either, where bundles that were moved to the vault are looked for in the folder `kept`, as
/// [`crate::write_bundle`] puts them there. What is in neither counts by the hashes that stayed.
pub fn verify_with(
    dir: &Path,
    kept: Option<&Path>,
    key: &LogPublicKey,
    witness: Option<&WitnessPublicKey>,
) -> Result<VerifyReport, VerifyError> {
    let mut attempt = 1;
    loop {
        let moving = || (fs::read(dir.join("checkpoint")).ok(), local_from(dir).ok());
        let before = moving();
        let live = is_live(dir);
        let result = verify_once(dir, kept, key, witness, live);
        let moved = moving() != before;
        if result.is_ok() || !moved || attempt == ATTEMPTS {
            return result;
        }
        attempt += 1;
        thread::sleep(Duration::from_millis(50));
    }
}

fn verify_once(
    dir: &Path,
    kept: Option<&Path>,
    key: &LogPublicKey,
    witness: Option<&WitnessPublicKey>,
    live: bool,
) -> Result<VerifyReport, VerifyError> {
    let key_file = read(dir, Path::new("key.pub"))?;
    if key_file != format!("{key}\n").as_bytes() {
        return Err(fault("key.pub is not the key that was expected", None));
    }
    // Before the log's own, which was there first.
    let witnessed = Kept::read(dir, key, witness)?;
    let note = read(dir, Path::new("checkpoint"))?;
    let checkpoint = Checkpoint::open(&note, key).map_err(|e| fault(format!("checkpoint: {e}"), None))?;
    let wal = WalHashes::read(dir, &checkpoint, live)?;
    let removed = local_from(dir).map_err(|e| fault(e.to_string(), None))?;
    let mut walk = Walk {
        dir,
        live,
        elsewhere: Elsewhere { below: removed, kept },
        size: checkpoint.size,
        files: list_tiles(dir, checkpoint.size)?,
        edge: Edge::default(),
        source: None,
        bundle: Vec::new(),
        bytes: (key_file.len() + note.len()) as u64 + wal.bytes + witnessed.as_ref().map_or(0, Kept::bytes),
        removed: 0,
        fetched: 0,
        root: None,
    };
    walk.note_root();
    walk.full_bundles(&wal)?;
    walk.bundles(&wal)?;
    let entries = walk.rest(&wal)?;
    if walk.root != Some(checkpoint.root) {
        let what = match walk.root {
            Some(_) => format!("the {} entries have another root than the checkpoint says", walk.size),
            None => format!("there are {entries} entries, the checkpoint covers {}", walk.size),
        };
        return Err(fault(what, None));
    }
    let witnessed = witnessed.map(|kept| kept.compare(dir, &checkpoint)).transpose()?;
    let stray = walk.files.iter().find(|tile| !live || tile.needs().is_some_and(|n| n <= entries));
    if let Some(tile) = stray {
        return Err(fault(format!("{} does not belong to the log", tile.path().display()), None));
    }
    if !live {
        check_spare(dir)?;
    }
    Ok(VerifyReport {
        size: checkpoint.size,
        entries,
        root: checkpoint.root,
        checkpoint: String::from_utf8_lossy(&note).into_owned(),
        bytes: walk.bytes,
        unfinished: wal.unfinished,
        live,
        witnessed,
        removed: walk.removed,
        fetched: walk.fetched,
    })
}

fn read(dir: &Path, path: &Path) -> Result<Vec<u8>, VerifyError> {
    fs::read(dir.join(path)).map_err(|e| fault(format!("{} cannot be read: {e}", path.display()), None))
}

/// The segment that is to be the next: zeros, if a log that was not closed left one.
fn check_spare(dir: &Path) -> Result<(), VerifyError> {
    let path = spare_path(&dir.join("wal"));
    let bytes = match fs::read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        bytes => bytes.map_err(|e| fault(format!("{} cannot be read: {e}", path.display()), None))?,
    };
    match bytes.iter().position(|byte| *byte != 0) {
        Some(at) => {
            let name = path.strip_prefix(dir).unwrap_or(&path).display();
            Err(fault(format!("{name}, byte {at}: not the zero that was put there"), None))
        }
        None => Ok(()),
    }
}

fn is_live(dir: &Path) -> bool {
    // The lock is given back at once, so that a node can start while its log is verified.
    File::open(dir.join("lock")).is_ok_and(|f| matches!(f.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// The files under `tile/` but the full ones that the checkpoint covers: those are known to be needed
/// and are many.
fn list_tiles(dir: &Path, size: u64) -> Result<BTreeSet<Tile>, VerifyError> {
    let mut tiles = BTreeSet::new();
    let mut foreign = None;
    let listed = each_file_under(&dir.join("tile"), |path| {
        let inside = path.strip_prefix(dir).unwrap_or(&path);
        match Tile::from_path(inside) {
            Some(tile) if is_full_of(tile, size) => {}
            Some(tile) => drop(tiles.insert(tile)),
            None if is_temporary(&path) => {}
            None => drop(foreign.get_or_insert_with(|| inside.to_owned())),
        }
    });
    listed.map_err(|e| fault(format!("tile cannot be listed: {e}"), None))?;
    match foreign {
        Some(path) => Err(fault(format!("{} does not belong to the log", path.display()), None)),
        None => Ok(tiles),
    }
}

/// Whether it is a full tile of a log with `size` entries.
fn is_full_of(tile: Tile, size: u64) -> bool {
    !tile.is_partial() && Tile::at(tile.kind, tile.n, size) == Some(tile)
}

/// The leaf hashes of what the write-ahead log still has.
struct WalHashes {
    first: u64,
    hashes: Vec<Hash>,
    bytes: u64,
    unfinished: u64,
}

/// Why the write-ahead log could not be read.
enum WalFault {
    /// A file of the listing was not there any more.
    Gone(VerifyError),
    Found(VerifyError),
}

impl From<VerifyError> for WalFault {
    fn from(fault: VerifyError) -> WalFault {
        WalFault::Found(fault)
    }
}

impl WalHashes {
    fn read(dir: &Path, checkpoint: &Checkpoint, live: bool) -> Result<WalHashes, VerifyError> {
        let mut listing = 1;
        loop {
            let paths = segments_in(&dir.join("wal"))
                .map_err(|e| fault(format!("wal cannot be listed: {e}"), None))?;
            match WalHashes::read_listed(dir, &paths, checkpoint, live) {
                // A live log drops its oldest files once bundles hold what is in them.
                Err(WalFault::Gone(_)) if live && listing < LISTINGS => listing += 1,
                Err(WalFault::Gone(fault) | WalFault::Found(fault)) => return Err(fault),
                Ok(wal) => return Ok(wal),
            }
        }
    }

    fn read_listed(
        dir: &Path,
        paths: &[PathBuf],
        checkpoint: &Checkpoint,
        live: bool,
    ) -> Result<WalHashes, WalFault> {
        let mut wal = WalHashes { first: 0, hashes: Vec::new(), bytes: 0, unfinished: 0 };
        for (i, path) in paths.iter().enumerate() {
            let name = path.strip_prefix(dir).unwrap_or(path).display();
            let hashes = &mut wal.hashes;
            let (segment, tail) = Segment::scan::<ReadError>(path, |_, entry| {
                hashes.push(leaf_hash(entry));
                Ok(())
            })
            .map_err(|e| {
                let gone =
                    matches!(&e, ReadError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound);
                let fault = fault(e.to_string(), None);
                if gone { WalFault::Gone(fault) } else { WalFault::Found(fault) }
            })?;
            if i == 0 {
                wal.first = segment.first;
            }
            if wal.first + wal.hashes.len() as u64 != segment.next {
                let what = format!("entries are missing between {name} and the file before it");
                return Err(fault(what, Some(segment.first)).into());
            }
            wal.bytes += segment.len;
            match tail {
                Tail::Clean => {}
                // A write that was cut short began with a batch's first bytes; they lie in one sector.
                // Anything else behind the last batch nobody wrote, unless it is being written now.
                Tail::Torn(cause)
                    if i + 1 == paths.len()
                        && segment.next >= checkpoint.size
                        && (live || matches!(cause, BatchFault::Short | BatchFault::Check)) =>
                {
                    let len = fs::metadata(path).map_or(segment.len, |m| m.len());
                    wal.unfinished = len.saturating_sub(segment.len);
                }
                Tail::Torn(cause) | Tail::Damaged(cause) => {
                    let what = format!("{name}, byte {}: {cause}", segment.len);
                    return Err(fault(what, Some(segment.next)).into());
                }
            }
        }
        if !live && wal.end() < checkpoint.size {
            let (end, size) = (wal.end(), checkpoint.size);
            let what = format!("wal ends after {end} entries, the checkpoint covers {size}");
            return Err(fault(what, Some(end)).into());
        }
        Ok(wal)
    }

    fn end(&self) -> u64 {
        self.first + self.hashes.len() as u64
    }

    fn at(&self, index: u64) -> Option<&Hash> {
        self.hashes.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }
}

/// Goes through the entries in order and compares every file it passes.
struct Walk<'a> {
    dir: &'a Path,
    live: bool,
    elsewhere: Elsewhere<'a>,
    /// What the checkpoint covers.
    size: u64,
    /// The files that are there and were not compared yet.
    files: BTreeSet<Tile>,
    edge: Edge,
    /// The bundle that is being read.
    source: Option<Tile>,
    /// Its bytes up to where the walk is.
    bundle: Vec<u8>,
    bytes: u64,
    removed: u64,
    fetched: u64,
    root: Option<Hash>,
}

/// Where entries may be that are not in the folder of the log.
#[derive(Clone, Copy)]
struct Elsewhere<'a> {
    /// Bundles that begin below this index may have been removed.
    below: u64,
    /// Where some of them were fetched to.
    kept: Option<&'a Path>,
}

/// Where the entries of a bundle were found.
#[derive(Clone, Copy, PartialEq)]
enum Found {
    Here,
    Fetched,
    /// Nowhere, and none were expected.
    Removed,
}

impl Walk<'_> {
    /// The entries of all full bundles that the checkpoint covers.
    fn full_bundles(&mut self, wal: &WalHashes) -> Result<(), VerifyError> {
        let count = self.size / WIDTH as u64;
        let files = std::mem::take(&mut self.files);
        let (dir, live, elsewhere) = (self.dir, self.live, self.elsewhere);
        let swept = sweep(
            count,
            |n| read_full(dir, live, elsewhere, n, wal, &files),
            |(root, bytes, found)| {
                self.bytes += bytes;
                self.removed += if found == Found::Removed { WIDTH as u64 } else { 0 };
                self.fetched += if found == Found::Fetched { WIDTH as u64 } else { 0 };
                let mut grown = Vec::new();
                self.edge.push_tile(root, |level, n, hashes| {
                    grown.push((level, n, hashes.to_vec()));
                    Ok::<(), VerifyError>(())
                })?;
                self.compare_grown(grown, &files)?;
                self.note_root();
                Ok(())
            },
        );
        self.files = files;
        swept?;
        // Narrower copies of those were compared with them, and so were the tiles above.
        let size = self.edge.size();
        self.files.retain(|tile| {
            let lowest = matches!(tile.kind, Kind::Entries | Kind::Level(0));
            !tile.is_partial() || if lowest { tile.n >= count } else { tile.needs().is_none_or(|n| n > size) }
        });
        Ok(())
    }

    fn compare_grown(
        &mut self,
        grown: Vec<(usize, u64, Vec<Hash>)>,
        files: &BTreeSet<Tile>,
    ) -> Result<(), VerifyError> {
        for (level, n, hashes) in grown {
            let tile = Tile { kind: Kind::Level(level as u8), n, width: hashes.len() as u16 };
            if is_full_of(tile, self.size) || files.contains(&tile) {
                self.compare_tile(tile, &hashes)?;
            } else {
                self.must_have(tile)?;
            }
        }
        Ok(())
    }

    /// The entries that are in other bundles.
    fn bundles(&mut self, wal: &WalHashes) -> Result<(), VerifyError> {
        for n in self.edge.size() / WIDTH as u64.. {
            let widest = Tile { kind: Kind::Entries, n, width: WIDTH as u16 };
            let narrowest = Tile { width: 1, ..widest };
            let Some(source) = self.files.range(narrowest..=widest).next_back().copied() else {
                return Ok(());
            };
            let path = source.path();
            let name = path.display();
            let Some(bytes) = self.read(source)? else { return Ok(()) };
            self.source = Some(source);
            self.files.remove(&source);
            let first = n * WIDTH as u64;
            let entries = parse_bundle(&bytes).map_err(|e| fault(format!("{name}: {e}"), Some(first)))?;
            if entries.len() != usize::from(source.width) {
                return Err(fault(format!("{name} has {} entries", entries.len()), Some(first)));
            }
            self.bundle.clear();
            for entry in entries {
                let (index, leaf) = (self.edge.size(), leaf_hash(entry));
                if wal.at(index).is_some_and(|known| *known != leaf) {
                    return Err(fault(
                        format!("entry {index} in {name} differs from the one in wal"),
                        Some(index),
                    ));
                }
                push_entry(&mut self.bundle, entry);
                let narrower = Tile { width: (index - first + 1) as u16, ..source };
                if narrower != source {
                    self.compare_bundle(narrower)?;
                }
                self.push(leaf)?;
            }
            if source.is_partial() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The entries that only the write-ahead log has. Returns how many there are in all.
    fn rest(&mut self, wal: &WalHashes) -> Result<u64, VerifyError> {
        let from = self.edge.size();
        if from < self.size && !self.live {
            let tile = Tile::at(Kind::Entries, from / WIDTH as u64, self.size);
            let path = tile.map(|tile| tile.path().display().to_string()).unwrap_or_default();
            return Err(fault(format!("{path} is missing"), Some(from)));
        }
        while let Some(leaf) = wal.at(self.edge.size()) {
            self.push(*leaf)?;
        }
        Ok(self.edge.size())
    }

    fn compare_bundle(&mut self, tile: Tile) -> Result<(), VerifyError> {
        if self.files.remove(&tile) {
            if let Some(bytes) = self.read(tile)?
                && bytes != self.bundle
            {
                let what = format!("{} differs from a later copy of its entries", tile.path().display());
                return Err(fault(what, Some(tile.n * WIDTH as u64)));
            }
        } else {
            self.must_have(tile)?;
        }
        Ok(())
    }

    fn push(&mut self, leaf: Hash) -> Result<(), VerifyError> {
        let mut grown = Vec::new();
        self.edge.push(leaf, |level, n, hashes| {
            let tile = Tile { kind: Kind::Level(level as u8), n, width: hashes.len() as u16 };
            // Only those are copied that a file is compared with.
            let compared = is_full_of(tile, self.size) || self.files.contains(&tile);
            let copy = if compared { hashes.to_vec() } else { Vec::new() };
            grown.push((tile, copy));
            Ok(())
        })?;
        for (tile, hashes) in grown {
            if is_full_of(tile, self.size) || self.files.remove(&tile) {
                self.compare_tile(tile, &hashes)?;
            } else {
                self.must_have(tile)?;
            }
        }
        self.note_root();
        Ok(())
    }

    fn compare_tile(&mut self, tile: Tile, hashes: &[Hash]) -> Result<(), VerifyError> {
        self.bytes += compare_tile(self.dir, self.live, tile, hashes, self.source)?;
        Ok(())
    }

    /// A file that the checkpoint needs and that was not there when the files were listed.
    fn must_have(&self, tile: Tile) -> Result<(), VerifyError> {
        let covered = Tile::at(tile.kind, tile.n, self.size) == Some(tile);
        if covered && !(self.live && tile.is_partial()) {
            let index = tile.needs().map(|n| n - 1);
            return Err(fault(format!("{} is missing", tile.path().display()), index));
        }
        Ok(())
    }

    fn read(&mut self, tile: Tile) -> Result<Option<Vec<u8>>, VerifyError> {
        let bytes = read_file(self.dir, self.live, tile)?;
        self.bytes += bytes.as_ref().map_or(0, Vec::len) as u64;
        Ok(bytes)
    }

    fn note_root(&mut self) {
        if self.edge.size() == self.size {
            self.root = Some(self.edge.root());
        }
    }
}

/// Reads the full bundle `n` and everything that says the same: its tile, narrower copies of both,
/// and the write-ahead log. Returns the root over it, how many bytes were read, and where.
fn read_full(
    dir: &Path,
    live: bool,
    elsewhere: Elsewhere<'_>,
    n: u64,
    wal: &WalHashes,
    files: &BTreeSet<Tile>,
) -> Result<(Hash, u64, Found), VerifyError> {
    let source = Tile { kind: Kind::Entries, n, width: WIDTH as u16 };
    let (path, first) = (source.path(), n * WIDTH as u64);
    let name = path.display();
    let (bytes, found) = match read_file(dir, live, source) {
        Err(_) if first < elsewhere.below && !dir.join(&path).exists() => {
            match elsewhere.kept.map(|kept| fs::read(kept.join(&path))) {
                Some(Ok(bytes)) => (bytes, Found::Fetched),
                Some(Err(e)) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(fault(format!("the fetched {name} cannot be read: {e}"), Some(first)));
                }
                _ => return read_hashes_alone(dir, live, n, wal),
            }
        }
        read => {
            let missing = || fault(format!("{name} is missing"), Some(first));
            (read?.ok_or_else(missing)?, Found::Here)
        }
    };
    let entries = parse_bundle(&bytes).map_err(|e| fault(format!("{name}: {e}"), Some(first)))?;
    if entries.len() != WIDTH {
        return Err(fault(format!("{name} has {} entries", entries.len()), Some(first)));
    }
    let hashes: Vec<Hash> = entries.iter().map(|entry| leaf_hash(entry)).collect();
    compare_wal(wal, first, &hashes, &path)?;
    let tile = Tile { kind: Kind::Level(0), ..source };
    let mut read = bytes.len() as u64 + compare_tile(dir, live, tile, &hashes, Some(source))?;
    for narrow in files.range(Tile { width: 1, ..tile }..tile) {
        read += compare_tile(dir, live, *narrow, &hashes[..usize::from(narrow.width)], Some(source))?;
    }
    for narrow in files.range(Tile { width: 1, ..source }..source) {
        let count = usize::from(narrow.width);
        let end: usize = entries[..count].iter().map(|entry| 2 + entry.len()).sum();
        if let Some(copy) = read_file(dir, live, *narrow)? {
            if copy != bytes[..end] {
                let what = format!("{} differs from a later copy of its entries", narrow.path().display());
                return Err(fault(what, Some(first)));
            }
            read += copy.len() as u64;
        }
    }
    Ok((reduce(&hashes), read, found))
}

/// Of a bundle that was removed, the hashes that stayed.
fn read_hashes_alone(
    dir: &Path,
    live: bool,
    n: u64,
    wal: &WalHashes,
) -> Result<(Hash, u64, Found), VerifyError> {
    let (tile, first) = (Tile { kind: Kind::Level(0), n, width: WIDTH as u16 }, n * WIDTH as u64);
    let path = tile.path();
    let name = path.display();
    let bytes =
        read_file(dir, live, tile)?.ok_or_else(|| fault(format!("{name} is missing"), Some(first)))?;
    let hashes = parse_hashes(&bytes).filter(|hashes| hashes.len() == WIDTH);
    let hashes = hashes.ok_or_else(|| fault(format!("{name} has not the form of a tile"), Some(first)))?;
    compare_wal(wal, first, &hashes, &path)?;
    Ok((reduce(&hashes), bytes.len() as u64, Found::Removed))
}

/// What a file says of entries that the write-ahead log has as well.
fn compare_wal(wal: &WalHashes, first: u64, hashes: &[Hash], path: &Path) -> Result<(), VerifyError> {
    for (index, leaf) in (first..).zip(hashes) {
        if wal.at(index).is_some_and(|known| known != leaf) {
            let what = format!("entry {index} in {} differs from the one in wal", path.display());
            return Err(fault(what, Some(index)));
        }
    }
    Ok(())
}

/// Compares a tile with the hashes it should have; returns how many bytes were read. `source` is the
/// bundle that was read last: it may be a partial one, and a fault is to name what was really read.
fn compare_tile(
    dir: &Path,
    live: bool,
    tile: Tile,
    hashes: &[Hash],
    source: Option<Tile>,
) -> Result<u64, VerifyError> {
    let Some(bytes) = read_file(dir, live, tile)? else { return Ok(0) };
    let expected = hashes.as_flattened();
    if bytes == expected {
        return Ok(bytes.len() as u64);
    }
    let at = bytes.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(expected.len().min(bytes.len()));
    let level = if let Kind::Level(level) = tile.kind { u32::from(level) } else { 0 };
    let index = (tile.n * WIDTH as u64 + (at / 32) as u64) << (8 * level);
    let whole = Tile { kind: Kind::Entries, n: index / WIDTH as u64, width: WIDTH as u16 };
    let bundle = source.filter(|source| source.n == whole.n).unwrap_or(whole);
    let what = format!(
        "{}, byte {at}: not the hash of entry {index} and what follows it in {}",
        tile.path().display(),
        bundle.path().display()
    );
    Err(fault(what, Some(index)))
}

/// None: gone since the files were listed, because something newer took its place.
fn read_file(dir: &Path, live: bool, tile: Tile) -> Result<Option<Vec<u8>>, VerifyError> {
    let path = tile.path();
    match fs::read(dir.join(&path)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            if live && tile.is_partial() {
                return Ok(None);
            }
            Err(fault(format!("{} is missing", path.display()), tile.needs().map(|n| n - 1)))
        }
        Err(e) => Err(fault(format!("{} cannot be read: {e}", path.display()), None)),
    }
}
