//! Tags and seals against NIST's vectors and against `ring`.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::pattern;
use crate::codec::cipher::Cipher;
use crate::codec::ghash::Kernel;
use crate::codec::{Mac, Sealer};

const KEY: [u8; 32] = [0x5a; 32];
const NONCE: [u8; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

/// Every kernel of the hash with every kind of AES.
fn combinations(key: &[u8; 32]) -> Vec<(String, Cipher, Kernel)> {
    Kernel::available()
        .flat_map(|kernel| {
            [("wide", Cipher::new(key)), ("narrow", Cipher::narrow(key))]
                .map(|(name, cipher)| (format!("{kernel:?}, {name}"), cipher, kernel))
        })
        .collect()
}

fn macs(key: &[u8; 32]) -> Vec<(String, Mac)> {
    let combinations = combinations(key).into_iter();
    combinations.map(|(name, cipher, kernel)| (name, Mac::on(cipher, kernel))).collect()
}

fn sealers(key: &[u8; 32]) -> Vec<(String, Sealer)> {
    let combinations = combinations(key).into_iter();
    combinations.map(|(name, cipher, kernel)| (name, Sealer::on(cipher, kernel))).collect()
}

/// Ciphertext and tag according to `ring`.
fn ring(additional: &[u8], plain: &[u8]) -> (Vec<u8>, [u8; 16]) {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &KEY).unwrap());
    let mut text = plain.to_vec();
    let nonce = Nonce::assume_unique_for_key(NONCE);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(additional), &mut text).unwrap();
    (text, tag.as_ref().try_into().unwrap())
}

/// All short ones, and those around the edges of every step, group and stride.
fn lengths() -> impl Iterator<Item = usize> {
    let edges = [1024, 2048, 4096, 4096 + 512, 8192, 65536].into_iter();
    (0..1100).chain(edges.flat_map(|edge| edge - 33..=edge + 33))
}

fn hex<const N: usize>(text: &str) -> [u8; N] {
    let digits = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap();
    assert_eq!(text.len(), 2 * N);
    std::array::from_fn(digits)
}

#[test]
fn tags_are_those_of_nist() {
    // CAVP, gcmEncryptExtIV256.rsp: keys of 256 bits, no plaintext, 128 bits of additional data.
    let key = hex("78dc4e0aaf52d935c3c01eea57428f00ca1fd475f5da86a49c8dd73d68c8e223");
    let data: [u8; 16] = hex("b96baa8c1c75a671bfb2d08d06be5f36");
    for (name, mac) in macs(&key) {
        let tag = mac.tag(&hex("d79cf22d504cc793c3fb6c8a"), &data);
        assert_eq!(tag, hex("3e5d486aa2e30b22e040b85723a06e76"), "{name}");
    }
}

#[test]
fn seals_are_those_of_the_specification() {
    // McGrew and Viega, The Galois/Counter Mode of Operation, appendix B, test cases 13 to 15.
    for (name, sealer) in sealers(&[0; 32]) {
        let mut cipher = [0; 16];
        assert_eq!(sealer.seal(&[0; 12], &[], &mut []), hex("530f8afbc74536b9a963b4f1c4cb738b"), "{name}");
        let tag = sealer.seal(&[0; 12], &[0; 16], &mut cipher);
        assert_eq!(cipher, hex("cea7403d4d606b6e074ec5d3baf39d18"), "{name}");
        assert_eq!(tag, hex("d0d1c8a799996bf0265b98b5d48ab919"), "{name}");
    }
    let plain: [u8; 64] = hex(concat!(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72",
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255"
    ));
    let sealed: [u8; 64] = hex(concat!(
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa",
        "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad"
    ));
    for (name, sealer) in sealers(&hex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308")) {
        let mut cipher = [0; 64];
        let tag = sealer.seal(&hex("cafebabefacedbaddecaf888"), &plain, &mut cipher);
        assert_eq!(cipher, sealed, "{name}");
        assert_eq!(tag, hex("b094dac5d93471bdec1a502270e3cc6c"), "{name}");
    }
}

#[test]
fn tags_are_those_of_ring_for_every_length() {
    let data = pattern(65600);
    let macs = macs(&KEY);
    for len in lengths() {
        let (_, expected) = ring(&data[..len], &[]);
        for (name, mac) in &macs {
            assert_eq!(mac.tag(&NONCE, &data[..len]), expected, "{name}, {len} bytes");
        }
    }
}

#[test]
fn seals_are_those_of_ring_for_every_length_and_open() {
    let data = pattern(65600);
    let sealers = sealers(&KEY);
    for len in lengths() {
        let plain = &data[..len];
        let (expected, expected_tag) = ring(&[], plain);
        for (name, sealer) in &sealers {
            let mut cipher = vec![0; len];
            assert_eq!(sealer.seal(&NONCE, plain, &mut cipher), expected_tag, "{name}, {len} bytes");
            assert!(cipher == expected, "{name}, {len} bytes");
            let mut opened = vec![0; len];
            assert!(sealer.open(&NONCE, &cipher, &mut opened, &expected_tag), "{name}, {len} bytes");
            assert!(opened == plain, "{name}, {len} bytes");
        }
    }
}

#[test]
fn what_was_changed_by_one_bit_is_refused_and_leaves_nothing() {
    let plain = pattern(4200);
    for (name, sealer) in sealers(&KEY) {
        let mut cipher = vec![0; plain.len()];
        let tag = sealer.seal(&NONCE, &plain, &mut cipher);
        let mut opened = vec![1; plain.len()];
        for at in [0, 15, 16, 511, 512, 4095, 4096, 4199] {
            cipher[at] ^= 1 << (at % 8);
            assert!(!sealer.open(&NONCE, &cipher, &mut opened, &tag), "{name}, byte {at}");
            assert!(opened.iter().all(|&byte| byte == 0));
            cipher[at] ^= 1 << (at % 8);
        }
        for bit in 0..128 {
            let mut forged = tag;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(!sealer.open(&NONCE, &cipher, &mut opened, &forged), "{name}, bit {bit} of the tag");
        }
        let mut other = NONCE;
        other[11] ^= 1;
        assert!(!sealer.open(&other, &cipher, &mut opened, &tag));
        assert!(sealer.open(&NONCE, &cipher, &mut opened, &tag) && opened == plain);
    }
}

#[test]
fn a_tag_is_of_one_key_one_nonce_and_one_message() {
    let (mac, data) = (Mac::new(&KEY), pattern(100));
    let tag = mac.tag(&NONCE, &data);
    assert!(mac.verify(&NONCE, &data, &tag));
    assert!(!mac.verify(&[0; 12], &data, &tag) && !Mac::new(&[1; 32]).verify(&NONCE, &data, &tag));
    // Padding is not part of a message.
    assert!(!mac.verify(&NONCE, &[data.as_slice(), &[0]].concat(), &tag));
    assert!(!mac.verify(&NONCE, &data[..99], &tag));
}

#[test]
fn the_counter_of_gcm_wraps_in_its_last_32_bits_alone() {
    let zeros = [0; 2048];
    let (mut wide, mut narrow) = ([0; 2048], [0; 2048]);
    for from in [u32::MAX - 70, u32::MAX - 31, u32::MAX - 2, u32::MAX] {
        let next = Cipher::new(&KEY).xor(&NONCE, from, &zeros, &mut wide);
        assert_eq!(Cipher::narrow(&KEY).xor(&NONCE, from, &zeros, &mut narrow), next);
        assert_eq!(next, from.wrapping_add(128));
        assert!(wide == narrow, "{from}");
    }
}
