//! A folder of this machine, as a store that also sees what a killed writer left behind.
//!
//! `object_store` writes a file under its name with `#` and a number behind it, and renames it when
//! it is whole. Whoever is killed in between leaves such a file, with a part of a share in it, and
//! `object_store` neither lists nor removes it. Here it is listed, under the name that has `%23` in
//! the place of `#`, and can be removed under that name; it can neither be read nor written.

use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};

/// What comes between the name of a file and the number of an unfinished attempt to write it.
pub(super) const UNFINISHED: &str = "%23";
/// Folders that an object has below that of the backend: its own and those of its share sets.
const DEPTH: usize = 2;

/// A folder, written with fsync.
#[derive(Debug)]
pub(super) struct Folder {
    inner: Arc<PrefixStore<LocalFileSystem>>,
    at: Arc<FilePath>,
}

impl Folder {
    /// The folder need not be there yet.
    pub(super) fn new(folder: &FilePath) -> Result<Folder> {
        let absolute = std::path::absolute(folder).map_err(generic)?;
        let prefix = Path::from_absolute_path(&absolute)?;
        let inner = Arc::new(PrefixStore::new(LocalFileSystem::new().with_fsync(true), prefix));
        Ok(Folder { inner, at: absolute.into() })
    }
}

#[async_trait::async_trait]
impl ObjectStore for Folder {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        match options {
            // Reads of blocks: one trip to a thread that may wait, not one to open and one to read.
            GetOptions {
                range: Some(GetRange::Bounded(range)),
                if_match: None,
                if_none_match: None,
                if_modified_since: None,
                if_unmodified_since: None,
                version: None,
                head: false,
                ..
            } => {
                let (file, location) = (self.at.join(path.as_ref()), path.clone());
                let read = tokio::task::spawn_blocking(move || read_range(&file, location, range));
                read.await.map_err(|error| generic(io::Error::other(error)))?
            }
            options => self.inner.get_opts(path, options).await,
        }
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, at) = (self.inner.clone(), self.at.clone());
        let delete = move |path: Result<Path>| {
            let (inner, at) = (inner.clone(), at.clone());
            async move {
                let path = path?;
                match unfinished_file(&at, &path) {
                    Some(file) => blocking(move || fs::remove_file(file)).await.map_err(|error| {
                        let (path, source) = (path.to_string(), Box::new(error));
                        match source.kind() {
                            io::ErrorKind::NotFound => Error::NotFound { path, source },
                            _ => Error::Generic { store: "folder", source },
                        }
                    })?,
                    None => inner.delete(&path).await?,
                }
                let (removed, root) = (path.clone(), at.clone());
                // That it could not be tidied up harms nobody.
                let _ = blocking(move || tidy(&root, &removed)).await;
                Ok(path)
            }
        };
        paths.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (at, prefix) = (self.at.clone(), prefix.cloned());
        let listed = self.inner.list(prefix.as_ref());
        let leftovers = stream::once(async move {
            let found = blocking(move || leftovers(&at, prefix.as_ref())).await;
            stream::iter(match found {
                Ok(found) => found.into_iter().map(Ok).collect::<Vec<_>>(),
                Err(error) => vec![Err(generic(error))],
            })
        });
        listed.chain(leftovers.flatten()).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

impl std::fmt::Display for Folder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Folder({})", self.at.display())
    }
}

/// What there is of `range`.
fn read_range(file: &FilePath, location: Path, range: Range<u64>) -> Result<GetResult> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound { path: location.to_string(), source: Box::new(error) },
        _ => generic(error),
    };
    let file = fs::File::open(file).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let last_modified = metadata.modified().map_err(failed)?.into();
    let range = range.start.min(metadata.len())..range.end.min(metadata.len());
    let mut bytes = vec![0; usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0)];
    file.read_exact_at(&mut bytes, range.start).map_err(failed)?;
    let meta = ObjectMeta { location, last_modified, size: metadata.len(), e_tag: None, version: None };
    let payload = GetResultPayload::Stream(stream::iter([Ok(bytes.into())]).boxed());
    Ok(GetResult { payload, meta, range, attributes: Attributes::default(), extensions: Default::default() })
}

fn generic(error: io::Error) -> Error {
    Error::Generic { store: "folder", source: Box::new(error) }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// The name of a file that was not finished, split into the name it was to have and its number.
pub(super) fn split(name: &str) -> Option<(&str, &str)> {
    let (name, number) = name.rsplit_once(UNFINISHED)?;
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    digits.then_some((name, number))
}

/// Where the unfinished file lies that `path` names, if it names one.
fn unfinished_file(root: &FilePath, path: &Path) -> Option<PathBuf> {
    let (folder, (name, number)) = match path.as_ref().rsplit_once('/') {
        Some((folder, name)) => (folder, split(name)?),
        None => ("", split(path.as_ref())?),
    };
    Some(root.join(folder).join(format!("{name}#{number}")))
}

/// Removes the folders that a file was in, if they are empty now; never the backend's own.
fn tidy(root: &FilePath, removed: &Path) -> io::Result<()> {
    let mut folder = root.join(removed.as_ref());
    while folder.pop() && folder.starts_with(root) && folder != root {
        fs::remove_dir(&folder)?;
    }
    Ok(())
}

/// The unfinished files below `prefix`.
fn leftovers(root: &FilePath, prefix: Option<&Path>) -> io::Result<Vec<ObjectMeta>> {
    let mut found = Vec::new();
    let mut folders = vec![(PathBuf::from(prefix.map_or("", AsRef::as_ref)), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let entries = match fs::read_dir(root.join(&folder)) {
            Ok(entries) => entries,
            // Gone meanwhile, or never there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let meta = match entry.metadata() {
                Ok(meta) => meta,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if meta.is_dir() && depth < DEPTH {
                folders.push((folder.join(name), depth + 1));
            } else if meta.is_file()
                && let Some((stem, number)) = name.rsplit_once('#')
                && !number.is_empty()
                && number.bytes().all(|byte| byte.is_ascii_digit())
                && let Some(Ok(location)) =
                    folder.join(format!("{stem}{UNFINISHED}{number}")).to_str().map(Path::parse)
            {
                let last_modified = meta.modified()?.into();
                found.push(ObjectMeta {
                    location,
                    last_modified,
                    size: meta.len(),
                    e_tag: None,
                    version: None,
                });
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    #[tokio::test]
    async fn what_a_killed_writer_left_is_listed_and_removed_with_its_folders() {
        let scratch = tempfile::tempdir().unwrap();
        let store = Folder::new(scratch.path()).unwrap();
        let path = Path::from("genome/ab/00000000.cd");
        store.put(&path, PutPayload::from_static(b"whole")).await.unwrap();
        fs::write(scratch.path().join("genome/ab/00000001.cd#1"), b"ha").unwrap();
        fs::write(scratch.path().join("genome/ef.manifest#12"), b"l").unwrap();
        let names = async || {
            let listed: Vec<ObjectMeta> =
                store.list(Some(&Path::from("genome"))).try_collect().await.unwrap();
            let mut names: Vec<String> = listed.iter().map(|meta| meta.location.to_string()).collect();
            names.sort();
            names
        };
        let left = ["genome/ab/00000001.cd%231", "genome/ef.manifest%2312"];
        assert_eq!(names().await, [&["genome/ab/00000000.cd"][..], &left].concat());
        assert_eq!(split(left[1]), Some(("genome/ef.manifest", "12")));
        for name in left {
            store.delete(&Path::parse(name).unwrap()).await.unwrap();
        }
        assert_eq!(names().await, ["genome/ab/00000000.cd"]);
        let again = store.delete(&Path::parse(left[0]).unwrap()).await;
        assert!(matches!(again, Err(Error::NotFound { .. })), "{again:?}");
        store.delete(&path).await.unwrap();
        assert!(!scratch.path().join("genome").exists() && scratch.path().exists());
    }
}
