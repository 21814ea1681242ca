//! Rules in a folder, which are taken up when they change.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::rules::{FILE_MAX, FILES_MAX, RuleError, RuleSet, Text};

/// How deep folders may lie in the folder.
const DEPTH_MAX: usize = 4;

/// Where the rules of a node come from: those it comes with, and those of a folder.
#[derive(Debug, Clone)]
pub struct Source {
    /// The folder; one that is not there holds no rules.
    pub folder: Option<PathBuf>,
    /// Whether the rules that the house comes with are used too.
    pub builtin: bool,
}

/// How the files of a folder look from outside: a change of one changes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look(Vec<(PathBuf, u64, Option<SystemTime>)>);

impl Source {
    /// Reads all rules. Blocks on the disk.
    pub fn load(&self) -> Result<RuleSet, RuleError> {
        let builtin = if self.builtin { RuleSet::builtin() } else { Vec::new() };
        let own = match &self.folder {
            Some(folder) if folder.exists() => read_folder(folder)?,
            _ => Vec::new(),
        };
        RuleSet::parse(&[&builtin, &own])
    }

    /// How the folder looks now. Blocks on the disk.
    pub fn look(&self) -> Look {
        let Some(folder) = &self.folder else { return Look::default() };
        let mut found = Vec::new();
        // What cannot be listed is told by `load`.
        let _ = list(folder, folder, 0, &mut found);
        let about = |path: PathBuf| {
            let about = fs::metadata(&path).ok();
            let length = about.as_ref().map_or(0, fs::Metadata::len);
            (path, length, about.and_then(|about| about.modified().ok()))
        };
        Look(found.into_iter().map(about).collect())
    }
}

/// The files of rules (`.yml`, `.yaml`) in a folder and those in it, by name.
pub fn read_folder(folder: &Path) -> Result<Vec<Text>, RuleError> {
    let mut files = Vec::new();
    list(folder, folder, 0, &mut files)?;
    files.into_iter().map(|file| read(folder, &file)).collect()
}

fn wrong(file: &Path, reason: impl ToString) -> RuleError {
    RuleError { file: file.display().to_string(), line: None, reason: reason.to_string() }
}

fn list(root: &Path, folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), RuleError> {
    if depth > DEPTH_MAX {
        return Err(wrong(folder, format!("folders lie more than {DEPTH_MAX} deep")));
    }
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| wrong(folder, e))? {
        entries.push(entry.map_err(|e| wrong(folder, e))?.path());
        if entries.len() > 2 * FILES_MAX {
            return Err(wrong(folder, format!("more than {} entries", 2 * FILES_MAX)));
        }
    }
    entries.sort();
    for path in entries {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let rules = path.extension().is_some_and(|ext| ext == "yml" || ext == "yaml");
        if hidden {
            continue;
        }
        if path.is_dir() {
            list(root, &path, depth + 1, found)?;
        } else if rules {
            found.push(path);
            if found.len() > FILES_MAX {
                return Err(wrong(root, format!("more than {FILES_MAX} files of rules")));
            }
        }
    }
    Ok(())
}

fn read(root: &Path, path: &Path) -> Result<Text, RuleError> {
    let shown = path.strip_prefix(root).unwrap_or(path);
    let file = File::open(path).map_err(|e| wrong(shown, e))?;
    if !file.metadata().map_err(|e| wrong(shown, e))?.is_file() {
        return Err(wrong(shown, "it is no file"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|e| wrong(shown, e))?;
    let text = String::from_utf8(bytes).map_err(|_| wrong(shown, "it is not UTF-8"))?;
    Ok(Text { name: shown.display().to_string(), text })
}
