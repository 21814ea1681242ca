//! So many events in a while: a bucket of tokens.

use std::time::Instant;

/// How many events a workspace may have recorded one by one.
#[derive(Debug)]
pub struct Budget {
    tokens: f64,
    burst: f64,
    per_second: f64,
    last: Instant,
}

impl Budget {
    /// A full bucket of `burst` tokens, which gets `per_second` new ones.
    pub fn new(burst: u32, per_second: u32, now: Instant) -> Budget {
        Budget {
            tokens: f64::from(burst),
            burst: f64::from(burst),
            per_second: f64::from(per_second),
            last: now,
        }
    }

    /// Takes one if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.last).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.burst);
        self.last = self.last.max(now);
        let has = self.tokens >= 1.0;
        if has {
            self.tokens -= 1.0;
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_spent_comes_back_with_time() {
        let start = Instant::now();
        let mut budget = Budget::new(3, 2, start);
        let taken = |budget: &mut Budget, now| (0..10).filter(|_| budget.take(now)).count();
        assert_eq!(taken(&mut budget, start), 3);
        assert_eq!(taken(&mut budget, start + Duration::from_secs(1)), 2);
        assert_eq!(taken(&mut budget, start + Duration::from_secs(60)), 3);
        assert_eq!(taken(&mut budget, start), 0, "a clock that goes back gives nothing");
    }
}
