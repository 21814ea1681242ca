//! How many shares there are, at which points they are taken, and what may be wrong with them.

use std::fmt;

/// The most shares an object may have.
pub const MAX_SHARES: u8 = 32;

/// How many shares there are and how many rebuild the secret: `2 ≤ k ≤ n ≤ 32`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Threshold {
    k: u8,
    n: u8,
}

/// Why a pair of numbers is not a [`Threshold`], or shares do not fit one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Not `2 ≤ k ≤ n ≤ 32`.
    #[error("{k} of {n} is not a threshold: at least 2, at most 32 shares, no more needed than there are")]
    Threshold {
        /// Shares needed.
        k: u8,
        /// Shares made.
        n: u8,
    },
    /// A point outside `1..=32`.
    #[error("a share has a number from 1 to {MAX_SHARES}, not {0}")]
    Index(u8),
    /// Another number of shares than the threshold says.
    #[error("{expected} shares are needed, {actual} were given")]
    Count {
        /// How many there must be.
        expected: usize,
        /// How many there were.
        actual: usize,
    },
    /// The same point twice.
    #[error("share {0} was given twice")]
    Repeated(ShareIndex),
    /// Slices of different lengths.
    #[error("the slices have different lengths")]
    Lengths,
}

impl Threshold {
    /// Checks `2 ≤ k ≤ n ≤ 32`.
    pub const fn new(k: u8, n: u8) -> Result<Threshold, CodecError> {
        if k >= 2 && k <= n && n <= MAX_SHARES {
            Ok(Threshold { k, n })
        } else {
            Err(CodecError::Threshold { k, n })
        }
    }

    /// How many shares rebuild the secret.
    pub const fn k(self) -> usize {
        self.k as usize
    }

    /// How many shares there are.
    pub const fn n(self) -> usize {
        self.n as usize
    }

    /// The abscissas of `points`, which must be `k` different ones of the `n`.
    pub(super) fn known(self, points: &[ShareIndex]) -> Result<Vec<u8>, CodecError> {
        if points.len() != self.k() {
            return Err(CodecError::Count { expected: self.k(), actual: points.len() });
        }
        if let Some(high) = points.iter().find(|point| point.0 > self.n) {
            return Err(CodecError::Index(high.0));
        }
        for (place, point) in points.iter().enumerate() {
            if points[..place].contains(point) {
                return Err(CodecError::Repeated(*point));
            }
        }
        Ok(points.iter().map(|point| point.0).collect())
    }

    /// Whether there is one of everything, of which there are so many, for every share.
    pub(super) fn check_one_each<const N: usize>(self, counts: [usize; N]) -> Result<(), CodecError> {
        let wrong = counts.into_iter().find(|actual| *actual != self.n());
        wrong.map_or(Ok(()), |actual| Err(CodecError::Count { expected: self.n(), actual }))
    }

    /// The points of all shares, `1..=n`.
    pub fn shares(self) -> impl Iterator<Item = ShareIndex> {
        (1..=self.n).map(ShareIndex)
    }
}

impl fmt::Debug for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.k, self.n)
    }
}

/// The point at which a share is taken, `1..=32`. Zero, where the secret lies, is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareIndex(u8);

impl ShareIndex {
    /// Checks `1 ≤ x ≤ 32`.
    pub const fn new(x: u8) -> Result<ShareIndex, CodecError> {
        if x >= 1 && x <= MAX_SHARES { Ok(ShareIndex(x)) } else { Err(CodecError::Index(x)) }
    }

    /// The point.
    pub const fn x(self) -> u8 {
        self.0
    }

    /// The place among `n` shares in order, from 0.
    pub const fn place(self) -> usize {
        self.0 as usize - 1
    }
}

impl fmt::Display for ShareIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
