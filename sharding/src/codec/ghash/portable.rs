//! Carry-less products out of ordinary ones, after Thomas Pornin (BearSSL, `ghash_ctmul64.c`): of
//! factors in which three of four bits are zero, no carry reaches the next bit that counts. Time
//! depends on lengths alone, on processors whose multiplication does (all that have 64 bits).

use super::{BLOCK, Powers, block};

pub(super) fn absorb(powers: &Powers, state: u128, data: &[u8]) -> u128 {
    let [.., key] = powers;
    data.chunks(BLOCK).fold(state, |state, bytes| product(state ^ block(bytes), *key))
}

/// The product in the field.
pub(super) fn product(a: u128, b: u128) -> u128 {
    let (a0, a1) = (a as u64, (a >> 64) as u64);
    let (b0, b1) = (b as u64, (b >> 64) as u64);
    // Karatsuba: three products instead of four.
    let (low, high) = (carryless(a0, b0), carryless(a1, b1));
    let middle = carryless(a0 ^ a1, b0 ^ b1) ^ low ^ high;
    reduce(low ^ middle << 64, high ^ middle >> 64)
}

/// Montgomery: adds multiples of the polynomial that make the low half zero, and drops it.
fn reduce(low: u128, high: u128) -> u128 {
    let once = fold(low);
    high ^ fold(once)
}

/// Adds the multiple of the polynomial that cancels the low 64 bits, and divides by x⁶⁴. Of the
/// polynomial 1 lies below x⁶⁴ and x¹²¹+x¹²⁶+x¹²⁷+x¹²⁸ above.
fn fold(value: u128) -> u128 {
    let low = u128::from(value as u64);
    value >> 64 ^ low << 64 ^ low << 63 ^ low << 62 ^ low << 57
}

fn carryless(a: u64, b: u64) -> u128 {
    let above = low_half(a.reverse_bits(), b.reverse_bits()).reverse_bits() >> 1;
    u128::from(above) << 64 | u128::from(low_half(a, b))
}

/// The low 64 bits of a carry-less product.
fn low_half(a: u64, b: u64) -> u64 {
    const EVERY_FOURTH: u64 = 0x1111_1111_1111_1111;
    let part = |word: u64, bit: u32| word & EVERY_FOURTH << bit;
    (0..4).fold(0, |product, bit| {
        let sum = (0..4).fold(0, |sum, i| sum ^ part(a, i).wrapping_mul(part(b, (bit + 4 - i) % 4)));
        product | part(sum, bit)
    })
}
