//! Removing entries from the folder that a segment elsewhere has, and putting them back.

use std::fs;
use std::io;

use crate::ReadError;
use crate::local::{local_from, note_removed};
use crate::log::Log;
use crate::reader::Reader;
use crate::segment::{SegmentBundle, SegmentRange, write_bundle};
use crate::tiles::{Kind, Tile, read_hashes};
use crate::tree::{WIDTH, leaf_hash};

impl Log {
    /// A reader of this log's folder.
    pub fn reader(&self) -> Reader {
        Reader::of(self.dir(), self.public_key())
    }

    /// See [`Reader::local_from`].
    pub fn local_from(&self) -> Result<u64, ReadError> {
        local_from(self.dir())
    }

    /// Removes the bundles of `range` from the folder; what is under `tile/<level>` stays. That they may
    /// be missing is on disk before the first goes, so it can be broken off anywhere and done again.
    /// Blocks on the disk.
    ///
    /// The caller has made sure that the entries can be had again.
    pub fn remove_local(&self, range: SegmentRange) -> Result<(), ReadError> {
        let (dir, size) = (self.dir(), self.checkpoint_size());
        if range.end() > size {
            return Err(ReadError::Outside { asked: range.end(), size });
        }
        if local_from(dir)? < range.end() {
            note_removed(dir, range.end())?;
        }
        for n in range.bundles() {
            let path = dir.join(bundle(n).path());
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(ReadError::Io { path, source });
                }
                _ => {}
            }
            // Works only once it is empty.
            let _ = path.parent().map(fs::remove_dir);
        }
        Ok(())
    }

    /// Puts a bundle that was removed back into the folder, if its entries are those that its tile
    /// commits to. Blocks on the disk.
    pub fn restore_local(&self, bundle: &SegmentBundle) -> Result<(), ReadError> {
        self.check_bundle(bundle)?;
        write_bundle(self.dir(), bundle)
            .map_err(|source| ReadError::Io { path: self.dir().to_owned(), source })
    }

    /// Whether `entry` is the one that this log has at `index`, by its tiles of hashes: so also of an
    /// entry whose bundle was removed. Blocks on the disk.
    pub fn is_entry(&self, index: u64, entry: &[u8]) -> Result<bool, ReadError> {
        let (size, n) = (self.checkpoint_size(), index / WIDTH as u64);
        let tile = Tile::at(Kind::Level(0), n, size).filter(|_| index < size);
        let hashes = read_hashes(self.dir(), tile.ok_or(ReadError::Outside { asked: index, size })?)?;
        Ok(hashes.get((index % WIDTH as u64) as usize) == Some(&leaf_hash(entry)))
    }

    /// Whether a bundle's entries are those that this log's tile of hashes commits to.
    pub fn check_bundle(&self, found: &SegmentBundle) -> Result<(), ReadError> {
        let tile = Tile { kind: Kind::Level(0), ..bundle(found.n) };
        let size = self.checkpoint_size();
        if tile.needs().is_none_or(|needed| needed > size) {
            return Err(ReadError::Outside { asked: found.n.saturating_mul(WIDTH as u64), size });
        }
        if read_hashes(self.dir(), tile)? == found.hashes {
            return Ok(());
        }
        let what = "what was fetched has other entries than this tile commits to".to_owned();
        Err(ReadError::Damaged { path: self.dir().join(tile.path()), what })
    }
}

fn bundle(n: u64) -> Tile {
    Tile { kind: Kind::Entries, n, width: WIDTH as u16 }
}
