//! All files of a log, compared with one another along its entries.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use super::wal::WalHashes;
use crate::disk::{each_file_under, is_temporary};
use crate::error::{VerifyError, fault};
use crate::sweep::sweep;
use crate::tiles::{Kind, Tile, parse_bundle, parse_hashes, push_entry};
use crate::tree::{Edge, Hash, WIDTH, leaf_hash, reduce};

/// Goes through the entries in order and compares every file it passes.
pub(super) struct Walk<'a> {
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
pub(super) struct Elsewhere<'a> {
    /// Bundles that begin below this index may have been removed.
    pub(super) below: u64,
    /// Where some of them were fetched to.
    pub(super) kept: Option<&'a Path>,
}

/// Where the entries of a bundle were found.
#[derive(Clone, Copy, PartialEq)]
enum Found {
    Here,
    Fetched,
    /// Nowhere, and none were expected.
    Removed,
}

/// What all of them came to.
pub(super) struct Walked {
    /// How many entries there are.
    pub(super) entries: u64,
    /// How many bytes were read.
    pub(super) bytes: u64,
    /// Entries that are known by their hashes only.
    pub(super) removed: u64,
    /// Entries that were fetched.
    pub(super) fetched: u64,
    /// The root over what the checkpoint covers, if there is as much.
    pub(super) root: Option<Hash>,
    /// A file that nothing needs.
    pub(super) stray: Option<Tile>,
}

impl<'a> Walk<'a> {
    /// Through the log in `dir`, of which a checkpoint covers `size` entries.
    pub(super) fn new(
        dir: &'a Path,
        live: bool,
        elsewhere: Elsewhere<'a>,
        size: u64,
    ) -> Result<Walk<'a>, VerifyError> {
        let mut walk = Walk {
            dir,
            live,
            elsewhere,
            size,
            files: list_tiles(dir, size)?,
            edge: Edge::default(),
            source: None,
            bundle: Vec::new(),
            bytes: 0,
            removed: 0,
            fetched: 0,
            root: None,
        };
        walk.note_root();
        Ok(walk)
    }

    /// From its first entry to its last.
    pub(super) fn through(mut self, wal: &WalHashes) -> Result<Walked, VerifyError> {
        self.full_bundles(wal)?;
        self.bundles(wal)?;
        let entries = self.rest(wal)?;
        let live = self.live;
        let stray = self.files.iter().find(|tile| !live || tile.needs().is_some_and(|n| n <= entries));
        Ok(Walked {
            entries,
            bytes: self.bytes,
            removed: self.removed,
            fetched: self.fetched,
            root: self.root,
            stray: stray.copied(),
        })
    }

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
