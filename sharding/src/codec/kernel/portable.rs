//! Eight bytes in a 64-bit word, multiplied by shift and add. Which bits of the (public) constant
//! are set decides nothing but a mask, so that time depends on lengths alone.

use super::Matrix;

const LANES: u64 = 0x0101_0101_0101_0101;

/// From byte `from` on.
pub(super) fn apply(matrix: &Matrix, inputs: &[&[u8]], outputs: &mut [&mut [u8]], from: usize) {
    for (row, out) in matrix.rows().zip(outputs) {
        let len = out.len();
        let whole = from + (len - from) / 8 * 8;
        for at in (from..whole).step_by(8) {
            out[at..at + 8].copy_from_slice(&sum(row, inputs, at, 8).to_le_bytes());
        }
        if whole < len {
            out[whole..].copy_from_slice(&sum(row, inputs, whole, len - whole).to_le_bytes()[..len - whole]);
        }
    }
}

fn sum(row: &[u8], inputs: &[&[u8]], at: usize, len: usize) -> u64 {
    row.iter().zip(inputs).fold(0, |sum, (&constant, input)| {
        let mut word = [0; 8];
        word[..len].copy_from_slice(&input[at..at + len]);
        sum ^ mul(u64::from_le_bytes(word), constant)
    })
}

/// Every byte of `word` times `constant`.
fn mul(word: u64, constant: u8) -> u64 {
    let (mut word, mut product) = (word, 0);
    for bit in 0..8 {
        product ^= word & 0u64.wrapping_sub(u64::from(constant >> bit & 1));
        let over = (word >> 7) & LANES;
        word = ((word & !(LANES << 7)) << 1) ^ over.wrapping_mul(0x1b);
    }
    product
}
