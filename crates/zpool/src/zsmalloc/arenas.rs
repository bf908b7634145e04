//! Arenas: the pool's memory in pieces of 2 MiB of addresses, each lent to one class while that has zspages in it.
//!
//! A class cuts its arenas into zspages of its own chain length, one behind the other, so a zspage is contiguous in
//! addresses and no object is ever split between pages. Only the pages of live zspages are resident; addresses cost
//! nothing but page tables.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use crate::PAGE_SIZE;
use crate::span::{NoMemory, Span};
use crate::sync::Mutex;

/// Pages of an arena.
pub(super) const ARENA_PAGES: usize = 512;
/// Bytes of an arena.
const ARENA_BYTES: usize = ARENA_PAGES * PAGE_SIZE;
/// Arenas a pool can have: a location has 16 bits for the number, of which 0 says "none". 128 GiB of pool.
const MOST: usize = (1 << 16) - 1;
/// Resident empty zspages are kept for reuse up to this many pages of a pool...
const CACHE_PAGES: usize = 64;
/// ...but never more than this share of the pages in use.
const CACHE_SHARE: usize = 32;

/// Where an object is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Location {
    pub arena: u16,
    /// The slot's number in the arena, all zspages counted through.
    pub slot: u16,
}

impl Location {
    /// As a cell of the handle table holds it. Never below 2^16: smaller values are free cells.
    pub(super) fn pack(self) -> u32 {
        (u32::from(self.arena) + 1) << 16 | u32::from(self.slot)
    }

    pub(super) fn unpack(cell: u32) -> Option<Location> {
        let arena = u16::try_from((cell >> 16).checked_sub(1)?).ok()?;
        Some(Location { arena, slot: (cell & 0xffff) as u16 })
    }
}

/// Which class has an arena, and where in its list.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Home {
    pub class: u8,
    pub position: u16,
}

pub(super) struct Arenas {
    pub span: Span,
    numbers: Mutex<Numbers>,
    /// By arena: [`Home`], packed; 0 for an arena that nobody has. Read by anybody, written by the class that has it.
    homes: Box<[AtomicU32]>,
    lent: AtomicUsize,
    /// Pages of zspages, those of empty ones kept for reuse included.
    pages: AtomicUsize,
    /// Pages of the empty ones.
    cached: AtomicUsize,
}

struct Numbers {
    next: u16,
    freed: Vec<u16>,
}

impl Arenas {
    pub(super) fn new() -> Result<Arenas, NoMemory> {
        let span = Span::reserve(MOST * ARENA_BYTES, 16 * ARENA_BYTES)?;
        let count = span.reserved() / ARENA_BYTES;
        let mut homes = Vec::new();
        homes.try_reserve_exact(count).map_err(|_| NoMemory)?;
        homes.resize_with(count, || AtomicU32::new(0));
        Ok(Arenas {
            span,
            numbers: Mutex::new(Numbers { next: 0, freed: Vec::new() }),
            homes: homes.into(),
            lent: AtomicUsize::new(0),
            pages: AtomicUsize::new(0),
            cached: AtomicUsize::new(0),
        })
    }

    /// An arena that no class has.
    pub(super) fn take(&self) -> Result<u16, NoMemory> {
        let mut numbers = self.numbers.lock();
        let number = match numbers.freed.pop() {
            Some(number) => number,
            None => {
                let number = numbers.next;
                if usize::from(number) >= self.homes.len() {
                    return Err(NoMemory);
                }
                self.span.make_usable((usize::from(number) + 1) * ARENA_BYTES)?;
                numbers.next += 1;
                number
            }
        };
        self.lent.fetch_add(1, Relaxed);
        Ok(number)
    }

    /// Gives an arena without resident zspages back.
    pub(super) fn give(&self, number: u16) {
        self.homes[usize::from(number)].store(0, Relaxed);
        self.lent.fetch_sub(1, Relaxed);
        self.numbers.lock().freed.push(number);
    }

    pub(super) fn home(&self, number: u16) -> Option<Home> {
        let packed = self.homes.get(usize::from(number))?.load(Relaxed);
        let class = u8::try_from((packed >> 16).checked_sub(1)?).ok()?;
        Some(Home { class, position: (packed & 0xffff) as u16 })
    }

    pub(super) fn set_home(&self, number: u16, home: Home) {
        if let Some(cell) = self.homes.get(usize::from(number)) {
            cell.store((u32::from(home.class) + 1) << 16 | u32::from(home.position), Relaxed);
        }
    }

    /// Offset in the span of byte `within` of an arena.
    pub(super) fn offset(number: u16, within: usize) -> usize {
        usize::from(number) * ARENA_BYTES + within
    }

    /// Counts pages that became resident.
    pub(super) fn add_pages(&self, pages: usize) {
        self.pages.fetch_add(pages, Relaxed);
    }

    /// Counts pages that went back to the system.
    pub(super) fn remove_pages(&self, pages: usize) {
        self.pages.fetch_sub(pages, Relaxed);
    }

    /// Counts an empty zspage as kept for reuse, if there is room for that.
    pub(super) fn may_cache(&self, pages: usize) -> bool {
        let fits = self.cached.load(Relaxed) + pages <= self.cache_limit(pages);
        if fits {
            self.cached.fetch_add(pages, Relaxed);
        }
        fits
    }

    /// Counts a kept zspage as in use again, or gone.
    pub(super) fn uncache(&self, pages: usize) {
        self.cached.fetch_sub(pages, Relaxed);
    }

    /// Whether more is kept than the pages in use allow.
    pub(super) fn caches_too_much(&self) -> bool {
        let cached = self.cached.load(Relaxed);
        cached > 0 && cached > self.cache_limit(0)
    }

    /// The most pages that may be kept; `leaving` of those counted as in use are about to be empty.
    fn cache_limit(&self, leaving: usize) -> usize {
        let in_use = self.pages.load(Relaxed).saturating_sub(self.cached.load(Relaxed) + leaving);
        CACHE_PAGES.min(in_use / CACHE_SHARE)
    }

    pub(super) fn total_pages(&self) -> usize {
        self.pages.load(Relaxed)
    }

    /// Arenas that classes have.
    pub(super) fn lent(&self) -> usize {
        self.lent.load(Relaxed)
    }

    /// Bytes of the fixed tables, as far as they are touched.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Arenas>() + (self.lent() * size_of::<AtomicU32>()).next_multiple_of(PAGE_SIZE)
    }
}
