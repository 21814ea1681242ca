//! A file of JSON lines on this machine, rotated by size.
//!
//! A batch counts once it is synced to disk. A line that a crash left unfinished is cut off when
//! the file is opened again; the cursor stands before it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::pin::pin;

use crate::feed::{End, Feed, SAVE_EVERY, Stopping, blocking};
use crate::{SinkError, Target};

/// Entries per write: bounds memory.
const BATCH: usize = 512;
/// How much of the end of a file is looked at for the last whole line: more than a line may have.
const TAIL: u64 = 1 << 20;

/// Where, and how much of it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileTarget {
    /// The file that is written; older ones have `.1`, `.2` … after their names.
    pub path: PathBuf,
    /// A file that has reached so many bytes is put aside.
    pub rotate_bytes: u64,
    /// How many older ones are kept.
    pub keep: u32,
}

pub(crate) async fn deliver(feed: &mut Feed, mut stopping: Stopping<'_>) -> Result<End, SinkError> {
    let Target::File(target) = feed.sink.target.clone() else { return Ok(End::Stopped) };
    let mut save = tokio::time::Instant::now() + SAVE_EVERY;
    loop {
        let mut batch = pin!(feed.batch(feed.delivered(), BATCH));
        let events = tokio::select! {
            () = &mut stopping => return Ok(End::Stopped),
            // Nothing is under way: the cursor catches up while the log is quiet.
            () = tokio::time::sleep_until(save) => {
                feed.save().await?;
                feed.works();
                save = tokio::time::Instant::now() + SAVE_EVERY;
                continue;
            }
            batch = &mut batch => match batch? {
                Some(events) => events,
                None => return Ok(End::Stopped),
            },
        };
        let mut lines = Vec::new();
        for (_, event) in &events {
            audit::write_canonical(event, &mut lines);
            lines.push(b'\n');
        }
        let target = target.clone();
        match blocking(move || Ok(append(&target, &lines))).await? {
            Ok(()) => {
                feed.now_sent(events.len());
                feed.now_delivered(feed.delivered() + events.len() as u64);
            }
            Err(e) => return Ok(End::lost(format!("cannot write {}: {e}", shown(feed)))),
        }
    }
}

fn shown(feed: &Feed) -> String {
    match &feed.sink.target {
        Target::File(target) => target.path.display().to_string(),
        _ => String::new(),
    }
}

/// Appends whole lines and waits for the disk, or leaves the file as long as it was.
fn append(target: &FileTarget, lines: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&target.path)?;
    let size = whole_lines(&mut file)?;
    let written = file.write_all(lines).and_then(|()| file.sync_data());
    if let Err(error) = written {
        file.set_len(size)?;
        return Err(error);
    }
    if size == 0 {
        sync_folder(&target.path)?;
    }
    if size + lines.len() as u64 >= target.rotate_bytes {
        rotate(target)?;
    }
    Ok(())
}

/// Cuts off a line without an end, and says how long the file is.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let from = size.saturating_sub(TAIL);
    file.seek(SeekFrom::Start(size.saturating_sub(1)))?;
    let mut last = Vec::new();
    file.read_to_end(&mut last)?;
    if last.is_empty() || last == b"\n" {
        return Ok(size);
    }
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail)?;
    let whole = tail.iter().rposition(|b| *b == b'\n').map_or(from, |at| from + at as u64 + 1);
    file.set_len(whole)?;
    Ok(whole)
}

fn rotate(target: &FileTarget) -> io::Result<()> {
    let numbered = |number: u32| {
        let mut name = target.path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    let gone = |done: io::Result<()>| match done {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    for number in (1..target.keep).rev() {
        gone(fs::rename(numbered(number), numbered(number + 1)))?;
    }
    if target.keep == 0 {
        gone(fs::remove_file(&target.path))?;
    } else {
        gone(fs::rename(&target.path, numbered(1)))?;
    }
    sync_folder(&target.path)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_put_aside_and_unfinished_lines_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let target = FileTarget { path: path.clone(), rotate_bytes: 20, keep: 2 };
        append(&target, b"one\n").unwrap();
        fs::write(&path, b"one\nunfin").unwrap();
        append(&target, b"two\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
        for line in ["three three\n", "four four four four\n", "five five five five\n", "six\n"] {
            append(&target, line.as_bytes()).unwrap();
        }
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("events.jsonl"), "six\n");
        assert_eq!(read("events.jsonl.1"), "five five five five\n");
        assert_eq!(read("events.jsonl.2"), "four four four four\n");
        assert!(!dir.path().join("events.jsonl.3").exists());
        let none_kept = FileTarget { keep: 0, ..target };
        append(&none_kept, b"seven seven seven seven\n").unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        assert!(append(&FileTarget { path, rotate_bytes: 20, keep: 2 }, b"x\n").is_err());
    }
}
