//! One block and its shares, in both modes: encoding, decoding, and the tags of both.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{AttemptId, BLOCK, Deposit, MasterKey, Mode, Scheme, TAG_LEN, Tag};
use crate::codec::{
    CodecError, Combiner, Disperser, Gatherer, Mac, RandomStream, Sealer, ShareIndex, Splitter,
};

/// The keys of the blocks and shares of one attempt at one extent.
pub struct ExtentKeys {
    scheme: Scheme,
    blocks: BlockKey,
    shares: Vec<Mac>,
}

enum BlockKey {
    Shamir(Zeroizing<[u8; 32]>),
    Compact(Box<Sealer>),
}

impl ExtentKeys {
    /// Derived from the master key of the set.
    pub fn derive(master: &MasterKey, deposit: &Deposit, extent: u64, attempt: AttemptId) -> ExtentKeys {
        let key = master.of_blocks(deposit, extent, attempt);
        let blocks = match deposit.scheme.mode {
            Mode::Shamir => BlockKey::Shamir(key),
            Mode::Compact => BlockKey::Compact(Box::new(Sealer::new(&key))),
        };
        let shares = deposit.scheme.threshold.shares();
        let shares = shares.map(|x| Mac::new(&master.of_share(deposit, extent, attempt, x))).collect();
        ExtentKeys { scheme: deposit.scheme, blocks, shares }
    }

    /// The tag that block `block` (counted from the beginning of the object) has if its plaintext
    /// is this.
    pub fn block_tag(&self, block: u64, plaintext: &[u8]) -> Tag {
        match &self.blocks {
            BlockKey::Shamir(key) => keyed_hash(key, block, plaintext),
            BlockKey::Compact(sealer) => sealer.seal(&nonce(block), plaintext, &mut vec![0; plaintext.len()]),
        }
    }

    /// Whether `expected` is the tag of this plaintext, in constant time.
    pub fn block_matches(&self, block: u64, plaintext: &[u8], expected: &Tag) -> bool {
        self.block_tag(block, plaintext).ct_eq(expected).into()
    }

    /// The tag of share `x` of block `block`.
    pub fn share_tag(&self, x: ShareIndex, block: u64, share: &[u8]) -> Tag {
        self.shares[x.place()].tag(&nonce(block), share)
    }

    /// Whether `expected` is the tag of this share, in constant time.
    pub fn share_matches(&self, x: ShareIndex, block: u64, share: &[u8], expected: &Tag) -> bool {
        x.place() < self.shares.len() && bool::from(self.share_tag(x, block, share).ct_eq(expected))
    }
}

impl fmt::Debug for ExtentKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExtentKeys").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

/// Makes shares of blocks.
#[derive(Debug, Clone)]
pub struct BlockEncoder(Encoder);

#[derive(Debug, Clone)]
enum Encoder {
    Shamir(Splitter),
    Compact(Disperser),
}

impl BlockEncoder {
    /// For `scheme`.
    pub fn new(scheme: Scheme) -> BlockEncoder {
        BlockEncoder(match scheme.mode {
            Mode::Shamir => Encoder::Shamir(Splitter::new(scheme.threshold)),
            Mode::Compact => Encoder::Compact(Disperser::new(scheme.threshold)),
        })
    }

    /// Writes the `n` shares of blocks `first..`, all whole but perhaps the last, to `shares`, each as
    /// long as [`Scheme::share_len`] of every block together, and adds a row of tags for each block to
    /// `tags`. `random` must never have given the same bytes before; mode `compact` needs none, but
    /// there `keys` must never have met another plaintext of these blocks.
    pub fn encode(
        &self,
        keys: &ExtentKeys,
        first: u64,
        plaintext: &[u8],
        random: &mut RandomStream,
        shares: &mut [&mut [u8]],
        tags: &mut Vec<Tag>,
    ) -> Result<(), CodecError> {
        let (rows, width) = (tags.len(), 1 + keys.shares.len());
        tags.resize(rows + plaintext.len().div_ceil(BLOCK as usize) * width, [0; TAG_LEN]);
        let rows = &mut tags[rows..];
        let nonces = |at| nonce(first + at as u64);
        match (&self.0, &keys.blocks) {
            (Encoder::Shamir(splitter), BlockKey::Shamir(key)) => {
                let blocks = plaintext.chunks(BLOCK as usize).zip(rows.chunks_exact_mut(width)).enumerate();
                let mut from = 0;
                for (at, (block, row)) in blocks {
                    let (to, nonce) = (from + block.len(), nonces(at));
                    let short = CodecError::Lengths;
                    let parts = shares.iter_mut().map(|share| share.get_mut(from..to).ok_or(short));
                    let mut parts = parts.collect::<Result<Vec<_>, _>>()?;
                    let (tag, tags) = row.split_first_mut().ok_or(CodecError::Lengths)?;
                    splitter.split_and_tag(block, random, &mut parts, &keys.shares, &nonce, tags)?;
                    *tag = keyed_hash(key, first + at as u64, block);
                    from = to;
                }
                Ok(())
            }
            (Encoder::Compact(disperser), BlockKey::Compact(sealer)) => disperser.seal_and_disperse(
                (sealer, &keys.shares),
                nonces,
                (plaintext, BLOCK as usize),
                shares,
                rows,
            ),
            _ => Err(CodecError::Lengths),
        }
    }
}

/// Makes blocks of `k` shares at fixed points.
#[derive(Debug, Clone)]
pub struct BlockDecoder(Decoder);

#[derive(Debug, Clone)]
enum Decoder {
    Shamir(Combiner),
    Compact(Gatherer),
}

impl BlockDecoder {
    /// For shares at `points`, in the order in which they will be given.
    pub fn new(scheme: Scheme, points: &[ShareIndex]) -> Result<BlockDecoder, CodecError> {
        Ok(BlockDecoder(match scheme.mode {
            Mode::Shamir => Decoder::Shamir(Combiner::new(scheme.threshold, points)?),
            Mode::Compact => Decoder::Compact(Gatherer::new(scheme.threshold, points)?),
        }))
    }

    /// Writes the plaintext, and says whether it bears `tag`. If not, `plaintext` is to be wiped.
    pub fn decode(
        &self,
        keys: &ExtentKeys,
        block: u64,
        shares: &[&[u8]],
        tag: &Tag,
        plaintext: &mut [u8],
    ) -> Result<bool, CodecError> {
        match (&self.0, &keys.blocks) {
            (Decoder::Shamir(combiner), BlockKey::Shamir(_)) => {
                combiner.combine(shares, plaintext)?;
                Ok(keys.block_matches(block, plaintext, tag))
            }
            (Decoder::Compact(gatherer), BlockKey::Compact(sealer)) => {
                let mut sealed = vec![0; plaintext.len()];
                gatherer.gather(shares, &mut sealed)?;
                Ok(sealer.open(&nonce(block), &sealed, plaintext, tag))
            }
            _ => Err(CodecError::Lengths),
        }
    }
}

/// No key meets the same block twice, so its number is nonce enough.
fn nonce(block: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&block.to_le_bytes());
    nonce
}

/// The block's number comes last so that the data stays aligned to the hash's own chunks.
fn keyed_hash(key: &[u8; 32], block: u64, data: &[u8]) -> Tag {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(data).update(&block.to_le_bytes());
    let mut tag = [0; TAG_LEN];
    tag.copy_from_slice(&hasher.finalize().as_bytes()[..TAG_LEN]);
    tag
}
