//! One block at a time with `pmull`, eight blocks summed up before they are reduced.

use std::arch::aarch64::*;

use super::{BLOCK, POWERS, Powers};

const GROUP: usize = 8;

pub(super) fn available() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

pub(super) fn absorb(powers: &Powers, state: u128, data: &[u8]) -> u128 {
    assert!(available());
    // SAFETY: PMULL (which the feature `aes` stands for) is there, as asserted above.
    unsafe { absorb_all(powers, state, data) }
}

/// The product in the field.
pub(super) fn product(a: u128, b: u128) -> u128 {
    assert!(available());
    // SAFETY: PMULL is there, as asserted above.
    unsafe {
        let mut sum = Sum([vector(0); 3]);
        sum.add(vector(a), vector(b));
        word(sum.reduced())
    }
}

#[target_feature(enable = "neon,aes")]
fn absorb_all(powers: &Powers, state: u128, data: &[u8]) -> u128 {
    let mut state = vector(state);
    for group in data.chunks(GROUP * BLOCK) {
        let keys = &powers[POWERS - group.len().div_ceil(BLOCK)..];
        let mut sum = Sum([vector(0); 3]);
        for (bytes, key) in group.chunks(BLOCK).zip(keys) {
            sum.add(veorq_u64(block(bytes), state), vector(*key));
            state = vector(0);
        }
        state = sum.reduced();
    }
    word(state)
}

/// A sum of products of 256 bits: the low half, what lies across, and the high half.
struct Sum([uint64x2_t; 3]);

impl Sum {
    #[target_feature(enable = "neon,aes")]
    fn add(&mut self, a: uint64x2_t, b: uint64x2_t) {
        let turned = vextq_u64::<1>(b, b);
        let across = veorq_u64(low_product(a, turned), high_product(a, turned));
        let Sum([low, middle, high]) = self;
        *low = veorq_u64(*low, low_product(a, b));
        *middle = veorq_u64(*middle, across);
        *high = veorq_u64(*high, high_product(a, b));
    }

    /// Modulo the polynomial, in Montgomery's way: what is added makes the low half zero.
    #[target_feature(enable = "neon,aes")]
    fn reduced(self) -> uint64x2_t {
        let Sum([low, middle, high]) = self;
        let zero = vdupq_n_u64(0);
        let low = veorq_u64(low, vextq_u64::<1>(zero, middle));
        let high = veorq_u64(high, vextq_u64::<1>(middle, zero));
        veorq_u64(high, fold(fold(low)))
    }
}

/// Adds the multiple of the polynomial that cancels the low 64 bits, and divides by x⁶⁴.
#[target_feature(enable = "neon,aes")]
fn fold(value: uint64x2_t) -> uint64x2_t {
    // x⁵⁷+x⁶²+x⁶³; what is left is x⁶⁴, which the exchange of halves adds.
    let above = vdupq_n_u64(0xc2 << 56);
    veorq_u64(vextq_u64::<1>(value, value), low_product(value, above))
}

#[target_feature(enable = "neon,aes")]
fn low_product(a: uint64x2_t, b: uint64x2_t) -> uint64x2_t {
    vreinterpretq_u64_p128(vmull_p64(vgetq_lane_u64::<0>(a), vgetq_lane_u64::<0>(b)))
}

#[target_feature(enable = "neon,aes")]
fn high_product(a: uint64x2_t, b: uint64x2_t) -> uint64x2_t {
    vreinterpretq_u64_p128(vmull_high_p64(vreinterpretq_p64_u64(a), vreinterpretq_p64_u64(b)))
}

/// The block at the beginning of `bytes`, filled up with zeros.
#[target_feature(enable = "neon,aes")]
fn block(bytes: &[u8]) -> uint64x2_t {
    vector(super::block(bytes))
}

#[target_feature(enable = "neon,aes")]
fn vector(word: u128) -> uint64x2_t {
    vreinterpretq_u64_p128(word)
}

#[target_feature(enable = "neon,aes")]
fn word(vector: uint64x2_t) -> u128 {
    vreinterpretq_p128_u64(vector)
}
