//! 16 bytes at a time, as the kernel for AVX2: `tbl` looks up 16 entries *in a register*, so that
//! no address depends on data. Every processor of this architecture has it.

use std::arch::aarch64::*;

use super::{GROUP, Rows, nibbles};

const WIDTH: usize = 16;

/// Works on as many whole vectors as there are and returns where the rest begins.
pub(super) fn apply(matrix: Rows<'_>, inputs: &[&[u8]], outputs: &mut [&mut [u8]]) -> usize {
    let tables: Vec<[u8; 32]> = matrix.cells.iter().map(|&cell| nibbles(cell)).collect();
    for (tables, outputs) in tables.chunks(GROUP * matrix.inputs).zip(outputs.chunks_mut(GROUP)) {
        match outputs {
            [a, b, c, d] => rows(tables, inputs, [a, b, c, d]),
            [a, b, c] => rows(tables, inputs, [a, b, c]),
            [a, b] => rows(tables, inputs, [a, b]),
            [a] => rows(tables, inputs, [a]),
            _ => {}
        }
    }
    outputs.first().map_or(0, |out| out.len() / WIDTH * WIDTH)
}

fn rows<const N: usize>(tables: &[[u8; 32]], inputs: &[&[u8]], mut outputs: [&mut [u8]; N]) {
    let len = outputs.iter().map(|out| out.len()).min().unwrap_or(0);
    assert!(inputs.iter().all(|input| input.len() >= len) && tables.len() == N * inputs.len());
    for at in (0..len / WIDTH * WIDTH).step_by(WIDTH) {
        // SAFETY: NEON belongs to the architecture, here and below.
        let mut sums = unsafe { [vdupq_n_u8(0); N] };
        for (i, input) in inputs.iter().enumerate() {
            // SAFETY: `at + WIDTH <= len <= input.len()`.
            let bytes = unsafe { vld1q_u8(input.as_ptr().add(at)) };
            for (o, sum) in sums.iter_mut().enumerate() {
                let table = tables[o * inputs.len() + i].as_ptr();
                // SAFETY: a table has 32 bytes, two vectors of 16.
                *sum = unsafe {
                    let lower = vqtbl1q_u8(vld1q_u8(table), vandq_u8(bytes, vdupq_n_u8(0x0f)));
                    let upper = vqtbl1q_u8(vld1q_u8(table.add(16)), vshrq_n_u8::<4>(bytes));
                    veorq_u8(*sum, veorq_u8(lower, upper))
                };
            }
        }
        for (out, sum) in outputs.iter_mut().zip(sums) {
            // SAFETY: `at + WIDTH <= len <= out.len()`.
            unsafe { vst1q_u8(out.as_mut_ptr().add(at), sum) };
        }
    }
}
