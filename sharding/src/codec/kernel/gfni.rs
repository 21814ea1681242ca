//! 64 bytes at a time with `vgf2p8mulb`, which multiplies in this very field. The last, partial
//! vector is loaded and stored under a mask.

use std::arch::x86_64::*;

use super::{GROUP, Rows, ask_to_write};

const WIDTH: usize = 64;
/// How far ahead the first cache is asked for what will be read, in bytes.
const AHEAD: usize = 768;

pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("gfni")
}

pub(super) fn apply(matrix: Rows<'_>, inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
    assert!(available());
    for (cells, outputs) in matrix.cells.chunks(GROUP * matrix.inputs).zip(outputs.chunks_mut(GROUP)) {
        // SAFETY: AVX-512F, AVX-512BW and GFNI are there, as asserted above.
        unsafe {
            match outputs {
                [a, b, c, d] => rows(cells, inputs, [a, b, c, d]),
                [a, b, c] => rows(cells, inputs, [a, b, c]),
                [a, b] => rows(cells, inputs, [a, b]),
                [a] => rows(cells, inputs, [a]),
                _ => {}
            }
        }
    }
}

/// Small thresholds get a loop of their own, whose constants stay in registers.
#[target_feature(enable = "avx512f,avx512bw,gfni")]
fn rows<const N: usize>(cells: &[u8], inputs: &[&[u8]], outputs: [&mut [u8]; N]) {
    match *inputs {
        [a, b] => fixed(cells, [a, b], outputs),
        [a, b, c] => fixed(cells, [a, b, c], outputs),
        [a, b, c, d] => fixed(cells, [a, b, c, d], outputs),
        [a, b, c, d, e] => fixed(cells, [a, b, c, d, e], outputs),
        _ => any(cells, inputs, outputs),
    }
}

#[target_feature(enable = "avx512f,avx512bw,gfni")]
fn fixed<const K: usize, const N: usize>(cells: &[u8], inputs: [&[u8]; K], mut outputs: [&mut [u8]; N]) {
    let len = outputs.iter().map(|out| out.len()).min().unwrap_or(0);
    assert!(inputs.iter().all(|input| input.len() >= len) && cells.len() == N * K);
    let constants: [[__m512i; K]; N] =
        std::array::from_fn(|o| std::array::from_fn(|i| _mm512_set1_epi8(cells[o * K + i] as i8)));
    let mut at = 0;
    while at + WIDTH <= len {
        for input in inputs {
            _mm_prefetch::<_MM_HINT_T0>(input.as_ptr().wrapping_add(at + AHEAD).cast());
        }
        // SAFETY: `at + WIDTH <= len <= input.len()`; unaligned loads are allowed.
        let bytes: [__m512i; K] =
            std::array::from_fn(|i| unsafe { _mm512_loadu_si512(inputs[i].as_ptr().add(at).cast()) });
        for (out, row) in outputs.iter_mut().zip(&constants) {
            let sum = bytes.iter().zip(row).fold(_mm512_setzero_si512(), |sum, (&bytes, &constant)| {
                _mm512_xor_si512(sum, _mm512_gf2p8mul_epi8(bytes, constant))
            });
            ask_to_write(&out[at..]);
            // SAFETY: `at + WIDTH <= len <= out.len()`.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().add(at).cast(), sum) };
        }
        at += WIDTH;
    }
    if at < len {
        let rest = (1u64 << (len - at)) - 1;
        for (out, row) in outputs.iter_mut().zip(&constants) {
            let mut sum = _mm512_setzero_si512();
            for (input, &constant) in inputs.iter().zip(row) {
                // SAFETY: the mask admits `len - at` bytes, which lie inside `input`.
                let bytes = unsafe { _mm512_maskz_loadu_epi8(rest, input.as_ptr().add(at).cast()) };
                sum = _mm512_xor_si512(sum, _mm512_gf2p8mul_epi8(bytes, constant));
            }
            // SAFETY: the mask admits `len - at` bytes, which lie inside `out`.
            unsafe { _mm512_mask_storeu_epi8(out.as_mut_ptr().add(at).cast(), rest, sum) };
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,gfni")]
fn any<const N: usize>(cells: &[u8], inputs: &[&[u8]], mut outputs: [&mut [u8]; N]) {
    let len = outputs.iter().map(|out| out.len()).min().unwrap_or(0);
    assert!(inputs.iter().all(|input| input.len() >= len) && cells.len() == N * inputs.len());
    let mut at = 0;
    while at < len {
        let here = if len - at >= WIDTH { u64::MAX } else { (1 << (len - at)) - 1 };
        let mut sums = [_mm512_setzero_si512(); N];
        for (i, input) in inputs.iter().enumerate() {
            // SAFETY: the mask admits at most `len - at` bytes, which lie inside `input`.
            let bytes = unsafe { _mm512_maskz_loadu_epi8(here, input.as_ptr().add(at).cast()) };
            for (o, sum) in sums.iter_mut().enumerate() {
                let constant = _mm512_set1_epi8(cells[o * inputs.len() + i] as i8);
                *sum = _mm512_xor_si512(*sum, _mm512_gf2p8mul_epi8(bytes, constant));
            }
        }
        for (out, sum) in outputs.iter_mut().zip(sums) {
            // SAFETY: the mask admits at most `len - at` bytes, which lie inside `out`.
            unsafe { _mm512_mask_storeu_epi8(out.as_mut_ptr().add(at).cast(), here, sum) };
        }
        at += WIDTH;
    }
}
