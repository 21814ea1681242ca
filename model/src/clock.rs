use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An instant, in whole milliseconds since 1970-01-01T00:00:00Z.
///
/// It prints, parses and serialises (in readable formats) as RFC 3339 in UTC with a fixed width,
/// so that text order is time order from year 0 to year 9999; compact formats carry the integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// Why a text is not a [`Timestamp`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// Not an RFC 3339 instant.
    #[error("{0:?} is not a date and time like 2026-04-01T09:00:00Z")]
    Malformed(String),
    /// Outside year 0 to year 9999, where the fixed-width form ends.
    #[error("the year lies outside 0000 to 9999")]
    OutOfRange,
}

impl Timestamp {
    /// 0000-01-01T00:00:00.000Z.
    pub const MIN: Timestamp = Timestamp(-62_167_219_200_000);
    /// 9999-12-30T00:00:00.000Z; where an end is required and none is meant. (The last day is left
    /// off so that every instant still prints in every time zone.)
    pub const MAX: Timestamp = Timestamp(253_402_128_000_000);

    /// From milliseconds since the epoch, clamped to the years 0 to 9999.
    pub const fn from_millis(millis: i64) -> Timestamp {
        if millis < Self::MIN.0 {
            Self::MIN
        } else if millis > Self::MAX.0 {
            Self::MAX
        } else {
            Timestamp(millis)
        }
    }

    /// From whole seconds since the epoch (the unit of certificates), clamped likewise.
    pub const fn from_secs(secs: i64) -> Timestamp {
        Self::from_millis(secs.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This instant, later by `by`; it saturates at [`Timestamp::MAX`].
    pub fn plus(self, by: Duration) -> Timestamp {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        Self::from_millis(self.0.saturating_add(by))
    }

    /// This instant, earlier by `by`; it saturates at [`Timestamp::MIN`].
    pub fn minus(self, by: Duration) -> Timestamp {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        Self::from_millis(self.0.saturating_sub(by))
    }

    /// How long after `earlier` this is; zero if it is not after.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In range by construction, so the conversion cannot fail.
        let at = jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        write!(f, "{at:.3}")
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let at: jiff::Timestamp =
            text.parse().map_err(|_| TimestampError::Malformed(text.chars().take(64).collect()))?;
        let millis = at.as_millisecond();
        if (Self::MIN.0..=Self::MAX.0).contains(&millis) {
            Ok(Timestamp(millis))
        } else {
            Err(TimestampError::OutOfRange)
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() { to.collect_str(self) } else { to.serialize_i64(self.0) }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if from.is_human_readable() {
            String::deserialize(from)?.parse().map_err(de::Error::custom)
        } else {
            let millis = i64::deserialize(from)?;
            if (Self::MIN.0..=Self::MAX.0).contains(&millis) {
                Ok(Timestamp(millis))
            } else {
                Err(de::Error::custom(TimestampError::OutOfRange))
            }
        }
    }
}

/// Where "now" comes from.
pub trait Clock: Send + Sync {
    /// The present instant.
    fn now(&self) -> Timestamp;
}

impl<C: Clock + ?Sized> Clock for std::sync::Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }
}

/// A clock that stands still until it is moved: expiry becomes a one-line test.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows `at`.
    pub fn at(at: Timestamp) -> ManualClock {
        ManualClock(AtomicI64::new(at.0))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let next = self.now().plus(by);
        self.0.store(next.0, Ordering::SeqCst);
    }

    /// Sets the clock, backwards too: real clocks jump.
    pub fn set(&self, at: Timestamp) {
        self.0.store(at.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_fixed_width_and_ordered_like_time() {
        let at = [
            Timestamp::MIN,
            Timestamp::from_millis(0),
            Timestamp::from_millis(1_790_000_000_007),
            Timestamp::MAX,
        ];
        let text: Vec<String> = at.iter().map(Timestamp::to_string).collect();
        assert_eq!(text[1], "1970-01-01T00:00:00.000Z");
        assert!(text.iter().all(|t| t.len() == 24), "{text:?}");
        assert!(text.is_sorted(), "{text:?}");
        for (at, text) in at.iter().zip(&text) {
            assert_eq!(text.parse::<Timestamp>().as_ref(), Ok(at));
        }
    }

    #[test]
    fn bad_text_is_refused_with_the_reason() {
        assert!(matches!("tomorrow".parse::<Timestamp>(), Err(TimestampError::Malformed(_))));
        assert!(matches!("-002000-01-01T00:00:00Z".parse::<Timestamp>(), Err(TimestampError::OutOfRange)));
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Timestamp::MAX.plus(Duration::from_secs(1)), Timestamp::MAX);
        assert_eq!(Timestamp::MIN.minus(Duration::MAX), Timestamp::MIN);
        assert_eq!(Timestamp::from_secs(5).since(Timestamp::from_secs(9)), Duration::ZERO);
        assert_eq!(Timestamp::from_millis(-1).as_secs(), -1);
    }
}
