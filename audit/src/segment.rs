//! A part of the log as one file, to be kept elsewhere: its entries, and what proves them.
//!
//! It is text, compressed with gzip (RFC 1952), so that `zcat` and a reader of JSON are enough:
//!
//! ```text
//! sekisho audit segment v1
//! key <the log's key, a C2SP verifier key>
//! range <index of the first entry> <number of entries>
//! root <RFC 6962 root over these entries, base64>
//! proof <hashes from that root up to the checkpoint's, base64, blanks between>
//! checkpoint <bytes of the note that follows>
//! <a checkpoint over at least these entries, a C2SP signed note; with the witness's signature, if any>
//! entries
//! <one entry on each line, as it stands in the log>
//! ```
//!
//! A segment is a complete subtree: a power of two of full bundles, beginning at a multiple of its own
//! length. So one hash stands for all of it, and `proof` is the rest of the inclusion proof of each of
//! its entries (RFC 9162, 2.1.3). With the log's key alone everything in it can be checked.
//!
//! What this does not defend against: a segment is as good as the key that is compared with it. The
//! key in the file only says which one is meant.

mod pack;
mod unpack;

use data_encoding::BASE64;

use crate::tree::{WIDTH, verify_inclusion};
use crate::{Checkpoint, Hash, KeyError, LogPublicKey, NoteError};

pub use pack::PackError;
pub use unpack::{SegmentBundle, SegmentReader, prepare_folder, write_bundle};

const FIRST_LINE: &str = "sekisho audit segment v1";
const LAST_LINE: &str = "entries";
/// The longest line before the entries.
const LINE_MAX: usize = 4096;
/// The longest checkpoint, with all its signatures.
const NOTE_MAX: usize = 64 << 10;
/// The most bundles a segment has.
pub(crate) const BUNDLES_MAX: u64 = 4096;

/// Which entries a segment has: a power of two of full bundles, at a multiple of its own length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentRange {
    first: u64,
    count: u64,
}

impl SegmentRange {
    /// The entries from `first` on, `count` of them, if they can be a segment.
    pub fn new(first: u64, count: u64) -> Option<SegmentRange> {
        let bundles = count / WIDTH as u64;
        let whole = count.is_multiple_of(WIDTH as u64) && bundles.is_power_of_two();
        (whole && bundles <= BUNDLES_MAX && first.is_multiple_of(count) && first.checked_add(count).is_some())
            .then_some(SegmentRange { first, count })
    }

    /// The segment that begins at `first`, with `bundles` bundles or as many fewer as its place in the
    /// tree asks for. None if `first` is not where a bundle begins.
    pub fn at(first: u64, bundles: u64) -> Option<SegmentRange> {
        if !first.is_multiple_of(WIDTH as u64) || bundles == 0 {
            return None;
        }
        let most = 1 << bundles.min(BUNDLES_MAX).ilog2();
        let place = first / WIDTH as u64;
        let fitting = if place == 0 { most } else { most.min(1 << place.trailing_zeros().min(62)) };
        SegmentRange::new(first, fitting * WIDTH as u64)
    }

    /// Index of its first entry.
    pub fn first(self) -> u64 {
        self.first
    }

    /// How many entries it has.
    pub fn count(self) -> u64 {
        self.count
    }

    /// Index after its last entry.
    pub fn end(self) -> u64 {
        self.first + self.count
    }

    /// The numbers of its bundles.
    pub fn bundles(self) -> std::ops::Range<u64> {
        self.first / WIDTH as u64..self.end() / WIDTH as u64
    }

    /// How high the subtree is.
    fn level(self) -> u32 {
        self.count.trailing_zeros()
    }

    /// Whether `proof` leads from the root over this range to that of a checkpoint.
    fn stands_under(self, root: &Hash, checkpoint: &Checkpoint, proof: &[Hash]) -> bool {
        let level = self.level();
        self.end() <= checkpoint.size
            && verify_inclusion(
                root,
                self.first >> level,
                ((checkpoint.size - 1) >> level) + 1,
                proof,
                &checkpoint.root,
            )
    }
}

/// What a segment says before its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The key of the log it is of.
    pub key: LogPublicKey,
    /// Which entries.
    pub range: SegmentRange,
    /// The RFC 6962 root over them.
    pub root: Hash,
    /// From that root to the checkpoint's.
    pub proof: Vec<Hash>,
    /// The checkpoint that covers them.
    pub checkpoint: Checkpoint,
    /// The same, as it was signed.
    pub note: String,
}

impl SegmentHeader {
    fn to_text(&self) -> String {
        let mut text = format!(
            "{FIRST_LINE}\nkey {}\nrange {} {}\nroot {}\nproof",
            self.key,
            self.range.first,
            self.range.count,
            BASE64.encode(&self.root)
        );
        for hash in &self.proof {
            text.push(' ');
            text.push_str(&BASE64.encode(hash));
        }
        text + &format!("\ncheckpoint {}\n{}{LAST_LINE}\n", self.note.len(), self.note)
    }
}

/// Why bytes are not a segment of this log.
#[derive(Debug, thiserror::Error)]
pub enum SegmentFault {
    /// The bytes could not be read, or are not compressed as they should be.
    #[error("it cannot be read or unpacked: {0}")]
    Io(#[from] std::io::Error),
    /// It begins with something else.
    #[error("it is no segment of an audit log: it does not begin with {FIRST_LINE:?}")]
    NotASegment,
    /// It ends before its time.
    #[error("it ends within {0}")]
    Short(&'static str),
    /// A line that has not the form it should have.
    #[error("its line {0:?} has not the right form")]
    Line(&'static str),
    /// The log's key cannot be read.
    #[error("its key: {0}")]
    Key(#[source] KeyError),
    /// It is of another log.
    #[error("it is of the log with the key {found}, not {expected}")]
    OtherLog {
        /// The key it names.
        found: String,
        /// The key it should name.
        expected: String,
    },
    /// Numbers that no segment has.
    #[error("its range is not that of a segment")]
    Range,
    /// It has other entries than were asked for.
    #[error("it has {found} entries from {first} on, which are not those asked for")]
    OtherRange {
        /// Index of its first entry.
        first: u64,
        /// How many.
        found: u64,
    },
    /// The checkpoint is not signed by the log, or is no checkpoint.
    #[error("its checkpoint: {0}")]
    Checkpoint(#[source] NoteError),
    /// The proof does not lead from its root to that of the checkpoint.
    #[error("its root does not stand under its checkpoint")]
    NotCovered,
    /// A line of an entry that is too long for one.
    #[error("entry {0} is longer than an entry can be")]
    EntryTooLong(u64),
    /// Something follows the last entry.
    #[error("something follows its last entry")]
    Trailing,
    /// The entries are not those that the root stands for.
    #[error("its entries have another root than it says")]
    OtherRoot,
}

#[cfg(test)]
mod tests;
