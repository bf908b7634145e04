//! The handle table: from a handle to the place where its object lies now.
//!
//! A handle is a number of a 3-byte cell. Cells come in chunks of 79 with a 19-byte head (256 bytes together), 16
//! chunks a page; a chunk belongs to one size class while any of its handles lives, so one lock covers an object, its
//! cell and the taking of a handle. It trades at most a partly used chunk a class for that, and the objects of a class
//! beyond 2^24, which a cell could not name.
//!
//! Whether a handle lives is a bit in the chunk's head, so a stale handle, one freed twice and one never given out are
//! all told. A handle that was given out again in between cannot be told from its older life.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use super::sizes::NOMINAL;
use crate::span::{NoMemory, Span};
use crate::sync::Mutex;
use crate::{Handle, PAGE_SIZE};

/// Cells in a chunk: with the head they fill 256 bytes.
const CELLS: u32 = 79;
const MAX_CHUNKS: u32 = Handle::LIMIT / CELLS;
/// The end of a list of chunks.
pub(super) const NO_CHUNK: u32 = u32::MAX;

/// Where an object lies: its number in its class, counted through the class's arenas.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Location(u32);

impl Location {
    /// Objects of a class that can be told apart.
    pub(super) const LIMIT: usize = 1 << 24;

    /// The object with this number, below [`Location::LIMIT`].
    pub(super) fn new(number: usize) -> Location {
        debug_assert!(number < Location::LIMIT);
        #[expect(clippy::cast_possible_truncation, reason = "it is below 2^24")]
        {
            Location(number as u32)
        }
    }

    pub(super) fn number(self) -> usize {
        self.0 as usize
    }

    /// The number as it is kept elsewhere.
    pub(super) fn raw(self) -> u32 {
        self.0
    }

    /// The reverse of [`Location::raw`]; `None` where no object has this number.
    pub(super) fn from_raw(raw: u32) -> Option<Location> {
        ((raw as usize) < Location::LIMIT).then_some(Location(raw))
    }
}

/// 79 handles. All but `owner` may be used only under the lock of the class that owns the chunk.
#[repr(C)]
pub(super) struct Chunk {
    /// A bit for each cell whose handle lives: of the first 64, and below of the others.
    live: AtomicU64,
    /// Neighbours in the owner's list of chunks.
    next: AtomicU32,
    prev: AtomicU32,
    live_above: AtomicU16,
    /// One more than the class that owns the chunk, 0 for none. Changed only under that class's lock, so it is stable
    /// there; read without a lock to find out which lock to take.
    owner: AtomicU8,
    cells: [[AtomicU8; 3]; CELLS as usize],
}

const _: () = assert!(size_of::<Chunk>() == 256);
// A chunk's owner is a byte.
const _: () = assert!(NOMINAL < 256);

impl Chunk {
    /// The class that owns the chunk.
    pub(super) fn owner(&self) -> Option<usize> {
        usize::from(self.owner.load(Ordering::Acquire)).checked_sub(1)
    }

    fn live(&self) -> u128 {
        let (low, high) = (self.live.load(Ordering::Relaxed), self.live_above.load(Ordering::Relaxed));
        u128::from(high) << u64::BITS | u128::from(low)
    }

    #[expect(clippy::cast_possible_truncation, reason = "it is taken apart")]
    fn set_live(&self, live: u128) {
        self.live.store(live as u64, Ordering::Relaxed);
        self.live_above.store((live >> u64::BITS) as u16, Ordering::Relaxed);
    }

    pub(super) fn is_full(&self) -> bool {
        self.live().trailing_ones() == CELLS
    }

    pub(super) fn is_empty(&self) -> bool {
        self.live() == 0
    }

    /// The place of the object behind cell `cell`, if its handle lives.
    pub(super) fn get(&self, cell: u32) -> Option<Location> {
        let live = self.live() >> cell & 1 == 1;
        live.then(|| {
            let [low, middle, high] = &self.cells[cell as usize];
            let byte = |byte: &AtomicU8| byte.load(Ordering::Relaxed);
            Location(u32::from_le_bytes([byte(low), byte(middle), byte(high), 0]))
        })
    }

    /// The object of a live handle lies there from now on.
    pub(super) fn set(&self, cell: u32, location: Location) {
        for (byte, value) in self.cells[cell as usize].iter().zip(location.0.to_le_bytes()) {
            byte.store(value, Ordering::Relaxed);
        }
    }

    /// Takes the first free cell; the chunk is not full.
    pub(super) fn take(&self, location: Location) -> u32 {
        let live = self.live();
        let cell = live.trailing_ones();
        self.set_live(live | 1 << cell);
        self.set(cell, location);
        cell
    }

    /// Ends the life of a handle.
    pub(super) fn free(&self, cell: u32) {
        self.set_live(self.live() & !(1 << cell));
    }

    /// The cells of live handles and the places of their objects.
    pub(super) fn cells(&self) -> impl Iterator<Item = (u32, Location)> {
        (0..CELLS).filter_map(|cell| Some((cell, self.get(cell)?)))
    }
}

/// All chunks of a pool.
pub(super) struct HandleTable {
    chunks: Span,
    taken: Mutex<Taken>,
}

/// Which chunks belong to a class.
struct Taken {
    /// A bit a chunk, a word a page of the table; a page without any is not resident.
    pages: Vec<u16>,
    /// No page before this one has a free chunk: the table is filled from its start, which keeps handles small.
    first_free: usize,
    resident: usize,
}

const PER_PAGE: u32 = u16::BITS;
const _: () = assert!(PER_PAGE as usize * size_of::<Chunk>() == PAGE_SIZE);
/// Bytes made usable at once.
const USABLE_STEP: usize = 64 * PAGE_SIZE;

impl HandleTable {
    pub(super) fn new() -> Result<HandleTable, NoMemory> {
        let chunks = Span::reserve(MAX_CHUNKS as usize * size_of::<Chunk>(), USABLE_STEP)?;
        Ok(HandleTable { chunks, taken: Mutex::new(Taken { pages: Vec::new(), first_free: 0, resident: 0 }) })
    }

    /// The chunk and the cell in it that `handle` names.
    pub(super) fn find(&self, handle: Handle) -> Option<(u32, u32)> {
        let (chunk, cell) = (handle.raw() / CELLS, handle.raw() % CELLS);
        (chunk < MAX_CHUNKS).then_some((chunk, cell))
    }

    /// The handle of a cell.
    pub(super) fn handle(&self, chunk: u32, cell: u32) -> Handle {
        Handle::from_raw(chunk * CELLS + cell).expect("MAX_CHUNKS keeps handles below the limit")
    }

    pub(super) fn try_chunk(&self, chunk: u32) -> Option<&Chunk> {
        let address = self.chunks.address(chunk as usize * size_of::<Chunk>(), size_of::<Chunk>());
        // SAFETY: a non-null address is that of usable memory, at a multiple of 256 from a page boundary, so aligned; all
        // that is ever there is this chunk or, where its page was given back or never used, zeros: a chunk without owner.
        // It consists of atomics, so that it may be shared, and lives as long as the span, as the result does.
        unsafe { address.cast::<Chunk>().as_ref() }
    }

    /// A chunk that was taken before.
    pub(super) fn chunk(&self, chunk: u32) -> &Chunk {
        self.try_chunk(chunk).expect("a chunk in use is in the table")
    }

    /// A chunk for class `class`, whose lock the caller holds. `None` where memory or handles run out.
    pub(super) fn take(&self, class: usize) -> Option<u32> {
        let owner = u8::try_from(class + 1).ok()?;
        let mut taken = self.taken.lock();
        let first = taken.first_free;
        let page = match taken.pages[first..].iter().position(|&chunks| chunks != u16::MAX) {
            Some(ahead) => first + ahead,
            None => taken.pages.len(),
        };
        let used = taken.pages.get(page).copied().unwrap_or(0);
        let chunk = u32::try_from(page).ok()? * PER_PAGE + used.trailing_ones();
        if chunk >= MAX_CHUNKS || page == taken.pages.len() && taken.pages.try_reserve(1).is_err() {
            return None;
        }
        if used == 0 {
            self.page_in(page).ok()?;
            taken.resident += 1;
        }
        if page == taken.pages.len() {
            taken.pages.push(0);
        }
        taken.pages[page] = used | 1 << used.trailing_ones();
        taken.first_free = page;
        self.chunk(chunk).owner.store(owner, Ordering::Release);
        Some(chunk)
    }

    /// Backs a page of the table. The caller holds the lock of `taken`.
    fn page_in(&self, page: usize) -> Result<(), NoMemory> {
        let end = (page + 1) * PAGE_SIZE;
        if !self.chunks.is_usable(end) {
            self.chunks.make_usable(end.next_multiple_of(USABLE_STEP).min(self.chunks.reserved()))?;
        }
        self.chunks.populate(page * PAGE_SIZE, PAGE_SIZE)
    }

    /// Takes an empty chunk from its class, whose lock the caller holds.
    pub(super) fn give_back(&self, chunk: u32) {
        self.chunk(chunk).owner.store(0, Ordering::Release);
        let mut taken = self.taken.lock();
        let page = (chunk / PER_PAGE) as usize;
        taken.pages[page] &= !(1 << (chunk % PER_PAGE));
        taken.first_free = taken.first_free.min(page);
        if taken.pages[page] == 0 {
            // A page that the system does not take now is taken in again, resident or not, when it is needed.
            self.chunks.release(page * PAGE_SIZE, PAGE_SIZE);
            taken.resident -= 1;
        }
        while taken.pages.last() == Some(&0) {
            taken.pages.pop();
        }
        if taken.pages.is_empty() {
            taken.pages = Vec::new();
        }
        taken.first_free = taken.first_free.min(taken.pages.len());
    }

    /// Bytes of the resident table and the map of its chunks.
    pub(super) fn metadata_bytes(&self) -> usize {
        let taken = self.taken.lock();
        taken.resident * PAGE_SIZE + taken.pages.capacity() * size_of::<u16>()
    }

    /// Puts `chunk` at the head of a list of its owner's chunks.
    pub(super) fn link(&self, head: &mut u32, chunk: u32) {
        let (next, linked) = (*head, self.chunk(chunk));
        linked.next.store(next, Ordering::Relaxed);
        linked.prev.store(NO_CHUNK, Ordering::Relaxed);
        if next != NO_CHUNK {
            self.chunk(next).prev.store(chunk, Ordering::Relaxed);
        }
        *head = chunk;
    }

    /// Takes `chunk` off the list it is on.
    pub(super) fn unlink(&self, head: &mut u32, chunk: u32) {
        let linked = self.chunk(chunk);
        let (next, prev) = (linked.next.load(Ordering::Relaxed), linked.prev.load(Ordering::Relaxed));
        match prev {
            NO_CHUNK => *head = next,
            _ => self.chunk(prev).next.store(next, Ordering::Relaxed),
        }
        if next != NO_CHUNK {
            self.chunk(next).prev.store(prev, Ordering::Relaxed);
        }
    }

    /// The chunks of the list that starts with `head`.
    pub(super) fn list(&self, head: u32) -> impl Iterator<Item = (u32, &Chunk)> {
        let existing = |chunk| (chunk != NO_CHUNK).then(|| (chunk, self.chunk(chunk)));
        std::iter::successors(existing(head), move |(_, chunk)| existing(chunk.next.load(Ordering::Relaxed)))
    }
}
