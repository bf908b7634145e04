//! Swap slots: the numbers under which evicted pages are in the cache, with a count of the processes that share each.
//!
//! A fork shares every slot of the parent with the child, as it shares swap entries in the kernel; the content stays until
//! the last of them has it back or drops it.
//!
//! Slots are given out in rising order, round and round, so that pages which leave together are neighbours: in the index, and in
//! the swap file, which is written in runs. A round is longer than what is in use where there is such a file: what comes back
//! at random leaves holes, and in slots that are half in use a hole is five long when its turn comes, in full ones one.

use std::collections::HashMap;

use crate::table::SLOTS;

/// Sharers counted in place; more than that are in the side table.
const MANY: u16 = u16::MAX;

/// Slots to a word of their bits.
const WORD: usize = u64::BITS as usize;

/// All slots. A little more than six bytes for each that was ever used.
pub struct Slots {
    /// How many share a slot; 0: it is free, or its content is being dropped.
    shares: Vec<u16>,
    /// When it was filled, in evictions since the start.
    filled_at: Vec<u32>,
    more: HashMap<u32, u32>,
    /// A bit for each slot that is not free.
    taken: Vec<u64>,
    in_use: usize,
    /// The next slot to look at.
    next: usize,
    limit: usize,
    /// How many times as many slots as are in use there may be.
    spread: usize,
    clock: u32,
}

impl Slots {
    /// None used, `limit` at most, and in a round no more than `spread` times as many as are in use.
    pub fn new(limit: u32, spread: usize) -> Slots {
        Slots {
            shares: Vec::new(),
            filled_at: Vec::new(),
            more: HashMap::new(),
            taken: Vec::new(),
            in_use: 0,
            next: 0,
            limit: limit.min(SLOTS) as usize,
            spread,
            clock: 0,
        }
    }

    /// A free slot, now used by one. `None`: all are used, or there is no memory for another.
    pub fn allocate(&mut self) -> Option<u32> {
        let exist = self.shares.len();
        let at = self
            .free_in(self.next, exist)
            .or_else(|| (exist < self.in_use * self.spread).then(|| self.add()).flatten())
            .or_else(|| self.free_in(0, exist))
            .or_else(|| self.add())?;
        let slot = u32::try_from(at).ok()?;
        *self.taken.get_mut(at / WORD)? |= 1 << (at % WORD);
        *self.shares.get_mut(at)? = 1;
        *self.filled_at.get_mut(at)? = self.clock;
        self.next = at + 1;
        self.in_use += 1;
        self.clock = self.clock.wrapping_add(1);
        Some(slot)
    }

    /// The first free slot of those from `from` to before `end`.
    fn free_in(&self, from: usize, end: usize) -> Option<usize> {
        if self.in_use == self.shares.len() {
            return None;
        }
        let mut at = from;
        while at < end {
            let free = !self.taken.get(at / WORD)? >> (at % WORD);
            if free != 0 {
                return Some(at + free.trailing_zeros() as usize).filter(|&slot| slot < end);
            }
            at = (at / WORD + 1) * WORD;
        }
        None
    }

    /// One more slot, which is free.
    fn add(&mut self) -> Option<usize> {
        let slot = self.shares.len();
        if slot >= self.limit {
            return None;
        }
        self.shares.try_reserve(1).ok()?;
        self.filled_at.try_reserve(1).ok()?;
        if slot.is_multiple_of(WORD) {
            self.taken.try_reserve(1).ok()?;
            self.taken.push(0);
        }
        self.shares.push(0);
        self.filled_at.push(0);
        Some(slot)
    }

    /// How many are free, those included that were never used.
    pub fn free_count(&self) -> usize {
        self.limit.saturating_sub(self.in_use)
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
        let (at, bit) = (slot as usize / WORD, 1 << (slot as usize % WORD));
        if let Some(taken) = self.taken.get_mut(at).filter(|taken| **taken & bit != 0) {
            *taken &= !bit;
            self.in_use -= 1;
        }
    }

    /// Pages evicted since the page in this slot was.
    pub fn age(&self, slot: u32) -> u32 {
        self.filled_at.get(slot as usize).map_or(u32::MAX, |filled| self.clock.wrapping_sub(*filled))
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        self.shares.capacity() * 2 + self.filled_at.capacity() * 4 + self.taken.capacity() * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_last_one_drops_it() {
        let mut slots = Slots::new(2, 1);
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

    /// Against a set of the slots in use.
    #[test]
    fn nobody_gets_a_slot_that_another_has() {
        for (limit, spread) in [(1, 1), (63, 2), (64, 1), (65, 2), (500, 1), (5000, 2)] {
            let mut slots = Slots::new(limit, spread);
            let mut used = BTreeSet::new();
            let (mut state, mut most) = (1u64, 0);
            let mut random = |below: usize| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as usize % below
            };
            for step in 0..40_000 {
                // Fills up, lives in between, is emptied.
                let wanted = [90, 50, 55, 10][step / 10_000];
                if random(100) < wanted {
                    match slots.allocate() {
                        Some(slot) => assert!(slot < limit && used.insert(slot), "slot {slot} twice"),
                        None => assert_eq!(used.len(), limit as usize, "none of {limit} is given out"),
                    }
                    most = most.max(used.len());
                } else if let Some(&slot) = used.iter().nth(random(used.len().max(1))) {
                    assert!(slots.release(slot));
                    slots.free(slot);
                    used.remove(&slot);
                }
                assert_eq!(slots.in_use, used.len());
                assert!(slots.shares.len() <= most * spread, "{} slots for {most}", slots.shares.len());
            }
        }
    }

    #[test]
    fn what_leaves_together_has_neighbouring_slots() {
        const IN_USE: usize = 10_000;
        let run_length = |spread| {
            let mut slots = Slots::new(1 << 20, spread);
            let mut used: Vec<u32> = (0..IN_USE).map(|_| slots.allocate().unwrap()).collect();
            let (mut state, mut runs, mut last) = (1u64, 0, None);
            const TURNS: usize = 100_000;
            for _ in 0..TURNS {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let back = &mut used[(state >> 33) as usize % IN_USE];
                assert!(slots.release(*back));
                slots.free(*back);
                *back = slots.allocate().unwrap();
                runs += usize::from(last.map(|last: u32| last + 1) != Some(*back));
                last = Some(*back);
            }
            TURNS / runs
        };
        assert_eq!(run_length(1), 1);
        assert!(run_length(2) >= 4, "{}", run_length(2));
    }
}
