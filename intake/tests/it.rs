//! What another implementation of Crypt4GH wrote, read by ours.

use intake::crypt4gh::{Decryptor, HeaderError, OpenError, SecretKey};

const READER: &[u8; 32] = include_bytes!("data/reader.sec");
const SHORT: &[u8] = include_bytes!("data/short.c4gh");
const SHORT_PLAIN: &[u8] = include_bytes!("data/short.txt");
const SEGMENTS: &[u8] = include_bytes!("data/segments.c4gh");
const EDIT_LIST: &[u8] = include_bytes!("data/edit-list-header.c4gh");

fn decrypt(stream: &[u8]) -> Result<Vec<u8>, OpenError> {
    let mut decryptor = Decryptor::new(SecretKey::from_bytes(READER));
    let mut plain = decryptor.push(stream)?.to_vec();
    plain.extend_from_slice(&decryptor.finish()?);
    Ok(plain)
}

#[test]
fn a_foreign_file_for_two_readers_opens() {
    assert_eq!(decrypt(SHORT).unwrap(), SHORT_PLAIN);
}

#[test]
fn a_foreign_file_of_several_segments_opens() {
    let expected: Vec<u8> = (0..66_536u64).map(|i| u8::try_from(((i * i) >> 8) & 255).unwrap()).collect();
    assert_eq!(decrypt(SEGMENTS).unwrap(), expected);
}

#[test]
fn a_foreign_edit_list_is_refused_by_name() {
    let error = decrypt(EDIT_LIST).unwrap_err();
    assert_eq!(error, OpenError::Header(HeaderError::EditList));
    assert!(error.to_string().contains("edit list"), "{error}");
}

#[test]
fn every_flipped_byte_of_a_foreign_file_is_refused() {
    for at in 0..SHORT.len() {
        let mut stream = SHORT.to_vec();
        stream[at] ^= 0x20;
        // The packet for the other reader is not ours to open, so damage there does no harm.
        if (20..128).contains(&at) {
            continue;
        }
        assert!(decrypt(&stream).is_err(), "byte {at}");
    }
}
