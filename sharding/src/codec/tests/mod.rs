mod bias;
mod compact;
mod fused;
mod gcm;
mod oracles;

use proptest::prelude::*;

use super::*;

/// The definition: each byte of each share by Lagrange, one at a time.
fn interpolate(shares: &[(u8, &[u8])], at: u8) -> Vec<u8> {
    let known: Vec<u8> = shares.iter().map(|(x, _)| *x).collect();
    let weights: Vec<u8> = field::weights(&known, at).collect();
    (0..shares[0].1.len())
        .map(|i| weights.iter().zip(shares).fold(0, |sum, (&w, (_, share))| sum ^ field::mul(w, share[i])))
        .collect()
}

fn split(kernel: Kernel, threshold: Threshold, secret: &[u8]) -> Vec<Vec<u8>> {
    let mut shares = vec![vec![0; secret.len()]; threshold.n()];
    let mut slices: Vec<&mut [u8]> = shares.iter_mut().map(Vec::as_mut_slice).collect();
    Splitter::with_kernel(threshold, kernel)
        .split(secret, &mut RandomStream::under(&[7; 32]), &mut slices)
        .unwrap();
    shares
}

fn combine(kernel: Kernel, threshold: Threshold, shares: &[Vec<u8>], points: &[u8]) -> Vec<u8> {
    let indices: Vec<ShareIndex> = points.iter().map(|&x| ShareIndex::new(x).unwrap()).collect();
    let slices: Vec<&[u8]> = points.iter().map(|&x| shares[usize::from(x) - 1].as_slice()).collect();
    let mut secret = vec![0; shares[0].len()];
    Combiner::with_kernel(threshold, &indices, kernel).unwrap().combine(&slices, &mut secret).unwrap();
    secret
}

fn points_at(points: &[u8]) -> Vec<ShareIndex> {
    points.iter().map(|&x| ShareIndex::new(x).unwrap()).collect()
}

fn subsets(k: usize, n: u8) -> impl Iterator<Item = Vec<u8>> {
    (0u32..1 << n)
        .filter(move |set| set.count_ones() as usize == k)
        .map(move |set| (1..=n).filter(|x| set >> (x - 1) & 1 == 1).collect())
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 256) as u8).collect()
}

/// ChaCha under a fixed key, where the oracles want a generator.
fn generator() -> chacha20::ChaCha20Rng {
    use chacha20::rand_core::SeedableRng as _;
    chacha20::ChaCha20Rng::from_seed([1; 32])
}

#[test]
fn thresholds_that_share_nothing_are_refused() {
    for (k, n) in [(0, 0), (1, 1), (1, 3), (4, 3), (2, 33), (33, 33), (0, 255)] {
        assert_eq!(Threshold::new(k, n), Err(CodecError::Threshold { k, n }));
    }
    for (k, n) in [(2, 2), (3, 5), (32, 32), (2, 32)] {
        assert!(Threshold::new(k, n).is_ok());
    }
}

#[test]
fn points_must_be_k_different_ones_of_the_n() {
    let threshold = Threshold::new(3, 5).unwrap();
    let at = |x: &[u8]| x.iter().map(|&x| ShareIndex::new(x).unwrap()).collect::<Vec<_>>();
    assert!(matches!(Combiner::new(threshold, &at(&[1, 2])), Err(CodecError::Count { .. })));
    assert!(matches!(Combiner::new(threshold, &at(&[1, 2, 3, 4])), Err(CodecError::Count { .. })));
    assert!(matches!(Combiner::new(threshold, &at(&[1, 2, 1])), Err(CodecError::Repeated(_))));
    assert!(matches!(Combiner::new(threshold, &at(&[1, 2, 6])), Err(CodecError::Index(6))));
    assert!(ShareIndex::new(0).is_err() && ShareIndex::new(33).is_err());
}

#[test]
fn slices_of_other_lengths_or_numbers_are_refused() {
    let threshold = Threshold::new(2, 3).unwrap();
    let mut random = RandomStream::under(&[1; 32]);
    let (mut a, mut b, mut c) = ([0; 4], [0; 4], [0; 5]);
    let splitter = Splitter::new(threshold);
    assert!(matches!(
        splitter.split(&[1; 4], &mut random, &mut [&mut a, &mut b]),
        Err(CodecError::Count { expected: 3, actual: 2 })
    ));
    assert_eq!(splitter.split(&[1; 4], &mut random, &mut [&mut a, &mut b, &mut c]), Err(CodecError::Lengths));
}

#[test]
fn fewer_shares_than_needed_look_the_same_whatever_the_secret() {
    // Given k − 1 shares, every secret byte stays possible: for each there is exactly one k-th share.
    let known = [(1u8, [0x5au8].as_slice()), (4, &[0xc3])];
    let mut seen = [false; 256];
    for third in 0..=255u8 {
        let secret = interpolate(&[known[0], known[1], (5, &[third])], 0)[0];
        assert!(!std::mem::replace(&mut seen[usize::from(secret)], true));
    }
    assert!(seen.iter().all(|seen| *seen));
}

#[test]
fn the_stream_is_aes_in_counter_mode_however_it_is_cut() {
    use aes::cipher::{BlockCipherEncrypt, KeyInit};
    let cipher = aes::Aes256::new(&[9; 32].into());
    let expected: Vec<u8> = (0u128..400)
        .flat_map(|counter| {
            let mut block = counter.to_le_bytes().into();
            cipher.encrypt_block(&mut block);
            block
        })
        .collect();
    assert!(cut(StreamKind::Aes256Ctr, &[9; 32]) == expected);
}

#[test]
fn the_other_stream_is_chacha20_however_it_is_cut() {
    // RFC 8439, appendix A.1, test vectors 1 and 2.
    let given = cut(StreamKind::ChaCha20, &[0; 32]);
    assert_eq!(given[..8], [0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90]);
    assert_eq!(given[64..72], [0x9f, 0x07, 0xe7, 0xbe, 0x55, 0x51, 0x38, 0x7a]);
    let mut whole = vec![0xff; given.len()];
    RandomStream::of_kind(StreamKind::ChaCha20, &[0; 32]).fill(&mut whole);
    assert!(given == whole);
}

#[test]
fn what_either_stream_splits_is_combined() {
    let threshold = Threshold::new(3, 5).unwrap();
    let secret = pattern(10_000);
    for kind in [StreamKind::Aes256Ctr, StreamKind::ChaCha20] {
        let mut random = RandomStream::of_kind(kind, &[7; 32]);
        assert_eq!(random.kind(), kind);
        let mut shares = vec![vec![0; secret.len()]; 5];
        let mut slices: Vec<&mut [u8]> = shares.iter_mut().map(Vec::as_mut_slice).collect();
        Splitter::new(threshold).split(&secret, &mut random, &mut slices).unwrap();
        assert!(combine(Kernel::best(), threshold, &shares, &[2, 4, 5]) == secret);
    }
}

/// The beginning of a stream, taken in pieces.
fn cut(kind: StreamKind, key: &[u8; 32]) -> Vec<u8> {
    let mut random = RandomStream::of_kind(kind, key);
    let mut given = vec![0; 6400];
    let mut rest = given.as_mut_slice();
    for cut in [0, 1, 15, 16, 17, 512, 1, 600, 33, 1024, 2048, 519] {
        let (part, after) = rest.split_at_mut(cut);
        random.fill(part);
        rest = after;
    }
    random.fill(rest);
    given
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn kernels_agree_with_the_definition(
        (k, n) in (2u8..=32).prop_flat_map(|n| (2..=n, Just(n))),
        secret in proptest::collection::vec(any::<u8>(), 0..400),
        pick in any::<u64>(),
    ) {
        let threshold = Threshold::new(k, n).unwrap();
        // Any k of the n, in any order.
        let mut points: Vec<u8> = (1..=n).collect();
        for at in (1..points.len()).rev() {
            points.swap(at, (pick.rotate_left(at as u32) % (at as u64 + 1)) as usize);
        }
        points.truncate(usize::from(k));
        for kernel in Kernel::available() {
            // Each draws in an order of its own; what it draws is on one polynomial with the secret.
            let shares = split(kernel, threshold, &secret);
            let chosen: Vec<(u8, &[u8])> =
                points.iter().map(|&x| (x, shares[usize::from(x) - 1].as_slice())).collect();
            prop_assert_eq!(&interpolate(&chosen, 0), &secret);
            for (x, share) in (1..=n).zip(&shares) {
                prop_assert_eq!(&interpolate(&chosen, x), share);
            }
            for other in Kernel::available() {
                prop_assert_eq!(&combine(other, threshold, &shares, &points), &secret);
            }
        }
    }
}
