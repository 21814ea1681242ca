//! The file that remembers how many entries the collector has.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::SinkError;

const MAX: u64 = 4096;

/// What stands in the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    origin: String,
    delivered: u64,
}

/// The durable cursor of one sink.
#[derive(Debug, Clone)]
pub(crate) struct Cursor {
    path: PathBuf,
    origin: String,
}

impl Cursor {
    /// The cursor and what it says; 0 if there is no file yet.
    pub(crate) fn open(path: &Path, origin: &str) -> Result<(Cursor, u64), SinkError> {
        let cursor = Cursor { path: path.to_owned(), origin: origin.to_owned() };
        let fail = |source| SinkError::Cursor { doing: "read", path: path.to_owned(), source };
        match fs::metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((cursor, 0)),
            Ok(about) if about.len() > MAX => return Err(SinkError::Damaged(path.to_owned())),
            other => other.map_err(fail)?,
        };
        let bytes = fs::read(path).map_err(fail)?;
        let content: Content =
            serde_json::from_slice(&bytes).map_err(|_| SinkError::Damaged(path.to_owned()))?;
        if content.origin == origin {
            Ok((cursor, content.delivered))
        } else {
            Err(SinkError::OtherLog {
                path: path.to_owned(),
                found: content.origin,
                expected: origin.to_owned(),
            })
        }
    }

    /// Replaces the file: a loss of power leaves the old one or the new one.
    pub(crate) fn save(&self, delivered: u64) -> Result<(), SinkError> {
        let content = Content { origin: self.origin.clone(), delivered };
        let written = serde_json::to_vec(&content).map_err(io::Error::other).and_then(|bytes| {
            let temporary = self.path.with_extension("tmp");
            let mut file = File::create(&temporary)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &self.path)?;
            match self.path.parent() {
                Some(dir) if !dir.as_os_str().is_empty() => File::open(dir)?.sync_all(),
                _ => File::open(".")?.sync_all(),
            }
        });
        written.map_err(|source| SinkError::Cursor { doing: "write", path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_kept_and_kept_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("collector.cursor");
        let (cursor, delivered) = Cursor::open(&path, "a").unwrap();
        assert_eq!(delivered, 0);
        cursor.save(41).unwrap();
        cursor.save(42).unwrap();
        assert_eq!(Cursor::open(&path, "a").unwrap().1, 42);
        assert!(matches!(Cursor::open(&path, "b"), Err(SinkError::OtherLog { .. })));
        fs::write(&path, "{\"origin\":\"a\",\"deliv").unwrap();
        assert!(matches!(Cursor::open(&path, "a"), Err(SinkError::Damaged(_))));
    }
}
