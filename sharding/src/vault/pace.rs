//! How fast work that nobody waits for may go.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// What may be taken at once after a rest, as time.
const BURST: Duration = Duration::from_millis(250);
/// The longest that one request waits, however slow the pace: a day.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Bytes per second that looking after shares may cost, so that readers do not feel it. Clones
/// share one allowance. Over any time it lets through what the rate gives for it and for a quarter
/// of a second more, and the last request.
#[derive(Debug, Clone)]
pub struct Pace(Option<Arc<Bucket>>);

#[derive(Debug)]
struct Bucket {
    rate: NonZeroU64,
    /// Everything that was let through is paid for by then.
    paid: Mutex<Instant>,
}

impl Pace {
    /// As fast as it goes.
    pub fn unlimited() -> Pace {
        Pace(None)
    }

    /// So many bytes per second.
    pub fn per_second(bytes: NonZeroU64) -> Pace {
        Pace(Some(Arc::new(Bucket { rate: bytes, paid: Mutex::new(Instant::now()) })))
    }

    /// Waits until `bytes` more may be moved. They count from now on, also if this is given up.
    pub async fn take(&self, bytes: u64) {
        if let Some(bucket) = &self.0 {
            sleep_until(bucket.due(Instant::now(), bytes)).await;
        }
    }
}

impl Default for Pace {
    fn default() -> Pace {
        Pace::unlimited()
    }
}

impl Bucket {
    /// When it is their turn.
    fn due(&self, now: Instant, bytes: u64) -> Instant {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate.get());
        let cost = u64::try_from(nanos).map_or(LONGEST, Duration::from_nanos).min(LONGEST);
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        // What was not taken for long is forfeit.
        let turn = now.checked_sub(BURST).map_or(*paid, |rested| rested.max(*paid));
        *paid = turn + cost;
        turn.max(now)
    }
}
