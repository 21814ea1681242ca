//! The arithmetic: Shamir's secret sharing of byte strings, the erasure code and the authenticated
//! cipher of mode `compact`, and the tags of both.
//!
//! # Sharing
//! Over GF(2⁸) with the polynomial x⁸+x⁴+x³+x+1 (0x11b). Every byte of the secret is the value at
//! zero of a polynomial of degree `k − 1` of its own; a share is the value of all of them at one
//! point `x` in `1..=n`. The `k − 1` first shares *are* the random stream and the others are
//! interpolated through them and the secret: the same distribution as drawing coefficients, with
//! fewer multiplications. Coefficients are therefore uniform, zero included; an implementation
//! that avoids zero leaks. [`Splitter`] and [`Combiner`] do this.
//!
//! # Spreading
//! [`Disperser`] and [`Gatherer`] are the erasure code (systematic Reed–Solomon) by the same
//! interpolation: the pieces of what is spread are the values at `1..=k`, the others at `k+1..=n`.
//! It hides nothing: what is spread is sealed first, by [`Sealer`]. [`Rebuilder`] makes a lost
//! share from `k` others, of either kind.
//!
//! # Time
//! Multiplications are by public constants (they follow from `k`, `n` and the points alone), and
//! no kernel indexes memory or branches by a secret byte. [`Mac`] and [`Sealer`] multiply by
//! secrets, and do so without tables.

mod cipher;
mod compact;
mod field;
#[cfg(target_arch = "x86_64")]
mod fused;
mod ghash;
mod kernel;
mod mac;
mod seal;
mod share;
mod stream;
mod threshold;

pub use cipher::{NONCE_LEN, TAG_LEN};
pub use compact::{Disperser, Gatherer};
pub use kernel::Kernel;
pub use mac::Mac;
pub use seal::Sealer;
pub use share::{Combiner, Rebuilder, Splitter};
pub use stream::{RandomStream, StreamKind};
pub use threshold::{CodecError, MAX_SHARES, ShareIndex, Threshold};

#[cfg(test)]
mod tests;
