use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use data_encoding::BASE64;
use flate2::bufread::GzDecoder;

use super::{FIRST_LINE, LAST_LINE, LINE_MAX, NOTE_MAX, SegmentFault, SegmentHeader, SegmentRange};
use crate::disk::{make_dirs, sync_dir, write_whole};
use crate::local::note_removed;
use crate::tiles::{Kind, Tile, push_entry};
use crate::tree::{WIDTH, leaf_hash, reduce};
use crate::wal::ENTRY_MAX;
use crate::{Checkpoint, Hash, LogPublicKey};

/// Reads a segment, bundle by bundle, and checks it.
///
/// That the entries are those of the log is certain only once [`SegmentReader::next_bundle`] has
/// returned nothing: one root stands for all of them.
pub struct SegmentReader<R: Read> {
    header: SegmentHeader,
    lines: BufReader<GzDecoder<BufReader<R>>>,
    roots: Vec<Hash>,
    ended: bool,
}

/// 256 entries of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentBundle {
    /// Its number in the log.
    pub n: u64,
    /// Its entries.
    pub entries: Vec<Vec<u8>>,
    /// Their hashes.
    pub(crate) hashes: Vec<Hash>,
}

impl SegmentBundle {
    /// The bundle as it lies in the folder of the log.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.entries.iter().map(|entry| 2 + entry.len()).sum());
        self.entries.iter().for_each(|entry| push_entry(&mut bytes, entry));
        bytes
    }
}

impl<R: Read> SegmentReader<R> {
    /// Reads what stands before the entries. `bytes` are foreign; `key` is the key of the log that the
    /// segment must be of.
    pub fn open(bytes: R, key: &LogPublicKey) -> Result<SegmentReader<R>, SegmentFault> {
        let mut lines = BufReader::new(GzDecoder::new(BufReader::new(bytes)));
        let header = header(&mut lines, key)?;
        Ok(SegmentReader { header, lines, roots: Vec::new(), ended: false })
    }

    /// What stands before the entries. Its checkpoint is signed by the log, and its root stands under it.
    pub fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// The next bundle; nothing after the last, once everything was found to be right.
    pub fn next_bundle(&mut self) -> Result<Option<SegmentBundle>, SegmentFault> {
        let bundles = self.header.range.bundles();
        let n = bundles.start + self.roots.len() as u64;
        if n == bundles.end {
            if !self.ended {
                self.end()?;
            }
            return Ok(None);
        }
        let mut bundle = SegmentBundle { n, entries: Vec::new(), hashes: Vec::new() };
        for index in n * WIDTH as u64..(n + 1) * WIDTH as u64 {
            let entry = match line(&mut self.lines, ENTRY_MAX)? {
                Line::Whole(entry) => entry,
                Line::Short => return Err(SegmentFault::Short("its entries")),
                Line::Long => return Err(SegmentFault::EntryTooLong(index)),
            };
            bundle.hashes.push(leaf_hash(&entry));
            bundle.entries.push(entry);
        }
        self.roots.push(reduce(&bundle.hashes));
        Ok(Some(bundle))
    }

    fn end(&mut self) -> Result<(), SegmentFault> {
        // To read up to the end is what checks the sum of the compression.
        if !self.lines.fill_buf()?.is_empty() || !self.lines.get_mut().get_mut().fill_buf()?.is_empty() {
            return Err(SegmentFault::Trailing);
        }
        if reduce(&self.roots) != self.header.root {
            return Err(SegmentFault::OtherRoot);
        }
        self.ended = true;
        Ok(())
    }
}

/// Prepares a folder for bundles of segments, so that a [`crate::Reader`] can read what is in it: the
/// log's key, the latest checkpoint of those segments, and that bundles may be missing. It has no
/// tiles of hashes, so nothing can be proven from it alone.
pub fn prepare_folder(dir: &Path, header: &SegmentHeader) -> io::Result<()> {
    make_dirs(dir)?;
    let (key, checkpoint) = (dir.join("key.pub"), dir.join("checkpoint"));
    let text = format!("{}\n", header.key);
    match fs::read_to_string(&key) {
        Ok(found) if found == text => {}
        Ok(_) => return Err(io::Error::other("the folder holds entries of another log")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => write_whole(&key, text.as_bytes())?,
        Err(error) => return Err(error),
    }
    let found = fs::read(&checkpoint).ok().and_then(|note| Checkpoint::open(&note, &header.key).ok());
    if found.is_none_or(|found| found.size < header.checkpoint.size) {
        let below = header.checkpoint.size.next_multiple_of(WIDTH as u64);
        note_removed(dir, below).map_err(io::Error::other)?;
        write_whole(&checkpoint, header.note.as_bytes())?;
    }
    sync_dir(dir)
}

/// Writes a bundle to its place under `dir`, in the layout of C2SP tlog-tiles.
pub fn write_bundle(dir: &Path, bundle: &SegmentBundle) -> io::Result<()> {
    let path = dir.join(Tile { kind: Kind::Entries, n: bundle.n, width: WIDTH as u16 }.path());
    let parent = path.parent().unwrap_or(dir);
    make_dirs(parent)?;
    // Removed before and put back: whatever is there is not trusted more than what was checked.
    let _ = fs::remove_file(&path);
    write_whole(&path, &bundle.to_bytes())?;
    sync_dir(parent)
}

fn header(lines: &mut impl BufRead, key: &LogPublicKey) -> Result<SegmentHeader, SegmentFault> {
    match line(lines, LINE_MAX) {
        Ok(Line::Whole(first)) if first == FIRST_LINE.as_bytes() => {}
        Err(SegmentFault::Io(error)) if error.kind() != io::ErrorKind::InvalidInput => {
            return Err(SegmentFault::Io(error));
        }
        _ => return Err(SegmentFault::NotASegment),
    }
    let found: LogPublicKey = field(lines, "key")?.parse().map_err(SegmentFault::Key)?;
    if found != *key {
        return Err(SegmentFault::OtherLog { found: found.to_string(), expected: key.to_string() });
    }
    let range = field(lines, "range")?;
    let (first, count) = range.split_once(' ').ok_or(SegmentFault::Line("range"))?;
    let range = SegmentRange::new(number("range", first)?, number("range", count)?);
    let range = range.ok_or(SegmentFault::Range)?;
    let root = hash("root", &field(lines, "root")?)?;
    let proof = field(lines, "proof")?;
    let proof = proof.split(' ').filter(|_| !proof.is_empty()).map(|text| hash("proof", text));
    let proof = proof.collect::<Result<Vec<_>, _>>()?;
    let len = number("checkpoint", &field(lines, "checkpoint")?)?;
    let len =
        usize::try_from(len).ok().filter(|len| *len <= NOTE_MAX).ok_or(SegmentFault::Line("checkpoint"))?;
    let mut note = Vec::new();
    lines.take(len as u64).read_to_end(&mut note)?;
    if note.len() < len {
        return Err(SegmentFault::Short("its checkpoint"));
    }
    let checkpoint = Checkpoint::open(&note, key).map_err(SegmentFault::Checkpoint)?;
    let note = String::from_utf8(note).map_err(|_| SegmentFault::Line("checkpoint"))?;
    if !matches!(line(lines, LINE_MAX)?, Line::Whole(last) if last == LAST_LINE.as_bytes()) {
        return Err(SegmentFault::Line(LAST_LINE));
    }
    if !range.stands_under(&root, &checkpoint, &proof) {
        return Err(SegmentFault::NotCovered);
    }
    Ok(SegmentHeader { key: found, range, root, proof, checkpoint, note })
}

/// What follows a word and a blank; nothing may follow the word `proof`.
fn field(lines: &mut impl BufRead, name: &'static str) -> Result<String, SegmentFault> {
    let Line::Whole(bytes) = line(lines, LINE_MAX)? else { return Err(SegmentFault::Line(name)) };
    let text = String::from_utf8(bytes).map_err(|_| SegmentFault::Line(name))?;
    let rest = text.strip_prefix(name).ok_or(SegmentFault::Line(name))?;
    match rest.strip_prefix(' ') {
        Some(value) if !value.is_empty() => Ok(value.to_owned()),
        None if rest.is_empty() && name == "proof" => Ok(String::new()),
        _ => Err(SegmentFault::Line(name)),
    }
}

/// A decimal number; only the one way of writing it counts.
fn number(name: &'static str, text: &str) -> Result<u64, SegmentFault> {
    let number: u64 = text.parse().map_err(|_| SegmentFault::Line(name))?;
    if number.to_string() == text { Ok(number) } else { Err(SegmentFault::Line(name)) }
}

fn hash(name: &'static str, text: &str) -> Result<Hash, SegmentFault> {
    let bytes = BASE64.decode(text.as_bytes()).map_err(|_| SegmentFault::Line(name))?;
    bytes.try_into().map_err(|_| SegmentFault::Line(name))
}

enum Line {
    /// Without its end.
    Whole(Vec<u8>),
    /// The bytes ended first.
    Short,
    /// It is longer than it may be.
    Long,
}

/// The next line, of at most `max` bytes.
fn line(lines: &mut impl BufRead, max: usize) -> Result<Line, SegmentFault> {
    let mut bytes = Vec::new();
    lines.take(max as u64 + 1).read_until(b'\n', &mut bytes)?;
    Ok(match bytes.pop() {
        Some(b'\n') => Line::Whole(bytes),
        Some(_) if bytes.len() == max => Line::Long,
        _ => Line::Short,
    })
}
