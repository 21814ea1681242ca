//! How often somebody may do something: a bucket for each, which fills again with time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use model::Timestamp;

/// How many buckets are kept; beyond it, those that are full again are forgotten.
const KEPT: usize = 10_000;

/// A bound on how often.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// At once, from a rested start.
    pub burst: u32,
    /// For good, each second.
    pub per_second: f64,
}

/// A bucket for each `K`.
#[derive(Debug)]
pub struct Rates<K> {
    rate: Rate,
    book: Mutex<HashMap<K, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Timestamp,
    /// Whether the last answer was no.
    refused: bool,
}

/// It was too often; in so long it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooOften {
    /// How long to wait.
    pub wait: Duration,
    /// Whether it is the first no since the last yes: the one to make a record of.
    pub first: bool,
}

impl<K: Hash + Eq> Rates<K> {
    /// Nobody has done anything yet.
    pub fn new(rate: Rate) -> Rates<K> {
        Rates { rate, book: Mutex::default() }
    }

    /// Counts one for `who`.
    pub fn take(&self, who: K, now: Timestamp) -> Result<(), TooOften> {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let full = f64::from(self.rate.burst);
        if book.len() >= KEPT && !book.contains_key(&who) {
            book.retain(|_, bucket| bucket.now(self.rate, now) < full);
            if book.len() >= KEPT {
                // So many busy ones are no honest crowd: whoever is new waits.
                return Err(TooOften { wait: Duration::from_secs(1), first: false });
            }
        }
        let bucket = book.entry(who).or_insert(Bucket { left: full, at: now, refused: false });
        let left = bucket.now(self.rate, now);
        if left < 1.0 {
            let wait = Duration::try_from_secs_f64((1.0 - left) / self.rate.per_second);
            let first = !std::mem::replace(&mut bucket.refused, true);
            return Err(TooOften { wait: wait.unwrap_or(Duration::MAX), first });
        }
        *bucket = Bucket { left: left - 1.0, at: now, refused: false };
        Ok(())
    }
}

impl Bucket {
    fn now(&self, rate: Rate, now: Timestamp) -> f64 {
        // A clock that is set back fills nothing.
        let passed = now.since(self.at).as_secs_f64();
        (self.left + passed * rate.per_second).min(f64::from(rate.burst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_let_through_and_then_the_rate_holds_for_each_alone() {
        let rates = Rates::new(Rate { burst: 3, per_second: 0.5 });
        let at = |secs: i64| Timestamp::from_secs(1_000 + secs);
        for _ in 0..3 {
            assert_eq!(rates.take("a", at(0)), Ok(()));
        }
        let no = |first| Err(TooOften { wait: Duration::from_secs(2), first });
        assert_eq!(rates.take("a", at(0)), no(true));
        assert_eq!(rates.take("b", at(0)), Ok(()));
        assert_eq!(rates.take("a", at(-50)), no(false));
        assert_eq!(rates.take("a", at(2)), Ok(()));
        assert!(rates.take("a", at(2)).is_err());
        for _ in 0..3 {
            assert_eq!(rates.take("a", at(1_000)), Ok(()));
        }
        assert!(rates.take("a", at(1_000)).is_err());
    }

    #[test]
    fn memory_is_bounded_and_the_rested_are_forgotten() {
        let rates = Rates::new(Rate { burst: 2, per_second: 1.0 });
        let at = Timestamp::from_secs;
        for who in 0..KEPT {
            rates.take(who, at(0)).unwrap();
        }
        assert!(rates.take(KEPT, at(0)).is_err());
        assert_eq!(rates.take(KEPT, at(5)), Ok(()));
        assert_eq!(rates.book.lock().unwrap().len(), 1);
    }
}
