//! Shamir's scheme: splitting, combining and rebuilding a lost share.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::fused;
use super::ghash::Backlog;
use super::kernel::{Kernel, Matrix};
use super::mac::Mac;
use super::{CodecError, MAX_SHARES, NONCE_LEN, RandomStream, ShareIndex, TAG_LEN, Threshold};

/// How many bytes of every share are worked on at once, so that all of them stay in the first
/// cache. Large enough that set-up is nothing, small enough for 32 shares to stay in the second.
pub(super) const STRIDE: usize = 4096;

/// From this many bytes on, what is written will have left the caches before anybody reads it: about
/// what one core can hope for of the last of them. It is asked of each call: the shares of an extent
/// of a deposit, of which several are under way, are read soon by whoever stores them, and past the
/// caches they took a quarter more time.
pub(super) const FAR: usize = 24 << 20;

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
        let (k, n) = (threshold.k() as u8, threshold.n() as u8);
        let known: Vec<u8> = (0..k).collect();
        let wanted: Vec<u8> = (k..=n).collect();
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
        self.check(secret, shares)?;
        let done = self.split_fused(secret, random, shares);
        for part in strides(0..done.start).chain(strides(done.end..secret.len())) {
            self.draw(part.clone(), random, shares);
            self.compute(&secret[part.clone()], part, shares);
        }
        Ok(())
    }

    /// Splits what there is of whole steps without keeping anything in between, if this machine can;
    /// returns which part that was.
    #[cfg(target_arch = "x86_64")]
    fn split_fused(
        &self,
        secret: &[u8],
        random: &mut RandomStream,
        shares: &mut [&mut [u8]],
    ) -> Range<usize> {
        let drawn = self.threshold.k() - 1;
        let per_step = fused::blocks_per_step(drawn).filter(|_| self.kernel == Kernel::best());
        let Some(per_step) = per_step else { return 0..0 };
        let large = secret.len() * shares.len() >= FAR;
        let line = fused::to_next_line(shares.iter().map(|share| &**share)).filter(|_| large);
        let start = line.unwrap_or(0);
        let (steps, _) = secret[start..].as_chunks();
        let Some(wide) = random.take_wide(per_step * steps.len() as u64) else { return 0..0 };
        let mut parts: [&mut [[u8; fused::STEP]]; MAX_SHARES as usize] =
            std::array::from_fn(|_| Default::default());
        for (share, part) in shares.iter_mut().zip(&mut parts) {
            *part = share[start..].as_chunks_mut().0;
        }
        let parts = parts[..self.threshold.n()].split_at_mut(drawn);
        fused::split(wide, self.matrix.rows(0..parts.1.len()).cells(), steps, parts, line.is_some());
        start..start + steps.len() * fused::STEP
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn split_fused(&self, _: &[u8], _: &mut RandomStream, _: &mut [&mut [u8]]) -> Range<usize> {
        0..0
    }

    /// As [`Splitter::split`], and writes the tag of share `x` under `macs[x − 1]` and `nonce` to
    /// `tags[x − 1]`, which costs less than tagging afterwards: the shares are still in the first
    /// cache. No key may meet a nonce twice (see [`Mac`]).
    pub fn split_and_tag(
        &self,
        secret: &[u8],
        random: &mut RandomStream,
        shares: &mut [&mut [u8]],
        macs: &[Mac],
        nonce: &[u8; NONCE_LEN],
        tags: &mut [[u8; TAG_LEN]],
    ) -> Result<(), CodecError> {
        self.check(secret, shares)?;
        self.threshold.check_one_each([macs.len(), tags.len()])?;
        let mut tagging: Vec<_> = macs.iter().map(Mac::begin).collect();
        let mut strides = strides(0..secret.len()).peekable();
        if let Some(first) = strides.peek() {
            self.draw(first.clone(), random, shares);
        }
        while let Some(here) = strides.next() {
            self.compute(&secret[here.clone()], here.clone(), shares);
            // The random shares of the next stride are drawn while all of this one are tagged.
            match strides.peek() {
                Some(next) => {
                    let mut backlog = Backlog::new();
                    let mut after =
                        std::array::from_fn::<&mut [u8], { MAX_SHARES as usize }, _>(|_| Default::default());
                    let parts = shares.iter_mut().zip(&mut tagging).zip(&mut after);
                    for ((share, tagging), after) in parts {
                        let (before, rest) = share.split_at_mut(here.end);
                        tagging.absorb_later(&before[here.clone()], &mut backlog);
                        *after = rest;
                    }
                    for share in &mut after[..self.threshold.k() - 1] {
                        random.fill_meanwhile(&mut share[..next.len()], Some(&mut backlog));
                    }
                    backlog.finish();
                }
                None => {
                    for (tagging, share) in tagging.iter_mut().zip(shares.iter()) {
                        tagging.absorb(&share[here.clone()]);
                    }
                }
            }
        }
        for (tag, tagging) in tags.iter_mut().zip(tagging) {
            *tag = tagging.finish(nonce);
        }
        Ok(())
    }

    fn check(&self, secret: &[u8], shares: &[&mut [u8]]) -> Result<(), CodecError> {
        self.threshold.check_one_each([shares.len()])?;
        if shares.iter().any(|share| share.len() != secret.len()) {
            return Err(CodecError::Lengths);
        }
        Ok(())
    }

    /// The random shares of a part.
    fn draw(&self, part: Range<usize>, random: &mut RandomStream, shares: &mut [&mut [u8]]) {
        for share in &mut shares[..self.threshold.k() - 1] {
            random.fill(&mut share[part.clone()]);
        }
    }

    /// The others of that part, which is `secret`.
    fn compute(&self, secret: &[u8], part: Range<usize>, shares: &mut [&mut [u8]]) {
        let (drawn, computed) = shares.split_at_mut(self.threshold.k() - 1);
        let count = computed.len();
        let mut inputs: [&[u8]; MAX_SHARES as usize] = [&[]; MAX_SHARES as usize];
        inputs[0] = secret;
        for (share, input) in drawn.iter().zip(&mut inputs[1..]) {
            *input = &share[part.clone()];
        }
        let mut outputs: [&mut [u8]; MAX_SHARES as usize] = std::array::from_fn(|_| Default::default());
        for (share, output) in computed.iter_mut().zip(&mut outputs) {
            *output = &mut share[part.clone()];
        }
        self.kernel.apply(self.matrix.rows(0..count), &inputs[..self.threshold.k()], &mut outputs[..count]);
    }
}

fn strides(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(STRIDE).map(move |from| from..end.min(from + STRIDE))
}

/// Rebuilds secrets from `k` shares at fixed points.
#[derive(Debug, Clone)]
pub struct Combiner(Interpolator);

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
        Interpolator::new(threshold, points, 0, kernel).map(Combiner)
    }

    /// Writes the secret to `secret`; every share must be as long. Wrong shares give a wrong
    /// secret without notice: the caller checks tags.
    pub fn combine(&self, shares: &[&[u8]], secret: &mut [u8]) -> Result<(), CodecError> {
        self.0.apply(shares, secret)
    }
}

/// Rebuilds one lost share from `k` others at fixed points: of [`Splitter`]'s shares as of
/// [`Disperser`](super::Disperser)'s. The secret is computed nowhere; but whoever holds `k` shares
/// of a split secret could compute it, so that those are rebuilt only where it may be read.
#[derive(Debug, Clone)]
pub struct Rebuilder(Interpolator);

impl Rebuilder {
    /// Share `wanted` from the shares at `points`: `k` different ones, without `wanted`, in the
    /// order in which the shares will be given.
    pub fn new(
        threshold: Threshold,
        points: &[ShareIndex],
        wanted: ShareIndex,
    ) -> Result<Rebuilder, CodecError> {
        Rebuilder::with_kernel(threshold, points, wanted, Kernel::best())
    }

    /// The same on a kernel of choice: for tests and benchmarks.
    pub fn with_kernel(
        threshold: Threshold,
        points: &[ShareIndex],
        wanted: ShareIndex,
        kernel: Kernel,
    ) -> Result<Rebuilder, CodecError> {
        if usize::from(wanted.x()) > threshold.n() {
            return Err(CodecError::Index(wanted.x()));
        }
        if points.contains(&wanted) {
            return Err(CodecError::Repeated(wanted));
        }
        Interpolator::new(threshold, points, wanted.x(), kernel).map(Rebuilder)
    }

    /// Writes the lost share to `share`; every given share must be as long. Wrong shares give a
    /// wrong one without notice: the caller checks tags.
    pub fn rebuild(&self, shares: &[&[u8]], share: &mut [u8]) -> Result<(), CodecError> {
        self.0.apply(shares, share)
    }
}

/// The value at one point from those at `k` others.
#[derive(Debug, Clone)]
struct Interpolator {
    matrix: Matrix,
    kernel: Kernel,
}

impl Interpolator {
    fn new(
        threshold: Threshold,
        points: &[ShareIndex],
        wanted: u8,
        kernel: Kernel,
    ) -> Result<Interpolator, CodecError> {
        let known = threshold.known(points)?;
        Ok(Interpolator { matrix: Matrix::interpolating(&known, &[wanted]), kernel })
    }

    fn apply(&self, shares: &[&[u8]], out: &mut [u8]) -> Result<(), CodecError> {
        if shares.len() != self.matrix.inputs() {
            return Err(CodecError::Count { expected: self.matrix.inputs(), actual: shares.len() });
        }
        if shares.iter().any(|share| share.len() != out.len()) {
            return Err(CodecError::Lengths);
        }
        let far = self.apply_far(shares, out);
        for part in [0..far.start, far.end..out.len()] {
            let mut inputs: [&[u8]; MAX_SHARES as usize] = [&[]; MAX_SHARES as usize];
            for (input, share) in inputs.iter_mut().zip(shares) {
                *input = &share[part.clone()];
            }
            self.kernel.apply(self.matrix.rows(0..1), &inputs[..shares.len()], &mut [&mut out[part]]);
        }
        Ok(())
    }

    /// Computes what there is of whole lines past the caches, if it is larger than those and this
    /// machine can; returns which part that was.
    #[cfg(target_arch = "x86_64")]
    fn apply_far(&self, shares: &[&[u8]], out: &mut [u8]) -> Range<usize> {
        if out.len() < FAR || !fused::combines() || self.kernel != Kernel::best() {
            return 0..0;
        }
        let Some(start) = fused::to_next_line(std::iter::once(&*out)) else { return 0..0 };
        let mut inputs: [&[[u8; fused::STEP]]; MAX_SHARES as usize] = [&[]; MAX_SHARES as usize];
        for (input, share) in inputs.iter_mut().zip(shares) {
            *input = share[start..].as_chunks().0;
        }
        let (steps, _) = out[start..].as_chunks_mut();
        fused::combine(self.matrix.rows(0..1).cells(), &inputs[..shares.len()], steps);
        start..start + steps.len() * fused::STEP
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn apply_far(&self, _: &[&[u8]], _: &mut [u8]) -> Range<usize> {
        0..0
    }
}
