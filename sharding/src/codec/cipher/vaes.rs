//! AES on four blocks per instruction, eight of which are under way at once.

use std::arch::x86_64::*;

use zeroize::Zeroizing;

use super::{BLOCK, NONCE_LEN, numbered};

const ROUNDS: usize = 14;
/// Blocks per step: eight vectors of four.
const STEP: usize = 32;

/// The round keys.
pub(super) struct Wide(Zeroizing<[[u8; 16]; ROUNDS + 1]>);

impl Wide {
    /// `None` where the machine cannot.
    pub(super) fn new(key: &[u8; 32]) -> Option<Wide> {
        let able = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("aes");
        // SAFETY: AES is there, as just asked.
        able.then(|| Wide(unsafe { expand(key) }))
    }

    /// Writes whole steps of the random stream from block `counter` on; returns how many blocks.
    pub(super) fn stream(&self, counter: u64, blocks: &mut [[u8; BLOCK]]) -> usize {
        let (steps, _) = blocks.as_chunks_mut::<STEP>();
        // SAFETY: `new` saw AVX-512F, VAES and AES.
        unsafe { stream(&self.0, counter, steps) };
        steps.len() * STEP
    }

    /// Adds whole steps of the key stream of GCM from `counter` on; returns how many bytes.
    pub(super) fn xor(&self, nonce: &[u8; NONCE_LEN], counter: u32, from: &[u8], to: &mut [u8]) -> usize {
        let (from, _) = from.as_chunks::<{ STEP * BLOCK }>();
        let (to, _) = to.as_chunks_mut::<{ STEP * BLOCK }>();
        // SAFETY: `new` saw AVX-512F, AVX-512BW, VAES and AES.
        unsafe { xor(&self.0, numbered(nonce, counter), from, to) };
        from.len().min(to.len()) * STEP * BLOCK
    }
}

/// FIPS 197, section 5.2.
#[target_feature(enable = "aes")]
fn expand(key: &[u8; 32]) -> Zeroizing<[[u8; 16]; ROUNDS + 1]> {
    let mut keys = Zeroizing::new([[0; 16]; ROUNDS + 1]);
    keys[0].copy_from_slice(&key[..16]);
    keys[1].copy_from_slice(&key[16..]);
    let mut even = load(&keys[0]);
    let mut odd = load(&keys[1]);
    for round in 2..=ROUNDS {
        if round % 2 == 0 {
            // The instruction wants its round constant in its own bits.
            let word = match round {
                2 => _mm_aeskeygenassist_si128::<0x01>(odd),
                4 => _mm_aeskeygenassist_si128::<0x02>(odd),
                6 => _mm_aeskeygenassist_si128::<0x04>(odd),
                8 => _mm_aeskeygenassist_si128::<0x08>(odd),
                10 => _mm_aeskeygenassist_si128::<0x10>(odd),
                12 => _mm_aeskeygenassist_si128::<0x20>(odd),
                _ => _mm_aeskeygenassist_si128::<0x40>(odd),
            };
            even = _mm_xor_si128(prefix_sums(even), _mm_shuffle_epi32::<0xff>(word));
            store(&mut keys[round], even);
        } else {
            let word = _mm_shuffle_epi32::<0xaa>(_mm_aeskeygenassist_si128::<0>(even));
            odd = _mm_xor_si128(prefix_sums(odd), word);
            store(&mut keys[round], odd);
        }
    }
    keys
}

/// Each 32-bit word plus (xor) all before it.
#[target_feature(enable = "sse2")]
fn prefix_sums(words: __m128i) -> __m128i {
    let pairs = _mm_xor_si128(words, _mm_slli_si128::<4>(words));
    _mm_xor_si128(pairs, _mm_slli_si128::<8>(pairs))
}

#[target_feature(enable = "sse2")]
fn load(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: 16 bytes are there; unaligned loads are allowed.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "sse2")]
fn store(bytes: &mut [u8; 16], value: __m128i) {
    // SAFETY: 16 bytes are there; unaligned stores are allowed.
    unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), value) }
}

/// All of AES on every block; the plaintext is already plus the first round key.
#[target_feature(enable = "avx512f,vaes")]
fn encipher(keys: &[__m512i; ROUNDS + 1], blocks: &mut [__m512i; STEP / 4]) {
    for key in &keys[1..ROUNDS] {
        for block in blocks.iter_mut() {
            *block = _mm512_aesenc_epi128(*block, *key);
        }
    }
    for block in blocks.iter_mut() {
        *block = _mm512_aesenclast_epi128(*block, keys[ROUNDS]);
    }
}

#[target_feature(enable = "avx512f,vaes,aes")]
fn stream(keys: &[[u8; 16]; ROUNDS + 1], counter: u64, steps: &mut [[[u8; BLOCK]; STEP]]) {
    let keys: [__m512i; ROUNDS + 1] = std::array::from_fn(|round| _mm512_broadcast_i32x4(load(&keys[round])));
    let four = _mm512_set_epi64(0, 4, 0, 4, 0, 4, 0, 4);
    let counter = counter as i64;
    // Counters are little-endian in the first half of a block.
    let mut next = _mm512_add_epi64(
        _mm512_set_epi64(0, 3, 0, 2, 0, 1, 0, 0),
        _mm512_set_epi64(0, counter, 0, counter, 0, counter, 0, counter),
    );
    for step in steps {
        let mut blocks: [__m512i; STEP / 4] = std::array::from_fn(|_| {
            let block = _mm512_xor_si512(next, keys[0]);
            next = _mm512_add_epi64(next, four);
            block
        });
        encipher(&keys, &mut blocks);
        for (block, out) in blocks.iter().zip(step.as_chunks_mut::<4>().0) {
            // SAFETY: four blocks of 16 bytes are there; unaligned stores are allowed.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), *block) };
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,vaes,aes")]
fn xor(
    keys: &[[u8; 16]; ROUNDS + 1],
    first: [u8; BLOCK],
    from: &[[u8; STEP * BLOCK]],
    to: &mut [[u8; STEP * BLOCK]],
) {
    let keys: [__m512i; ROUNDS + 1] = std::array::from_fn(|round| _mm512_broadcast_i32x4(load(&keys[round])));
    let four = _mm512_set_epi32(4, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0);
    // Counters are big-endian in the last quarter of a block, and wrap there (inc₃₂).
    let turn = _mm512_broadcast_i32x4(_mm_set_epi8(12, 13, 14, 15, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
    let mut next = _mm512_add_epi32(
        _mm512_shuffle_epi8(_mm512_broadcast_i32x4(load(&first)), turn),
        _mm512_set_epi32(3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0),
    );
    for (from, to) in from.iter().zip(to) {
        let mut blocks: [__m512i; STEP / 4] = std::array::from_fn(|_| {
            let block = _mm512_xor_si512(_mm512_shuffle_epi8(next, turn), keys[0]);
            next = _mm512_add_epi32(next, four);
            block
        });
        encipher(&keys, &mut blocks);
        for ((block, from), to) in blocks.iter().zip(from.as_chunks::<64>().0).zip(to.as_chunks_mut::<64>().0)
        {
            // SAFETY: 64 bytes are there on either side; unaligned loads and stores are allowed.
            unsafe {
                let text = _mm512_loadu_si512(from.as_ptr().cast());
                _mm512_storeu_si512(to.as_mut_ptr().cast(), _mm512_xor_si512(text, *block));
            }
        }
    }
}
