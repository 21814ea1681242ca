//! The erasure code of mode `compact`: systematic Reed–Solomon by interpolation.
//!
//! Data is cut into `k` pieces of the same length, the last of them padded with zeros. Byte by
//! byte the pieces are the values at `1..=k` of a polynomial of degree `k − 1`; share `x` is its
//! value at `x`, so that the first `k` shares *are* the pieces.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::fused;
use super::kernel::{Kernel, Matrix};
use super::mac::Mac;
use super::share::{FAR, STRIDE};
use super::{CodecError, MAX_SHARES, NONCE_LEN, Sealer, ShareIndex, TAG_LEN, Threshold};

/// Bytes of a line of the caches, about which machines mostly agree.
const LINE: usize = 64;

/// Spreads data over `n` shares of a `k`-th of its length each.
#[derive(Debug, Clone)]
pub struct Disperser {
    threshold: Threshold,
    matrix: Matrix,
    kernel: Kernel,
    /// From how many bytes of shares on a run of blocks is written past the caches.
    far: usize,
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
        Disperser { threshold, matrix: Matrix::interpolating(&known, &wanted), kernel, far: FAR }
    }

    /// The same with runs that are already large with so many bytes of shares.
    #[cfg(test)]
    pub(super) fn far_from(self, far: usize) -> Disperser {
        Disperser { far, ..self }
    }

    /// Whether so many bytes of shares, made by one call, are written past the caches.
    pub(super) fn writes_past_caches(&self, bytes: usize) -> bool {
        bytes >= self.far && can_write_far(self.kernel)
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

    /// Seals the blocks of `data`, each of `block` bytes and the last perhaps shorter, spreads what
    /// comes of each over `shares`, block after block, and tags it. `tags` gets a row for every block:
    /// its own tag under `sealer`, then that of each share under `macs`. All of a block is done while
    /// it is in the caches.
    ///
    /// `nonces` gives each block its own. **No key may meet a nonce twice** (see [`Sealer`] and
    /// [`Mac`]).
    pub fn seal_and_disperse(
        &self,
        (sealer, macs): (&Sealer, &[Mac]),
        nonces: impl Fn(usize) -> [u8; NONCE_LEN],
        (data, block): (&[u8], usize),
        shares: &mut [&mut [u8]],
        tags: &mut [[u8; TAG_LEN]],
    ) -> Result<(), CodecError> {
        let n = self.threshold.n();
        let len: usize = data.chunks(block).map(|plain| self.piece_len(plain.len())).sum();
        let rows = data.len().div_ceil(block) * (n + 1);
        self.threshold.check_one_each([macs.len(), shares.len()])?;
        if tags.len() != rows {
            return Err(CodecError::Count { expected: rows, actual: tags.len() });
        }
        if shares.iter().any(|share| share.len() != len) {
            return Err(CodecError::Lengths);
        }
        let mut sealed = vec![0; block.min(data.len())];
        let far = self.writes_past_caches(n * len);
        let mut desk = Desk::new(shares, self.piece_len(sealed.len()), far);
        let mut from = 0;
        for ((at, plain), row) in data.chunks(block).enumerate().zip(tags.chunks_exact_mut(n + 1)) {
            let Some((own, tags)) = row.split_first_mut() else { break };
            let (nonce, sealed) = (nonces(at), &mut sealed[..plain.len()]);
            *own = sealer.seal(&nonce, plain, sealed);
            let range = from..from + self.piece_len(plain.len());
            let mut parts = desk.parts(&range);
            self.disperse(sealed, &mut parts)?;
            for ((tag, mac), part) in tags.iter_mut().zip(macs).zip(&parts) {
                *tag = mac.tag(&nonce, part);
            }
            desk.clear(&range);
            from = range.end;
        }
        Ok(())
    }

    /// The length of a share.
    fn check(&self, data: &[u8], shares: &[&mut [u8]]) -> Result<usize, CodecError> {
        let len = self.piece_len(data.len());
        self.threshold.check_one_each([shares.len()])?;
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

/// Where the shares of one block lie until they are tagged: in their places, or, if those are to be
/// written past the caches, in the cache.
struct Desk<'a, 'b> {
    shares: &'a mut [&'b mut [u8]],
    /// The parts of all shares one after the other; empty if they lie in their places.
    near: Vec<u8>,
    /// From one part to the next.
    width: usize,
}

impl<'a, 'b> Desk<'a, 'b> {
    fn new(shares: &'a mut [&'b mut [u8]], piece: usize, far: bool) -> Desk<'a, 'b> {
        let width = piece.next_multiple_of(LINE);
        let near = if far { vec![0; width * shares.len()] } else { Vec::new() };
        Desk { shares, near, width }
    }

    fn parts(&mut self, range: &Range<usize>) -> Vec<&mut [u8]> {
        if self.near.is_empty() {
            self.shares.iter_mut().map(|share| &mut share[range.clone()]).collect()
        } else {
            self.near.chunks_mut(self.width).map(|part| &mut part[..range.len()]).collect()
        }
    }

    /// Puts everything in its place.
    fn clear(&mut self, range: &Range<usize>) {
        let parts = self.near.chunks(self.width).map(|part| &part[..range.len()]);
        write_far(parts.zip(self.shares.iter_mut().map(|share| &mut share[range.clone()])));
    }
}

#[cfg(target_arch = "x86_64")]
fn can_write_far(kernel: Kernel) -> bool {
    kernel == Kernel::best() && fused::copies()
}

#[cfg(target_arch = "x86_64")]
use fused::copy as write_far;

#[cfg(not(target_arch = "x86_64"))]
fn can_write_far(_: Kernel) -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn write_far<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a mut [u8])>) {
    pairs.for_each(|(from, to)| to.copy_from_slice(from));
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
