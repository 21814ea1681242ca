//! Which entries are no longer in the folder, because a segment of them is kept elsewhere.
//!
//! The file `removed` says below which index bundles of entries may be missing. It is on disk before
//! the first of them goes, so that an absence is never mistaken for damage, nor damage for an absence:
//! a bundle that is missing at or above it is missing. The tiles of hashes always stay.

use std::fs;
use std::io;
use std::path::Path;

use crate::ReadError;
use crate::disk::{sync_dir, write_whole};
use crate::tree::WIDTH;

/// The name of the file.
pub(crate) const REMOVED: &str = "removed";
const FIRST_LINE: &str = "sekisho audit removed v1";
/// It is two lines.
const MAX: u64 = 256;

/// Below which index bundles may be missing in the log in `dir`; 0 if none were removed.
pub(crate) fn local_from(dir: &Path) -> Result<u64, ReadError> {
    let path = dir.join(REMOVED);
    let text = match fs::metadata(&path).and_then(|about| {
        if about.len() > MAX { Err(io::ErrorKind::InvalidData.into()) } else { fs::read_to_string(&path) }
    }) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => String::new(),
        Err(source) => return Err(ReadError::Io { path, source }),
    };
    parse(&text)
        .ok_or_else(|| ReadError::Damaged { path, what: "it does not say what was removed".to_owned() })
}

fn parse(text: &str) -> Option<u64> {
    let below: u64 = text.strip_prefix(FIRST_LINE)?.strip_prefix('\n')?.strip_suffix('\n')?.parse().ok()?;
    (below.is_multiple_of(WIDTH as u64) && text == words(below)).then_some(below)
}

fn words(below: u64) -> String {
    format!("{FIRST_LINE}\n{below}\n")
}

/// What it means that entry `index` could not be read.
pub(crate) fn explained(dir: &Path, index: u64, error: ReadError) -> ReadError {
    match &error {
        ReadError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => match local_from(dir) {
            Ok(from) if index < from => ReadError::Removed { index, from },
            _ => error,
        },
        _ => error,
    }
}

/// Makes it last that bundles below `below` may be missing.
pub(crate) fn note_removed(dir: &Path, below: u64) -> Result<(), ReadError> {
    let path = dir.join(REMOVED);
    let written = write_whole(&path, words(below).as_bytes()).and_then(|()| sync_dir(dir));
    written.map_err(|source| ReadError::Io { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_is_remembered_and_nothing_is_guessed() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(local_from(dir.path()).unwrap(), 0);
        note_removed(dir.path(), 512).unwrap();
        assert_eq!(local_from(dir.path()).unwrap(), 512);
        let path = dir.path().join(REMOVED);
        for bad in ["", "512\n", "sekisho audit removed v1\n511\n", "sekisho audit removed v1\n0512\n"] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(local_from(dir.path()), Err(ReadError::Damaged { .. })), "{bad:?}");
        }
        fs::write(&path, vec![b'x'; 1 << 20]).unwrap();
        assert!(matches!(local_from(dir.path()), Err(ReadError::Damaged { .. })));
    }
}
