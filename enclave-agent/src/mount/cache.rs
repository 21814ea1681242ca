//! The blocks that were rebuilt last.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sharding::vault::Wiped;

use super::arena::{Arena, wipe};

/// Bytes in a block.
pub const BLOCK: usize = 64 << 10;

/// A bounded cache with the second-chance rule. The block that goes is wiped.
#[derive(Debug)]
pub struct BlockCache(Mutex<Inner>);

type Key = (u64, u64);

#[derive(Debug)]
struct Inner {
    arena: Arena,
    slots: Vec<Option<Slot>>,
    places: HashMap<Key, usize>,
    hand: usize,
}

#[derive(Debug)]
struct Slot {
    key: Key,
    length: usize,
    used: bool,
}

impl BlockCache {
    /// At most so many bytes, at least one block.
    pub fn new(bytes: usize) -> io::Result<BlockCache> {
        let arena = Arena::new((bytes / BLOCK).max(1), BLOCK)?;
        let slots = (0..arena.slots()).map(|_| None).collect();
        Ok(BlockCache(Mutex::new(Inner { arena, slots, places: HashMap::new(), hand: 0 })))
    }

    /// Appends a part of a block, cut at the block's end; says whether the block is here.
    pub fn copy(&self, file: u64, block: u64, part: Range<usize>, to: &mut Wiped) -> bool {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Some(place) = inner.places.get(&(file, block)).copied() else { return false };
        let Some(slot) = inner.slots[place].as_mut() else { return false };
        slot.used = true;
        let end = part.end.min(slot.length);
        to.extend(&inner.arena.slot(place)[part.start.min(end)..end]);
        true
    }

    /// Whether the block is here.
    pub fn has(&self, file: u64, block: u64) -> bool {
        self.lock().places.contains_key(&(file, block))
    }

    /// Keeps a block of at most [`BLOCK`] bytes.
    pub fn put(&self, file: u64, block: u64, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(BLOCK)];
        let mut inner = self.lock();
        let key = (file, block);
        if inner.places.contains_key(&key) {
            return;
        }
        let place = inner.make_room();
        inner.arena.slot_mut(place)[..bytes.len()].copy_from_slice(bytes);
        inner.slots[place] = Some(Slot { key, length: bytes.len(), used: false });
        inner.places.insert(key, place);
    }

    /// Wipes the blocks of a file.
    pub fn forget(&self, file: u64) {
        let mut inner = self.lock();
        for place in 0..inner.slots.len() {
            if inner.slots[place].as_ref().is_some_and(|slot| slot.key.0 == file) {
                inner.clear(place);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn make_room(&mut self) -> usize {
        loop {
            let place = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            match &mut self.slots[place] {
                Some(slot) if slot.used => slot.used = false,
                _ => {
                    self.clear(place);
                    return place;
                }
            }
        }
    }

    fn clear(&mut self, place: usize) {
        if let Some(slot) = self.slots[place].take() {
            self.places.remove(&slot.key);
            wipe(&mut self.arena.slot_mut(place)[..slot.length]);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for place in 0..self.slots.len() {
            self.clear(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(cache: &BlockCache, file: u64, block: u64) -> Option<Vec<u8>> {
        let mut bytes = Wiped::with_room_for(BLOCK);
        cache.copy(file, block, 0..BLOCK, &mut bytes).then(|| bytes.to_vec())
    }

    #[test]
    fn it_keeps_what_is_used_and_never_more_than_it_may() {
        let cache = BlockCache::new(3 * BLOCK).unwrap();
        for block in 0..3 {
            cache.put(1, block, &[block as u8; 100]);
        }
        assert_eq!(get(&cache, 1, 0), Some(vec![0; 100]));
        cache.put(1, 3, &[3; 100]);
        assert!(cache.has(1, 0) && cache.has(1, 3), "what was used stays");
        assert_eq!((0..4).filter(|block| cache.has(1, *block)).count(), 3);
    }

    #[test]
    fn a_part_is_cut_at_the_end_of_its_block() {
        let cache = BlockCache::new(BLOCK).unwrap();
        cache.put(1, 0, b"abcdef");
        let mut bytes = Wiped::with_room_for(2);
        assert!(cache.copy(1, 0, 4..100, &mut bytes));
        assert_eq!(bytes.as_slice(), b"ef");
        assert!(cache.copy(1, 0, 50..100, &mut bytes));
        assert_eq!(bytes.as_slice(), b"ef");
    }

    #[test]
    fn what_is_forgotten_is_wiped() {
        let cache = BlockCache::new(2 * BLOCK).unwrap();
        cache.put(1, 0, &[7; BLOCK]);
        cache.put(2, 0, &[8; BLOCK]);
        cache.forget(1);
        assert!(!cache.has(1, 0) && cache.has(2, 0));
        let inner = cache.lock();
        assert!((0..2).all(|place| !inner.arena.slot(place).contains(&7)));
    }
}
