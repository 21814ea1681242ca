//! Shamir's secret sharing of byte strings over GF(2⁸) with the polynomial x⁸+x⁴+x³+x+1 (0x11b).
//!
//! Every byte of the secret is the value at zero of a polynomial of degree `k − 1` of its own; a
//! share is the value of all of them at one point `x` in `1..=n`. The `k − 1` first shares *are*
//! the random stream and the others are interpolated through them and the secret: the same
//! distribution as drawing coefficients, with fewer multiplications. Coefficients are therefore
//! uniform, zero included; an implementation that avoids zero leaks.
//!
//! Multiplications are by public constants (they follow from `k`, `n` and the points alone), and
//! no kernel indexes memory or branches by a secret byte.

mod field;
mod kernel;
mod stream;

pub use kernel::Kernel;
pub use stream::RandomStream;

use std::fmt;

use kernel::Matrix;

/// The most shares an object may have.
pub const MAX_SHARES: u8 = 32;

/// How many bytes of every share are worked on at once, so that all of them stay in the first
/// cache. Large enough that set-up is nothing, small enough for 32 shares to stay in the second.
const STRIDE: usize = 4096;

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

/// Makes all `n` shares of secrets.
#[derive(Debug, Clone)]
pub struct Splitter {
    threshold: Threshold,
    matrix: Matrix,
    kernel: Kernel,
}

impl Splitter {
    /// For `threshold`, on the best kernel of this machine.
    pub fn new(threshold: Threshold) -> Splitter {
        Splitter::with_kernel(threshold, Kernel::best())
    }

    /// For `threshold` on a kernel of choice: for tests and benchmarks.
    pub fn with_kernel(threshold: Threshold, kernel: Kernel) -> Splitter {
        // Known points: the secret at 0 and the random shares at 1..k; wanted: k..=n.
        let known: Vec<u8> = (0..threshold.k).collect();
        let wanted: Vec<u8> = (threshold.k..=threshold.n).collect();
        Splitter { threshold, matrix: Matrix::interpolating(&known, &wanted), kernel }
    }

    /// What it splits for.
    pub fn threshold(&self) -> Threshold {
        self.threshold
    }

    /// Writes share `x` of `secret` to `shares[x − 1]`; each is as long as the secret. The stream
    /// must never have given these bytes before.
    pub fn split(
        &self,
        secret: &[u8],
        random: &mut RandomStream,
        shares: &mut [&mut [u8]],
    ) -> Result<(), CodecError> {
        if shares.len() != self.threshold.n() {
            return Err(CodecError::Count { expected: self.threshold.n(), actual: shares.len() });
        }
        if shares.iter().any(|share| share.len() != secret.len()) {
            return Err(CodecError::Lengths);
        }
        let (drawn, computed) = shares.split_at_mut(self.threshold.k() - 1);
        let count = computed.len();
        for from in (0..secret.len()).step_by(STRIDE) {
            let part = from..secret.len().min(from + STRIDE);
            let mut inputs: [&[u8]; MAX_SHARES as usize] = [&[]; MAX_SHARES as usize];
            inputs[0] = &secret[part.clone()];
            for (share, input) in drawn.iter_mut().zip(&mut inputs[1..]) {
                random.fill(&mut share[part.clone()]);
                *input = &share[part.clone()];
            }
            let mut outputs: [&mut [u8]; MAX_SHARES as usize] = std::array::from_fn(|_| Default::default());
            for (share, output) in computed.iter_mut().zip(&mut outputs) {
                *output = &mut share[part.clone()];
            }
            self.kernel.apply(&self.matrix, &inputs[..self.threshold.k()], &mut outputs[..count]);
        }
        Ok(())
    }
}

/// Rebuilds secrets from `k` shares at fixed points.
#[derive(Debug, Clone)]
pub struct Combiner {
    matrix: Matrix,
    kernel: Kernel,
}

impl Combiner {
    /// From the shares at `points`, which must be `k` different ones, in the order in which the
    /// shares will be given.
    pub fn new(threshold: Threshold, points: &[ShareIndex]) -> Result<Combiner, CodecError> {
        Combiner::with_kernel(threshold, points, Kernel::best())
    }

    /// The same on a kernel of choice: for tests and benchmarks.
    pub fn with_kernel(
        threshold: Threshold,
        points: &[ShareIndex],
        kernel: Kernel,
    ) -> Result<Combiner, CodecError> {
        if points.len() != threshold.k() {
            return Err(CodecError::Count { expected: threshold.k(), actual: points.len() });
        }
        if let Some(high) = points.iter().find(|point| point.0 > threshold.n) {
            return Err(CodecError::Index(high.0));
        }
        for (place, point) in points.iter().enumerate() {
            if points[..place].contains(point) {
                return Err(CodecError::Repeated(*point));
            }
        }
        let known: Vec<u8> = points.iter().map(|point| point.0).collect();
        Ok(Combiner { matrix: Matrix::interpolating(&known, &[0]), kernel })
    }

    /// Writes the secret to `secret`; every share must be as long. Wrong shares give a wrong
    /// secret without notice: the caller checks tags.
    pub fn combine(&self, shares: &[&[u8]], secret: &mut [u8]) -> Result<(), CodecError> {
        if shares.len() != self.matrix.inputs() {
            return Err(CodecError::Count { expected: self.matrix.inputs(), actual: shares.len() });
        }
        if shares.iter().any(|share| share.len() != secret.len()) {
            return Err(CodecError::Lengths);
        }
        self.kernel.apply(&self.matrix, shares, &mut [secret]);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
