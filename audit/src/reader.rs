use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::local::{explained, local_from};
use crate::log::{WITNESSED, check_sizes};
use crate::tiles::{Kind, Tile, TileNodes, parse_bundle, parse_hashes, read_range};
use crate::tree::{WIDTH, consistency, inclusion, leaf_hash};
use crate::{Checkpoint, Hash, LogPublicKey, Proof, ReadError};

/// How often a read begins anew because a checkpoint came in between.
const ATTEMPTS: u32 = 20;

/// Reads a log without the process that writes it: all that a signed checkpoint covers.
///
/// It changes nothing and may be used while the log grows. It trusts the key in the folder; who
/// wants to know that the folder itself was not exchanged compares [`Reader::key`] with a copy.
#[derive(Debug, Clone)]
pub struct Reader {
    dir: PathBuf,
    key: LogPublicKey,
    /// Where bundles lie that were fetched from the vault.
    kept: Option<PathBuf>,
}

impl Reader {
    /// Opens the log in `dir` for reading.
    pub fn open(dir: &Path) -> Result<Reader, ReadError> {
        let path = dir.join("key.pub");
        let text = read(&path)?;
        let key = std::str::from_utf8(&text).ok().and_then(|text| text.trim_end().parse().ok());
        let key = key.ok_or_else(|| damaged(&path, "it holds no key of a log"))?;
        Ok(Reader { dir: dir.to_owned(), key, kept: None })
    }

    /// A reader of the log in `dir`, whose key is known.
    pub(crate) fn of(dir: &Path, key: &LogPublicKey) -> Reader {
        Reader { dir: dir.to_owned(), key: key.clone(), kept: None }
    }

    /// The same, where bundles that were moved to the vault are looked for in the folder `kept`, as
    /// [`crate::write_bundle`] puts them there. What is read there is compared with the hashes here.
    pub fn beside(self, kept: &Path) -> Reader {
        Reader { kept: Some(kept.to_owned()), ..self }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The key whose signature the checkpoints must have.
    pub fn key(&self) -> &LogPublicKey {
        &self.key
    }

    /// The index from which on every entry is in the folder. Below it bundles may have been removed,
    /// once a segment of them was kept elsewhere.
    pub fn local_from(&self) -> Result<u64, ReadError> {
        local_from(&self.dir)
    }

    /// The first index from `index` on whose entry can be read, or [`Reader::local_from`].
    pub fn next_local(&self, index: u64) -> Result<u64, ReadError> {
        let from = self.local_from()?;
        let mut n = index / WIDTH as u64;
        while n * (WIDTH as u64) < from {
            let bundle = whole(Kind::Entries, n).path();
            if self.dir.join(&bundle).exists()
                || self.kept.as_ref().is_some_and(|kept| kept.join(&bundle).exists())
            {
                return Ok(index.max(n * WIDTH as u64));
            }
            n += 1;
        }
        Ok(index.max(from))
    }

    /// The last checkpoint, with the signed note it stands in.
    pub fn checkpoint(&self) -> Result<(Checkpoint, String), ReadError> {
        let path = self.dir.join("checkpoint");
        let note = read(&path)?;
        let checkpoint = Checkpoint::open(&note, &self.key).map_err(|fault| damaged(&path, fault))?;
        Ok((checkpoint, String::from_utf8_lossy(&note).into_owned()))
    }

    /// The last checkpoint that a witness has signed, with the note; none if there was no witness.
    pub fn witnessed(&self) -> Result<Option<(Checkpoint, String)>, ReadError> {
        let path = self.dir.join(WITNESSED);
        let note = match read(&path) {
            Err(ReadError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let checkpoint = Checkpoint::open(&note, &self.key).map_err(|fault| damaged(&path, fault))?;
        Ok(Some((checkpoint, String::from_utf8_lossy(&note).into_owned())))
    }

    /// Up to `max` entries from index `from` on; none if there are no more yet.
    pub fn read(&self, from: u64, max: usize) -> Result<Vec<(u64, Vec<u8>)>, ReadError> {
        self.at_checkpoint(|checkpoint, _| self.entries(from, max, checkpoint.size))
    }

    fn entries(&self, from: u64, max: usize, size: u64) -> Result<Vec<(u64, Vec<u8>)>, ReadError> {
        let here = read_range(&self.dir, from, max, size);
        match (here.map_err(|error| explained(&self.dir, from, error)), &self.kept) {
            (Err(removed @ ReadError::Removed { .. }), Some(kept)) => {
                Ok(self.fetched(kept, from / WIDTH as u64)?.ok_or(removed)?.split_off(from, max))
            }
            (other, _) => other,
        }
    }

    /// A bundle that was fetched, if it was.
    fn fetched(&self, kept: &Path, n: u64) -> Result<Option<Fetched>, ReadError> {
        let path = kept.join(whole(Kind::Entries, n).path());
        let bytes = match read(&path) {
            Err(ReadError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let entries = parse_bundle(&bytes).map_err(|fault| damaged(&path, fault))?;
        let tile = self.dir.join(whole(Kind::Level(0), n).path());
        let hashes = parse_hashes(&read(&tile)?).filter(|hashes| hashes.len() == WIDTH);
        let hashes = hashes.ok_or_else(|| damaged(&tile, "it has not the form of a tile"))?;
        if entries.len() != WIDTH
            || !entries.iter().zip(&hashes).all(|(entry, hash)| leaf_hash(entry) == *hash)
        {
            return Err(damaged(&path, "these are not the entries that this log has the hashes of"));
        }
        let entries = entries.into_iter().map(<[u8]>::to_vec).collect();
        Ok(Some(Fetched { first: n * WIDTH as u64, entries }))
    }

    /// Evidence for one entry, as the last checkpoint covers it.
    pub fn proof(&self, index: u64) -> Result<Proof, ReadError> {
        self.at_checkpoint(|checkpoint, note| {
            let size = checkpoint.size;
            check_sizes(index.checked_add(1), size, size)
                .map_err(|_| ReadError::Outside { asked: index, size })?;
            let entry = self.entries(index, 1, size)?.into_iter().next().map(|(_, entry)| entry);
            let entry = entry.ok_or(ReadError::Outside { asked: index, size })?;
            let hashes = inclusion(&TileNodes::new(&self.dir, size), index, size)?;
            Ok(Proof { index, entry, hashes, checkpoint: note.to_owned() })
        })
    }

    /// The hashes that show that the last checkpoint continues the log of `old` entries.
    pub fn consistency_proof(&self, old: u64) -> Result<(Checkpoint, Vec<Hash>), ReadError> {
        let (checkpoint, _, hashes) = self.consistency(old)?;
        Ok((checkpoint, hashes))
    }

    /// The same, with the signed note of the checkpoint.
    pub fn consistency(&self, old: u64) -> Result<(Checkpoint, String, Vec<Hash>), ReadError> {
        self.at_checkpoint(|checkpoint, note| {
            check_sizes(Some(old), checkpoint.size, checkpoint.size)?;
            let hashes = consistency(&TileNodes::new(&self.dir, checkpoint.size), old, checkpoint.size)?;
            Ok((checkpoint.clone(), note.to_owned(), hashes))
        })
    }

    /// Partial tiles of a checkpoint go away some time after the next: then the work begins anew.
    pub(crate) fn at_checkpoint<T>(
        &self,
        work: impl Fn(&Checkpoint, &str) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let mut attempt = 1;
        loop {
            let (checkpoint, note) = self.checkpoint()?;
            match work(&checkpoint, &note) {
                Err(ReadError::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound
                        && attempt < ATTEMPTS
                        && self.checkpoint()?.0 != checkpoint =>
                {
                    attempt += 1;
                }
                other => return other,
            }
        }
    }
}

/// The entries of a bundle that was fetched and compared.
struct Fetched {
    first: u64,
    entries: Vec<Vec<u8>>,
}

impl Fetched {
    /// Those from `index` on, at most `max`.
    fn split_off(mut self, index: u64, max: usize) -> Vec<(u64, Vec<u8>)> {
        let entries = self.entries.split_off((index - self.first) as usize);
        (index..).zip(entries).take(max).collect()
    }
}

/// The full bundle or tile with this number.
fn whole(kind: Kind, n: u64) -> Tile {
    Tile { kind, n, width: WIDTH as u16 }
}

fn read(path: &Path) -> Result<Vec<u8>, ReadError> {
    fs::read(path).map_err(|source| ReadError::Io { path: path.to_owned(), source })
}

fn damaged(path: &Path, what: impl ToString) -> ReadError {
    ReadError::Damaged { path: path.to_owned(), what: what.to_string() }
}
