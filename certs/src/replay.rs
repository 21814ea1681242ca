use std::collections::BTreeMap;

use model::Timestamp;

/// Why something that may be used once was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Replayed {
    /// It was used before.
    #[error("it was used before and may be used only once")]
    Again,
    /// Too many are remembered at this moment; forgetting one early would let it be used twice.
    #[error("too many arrived within a short time; try again in a minute")]
    Full,
}

/// What was seen, each until it expires by itself: a bounded guard against replay.
#[derive(Debug)]
pub struct Seen<K> {
    until: BTreeMap<K, Timestamp>,
    capacity: usize,
}

impl<K: Ord + Clone> Seen<K> {
    /// Remembers at most `capacity` at a time.
    pub fn new(capacity: usize) -> Seen<K> {
        Seen { until: BTreeMap::new(), capacity }
    }

    /// Admits `key` once; after `expires` the caller's own check of time must refuse it.
    pub fn admit(&mut self, key: &K, expires: Timestamp, now: Timestamp) -> Result<(), Replayed> {
        if self.until.len() >= self.capacity {
            self.until.retain(|_, until| *until >= now);
        }
        if self.until.get(key).is_some_and(|until| *until >= now) {
            return Err(Replayed::Again);
        }
        if self.until.len() >= self.capacity {
            return Err(Replayed::Full);
        }
        self.until.insert(key.clone(), expires);
        Ok(())
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.until.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.until.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn once_only_until_it_expires() {
        let mut seen = Seen::new(8);
        assert_eq!(seen.admit(&"a", at(10), at(0)), Ok(()));
        assert_eq!(seen.admit(&"a", at(10), at(10)), Err(Replayed::Again));
        assert_eq!(seen.admit(&"a", at(20), at(11)), Ok(()));
    }

    #[test]
    fn it_stays_bounded_and_fails_closed() {
        let mut seen = Seen::new(3);
        for key in 0..3 {
            assert_eq!(seen.admit(&key, at(10), at(0)), Ok(()));
        }
        assert_eq!(seen.admit(&3, at(10), at(0)), Err(Replayed::Full));
        assert_eq!(seen.admit(&3, at(30), at(11)), Ok(()));
        assert_eq!(seen.len(), 1);
    }
}
