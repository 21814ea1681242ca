//! The erasure code, and rebuilding of either kind of share.

use proptest::prelude::*;

use super::{combine, generator, interpolate, pattern, points_at, split, subsets};
use crate::codec::cipher::Cipher;
use crate::codec::ghash;
use crate::codec::{
    CodecError, Disperser, Gatherer, Kernel, Mac, RandomStream, Rebuilder, Sealer, Splitter, Threshold,
};

fn disperse(kernel: Kernel, threshold: Threshold, data: &[u8]) -> Vec<Vec<u8>> {
    let disperser = Disperser::with_kernel(threshold, kernel);
    let mut shares = vec![vec![0xee; disperser.piece_len(data.len())]; threshold.n()];
    let mut slices: Vec<&mut [u8]> = shares.iter_mut().map(Vec::as_mut_slice).collect();
    disperser.disperse(data, &mut slices).unwrap();
    shares
}

fn gather(kernel: Kernel, threshold: Threshold, shares: &[Vec<u8>], points: &[u8], len: usize) -> Vec<u8> {
    let slices: Vec<&[u8]> = points.iter().map(|&x| shares[usize::from(x) - 1].as_slice()).collect();
    let mut data = vec![0xdd; len];
    let gatherer = Gatherer::with_kernel(threshold, &points_at(points), kernel).unwrap();
    gatherer.gather(&slices, &mut data).unwrap();
    data
}

fn rebuild(kernel: Kernel, threshold: Threshold, shares: &[Vec<u8>], points: &[u8], wanted: u8) -> Vec<u8> {
    let slices: Vec<&[u8]> = points.iter().map(|&x| shares[usize::from(x) - 1].as_slice()).collect();
    let mut share = vec![0; shares[0].len()];
    let wanted = points_at(&[wanted])[0];
    let rebuilder = Rebuilder::with_kernel(threshold, &points_at(points), wanted, kernel).unwrap();
    rebuilder.rebuild(&slices, &mut share).unwrap();
    share
}

#[test]
fn the_first_shares_are_the_data_and_the_others_lie_on_one_polynomial_with_them() {
    let threshold = Threshold::new(3, 5).unwrap();
    let data = pattern(1000);
    for kernel in Kernel::available() {
        let shares = disperse(kernel, threshold, &data);
        let padded = [data.as_slice(), &[0, 0]].concat();
        assert_eq!(shares[..3].concat(), padded, "{kernel:?}");
        let pieces: Vec<(u8, &[u8])> = (1..).zip(shares[..3].iter().map(Vec::as_slice)).collect();
        for x in 4..=5 {
            assert_eq!(shares[usize::from(x) - 1], interpolate(&pieces, x), "{kernel:?}");
        }
    }
}

#[test]
fn every_subset_gives_the_data_and_every_other_share_for_every_short_length() {
    for (k, n) in [(2, 3), (3, 5), (5, 9)] {
        let threshold = Threshold::new(k, n).unwrap();
        for len in (0..2 * usize::from(k) + 1).chain([200, 201, 202, 203, 204, 13_000]) {
            let data = pattern(len);
            for kernel in Kernel::available() {
                let shares = disperse(kernel, threshold, &data);
                for points in subsets(usize::from(k), n) {
                    assert!(gather(kernel, threshold, &shares, &points, len) == data, "{points:?} of {len}");
                    for wanted in (1..=n).filter(|x| !points.contains(x)) {
                        let rebuilt = rebuild(kernel, threshold, &shares, &points, wanted);
                        assert!(rebuilt == shares[usize::from(wanted) - 1], "{wanted} from {points:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn shares_of_a_split_secret_are_rebuilt_from_every_subset() {
    for (k, n) in [(2, 3), (3, 5), (5, 9)] {
        let threshold = Threshold::new(k, n).unwrap();
        let shares = split(Kernel::best(), threshold, &pattern(333));
        for kernel in Kernel::available() {
            for points in subsets(usize::from(k), n) {
                for wanted in (1..=n).filter(|x| !points.contains(x)) {
                    let rebuilt = rebuild(kernel, threshold, &shares, &points, wanted);
                    assert_eq!(rebuilt, shares[usize::from(wanted) - 1], "{wanted} from {points:?}");
                }
            }
        }
    }
}

#[test]
fn a_lost_share_of_the_oracle_is_rebuilt() {
    let threshold = Threshold::new(3, 5).unwrap();
    let shares = vsss_rs::Gf256::split_bytes(3, 5, pattern(129), generator()).unwrap();
    let bare: Vec<Vec<u8>> = shares.iter().map(|share| share[1..].to_vec()).collect();
    assert_eq!(rebuild(Kernel::best(), threshold, &bare, &[5, 1, 3], 2), bare[1]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let threshold = Threshold::new(2, 3).unwrap();
    let disperser = Disperser::new(threshold);
    assert_eq!([0, 1, 2, 3].map(|len| disperser.piece_len(len)), [0, 1, 1, 2]);
    let (mut a, mut b, mut c) = ([0; 2], [0; 2], [0; 3]);
    assert_eq!(disperser.disperse(&[1; 4], &mut [&mut a, &mut b, &mut c]), Err(CodecError::Lengths));
    let mut c = [0; 2];
    assert!(disperser.disperse(&[1; 3], &mut [&mut a, &mut b, &mut c]).is_ok());
    let expected = CodecError::Count { expected: 3, actual: 2 };
    assert_eq!(disperser.disperse(&[1; 3], &mut [&mut a, &mut b]), Err(expected));

    let gatherer = Gatherer::new(threshold, &points_at(&[3, 1])).unwrap();
    assert_eq!(gatherer.gather(&[&c, &a[..1]], &mut [0; 3]), Err(CodecError::Lengths));
    assert_eq!(gatherer.gather(&[&c], &mut [0; 3]), Err(CodecError::Count { expected: 2, actual: 1 }));
    assert!(matches!(Gatherer::new(threshold, &points_at(&[1, 1])), Err(CodecError::Repeated(_))));

    let [one, two, four] = [1, 2, 4].map(|x| points_at(&[x])[0]);
    assert_eq!(Rebuilder::new(threshold, &[one, two], two).unwrap_err(), CodecError::Repeated(two));
    assert_eq!(Rebuilder::new(threshold, &[one, two], four).unwrap_err(), CodecError::Index(4));
    assert!(matches!(Rebuilder::new(threshold, &[one], two), Err(CodecError::Count { .. })));
}

#[test]
fn tagging_on_the_way_is_tagging_afterwards() {
    let threshold = Threshold::new(3, 5).unwrap();
    let nonce = [3; 12];
    let lengths = [0, 1, 17, 4095, 4096, 4097, 20_000];
    for (kernel, len) in ghash::Kernel::available().flat_map(|kernel| lengths.map(|len| (kernel, len))) {
        let macs: Vec<Mac> = (0..5).map(|key| Mac::on(Cipher::new(&[key; 32]), kernel)).collect();
        let data = pattern(len);
        let check = |shares: &[Vec<u8>], tags: &[[u8; 16]]| {
            let expected: Vec<[u8; 16]> =
                macs.iter().zip(shares).map(|(mac, share)| mac.tag(&nonce, share)).collect();
            assert_eq!(tags, expected, "{len} bytes");
        };
        let mut tags = [[0; 16]; 5];

        let mut shares = vec![vec![0; len]; 5];
        let mut slices: Vec<&mut [u8]> = shares.iter_mut().map(Vec::as_mut_slice).collect();
        let mut random = RandomStream::under(&[7; 32]);
        let splitter = Splitter::new(threshold);
        splitter.split_and_tag(&data, &mut random, &mut slices, &macs, &nonce, &mut tags).unwrap();
        for points in [[1, 2, 3], [5, 3, 4]] {
            assert_eq!(combine(Kernel::PORTABLE, threshold, &shares, &points), data);
        }
        check(&shares, &tags);
    }
}

#[test]
fn a_run_of_blocks_is_sealed_spread_and_tagged_as_each_would_be_alone() {
    let (key, block) = ([9; 32], 5000);
    let nonces = |at: usize| [at as u8 + 1; 12];
    let narrow_and_wide = [Cipher::narrow as fn(&[u8; 32]) -> Cipher, Cipher::new];
    for (kernel, cipher) in ghash::Kernel::available().flat_map(|kernel| narrow_and_wide.map(|c| (kernel, c)))
    {
        for (k, n) in [(2, 3), (3, 5), (4, 32)] {
            let threshold = Threshold::new(k, n).unwrap();
            let disperser = Disperser::new(threshold);
            let sealer = Sealer::on(cipher(&key), kernel);
            let macs: Vec<Mac> = (0..n).map(|x| Mac::on(cipher(&[x; 32]), kernel)).collect();
            for len in [0, 1, 4999, 5000, 5001, 10_000, 22_222] {
                let data = pattern(len);
                let mut alone = vec![Vec::new(); usize::from(n)];
                let mut expected = Vec::new();
                for (at, plain) in data.chunks(block).enumerate() {
                    let mut sealed = vec![0; plain.len()];
                    expected.push(Sealer::new(&key).seal(&nonces(at), plain, &mut sealed));
                    let shares = disperse(Kernel::best(), threshold, &sealed);
                    for ((all, share), mac) in alone.iter_mut().zip(shares).zip(&macs) {
                        expected.push(mac.tag(&nonces(at), &share));
                        all.extend(share);
                    }
                }
                let mut shares = vec![vec![0xee; alone[0].len()]; usize::from(n)];
                let mut tags = vec![[0xee; 16]; expected.len()];
                let mut slices: Vec<&mut [u8]> = shares.iter_mut().map(Vec::as_mut_slice).collect();
                let keys = (&sealer, macs.as_slice());
                disperser.seal_and_disperse(keys, nonces, (&data, block), &mut slices, &mut tags).unwrap();
                assert!(tags == expected && shares == alone, "{k} of {n}, {len} bytes, {kernel:?}");
            }
        }
    }
}

#[test]
fn a_run_of_blocks_takes_buffers_that_fit_and_no_others() {
    let (disperser, sealer) = (Disperser::new(Threshold::new(2, 3).unwrap()), Sealer::new(&[1; 32]));
    let macs: Vec<Mac> = (0..3).map(|x| Mac::new(&[x; 32])).collect();
    let run = |macs: &[Mac], lens: &[usize], rows: usize| {
        let mut shares: Vec<Vec<u8>> = lens.iter().map(|len| vec![0; *len]).collect();
        let mut slices: Vec<&mut [u8]> = shares.iter_mut().map(Vec::as_mut_slice).collect();
        let mut tags = vec![[0; 16]; rows];
        disperser.seal_and_disperse((&sealer, macs), |_| [0; 12], (&[7; 25], 10), &mut slices, &mut tags)
    };
    let count = |expected, actual| Err(CodecError::Count { expected, actual });
    assert_eq!(run(&macs, &[13, 13, 13], 12), Ok(()));
    assert_eq!(run(&macs, &[13, 13, 12], 12), Err(CodecError::Lengths));
    assert_eq!(run(&macs, &[14, 13, 13], 12), Err(CodecError::Lengths));
    assert_eq!(run(&macs, &[13, 13], 12), count(3, 2));
    assert_eq!(run(&macs[1..], &[13, 13, 13], 12), count(3, 2));
    assert_eq!(run(&macs, &[13, 13, 13], 11), count(12, 11));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_k_in_any_order_give_the_data(
        (k, n) in (2u8..=32).prop_flat_map(|n| (2..=n, Just(n))),
        data in proptest::collection::vec(any::<u8>(), 0..600),
        order in Just((1..=32u8).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let threshold = Threshold::new(k, n).unwrap();
        let points: Vec<u8> = order.into_iter().filter(|x| *x <= n).take(usize::from(k)).collect();
        let expected = disperse(Kernel::PORTABLE, threshold, &data);
        for kernel in Kernel::available() {
            let shares = disperse(kernel, threshold, &data);
            prop_assert_eq!(&shares, &expected);
            prop_assert_eq!(&gather(kernel, threshold, &shares, &points, data.len()), &data);
        }
    }
}
