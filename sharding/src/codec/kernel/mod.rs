//! The one hot operation, `out[o] = Σ matrix[o][i] · in[i]` over byte slices, once per kind of
//! machine.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod gfni;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use std::ops::Range;

use super::field;

/// Outputs that the vector kernels compute in one pass over the inputs.
const GROUP: usize = 4;

/// Which instructions multiply. All give the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Gfni,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Kernel {
    /// 64-bit words, on any machine.
    pub const PORTABLE: Kernel = Kernel(Kind::Portable);

    /// The fastest of [`Kernel::available`].
    pub fn best() -> Kernel {
        Kernel::choices().last().unwrap_or(Kernel::PORTABLE)
    }

    /// Every kernel that this machine can run.
    pub fn available() -> Vec<Kernel> {
        Kernel::choices().collect()
    }

    /// The fastest last.
    fn choices() -> impl Iterator<Item = Kernel> {
        let kinds = [
            Some(Kind::Portable),
            #[cfg(target_arch = "x86_64")]
            avx2::available().then_some(Kind::Avx2),
            #[cfg(target_arch = "x86_64")]
            gfni::available().then_some(Kind::Gfni),
            #[cfg(target_arch = "aarch64")]
            Some(Kind::Neon),
        ];
        kinds.into_iter().flatten().map(Kernel)
    }

    /// A short name for tables.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Gfni => "avx512+gfni",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
        }
    }

    /// Every slice has the same length, and there are as many as the rows have columns and as there are rows.
    pub(super) fn apply(self, rows: Rows<'_>, inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
        let Some(len) = outputs.first().map(|out| out.len()) else { return };
        assert!(inputs.len() == rows.inputs && outputs.len() * rows.inputs == rows.cells.len());
        assert!(inputs.iter().all(|s| s.len() == len) && outputs.iter().all(|s| s.len() == len));
        let done = match self.0 {
            Kind::Portable => 0,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => avx2::apply(rows, inputs, outputs),
            #[cfg(target_arch = "x86_64")]
            Kind::Gfni => return gfni::apply(rows, inputs, outputs),
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => neon::apply(rows, inputs, outputs),
        };
        portable::apply(rows, inputs, outputs, done);
    }
}

/// Asks the first cache for the line some way ahead of `line`, to be written: else a store waits until
/// it has come, and those after it too, which costs more than all the multiplications.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "sse")]
pub(super) fn ask_to_write(line: &[u8]) {
    use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
    const AHEAD: usize = 1024;
    _mm_prefetch::<_MM_HINT_ET0>(line.as_ptr().wrapping_add(AHEAD).cast());
}

/// Public constants: a row per output, a column per input.
#[derive(Debug, Clone)]
pub(super) struct Matrix {
    inputs: usize,
    cells: Vec<u8>,
}

impl Matrix {
    /// Takes values at the `known` points to values at the `wanted` ones.
    pub(super) fn interpolating(known: &[u8], wanted: &[u8]) -> Matrix {
        let cells = wanted.iter().flat_map(|&at| field::weights(known, at)).collect();
        Matrix { inputs: known.len(), cells }
    }

    /// Some of its rows, in order.
    pub(super) fn rows(&self, range: Range<usize>) -> Rows<'_> {
        let Range { start, end } = range;
        Rows { inputs: self.inputs, cells: &self.cells[start * self.inputs..end * self.inputs] }
    }

    /// How many inputs there are.
    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }
}

/// Rows of a [`Matrix`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    inputs: usize,
    cells: &'a [u8],
}

#[cfg(target_arch = "x86_64")]
impl<'a> Rows<'a> {
    /// A cell for every input, row by row.
    pub(super) fn cells(self) -> &'a [u8] {
        self.cells
    }
}

/// For kernels that look products up in registers: the products of `constant` with every low and with every high nibble.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn nibbles(constant: u8) -> [u8; 32] {
    std::array::from_fn(|at| {
        let nibble = (at % 16) as u8;
        field::mul(constant, if at < 16 { nibble } else { nibble << 4 })
    })
}
