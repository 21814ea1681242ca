//! One block at a time with `pclmulqdq`, eight blocks summed up before they are reduced.

use std::arch::x86_64::*;

use super::{BLOCK, POWERS, Powers, block};

const GROUP: usize = 8;

pub(super) fn available() -> bool {
    is_x86_feature_detected!("pclmulqdq")
}

pub(super) fn absorb(powers: &Powers, state: u128, data: &[u8]) -> u128 {
    assert!(available());
    // SAFETY: PCLMULQDQ is there, as asserted above.
    unsafe { absorb_all(powers, state, data) }
}

/// The product in the field.
pub(super) fn product(a: u128, b: u128) -> u128 {
    assert!(available());
    // SAFETY: PCLMULQDQ is there, as asserted above.
    unsafe {
        let mut sum = Sum::default();
        sum.add(a, b);
        sum.reduced()
    }
}

#[target_feature(enable = "pclmulqdq")]
fn absorb_all(powers: &Powers, mut state: u128, data: &[u8]) -> u128 {
    for group in data.chunks(GROUP * BLOCK) {
        let keys = &powers[POWERS - group.len().div_ceil(BLOCK)..];
        let mut sum = Sum::default();
        for (bytes, key) in group.chunks(BLOCK).zip(keys) {
            sum.add(block(bytes) ^ std::mem::take(&mut state), *key);
        }
        state = sum.reduced();
    }
    state
}

/// A sum of products of 256 bits: the low half, the high half, and what lies across.
#[derive(Default)]
struct Sum([u128; 3]);

impl Sum {
    #[target_feature(enable = "pclmulqdq")]
    fn add(&mut self, a: u128, b: u128) {
        let (a, b) = (vector(a), vector(b));
        self.0[0] ^= word(_mm_clmulepi64_si128::<0x00>(a, b));
        self.0[1] ^= word(_mm_clmulepi64_si128::<0x01>(a, b)) ^ word(_mm_clmulepi64_si128::<0x10>(a, b));
        self.0[2] ^= word(_mm_clmulepi64_si128::<0x11>(a, b));
    }

    /// Modulo the polynomial, in Montgomery's way: what is added makes the low half zero.
    #[target_feature(enable = "pclmulqdq")]
    fn reduced(self) -> u128 {
        let Sum([low, middle, high]) = self;
        high ^ middle >> 64 ^ word(fold(fold(vector(low ^ middle << 64))))
    }
}

/// Adds the multiple of the polynomial that cancels the low 64 bits, and divides by x⁶⁴.
#[target_feature(enable = "pclmulqdq")]
pub(super) fn fold(value: __m128i) -> __m128i {
    // x⁵⁷+x⁶²+x⁶³; what is left is x⁶⁴, which the shuffle adds.
    let above = _mm_set_epi64x(0, 0xc2 << 56);
    _mm_xor_si128(_mm_shuffle_epi32::<0x4e>(value), _mm_clmulepi64_si128::<0x00>(value, above))
}

#[target_feature(enable = "sse2")]
pub(super) fn vector(word: u128) -> __m128i {
    // SAFETY: both are 128 bits, of any value.
    unsafe { std::mem::transmute(word) }
}

#[target_feature(enable = "sse2")]
pub(super) fn word(vector: __m128i) -> u128 {
    // SAFETY: both are 128 bits, of any value.
    unsafe { std::mem::transmute(vector) }
}
