//! Four blocks at a time with `vpclmulqdq` on 512 bits, as many blocks as there are powers summed
//! up before they are reduced: the reduction then costs next to nothing.

use std::arch::x86_64::*;

use super::clmul::{fold, vector, word};
use super::{BLOCK, POWERS, Powers};

const WIDTH: usize = 64;
const LANES: usize = WIDTH / BLOCK;

pub(super) fn available() -> bool {
    super::clmul::available()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("vpclmulqdq")
}

pub(super) fn absorb(powers: &Powers, state: u128, data: &[u8]) -> u128 {
    assert!(available());
    // SAFETY: AVX-512F, AVX-512BW, VPCLMULQDQ and PCLMULQDQ are there, as asserted above.
    unsafe { absorb_all(powers, state, data) }
}

#[target_feature(enable = "avx512f,avx512bw,vpclmulqdq,pclmulqdq")]
fn absorb_all(powers: &Powers, state: u128, data: &[u8]) -> u128 {
    let mut state = _mm512_zextsi128_si512(vector(state));
    let (groups, rest) = data.as_chunks::<{ POWERS * BLOCK }>();
    for group in groups {
        let mut sum = Sum::zero();
        // The first vector last: it waits for the group before.
        for at in (0..POWERS).step_by(LANES).rev() {
            // SAFETY: `at + LANES <= POWERS`, and a group has as many blocks as there are powers;
            // unaligned loads are allowed.
            let (blocks, keys) = unsafe {
                let blocks = _mm512_loadu_si512(group.as_ptr().add(at * BLOCK).cast());
                (turned(blocks), _mm512_loadu_si512(powers.as_ptr().add(at).cast()))
            };
            sum.add(if at == 0 { _mm512_xor_si512(blocks, state) } else { blocks }, keys);
        }
        state = sum.reduced();
    }
    if !rest.is_empty() {
        let keys = &powers[POWERS - rest.len().div_ceil(BLOCK)..];
        let mut sum = Sum::zero();
        for (bytes, keys) in rest.chunks(WIDTH).zip(keys.chunks(LANES)) {
            // SAFETY: the masks admit as many bytes and halves of keys as there are.
            let (blocks, keys) = unsafe {
                let blocks =
                    _mm512_maskz_loadu_epi8(u64::MAX >> (WIDTH - bytes.len()), bytes.as_ptr().cast());
                let halves = u8::MAX >> (8 - 2 * keys.len());
                (turned(blocks), _mm512_maskz_loadu_epi64(halves, keys.as_ptr().cast()))
            };
            sum.add(_mm512_xor_si512(blocks, state), keys);
            state = _mm512_setzero_si512();
        }
        state = sum.reduced();
    }
    word(_mm512_castsi512_si128(state))
}

/// Sums of products of 256 bits in four lanes: the low halves, the high halves, and what lies
/// across.
struct Sum {
    low: __m512i,
    across: [__m512i; 2],
    high: __m512i,
}

impl Sum {
    #[target_feature(enable = "avx512f")]
    fn zero() -> Sum {
        let zero = _mm512_setzero_si512();
        Sum { low: zero, across: [zero; 2], high: zero }
    }

    #[target_feature(enable = "avx512f,vpclmulqdq")]
    fn add(&mut self, a: __m512i, b: __m512i) {
        self.low = _mm512_xor_si512(self.low, _mm512_clmulepi64_epi128::<0x00>(a, b));
        self.across[0] = _mm512_xor_si512(self.across[0], _mm512_clmulepi64_epi128::<0x01>(a, b));
        self.across[1] = _mm512_xor_si512(self.across[1], _mm512_clmulepi64_epi128::<0x10>(a, b));
        self.high = _mm512_xor_si512(self.high, _mm512_clmulepi64_epi128::<0x11>(a, b));
    }

    /// The sum of the lanes modulo the polynomial, in Montgomery's way, in the first lane; the
    /// others are zero.
    #[target_feature(enable = "avx512f,avx512bw,vpclmulqdq,pclmulqdq")]
    fn reduced(self) -> __m512i {
        let across = _mm512_xor_si512(self.across[0], self.across[1]);
        let low = lanes(_mm512_xor_si512(self.low, _mm512_bslli_epi128::<8>(across)));
        let high = lanes(_mm512_xor_si512(self.high, _mm512_bsrli_epi128::<8>(across)));
        _mm512_zextsi128_si512(_mm_xor_si128(high, fold(fold(low))))
    }
}

/// The sum of four lanes.
#[target_feature(enable = "avx512f")]
fn lanes(vector: __m512i) -> __m128i {
    let halves = _mm256_xor_si256(_mm512_castsi512_si256(vector), _mm512_extracti64x4_epi64::<1>(vector));
    _mm_xor_si128(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves))
}

/// Every block with its bytes in reverse.
#[target_feature(enable = "avx512f,avx512bw")]
fn turned(blocks: __m512i) -> __m512i {
    let order = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    _mm512_shuffle_epi8(blocks, _mm512_broadcast_i32x4(order))
}
