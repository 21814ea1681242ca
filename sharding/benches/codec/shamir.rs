//! Mode `shamir`: splitting and combining.

use std::hint::black_box;

use chacha20::rand_core::SeedableRng;
use sharding::codec::{Combiner, Kernel, RandomStream, ShareIndex, Splitter};

use crate::contest::{Contestant, run};
use crate::peers::Peers;
use crate::{BLOCK, STREAM, macs, pattern, slices, threshold};

/// The last three: no weight is 1, as those of 1, 2 and 3 all are.
const POINTS: [u8; 3] = [3, 4, 5];
/// Peers that allocate for every byte; less is enough to know them.
const SMALL: usize = BLOCK / 4;

pub fn split_cache(name: &str, peers: &Peers) {
    let (secret, small) = (pattern(BLOCK), pattern(SMALL));
    let mut generator = chacha20::ChaCha20Rng::from_seed([1; 32]);
    let mut all: Vec<Contestant<'_>> = kernels().map(|kernel| split(kernel, &secret)).collect();
    all.push(Contestant::new("sharks 0.5", SMALL, || {
        black_box(sharks::Sharks(3).dealer(black_box(&small)).take(5).collect::<Vec<_>>());
    }));
    all.push(Contestant::new("blahaj 0.7", SMALL, || {
        black_box(blahaj::Sharks(3).dealer(black_box(&small)).take(5).collect::<Vec<_>>());
    }));
    all.push(Contestant::new("vsss-rs 6", SMALL, || {
        black_box(vsss_rs::Gf256::split_bytes(3, 5, black_box(&small), &mut generator).expect("a split"));
    }));
    all.extend(peers.contestant("libgfshare", "gfshare-split", BLOCK));
    all.extend(peers.contestant("ISA-L, multiplying only", "isal-split", BLOCK));
    all.push(copying(&secret));
    run(name, all);
}

pub fn split_stream(name: &str, peers: &Peers) {
    let secret = pattern(STREAM);
    let mut all = vec![split(Kernel::best(), &secret)];
    all.extend(peers.contestant("libgfshare", "gfshare-split", STREAM));
    all.extend(peers.contestant("ISA-L, multiplying only", "isal-split", STREAM));
    all.push(copying(&secret));
    run(name, all);
}

/// With a tag for every share.
pub fn split_auth_cache(name: &str, peers: &Peers) {
    let secret = &pattern(BLOCK);
    let (splitter, macs) = (Splitter::new(threshold()), macs());
    let mut random = RandomStream::under(&[1; 32]);
    let mut shares = vec![vec![0; BLOCK]; 5];
    let mut tags = [[0; 16]; 5];
    let mut all = vec![Contestant::new("sharding", BLOCK, || {
        let mut slices = slices(&mut shares);
        let done = splitter.split_and_tag(
            black_box(secret),
            &mut random,
            &mut slices,
            &macs,
            &[0; 12],
            black_box(&mut tags),
        );
        done.expect("a split");
        black_box(&mut shares);
    })];
    let key = ring::aead::UnboundKey::new(&ring::aead::AES_256_GCM, &[1; 32]).expect("a key");
    let key = ring::aead::LessSafeKey::new(key);
    let splitter = Splitter::new(threshold());
    let mut random = RandomStream::under(&[1; 32]);
    let mut shares = vec![vec![0; BLOCK]; 5];
    all.push(Contestant::new("the same with tags by ring", BLOCK, move || {
        splitter.split(black_box(secret), &mut random, &mut slices(&mut shares)).expect("a split");
        for share in &shares {
            crate::compact::tag_by_ring(&key, black_box(share));
        }
    }));
    all.extend(peers.contestant("libgfshare, without tags", "gfshare-split", BLOCK));
    run(name, all);
}

pub fn combine_cache(name: &str, peers: &Peers) {
    let shares = shares(BLOCK);
    let mut all: Vec<Contestant<'_>> = kernels().map(|kernel| combine(kernel, &shares)).collect();
    let small = pattern(SMALL);
    let theirs: Vec<sharks::Share> = sharks::Sharks(3).dealer(&small).take(5).skip(2).collect();
    all.push(Contestant::new("sharks 0.5", SMALL, move || {
        black_box(sharks::Sharks(3).recover(black_box(&theirs)).expect("a secret"));
    }));
    let theirs: Vec<blahaj::Share> = blahaj::Sharks(3).dealer(&small).take(5).skip(2).collect();
    all.push(Contestant::new("blahaj 0.7", SMALL, move || {
        black_box(blahaj::Sharks(3).recover(black_box(&theirs)).expect("a secret"));
    }));
    let tagged: Vec<Vec<u8>> = POINTS.map(|x| [&[x], &shares[usize::from(x) - 1][..SMALL]].concat()).to_vec();
    all.push(Contestant::new("vsss-rs 6", SMALL, move || {
        black_box(vsss_rs::Gf256::combine_bytes(black_box(&tagged)).expect("a secret"));
    }));
    all.extend(peers.contestant("libgfshare", "gfshare-combine", BLOCK));
    all.extend(peers.contestant("ISA-L, multiplying only", "isal-combine", BLOCK));
    all.push(copying(&shares[0]));
    run(name, all);
}

pub fn combine_stream(name: &str, peers: &Peers) {
    let shares = shares(STREAM);
    let mut all = vec![combine(Kernel::best(), &shares)];
    all.extend(peers.contestant("libgfshare", "gfshare-combine", STREAM));
    all.extend(peers.contestant("ISA-L, multiplying only", "isal-combine", STREAM));
    all.push(copying(&shares[0]));
    run(name, all);
}

/// What nobody beats.
pub fn copying(from: &[u8]) -> Contestant<'_> {
    let mut to = vec![0; from.len()];
    Contestant::new("memcpy", from.len(), move || {
        to.copy_from_slice(black_box(from));
        black_box(&mut to);
    })
}

fn split(kernel: Kernel, secret: &[u8]) -> Contestant<'_> {
    let splitter = Splitter::with_kernel(threshold(), kernel);
    let mut random = RandomStream::under(&[1; 32]);
    let mut shares = vec![vec![0; secret.len()]; 5];
    Contestant::new(format!("sharding ({})", kernel.name()), secret.len(), move || {
        splitter.split(black_box(secret), &mut random, &mut slices(&mut shares)).expect("a split");
        black_box(&mut shares);
    })
}

fn points() -> [ShareIndex; 3] {
    POINTS.map(|x| ShareIndex::new(x).expect("a point"))
}

fn combine(kernel: Kernel, shares: &[Vec<u8>]) -> Contestant<'_> {
    let combiner = Combiner::with_kernel(threshold(), &points(), kernel).expect("points");
    let chosen: Vec<&[u8]> = shares[2..].iter().map(Vec::as_slice).collect();
    let mut out = vec![0; shares[0].len()];
    Contestant::new(format!("sharding ({})", kernel.name()), out.len(), move || {
        combiner.combine(black_box(&chosen), &mut out).expect("a secret");
        black_box(&mut out);
    })
}

fn shares(len: usize) -> Vec<Vec<u8>> {
    let mut shares = vec![vec![0; len]; 5];
    let mut random = RandomStream::under(&[1; 32]);
    Splitter::new(threshold()).split(&pattern(len), &mut random, &mut slices(&mut shares)).expect("a split");
    shares
}

/// The best kernel first.
fn kernels() -> impl Iterator<Item = Kernel> {
    let best = Kernel::best();
    std::iter::once(best).chain(Kernel::available().into_iter().filter(move |kernel| *kernel != best))
}
