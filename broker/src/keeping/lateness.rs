//! Whether something waits for longer than it should, told once when it begins and once when it is over.

use std::time::Duration;

use tokio::time::Instant;

/// Watches one queue. It moves in order: how far it got says whether its oldest still waits.
#[derive(Debug)]
pub struct Lateness {
    patience: Duration,
    /// Since when the queue is as far as it is, while something waits in it.
    since: Option<(Instant, u64)>,
}

/// What is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The oldest waits for longer than it should.
    Late,
    /// Nothing waits any more.
    Over,
}

impl Lateness {
    /// How long the oldest may wait.
    pub fn new(patience: Duration) -> Lateness {
        Lateness { patience, since: None }
    }

    /// Looks at a queue in which `waiting` wait and which got as far as `done`. `told` is whether the
    /// last that was told is that it is late.
    pub fn look(&mut self, now: Instant, waiting: u64, done: u64, told: bool) -> Option<Turn> {
        self.since = match self.since {
            _ if waiting == 0 => None,
            Some((since, before)) if before == done => Some((since, before)),
            _ => Some((now, done)),
        };
        let late = self.since.is_some_and(|(since, _)| now.duration_since(since) >= self.patience);
        match (told, late) {
            (false, true) => Some(Turn::Late),
            // One that moves again is not through yet.
            (true, false) if self.since.is_none() => Some(Turn::Over),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_late_when_the_oldest_waited_too_long_and_over_when_nothing_waits() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut queue = Lateness::new(Duration::from_secs(10));
        assert_eq!(queue.look(at(0), 3, 7, false), None);
        assert_eq!(queue.look(at(9), 5, 7, false), None);
        // It went on in time: the next has its own time.
        assert_eq!(queue.look(at(10), 4, 8, false), None);
        assert_eq!(queue.look(at(19), 4, 8, false), None);
        assert_eq!(queue.look(at(20), 4, 8, false), Some(Turn::Late));
        // Told again until it was recorded, then no more.
        assert_eq!(queue.look(at(21), 4, 8, false), Some(Turn::Late));
        assert_eq!(queue.look(at(22), 4, 8, true), None);
        // It goes on, but is not through: not over, and if it stops again not told twice.
        assert_eq!(queue.look(at(23), 3, 9, true), None);
        assert_eq!(queue.look(at(40), 3, 9, true), None);
        assert_eq!(queue.look(at(41), 0, 12, true), Some(Turn::Over));
        assert_eq!(queue.look(at(42), 0, 12, false), None);
        // What comes later begins anew.
        assert_eq!(queue.look(at(60), 1, 12, false), None);
        assert_eq!(queue.look(at(70), 1, 12, false), Some(Turn::Late));
    }
}
