//! The backends with what was learnt of them, and asking several at once.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{FuturesUnordered, StreamExt};
use model::ObjectId;
use object_store::path::Path;
use object_store::{Error, GetResultPayload, ObjectStore, ObjectStoreExt, PutPayload};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::{Backend, Fault, FaultKind, Options};

/// All backends of a vault.
pub(super) struct Pool {
    pub(super) remotes: Vec<Remote>,
    pub(super) options: Options,
}

/// A backend and how it has behaved lately.
pub(super) struct Remote {
    pub(super) backend: Backend,
    slots: Semaphore,
    health: Mutex<Health>,
}

#[derive(Default)]
struct Health {
    shunned_until: Option<Instant>,
    /// A moving average of what answers took.
    latency: Duration,
}

/// What was wrong with one answer.
#[derive(Debug)]
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
        let remote = |backend| Remote {
            backend,
            slots: Semaphore::new(options.concurrency.max(1)),
            health: Mutex::default(),
        };
        Arc::new(Pool { remotes: backends.into_iter().map(remote).collect(), options })
    }

    /// All backends, those that answer well and fast first.
    pub(super) fn order(&self) -> Vec<usize> {
        let now = Instant::now();
        let mut order: Vec<(bool, Duration, usize)> = self
            .remotes
            .iter()
            .enumerate()
            .map(|(at, remote)| {
                let health = remote.health.lock().unwrap_or_else(PoisonError::into_inner);
                (health.shunned_until.is_some_and(|until| until > now), health.latency, at)
            })
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(_, _, at)| at).collect()
    }

    /// Asks this backend last for a while.
    pub(super) fn shun(&self, remote: usize) {
        let mut health = self.remotes[remote].health.lock().unwrap_or_else(PoisonError::into_inner);
        health.shunned_until = Some(Instant::now() + self.options.penalty);
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
            match store.get_range(&path, range.clone()).await {
                // A file that ends early is an error of no kind of its own.
                Err(Error::Generic { store: kind, source }) => match store.head(&path).await {
                    Ok(meta) if meta.size < range.end => Ok(None),
                    _ => Err(Error::Generic { store: kind, source }),
                },
                answer => answer.map(Some),
            }
        });
        match bytes.await? {
            Some(bytes) if bytes.len() as u64 == wanted => Ok(bytes),
            answer => Err(Failure {
                kind: FaultKind::Short,
                detail: format!("{} of {wanted} bytes", answer.map_or(0, |bytes| bytes.len())),
            }),
        }
    }

    /// A whole file of at most `limit` bytes.
    pub(super) async fn whole(&self, remote: usize, name: &str, limit: u64) -> Result<Bytes, Failure> {
        let path = Path::from(name);
        let bytes = self.timed(remote, |store| async move {
            let answer = store.get(&path).await?;
            if answer.meta.size > limit {
                return Ok(None);
            }
            // A local file is read at once and no further than it was long; elsewhere count along.
            if let GetResultPayload::File(..) = answer.payload {
                return answer.bytes().await.map(Some);
            }
            let mut bytes = BytesMut::new();
            let mut chunks = answer.into_stream();
            while let Some(chunk) = chunks.next().await.transpose()? {
                if (bytes.len() + chunk.len()) as u64 > limit {
                    return Ok(None);
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(Some(bytes.freeze()))
        });
        bytes.await?.ok_or_else(|| Failure::corrupt("longer than it can be"))
    }

    /// Writes a new file; it lies there whole or not at all.
    pub(super) async fn put(&self, remote: usize, name: &str, parts: Vec<Bytes>) -> Result<(), PutError> {
        let Remote { backend, slots, .. } = &self.remotes[remote];
        let write = async {
            let _slot = slots.acquire().await;
            backend.store.put(&Path::from(name), PutPayload::from_iter(parts)).await
        };
        match timeout(self.options.write_timeout, write).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(source)) => Err(PutError::Refused(source)),
            Err(_) => Err(PutError::Timeout),
        }
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
        let Remote { backend, slots, health } = &self.remotes[remote];
        let start = Instant::now();
        let work = work(backend.store.clone());
        let answer = timeout(self.options.read_timeout, async {
            let _slot = slots.acquire().await;
            work.await
        });
        let answer = match answer.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Failure::of(&error)),
            Err(_) => Err(Failure {
                kind: FaultKind::Timeout,
                detail: format!("within {:?}", self.options.read_timeout),
            }),
        };
        let mut health = health.lock().unwrap_or_else(PoisonError::into_inner);
        health.latency = (health.latency * 7 + start.elapsed()) / 8;
        answer
    }

    /// Asks backends in `order`, as many at once as are needed. Each is asked once.
    pub(super) fn asking<T, A, F>(self: &Arc<Pool>, order: Vec<usize>, ask: A) -> Asking<A, T>
    where
        A: Fn(usize) -> F,
        F: Future<Output = Result<T, Fault>> + Send + 'static,
        T: Send + 'static,
    {
        Asking {
            pool: self.clone(),
            waiting: order.into(),
            ask,
            answers: FuturesUnordered::new(),
            asked: Vec::new(),
            spares: 0,
        }
    }
}

/// The first words of an error, for logs.
fn brief(error: &Error) -> String {
    let mut text = error.to_string();
    if let Some((end, _)) = text.char_indices().nth(160) {
        text.truncate(end);
    }
    text
}

/// Why a write was not acknowledged.
pub(super) enum PutError {
    Refused(Error),
    Timeout,
}

type Answer<T> = JoinHandle<(usize, Result<T, Fault>)>;

/// Questions under way. Requests run as tasks of their own: one that is overtaken by a spare still
/// ends at its time limit and is only then called a fault.
pub(super) struct Asking<A, T> {
    pool: Arc<Pool>,
    waiting: VecDeque<usize>,
    ask: A,
    answers: FuturesUnordered<Answer<T>>,
    asked: Vec<(usize, Instant)>,
    spares: usize,
}

impl<A, T, F> Asking<A, T>
where
    A: Fn(usize) -> F,
    F: Future<Output = Result<T, Fault>> + Send + 'static,
    T: Send + 'static,
{
    /// The next answer, while `need` more are wanted; `None` when all have been asked and heard.
    pub(super) async fn next(&mut self, need: usize) -> Option<Result<(usize, T), Fault>> {
        loop {
            while self.answers.len() < need + self.spares {
                let Some(remote) = self.waiting.pop_front() else { break };
                let answer = (self.ask)(remote);
                self.answers.push(tokio::spawn(async move { (remote, answer.await) }));
                self.asked.push((remote, Instant::now()));
            }
            let patience = self.pool.options.hedge_after;
            let late = self.asked.iter().map(|(_, since)| *since + patience).max();
            tokio::select! {
                biased;
                answer = self.answers.next() => match answer? {
                    Ok((remote, answer)) => {
                        self.asked.retain(|(asked, _)| *asked != remote);
                        return Some(answer.map(|answer| (remote, answer)));
                    }
                    // Only a panic gets here; whoever was asked counts as silent.
                    Err(_) => continue,
                },
                () = sleep_until(late.unwrap_or_else(Instant::now)),
                    if late.is_some() && !self.waiting.is_empty() => self.spares += need,
            }
        }
    }
}

impl<A, T> Drop for Asking<A, T> {
    fn drop(&mut self) {
        for (remote, since) in &self.asked {
            if since.elapsed() >= self.pool.options.hedge_after {
                self.pool.shun(*remote);
            }
        }
    }
}
