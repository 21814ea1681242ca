//! The backends with what was learnt of them, and requests to one of them within its limits.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use model::ObjectId;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, GetResult, GetResultPayload, ObjectStore, ObjectStoreExt, PutPayload,
};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::health::Known;
use super::{Backend, Fault, FaultKind, Options};

/// All backends of a vault.
pub(super) struct Pool {
    pub(super) remotes: Vec<Remote>,
    pub(super) options: Options,
}

/// A backend and how it has behaved lately.
pub(super) struct Remote {
    pub(super) backend: Backend,
    pub(super) known: Arc<Known>,
    slots: Semaphore,
}

/// What was wrong with one answer.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) kind: FaultKind,
    pub(super) detail: String,
}

impl Failure {
    /// What a store said.
    pub(super) fn of(error: &Error) -> Failure {
        let kind = match error {
            Error::NotFound { .. } => FaultKind::Missing,
            _ => FaultKind::Unreachable,
        };
        Failure { kind, detail: brief(error) }
    }

    pub(super) fn corrupt(detail: impl ToString) -> Failure {
        Failure { kind: FaultKind::Corrupt, detail: detail.to_string() }
    }
}

impl Pool {
    pub(super) fn new(backends: Vec<Backend>, options: Options) -> Arc<Pool> {
        let remote = |backend: Backend| Remote {
            known: options.experience.of(&backend.id),
            backend,
            slots: Semaphore::new(options.concurrency.max(1)),
        };
        Arc::new(Pool { remotes: backends.into_iter().map(remote).collect(), options })
    }

    /// All backends, those that answer well and fast first.
    pub(super) fn order(&self) -> Vec<usize> {
        let now = Instant::now();
        let ranks = self.remotes.iter().map(|remote| remote.known.rank(now));
        let mut order: Vec<_> = ranks.zip(0..).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, at)| at).collect()
    }

    /// Asks this backend last for a while.
    pub(super) fn shun(&self, remote: usize) {
        self.remotes[remote].known.shun(self.options.penalty);
    }

    /// Shuns a backend and tells the sink.
    pub(super) fn report(
        &self,
        remote: usize,
        object: &ObjectId,
        block: Option<u64>,
        failure: Failure,
    ) -> Fault {
        self.shun(remote);
        self.remotes[remote].known.blame(failure.kind);
        let fault = self.fault(remote, object, block, failure);
        self.options.faults.fault(fault.clone());
        fault
    }

    pub(super) fn fault(
        &self,
        remote: usize,
        object: &ObjectId,
        block: Option<u64>,
        failure: Failure,
    ) -> Fault {
        let Backend { id, institution, .. } = &self.remotes[remote].backend;
        Fault {
            backend: id.clone(),
            institution: institution.clone(),
            object: object.clone(),
            block,
            kind: failure.kind,
            detail: failure.detail,
        }
    }

    /// Exactly these bytes of a file.
    pub(super) async fn range(&self, remote: usize, name: &str, range: Range<u64>) -> Result<Bytes, Failure> {
        let (path, wanted) = (Path::from(name), range.end - range.start);
        let bytes = self.timed(remote, |store| async move {
            let some = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
            let answer = match store.get_opts(&path, some).await {
                Ok(answer) => collect(answer, wanted).await,
                Err(error) => Err(error),
            };
            match answer {
                // A file that ends early is an error of no kind of its own.
                Err(Error::Generic { store: kind, source }) => match store.head(&path).await {
                    Ok(meta) if meta.size < range.end => Ok(Some(Bytes::new())),
                    _ => Err(Error::Generic { store: kind, source }),
                },
                answer => answer,
            }
        });
        let bytes = bytes.await?.ok_or_else(|| Failure::corrupt("more than was asked for"))?;
        self.remotes[remote].known.bytes_read.add(bytes.len() as u64);
        if (bytes.len() as u64) < wanted {
            let detail = format!("{} of {wanted} bytes", bytes.len());
            return Err(Failure { kind: FaultKind::Short, detail });
        }
        Ok(bytes)
    }

    /// A whole file of at most `limit` bytes.
    pub(super) async fn whole(&self, remote: usize, name: &str, limit: u64) -> Result<Bytes, Failure> {
        let path = Path::from(name);
        let bytes = self.timed(remote, |store| async move {
            let answer = store.get(&path).await?;
            if answer.meta.size > limit { Ok(None) } else { collect(answer, limit).await }
        });
        let bytes = bytes.await?.ok_or_else(|| Failure::corrupt("longer than it can be"))?;
        self.remotes[remote].known.bytes_read.add(bytes.len() as u64);
        Ok(bytes)
    }

    /// Writes a new file; it lies there whole or not at all.
    pub(super) async fn put(&self, remote: usize, name: &str, parts: Vec<Bytes>) -> Result<(), PutError> {
        let Remote { backend, slots, known } = &self.remotes[remote];
        let payload = PutPayload::from_iter(parts);
        let bytes = payload.content_length() as u64;
        known.writes.add(1);
        let write = async {
            let _slot = slots.acquire().await;
            backend.store.put(&Path::from(name), payload).await
        };
        let failed = match timeout(self.options.write_timeout, write).await {
            Ok(Ok(_)) => {
                known.bytes_written.add(bytes);
                return Ok(());
            }
            Ok(Err(source)) => PutError::Refused(source),
            Err(_) => PutError::Timeout,
        };
        known.failed_writes.add(1);
        Err(failed)
    }

    /// Removes a file, if the backend answers; for garbage that may also stay.
    pub(super) async fn forget(&self, remote: usize, name: &str) {
        let path = Path::from(name);
        let _ = timeout(self.options.read_timeout, self.remotes[remote].backend.store.delete(&path)).await;
    }

    pub(super) async fn timed<T, F>(
        &self,
        remote: usize,
        work: impl FnOnce(Arc<dyn ObjectStore>) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let Remote { backend, slots, known } = &self.remotes[remote];
        known.requests.add(1);
        let start = Instant::now();
        let work = work(backend.store.clone());
        let answer = timeout(self.options.read_timeout, async {
            let _slot = slots.acquire().await;
            work.await
        });
        match answer.await {
            Ok(Ok(answer)) => {
                known.answered(start.elapsed());
                Ok(answer)
            }
            Ok(Err(error)) => Err(Failure::of(&error)),
            Err(_) => Err(Failure {
                kind: FaultKind::Timeout,
                detail: format!("within {:?}", self.options.read_timeout),
            }),
        }
    }
}

/// What an answer holds; `None` as soon as it is more than `most`, whatever it said before.
async fn collect(answer: GetResult, most: u64) -> Result<Option<Bytes>, Error> {
    // A local file is read at once and no further than was asked or it was long.
    if let GetResultPayload::File(..) = answer.payload {
        return answer.bytes().await.map(|bytes| Some(bytes).filter(|bytes| bytes.len() as u64 <= most));
    }
    let (mut parts, mut len) = (Vec::new(), 0);
    let mut chunks = answer.into_stream();
    while let Some(chunk) = chunks.next().await.transpose()? {
        len += chunk.len() as u64;
        if len > most {
            return Ok(None);
        }
        parts.push(chunk);
    }
    Ok(Some(match parts.len() {
        1 => parts.swap_remove(0),
        _ => parts.concat().into(),
    }))
}

/// The first words of an error, for logs. Servers choose some of them: no control characters.
fn brief(error: &Error) -> String {
    error.to_string().chars().take(160).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Why a write was not acknowledged.
pub(super) enum PutError {
    Refused(Error),
    Timeout,
}
