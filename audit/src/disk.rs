//! Writing so that a loss of power leaves either the old file or the new one.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

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
    let prepared = Prepared::write(path.to_owned(), bytes)?;
    prepared.file.sync_all()?;
    prepared.place()
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
        // What is on its way early is not in the way of others later, when all of it is synced.
        write_back(&file, 0, bytes.len() as u64, false);
        Ok(Prepared { file, temporary, path })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Gives it its name, once it was synced.
    pub(crate) fn place(self) -> io::Result<()> {
        fs::rename(&self.temporary, &self.path)
    }
}

/// How many wait for the disk at once.
const WAITING: usize = 8;

/// Syncs files and folders at the same time. A file system makes what waits together durable
/// together, where one after the other would each cost a flush of the disk, and each of those would
/// hold up the write-ahead log.
pub(crate) fn sync_together(files: &[&File]) -> io::Result<()> {
    let next = AtomicUsize::new(0);
    let sync = || -> io::Result<()> {
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            file.sync_all()?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let helpers = 1..files.len().min(WAITING);
        // Where there is no thread to be had, those who are here do the work.
        let helpers =
            helpers.map_while(|_| thread::Builder::new().stack_size(64 << 10).spawn_scoped(scope, sync).ok());
        let helpers: Vec<_> = helpers.collect();
        let own = sync();
        helpers.into_iter().fold(own, |so_far, helper| {
            so_far
                .and(helper.join().unwrap_or_else(|_| Err(io::Error::other("a thread that syncs panicked"))))
        })
    })
}

/// How much of a file that is filled may wait for the disk at once: at least, and at most.
const PIECE: (u64, u64) = (64 << 10, 1 << 20);
/// A disk that takes longer for a piece is one that takes long for any.
const SLOW: Duration = Duration::from_millis(1);

/// Fills a file with zeros from `from` up to `to` and syncs it. Blocks that were only allocated would
/// cost a change of metadata at each later sync; written ones cost none, and cannot run out.
///
/// It goes to the disk piece by piece: who syncs something else meanwhile waits for a piece of it, not
/// for the whole.
pub(crate) fn fill(file: &File, mut from: u64, to: u64) -> io::Result<()> {
    static ZEROS: [u8; PIECE.1 as usize] = [0; PIECE.1 as usize];
    file.set_len(to.max(from))?;
    let mut piece = PIECE.0;
    while from < to {
        let len = (to - from).min(piece);
        let begun = Instant::now();
        file.write_all_at(&ZEROS[..len as usize], from)?;
        write_back(file, from, len, true);
        from += len;
        let next = if begun.elapsed() > SLOW { piece * 2 } else { piece / 2 };
        piece = next.clamp(PIECE.0, PIECE.1);
    }
    file.sync_all()
}

/// Has the system write a part of a file to the disk now, and waits for it if it shall. That promises
/// nothing: a sync must follow, and tells what went wrong.
fn write_back(file: &File, from: u64, len: u64, wait: bool) {
    let (Ok(from), Ok(len)) = (i64::try_from(from), i64::try_from(len)) else { return };
    let waiting = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    let flags = libc::SYNC_FILE_RANGE_WRITE | if wait { waiting } else { 0 };
    // SAFETY: the descriptor is open for as long as `file` is borrowed; the others are numbers.
    let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), from, len, flags) };
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes a folder with its parents. Those whose names must be made durable are added to `unsynced`,
/// and so is the one above them.
pub(crate) fn make_dirs_unsynced(dir: &Path, unsynced: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_dirs_unsynced(parent, unsynced)?;
        unsynced.insert(parent.to_owned());
    }
    match fs::create_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    unsynced.insert(dir.to_owned());
    Ok(())
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

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn one_file_that_cannot_be_synced_is_noticed_among_many() {
        let files: Vec<File> = (0..40).map(|_| tempfile::tempfile().unwrap()).collect();
        // A socket cannot be synced.
        let bad = File::from(OwnedFd::from(UnixStream::pair().unwrap().0));
        for at in [0, 1, 20, 40] {
            let mut all: Vec<&File> = files.iter().collect();
            sync_together(&all).unwrap();
            all.insert(at, &bad);
            assert!(sync_together(&all).is_err(), "the bad one is number {at}");
        }
        sync_together(&[]).unwrap();
    }

    #[test]
    fn a_file_is_filled_with_zeros_from_where_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for (from, to) in [(0, 5), (3, (PIECE.0 * 3 + 7) as usize), (9, 9)] {
            fs::write(&path, vec![1; from]).unwrap();
            fill(&File::options().write(true).open(&path).unwrap(), from as u64, to as u64).unwrap();
            assert_eq!(fs::read(&path).unwrap(), [vec![1; from], vec![0; to - from]].concat());
        }
    }
}
