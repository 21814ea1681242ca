//! Splitting, and combining what is larger than the caches, in one loop on AVX-512: nothing is kept
//! between drawing, multiplying and writing but registers.
//!
//! Shares larger than the caches are written past them. A line that is written whole that way need not
//! be fetched first, and drives nothing out. It is worth it only for whole lines (one that is written
//! in two halves goes to memory twice), only where memory bounds, and only if little else is stored
//! meanwhile, which would wait behind it. Smaller ones go through the caches, which are asked for each
//! line ahead, for writing: else every store waits for its line.

use std::arch::x86_64::*;

use super::cipher::vaes::{StreamCounters, Wide, ask, encipher};
use super::kernel::ask_to_write;

/// Bytes that go to memory at once.
const LINE: usize = 64;
/// Lines of every share that are worked on at once.
const LINES: usize = 4;
/// The bytes of those.
pub(super) const STEP: usize = LINES * LINE;
/// The largest number of drawn shares for which this is worth it: more do not stay in registers.
const MOST_DRAWN: usize = 4;

/// How many steps ahead memory is asked for what will be read.
const AHEAD: usize = 6;

type Step = [u8; STEP];
type Registers = [__m512i; LINES];

/// How far it is to the next line, if all of these are at the same place in theirs.
pub(super) fn to_next_line<'a>(mut buffers: impl Iterator<Item = &'a [u8]>) -> Option<usize> {
    let distance = |buffer: &[u8]| (buffer.as_ptr() as usize).wrapping_neg() % LINE;
    let first = distance(buffers.next()?);
    buffers.all(|buffer| distance(buffer) == first).then_some(first)
}

/// How many blocks of the random stream a step takes for so many drawn shares; `None` if they are
/// too many, or the machine cannot.
pub(super) fn blocks_per_step(drawn: usize) -> Option<u64> {
    let able = is_x86_feature_detected!("gfni") && (1..=MOST_DRAWN).contains(&drawn);
    able.then(|| (drawn.div_ceil(2) * 2 * STEP / 16) as u64)
}

/// Splits `secret` into whole steps of shares: draws the first from block `counter` of the stream on
/// and computes the others as the `cells` of the matrix say, whose rows have a cell for the secret and
/// one for every drawn share. If `far`, each share begins a line and is written past the caches.
pub(super) fn split(
    (wide, counter): (&Wide, u64),
    cells: &[u8],
    secret: &[Step],
    (drawn, computed): (&mut [&mut [Step]], &mut [&mut [Step]]),
    far: bool,
) {
    assert!(is_x86_feature_detected!("gfni") && cells.len() == computed.len() * (drawn.len() + 1));
    for share in drawn.iter().chain(computed.iter()) {
        assert!(share.len() == secret.len());
        assert!(!far || (share.as_ptr() as usize).is_multiple_of(LINE));
    }
    let shares = (drawn, computed);
    // SAFETY: GFNI is there, as asserted; `wide` exists, so that AES and AVX-512 are; every share has
    // as many steps as the secret and, if they are far, begins with a line.
    unsafe {
        match (shares.0.len(), far) {
            (1, false) => split_steps::<1, false>((wide, counter), cells, secret, shares),
            (2, false) => split_steps::<2, false>((wide, counter), cells, secret, shares),
            (3, false) => split_steps::<3, false>((wide, counter), cells, secret, shares),
            (4, false) => split_steps::<4, false>((wide, counter), cells, secret, shares),
            (1, true) => split_steps::<1, true>((wide, counter), cells, secret, shares),
            (2, true) => split_steps::<2, true>((wide, counter), cells, secret, shares),
            (3, true) => split_steps::<3, true>((wide, counter), cells, secret, shares),
            (4, true) => split_steps::<4, true>((wide, counter), cells, secret, shares),
            _ => unreachable!("blocks_per_step gave nothing"),
        }
        _mm_sfence();
    }
}

/// Every share has as many steps as the secret and, if they are `FAR`, begins with a line; `D` are drawn.
#[target_feature(enable = "avx512f,avx512bw,vaes,aes,vpclmulqdq,pclmulqdq,gfni")]
unsafe fn split_steps<const D: usize, const FAR: bool>(
    (wide, counter): (&Wide, u64),
    cells: &[u8],
    secret: &[Step],
    (drawn, computed): (&mut [&mut [Step]], &mut [&mut [Step]]),
) {
    let (keys, mut counters) = (wide.keys(), StreamCounters::from(counter));
    for (at, secret) in secret.iter().enumerate() {
        let mut random = [[_mm512_setzero_si512(); LINES]; D];
        for pair in random.chunks_mut(2) {
            let mut blocks = counters.blocks(keys[0]);
            encipher(&keys, &mut blocks, |_| {});
            for (random, blocks) in pair.iter_mut().zip(blocks.as_chunks().0) {
                *random = *blocks;
            }
        }
        ask(secret, AHEAD);
        let secret = load(secret);
        for (share, random) in drawn.iter_mut().zip(&random) {
            // SAFETY: the step is there, and begins with a line if it is far, as the caller says.
            unsafe { put::<FAR>(random, share.get_unchecked_mut(at)) };
        }
        for (share, row) in computed.iter_mut().zip(cells.chunks_exact(D + 1)) {
            let mut sums = multiply(&secret, row[0]);
            for (random, &cell) in random.iter().zip(&row[1..]) {
                add(&mut sums, multiply(random, cell));
            }
            // SAFETY: the step is there, and begins with a line if it is far, as the caller says.
            unsafe { put::<FAR>(&sums, share.get_unchecked_mut(at)) };
        }
    }
}

/// Whether [`combine`] can.
pub(super) fn combines() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("gfni")
}

/// Writes the sum of the inputs, each times its cell, to `out`, which begins a line.
pub(super) fn combine(cells: &[u8], inputs: &[&[Step]], out: &mut [Step]) {
    assert!(combines() && cells.len() == inputs.len() && (out.as_ptr() as usize).is_multiple_of(LINE));
    assert!(inputs.iter().all(|input| input.len() == out.len()));
    // SAFETY: AVX-512F and GFNI are there, and the output begins with a line, as asserted.
    unsafe {
        combine_steps(cells, inputs, out);
        _mm_sfence();
    }
}

/// `out` begins with a line.
#[target_feature(enable = "avx512f,gfni")]
unsafe fn combine_steps(cells: &[u8], inputs: &[&[Step]], out: &mut [Step]) {
    for (at, out) in out.iter_mut().enumerate() {
        let mut sums = [_mm512_setzero_si512(); LINES];
        for (input, &cell) in inputs.iter().zip(cells) {
            ask(&input[at], AHEAD);
            add(&mut sums, multiply(&load(&input[at]), cell));
        }
        // SAFETY: the step is there and begins with a line, as the caller says.
        unsafe { send(&sums, out) };
    }
}

/// Whether [`copy`] can.
pub(super) fn copies() -> bool {
    is_x86_feature_detected!("avx512f")
}

/// Copies the first of each pair to the second, which is as long: whole lines past the caches, what
/// there is of others through them.
pub(super) fn copy<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a mut [u8])>) {
    assert!(copies());
    for (from, to) in pairs {
        assert!(from.len() == to.len());
        let start = from.len().min(to_next_line([&*to].into_iter()).unwrap_or(0));
        let ((from_start, from), (to_start, to)) = (from.split_at(start), to.split_at_mut(start));
        let ((from_steps, from_rest), (to_steps, to_rest)) = (from.as_chunks(), to.as_chunks_mut());
        to_start.copy_from_slice(from_start);
        to_rest.copy_from_slice(from_rest);
        // SAFETY: AVX-512F is there, as asserted, and the steps of `to` begin with a line.
        unsafe { copy_steps(from_steps, to_steps) };
    }
    // SAFETY: SSE belongs to the architecture. One fence is enough: what was written is lent to this
    // function until it ends.
    unsafe { _mm_sfence() };
}

/// The steps of `to` begin with a line.
#[target_feature(enable = "avx512f")]
unsafe fn copy_steps(from: &[Step], to: &mut [Step]) {
    for (from, to) in from.iter().zip(to) {
        // SAFETY: the step is there and begins with a line, as the caller says.
        unsafe { send(&load(from), to) };
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add(sums: &mut Registers, terms: Registers) {
    for (sum, term) in sums.iter_mut().zip(terms) {
        *sum = _mm512_xor_si512(*sum, term);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(step: &Step) -> Registers {
    let (lines, _) = step.as_chunks::<LINE>();
    // SAFETY: 64 bytes are there; unaligned loads are allowed.
    std::array::from_fn(|at| unsafe { _mm512_loadu_si512(lines[at].as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx512f,gfni")]
fn multiply(lines: &Registers, constant: u8) -> Registers {
    let constant = _mm512_set1_epi8(constant as i8);
    lines.map(|line| _mm512_gf2p8mul_epi8(line, constant))
}

/// If it is `FAR`, `to` begins with a line.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn put<const FAR: bool>(lines: &Registers, to: &mut Step) {
    if FAR {
        // SAFETY: it begins with a line, as the caller says.
        unsafe { send(lines, to) };
        return;
    }
    for (line, to) in lines.iter().zip(to.as_chunks_mut::<LINE>().0) {
        ask_to_write(to);
        // SAFETY: 64 bytes are there; unaligned stores are allowed.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), *line) };
    }
}

/// `to` begins with a line. Who sends fences before anybody else may look.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn send(lines: &Registers, to: &mut Step) {
    for (line, to) in lines.iter().zip(to.as_chunks_mut::<LINE>().0) {
        // SAFETY: 64 bytes are there, aligned, as the caller says.
        unsafe { _mm512_stream_si512(to.as_mut_ptr().cast(), *line) };
    }
}
