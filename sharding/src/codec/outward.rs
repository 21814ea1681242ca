//! Copying past the caches, for what nobody reads again soon: a line that is written whole need not
//! be fetched first, and drives nothing out.

/// Copies that are not finished before this is dropped.
pub(super) struct Outward(());

impl Outward {
    pub(super) fn begin() -> Outward {
        Outward(())
    }

    /// Copies `from` to `to`, which is as long.
    pub(super) fn copy(&mut self, from: &[u8], to: &mut [u8]) {
        #[cfg(target_arch = "x86_64")]
        if wide::available() {
            return wide::copy(from, to);
        }
        to.copy_from_slice(from);
    }
}

impl Drop for Outward {
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        wide::fence();
    }
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::*;

    const WIDTH: usize = 64;

    pub(super) fn available() -> bool {
        is_x86_feature_detected!("avx512f")
    }

    pub(super) fn copy(from: &[u8], to: &mut [u8]) {
        assert!(available() && from.len() == to.len());
        let head = to.as_ptr().align_offset(WIDTH).min(to.len());
        let (from_head, from) = from.split_at(head);
        let (to_head, to) = to.split_at_mut(head);
        to_head.copy_from_slice(from_head);
        let (from, from_tail) = from.as_chunks();
        let (to, to_tail) = to.as_chunks_mut();
        // SAFETY: AVX-512F is there, as asserted above; `to` begins where a vector may.
        unsafe { lines(from, to) };
        to_tail.copy_from_slice(from_tail);
    }

    /// `to` is aligned to 64 bytes.
    #[target_feature(enable = "avx512f")]
    unsafe fn lines(from: &[[u8; WIDTH]], to: &mut [[u8; WIDTH]]) {
        for (from, to) in from.iter().zip(to) {
            // SAFETY: 64 bytes are there on either side, those of `to` aligned, as the caller says.
            // Who sent them out fences before anybody else sees them.
            unsafe { _mm512_stream_si512(to.as_mut_ptr().cast(), _mm512_loadu_si512(from.as_ptr().cast())) };
        }
    }

    /// Until here, what was copied may be seen later than what was done afterwards.
    pub(super) fn fence() {
        // SAFETY: SSE belongs to the architecture.
        unsafe { _mm_sfence() };
    }
}
