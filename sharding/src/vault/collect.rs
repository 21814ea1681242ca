//! Removing: what no root names, and whole objects for good.

use std::collections::BTreeSet;

use ed25519_dalek::{Signer, SigningKey};
use futures::future::join_all;
use model::{BackendId, ObjectId, Timestamp};

use super::files::{Listing, remove};
use super::reader::ReadError;
use super::{Fault, Vault};
use crate::format::{File, Root, SetId};

/// What a collection removed, or would remove.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Collected {
    /// Files removed, over all backends; parts of files that were never finished count too.
    pub removed: u64,
    /// Bytes of them, as the backends listed them.
    pub bytes: u64,
    /// Files kept.
    pub kept: u64,
    /// Files with names that are not ours; they were left alone.
    pub foreign: u64,
    /// Backends that did not do as they were asked. Collect again when they answer.
    pub faults: Vec<Fault>,
}

/// What is left of an object that was destroyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destruction {
    /// Which object.
    pub object: ObjectId,
    /// What became of each backend's share.
    pub backends: Vec<Destroyed>,
    /// How many shares rebuilt it.
    pub k: usize,
}

/// What became of one backend's share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destroyed {
    /// Which backend.
    pub backend: BackendId,
    /// Who runs it.
    pub institution: String,
    /// Files removed this time.
    pub removed: u64,
    /// Why it is not certain that nothing is left there; `None` once it lists nothing any more.
    pub left: Option<Fault>,
}

impl Destruction {
    /// Whether too few backends are left for anybody ever to read it.
    pub fn beyond_recovery(&self) -> bool {
        self.backends.iter().filter(|backend| backend.left.is_some()).count() < self.k
    }

    /// Whether no backend holds anything any more.
    pub fn complete(&self) -> bool {
        self.backends.iter().all(|backend| backend.left.is_none())
    }

    /// A statement of what was seen, for people and for the log.
    pub fn statement(&self, at: Timestamp) -> String {
        use std::fmt::Write;
        let mut text = format!("sekisho destruction v1\nobject {}\nat {at}\n", self.object);
        for Destroyed { backend, institution, removed, left } in &self.backends {
            let state = match left {
                None => "lists nothing".to_owned(),
                Some(fault) => format!("NOT CONFIRMED: {}", fault.kind),
            };
            let institution = institution.escape_default();
            // Writing to a string cannot fail.
            let _ = writeln!(text, "backend {backend} ({institution}) removed {removed} files, {state}");
        }
        let gone = self.backends.iter().filter(|backend| backend.left.is_none()).count();
        let verdict = if self.beyond_recovery() { "beyond recovery" } else { "STILL RECOVERABLE" };
        let _ = writeln!(
            text,
            "verdict {verdict}: {gone} of {} gone, {} rebuild it",
            self.backends.len(),
            self.k
        );
        text
    }

    /// The statement with an Ed25519 signature (RFC 8032) of all that precedes the last line, which
    /// has public key and signature in hexadecimal digits.
    pub fn signed_statement(&self, at: Timestamp, key: &SigningKey) -> String {
        let text = self.statement(at);
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let signature = hex(&key.sign(text.as_bytes()).to_bytes());
        format!("{text}signed {} {signature}\n", hex(key.verifying_key().as_bytes()))
    }
}

impl Vault {
    /// Removes every file of `object` that neither a manifest of `live` nor a share set of `keep`
    /// (deposits under way) needs: earlier epochs, and what deposits, refreshes and repairs left that
    /// failed or died. If a manifest of `live` cannot be found, nothing is removed.
    pub async fn collect(
        &self,
        object: &ObjectId,
        live: &[Root],
        keep: &[SetId],
    ) -> Result<Collected, ReadError> {
        let needed = self.needed(object, live).await?;
        Ok(self.sweep(object, |file| needs(&needed, keep, file), Sweep::Remove).await)
    }

    /// What [`Vault::collect`] would remove, without removing it.
    pub async fn garbage(
        &self,
        object: &ObjectId,
        live: &[Root],
        keep: &[SetId],
    ) -> Result<Collected, ReadError> {
        let needed = self.needed(object, live).await?;
        Ok(self.sweep(object, |file| needs(&needed, keep, file), Sweep::Count).await)
    }

    /// Removes a share set that no manifest names, as far as the backends answer.
    pub async fn abandon(&self, object: &ObjectId, set: SetId) -> Collected {
        let need = |file: &File| match file {
            File::Extent(of, ..) | File::Key(of, _) if *of == set => Need::None,
            _ => Need::UnderWay,
        };
        self.sweep(object, need, Sweep::Remove).await
    }

    /// The files that the manifests of `live` need.
    async fn needed(&self, object: &ObjectId, live: &[Root]) -> Result<BTreeSet<File>, ReadError> {
        let mut needed = BTreeSet::new();
        for root in live {
            let reader = self.open(object, &root.0).await?;
            let manifest = &reader.opened().described.manifest;
            let (set, epoch) = (manifest.deposit.set, manifest.deposit.epoch);
            needed.extend([File::Manifest(*root), File::Key(set, epoch)]);
            let extents = (0..).zip(&manifest.extents);
            needed.extend(extents.map(|(number, entry)| File::Extent(set, number, entry.attempt)));
        }
        Ok(needed)
    }

    /// Removes everything of `object` from every backend, keys first, and looks whether it is gone.
    /// Repeat it until it is complete; [`Destruction::beyond_recovery`] holds earlier.
    ///
    /// A backend that keeps old versions or snapshots must be told to drop them too; that it did
    /// not copy what it held nobody can prove. Hence `k`: what counts is that fewer than `k` can
    /// have kept theirs.
    pub async fn destroy(&self, object: &ObjectId, k: usize) -> Destruction {
        let backends = (0..self.pool.remotes.len()).map(|remote| async move {
            let backend = &self.pool.remotes[remote].backend;
            let mut removed = 0;
            let work = async {
                let mut files = Listing::of(&self.pool, remote, object).await?.ours(object);
                // Without keys the rest is noise: they go first.
                files.sort_by_key(|(file, ..)| !matches!(file, File::Key(..)));
                removed = remove(&self.pool, remote, files.into_iter().map(|(_, name, _)| name)).await?;
                match Listing::of(&self.pool, remote, object).await?.ours(object).len() {
                    0 => Ok(()),
                    left => Err(super::pool::Failure::corrupt(format!("{left} files are still there"))),
                }
            };
            let left = work.await.err().map(|failure| self.pool.report(remote, object, None, failure));
            Destroyed { backend: backend.id.clone(), institution: backend.institution.clone(), removed, left }
        });
        Destruction { object: object.clone(), backends: join_all(backends).await, k }
    }

    async fn sweep(&self, object: &ObjectId, need: impl Fn(&File) -> Need, sweep: Sweep) -> Collected {
        let mut collected = Collected::default();
        let need = &need;
        let sweeps = (0..self.pool.remotes.len()).map(|remote| async move {
            let report = |failure| self.pool.report(remote, object, None, failure);
            let Listing { files, unfinished, foreign } =
                Listing::of(&self.pool, remote, object).await.map_err(report)?;
            let all = files.len() + unfinished.len();
            let whole = files.into_iter().filter(|(file, _)| need(file) == Need::None);
            let mut drop: Vec<_> = whole.map(|(file, len)| (file, file.name(object), len)).collect();
            drop.extend(unfinished.into_iter().filter(|(file, ..)| need(file) != Need::UnderWay));
            let (bytes, kept) = (drop.iter().map(|(.., len)| len).sum::<u64>(), all - drop.len());
            // Manifests first: a reader without a root must not find one whose extents are going.
            drop.sort_by_key(|(file, ..)| !matches!(file, File::Manifest(_)));
            let removed = match sweep {
                Sweep::Count => drop.len() as u64,
                Sweep::Remove => {
                    let names = drop.into_iter().map(|(_, name, _)| name);
                    remove(&self.pool, remote, names).await.map_err(report)?
                }
            };
            Ok::<_, Fault>(Collected { removed, bytes, kept: kept as u64, foreign, faults: Vec::new() })
        });
        for swept in join_all(sweeps).await {
            match swept {
                Ok(swept) => {
                    collected.removed += swept.removed;
                    collected.bytes += swept.bytes;
                    collected.kept += swept.kept;
                    collected.foreign += swept.foreign;
                }
                Err(fault) => collected.faults.push(fault),
            }
        }
        collected
    }
}

/// Whether a sweep removes what nobody needs, or counts it.
#[derive(Clone, Copy)]
enum Sweep {
    Remove,
    Count,
}

/// Who needs a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Nobody.
    None,
    /// A reader: whole. Parts of it are of no use.
    Whole,
    /// Whoever is writing it may not have finished.
    UnderWay,
}

fn needs(needed: &BTreeSet<File>, keep: &[SetId], file: &File) -> Need {
    match file {
        File::Extent(set, ..) | File::Key(set, _) if keep.contains(set) => Need::UnderWay,
        file if needed.contains(file) => Need::Whole,
        _ => Need::None,
    }
}
