//! Every kernel against the crates that people take, on every subset of shares.

use super::{combine, generator, pattern, split, subsets};
use crate::codec::{Kernel, Threshold};

const THRESHOLDS: [(u8, u8); 7] = [(2, 2), (2, 3), (3, 3), (3, 5), (4, 6), (5, 9), (7, 8)];

/// The field of `sharks` and `blahaj`, modulo 0x11d.
pub(super) fn product_of_sharks(a: u8, b: u8) -> u8 {
    (0..8).rev().fold(0, |sum: u8, bit| {
        let doubled = (sum << 1) ^ if sum >> 7 == 1 { 0x1d } else { 0 };
        doubled ^ if b >> bit & 1 == 1 { a } else { 0 }
    })
}

/// All fields of 256 elements are the same but for names: a root of
/// our polynomial in its field takes ours there, points included.
fn in_the_field_of_sharks(bytes: &[u8]) -> Vec<u8> {
    let powers = |root: u8| {
        let mut powers = [1; 9];
        (1..9).for_each(|i| powers[i] = product_of_sharks(powers[i - 1], root));
        powers
    };
    let powers = (2..=255)
        .map(powers)
        .find(|power| power[8] ^ power[4] ^ power[3] ^ power[1] ^ power[0] == 0)
        .unwrap();
    let image = |byte: u8| (0..8).filter(|bit| byte >> bit & 1 == 1).fold(0, |sum, bit| sum ^ powers[bit]);
    bytes.iter().map(|&byte| image(byte)).collect()
}

#[test]
fn what_every_kernel_splits_the_oracles_combine() {
    let secret = pattern(131);
    for (k, n) in THRESHOLDS {
        let threshold = Threshold::new(k, n).unwrap();
        for kernel in Kernel::available() {
            let shares = split(kernel, threshold, &secret);
            for points in subsets(usize::from(k), n) {
                let case = format!("{kernel:?}, {points:?} of {n}");
                assert_eq!(combine(kernel, threshold, &shares, &points), secret, "{case}");
                let tagged: Vec<Vec<u8>> =
                    points.iter().map(|&x| [&[x], shares[usize::from(x) - 1].as_slice()].concat()).collect();
                assert_eq!(vsss_rs::Gf256::combine_bytes(&tagged).unwrap(), secret, "vsss-rs, {case}");
                let theirs = tagged.iter().map(|share| in_the_field_of_sharks(share));
                let rebuilt = by_sharks(k, &theirs.collect::<Vec<_>>());
                assert_eq!(
                    rebuilt,
                    [in_the_field_of_sharks(&secret), in_the_field_of_sharks(&secret)],
                    "{case}"
                );
            }
        }
    }
}

#[test]
fn what_the_oracles_split_every_kernel_combines() {
    let secret = pattern(131);
    for (k, n) in THRESHOLDS {
        let threshold = Threshold::new(k, n).unwrap();
        let of_vsss =
            vsss_rs::Gf256::split_bytes(usize::from(k), usize::from(n), &secret, generator()).unwrap();
        let of_vsss: Vec<Vec<u8>> = of_vsss.iter().map(|share| share[1..].to_vec()).collect();
        for kernel in Kernel::available() {
            for points in subsets(usize::from(k), n) {
                let case = format!("{kernel:?}, {points:?} of {n}");
                assert_eq!(combine(kernel, threshold, &of_vsss, &points), secret, "vsss-rs, {case}");
            }
        }
    }
}

/// What `sharks` and what `blahaj` combine to; a share begins with its point.
fn by_sharks(k: u8, shares: &[Vec<u8>]) -> [Vec<u8>; 2] {
    let sharks: Vec<sharks::Share> =
        shares.iter().map(|share| sharks::Share::try_from(share.as_slice()).unwrap()).collect();
    let blahaj: Vec<blahaj::Share> =
        shares.iter().map(|share| blahaj::Share::try_from(share.as_slice()).unwrap()).collect();
    [sharks::Sharks(k).recover(&sharks).unwrap(), blahaj::Sharks(k).recover(&blahaj).unwrap()]
}
