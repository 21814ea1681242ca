//! What was learnt of backends: how fast they are, who failed lately, and counts for metrics.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::BackendId;
use tokio::time::Instant;

use super::FaultKind;

/// Answers that are remembered, and how many there must be before they say anything.
const REMEMBERED: usize = 32;
const TELLING: usize = 16;
/// A spare is asked after so many times what nineteen of twenty answers took, …
const PATIENCE: u32 = 3;
/// … but never sooner than this: a scheduler under load is as late without any fault.
const SHORTEST: Duration = Duration::from_millis(10);
/// After so long without an answer a backend is tried again as if nothing were known.
const STALE: Duration = Duration::from_secs(30);

/// What the vaults of one process learn of their backends. Clones share it; vaults with the same
/// experience in their [`super::Options`] learn from each other.
#[derive(Clone, Default)]
pub struct Experience(Arc<Mutex<BTreeMap<BackendId, Arc<Known>>>>);

/// Counts of one backend since the beginning, and how it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendStats {
    /// Which.
    pub backend: BackendId,
    /// Read requests, listings and removals, hedges included.
    pub requests: u64,
    /// Write requests.
    pub writes: u64,
    /// Write requests that it did not acknowledge.
    pub failed_writes: u64,
    /// Bytes of shares that it gave.
    pub bytes_read: u64,
    /// Bytes that it acknowledged.
    pub bytes_written: u64,
    /// How often it was asked because another was late.
    pub hedges: u64,
    /// How often it then answered before the other.
    pub hedges_won: u64,
    /// Faults that were reported, by kind.
    pub faults: BTreeMap<FaultKind, u64>,
    /// What the last answers took: half of them at most this. `None` before there are enough.
    pub median: Option<Duration>,
    /// What nineteen of twenty of the last answers took at most.
    pub high: Option<Duration>,
    /// Whether it is asked last for now.
    pub shunned: bool,
}

impl Experience {
    /// Every backend that a vault had, by name.
    pub fn stats(&self) -> Vec<BackendStats> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|(backend, known)| known.stats(backend.clone())).collect()
    }

    pub(super) fn of(&self, backend: &BackendId) -> Arc<Known> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(backend.clone()).or_default().clone()
    }
}

impl fmt::Debug for Experience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Experience").field(&self.stats()).finish()
    }
}

/// One backend.
#[derive(Default)]
pub(super) struct Known {
    health: Mutex<Health>,
    pub(super) requests: Count,
    pub(super) writes: Count,
    pub(super) failed_writes: Count,
    pub(super) bytes_read: Count,
    pub(super) bytes_written: Count,
    pub(super) hedges: Count,
    pub(super) hedges_won: Count,
}

/// A number that only grows.
#[derive(Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
struct Health {
    shunned_until: Option<Instant>,
    /// A moving average of what answers took, and when the last one came.
    latency: Duration,
    heard: Option<Instant>,
    /// The last answers, in a ring.
    recent: Vec<Duration>,
    next: usize,
    faults: BTreeMap<FaultKind, u64>,
}

impl Known {
    /// Who is asked first has the least rank: not shunned, then fast. One that was not heard for
    /// long may have become fast.
    pub(super) fn rank(&self, now: Instant) -> (bool, Duration) {
        let health = self.health();
        let fresh = health.heard.is_some_and(|heard| now < heard + STALE);
        (health.shuns(now), if fresh { health.latency } else { Duration::ZERO })
    }

    /// How long to wait for it before another is asked as well; `most` while too little is known.
    pub(super) fn patience(&self, most: Duration) -> Duration {
        let high = self.health().quantile(19, 20);
        high.map_or(most, |high| (high * PATIENCE).max(SHORTEST).min(most))
    }

    /// It answered after `took`.
    pub(super) fn answered(&self, took: Duration) {
        let mut health = self.health();
        health.latency = if health.heard.is_some() { (health.latency * 7 + took) / 8 } else { took };
        health.heard = Some(Instant::now());
        let at = health.next;
        match health.recent.get_mut(at) {
            Some(slot) => *slot = took,
            None => health.recent.push(took),
        }
        health.next = (at + 1) % REMEMBERED;
    }

    /// Another answered first, when it had not for `waited`.
    pub(super) fn overtaken(&self, waited: Duration) {
        let mut health = self.health();
        health.latency = health.latency.max(waited);
        health.heard = Some(Instant::now());
    }

    pub(super) fn shun(&self, penalty: Duration) {
        self.health().shunned_until = Some(Instant::now() + penalty);
    }

    pub(super) fn blame(&self, kind: FaultKind) {
        *self.health().faults.entry(kind).or_default() += 1;
    }

    fn stats(&self, backend: BackendId) -> BackendStats {
        let health = self.health();
        BackendStats {
            backend,
            requests: self.requests.now(),
            writes: self.writes.now(),
            failed_writes: self.failed_writes.now(),
            bytes_read: self.bytes_read.now(),
            bytes_written: self.bytes_written.now(),
            hedges: self.hedges.now(),
            hedges_won: self.hedges_won.now(),
            faults: health.faults.clone(),
            median: health.quantile(1, 2),
            high: health.quantile(19, 20),
            shunned: health.shuns(Instant::now()),
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Health {
    fn shuns(&self, now: Instant) -> bool {
        self.shunned_until.is_some_and(|until| until > now)
    }

    /// What `of` in `all` of the last answers took at most.
    fn quantile(&self, of: usize, all: usize) -> Option<Duration> {
        if self.recent.len() < TELLING {
            return None;
        }
        let mut sorted = self.recent.clone();
        sorted.sort_unstable();
        sorted.get((sorted.len() * of).div_ceil(all) - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const MOST: Duration = Duration::from_millis(300);

    #[tokio::test(start_paused = true)]
    async fn patience_is_learnt_and_bounded() {
        let known = Known::default();
        for _ in 0..TELLING - 1 {
            known.answered(20 * MS);
        }
        assert_eq!(known.patience(MOST), MOST, "too little is known");
        known.answered(20 * MS);
        assert_eq!(known.patience(MOST), 60 * MS);
        (TELLING..REMEMBERED).for_each(|_| known.answered(20 * MS));
        // One slow answer of many is no habit; a habit is learnt, up to the configured most.
        known.answered(200 * MS);
        assert_eq!(known.patience(MOST), 60 * MS);
        (0..8).for_each(|_| known.answered(200 * MS));
        assert_eq!(known.patience(MOST), MOST);
        // And forgotten.
        (0..REMEMBERED).for_each(|_| known.answered(MS / 4));
        assert_eq!(known.patience(MOST), SHORTEST);
        assert_eq!(known.health().recent.len(), REMEMBERED);
        assert_eq!(known.patience(5 * MS), 5 * MS, "configuration may ask for less");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_slow_or_shunned_is_asked_later_and_tried_again() {
        let (fast, slow) = (Known::default(), Known::default());
        fast.answered(MS);
        slow.answered(2 * MS);
        let rank = |known: &Known| known.rank(Instant::now());
        assert!(rank(&fast) < rank(&slow));
        fast.overtaken(40 * MS);
        assert!(rank(&slow) < rank(&fast), "it did not answer");
        slow.shun(50 * MS);
        assert!(rank(&fast) < rank(&slow));
        tokio::time::advance(50 * MS).await;
        assert!(rank(&slow) < rank(&fast));
        tokio::time::advance(STALE).await;
        assert_eq!(rank(&fast), rank(&slow), "neither was heard for long");
    }

    #[test]
    fn backends_are_counted_under_their_names() {
        let experience = Experience::default();
        let [a, b] = ["a", "b"].map(|name| BackendId::from_name(name).unwrap());
        experience.of(&a).requests.add(2);
        experience.of(&b).blame(FaultKind::Short);
        experience.of(&a).requests.add(1);
        let stats = experience.clone().stats();
        assert_eq!((stats.len(), stats[0].requests, stats[1].requests), (2, 3, 0));
        assert_eq!(stats[1].faults, BTreeMap::from([(FaultKind::Short, 1)]));
    }
}
