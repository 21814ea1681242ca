//! GHASH (NIST SP 800-38D, section 6.4), once per kind of machine.
//!
//! Every kernel computes POLYVAL instead, which is the same function on blocks whose bytes are
//! reversed, with a key multiplied by x (RFC 8452, appendix A): no bit has to be turned. A block is
//! an `u128` whose bit `i` is the coefficient of xⁱ, modulo x¹²⁸+x¹²⁷+x¹²⁶+x¹²¹+1, and a product
//! carries the factor x⁻¹²⁸ that its cheap (Montgomery) reduction leaves.

mod backlog;
#[cfg(target_arch = "x86_64")]
mod clmul;
#[cfg(target_arch = "aarch64")]
mod pmull;
mod portable;
#[cfg(target_arch = "x86_64")]
mod vclmul;

pub(super) use backlog::Backlog;
#[cfg(target_arch = "x86_64")]
pub(super) use vclmul::Hashing;
use zeroize::Zeroizing;

/// Powers of the key that are kept. As many blocks are summed up before they are reduced.
const POWERS: usize = 64;
const BLOCK: usize = 16;
/// Bytes that are summed up before they are reduced, by the widest kernel.
pub(super) const GROUP: usize = POWERS * BLOCK;

/// From the last block to the first: `powers[POWERS − i]` is the key to the i-th.
pub(super) type Powers = [u128; POWERS];

/// The hash under one key.
pub(super) struct Ghash {
    kernel: Kernel,
    powers: Zeroizing<Powers>,
}

/// Which instructions multiply. All give the same hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    /// 64-bit multiplications of integers, on any machine.
    Portable,
    /// `pclmulqdq`: one block at a time.
    #[cfg(target_arch = "x86_64")]
    Clmul,
    /// `vpclmulqdq` on 512 bits: four blocks at a time.
    #[cfg(target_arch = "x86_64")]
    Vclmul,
    /// `pmull`: one block at a time.
    #[cfg(target_arch = "aarch64")]
    Pmull,
}

impl Kernel {
    /// The fastest of [`Kernel::available`].
    pub(super) fn best() -> Kernel {
        Kernel::available().last().unwrap_or(Kernel::Portable)
    }

    /// Every kernel that this machine can run, the fastest last.
    pub(super) fn available() -> impl Iterator<Item = Kernel> {
        let kernels = [
            Some(Kernel::Portable),
            #[cfg(target_arch = "x86_64")]
            clmul::available().then_some(Kernel::Clmul),
            #[cfg(target_arch = "x86_64")]
            vclmul::available().then_some(Kernel::Vclmul),
            #[cfg(target_arch = "aarch64")]
            pmull::available().then_some(Kernel::Pmull),
        ];
        kernels.into_iter().flatten()
    }
}

impl Ghash {
    /// Under the key `h`.
    pub(super) fn new(h: &[u8; BLOCK], kernel: Kernel) -> Ghash {
        let key = times_x(u128::from_be_bytes(*h));
        let mut powers = Zeroizing::new([key; POWERS]);
        match kernel {
            Kernel::Portable => fill(&mut powers, |power| portable::product(power, key)),
            #[cfg(target_arch = "x86_64")]
            Kernel::Clmul | Kernel::Vclmul => fill(&mut powers, |power| clmul::product(power, key)),
            #[cfg(target_arch = "aarch64")]
            Kernel::Pmull => fill(&mut powers, |power| pmull::product(power, key)),
        }
        Ghash { kernel, powers }
    }

    /// The powers for [`Hashing`], if this is on its kernel.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn wide(&self) -> Option<&Powers> {
        (self.kernel == Kernel::Vclmul).then_some(&*self.powers)
    }

    /// Takes `data` in, the last block of it filled up with zeros.
    pub(super) fn absorb(&self, state: &mut u128, data: &[u8]) {
        *state = match self.kernel {
            Kernel::Portable => portable::absorb(&self.powers, *state, data),
            #[cfg(target_arch = "x86_64")]
            Kernel::Clmul => clmul::absorb(&self.powers, *state, data),
            #[cfg(target_arch = "x86_64")]
            Kernel::Vclmul => vclmul::absorb(&self.powers, *state, data),
            #[cfg(target_arch = "aarch64")]
            Kernel::Pmull => pmull::absorb(&self.powers, *state, data),
        };
    }
}

fn fill(powers: &mut Powers, next: impl Fn(u128) -> u128) {
    for at in (0..POWERS - 1).rev() {
        powers[at] = next(powers[at + 1]);
    }
}

/// The key of POLYVAL that makes it GHASH.
fn times_x(key: u128) -> u128 {
    const REST: u128 = 0xc2 << 120 | 1;
    key << 1 ^ (REST & 0u128.wrapping_sub(key >> 127))
}

/// The block at the beginning of `bytes`, filled up with zeros.
fn block(bytes: &[u8]) -> u128 {
    let mut whole = [0; BLOCK];
    whole[..bytes.len()].copy_from_slice(bytes);
    u128::from_be_bytes(whole)
}

#[cfg(test)]
mod tests;
