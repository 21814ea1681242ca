//! How an object is shared, and what lengths follow from that.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use super::bytes::Reader;
use super::{BLOCK, HEADER, TAG_LEN};
use crate::codec::Threshold;

/// What becomes of a block's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Every byte is shared: each share is as long as the plaintext.
    #[default]
    Shamir,
    /// The block is encrypted under a key that is shared, and the ciphertext dispersed by an
    /// erasure code: each share is a `k`-th as long as the plaintext.
    Compact,
}

/// A text that names no [`Mode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the mode is either shamir or compact")]
pub struct ModeError;

impl Mode {
    fn byte(self) -> u8 {
        match self {
            Mode::Shamir => 1,
            Mode::Compact => 2,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Shamir => "shamir",
            Mode::Compact => "compact",
        })
    }
}

impl FromStr for Mode {
    type Err = ModeError;

    fn from_str(text: &str) -> Result<Mode, ModeError> {
        match text {
            "shamir" => Ok(Mode::Shamir),
            "compact" => Ok(Mode::Compact),
            _ => Err(ModeError),
        }
    }
}

/// A mode with a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scheme {
    /// What becomes of a block.
    pub mode: Mode,
    /// How many shares there are and how many suffice.
    pub threshold: Threshold,
}

impl Scheme {
    /// Bytes of one share of a block of `len` plaintext bytes.
    pub fn share_len(self, len: usize) -> usize {
        match self.mode {
            Mode::Shamir => len,
            Mode::Compact => len.div_ceil(self.threshold.k()),
        }
    }

    /// Where an extent's file has the shares of its plaintext bytes `blocks`, which must begin and
    /// end at blocks' edges (or at the extent's end).
    pub fn shares_at(self, blocks: Range<u64>) -> Range<u64> {
        let end = self.shares_before(blocks.end);
        HEADER as u64 + self.shares_before(blocks.start)..HEADER as u64 + end
    }

    /// Where an extent's file of `len` plaintext bytes has its tag table.
    pub fn table_at(self, len: u64) -> Range<u64> {
        let begin = HEADER as u64 + self.shares_before(len);
        begin..begin + self.table_len(len) as u64
    }

    /// Bytes of an extent's file.
    pub fn file_len(self, len: u64) -> u64 {
        self.table_at(len).end
    }

    /// Bytes of the tag table of an extent of `len` plaintext bytes.
    pub fn table_len(self, len: u64) -> usize {
        len.div_ceil(BLOCK) as usize * (self.threshold.n() + 1) * TAG_LEN
    }

    /// Bytes that the shares of the first `len` plaintext bytes of an extent take.
    fn shares_before(self, len: u64) -> u64 {
        let whole = len / BLOCK * self.share_len(BLOCK as usize) as u64;
        whole + self.share_len((len % BLOCK) as usize) as u64
    }

    /// Mode; field 0x1b (0x11b without its top bit); tags: 2 for plaintext by keyed BLAKE3 (128
    /// bits) and shares by AES-256-GMAC, 3 for ciphertext by AES-256-GCM and shares by
    /// AES-256-GMAC; key derivation 1 (BLAKE3).
    pub(super) fn suite(self) -> [u8; 6] {
        let tags = match self.mode {
            Mode::Shamir => 2,
            Mode::Compact => 3,
        };
        [self.mode.byte(), 0x1b, tags, 1, self.threshold.k() as u8, self.threshold.n() as u8]
    }

    /// `None` for whatever no [`Scheme::suite`] gives.
    pub(super) fn parse(from: &mut Reader<'_>) -> Option<Scheme> {
        let bytes: [u8; 6] = from.array()?;
        let mode = match bytes[0] {
            1 => Mode::Shamir,
            2 => Mode::Compact,
            _ => return None,
        };
        let threshold = Threshold::new(bytes[4], bytes[5]).ok()?;
        let scheme = Scheme { mode, threshold };
        (scheme.suite() == bytes).then_some(scheme)
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.threshold, self.mode)
    }
}
