//! The GA4GH file encryption standard, Crypt4GH 1.0 (samtools/hts-specs, `crypt4gh.pdf`): X25519
//! and ChaCha20-Poly1305, in segments of 64 KiB.
//!
//! Both directions are push machines: bytes in, bytes out, whatever the pieces, with at most one
//! segment held back.
//!
//! The format protects each segment by itself. It does **not** tell a stream that ends early
//! between two segments, or one whose segments were swapped, from a whole one: whoever sends a
//! file must state its size (and better its digest) beside it, and whoever receives it must
//! compare. Edit lists, which would make parts of a file invisible, are refused by name.

mod decrypt;
mod encrypt;
mod header;
mod keys;

pub use decrypt::{Decryptor, OpenError};
pub use encrypt::Encryptor;
pub use header::HeaderError;
pub use keys::{KeyTextError, PublicKey, SecretKey};

/// Plain bytes of a whole segment.
pub const SEGMENT: usize = 65_536;
/// What encryption adds to a segment: nonce and tag.
pub const SEGMENT_OVERHEAD: usize = NONCE + TAG;
const NONCE: usize = 12;
const TAG: usize = 16;
const CIPHER_SEGMENT: usize = SEGMENT + SEGMENT_OVERHEAD;

/// How long the stream is that [`Encryptor`] makes of `plain` bytes.
pub fn encrypted_len(plain: u64) -> u64 {
    let segments = plain.div_ceil(SEGMENT as u64);
    plain + segments * SEGMENT_OVERHEAD as u64 + header::OWN_LEN as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::SeededEntropy;
    use proptest::prelude::*;

    fn reader() -> SecretKey {
        SecretKey::from_bytes(&[7; 32])
    }

    fn encrypt(plain: &[u8]) -> Vec<u8> {
        let mut encryptor = Encryptor::new(&reader().public(), &SeededEntropy::new(5)).unwrap();
        let mut stream = encryptor.header().to_vec();
        stream.extend(encryptor.push(plain));
        stream.extend(encryptor.finish());
        stream
    }

    fn decrypt(pieces: &[&[u8]]) -> Result<Vec<u8>, OpenError> {
        let mut decryptor = Decryptor::new(reader());
        let mut plain = Vec::new();
        for piece in pieces {
            plain.extend_from_slice(&decryptor.push(piece)?);
        }
        plain.extend_from_slice(&decryptor.finish()?);
        assert_eq!(decryptor.plain_len(), plain.len() as u64);
        Ok(plain)
    }

    /// Cuts `bytes` at the given places, taken modulo its length.
    fn cut<'a>(bytes: &'a [u8], places: &[usize]) -> Vec<&'a [u8]> {
        let mut places: Vec<usize> = places.iter().map(|p| p % (bytes.len() + 1)).collect();
        places.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for place in places {
            pieces.push(&bytes[from..place]);
            from = place;
        }
        pieces.push(&bytes[from..]);
        pieces
    }

    #[test]
    fn sizes_around_the_segment_survive() {
        for size in [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT, 3 * SEGMENT + 5] {
            let plain: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let stream = encrypt(&plain);
            assert_eq!(stream.len() as u64, encrypted_len(size as u64));
            assert_eq!(decrypt(&[&stream]).unwrap(), plain, "{size}");
        }
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let stream = encrypt(b"GRCh38");
        for at in 0..stream.len() {
            for bit in 0..8 {
                let mut bad = stream.clone();
                bad[at] ^= 1 << bit;
                assert!(decrypt(&[&bad]).is_err(), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn every_cut_within_a_segment_is_refused() {
        let stream = encrypt(b"GRCh38");
        for end in 0..stream.len() {
            // With no segment at all it is an empty file: the sender's size tells (see above).
            if end != header::OWN_LEN {
                assert!(decrypt(&[&stream[..end]]).is_err(), "{end}");
            }
        }
        let stream = encrypt(&vec![1; 2 * SEGMENT]);
        assert!(decrypt(&[&stream[..stream.len() - 1]]).is_err());
    }

    #[test]
    fn a_cut_between_segments_shows_in_the_length_only() {
        let stream = encrypt(&vec![1; 2 * SEGMENT]);
        assert_eq!(decrypt(&[&stream[..stream.len() - CIPHER_SEGMENT]]).unwrap().len(), SEGMENT);
    }

    #[test]
    fn an_error_stays() {
        let mut decryptor = Decryptor::new(reader());
        let first = decryptor.push(b"not a crypt4gh file").unwrap_err();
        assert_eq!(first, OpenError::Header(HeaderError::NotCrypt4gh));
        assert_eq!(decryptor.push(&encrypt(b"x")).unwrap_err(), first);
        assert_eq!(decryptor.finish().unwrap_err(), first);
    }

    #[test]
    fn another_reader_is_told_so() {
        let mut decryptor = Decryptor::new(SecretKey::from_bytes(&[8; 32]));
        let error = decryptor.push(&encrypt(b"x")).unwrap_err();
        assert_eq!(error, OpenError::Header(HeaderError::NotForUs));
    }

    #[test]
    fn a_derived_key_opens_nothing_of_the_other() {
        let derived = reader().derived("records");
        assert_eq!(derived.public(), reader().derived("records").public());
        assert_ne!(derived.public(), reader().public());
        assert_ne!(derived.public(), reader().derived("other").public());
        let mut decryptor = Decryptor::new(derived);
        let error = decryptor.push(&encrypt(b"x")).unwrap_err();
        assert_eq!(error, OpenError::Header(HeaderError::NotForUs));
    }

    #[test]
    fn a_key_without_effect_is_refused() {
        assert!(Encryptor::new(&PublicKey::from_bytes([0; 32]), &SeededEntropy::new(1)).is_err());
    }

    #[test]
    fn key_files_survive_and_rubbish_is_none() {
        let key = reader().public();
        assert_eq!(PublicKey::from_text(&key.to_text()), Ok(key));
        assert!(PublicKey::from_text("-----BEGIN CRYPT4GH PRIVATE KEY-----").is_err());
        assert!(!format!("{:?}", reader()).contains("[7"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn any_pieces_give_the_same(
            size in 0usize..200_000,
            there in prop::collection::vec(any::<usize>(), 0..12),
            back in prop::collection::vec(any::<usize>(), 0..12),
        ) {
            let plain: Vec<u8> = (0..size).map(|i| (i % 253) as u8).collect();
            let mut encryptor = Encryptor::new(&reader().public(), &SeededEntropy::new(5)).unwrap();
            let mut stream = encryptor.header().to_vec();
            for piece in cut(&plain, &there) {
                stream.extend(encryptor.push(piece));
            }
            stream.extend(encryptor.finish());
            prop_assert_eq!(&stream, &encrypt(&plain));
            prop_assert_eq!(decrypt(&cut(&stream, &back)).unwrap(), plain);
        }

        #[test]
        fn a_flipped_byte_of_a_long_stream_is_refused(at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut stream = encrypt(&[3; SEGMENT + 100]);
            let at = at.index(stream.len());
            stream[at] ^= 1 << bit;
            prop_assert!(decrypt(&[&stream]).is_err());
        }

        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..400), whole in any::<bool>()) {
            let stream = if whole { [b"crypt4gh\x01\0\0\0\x02\0\0\0".as_slice(), &bytes].concat() } else { bytes };
            let _ = decrypt(&[&stream]);
        }
    }
}
