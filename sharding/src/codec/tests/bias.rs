//! Whether coefficients are uniform. Each kind of bias that this looks for has been in a published
//! crate: `sharks` 0.5 never draws zero (RUSTSEC-2024-0398), so that every share rules a value of
//! the secret out; `vsss-rs` before 5.4 drew odd ones only,
//! which gave a bit of every byte away (its issue 24).
//!
//! The test is shown to be able to fail: the same function rejects those generators.

use chacha20::rand_core::Rng;

use super::oracles::product_of_sharks;
use super::{field, generator, interpolate, split};
use crate::codec::{Kernel, Threshold};

const LEN: usize = 1 << 18;
const SECRET: u8 = 0xa7;

/// Pearson's statistic of every coefficient but the constant one, over the splits of a constant
/// byte: `k` shares, in order from 1, to coefficients, to counts.
fn statistics(shares: &[Vec<u8>], product: impl Fn(u8, u8) -> u8, inverse: impl Fn(u8) -> u8) -> Vec<f64> {
    let k = shares.len();
    let inverses: Vec<u8> = (0..=255).map(&inverse).collect();
    let rows = inverted(k, &product, &inverses);
    rows[1..]
        .iter()
        .map(|row| {
            let tables: Vec<Vec<u8>> =
                row.iter().map(|&weight| (0..=255).map(|value| product(weight, value)).collect()).collect();
            let mut counts = [0u32; 256];
            for at in 0..shares[0].len() {
                let terms = tables.iter().zip(shares).map(|(table, share)| table[usize::from(share[at])]);
                counts[usize::from(terms.fold(0, |sum, term| sum ^ term))] += 1;
            }
            let expected = shares[0].len() as f64 / 256.0;
            counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum()
        })
        .collect()
}

/// The inverse of the Vandermonde matrix of the points `1..=k`: from values to coefficients.
fn inverted(k: usize, product: impl Fn(u8, u8) -> u8, inverses: &[u8]) -> Vec<Vec<u8>> {
    let mut rows: Vec<Vec<u8>> = (1..=k)
        .map(|x| {
            let powers = std::iter::successors(Some(1), |power| Some(product(*power, x as u8))).take(k);
            powers.chain((1..=k).map(|unit| u8::from(unit == x))).collect()
        })
        .collect();
    for at in 0..k {
        let pivot = (at..k).find(|&row| rows[row][at] != 0).expect("different points");
        rows.swap(at, pivot);
        let scale = inverses[usize::from(rows[at][at])];
        rows[at].iter_mut().for_each(|cell| *cell = product(*cell, scale));
        let pivot = rows[at].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|(other, _)| *other != at) {
            let factor = row[at];
            row.iter_mut().zip(&pivot).for_each(|(cell, &above)| *cell ^= product(factor, above));
        }
    }
    rows.into_iter().map(|row| row[k..].to_vec()).collect()
}

/// 255 degrees of freedom: mean 255, deviation 22.6. Six deviations either way: too even is as wrong
/// as too uneven.
fn uniform(statistics: &[f64]) -> bool {
    statistics.iter().all(|statistic| (120.0..391.0).contains(statistic))
}

fn ours(shares: &[Vec<u8>]) -> Vec<f64> {
    statistics(shares, field::mul, field::inverse)
}

/// A dealer of ours but for its coefficients.
fn dealt(k: usize, mut coefficient: impl FnMut() -> u8) -> Vec<Vec<u8>> {
    let mut shares = vec![Vec::with_capacity(LEN); k];
    for _ in 0..LEN {
        let coefficients: Vec<u8> = (1..k).map(|_| coefficient()).collect();
        for (x, share) in (1u8..).zip(&mut shares) {
            let above = coefficients.iter().fold(0, |sum, &next| field::mul(sum ^ next, x));
            share.push(above ^ SECRET);
        }
    }
    shares
}

fn of_sharks(shares: &[Vec<u8>]) -> Vec<f64> {
    let inverse = |a| (1..=255).find(|&b| product_of_sharks(a, b) == 1).unwrap_or(0);
    statistics(shares, product_of_sharks, inverse)
}

#[test]
fn coefficients_of_ours_are_uniform() {
    // The last is larger than the caches, and takes another way.
    for (k, n, len) in [(2u8, 3, LEN), (3, 5, LEN), (5, 9, LEN), (3, 5, 5 << 20)] {
        let threshold = Threshold::new(k, n).unwrap();
        let shares = split(Kernel::best(), threshold, &vec![SECRET; len]);
        let statistics = ours(&shares[..usize::from(k)]);
        assert_eq!(statistics.len(), usize::from(k) - 1);
        assert!(uniform(&statistics), "{k} of {n}: {statistics:?}");
        // The computed shares are no less random than the drawn ones, each alone.
        let weights: Vec<(u8, &[u8])> = (1..).zip(shares.iter().map(Vec::as_slice)).collect();
        assert_eq!(interpolate(&weights[..usize::from(k)], 0), vec![SECRET; len]);
        for share in &shares {
            assert!(uniform(&spread(share)), "{k} of {n}");
        }
    }
}

/// The statistic of bytes as they are.
fn spread(bytes: &[u8]) -> Vec<f64> {
    // As if they were the linear coefficient: share 1 without a secret, share 2 its double.
    let doubled = bytes.iter().map(|&byte| field::mul(byte, 2)).collect();
    ours(&[bytes.to_vec(), doubled])
}

#[test]
fn a_fair_dealer_passes_and_so_do_the_crates_that_were_mended() {
    let mut random = generator();
    assert!(uniform(&ours(&dealt(3, || random.next_u32() as u8))));
    let shares = vsss_rs::Gf256::split_bytes(3, 5, vec![SECRET; LEN], generator()).unwrap();
    let bare: Vec<Vec<u8>> = shares[..3].iter().map(|share| share[1..].to_vec()).collect();
    assert!(uniform(&ours(&bare)));
    let dealer = blahaj::Sharks(3).dealer_rng(&[SECRET; LEN], &mut generator());
    let bare: Vec<Vec<u8>> = dealer.take(3).map(|share| Vec::from(&share)[1..].to_vec()).collect();
    assert!(uniform(&of_sharks(&bare)));
}

#[test]
fn sharks_fails() {
    let dealer = sharks::Sharks(3).dealer(&[SECRET; LEN]);
    let bare: Vec<Vec<u8>> = dealer.take(3).map(|share| Vec::from(&share)[1..].to_vec()).collect();
    let statistics = of_sharks(&bare);
    assert!(statistics.iter().all(|statistic| !uniform(&[*statistic])), "{statistics:?}");
}

#[test]
fn biased_dealers_fail() {
    let mut random = generator();
    let mut byte = || random.next_u32() as u8;
    let mut rejected = |what: &str, coefficient: &mut dyn FnMut(&mut dyn FnMut() -> u8) -> u8| {
        let statistics = ours(&dealt(3, || coefficient(&mut byte)));
        assert!(statistics.iter().all(|statistic| !uniform(&[*statistic])), "{what}: {statistics:?}");
    };
    rejected("never zero", &mut |byte| byte() % 255 + 1);
    rejected("vsss-rs 5.2: odd ones only", &mut |byte| (byte() & 0xfe) + 1);
    rejected("a remainder", &mut |byte| byte() % 251);
    rejected("the top bit always clear", &mut |byte| byte() & 0x7f);
    rejected("one bit set in 17 of 32", &mut |byte| {
        let drawn = byte();
        if byte() < 16 { drawn | 1 } else { drawn }
    });
    let mut next = 0u8;
    rejected("too even", &mut |_| {
        next = next.wrapping_add(1);
        field::mul(next, 3)
    });
}
