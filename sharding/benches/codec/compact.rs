//! Mode `compact`: sealing, spreading, tagging.

use std::hint::black_box;

use reed_solomon_simd::ReedSolomonEncoder;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sharding::codec::{Disperser, Mac, Sealer};

use crate::contest::{Contestant, run};
use crate::peers::Peers;
use crate::shamir::copying;
use crate::{BLOCK, STREAM, macs, pattern, slices, threshold};

const NONCE: [u8; 12] = [0; 12];

pub fn tag(name: &str, _: &Peers) {
    let (data, mac, key) = (pattern(BLOCK), Mac::new(&[1; 32]), ring_key());
    let ours = Contestant::new("sharding", BLOCK, || {
        black_box(mac.tag(&NONCE, black_box(&data)));
    });
    let theirs = Contestant::new("ring (AES-256-GCM)", BLOCK, || {
        tag_by_ring(&key, black_box(&data));
    });
    run(name, vec![ours, theirs]);
}

pub fn seal(name: &str, _: &Peers) {
    let (data, sealer, key) = (pattern(BLOCK), Sealer::new(&[1; 32]), ring_key());
    let (mut to, mut in_place) = (vec![0; BLOCK], data.clone());
    let ours = Contestant::new("sharding", BLOCK, || {
        black_box(sealer.seal(&NONCE, black_box(&data), &mut to));
        black_box(&mut to);
    });
    let theirs = Contestant::new("ring (AES-256-GCM)", BLOCK, || {
        seal_by_ring(&key, black_box(&mut in_place));
    });
    run(name, vec![ours, theirs]);
}

pub fn encode_cache(name: &str, peers: &Peers) {
    let data = pattern(BLOCK);
    let mut all = vec![encode(&data)];
    all.extend(by_others(&data, peers));
    run(name, all);
}

pub fn encode_stream(name: &str, peers: &Peers) {
    let data = pattern(STREAM);
    let mut all = vec![encode(&data)];
    all.extend(by_others(&data, peers));
    run(name, all);
}

/// Blocks sealed, spread and their shares tagged, as a deposit does it: ciphertext of one block
/// lives in the cache only.
fn encode(data: &[u8]) -> Contestant<'_> {
    let (sealer, disperser, macs) = (Sealer::new(&[1; 32]), Disperser::new(threshold()), macs());
    let blocks = data.len() / BLOCK;
    let mut shares = vec![vec![0; blocks * disperser.piece_len(BLOCK)]; 5];
    let mut tags = vec![[0; 16]; blocks * 6];
    Contestant::new("sharding", data.len(), move || {
        let (data, keys) = ((black_box(data), BLOCK), (&sealer, macs.as_slice()));
        let done = disperser.seal_and_disperse(
            keys,
            |_| NONCE,
            data,
            &mut slices(&mut shares),
            black_box(&mut tags),
        );
        done.expect("shares");
        black_box(&mut shares);
    })
}

/// Parts of the work.
fn by_others<'a>(data: &'a [u8], peers: &'a Peers) -> Vec<Contestant<'a>> {
    let mut all = Vec::new();
    let mut in_place = data.to_vec();
    let key = ring_key();
    all.push(Contestant::new("ring, sealing only", data.len(), move || {
        for block in in_place.chunks_exact_mut(BLOCK) {
            seal_by_ring(&key, black_box(block));
        }
    }));
    // It wants pieces of even length.
    let piece = BLOCK.div_ceil(3).next_multiple_of(2);
    let mut encoder = ReedSolomonEncoder::new(3, 2, piece).expect("an encoder");
    let mut parity = vec![vec![0; piece]; 2];
    all.push(Contestant::new("reed-solomon-simd 3, spreading only", data.len(), move || {
        for block in black_box(data).chunks_exact(BLOCK) {
            let last = [&block[2 * piece..], &[0; 4][..3 * piece - BLOCK]].concat();
            for part in [&block[..piece], &block[piece..2 * piece], &last] {
                encoder.add_original_shard(part).expect("a piece");
            }
            let result = encoder.encode().expect("parity");
            for (to, from) in parity.iter_mut().zip(result.recovery_iter()) {
                to.copy_from_slice(from);
            }
        }
        black_box(&mut parity);
    }));
    let disperser = Disperser::new(threshold());
    let mut shares = vec![vec![0; disperser.piece_len(data.len())]; 5];
    all.push(Contestant::new("sharding, spreading only", data.len(), move || {
        disperser.disperse(black_box(data), &mut slices(&mut shares)).expect("shares");
        black_box(&mut shares);
    }));
    all.extend(peers.contestant("ISA-L, multiplying only", "isal-encode", data.len()));
    all.push(copying(data));
    all
}

fn ring_key() -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[1; 32]).expect("a key"))
}

pub fn tag_by_ring(key: &LessSafeKey, data: &[u8]) {
    let nonce = Nonce::assume_unique_for_key(NONCE);
    let _ = black_box(key.seal_in_place_separate_tag(nonce, Aad::from(data), &mut []).expect("a tag"));
}

fn seal_by_ring(key: &LessSafeKey, data: &mut [u8]) {
    let nonce = Nonce::assume_unique_for_key(NONCE);
    let _ = black_box(key.seal_in_place_separate_tag(nonce, Aad::empty(), data).expect("a tag"));
}
