//! Asking several backends at once, and a spare for each that is late.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::Fault;
use super::pool::Pool;

type Answer<T> = JoinHandle<(usize, Result<T, Fault>)>;

/// Questions under way. Requests run as tasks of their own: one that is overtaken by a spare still
/// ends at its time limit and is only then called a fault.
pub(super) struct Asking<A, T> {
    pool: Arc<Pool>,
    waiting: VecDeque<usize>,
    ask: A,
    answers: FuturesUnordered<Answer<T>>,
    asked: Vec<Asked>,
}

/// A backend that has not answered yet.
struct Asked {
    remote: usize,
    since: Instant,
    late: Instant,
    spare: bool,
}

impl Pool {
    /// Asks backends in `order`, as many at once as are needed. Each is asked once.
    pub(super) fn asking<T, A, F>(self: &Arc<Pool>, order: Vec<usize>, ask: A) -> Asking<A, T>
    where
        A: Fn(usize) -> F,
        F: Future<Output = Result<T, Fault>> + Send + 'static,
        T: Send + 'static,
    {
        let (waiting, answers) = (order.into(), FuturesUnordered::new());
        Asking { pool: self.clone(), waiting, ask, answers, asked: Vec::new() }
    }
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
            let now = Instant::now();
            let late = self.asked.iter().filter(|asked| asked.late <= now).count();
            while self.answers.len() < need + late {
                let Some(remote) = self.waiting.pop_front() else { break };
                self.ask(remote, now, self.answers.len() >= need);
            }
            let next_late = self.asked.iter().map(|asked| asked.late).filter(|late| *late > now).min();
            tokio::select! {
                biased;
                answer = self.answers.next() => match answer? {
                    Ok((remote, answer)) => {
                        let spare = self.asked.iter().any(|asked| asked.remote == remote && asked.spare);
                        self.asked.retain(|asked| asked.remote != remote);
                        if spare && answer.is_ok() && self.asked.iter().any(|asked| !asked.spare) {
                            self.pool.remotes[remote].known.hedges_won.add(1);
                        }
                        return Some(answer.map(|answer| (remote, answer)));
                    }
                    // Only a panic gets here; whoever was asked counts as silent.
                    Err(_) => continue,
                },
                () = sleep_until(next_late.unwrap_or(now)),
                    if next_late.is_some() && !self.waiting.is_empty() => {}
            }
        }
    }

    fn ask(&mut self, remote: usize, now: Instant, spare: bool) {
        let answer = (self.ask)(remote);
        self.answers.push(tokio::spawn(async move { (remote, answer.await) }));
        let known = &self.pool.remotes[remote].known;
        if spare {
            known.hedges.add(1);
        }
        let late = now + known.patience(self.pool.options.hedge_after);
        self.asked.push(Asked { remote, since: now, late, spare });
    }
}

impl<A, T> Drop for Asking<A, T> {
    fn drop(&mut self) {
        let now = Instant::now();
        for Asked { remote, since, late, .. } in &self.asked {
            if now - *since >= self.pool.options.hedge_after {
                self.pool.shun(*remote);
            } else if now >= *late {
                self.pool.remotes[*remote].known.overtaken(now - *since);
            }
        }
    }
}
