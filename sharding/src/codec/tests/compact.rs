//! The erasure code, and rebuilding of either kind of share.

use proptest::prelude::*;

use super::{combine, generator, interpolate, pattern, points_at, split, subsets};
use crate::codec::cipher::Cipher;
use crate::codec::ghash;
use crate::codec::share::FAR;
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

/// A run of blocks, and what is to come of it.
struct Run {
    threshold: Threshold,
    data: Vec<u8>,
    block: usize,
    shares: Vec<Vec<u8>>,
    tags: Vec<[u8; 16]>,
}

const KEY: [u8; 32] = [9; 32];

fn nonces(at: usize) -> [u8; 12] {
    std::array::from_fn(|byte| ((at + 1) >> (8 * (byte % 4))) as u8)
}

impl Run {
    /// Every block sealed, spread and tagged alone, one step after the other.
    fn new((k, n): (u8, u8), len: usize, block: usize) -> Run {
        let (threshold, data) = (Threshold::new(k, n).unwrap(), pattern(len));
        let (sealer, macs) = (Sealer::new(&KEY), (0..n).map(|x| Mac::new(&[x; 32])).collect::<Vec<_>>());
        let (mut shares, mut tags) = (vec![Vec::new(); usize::from(n)], Vec::new());
        for (at, plain) in data.chunks(block).enumerate() {
            let mut sealed = vec![0; plain.len()];
            tags.push(sealer.seal(&nonces(at), plain, &mut sealed));
            let pieces = disperse(Kernel::best(), threshold, &sealed);
            for ((share, piece), mac) in shares.iter_mut().zip(pieces).zip(&macs) {
                tags.push(mac.tag(&nonces(at), &piece));
                share.extend(piece);
            }
        }
        Run { threshold, data, block, shares, tags }
    }

    /// Does it at once, into buffers that begin `offsets` bytes (the first, the second, the first …)
    /// behind a line, and compares: also what lies around the buffers.
    fn check(&self, disperser: &Disperser, (sealer, macs): (&Sealer, &[Mac]), offsets: [usize; 2]) {
        const AROUND: u8 = 0xee;
        let len = self.shares[0].len();
        let mut buffers = vec![vec![AROUND; len + 256]; self.threshold.n()];
        let offsets = offsets.into_iter().cycle();
        let starts: Vec<usize> = buffers
            .iter()
            .zip(offsets)
            .map(|(buffer, offset)| buffer.as_ptr().align_offset(64) + offset)
            .collect();
        let mut slices: Vec<&mut [u8]> =
            buffers.iter_mut().zip(&starts).map(|(buffer, at)| &mut buffer[*at..at + len]).collect();
        let mut tags = vec![[AROUND; 16]; self.tags.len()];
        let what = (&*self.data, self.block);
        disperser.seal_and_disperse((sealer, macs), nonces, what, &mut slices, &mut tags).unwrap();
        let shown = (self.threshold, self.data.len(), self.block, &starts);
        assert!(tags == self.tags, "{shown:?}");
        for ((buffer, at), share) in buffers.iter().zip(&starts).zip(&self.shares) {
            assert!(buffer[*at..at + len] == *share, "{shown:?}");
            assert!(buffer[..*at].iter().chain(&buffer[at + len..]).all(|byte| *byte == AROUND), "{shown:?}");
        }
    }

    /// The plaintext, from the shares at `points`.
    fn opened(&self, points: &[u8]) -> Vec<u8> {
        let (sealer, width) = (Sealer::new(&KEY), self.threshold.n() + 1);
        let mut from = 0;
        let blocks = self.data.chunks(self.block).enumerate().flat_map(|(at, plain)| {
            let range = from..from + plain.len().div_ceil(self.threshold.k());
            from = range.end;
            let pieces: Vec<Vec<u8>> =
                self.shares.iter().map(|share| share[range.clone()].to_vec()).collect();
            let sealed = gather(Kernel::best(), self.threshold, &pieces, points, plain.len());
            let mut opened = vec![0; plain.len()];
            assert!(sealer.open(&nonces(at), &sealed, &mut opened, &self.tags[at * width]), "block {at}");
            opened
        });
        blocks.collect()
    }
}

#[test]
fn a_run_of_blocks_is_sealed_spread_and_tagged_as_each_would_be_alone() {
    let narrow_and_wide = [Cipher::narrow as fn(&[u8; 32]) -> Cipher, Cipher::new];
    for (k, n) in [(2, 3), (3, 5), (4, 32)] {
        for len in [0, 1, 4999, 5000, 5001, 10_000, 22_222] {
            let run = Run::new((k, n), len, 5000);
            let combinations =
                ghash::Kernel::available().flat_map(|kernel| narrow_and_wide.map(|c| (kernel, c)));
            for (kernel, cipher) in combinations {
                let sealer = Sealer::on(cipher(&KEY), kernel);
                let macs: Vec<Mac> = (0..n).map(|x| Mac::on(cipher(&[x; 32]), kernel)).collect();
                for disperser in Kernel::available() {
                    let disperser = Disperser::with_kernel(run.threshold, disperser);
                    run.check(&disperser, (&sealer, &macs), [0, 0]);
                }
            }
        }
    }
}

/// Whether this machine writes past its caches.
fn able() -> bool {
    #[cfg(target_arch = "x86_64")]
    return crate::codec::fused::copies();
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

#[test]
fn a_run_that_is_written_past_the_caches_is_the_same_wherever_buffers_begin() {
    for (k, n) in [(2, 2), (2, 3), (3, 5), (5, 9), (4, 32)] {
        for (len, block) in
            [(0, 5), (1, 5), (4, 5), (63, 7), (640, 64), (10_000, 5000), (22_222, 5000), (70_001, 65_536)]
        {
            let run = Run::new((k, n), len, block);
            let disperser = Disperser::new(run.threshold).far_from(0);
            assert_eq!(disperser.writes_past_caches(0), able());
            let macs: Vec<Mac> = (0..n).map(|x| Mac::new(&[x; 32])).collect();
            for offsets in [[0, 0], [1, 1], [63, 63], [0, 17], [32, 5]] {
                run.check(&disperser, (&Sealer::new(&KEY), &macs), offsets);
            }
        }
    }
}

/// As above, and really larger than the caches: nothing is set for the test.
#[test]
fn a_run_larger_than_the_caches_is_the_same_and_opens() {
    for ((k, n), block, offsets) in
        [((3, 5), 65_536, [0, 0]), ((2, 3), 50_001, [1, 63]), ((5, 9), 65_536, [16, 48])]
    {
        let len = FAR / usize::from(n) * usize::from(k) + 12_345;
        let run = Run::new((k, n), len, block);
        let disperser = Disperser::new(run.threshold);
        let bytes: usize = run.shares.iter().map(Vec::len).sum();
        assert!(bytes > FAR && disperser.writes_past_caches(bytes) == able());
        let macs: Vec<Mac> = (0..n).map(|x| Mac::new(&[x; 32])).collect();
        run.check(&disperser, (&Sealer::new(&KEY), &macs), offsets);
        for points in [(1..=k).collect::<Vec<u8>>(), (n - k + 1..=n).collect()] {
            assert!(run.opened(&points) == run.data, "{points:?}");
        }
    }
}

#[test]
fn what_the_caches_hold_is_not_written_past_them() {
    let threshold = Threshold::new(3, 5).unwrap();
    let disperser = Disperser::new(threshold);
    assert!(!disperser.writes_past_caches(FAR - 1));
    assert_eq!(disperser.writes_past_caches(FAR), able());
    for kernel in Kernel::available().into_iter().filter(|kernel| *kernel != Kernel::best()) {
        assert!(!Disperser::with_kernel(threshold, kernel).writes_past_caches(FAR), "{kernel:?}");
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
