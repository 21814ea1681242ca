//! Backends in memory that misbehave on request, and a vault over them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use model::{BackendId, ObjectId, SeededEntropy};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use sharding::vault::{Backend, Deposited, Fault, Options, Vault};

/// How a backend behaves from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Fine,
    Hangs,
    Refuses,
    Vanished,
    /// Gives a few bytes at a time, and takes nothing in time.
    Crawls,
    /// Right, but so late.
    Late(Duration),
    /// Gives half of what it says that it gives.
    Short,
    /// Gives more than was asked for.
    Long,
    /// Gives half and breaks off.
    BreaksOff,
    /// Gives other bits here and there.
    Flips,
    /// Gives another file than the one that was asked for: see [`Moody::instead`].
    Swaps,
    /// Takes nothing more.
    Full,
    /// Takes what it is given and says that it did not.
    LosesWord,
}

#[derive(Debug)]
pub struct Moody {
    inner: InMemory,
    mood: Mutex<Mood>,
    pub asked: Mutex<Vec<(String, Range<u64>)>>,
    /// Which file it gives for which when it swaps them.
    pub instead: Mutex<HashMap<String, Path>>,
}

impl Moody {
    fn mood(&self) -> Mood {
        *self.mood.lock().unwrap()
    }

    pub fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    async fn comply(&self, path: &Path) -> Result<()> {
        match self.refusal(path) {
            Some(refusal) => refusal.await,
            None => Ok(()),
        }
    }

    /// What comes instead of an answer, if none is to be given.
    fn refusal(&self, path: &Path) -> Option<BoxFuture<'static, Result<()>>> {
        let (mood, path) = (*self.mood.lock().unwrap(), path.to_string());
        match mood {
            Mood::Late(delay) => Some(tokio::time::sleep(delay).map(Ok).boxed()),
            Mood::Hangs => Some(std::future::pending().boxed()),
            Mood::Refuses => {
                Some(async { Err(Error::PermissionDenied { path, source: "refused".into() }) }.boxed())
            }
            Mood::Vanished => Some(async { Err(Error::NotFound { path, source: "gone".into() }) }.boxed()),
            _ => None,
        }
    }

    /// The names of all files.
    pub async fn names(&self) -> Vec<Path> {
        self.inner.list(None).map(|meta| meta.unwrap().location).collect().await
    }

    pub async fn content(&self, path: &Path) -> Vec<u8> {
        self.inner.get(path).await.unwrap().bytes().await.unwrap().to_vec()
    }

    /// Loses everything.
    pub async fn wipe(&self) {
        self.remove_all(|_| true).await;
    }

    /// Loses every file that `which` picks.
    pub async fn remove_all(&self, which: impl Fn(&str) -> bool) {
        for path in self.names().await {
            if which(path.as_ref()) {
                self.inner.delete(&path).await.unwrap();
            }
        }
    }

    /// Writes a file behind the vault's back.
    pub async fn put_back(&self, name: &str, bytes: &[u8]) {
        self.inner.put(&Path::from(name), bytes.to_vec().into()).await.unwrap();
    }

    /// Changes every file that `which` picks.
    pub async fn tamper(&self, which: impl Fn(&str) -> bool, how: impl Fn(&mut Vec<u8>)) {
        for path in self.names().await {
            if which(path.as_ref()) {
                let mut bytes = self.content(&path).await;
                how(&mut bytes);
                self.inner.put(&path, bytes.into()).await.unwrap();
            }
        }
    }
}

impl std::fmt::Display for Moody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a moody backend")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Moody {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.comply(path).await?;
        let failed = |why: &str| Err(Error::Generic { store: "moody", source: why.into() });
        match self.mood() {
            Mood::Full => failed("no space left"),
            Mood::Crawls => std::future::pending().await,
            Mood::LosesWord => {
                self.inner.put_opts(path, payload, options).await?;
                failed("the connection was lost")
            }
            _ => self.inner.put_opts(path, payload, options).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.comply(path).await?;
        let swapped = self.instead.lock().unwrap().get(path.as_ref()).cloned();
        let path = swapped.as_ref().filter(|_| self.mood() == Mood::Swaps).unwrap_or(path);
        let mut answer = self.inner.get_opts(path, options).await?;
        self.asked.lock().unwrap().push((path.to_string(), answer.range.clone()));
        if !matches!(self.mood(), Mood::Crawls | Mood::Short | Mood::Long | Mood::BreaksOff | Mood::Flips) {
            return Ok(answer);
        }
        let (meta, range) = (answer.meta.clone(), answer.range.clone());
        let (attributes, extensions) = (answer.attributes.clone(), answer.extensions.clone());
        let bytes = answer.bytes().await?;
        let half = bytes.slice(..bytes.len() / 2);
        let payload = GetResultPayload::Stream(match self.mood() {
            Mood::Crawls => stream::unfold(bytes, |mut left| async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let some = left.split_to(left.len().min(16));
                (!some.is_empty()).then_some((Ok(some), left))
            })
            .boxed(),
            Mood::Long => stream::iter([Ok(bytes), Ok(vec![7; 1000].into())]).boxed(),
            Mood::BreaksOff => {
                let broken = Error::Generic { store: "moody", source: "the connection was reset".into() };
                stream::iter([Ok(half), Err(broken)]).boxed()
            }
            Mood::Flips => {
                let mut bytes = bytes.to_vec();
                bytes.iter_mut().step_by(97).for_each(|byte| *byte ^= 4);
                stream::iter([Ok(bytes.into())]).boxed()
            }
            _ => stream::iter([Ok(half)]).boxed(),
        });
        answer = GetResult { payload, meta, range, attributes, extensions };
        Ok(answer)
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.refusal(&Path::default()) {
            Some(refusal) => {
                futures::stream::once(async move { refusal.await.map(|()| Path::default()) }).boxed()
            }
            None => self.inner.delete_stream(paths),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let listed = self.inner.list(prefix);
        match self.refusal(&Path::default()) {
            Some(refusal) => {
                futures::stream::once(refusal).filter_map(async |refusal| refusal.err().map(Err)).boxed()
            }
            None => listed,
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A vault over `n` moody backends, and what it complained of.
pub struct World {
    pub vault: Vault,
    pub stores: Vec<Arc<Moody>>,
    pub faults: Arc<Mutex<Vec<Fault>>>,
    pub object: ObjectId,
}

impl World {
    pub fn new(k: u8, n: usize) -> World {
        World::with(k, n, |_| {})
    }

    pub fn with(k: u8, n: usize, adjust: impl Fn(&mut Options)) -> World {
        let stores: Vec<Arc<Moody>> = (0..n)
            .map(|_| {
                let mood = Mutex::new(Mood::Fine);
                let (asked, instead) = (Mutex::default(), Mutex::default());
                Arc::new(Moody { inner: InMemory::new(), mood, asked, instead })
            })
            .collect();
        let faults = Arc::new(Mutex::new(Vec::new()));
        let heard = faults.clone();
        let mut options = Options {
            read_timeout: Duration::from_millis(400),
            hedge_after: Duration::from_millis(100),
            write_timeout: Duration::from_millis(400),
            faults: Arc::new(move |fault| heard.lock().unwrap().push(fault)),
            ..Options::default()
        };
        adjust(&mut options);
        let backends = stores.iter().enumerate().map(|(at, store)| backend(at, store));
        let vault = Vault::new(backends.collect(), k, options).unwrap();
        World { vault, stores, faults, object: ObjectId::from_name("genome-1").unwrap() }
    }

    /// A vault that only reads, knows nothing yet and asks the backends in this order.
    pub fn reading(&self, order: &[usize]) -> Vault {
        let heard = self.faults.clone();
        let options = Options {
            read_timeout: Duration::from_millis(400),
            hedge_after: Duration::from_millis(100),
            faults: Arc::new(move |fault| heard.lock().unwrap().push(fault)),
            ..Options::default()
        };
        Vault::reading(order.iter().map(|at| backend(*at, &self.stores[*at])).collect(), options)
    }

    pub async fn deposit(&self, content: &[u8]) -> Deposited {
        let entropy = SeededEntropy::new(content.len() as u64);
        self.vault.deposit(&self.object, content, &entropy, |_| {}).await.unwrap()
    }

    /// Everything, through the range reader.
    pub async fn read_all(
        &self,
        root: &[u8; 32],
    ) -> std::result::Result<Vec<u8>, sharding::vault::ReadError> {
        let reader = self.vault.open(&self.object, root).await?;
        let size = usize::try_from(reader.size()).unwrap();
        Ok(reader.read_at(0, size).await?.to_vec())
    }

    /// Who was blamed so far, without repetition.
    pub fn blamed(&self) -> Vec<String> {
        let faults = self.faults.lock().unwrap();
        let mut blamed: Vec<String> = faults.iter().map(|fault| fault.backend.to_string()).collect();
        blamed.sort();
        blamed.dedup();
        blamed
    }
}

fn backend(at: usize, store: &Arc<Moody>) -> Backend {
    Backend {
        id: BackendId::from_name(&format!("b{}", at + 1)).unwrap(),
        institution: format!("Institution {}", at + 1),
        store: store.clone(),
    }
}

/// Bytes without repetition at any short distance.
pub fn content(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    model::Entropy::fill(&SeededEntropy::new(7), &mut bytes).unwrap();
    bytes
}

pub const BLOCK: usize = sharding::format::BLOCK as usize;
pub const EXTENT: usize = sharding::format::EXTENT as usize;
