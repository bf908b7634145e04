//! The handle table: from a handle to the place where its object lies now.
//!
//! A handle is a number of a 4-byte cell. Cells come in chunks of 58 with a 24-byte head (256 bytes together), 16
//! chunks a page; a chunk belongs to one size class while any of its handles lives, so one lock covers an object, its
//! cell and the taking of a handle. It trades at most a partly used chunk a class for that.
//!
//! Whether a handle lives is a bit in the chunk's head, so a stale handle, one freed twice and one never given out are
//! all told. A handle that was given out again in between cannot be told from its older life.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::span::{NoMemory, Span};
use crate::sync::Mutex;
use crate::{Handle, PAGE_SIZE};

/// Cells in a chunk: with the head they fill 256 bytes.
const CELLS: u32 = 58;
/// All cells of a chunk are in use.
const ALL: u64 = (1 << CELLS) - 1;
const MAX_CHUNKS: u32 = Handle::LIMIT / CELLS;
/// The end of a list of chunks.
pub(super) const NO_CHUNK: u32 = u32::MAX;

/// Where an object lies in its class: the class's arena (upper half) and the object's number in it (lower half).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Location(u32);

impl Location {
    pub(super) fn new(arena: u16, object: u16) -> Location {
        Location(u32::from(arena) << 16 | u32::from(object))
    }

    pub(super) fn arena(self) -> u16 {
        (self.0 >> 16) as u16
    }

    pub(super) fn object(self) -> u16 {
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
        {
            self.0 as u16
        }
    }
}

/// 58 handles. All but `owner` may be used only under the lock of the class that owns the chunk.
#[repr(C)]
pub(super) struct Chunk {
    /// A bit for each cell whose handle lives.
    live: AtomicU64,
    /// Neighbours in the owner's list of chunks.
    next: AtomicU32,
    prev: AtomicU32,
    /// One more than the class that owns the chunk, 0 for none. Changed only under that class's lock, so it is stable
    /// there; read without a lock to find out which lock to take.
    owner: AtomicU32,
    _reserved: u32,
    cells: [AtomicU32; CELLS as usize],
}

const _: () = assert!(size_of::<Chunk>() == 256);

impl Chunk {
    /// The class that owns the chunk.
    pub(super) fn owner(&self) -> Option<usize> {
        (self.owner.load(Ordering::Acquire) as usize).checked_sub(1)
    }

    pub(super) fn is_full(&self) -> bool {
        self.live.load(Ordering::Relaxed) == ALL
    }

    pub(super) fn is_empty(&self) -> bool {
        self.live.load(Ordering::Relaxed) == 0
    }

    /// The place of the object behind cell `cell`, if its handle lives.
    pub(super) fn get(&self, cell: u32) -> Option<Location> {
        let live = self.live.load(Ordering::Relaxed) >> cell & 1 == 1;
        live.then(|| Location(self.cells[cell as usize].load(Ordering::Relaxed)))
    }

    /// The object of a live handle lies there from now on.
    pub(super) fn set(&self, cell: u32, location: Location) {
        self.cells[cell as usize].store(location.0, Ordering::Relaxed);
    }

    /// Takes the first free cell; the chunk is not full.
    pub(super) fn take(&self, location: Location) -> u32 {
        let live = self.live.load(Ordering::Relaxed);
        let cell = live.trailing_ones();
        self.live.store(live | 1 << cell, Ordering::Relaxed);
        self.set(cell, location);
        cell
    }

    /// Ends the life of a handle.
    pub(super) fn free(&self, cell: u32) {
        let live = self.live.load(Ordering::Relaxed);
        self.live.store(live & !(1 << cell), Ordering::Relaxed);
    }

    /// The cells of live handles.
    pub(super) fn cells(&self) -> impl Iterator<Item = u32> + use<> {
        let mut live = self.live.load(Ordering::Relaxed);
        std::iter::from_fn(move || {
            let cell = live.trailing_zeros();
            live &= live.wrapping_sub(1);
            (cell < u64::BITS).then_some(cell)
        })
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
        self.chunk(chunk).owner.store(u32::try_from(class).ok()? + 1, Ordering::Release);
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
