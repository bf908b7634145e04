//! Swap slots: the numbers under which evicted pages are in the cache, with a count of the processes that share each.
//!
//! A fork shares every slot of the parent with the child, as it shares swap entries in the kernel; the content stays until
//! the last of them has it back or drops it.

use std::collections::HashMap;

use crate::table::SLOTS;

/// Marks the end of the list of free slots.
const NONE: u32 = u32::MAX;
/// Sharers counted in place; more than that are in the side table.
const MANY: u16 = u16::MAX;

/// All slots. Six bytes for each that was ever used.
pub struct Slots {
    /// How many share a slot; 0: it is free.
    shares: Vec<u16>,
    /// When it was filled, in evictions since the start; of a free slot, the next free one.
    filled_at: Vec<u32>,
    more: HashMap<u32, u32>,
    free: u32,
    limit: u32,
    clock: u32,
}

impl Slots {
    /// None used, `limit` at most.
    pub fn new(limit: u32) -> Slots {
        let limit = limit.min(SLOTS);
        Slots { shares: Vec::new(), filled_at: Vec::new(), more: HashMap::new(), free: NONE, limit, clock: 0 }
    }

    /// A free slot, now used by one. `None`: all are used, or there is no memory for another.
    pub fn allocate(&mut self) -> Option<u32> {
        let clock = self.clock;
        let slot = if self.free != NONE {
            let slot = self.free;
            self.free = std::mem::replace(self.filled_at.get_mut(slot as usize)?, clock);
            *self.shares.get_mut(slot as usize)? = 1;
            slot
        } else {
            let slot = u32::try_from(self.shares.len()).ok().filter(|slot| *slot < self.limit)?;
            self.shares.try_reserve(1).ok()?;
            self.filled_at.try_reserve(1).ok()?;
            self.shares.push(1);
            self.filled_at.push(clock);
            slot
        };
        self.clock = self.clock.wrapping_add(1);
        Some(slot)
    }

    /// One more process has this slot.
    pub fn share(&mut self, slot: u32) {
        let Some(count) = self.shares.get_mut(slot as usize) else { return };
        if *count == MANY {
            *self.more.entry(slot).or_insert(0) += 1;
        } else {
            *count += 1;
        }
    }

    /// One process less has it. Returns whether it was the last: the content is the caller's to drop, before anybody can be
    /// given the slot again.
    #[must_use]
    pub fn release(&mut self, slot: u32) -> bool {
        let Some(count) = self.shares.get_mut(slot as usize).filter(|count| **count > 0) else {
            return false;
        };
        if let Some(more) = self.more.get_mut(&slot) {
            *more -= 1;
            if *more == 0 {
                self.more.remove(&slot);
            }
            return false;
        }
        *count -= 1;
        *count == 0
    }

    /// Gives a slot back whose content is dropped.
    pub fn free(&mut self, slot: u32) {
        if let Some(filled_at) = self.filled_at.get_mut(slot as usize) {
            *filled_at = self.free;
            self.free = slot;
        }
    }

    /// Pages evicted since the page in this slot was.
    pub fn age(&self, slot: u32) -> u32 {
        self.filled_at.get(slot as usize).map_or(u32::MAX, |filled| self.clock.wrapping_sub(*filled))
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        self.shares.capacity() * 2 + self.filled_at.capacity() * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_drops_it() {
        let mut slots = Slots::new(2);
        let first = slots.allocate().unwrap();
        let second = slots.allocate().unwrap();
        assert_ne!(first, second);
        assert_eq!(slots.allocate(), None, "past the limit");
        for _ in 0..70_000 {
            slots.share(first);
        }
        for _ in 0..70_000 {
            assert!(!slots.release(first));
        }
        assert!(slots.release(first));
        slots.free(first);
        assert!(!slots.release(first), "a free slot has nobody to release it");
        assert_eq!(slots.allocate(), Some(first));
        assert_eq!(slots.age(second), 2);
    }
}
