//! Custody of secrets that must lie on no disk whole: k of n custodians unseal them together.
//!
//! A fresh sealing key encrypts the secret (ChaCha20-Poly1305) and is itself split (Shamir over
//! GF(2⁸)). The sealed box holds a hash of each share, so that a damaged or foreign one is named
//! rather than spoiling the whole.
//!
//! Not defended: whoever holds k shares and the box has the secret, and so has the memory of the
//! process that unsealed it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use data_encoding::BASE32_NOPAD;
use model::{Entropy, EntropyError};
use serde::{Deserialize, Serialize};
use vsss_rs::Gf256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const KEY_LEN: usize = 32;
const SHARE_PREFIX: &str = "sks1";
const SHARE_CONTEXT: &str = "sekisho 2026 custody share";
/// The largest secret that is sealed, bytes.
pub const SECRET_MAX: usize = 64 * 1024;

/// How many of how many custodians are needed: 2 ≤ k ≤ n ≤ 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(u8, u8)", into = "(u8, u8)")]
pub struct Quorum {
    k: u8,
    n: u8,
}

impl Quorum {
    /// `k` of `n`.
    pub fn new(k: u8, n: u8) -> Result<Quorum, CustodyError> {
        if 2 <= k && k <= n && n <= 16 { Ok(Quorum { k, n }) } else { Err(CustodyError::Quorum) }
    }

    /// How many are needed.
    pub fn k(self) -> u8 {
        self.k
    }

    /// How many there are.
    pub fn n(self) -> u8 {
        self.n
    }
}

impl TryFrom<(u8, u8)> for Quorum {
    type Error = CustodyError;

    fn try_from((k, n): (u8, u8)) -> Result<Quorum, CustodyError> {
        Quorum::new(k, n)
    }
}

impl From<Quorum> for (u8, u8) {
    fn from(quorum: Quorum) -> (u8, u8) {
        (quorum.k, quorum.n)
    }
}

/// A sealed secret: nothing in it helps without the shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedBox {
    quorum: Quorum,
    nonce: [u8; 12],
    share_hashes: Vec<[u8; 32]>,
    ciphertext: Vec<u8>,
}

/// One custodian's share. Text: `sks1.<index>.<base32 of the share>`; it is never printed by
/// accident and is wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Share(Vec<u8>);

/// Why a secret could not be sealed or unsealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CustodyError {
    /// Not 2 ≤ k ≤ n ≤ 16.
    #[error("custody needs 2 to 16 custodians, and at least 2 of them to unseal")]
    Quorum,
    /// Empty or larger than [`SECRET_MAX`].
    #[error("a secret has 1 to {SECRET_MAX} bytes")]
    Size,
    /// Too few different shares.
    #[error("{have} of the {need} shares needed were given")]
    NotEnough {
        /// How many different good ones were given.
        have: usize,
        /// How many are needed.
        need: usize,
    },
    /// Not a share at all.
    #[error("this is not a custodian's share; it looks like sks1.1.…")]
    NotAShare,
    /// A share that does not belong to this box, or is damaged.
    #[error("share {0} is damaged or belongs to another installation")]
    WrongShare(u8),
    /// The box is damaged.
    #[error("the sealed file is damaged: restore it from a copy")]
    Damaged,
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// The splitting failed.
    #[error("the sealing key could not be split")]
    Split,
}

/// Seals `secret` and returns the box and the custodians' shares.
pub fn seal(
    secret: &[u8],
    quorum: Quorum,
    entropy: &(impl Entropy + ?Sized),
) -> Result<(SealedBox, Vec<Share>), CustodyError> {
    if secret.is_empty() || secret.len() > SECRET_MAX {
        return Err(CustodyError::Size);
    }
    let mut key = Zeroizing::new([0; KEY_LEN]);
    let mut nonce = [0; 12];
    let mut seed = Zeroizing::new([0; 32]);
    entropy.fill(key.as_mut_slice())?;
    entropy.fill(&mut nonce)?;
    entropy.fill(seed.as_mut_slice())?;
    let coefficients = Stream(blake3::Hasher::new_keyed(&seed).finalize_xof());
    let (k, n) = (usize::from(quorum.k), usize::from(quorum.n));
    let shares: Vec<Share> = Gf256::split_bytes(k, n, key.as_slice(), coefficients)
        .map_err(|_| CustodyError::Split)?
        .into_iter()
        .map(Share)
        .collect();
    let mut sealed = SealedBox {
        quorum,
        nonce,
        share_hashes: shares.iter().map(Share::hash).collect(),
        ciphertext: vec![],
    };
    sealed.ciphertext = cipher(&key)
        .encrypt(&Nonce::from(nonce), Payload { msg: secret, aad: &sealed.header() })
        .map_err(|_| CustodyError::Size)?;
    Ok((sealed, shares))
}

impl SealedBox {
    /// How many shares are needed.
    pub fn quorum(&self) -> Quorum {
        self.quorum
    }

    /// Whether `share` is one of this box's, whole.
    pub fn check(&self, share: &Share) -> Result<(), CustodyError> {
        let index = share.index();
        match usize::from(index).checked_sub(1).and_then(|i| self.share_hashes.get(i)) {
            Some(hash) if *hash == share.hash() => Ok(()),
            _ => Err(CustodyError::WrongShare(index)),
        }
    }

    /// Unseals with `shares`; the same one given twice counts once.
    pub fn unseal(&self, shares: &[Share]) -> Result<Zeroizing<Vec<u8>>, CustodyError> {
        let mut distinct = BTreeMap::new();
        for share in shares {
            self.check(share)?;
            distinct.insert(share.index(), share);
        }
        let need = usize::from(self.quorum.k);
        if distinct.len() < need {
            return Err(CustodyError::NotEnough { have: distinct.len(), need });
        }
        let chosen = Zeroizing::new(distinct.values().take(need).map(|s| s.0.clone()).collect::<Vec<_>>());
        let key = Zeroizing::new(Gf256::combine_bytes(&*chosen).map_err(|_| CustodyError::Damaged)?);
        let key =
            Zeroizing::new(<[u8; KEY_LEN]>::try_from(key.as_slice()).map_err(|_| CustodyError::Damaged)?);
        cipher(&key)
            .decrypt(&Nonce::from(self.nonce), Payload { msg: &self.ciphertext, aad: &self.header() })
            .map(Zeroizing::new)
            .map_err(|_| CustodyError::Damaged)
    }

    fn header(&self) -> Vec<u8> {
        let mut header = vec![self.quorum.k, self.quorum.n];
        header.extend(self.share_hashes.iter().flatten());
        header
    }
}

impl Share {
    /// Which custodian's it is, from 1.
    pub fn index(&self) -> u8 {
        self.0[0]
    }

    /// The text to keep.
    pub fn to_text(&self) -> Zeroizing<String> {
        let body = Zeroizing::new(BASE32_NOPAD.encode(&self.0[1..]).to_ascii_lowercase());
        Zeroizing::new(format!("{SHARE_PREFIX}.{}.{}", self.index(), *body))
    }

    /// A share is 32 random bytes, so its hash reveals nothing.
    fn hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(SHARE_CONTEXT);
        hasher.update(&self.0);
        *hasher.finalize().as_bytes()
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share({}, secret)", self.index())
    }
}

impl FromStr for Share {
    type Err = CustodyError;

    fn from_str(text: &str) -> Result<Share, CustodyError> {
        let rest = text.trim().strip_prefix(SHARE_PREFIX).and_then(|t| t.strip_prefix('.'));
        let (index, body) = rest.and_then(|t| t.split_once('.')).ok_or(CustodyError::NotAShare)?;
        let index: u8 = index.parse().ok().filter(|&i| i > 0).ok_or(CustodyError::NotAShare)?;
        let upper = Zeroizing::new(body.to_ascii_uppercase());
        let body = BASE32_NOPAD.decode(upper.as_bytes()).map_err(|_| CustodyError::NotAShare)?;
        let body = Zeroizing::new(body);
        if body.len() != KEY_LEN {
            return Err(CustodyError::NotAShare);
        }
        Ok(Share([&[index], body.as_slice()].concat()))
    }
}

fn cipher(key: &Zeroizing<[u8; KEY_LEN]>) -> ChaCha20Poly1305 {
    ChaCha20Poly1305::new(&Key::from(**key))
}

/// The output of a keyed BLAKE3 as a random stream: it cannot fail half-way, as [`Entropy`] can.
struct Stream(blake3::OutputReader);

impl rand_core::TryRng for Stream {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(to);
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Stream {}
