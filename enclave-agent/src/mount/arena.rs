//! Memory for plaintext: locked where the system lets us, left out of core dumps, wiped before it
//! is used for something else and when it is given back.

use std::io;
use std::ptr::NonNull;

use zeroize::Zeroize;

/// Slots of equal size.
#[derive(Debug)]
pub struct Arena {
    start: NonNull<u8>,
    slot: usize,
    slots: usize,
}

// SAFETY: the memory belongs to the arena alone, and is reached through `&mut self` to write and
// `&self` to read.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// So many slots of so many bytes; pages are taken when they are first written.
    pub fn new(slots: usize, slot: usize) -> io::Result<Arena> {
        let length = slots.checked_mul(slot).filter(|length| *length > 0);
        let length = length.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: a new private mapping of zeros; no memory that exists is touched.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the mapping was just made and has this length. Both calls may be refused, where
        // a limit is low, and then the memory is still only ours.
        unsafe {
            libc::madvise(start, length, libc::MADV_DONTDUMP);
            libc::mlock2(start, length, libc::MLOCK_ONFAULT);
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Arena { start, slot, slots })
    }

    /// How many slots there are.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// A slot's bytes.
    pub fn slot(&self, number: usize) -> &[u8] {
        assert!(number < self.slots, "there are {} slots", self.slots);
        // SAFETY: within the mapping, which lives as long as the arena; writers need `&mut self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(number * self.slot), self.slot) }
    }

    /// A slot's bytes, to be written.
    pub fn slot_mut(&mut self, number: usize) -> &mut [u8] {
        assert!(number < self.slots, "there are {} slots", self.slots);
        // SAFETY: as above, and `&mut self` makes this the only way in.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(number * self.slot), self.slot) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let length = self.slots * self.slot;
        // SAFETY: the whole mapping, for the last time. The kernel wipes pages before it gives
        // them to anyone else; what was written is wiped here already by the cache.
        unsafe { libc::munmap(self.start.as_ptr().cast(), length) };
    }
}

/// Wipes bytes so that the compiler cannot leave it out.
pub fn wipe(bytes: &mut [u8]) {
    bytes.zeroize();
}
