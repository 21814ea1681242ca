//! Looking for genomes where none may be.

use std::collections::HashSet;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use anyhow::{Result, ensure};
use nix::unistd::{Whence, lseek};

use crate::command::INTERRUPTED;

/// The length of a run that counts as plaintext.
pub const RUN: usize = 32;
const PIECE: usize = RUN / 2;
/// Runs of zeros or of one letter are everywhere; a run of a genome has more to it.
const DISTINCT: usize = 8;

/// A text to be looked for, run by run.
pub struct Plaintext {
    text: Vec<u8>,
    /// Every aligned piece, with where it stands: whoever holds any run holds a whole piece.
    pieces: std::collections::HashMap<[u8; PIECE], Vec<usize>>,
    firsts: HashSet<u16>,
}

impl Plaintext {
    /// Prepares `text`.
    pub fn new(text: Vec<u8>) -> Plaintext {
        let mut pieces: std::collections::HashMap<[u8; PIECE], Vec<usize>> = std::collections::HashMap::new();
        let mut firsts = HashSet::new();
        for (index, piece) in text.chunks_exact(PIECE).enumerate() {
            let Ok(piece) = <[u8; PIECE]>::try_from(piece) else { continue };
            firsts.insert(u16::from_le_bytes([piece[0], piece[1]]));
            let places = pieces.entry(piece).or_default();
            // A piece that stands in very many places is a filler, not a genome.
            if places.len() < 64 {
                places.push(index * PIECE);
            }
        }
        Plaintext { text, pieces, firsts }
    }

    /// Where in `hay` a run of the text begins, if there is one.
    pub fn found_in(&self, hay: &[u8]) -> Option<usize> {
        hay.windows(PIECE).enumerate().find_map(|(at, window)| {
            if !self.firsts.contains(&u16::from_le_bytes([window[0], window[1]])) {
                return None;
            }
            let places = self.pieces.get(<&[u8; PIECE]>::try_from(window).ok()?)?;
            places.iter().find_map(|&place| self.run_around(hay, at, place))
        })
    }

    fn run_around(&self, hay: &[u8], at: usize, place: usize) -> Option<usize> {
        let back =
            (0..RUN.min(at).min(place)).take_while(|i| hay[at - 1 - i] == self.text[place - 1 - i]).count();
        let on = hay[at..].iter().zip(&self.text[place..]).take(RUN).take_while(|(a, b)| a == b).count();
        let run = &hay[at - back..at + on];
        let distinct = run.iter().collect::<HashSet<_>>().len();
        (back + on >= RUN && distinct >= DISTINCT).then_some(at - back)
    }
}

/// A file with a run of a text in it.
#[derive(Debug)]
pub struct Found {
    /// The file.
    pub file: PathBuf,
    /// Where the run begins.
    pub at: usize,
}

/// What a search looked at.
#[derive(Debug, Default)]
pub struct Searched {
    /// How many files.
    pub files: u64,
    /// How many bytes.
    pub bytes: u64,
    /// What was found.
    pub found: Vec<Found>,
}

/// Searches every regular file below `root`, on its file system, that was changed after `since`,
/// except below the folders `but`.
pub fn search(
    texts: &[Plaintext],
    root: &Path,
    since: Option<SystemTime>,
    but: &[&Path],
) -> Result<Searched> {
    let device = fs::metadata(root)?.dev();
    let mut searched = Searched::default();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        ensure!(!INTERRUPTED.load(Ordering::SeqCst), "interrupted");
        // What comes and goes while we look is no plaintext at rest.
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if meta.dev() != device || but.iter().any(|but| path.starts_with(but)) {
                continue;
            }
            if meta.is_dir() {
                folders.push(path);
            } else if meta.is_file() && since.is_none_or(|since| meta.modified().is_ok_and(|at| at >= since))
            {
                search_file(texts, &path, &mut searched);
            }
        }
    }
    Ok(searched)
}

/// Holes hold nothing: a home is a disk of many gigabytes, nearly all of it holes.
fn search_file(texts: &[Plaintext], path: &Path, searched: &mut Searched) {
    let Ok(mut file) = fs::File::open(path) else { return };
    searched.files += 1;
    let mut from = 0;
    // An error is the end of the file, or that it is gone (lseek(2), `SEEK_DATA`).
    while let Ok(data) = lseek(&file, from, Whence::SeekData) {
        let Ok(hole) = lseek(&file, data, Whence::SeekHole) else { return };
        let start = usize::try_from(data).unwrap_or(usize::MAX);
        if file.seek(SeekFrom::Start(start as u64)).is_err()
            || !search_stretch(texts, path, (&file).take(hole.abs_diff(data)), start, searched)
        {
            return;
        }
        from = hole;
    }
}

/// Searches what `stretch` gives, which begins at `base` of the file; whether there is more to look for.
fn search_stretch(
    texts: &[Plaintext],
    path: &Path,
    mut stretch: impl Read,
    mut base: usize,
    searched: &mut Searched,
) -> bool {
    const CHUNK: usize = 4 << 20;
    let (mut buffer, mut kept) = (vec![0; CHUNK + RUN], 0);
    loop {
        let Ok(read) = stretch.read(&mut buffer[kept..]) else { return false };
        if read == 0 {
            return true;
        }
        searched.bytes += read as u64;
        let hay = &buffer[..kept + read];
        if let Some(at) = texts.iter().find_map(|text| text.found_in(hay)) {
            searched.found.push(Found { file: path.to_owned(), at: base + at });
            return false;
        }
        // A run may lie across the border.
        let keep = RUN.min(hay.len());
        let from = hay.len() - keep;
        base += from;
        buffer.copy_within(from..from + keep, 0);
        kept = keep;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u32, len: usize) -> Vec<u8> {
        let mut x = seed;
        (0..len)
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 17;
                x ^= x << 5;
                (x >> 9) as u8
            })
            .collect()
    }

    #[test]
    fn a_run_is_found_at_every_offset_and_a_shorter_one_is_not() {
        let secret = noise(1, 4096);
        let text = Plaintext::new(secret.clone());
        for offset in 0..64 {
            let mut hay = noise(2, 300);
            hay[100..100 + RUN].copy_from_slice(&secret[1000 + offset..1000 + offset + RUN]);
            assert_eq!(text.found_in(&hay), Some(100), "{offset}");
            let mut hay = noise(3, 300);
            hay[100..100 + PIECE].copy_from_slice(&secret[1000 + offset..1000 + offset + PIECE]);
            assert_eq!(text.found_in(&hay), None, "{offset}");
        }
    }

    #[test]
    fn a_run_is_found_behind_holes_and_across_borders() {
        use std::os::unix::fs::FileExt;
        let secret = noise(1, 4096);
        let dir = std::env::temp_dir().join(format!("sekisho-test-holes-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = fs::File::create(dir.join("sparse")).unwrap();
        file.set_len(64 << 30).unwrap();
        file.write_all_at(&noise(2, 9000), 0).unwrap();
        let text = [Plaintext::new(secret.clone())];
        let searched = search(&text, &dir, None, &[]).unwrap();
        assert!(searched.found.is_empty() && searched.bytes < 1 << 20, "{searched:?}");
        let at = (40_u64 << 30) + (4 << 20) - 7;
        file.write_all_at(&noise(3, 4 << 20), 40 << 30).unwrap();
        file.write_all_at(&secret[500..500 + 2 * RUN], at).unwrap();
        let searched = search(&text, &dir, None, &[]).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(searched.found.len(), 1, "{searched:?}");
        assert_eq!(searched.found[0].at as u64, at);
    }

    #[test]
    fn fillers_are_no_plaintext() {
        assert_eq!(Plaintext::new(vec![0; 4096]).found_in(&[0; 4096]), None);
    }
}
