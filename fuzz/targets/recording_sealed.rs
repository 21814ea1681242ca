//! Sealed recordings that were tampered with: what is given out is what was sealed, or nothing.
#![no_main]

use intake::crypt4gh::SecretKey;
use libfuzzer_sys::fuzz_target;
use model::SeededEntropy;
use recording::sealed::{Ending, OpenError, Opener, Sealer};

fn open(stream: &[u8], cut: usize) -> (Vec<u8>, Result<Ending, OpenError>) {
    let mut opener = Opener::new(SecretKey::from_bytes(&[7; 32]));
    let mut plain = Vec::new();
    for piece in stream.chunks(cut) {
        match opener.push(piece) {
            Ok(more) => plain.extend_from_slice(&more),
            Err(error) => return (plain, Err(error)),
        }
    }
    (plain, opener.finish())
}

fuzz_target!(|data: &[u8]| {
    let [mode, at, cut, data @ ..] = data else { return };
    let cut = usize::from(*cut) + 1;
    if mode % 4 == 0 {
        open(data, cut);
        return;
    }
    let reader = SecretKey::from_bytes(&[7; 32]).public();
    let (mut sealer, mut stream) = Sealer::begin(&reader, &SeededEntropy::new(3)).expect("entropy");
    sealer.seal(b"the screen ", false, &mut stream);
    sealer.seal(b"of nobody", true, &mut stream);
    let whole = b"the screen of nobody";
    let good = stream.clone();
    match mode % 4 {
        1 => stream.truncate(usize::from(*at)),
        2 => stream.extend_from_slice(data),
        _ => {
            for (place, byte) in stream.iter_mut().skip(usize::from(*at)).zip(data) {
                *place ^= byte;
            }
        }
    }
    let (plain, ending) = open(&stream, cut);
    assert!(whole.starts_with(plain.as_slice()));
    if ending == Ok(Ending::Whole) {
        assert_eq!((plain.as_slice(), &stream), (&whole[..], &good));
    }
});
