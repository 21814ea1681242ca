//! Crypt4GH: strangers' files, and good files that were tampered with.
#![no_main]

use intake::crypt4gh::{Decryptor, Encryptor, SecretKey};
use libfuzzer_sys::fuzz_target;
use model::SeededEntropy;

fn decrypt(stream: &[u8], cut: usize) -> Result<Vec<u8>, String> {
    let mut decryptor = Decryptor::new(SecretKey::from_bytes(&[7; 32]));
    let mut plain = Vec::new();
    for chunk in stream.chunks(cut) {
        plain.extend_from_slice(&decryptor.push(chunk).map_err(|e| e.to_string())?);
    }
    plain.extend_from_slice(&decryptor.finish().map_err(|e| e.to_string())?);
    assert_eq!(decryptor.plain_len(), plain.len() as u64);
    Ok(plain)
}

fuzz_target!(|data: &[u8]| {
    let [mode, at, cut, data @ ..] = data else { return };
    let cut = usize::from(*cut) + 1;
    if mode % 2 == 0 {
        assert_eq!(decrypt(data, cut), decrypt(data, usize::MAX));
        return;
    }
    let entropy = SeededEntropy::new(3);
    let mut encryptor =
        Encryptor::new(&SecretKey::from_bytes(&[7; 32]).public(), &entropy).expect("entropy");
    let mut stream = encryptor.header().to_vec();
    stream.extend(encryptor.push(b"the genome of nobody"));
    stream.extend(encryptor.finish());
    let good = stream.clone();
    for (place, byte) in stream.iter_mut().skip(usize::from(*at)).zip(data) {
        *place ^= byte;
    }
    let read = decrypt(&stream, cut);
    if stream == good {
        assert_eq!(read.as_deref(), Ok(&b"the genome of nobody"[..]));
    }
});
