//! Where a genome lies: no single institution holds anything that can be read, and any `k` of `n`
//! hold enough to rebuild it.
//!
//! - [`codec`] is the arithmetic: Shamir's secret sharing of every byte over GF(2⁸), and for mode
//!   `compact` AES-GCM with an erasure code in the same field, in constant time, through the widest
//!   vector unit the machine has.
//! - [`format`] is what lies on a backend: headers, blocks, tags and the manifest. It does no I/O;
//!   `docs/format.md` (at the root) describes it for a second implementation.
//! - [`vault`] moves it: deposit, range read, verification, repair, refresh and destruction over
//!   `n` object stores.
//!
//! # What is defended
//! - *Fewer than `k` backends together learn nothing of an object but its size, its name and when
//!   it was written or read.* Shares, tags and key shares are all useless below the threshold.
//! - *No backend can change what is read.* Every block is checked before a byte of it is returned;
//!   the 32-byte root that the caller keeps elsewhere (a ticket, the audit log) pins the content,
//!   in mode `shamir` even against all backends together.
//! - *Up to `n − k` backends may lie, hang, shorten, lose or vanish*, and reading goes on; whoever
//!   misbehaved is named to a [`vault::FaultSink`].
//!
//! # What is not
//! - `k` backends that conspire can read. Choose institutions that would not.
//! - Secrecy is computational, not perfect: the random shares come from AES-256 in counter mode
//!   (ChaCha20 where the processor has no AES) under a fresh key per extent, because true entropy
//!   is three orders of magnitude too slow.
//! - Sizes, access patterns and time are visible to every backend.
//! - Rolling *everything* back is seen only by who keeps the root elsewhere; without a root a
//!   reader takes the manifest that enough backends agree on.
//! - The process that deposits or reads holds plaintext. It wipes its own buffers; it cannot wipe
//!   what the allocator, the kernel or the network stack copied.

pub mod codec;
pub mod format;
pub mod vault;
