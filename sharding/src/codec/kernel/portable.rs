//! Eight bytes in a 64-bit word, sixteen words at a time, multiplied by shift and add. Which bits
//! of the (public) constant are set decides nothing but a mask, so that time depends on lengths
//! alone; compilers turn the loops into whatever vectors the machine has.

use super::{GROUP, Rows};

const LANES: u64 = 0x0101_0101_0101_0101;
const WORDS: usize = 16;
const WIDTH: usize = 8 * WORDS;

/// From byte `from` on.
pub(super) fn apply(matrix: Rows<'_>, inputs: &[&[u8]], outputs: &mut [&mut [u8]], from: usize) {
    for (cells, outputs) in matrix.cells.chunks(GROUP * matrix.inputs).zip(outputs.chunks_mut(GROUP)) {
        let len = outputs[0].len();
        for at in (from..len).step_by(WIDTH) {
            let part = at..len.min(at + WIDTH);
            let mut sums = [[0; WORDS]; GROUP];
            for (column, input) in inputs.iter().enumerate() {
                add_products(cells, matrix.inputs, column, &input[part.clone()], &mut sums);
            }
            for (out, sum) in outputs.iter_mut().zip(&sums) {
                for (bytes, word) in out[part.clone()].chunks_mut(8).zip(sum) {
                    bytes.copy_from_slice(&word.to_le_bytes()[..bytes.len()]);
                }
            }
        }
    }
}

/// Adds to every sum the product of the input with the constant of its row.
fn add_products(cells: &[u8], columns: usize, column: usize, input: &[u8], sums: &mut [[u64; WORDS]; GROUP]) {
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(input.chunks(8)) {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_le_bytes(whole);
    }
    for bit in 0..8 {
        for (row, sum) in cells.chunks(columns).zip(sums.iter_mut()) {
            let mask = 0u64.wrapping_sub(u64::from(row[column] >> bit & 1));
            for (sum, word) in sum.iter_mut().zip(&words) {
                *sum ^= word & mask;
            }
        }
        for word in &mut words {
            let over = (*word >> 7) & LANES;
            // 0x1b times a word of ones and zeros, without a multiplier.
            let fold = over ^ (over << 1) ^ (over << 3) ^ (over << 4);
            *word = ((*word & !(LANES << 7)) << 1) ^ fold;
        }
    }
}
