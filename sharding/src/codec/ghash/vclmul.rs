//! Four blocks at a time with `vpclmulqdq` on 512 bits, as many blocks as there are powers summed
//! up before they are reduced: the reduction then costs next to nothing.

use std::arch::x86_64::*;

use super::clmul::{fold, vector, word};
use super::{BLOCK, POWERS, Powers};

const WIDTH: usize = 64;
const LANES: usize = WIDTH / BLOCK;
/// Vectors in a group.
const VECTORS: usize = POWERS / LANES;

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
        for at in 1..VECTORS {
            sum.add(vector_of(group, at), keys_of(powers, at));
        }
        sum.add(_mm512_xor_si512(vector_of(group, 0), state), keys_of(powers, 0));
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

/// Four blocks of a group.
#[target_feature(enable = "avx512f,avx512bw")]
fn vector_of(group: &[u8; POWERS * BLOCK], at: usize) -> __m512i {
    let bytes = &group.as_chunks::<WIDTH>().0[at];
    // SAFETY: 64 bytes are there; unaligned loads are allowed.
    turned(unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) })
}

/// Their keys.
#[target_feature(enable = "avx512f")]
fn keys_of(powers: &Powers, at: usize) -> __m512i {
    let keys = &powers.as_chunks::<LANES>().0[at];
    // SAFETY: four keys of 16 bytes are there; unaligned loads are allowed.
    unsafe { _mm512_loadu_si512(keys.as_ptr().cast()) }
}

/// Sums of products of 256 bits in four lanes, in Karatsuba's way: the low halves, the high halves,
/// and the products of the sums of halves. It is the multiplications that bound the speed.
struct Sum {
    low: __m512i,
    across: __m512i,
    high: __m512i,
}

impl Sum {
    #[target_feature(enable = "avx512f")]
    fn zero() -> Sum {
        let zero = _mm512_setzero_si512();
        Sum { low: zero, across: zero, high: zero }
    }

    #[target_feature(enable = "avx512f,vpclmulqdq")]
    fn add(&mut self, a: __m512i, b: __m512i) {
        let (a_sum, b_sum) = (halves(a), halves(b));
        self.low = _mm512_xor_si512(self.low, _mm512_clmulepi64_epi128::<0x00>(a, b));
        self.across = _mm512_xor_si512(self.across, _mm512_clmulepi64_epi128::<0x00>(a_sum, b_sum));
        self.high = _mm512_xor_si512(self.high, _mm512_clmulepi64_epi128::<0x11>(a, b));
    }

    /// The sum of the lanes modulo the polynomial, in Montgomery's way, in the first lane; the
    /// others are zero.
    #[target_feature(enable = "avx512f,avx512bw,vpclmulqdq,pclmulqdq")]
    fn reduced(self) -> __m512i {
        let across = _mm512_xor_si512(self.across, _mm512_xor_si512(self.low, self.high));
        let low = lanes(_mm512_xor_si512(self.low, _mm512_bslli_epi128::<8>(across)));
        let high = lanes(_mm512_xor_si512(self.high, _mm512_bsrli_epi128::<8>(across)));
        _mm512_zextsi128_si512(_mm_xor_si128(high, fold(fold(low))))
    }
}

/// The sum of the halves of each lane, in the lower one.
#[target_feature(enable = "avx512f")]
fn halves(lanes: __m512i) -> __m512i {
    _mm512_xor_si512(lanes, _mm512_shuffle_epi32::<0x4e>(lanes))
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
