//! Where shares lie, and which object is meant.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::{BackendId, ObjectId};
use serde_json::Value;
use sharding::format::{Mode, Root};
use sharding::vault::{Access, Backend, BackendUrl, CredentialSource, Found, ObjectReader, Options, Vault};

use crate::args::From;
use crate::fault::Failure;
use crate::out::Out;
use crate::say;
use crate::units;

/// How backends are reached, besides their names.
pub struct Ways {
    /// What the command line's `--access` says.
    access: Value,
    timeout: Duration,
}

impl Ways {
    /// Reads the file of `--access`, if there is one.
    pub fn read(access: Option<&Path>, timeout: Duration) -> Result<Ways, Failure> {
        let Some(path) = access else { return Ok(Ways { access: Value::Null, timeout }) };
        let bad = || Failure::usage(say!(AccessBad, path = path.display())).todo(say!(AccessTodo));
        let text = fs::read(path).map_err(|error| bad().because(&error))?;
        let access: Value = serde_json::from_slice(&text).map_err(|error| bad().because(&error))?;
        if access.is_object() { Ok(Ways { access, timeout }) } else { Err(bad()) }
    }

    /// Time limits for disks that sleep and lines that are slow.
    pub fn options(&self, out: &Out) -> Options {
        let faults = out.clone();
        Options {
            read_timeout: self.timeout,
            write_timeout: self.timeout.max(Duration::from_secs(60)),
            hedge_after: (self.timeout / 8).min(Duration::from_secs(2)),
            faults: Arc::new(move |fault| faults.fault(fault)),
            ..Options::default()
        }
    }

    /// The places named, each once.
    pub fn backends(&self, names: &[String]) -> Result<Vec<Backend>, Failure> {
        let mut backends = Vec::new();
        for (at, name) in names.iter().enumerate() {
            if names[..at].iter().any(|other| same(other, name)) {
                return Err(Failure::usage(say!(NamedTwice, place = name)).todo(say!(NamedTwiceTodo)));
            }
            let bad = |error: &(dyn std::error::Error + 'static)| {
                Failure::usage(say!(BadPlace, place = name)).because(error).todo(say!(BadPlaceTodo))
            };
            let id = BackendId::from_name(&format!("folder-{}", at + 1)).map_err(|error| bad(&error))?;
            let backend = if name.contains("://") {
                let url: BackendUrl = name.parse().map_err(|error| bad(&error))?;
                let environment = |name: &str| std::env::var(name).ok();
                let access = self.access(name)?;
                Backend::open(id, name.clone(), &url, &access, environment).map_err(|error| bad(&error))?
            } else {
                Backend::local(id, name.clone(), Path::new(name)).map_err(|error| bad(&error))?
            };
            backends.push(backend);
        }
        Ok(backends)
    }

    fn access(&self, url: &str) -> Result<Access, Failure> {
        let bad = |path: &str| Failure::usage(say!(AccessBad, path = path)).todo(say!(AccessTodo));
        let mut access = Access::default();
        let Some(entry) = self.access.get(url) else { return Ok(access) };
        for (name, value) in entry.as_object().ok_or_else(|| bad(url))? {
            let text = value.as_str().ok_or_else(|| bad(url))?.to_owned();
            match name.as_str() {
                "endpoint" => {
                    access.endpoint = Some(text.parse().map_err(|error| bad(url).because(&error))?);
                }
                "region" => access.region = Some(text),
                "account" => access.account = Some(text),
                "ca" => access.ca = Some(PathBuf::from(text)),
                "credentials" => access.credentials = Some(CredentialSource::File(PathBuf::from(text))),
                _ => return Err(bad(url)),
            }
        }
        Ok(access)
    }
}

/// Whether a place is a folder of this machine, and which.
pub fn folder(name: &str) -> Option<PathBuf> {
    match name.parse() {
        Ok(BackendUrl::Folder(folder)) => Some(folder),
        _ => None,
    }
}

fn same(a: &str, b: &str) -> bool {
    let plain = |name: &str| match folder(name) {
        Some(folder) => fs::canonicalize(&folder).or_else(|_| std::path::absolute(&folder)).unwrap_or(folder),
        None => PathBuf::from(name.trim_end_matches('/')),
    };
    plain(a) == plain(b)
}

/// Whether folders that are not there stop a verb.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// What is read elsewhere does: it is only said.
    Note,
    /// A name mistyped, or a disk not mounted, would be taken for an empty folder.
    Refuse,
}

/// Looks whether the folders are there.
pub fn look(out: &Out, names: &[String], absent: Absent) -> Result<(), Failure> {
    for name in names {
        if folder(name).is_some_and(|folder| !folder.is_dir()) {
            match absent {
                Absent::Note => out.note(&say!(NoFolderNote, place = name)),
                Absent::Refuse => {
                    let what = say!(NoFolder, place = name);
                    return Err(Failure::failed("no_folder", what).todo(say!(NoFolderTodo, place = name)));
                }
            }
        }
    }
    Ok(())
}

/// An object that was asked for.
pub struct Chosen {
    /// The folders.
    pub vault: Vault,
    /// The object under its root.
    pub reader: ObjectReader,
    /// Which.
    pub object: ObjectId,
    /// Under which root.
    pub root: Root,
}

impl Chosen {
    /// Who signed it, in hexadecimal digits.
    pub fn signer(&self) -> Option<String> {
        self.reader.signer().map(|key| units::hex(&key))
    }
}

/// Opens the object and root that were asked for, or what the folders agree on.
pub async fn open(
    out: &Out,
    ways: &Ways,
    from: &From,
    absent: Absent,
    options: Options,
) -> Result<Chosen, Failure> {
    look(out, &from.folders, absent)?;
    let vault = Vault::reading(ways.backends(&from.folders)?, options);
    let (object, root) = match (&from.object, from.root) {
        (Some(object), Some(root)) => (object.clone(), root),
        (object, root) => {
            let mut found = vault.manifests(object.as_ref()).await;
            found.retain(|found| root.is_none_or(|root| root == found.root));
            let one = the_one(&vault, found).await?;
            if root.is_none() {
                let (held, of) = (one.held_by, from.folders.len());
                out.note(&say!(Believed, held = held, of = of, root = one.root));
            }
            (one.object, one.root)
        }
    };
    let reader = vault.open(&object, &root.0).await?;
    let chosen = Chosen { vault, reader, object, root };
    match from.signer {
        Some(key) if chosen.reader.signer() != Some(key) => {
            let failure = Failure::failed("wrong_signer", say!(WrongSigner, object = chosen.object));
            let why = match chosen.signer() {
                Some(key) => say!(WrongSignerWhy, key = key),
                None => say!(NotSigned),
            };
            Err(failure.why(why).todo(say!(WrongSignerTodo)))
        }
        _ => Ok(chosen),
    }
}

/// What most backends hold, if there is one such.
async fn the_one(vault: &Vault, mut found: Vec<Found>) -> Result<Found, Failure> {
    let most = found.iter().map(|found| found.held_by).max().unwrap_or(0);
    found.retain(|found| found.held_by == most);
    match found.as_slice() {
        [] => {
            let what = say!(NoSuchObject);
            Err(Failure::new(crate::fault::Exit::TooFew, "no_such_object", what).todo(say!(NoSuchObjectTodo)))
        }
        [_] => Ok(found.remove(0)),
        several => {
            let mut list = String::new();
            for Found { object, root, .. } in several {
                // Which epoch, if that can be known.
                let epoch = vault.open(object, &root.0).await.ok().map(|reader| reader.epoch());
                let epoch = epoch.map(|epoch| format!("   (epoch {epoch})")).unwrap_or_default();
                list += &format!("\n    --object {object} --root {root}{epoch}");
            }
            let roots = several.iter().map(|found| {
                serde_json::json!({"object": found.object.as_str(), "root": found.root.to_string(),
                    "held_by": found.held_by})
            });
            Err(Failure::new(crate::fault::Exit::Usage, "several", say!(SeveralObjects))
                .with("found", roots.collect::<Value>())
                .todo(say!(SeveralTodo, list = list)))
        }
    }
}

/// The objects of which the folders hold anything at all.
pub async fn objects(backends: &[Backend]) -> BTreeSet<ObjectId> {
    let mut objects = BTreeSet::new();
    for backend in backends {
        // Who does not answer has nothing to add.
        let Ok(listed) = backend.store.list_with_delimiter(None).await else { continue };
        let named = listed.common_prefixes.iter().filter_map(|folder| folder.filename());
        objects.extend(named.filter_map(|name| ObjectId::from_name(name).ok()));
    }
    objects
}

/// `shamir 3/5`.
pub fn scheme(k: usize, n: usize, mode: Mode) -> String {
    format!("{mode} {k}/{n}")
}
