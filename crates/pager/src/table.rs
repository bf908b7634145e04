//! The pager's page table: what is known about each page of one process's memory, 4 bytes a page.
//!
//! A page that was never looked at has no entry; entries come in chunks of 512 pages, the span of a page-table page.
//! The kernel's own table says what is present; this one says where the content is when it is not.

use std::collections::BTreeMap;

use zswap::PAGE_SIZE;

/// Pages in a chunk.
const CHUNK: u64 = 512;
/// Bits of what a state carries.
const VALUE_BITS: u32 = 29;
const VALUE_MASK: u32 = (1 << VALUE_BITS) - 1;

/// Slots that a state can name.
pub const SLOTS: u32 = 1 << VALUE_BITS;

/// Where a page's content is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum State {
    /// In memory as the kernel has it, or nowhere: an absent page of this state reads as zeros.
    #[default]
    Unknown,
    /// In memory, and waiting for its turn to be evicted under this stamp.
    Resident(u32),
    /// In this slot of the cache.
    Slot(u32),
    /// Page `n` of the batch under way: moved out, and not in the cache yet.
    Busy(u32),
    /// It was in memory when its content was given up at this time, in seconds since the start. The kernel tells before it
    /// drops a page, so until that surely happened the page is not to be moved: its old content would come back.
    Removed(u32),
}

impl State {
    /// The slot that it is in.
    pub(crate) fn slot(self) -> Option<u32> {
        match self {
            State::Slot(slot) => Some(slot),
            _ => None,
        }
    }

    fn pack(self) -> u32 {
        match self {
            State::Unknown => 0,
            State::Resident(stamp) => 1 << VALUE_BITS | stamp & VALUE_MASK,
            State::Slot(slot) => 2 << VALUE_BITS | slot & VALUE_MASK,
            State::Busy(at) => 3 << VALUE_BITS | at & VALUE_MASK,
            State::Removed(at) => 4 << VALUE_BITS | at & VALUE_MASK,
        }
    }

    fn unpack(packed: u32) -> State {
        let value = packed & VALUE_MASK;
        match packed >> VALUE_BITS {
            0 => State::Unknown,
            1 => State::Resident(value),
            2 => State::Slot(value),
            3 => State::Busy(value),
            _ => State::Removed(value),
        }
    }
}

/// A page number: address / 4096.
pub type Page = u64;

/// The page that holds an address.
pub fn page_of(address: u64) -> Page {
    address / PAGE_SIZE as u64
}

/// The address of a page.
pub fn address_of(page: Page) -> u64 {
    page * PAGE_SIZE as u64
}

struct Chunk {
    states: [u32; CHUNK as usize],
    /// States that are not Unknown.
    used: u32,
}

/// The table.
#[derive(Default)]
pub struct Table {
    chunks: BTreeMap<u64, Box<Chunk>>,
    known: usize,
    left_slots: u64,
}

fn place(page: Page) -> (u64, usize) {
    // Below 512, so it fits.
    (page / CHUNK, (page % CHUNK) as usize)
}

impl Table {
    /// The state of a page.
    pub fn get(&self, page: Page) -> State {
        let (chunk, at) = place(page);
        self.chunks.get(&chunk).map_or(State::Unknown, |chunk| State::unpack(chunk.states[at]))
    }

    /// Sets the state of a page, and returns the one before.
    pub fn set(&mut self, page: Page, state: State) -> State {
        let (number, at) = place(page);
        let packed = state.pack();
        if packed == 0 && !self.chunks.contains_key(&number) {
            return State::Unknown;
        }
        let chunk = self
            .chunks
            .entry(number)
            .or_insert_with(|| Box::new(Chunk { states: [0; CHUNK as usize], used: 0 }));
        let before = std::mem::replace(&mut chunk.states[at], packed);
        chunk.used = chunk.used + u32::from(packed != 0) - u32::from(before != 0);
        self.known = self.known + usize::from(packed != 0) - usize::from(before != 0);
        if chunk.used == 0 {
            self.chunks.remove(&number);
        }
        let before = State::unpack(before);
        self.left_slots += u64::from(matches!(before, State::Slot(_)));
        before
    }

    /// Pages of which something is known.
    pub fn known(&self) -> usize {
        self.known
    }

    /// How often a page has left its slot. While this stays the same, every page that was in a slot is in that slot still.
    pub fn left_slots(&self) -> u64 {
        self.left_slots
    }

    /// Forgets the pages from `first` to before `end`, and calls `each` with what was known.
    pub fn take(&mut self, first: Page, end: Page, mut each: impl FnMut(Page, State)) {
        let mut number = first / CHUNK;
        while let Some((&found, chunk)) = self.chunks.range_mut(number..).next() {
            if found * CHUNK >= end {
                break;
            }
            for at in 0..CHUNK {
                let page = found * CHUNK + at;
                let packed = &mut chunk.states[at as usize];
                if *packed != 0 && (first..end).contains(&page) {
                    let state = State::unpack(std::mem::take(packed));
                    chunk.used -= 1;
                    self.known -= 1;
                    self.left_slots += u64::from(matches!(state, State::Slot(_)));
                    each(page, state);
                }
            }
            if chunk.used == 0 {
                self.chunks.remove(&found);
            }
            number = found + 1;
        }
    }

    /// Calls `each` with every known page, in order.
    pub fn for_each(&self, mut each: impl FnMut(Page, State)) {
        for (number, chunk) in &self.chunks {
            for (at, &packed) in (0..).zip(&chunk.states) {
                if packed != 0 {
                    each(number * CHUNK + at, State::unpack(packed));
                }
            }
        }
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        self.chunks.len() * (size_of::<Chunk>() + 24)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn it_is_a_map() {
        let mut table = Table::default();
        let mut model = BTreeMap::new();
        let mut seed = 88_172_645_463_325_252_u64;
        let mut random = |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        let is_slot = |state: &State| u64::from(matches!(state, State::Slot(_)));
        let mut left = 0;
        for _ in 0..200_000 {
            assert_eq!(table.left_slots(), left);
            assert_eq!(table.known(), model.len());
            let page = random(4) * 1_000_003 + random(2_000);
            let value = u32::try_from(random(1 << 29)).unwrap();
            let state = match random(6) {
                0 => State::Unknown,
                1 => State::Resident(value),
                2 => State::Slot(value),
                3 => State::Busy(value),
                4 => State::Removed(value),
                _ => {
                    let (first, end) = (page, page + random(1500));
                    let mut taken = Vec::new();
                    if random(40) == 0 {
                        table.take(first, end, |page, state| taken.push((page, state)));
                        let gone: Vec<_> =
                            model.range(first..end).map(|(page, state)| (*page, *state)).collect();
                        assert_eq!(taken, gone);
                        left += gone.iter().map(|(_, state)| is_slot(state)).sum::<u64>();
                        model.retain(|page, _| !(first..end).contains(page));
                    }
                    assert_eq!(table.get(page), model.get(&page).copied().unwrap_or_default());
                    continue;
                }
            };
            let before = table.set(page, state);
            assert_eq!(before, model.get(&page).copied().unwrap_or_default());
            left += is_slot(&before);
            if state == State::Unknown {
                model.remove(&page)
            } else {
                model.insert(page, state)
            };
        }
        let mut all = Vec::new();
        table.for_each(|page, state| all.push((page, state)));
        assert!(all.into_iter().eq(model.iter().map(|(page, state)| (*page, *state))));
        table.take(0, u64::MAX, |_, _| {});
        assert_eq!(table.bytes(), 0);
    }
}
