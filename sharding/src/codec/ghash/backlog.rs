//! What waits to be hashed while something else is enciphered.

use super::{GROUP, Ghash};
use crate::codec::MAX_SHARES;

/// Whole groups of up to [`MAX_SHARES`] messages, each under its own key.
pub(in crate::codec) struct Backlog<'a> {
    waiting: [Option<Waiting<'a>>; MAX_SHARES as usize],
    count: usize,
    /// Which of them is being worked on.
    #[cfg(target_arch = "x86_64")]
    at: usize,
}

struct Waiting<'a> {
    hash: &'a Ghash,
    state: &'a mut u128,
    groups: &'a [[u8; GROUP]],
}

impl<'a> Backlog<'a> {
    pub(in crate::codec) fn new() -> Backlog<'a> {
        Backlog {
            waiting: std::array::from_fn(|_| None),
            count: 0,
            #[cfg(target_arch = "x86_64")]
            at: 0,
        }
    }

    /// Puts the whole groups of `data` in, which comes next in the message that `state` is of.
    pub(in crate::codec) fn push(&mut self, hash: &'a Ghash, state: &'a mut u128, data: &'a [u8]) {
        let (groups, rest) = data.as_chunks();
        assert!(rest.is_empty(), "a backlog is of whole groups");
        self.waiting[self.count] = Some(Waiting { hash, state, groups });
        self.count += 1;
    }

    /// Takes a group out that [`Hashing`](super::Hashing) may work on, if there is one.
    #[cfg(target_arch = "x86_64")]
    pub(in crate::codec) fn next(&mut self) -> Option<(&super::Powers, &mut u128, &[u8; GROUP])> {
        while let Some(Some(waiting)) = self.waiting.get(self.at)
            && (waiting.groups.is_empty() || waiting.hash.wide().is_none())
        {
            self.at += 1;
        }
        let waiting = self.waiting.get_mut(self.at)?.as_mut()?;
        let (group, rest) = waiting.groups.split_first()?;
        waiting.groups = rest;
        Some((waiting.hash.wide()?, waiting.state, group))
    }

    /// Hashes what was not taken out.
    pub(in crate::codec) fn finish(self) {
        for Waiting { hash, state, groups } in self.waiting.into_iter().flatten() {
            hash.absorb(state, groups.as_flattened());
        }
    }
}
