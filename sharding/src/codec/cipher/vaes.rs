//! AES on four blocks per instruction, eight of which are under way at once.

use std::arch::x86_64::*;
use std::hint::black_box;

use zeroize::Zeroizing;

use super::{BLOCK, Hashed, NONCE_LEN, numbered};
use crate::codec::ghash::{Backlog, GROUP, Ghash, Hashing, Powers};
use crate::codec::kernel::ask_to_write;

const ROUNDS: usize = 14;
/// Blocks per step: eight vectors of four.
const STEP: usize = 32;
/// How many groups ahead memory is asked for what will be sealed.
const AHEAD: usize = 4;

/// The round keys.
pub(in crate::codec) struct Wide(Zeroizing<[[u8; 16]; ROUNDS + 1]>);

impl Wide {
    /// `None` where the machine cannot.
    pub(super) fn new(key: &[u8; 32]) -> Option<Wide> {
        let able = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("vpclmulqdq")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("aes");
        // SAFETY: AES is there, as just asked.
        able.then(|| Wide(unsafe { expand(key) }))
    }

    /// Writes whole steps of the random stream from block `counter` on, and does some of the
    /// backlog meanwhile; returns how many blocks.
    pub(super) fn stream(
        &self,
        counter: u64,
        blocks: &mut [[u8; BLOCK]],
        backlog: Option<&mut Backlog<'_>>,
    ) -> usize {
        let (steps, _) = blocks.as_chunks_mut::<STEP>();
        // SAFETY: `new` saw everything that it needs.
        unsafe { stream(&self.0, counter, steps, backlog) };
        steps.len() * STEP
    }

    /// Adds whole steps of the key stream of GCM from `counter` on; returns how many bytes.
    pub(super) fn xor(&self, nonce: &[u8; NONCE_LEN], counter: u32, from: &[u8], to: &mut [u8]) -> usize {
        let (from, _) = from.as_chunks();
        let (to, _) = to.as_chunks_mut();
        // SAFETY: `new` saw everything that it needs.
        unsafe { xor(&self.0, numbered(nonce, counter), from, to) };
        from.len().min(to.len()) * STEP * BLOCK
    }

    /// The same with whole groups, and hashes what comes in or what goes out; returns how many bytes.
    /// Zero if the hash is on another kernel.
    pub(super) fn xor_and_hash(
        &self,
        nonce: &[u8; NONCE_LEN],
        counter: u32,
        (from, to): (&[u8], &mut [u8]),
        hashed: Hashed,
        (hash, state): (&Ghash, &mut u128),
    ) -> usize {
        let Some(powers) = hash.wide() else { return 0 };
        let (from, _) = from.as_chunks();
        let (to, _) = to.as_chunks_mut();
        let hash_of = (hashed, powers, &mut *state);
        // SAFETY: `new` saw everything that it needs.
        unsafe { xor_and_hash(&self.0, numbered(nonce, counter), (from, to), hash_of) };
        if let (Hashed::Output, Some(last)) = (hashed, to.last()) {
            hash.absorb(state, last);
        }
        from.len().min(to.len()) * GROUP
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

pub(in crate::codec) type Keys = [__m512i; ROUNDS + 1];
/// The blocks of one step.
pub(in crate::codec) type Blocks = [__m512i; STEP / 4];

impl Wide {
    /// The round keys, each four times.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(in crate::codec) fn keys(&self) -> Keys {
        broadcast(&self.0)
    }
}

#[target_feature(enable = "avx512f")]
fn broadcast(keys: &[[u8; 16]; ROUNDS + 1]) -> Keys {
    std::array::from_fn(|round| _mm512_broadcast_i32x4(load(&keys[round])))
}

/// All of AES on every block, whose text is already plus the first round key; in each round but the
/// last something else is done too.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,vaes,aes,vpclmulqdq,pclmulqdq")]
pub(in crate::codec) fn encipher(keys: &Keys, blocks: &mut Blocks, mut meanwhile: impl FnMut(usize)) {
    // Were the compiler to know how many rounds there are, it would unroll them and put the blocks
    // one after the other, and the processor could not see far enough to turn that round again.
    for (round, key) in keys[1..black_box(ROUNDS)].iter().enumerate() {
        for block in blocks.iter_mut() {
            *block = _mm512_aesenc_epi128(*block, *key);
        }
        meanwhile(round);
    }
    for block in blocks.iter_mut() {
        *block = _mm512_aesenclast_epi128(*block, keys[ROUNDS]);
    }
}

#[target_feature(enable = "avx512f,avx512bw,vaes,aes,vpclmulqdq,pclmulqdq")]
fn stream(
    keys: &[[u8; 16]; ROUNDS + 1],
    counter: u64,
    steps: &mut [[[u8; BLOCK]; STEP]],
    mut backlog: Option<&mut Backlog<'_>>,
) {
    let keys = broadcast(keys);
    let mut counters = StreamCounters::from(counter);
    for step in steps {
        let mut blocks = counters.blocks(keys[0]);
        match backlog.as_mut().and_then(|backlog| backlog.next()) {
            Some((powers, state, group)) => {
                let mut hashing = Hashing::begin(powers, group);
                encipher(&keys, &mut blocks, |round| hashing.add(round + 1));
                (ROUNDS..Hashing::VECTORS).for_each(|at| hashing.add(at));
                *state = hashing.finish_word(*state);
            }
            None => encipher(&keys, &mut blocks, |_| {}),
        }
        for (block, out) in blocks.iter().zip(step.as_chunks_mut::<4>().0) {
            ask_to_write(out.as_flattened());
            // SAFETY: four blocks of 16 bytes are there; unaligned stores are allowed.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), *block) };
        }
    }
}

/// The counters of the random stream, four at a time: little-endian in the first half of a block.
pub(in crate::codec) struct StreamCounters(__m512i);

impl StreamCounters {
    #[target_feature(enable = "avx512f")]
    pub(in crate::codec) fn from(counter: u64) -> StreamCounters {
        let first = _mm512_broadcast_i32x4(_mm_set_epi64x(0, counter as i64));
        StreamCounters(_mm512_add_epi64(first, _mm512_set_epi64(0, 3, 0, 2, 0, 1, 0, 0)))
    }

    /// The blocks of a step, plus the first round key.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(in crate::codec) fn blocks(&mut self, key: __m512i) -> Blocks {
        let four = _mm512_set_epi64(0, 4, 0, 4, 0, 4, 0, 4);
        std::array::from_fn(|_| {
            let block = _mm512_xor_si512(self.0, key);
            self.0 = _mm512_add_epi64(self.0, four);
            block
        })
    }
}

/// The counters of GCM, four at a time: big-endian in the last quarter of a block, where they wrap
/// (inc₃₂).
struct Counters {
    /// As little-endian numbers.
    next: __m512i,
    turn: __m512i,
}

impl Counters {
    #[target_feature(enable = "avx512f,avx512bw")]
    fn from(first: [u8; BLOCK]) -> Counters {
        let turn = _mm_set_epi8(12, 13, 14, 15, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
        let turn = _mm512_broadcast_i32x4(turn);
        let first = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(load(&first)), turn);
        let ahead = _mm512_set_epi32(3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0);
        Counters { next: _mm512_add_epi32(first, ahead), turn }
    }

    /// The blocks of a step, plus the first round key.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn blocks(&mut self, key: __m512i) -> Blocks {
        let four = _mm512_set_epi32(4, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0);
        std::array::from_fn(|_| {
            let block = _mm512_xor_si512(_mm512_shuffle_epi8(self.next, self.turn), key);
            self.next = _mm512_add_epi32(self.next, four);
            block
        })
    }
}

/// `to` becomes `from` plus the blocks.
#[inline]
#[target_feature(enable = "avx512f")]
fn add(blocks: &Blocks, from: &[u8; STEP * BLOCK], to: &mut [u8; STEP * BLOCK]) {
    for ((block, from), to) in blocks.iter().zip(from.as_chunks::<64>().0).zip(to.as_chunks_mut::<64>().0) {
        // SAFETY: 64 bytes are there on either side; unaligned loads and stores are allowed.
        unsafe {
            let text = _mm512_loadu_si512(from.as_ptr().cast());
            _mm512_storeu_si512(to.as_mut_ptr().cast(), _mm512_xor_si512(text, *block));
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,vaes,aes,vpclmulqdq,pclmulqdq")]
fn xor(
    keys: &[[u8; 16]; ROUNDS + 1],
    first: [u8; BLOCK],
    from: &[[u8; STEP * BLOCK]],
    to: &mut [[u8; STEP * BLOCK]],
) {
    let (keys, mut counters) = (broadcast(keys), Counters::from(first));
    for (from, to) in from.iter().zip(to) {
        let mut blocks = counters.blocks(keys[0]);
        encipher(&keys, &mut blocks, |_| {});
        add(&blocks, from, to);
    }
}

/// Asks memory for the chunk that lies `ahead` of this one, wherever that is: it begins anew with
/// every page, and the processor's own guesses end with one. Nothing is read.
#[inline]
#[target_feature(enable = "sse")]
pub(in crate::codec) fn ask<const N: usize>(chunk: &[u8; N], ahead: usize) {
    for line in (0..N).step_by(64) {
        _mm_prefetch::<_MM_HINT_T0>(chunk.as_ptr().wrapping_add(ahead * N + line).cast());
    }
}

/// Hashes every group of the input, or every group but the last of the output: what goes out in one
/// turn is hashed in the next.
#[target_feature(enable = "avx512f,avx512bw,vpclmulqdq,pclmulqdq,vaes,aes")]
fn xor_and_hash(
    keys: &[[u8; 16]; ROUNDS + 1],
    first: [u8; BLOCK],
    (from, to): (&[[u8; GROUP]], &mut [[u8; GROUP]]),
    (hashed, powers, state): (Hashed, &Powers, &mut u128),
) {
    const HALF: usize = Hashing::VECTORS / 2;
    let (keys, mut counters) = (broadcast(keys), Counters::from(first));
    let mut done: Option<&[u8; GROUP]> = None;
    for (from, to) in from.iter().zip(to) {
        let ([from_a, from_b], []) = from.as_chunks() else { unreachable!("two steps make a group") };
        let (steps, _) = to.as_chunks_mut::<{ STEP * BLOCK }>();
        let [to_a, to_b] = steps else { unreachable!("two steps make a group") };
        ask(from, AHEAD);
        let group = match hashed {
            Hashed::Input => Some(from),
            Hashed::Output => done,
        };
        let mut hashing = group.map(|group| Hashing::begin(powers, group));
        for (first, from, to) in [(1, from_a, to_a), (1 + HALF, from_b, to_b)] {
            let mut blocks = counters.blocks(keys[0]);
            match &mut hashing {
                Some(hashing) => encipher(&keys, &mut blocks, |round| {
                    if round < HALF && first + round < Hashing::VECTORS {
                        hashing.add(first + round);
                    }
                }),
                None => encipher(&keys, &mut blocks, |_| {}),
            }
            add(&blocks, from, to);
        }
        if let Some(hashing) = hashing {
            *state = hashing.finish_word(*state);
        }
        done = Some(to);
    }
}
