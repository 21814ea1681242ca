//! Writing so that a loss of power leaves either the old file or the new one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What the log does to a segment. Tests put one in its place that fails.
pub(crate) trait Storage: Send {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
}

impl Storage for File {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// The name under which a file is prepared; one left over from a crash means nothing.
pub(crate) const TEMPORARY: &str = "tmp";

/// Writes a file whole: temporary name, fsync, rename. The folder must be synced afterwards
/// ([`sync_dir`]) before anything relies on it.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    Prepared::write(path.to_owned(), bytes)?.settle()
}

/// A file that is written under a temporary name and not safe yet.
pub(crate) struct Prepared {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
}

impl Prepared {
    pub(crate) fn write(path: PathBuf, bytes: &[u8]) -> io::Result<Prepared> {
        let mut name = path.as_os_str().to_owned();
        name.push(".");
        name.push(TEMPORARY);
        let temporary = PathBuf::from(name);
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        Ok(Prepared { file, temporary, path })
    }

    /// Syncs it and gives it its name.
    pub(crate) fn settle(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.temporary, &self.path)
    }
}

/// Fills a file with zeros from `from` up to `to` and syncs it. Blocks that were only allocated would
/// cost a change of metadata at each later sync; written ones cost none, and cannot run out.
pub(crate) fn fill(file: &File, mut from: u64, to: u64) -> io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    file.set_len(to.max(from))?;
    while from < to {
        let len = (to - from).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..len as usize], from)?;
        from += len;
    }
    file.sync_all()
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes a folder with its parents, each durable in the one above.
pub(crate) fn make_dirs(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        if !parent.as_os_str().is_empty() {
            make_dirs(parent)?;
        }
        match fs::create_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        sync_dir(parent)?;
    }
    Ok(())
}

/// Whether a name is one of a file being prepared.
pub(crate) fn is_temporary(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == TEMPORARY)
}

/// All files under `dir`, sorted; none if it is not there.
pub(crate) fn files_under(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    each_file_under(dir, |path| found.push(path))?;
    found.sort();
    Ok(found)
}

/// Shows each file under `dir`, in no order, without holding more than the folders in memory.
pub(crate) fn each_file_under(dir: &Path, mut each: impl FnMut(PathBuf)) -> io::Result<()> {
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        let entries = match fs::read_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            } else {
                each(entry.path());
            }
        }
    }
    Ok(())
}
