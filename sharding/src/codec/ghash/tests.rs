use super::*;

/// The definition, bit by bit (SP 800-38D, section 6.3): bit 0 is the leftmost.
fn defined_product(x: u128, y: u128) -> u128 {
    let (mut sum, mut v) = (0, y);
    for i in 0..128 {
        if x >> (127 - i) & 1 == 1 {
            sum ^= v;
        }
        v = v >> 1 ^ if v & 1 == 1 { 0xe1 << 120 } else { 0 };
    }
    sum
}

fn defined(h: &[u8; 16], data: &[u8]) -> u128 {
    data.chunks(BLOCK).fold(0, |state, bytes| defined_product(state ^ block(bytes), u128::from_be_bytes(*h)))
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 167 + i / 256 * 31 + 5) as u8).collect()
}

#[test]
fn every_kernel_gives_the_hash_of_the_definition_for_every_length() {
    let data = pattern(3 * POWERS * BLOCK + 70);
    for h in [[0x80; 16], [0xff; 16], pattern(16).try_into().unwrap(), [0; 16]] {
        let hashes: Vec<Ghash> = Kernel::available().map(|kernel| Ghash::new(&h, kernel)).collect();
        let mut state = 0;
        for len in 0..=data.len() {
            let whole = len / BLOCK * BLOCK;
            if len > 0 && len % BLOCK == 0 {
                state = defined_product(state ^ block(&data[len - BLOCK..len]), u128::from_be_bytes(h));
            }
            let mut expected = state;
            if len > whole {
                let last = block(&data[whole..len]);
                expected = defined_product(state ^ last, u128::from_be_bytes(h));
            }
            for hash in &hashes {
                let mut given = 0;
                hash.absorb(&mut given, &data[..len]);
                assert_eq!(given, expected, "{:?}, {len} bytes", hash.kernel);
            }
        }
        assert_eq!(state, defined(&h, &data[..data.len() / BLOCK * BLOCK]));
    }
}

#[test]
fn parts_of_whole_blocks_give_the_hash_of_the_whole() {
    let (h, data) = (pattern(16).try_into().unwrap(), pattern(5000));
    for kernel in Kernel::available() {
        let hash = Ghash::new(&h, kernel);
        let mut state = 0;
        let mut rest = data.as_slice();
        for cut in [0, 16, 32, 1024, 1040, 2032, 48] {
            let (part, after) = rest.split_at(cut);
            hash.absorb(&mut state, part);
            rest = after;
        }
        hash.absorb(&mut state, rest);
        assert_eq!(state, defined(&h, &data), "{kernel:?}");
    }
}
