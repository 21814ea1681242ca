//! What is larger than the caches: it takes another way through the machine, and must be the same.

use super::*;
use crate::codec::share::FAR;

/// Just beyond, for five shares; no round number.
const LARGE: usize = (5 << 20) + 321;

#[test]
fn large_secrets_are_shared_as_small_ones_are() {
    let secret = pattern(LARGE);
    for (k, n) in [(2, 5), (3, 5), (4, 6), (5, 5), (6, 7)] {
        let threshold = Threshold::new(k, n).unwrap();
        let shares = split(Kernel::best(), threshold, &secret);
        // By the definition at places all over, and with every kernel as a whole.
        let some: Vec<usize> = (0..LARGE).step_by(4999).chain([1, 63, 64, LARGE - 2, LARGE - 1]).collect();
        for points in [(1..=k).collect::<Vec<u8>>(), (n - k + 1..=n).collect()] {
            for &at in &some {
                let bytes: Vec<(u8, &[u8])> =
                    points.iter().map(|&x| (x, &shares[usize::from(x) - 1][at..at + 1])).collect();
                assert_eq!(interpolate(&bytes, 0), [secret[at]], "{k} of {n} at {at}");
            }
            assert_eq!(combine(Kernel::best(), threshold, &shares, &points), secret, "{k} of {n}");
            assert_eq!(combine(Kernel::PORTABLE, threshold, &shares, &points), secret, "{k} of {n}");
        }
    }
}

#[test]
fn buffers_may_begin_anywhere() {
    let threshold = Threshold::new(3, 5).unwrap();
    let secret = pattern(LARGE);
    for offsets in [[1; 5], [63; 5], [0, 1, 2, 3, 4]] {
        let mut buffers = vec![vec![0; LARGE + 64]; 5];
        let mut slices: Vec<&mut [u8]> =
            buffers.iter_mut().zip(offsets).map(|(buffer, at)| &mut buffer[at..at + LARGE]).collect();
        Splitter::new(threshold).split(&secret, &mut RandomStream::under(&[7; 32]), &mut slices).unwrap();
        for (buffer, at) in buffers.iter().zip(offsets) {
            assert!(buffer[..at].iter().chain(&buffer[at + LARGE..]).all(|byte| *byte == 0), "{offsets:?}");
        }
        let shares: Vec<Vec<u8>> =
            buffers.iter().zip(offsets).map(|(buffer, at)| buffer[at..at + LARGE].to_vec()).collect();
        assert_eq!(combine(Kernel::PORTABLE, threshold, &shares, &[2, 4, 5]), secret, "{offsets:?}");
    }
}

/// The secret, or the share, is alone larger than the caches.
#[test]
fn what_is_combined_or_rebuilt_past_the_caches_is_the_same_wherever_it_begins() {
    const AROUND: u8 = 0xee;
    let secret = pattern(FAR + 321);
    for (k, n) in [(2, 3), (3, 5)] {
        let threshold = Threshold::new(k, n).unwrap();
        let shares = split(Kernel::best(), threshold, &secret);
        let points = points_at(&(n - k + 1..=n).collect::<Vec<u8>>());
        let chosen: Vec<&[u8]> = points.iter().map(|point| shares[point.place()].as_slice()).collect();
        let mut buffer = vec![AROUND; secret.len() + 128];
        for offset in [0, 1, 63] {
            let at = buffer.as_ptr().align_offset(64) + offset;
            let range = at..at + secret.len();
            let mut check = |expected: &[u8], write: &dyn Fn(&mut [u8])| {
                buffer.fill(AROUND);
                write(&mut buffer[range.clone()]);
                assert!(buffer[range.clone()] == *expected, "{k} of {n} from {offset}");
                assert!(buffer[..range.start].iter().chain(&buffer[range.end..]).all(|byte| *byte == AROUND));
            };
            let combiner = Combiner::new(threshold, &points).unwrap();
            check(&secret, &|out| combiner.combine(&chosen, out).unwrap());
            let rebuilder = Rebuilder::new(threshold, &points, points_at(&[1])[0]).unwrap();
            check(&shares[0], &|out| rebuilder.rebuild(&chosen, out).unwrap());
        }
        assert!(combine(Kernel::PORTABLE, threshold, &shares, &(1..=k).collect::<Vec<u8>>()) == secret);
    }
}

/// No part of the random stream is given twice: neither within a split, nor by one to the next.
#[test]
fn no_random_byte_serves_twice() {
    for k in [2, 3, 4] {
        let threshold = Threshold::new(k, 5).unwrap();
        let mut random = RandomStream::under(&[7; 32]);
        let mut seen = std::collections::HashSet::new();
        // Whole blocks of the stream, so that they lie at every sixteenth place.
        for len in [LARGE / 16 * 16, 112, LARGE / 16 * 16] {
            let mut shares = vec![vec![0; len]; 5];
            let mut slices: Vec<&mut [u8]> = shares.iter_mut().map(Vec::as_mut_slice).collect();
            Splitter::new(threshold).split(&vec![0; len], &mut random, &mut slices).unwrap();
            let drawn = shares[..usize::from(k) - 1].iter().flat_map(|share| share.as_chunks::<16>().0);
            assert!(drawn.into_iter().all(|block| seen.insert(*block)), "{k} of 5");
        }
    }
}
