//! Four blocks at a time with `vpclmulqdq` on 512 bits, as many blocks as there are powers summed
//! up before they are reduced: the reduction then costs next to nothing.

use std::arch::x86_64::*;

use super::clmul::{fold, vector, word};
use super::{BLOCK, GROUP, POWERS, Powers};

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
    let (groups, rest) = data.as_chunks::<GROUP>();
    for group in groups {
        let mut hashing = Hashing::begin(powers, group);
        for at in 1..Hashing::VECTORS {
            hashing.add(at);
        }
        state = hashing.finish(state);
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

/// A group on its way, vector by vector: so slow are these multiplications and so free all else
/// meanwhile that a cipher does its work in between for nothing.
pub(in crate::codec) struct Hashing<'a> {
    powers: &'a Powers,
    group: &'a [u8; GROUP],
    sum: Sum,
}

impl<'a> Hashing<'a> {
    /// Vectors in a group.
    pub(in crate::codec) const VECTORS: usize = POWERS / LANES;

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(in crate::codec) fn begin(powers: &'a Powers, group: &'a [u8; GROUP]) -> Hashing<'a> {
        Hashing { powers, group, sum: Sum::zero() }
    }

    /// Adds a vector of the group. All but the first are to be added, each once.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,vpclmulqdq")]
    pub(in crate::codec) fn add(&mut self, at: usize) {
        let (blocks, keys) = self.factors(at);
        self.sum.add(blocks, keys);
    }

    /// Adds the first, which waited for the group before, and says how things stand then: in the
    /// first lane, the others being zero.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,vpclmulqdq,pclmulqdq")]
    fn finish(mut self, state: __m512i) -> __m512i {
        let (blocks, keys) = self.factors(0);
        self.sum.add(_mm512_xor_si512(blocks, state), keys);
        self.sum.reduced()
    }

    /// The same, as a number.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,vpclmulqdq,pclmulqdq")]
    pub(in crate::codec) fn finish_word(self, state: u128) -> u128 {
        word(_mm512_castsi512_si128(self.finish(_mm512_zextsi128_si512(vector(state)))))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn factors(&self, at: usize) -> (__m512i, __m512i) {
        let bytes = &self.group.as_chunks::<WIDTH>().0[at];
        let keys = &self.powers.as_chunks::<LANES>().0[at];
        // SAFETY: 64 bytes are there on either side; unaligned loads are allowed.
        unsafe {
            let blocks = _mm512_loadu_si512(bytes.as_ptr().cast());
            (turned(blocks), _mm512_loadu_si512(keys.as_ptr().cast()))
        }
    }
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
