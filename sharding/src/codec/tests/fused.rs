//! What is larger than the caches: it takes another way through the machine, and must be the same.

use super::*;

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
