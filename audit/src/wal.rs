//! The write-ahead log: segments of batches.
//!
//! A segment `wal/<first index, 16 digits>.wal` begins with 32 bytes: `SKWAL` 0 1 LF, the index of
//! its first entry (u64), 16 bytes of check. Then come batches, each written and synced as one:
//! `SKBT`, count (u32), index of the first entry (u64), length of the body (u32), 16 bytes of
//! check, and the body: for each entry its length (u32) and its bytes. Integers are little-endian;
//! a check is the beginning of the SHA-256 of everything it stands for. While a log is open its
//! segments are as long as they may become: zeros follow the last batch.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::ReadError;
use crate::disk::{is_temporary, sync_dir};

const SEGMENT_MAGIC: [u8; 8] = *b"SKWAL\0\x01\n";
const BATCH_MAGIC: [u8; 4] = *b"SKBT";
const CHECK: usize = 16;
pub(crate) const SEGMENT_HEADER: usize = 8 + 8 + CHECK;
pub(crate) const BATCH_HEADER: usize = 4 + 4 + 8 + 4 + CHECK;
/// The most bytes of entries one batch may have.
pub(crate) const BATCH_BODY_MAX: usize = 1 << 20;
/// The most bytes an entry may have: tiles frame entries with 16 bits.
pub(crate) const ENTRY_MAX: usize = 65_535;

/// Why bytes are not a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchFault {
    /// The bytes end before the batch does.
    #[error("it ends in the middle of a batch")]
    Short,
    /// Something else stands where a batch should begin.
    #[error("no batch begins here")]
    Magic,
    /// A count or length that no batch has.
    #[error("a length that cannot be")]
    Length,
    /// The check does not match.
    #[error("the check of a batch does not match")]
    Check,
    /// Entries are missing before it, or it is out of place.
    #[error("a batch is out of order")]
    Order,
}

/// Where the parts of a batch lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Index of the first entry.
    pub first: u64,
    /// Where the entries lie, from the beginning of the batch.
    pub entries: Vec<Range<usize>>,
    /// How long the whole batch is.
    pub len: usize,
}

/// Reads the batch with which `bytes` begin and checks it.
pub fn parse_batch(bytes: &[u8]) -> Result<Batch, BatchFault> {
    let header = bytes.get(..BATCH_HEADER).ok_or(BatchFault::Short)?;
    if header[..4] != BATCH_MAGIC {
        return Err(BatchFault::Magic);
    }
    let (count, first, body_len) = (u32_at(header, 4), u64_at(header, 8), u32_at(header, 16));
    let (count, body_len) = (count as usize, body_len as usize);
    if count == 0 || body_len > BATCH_BODY_MAX + 4 * count || count > BATCH_BODY_MAX / 4 {
        return Err(BatchFault::Length);
    }
    let len = BATCH_HEADER + body_len;
    let body = bytes.get(BATCH_HEADER..len).ok_or(BatchFault::Short)?;
    if header[20..] != check(&[&header[..20], body]) {
        return Err(BatchFault::Check);
    }
    let mut entries = Vec::with_capacity(count);
    let mut at = BATCH_HEADER;
    for _ in 0..count {
        let size = bytes[..len].get(at..at + 4).ok_or(BatchFault::Length)?;
        let size = u32_at(size, 0) as usize;
        let end = at + 4 + size;
        if size > ENTRY_MAX || end > len {
            return Err(BatchFault::Length);
        }
        entries.push(at + 4..end);
        at = end;
    }
    let whole = at == len && first.checked_add(count as u64).is_some();
    if whole { Ok(Batch { first, entries, len }) } else { Err(BatchFault::Length) }
}

/// Makes the bytes of a batch. The entries fit, by the bounds of the queue they come from.
pub(crate) fn encode_batch<'a>(first: u64, entries: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = BATCH_MAGIC.to_vec();
    bytes.extend_from_slice(&[0; BATCH_HEADER - 4]);
    let mut count = 0_u32;
    for entry in entries {
        bytes.extend_from_slice(&(entry.len() as u32).to_le_bytes());
        bytes.extend_from_slice(entry);
        count += 1;
    }
    let body_len = (bytes.len() - BATCH_HEADER) as u32;
    bytes[4..8].copy_from_slice(&count.to_le_bytes());
    bytes[8..16].copy_from_slice(&first.to_le_bytes());
    bytes[16..20].copy_from_slice(&body_len.to_le_bytes());
    let check = check(&[&bytes[..20], &bytes[BATCH_HEADER..]]);
    bytes[20..BATCH_HEADER].copy_from_slice(&check);
    bytes
}

/// One batch of a segment, as the index in memory knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) first: u64,
    offset: u64,
    len: u32,
}

/// One file of the write-ahead log.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) first: u64,
    /// Index after its last entry.
    pub(crate) next: u64,
    /// Length up to the end of the last good batch.
    pub(crate) len: u64,
    batches: Vec<Place>,
    file: Arc<File>,
}

/// What stands behind the last good batch of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    Clean,
    /// Bytes that are no batch and have none behind them: a write that was never completed.
    Torn(BatchFault),
    /// A bad batch with good ones behind it: those bytes were whole once.
    Damaged(BatchFault),
}

impl Segment {
    /// Makes a new, empty segment of the file at `spare`, durable under its name.
    pub(crate) fn create(dir: &Path, first: u64, spare: &Path) -> io::Result<Segment> {
        let file = File::options().write(true).open(spare)?;
        file.write_all_at(&segment_header(first), 0)?;
        file.sync_data()?;
        Segment::place(dir, first, spare)
    }

    /// Gives the file at `spare`, which begins with its header, its name, durably.
    pub(crate) fn place(dir: &Path, first: u64, spare: &Path) -> io::Result<Segment> {
        let path = dir.join(format!("{first:016}.wal"));
        fs::rename(spare, &path)?;
        let opened = sync_dir(dir).and_then(|()| File::open(&path));
        let file = Arc::new(opened.inspect_err(|_| drop(fs::remove_file(&path)))?);
        Ok(Segment { path, first, next: first, len: SEGMENT_HEADER as u64, batches: Vec::new(), file })
    }

    /// Reads a segment through, giving each entry to `each`.
    pub(crate) fn scan<E: From<ReadError>>(
        path: &Path,
        mut each: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(Segment, Tail), E> {
        let io = |source| ReadError::Io { path: path.to_owned(), source };
        let bytes = fs::read(path).map_err(io)?;
        let file = Arc::new(File::open(path).map_err(io)?);
        let first = segment_first(&bytes)
            .filter(|first| path.file_name().is_some_and(|n| n.to_str() == Some(&format!("{first:016}.wal"))))
            .ok_or_else(|| ReadError::Damaged {
                path: path.to_owned(),
                what: "its header is not that of a segment with this name".to_owned(),
            })?;
        let mut segment = Segment {
            path: path.to_owned(),
            first,
            next: first,
            len: SEGMENT_HEADER as u64,
            batches: vec![],
            file,
        };
        let mut at = SEGMENT_HEADER;
        let mut tail = Tail::Clean;
        while at < bytes.len() {
            let batch = match parse_batch(&bytes[at..]) {
                Ok(batch) if batch.first == segment.next => batch,
                _ if bytes[at..].iter().all(|byte| *byte == 0) => break,
                other => {
                    let fault = other.err().unwrap_or(BatchFault::Order);
                    let later = fault == BatchFault::Order || batch_follows(&bytes[at + 1..]);
                    tail = if later { Tail::Damaged(fault) } else { Tail::Torn(fault) };
                    break;
                }
            };
            for (i, range) in batch.entries.iter().enumerate() {
                each(batch.first + i as u64, &bytes[at..][range.clone()])?;
            }
            segment.push(batch.entries.len(), batch.len);
            at += batch.len;
        }
        Ok((segment, tail))
    }

    /// Notes a batch that was written at the end.
    pub(crate) fn push(&mut self, count: usize, len: usize) {
        self.batches.push(Place { first: self.next, offset: self.len, len: len as u32 });
        self.next += count as u64;
        self.len += len as u64;
    }

    /// The batch that holds `index` and the file to read it from.
    pub(crate) fn find(&self, index: u64) -> Option<(Place, Arc<File>, PathBuf)> {
        if index < self.first || index >= self.next {
            return None;
        }
        let at = self.batches.partition_point(|b| b.first <= index);
        let place = *self.batches.get(at.checked_sub(1)?)?;
        Some((place, Arc::clone(&self.file), self.path.clone()))
    }
}

/// Reads one batch back.
pub(crate) fn read_batch(place: Place, file: &File, path: &Path) -> Result<(Batch, Vec<u8>), ReadError> {
    let mut bytes = vec![0; place.len as usize];
    file.read_exact_at(&mut bytes, place.offset)
        .map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
    match parse_batch(&bytes) {
        Ok(batch) if batch.first == place.first => Ok((batch, bytes)),
        other => {
            let fault = other.err().unwrap_or(BatchFault::Order);
            Err(ReadError::Damaged { path: path.to_owned(), what: format!("byte {}: {fault}", place.offset) })
        }
    }
}

/// The segments in `dir`, in order.
pub(crate) fn segments_in(dir: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(crate::disk::files_under(dir)?.into_iter().filter(|p| !is_temporary(p)).collect())
}

/// What a segment whose first entry has this index begins with.
pub(crate) fn segment_header(first: u64) -> Vec<u8> {
    let mut header = SEGMENT_MAGIC.to_vec();
    header.extend_from_slice(&first.to_le_bytes());
    let check = check(&[&header]);
    header.extend_from_slice(&check);
    header
}

fn segment_first(bytes: &[u8]) -> Option<u64> {
    let header = bytes.get(..SEGMENT_HEADER)?;
    let good = header[..8] == SEGMENT_MAGIC && header[16..] == check(&[&header[..16]]);
    good.then(|| u64_at(header, 8))
}

fn batch_follows(bytes: &[u8]) -> bool {
    bytes
        .windows(BATCH_MAGIC.len())
        .enumerate()
        .any(|(at, window)| window == BATCH_MAGIC && parse_batch(&bytes[at..]).is_ok())
}

fn check(parts: &[&[u8]]) -> [u8; CHECK] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    let mut check = [0; CHECK];
    check.copy_from_slice(&hash.finalize()[..CHECK]);
    check
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn batches_survive_the_round_trip(first in 0..u64::MAX / 2,
            entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20)) {
            let bytes = encode_batch(first, entries.iter().map(Vec::as_slice));
            let batch = parse_batch(&bytes).unwrap();
            prop_assert_eq!((batch.first, batch.len), (first, bytes.len()));
            let back: Vec<&[u8]> = batch.entries.iter().map(|r| &bytes[r.clone()]).collect();
            prop_assert_eq!(back, entries.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }

        #[test]
        fn a_flipped_bit_is_noticed(entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 1..5),
            at: usize, bit in 0_u8..8) {
            let mut bytes = encode_batch(3, entries.iter().map(Vec::as_slice));
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(parse_batch(&bytes).is_err());
        }

        #[test]
        fn foreign_bytes_never_panic(mut bytes: Vec<u8>, count: u32, len in 0_u32..4_000) {
            let _ = parse_batch(&bytes);
            let mut with_header = BATCH_MAGIC.to_vec();
            with_header.extend_from_slice(&count.to_le_bytes());
            with_header.extend_from_slice(&u64::MAX.to_le_bytes());
            with_header.extend_from_slice(&len.to_le_bytes());
            bytes.resize(len as usize, 0);
            let check = check(&[&with_header, &bytes]);
            with_header.extend_from_slice(&check);
            with_header.extend_from_slice(&bytes);
            let _ = parse_batch(&with_header);
        }
    }
}
