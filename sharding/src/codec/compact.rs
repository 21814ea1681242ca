//! The erasure code of mode `compact`: systematic Reed–Solomon by interpolation.
//!
//! Data is cut into `k` pieces of the same length, the last of them padded with zeros. Byte by
//! byte the pieces are the values at `1..=k` of a polynomial of degree `k − 1`; share `x` is its
//! value at `x`, so that the first `k` shares *are* the pieces.

use super::kernel::{Kernel, Matrix};
use super::mac::Mac;
use super::share::STRIDE;
use super::{CodecError, MAX_SHARES, NONCE_LEN, ShareIndex, TAG_LEN, Threshold};

/// Spreads data over `n` shares of a `k`-th of its length each.
#[derive(Debug, Clone)]
pub struct Disperser {
    threshold: Threshold,
    matrix: Matrix,
    kernel: Kernel,
}

impl Disperser {
    /// For `threshold`, on the best kernel of this machine.
    pub fn new(threshold: Threshold) -> Disperser {
        Disperser::with_kernel(threshold, Kernel::best())
    }

    /// For `threshold` on a kernel of choice: for tests and benchmarks.
    pub fn with_kernel(threshold: Threshold, kernel: Kernel) -> Disperser {
        let (k, n) = (threshold.k() as u8, threshold.n() as u8);
        let (known, wanted): (Vec<u8>, Vec<u8>) = (1..=n).partition(|x| *x <= k);
        Disperser { threshold, matrix: Matrix::interpolating(&known, &wanted), kernel }
    }

    /// What it spreads for.
    pub fn threshold(&self) -> Threshold {
        self.threshold
    }

    /// The length of every share of `len` bytes of data.
    pub fn piece_len(&self, len: usize) -> usize {
        len.div_ceil(self.threshold.k())
    }

    /// Writes share `x` of `data` to `shares[x − 1]`, each [`Disperser::piece_len`] bytes.
    pub fn disperse(&self, data: &[u8], shares: &mut [&mut [u8]]) -> Result<(), CodecError> {
        let len = self.check(data, shares)?;
        for from in (0..len).step_by(STRIDE) {
            self.stride(data, len, from, shares);
        }
        Ok(())
    }

    /// As [`Disperser::disperse`], and writes the tag of share `x` under `macs[x − 1]` and `nonce`
    /// to `tags[x − 1]` while the shares are still in the first cache. No key may meet a nonce
    /// twice (see [`Mac`]).
    pub fn disperse_and_tag(
        &self,
        data: &[u8],
        shares: &mut [&mut [u8]],
        macs: &[Mac],
        nonce: &[u8; NONCE_LEN],
        tags: &mut [[u8; TAG_LEN]],
    ) -> Result<(), CodecError> {
        let len = self.check(data, shares)?;
        let mut tagging = Mac::begin_each(macs, self.threshold, tags.len())?;
        for from in (0..len).step_by(STRIDE) {
            self.stride(data, len, from, shares);
            for (tagging, share) in tagging.iter_mut().zip(shares.iter()) {
                tagging.absorb(&share[from..len.min(from + STRIDE)]);
            }
        }
        for (tag, tagging) in tags.iter_mut().zip(tagging) {
            *tag = tagging.finish(nonce);
        }
        Ok(())
    }

    /// The length of a share.
    fn check(&self, data: &[u8], shares: &[&mut [u8]]) -> Result<usize, CodecError> {
        let len = self.piece_len(data.len());
        if shares.len() != self.threshold.n() {
            return Err(CodecError::Count { expected: self.threshold.n(), actual: shares.len() });
        }
        if shares.iter().any(|share| share.len() != len) {
            return Err(CodecError::Lengths);
        }
        Ok(len)
    }

    /// Works on bytes `from..` of every share, at most [`STRIDE`] of the `len` there are.
    fn stride(&self, data: &[u8], len: usize, from: usize, shares: &mut [&mut [u8]]) {
        let range = from..len.min(from + STRIDE);
        let (pieces, computed) = shares.split_at_mut(self.threshold.k());
        let count = computed.len();
        let mut inputs: [&[u8]; MAX_SHARES as usize] = [&[]; MAX_SHARES as usize];
        for (place, (piece, input)) in pieces.iter_mut().zip(&mut inputs).enumerate() {
            let source = data.get(place * len + from..).unwrap_or_default();
            let piece = &mut piece[range.clone()];
            let (full, padding) = piece.split_at_mut(source.len().min(piece.len()));
            full.copy_from_slice(&source[..full.len()]);
            padding.fill(0);
            *input = piece;
        }
        let mut outputs: [&mut [u8]; MAX_SHARES as usize] = std::array::from_fn(|_| Default::default());
        for (share, output) in computed.iter_mut().zip(&mut outputs) {
            *output = &mut share[range.clone()];
        }
        self.kernel.apply(self.matrix.rows(0..count), &inputs[..self.threshold.k()], &mut outputs[..count]);
    }
}

/// Puts data together again from `k` shares at fixed points.
#[derive(Debug, Clone)]
pub struct Gatherer {
    /// For every piece, in order, which of the given shares it is.
    present: Vec<Option<usize>>,
    /// A row for every piece that is not among them.
    matrix: Matrix,
    kernel: Kernel,
}

impl Gatherer {
    /// From the shares at `points`, which must be `k` different ones, in the order in which the
    /// shares will be given.
    pub fn new(threshold: Threshold, points: &[ShareIndex]) -> Result<Gatherer, CodecError> {
        Gatherer::with_kernel(threshold, points, Kernel::best())
    }

    /// The same on a kernel of choice: for tests and benchmarks.
    pub fn with_kernel(
        threshold: Threshold,
        points: &[ShareIndex],
        kernel: Kernel,
    ) -> Result<Gatherer, CodecError> {
        let known = threshold.known(points)?;
        let pieces = 1..=threshold.k() as u8;
        let present: Vec<Option<usize>> =
            pieces.clone().map(|x| known.iter().position(|point| *point == x)).collect();
        let missing: Vec<u8> = pieces.filter(|x| !known.contains(x)).collect();
        Ok(Gatherer { present, matrix: Matrix::interpolating(&known, &missing), kernel })
    }

    /// Writes all of `data`, whose length the caller knows: every share has
    /// [`Disperser::piece_len`] of it. Pieces that are among the shares are copied, the others
    /// computed. Wrong shares give wrong data without notice: the caller checks tags.
    pub fn gather(&self, shares: &[&[u8]], data: &mut [u8]) -> Result<(), CodecError> {
        let k = self.present.len();
        let len = data.len().div_ceil(k);
        if shares.len() != k {
            return Err(CodecError::Count { expected: k, actual: shares.len() });
        }
        if shares.iter().any(|share| share.len() != len) {
            return Err(CodecError::Lengths);
        }
        if len == 0 {
            return Ok(());
        }
        // Padding may have taken the end of the last piece, or, of very short data, whole pieces.
        let mut computed: [&mut [u8]; MAX_SHARES as usize] = std::array::from_fn(|_| Default::default());
        let (mut whole, mut short) = (0, None);
        for (piece, present) in data.chunks_mut(len).zip(&self.present) {
            match present {
                Some(place) => piece.copy_from_slice(&shares[*place][..piece.len()]),
                None if piece.len() < len => short = Some(piece),
                None => {
                    computed[whole] = piece;
                    whole += 1;
                }
            }
        }
        self.kernel.apply(self.matrix.rows(0..whole), shares, &mut computed[..whole]);
        if let Some(piece) = short {
            let mut inputs: [&[u8]; MAX_SHARES as usize] = [&[]; MAX_SHARES as usize];
            for (input, share) in inputs.iter_mut().zip(shares) {
                *input = &share[..piece.len()];
            }
            self.kernel.apply(self.matrix.rows(whole..whole + 1), &inputs[..k], &mut [piece]);
        }
        Ok(())
    }
}
