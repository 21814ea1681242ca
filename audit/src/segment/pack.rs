use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::{SegmentHeader, SegmentRange};
use crate::reader::Reader;
use crate::tiles::{Kind, Tile, TileNodes, read_entries, read_hashes};
use crate::tree::{Nodes, WIDTH, inclusion, leaf_hash, reduce};
use crate::{Checkpoint, NoteError, ReadError};

/// Why a segment was not made.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The log could not be read, or is damaged.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The segment could not be written.
    #[error("the segment cannot be written: {0}")]
    Write(#[source] io::Error),
    /// The checkpoint that it should stand under is not the log's.
    #[error("the checkpoint that the segment should stand under: {0}")]
    Checkpoint(#[source] NoteError),
    /// The checkpoint covers less.
    #[error("the checkpoint covers {size} entries, the segment ends with {end}")]
    NotCovered {
        /// What the checkpoint covers.
        size: u64,
        /// Where the segment ends.
        end: u64,
    },
    /// The tiles say something else than the checkpoint.
    #[error("the tiles of the log do not lead to its checkpoint; run `sekisho audit verify`")]
    Inconsistent,
    /// An entry that is not the one its hash stands for.
    #[error("entry {0} is not the one that was recorded; run `sekisho audit verify`")]
    Changed(u64),
    /// An entry with a line end in it; none that this house writes has one.
    #[error("entry {0} is not one line")]
    NotALine(u64),
}

impl Reader {
    /// Writes the entries of `range` as a segment under `note`, a checkpoint of this log that covers
    /// them, and returns what stands before the entries.
    ///
    /// It holds one bundle in memory. Each entry is compared with the tile that commits to it before
    /// it is written, so that nothing damaged is ever kept as if it were good.
    pub fn pack(
        &self,
        range: SegmentRange,
        note: &str,
        to: &mut dyn Write,
    ) -> Result<SegmentHeader, PackError> {
        let header = self.segment_header(range, note)?;
        let mut to = GzEncoder::new(io::BufWriter::new(to), Compression::new(6));
        to.write_all(header.to_text().as_bytes()).map_err(PackError::Write)?;
        let mut roots = Vec::new();
        for n in range.bundles() {
            let tile = Tile { kind: Kind::Entries, n, width: WIDTH as u16 };
            let entries = read_entries(self.dir(), tile)?;
            let hashes = read_hashes(self.dir(), Tile { kind: Kind::Level(0), ..tile })?;
            for (index, (entry, hash)) in (n * WIDTH as u64..).zip(entries.iter().zip(&hashes)) {
                if leaf_hash(entry) != *hash {
                    return Err(PackError::Changed(index));
                }
                if entry.contains(&b'\n') {
                    return Err(PackError::NotALine(index));
                }
                to.write_all(entry).and_then(|()| to.write_all(b"\n")).map_err(PackError::Write)?;
            }
            roots.push(reduce(&hashes));
        }
        if reduce(&roots) != header.root {
            return Err(PackError::Inconsistent);
        }
        to.finish().and_then(|mut rest| rest.flush()).map_err(PackError::Write)?;
        Ok(header)
    }

    /// What stands before the entries of a segment, from the tiles of hashes alone.
    pub fn segment_header(&self, range: SegmentRange, note: &str) -> Result<SegmentHeader, PackError> {
        let checkpoint = Checkpoint::open(note.as_bytes(), self.key()).map_err(PackError::Checkpoint)?;
        if checkpoint.size < range.end() {
            return Err(PackError::NotCovered { size: checkpoint.size, end: range.end() });
        }
        let level = range.level();
        // Subtrees that an older checkpoint stands on are complete in the present tiles as well.
        let (root, proof) = self.at_checkpoint(|present, _| {
            let size = present.size.max(checkpoint.size);
            let nodes = TileNodes::new(self.dir(), size);
            let root = nodes.node(level, range.first >> level)?;
            let mut proof = inclusion(&nodes, range.first, checkpoint.size)?;
            proof.drain(..level as usize);
            Ok((root, proof))
        })?;
        if !range.stands_under(&root, &checkpoint, &proof) {
            return Err(PackError::Inconsistent);
        }
        Ok(SegmentHeader { key: self.key().clone(), range, root, proof, checkpoint, note: note.to_owned() })
    }
}
