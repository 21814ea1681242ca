//! 32 bytes at a time: a product by a constant is two look-ups of 16 entries by nibble, and the
//! tables are *in registers* (`vpshufb`), so that no address depends on data.

use std::arch::x86_64::*;

use super::{GROUP, Rows, nibbles};

const WIDTH: usize = 32;

pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx2")
}

/// Works on as many whole vectors as there are and returns where the rest begins.
pub(super) fn apply(matrix: Rows<'_>, inputs: &[&[u8]], outputs: &mut [&mut [u8]]) -> usize {
    assert!(available());
    let tables: Vec<[u8; 32]> = matrix.cells.iter().map(|&cell| nibbles(cell)).collect();
    for (tables, outputs) in tables.chunks(GROUP * matrix.inputs).zip(outputs.chunks_mut(GROUP)) {
        // SAFETY: AVX2 is there, as asserted above.
        unsafe {
            match outputs {
                [a, b, c, d] => rows(tables, inputs, [a, b, c, d]),
                [a, b, c] => rows(tables, inputs, [a, b, c]),
                [a, b] => rows(tables, inputs, [a, b]),
                [a] => rows(tables, inputs, [a]),
                _ => {}
            }
        }
    }
    outputs.first().map_or(0, |out| out.len() / WIDTH * WIDTH)
}

#[target_feature(enable = "avx2")]
fn rows<const N: usize>(tables: &[[u8; 32]], inputs: &[&[u8]], mut outputs: [&mut [u8]; N]) {
    let len = outputs.iter().map(|out| out.len()).min().unwrap_or(0);
    assert!(inputs.iter().all(|input| input.len() >= len) && tables.len() == N * inputs.len());
    let low = _mm256_set1_epi8(0x0f);
    let mut at = 0;
    while at + WIDTH <= len {
        let mut sums = [_mm256_setzero_si256(); N];
        for (i, input) in inputs.iter().enumerate() {
            // SAFETY: `at + WIDTH <= len <= input.len()`; unaligned loads are allowed.
            let bytes = unsafe { _mm256_loadu_si256(input.as_ptr().add(at).cast()) };
            let (lower, upper) =
                (_mm256_and_si256(bytes, low), _mm256_and_si256(_mm256_srli_epi64::<4>(bytes), low));
            for (o, sum) in sums.iter_mut().enumerate() {
                let table: *const __m128i = tables[o * inputs.len() + i].as_ptr().cast();
                // SAFETY: a table has 32 bytes, two vectors of 16; unaligned loads are allowed.
                let (for_lower, for_upper) = unsafe {
                    (
                        _mm256_broadcastsi128_si256(_mm_loadu_si128(table)),
                        _mm256_broadcastsi128_si256(_mm_loadu_si128(table.add(1))),
                    )
                };
                let product = _mm256_xor_si256(
                    _mm256_shuffle_epi8(for_lower, lower),
                    _mm256_shuffle_epi8(for_upper, upper),
                );
                *sum = _mm256_xor_si256(*sum, product);
            }
        }
        for (out, sum) in outputs.iter_mut().zip(sums) {
            // SAFETY: `at + WIDTH <= len <= out.len()`.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().add(at).cast(), sum) };
        }
        at += WIDTH;
    }
}
