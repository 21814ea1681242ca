//! The files of the host and of a process's folder behind `model::diagnosis` and `model::declared`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use model::declared::{Declared, Keep};
use model::diagnosis::Files;

/// The name of the file with what was declared, in a process's folder.
const DECLARED: &str = "declared.json";

/// The files of the kernel that runs.
#[derive(Debug, Clone, Copy)]
pub struct Kernel;

impl Files for Kernel {
    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(path).ok()
    }

    fn list(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

/// How a process replaces a file that is its own: by the old content or the new, whatever happens.
pub type Writer = fn(&Path, &[u8]) -> io::Result<()>;

/// The folder of a process, where `declared.json` lies.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    write: Writer,
}

impl Folder {
    /// The folder `dir`, whose files `write` replaces.
    pub fn new(dir: &Path, write: Writer) -> Folder {
        Folder { path: dir.join(DECLARED), write }
    }
}

impl Keep for Folder {
    fn read(&self) -> io::Result<Option<Declared>> {
        match fs::read(&self.path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, declared: &Declared) -> io::Result<()> {
        (self.write)(&self.path, &serde_json::to_vec_pretty(declared)?)
    }
}

#[cfg(test)]
mod tests {
    use model::SeededEntropy;
    use model::declared::{Process, Thing};

    use super::*;

    #[test]
    fn what_was_declared_is_kept_and_damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path(), |path, bytes| fs::write(path, bytes));
        assert!(folder.read().unwrap().is_none());
        let process = Process { name: "broker", version: "1.0" };
        let judge = |value: &str| {
            let things = [Thing::of_release("config.names", value)];
            process.judge(&things, None, &folder, &SeededEntropy::new(1)).unwrap().check.detail
        };
        let first = judge("a");
        assert!(dir.path().join(DECLARED).exists());
        assert_eq!(judge("a"), first);
        assert!(judge("b").ends_with(": config.names"));
        fs::write(dir.path().join(DECLARED), "{").unwrap();
        assert!(folder.read().is_err());
    }
}
