//! GHASH (NIST SP 800-38D, section 6.4), once per kind of machine.
//!
//! Every kernel computes POLYVAL instead, which is the same function on blocks whose bytes are
//! reversed, with a key multiplied by x (RFC 8452, appendix A): no bit has to be turned. A block is
//! an `u128` whose bit `i` is the coefficient of xⁱ, modulo x¹²⁸+x¹²⁷+x¹²⁶+x¹²¹+1, and a product
//! carries the factor x⁻¹²⁸ that its cheap (Montgomery) reduction leaves.

#[cfg(target_arch = "x86_64")]
mod clmul;
mod portable;
#[cfg(target_arch = "x86_64")]
mod vclmul;

use zeroize::Zeroizing;

/// Powers of the key that are kept. As many blocks are summed up before they are reduced.
const POWERS: usize = 64;
const BLOCK: usize = 16;

/// From the last block to the first: `powers[POWERS − i]` is the key to the i-th.
type Powers = [u128; POWERS];

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
        }
        Ghash { kernel, powers }
    }

    /// Takes `data` in, the last block of it filled up with zeros.
    pub(super) fn absorb(&self, state: &mut u128, data: &[u8]) {
        *state = match self.kernel {
            Kernel::Portable => portable::absorb(&self.powers, *state, data),
            #[cfg(target_arch = "x86_64")]
            Kernel::Clmul => clmul::absorb(&self.powers, *state, data),
            #[cfg(target_arch = "x86_64")]
            Kernel::Vclmul => vclmul::absorb(&self.powers, *state, data),
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
