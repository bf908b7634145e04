//! The table of handles: for each, a 4-byte cell that says where its object is.
//!
//! Cells come in chunks of a page of 1024. A chunk belongs to one class at a time, and only the holder of that class's
//! lock changes it, so taking a handle needs no lock of its own. A chunk whose last handle is freed gives its page back.
//!
//! A cell may be read by anybody at any time. One that holds no location says so, whatever was freed meanwhile.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use super::arenas::Location;
use crate::span::{NoMemory, Span};
use crate::sync::Mutex;
use crate::{Handle, PAGE_SIZE};

/// Cells in a chunk.
const CHUNK: u32 = (PAGE_SIZE / size_of::<AtomicU32>()) as u32;
/// Cells made usable at once.
const USABLE_STEP: usize = 1 << 20;
/// "No next cell" in a list of free cells.
const END: u16 = CHUNK as u16;

/// A chunk of handles, as its class keeps it.
pub(super) struct Chunk {
    number: u32,
    used: u16,
    /// First of the freed cells; each holds the number of the next.
    free: u16,
    /// Cells from here on were never used since the chunk was taken.
    fresh: u16,
}

impl Chunk {
    pub(super) fn is_full(&self) -> bool {
        u32::from(self.used) == CHUNK
    }

    pub(super) fn is_empty(&self) -> bool {
        self.used == 0
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// The chunk that a handle is in.
    pub(super) fn number_of(handle: Handle) -> u32 {
        handle.raw() / CHUNK
    }

    /// All handles of the chunk, live or not.
    pub(super) fn handles(&self) -> impl Iterator<Item = Handle> + use<> {
        let first = self.number * CHUNK;
        (first..first + CHUNK).filter_map(Handle::from_raw)
    }
}

pub(super) struct Handles {
    cells: Span,
    chunks: Mutex<Numbers>,
    live_chunks: AtomicUsize,
}

/// Which chunk numbers are not taken.
struct Numbers {
    next: u32,
    freed: Vec<u32>,
}

impl Handles {
    pub(super) fn new() -> Result<Handles, NoMemory> {
        let bytes = Handle::LIMIT as usize * size_of::<AtomicU32>();
        Ok(Handles {
            cells: Span::reserve(bytes, USABLE_STEP)?,
            chunks: Mutex::new(Numbers { next: 0, freed: Vec::new() }),
            live_chunks: AtomicUsize::new(0),
        })
    }

    /// The cell of `handle`, if the table ever reached that far.
    fn cell(&self, handle: Handle) -> Option<&AtomicU32> {
        let address =
            self.cells.address(handle.raw() as usize * size_of::<AtomicU32>(), size_of::<AtomicU32>());
        // SAFETY: a non-null address is of usable memory, and a multiple of 4 from a page boundary; all that is ever read
        // or written there is this atomic; the pages of a freed chunk read as zero, a cell without location.
        (!address.is_null()).then(|| unsafe { &*address.cast::<AtomicU32>() })
    }

    /// Where the object of `handle` is; `None` for a handle that is not live.
    pub(super) fn location(&self, handle: Handle) -> Option<Location> {
        Location::unpack(self.cell(handle)?.load(Relaxed))
    }

    /// Says where the object of `handle` is. To be called by the holder of its class's lock.
    pub(super) fn set_location(&self, handle: Handle, location: Location) {
        if let Some(cell) = self.cell(handle) {
            cell.store(location.pack(), Relaxed);
        }
    }

    /// A new chunk.
    pub(super) fn take_chunk(&self) -> Result<Chunk, NoMemory> {
        let mut numbers = self.chunks.lock();
        let number = match numbers.freed.pop() {
            Some(number) => number,
            None => {
                let number = numbers.next;
                let end = (number as usize + 1) * PAGE_SIZE;
                if number >= Handle::LIMIT / CHUNK || end > self.cells.reserved() {
                    return Err(NoMemory);
                }
                if !self.cells.is_usable(end) {
                    self.cells.make_usable(end.next_multiple_of(USABLE_STEP).min(self.cells.reserved()))?;
                }
                numbers.next += 1;
                number
            }
        };
        if let Err(error) = self.cells.populate(number as usize * PAGE_SIZE, PAGE_SIZE) {
            numbers.freed.push(number);
            return Err(error);
        }
        self.live_chunks.fetch_add(1, Relaxed);
        Ok(Chunk { number, used: 0, free: END, fresh: 0 })
    }

    /// Gives a chunk without live handles back, and its page to the system.
    pub(super) fn give_chunk(&self, chunk: Chunk) {
        self.cells.release(chunk.number as usize * PAGE_SIZE, PAGE_SIZE);
        self.live_chunks.fetch_sub(1, Relaxed);
        self.chunks.lock().freed.push(chunk.number);
    }

    /// A handle of a chunk that is not full, for an object at `location`.
    pub(super) fn take(&self, chunk: &mut Chunk, location: Location) -> Option<Handle> {
        let (within, next_free) = if chunk.free != END {
            let freed = Handle::from_raw(chunk.number * CHUNK + u32::from(chunk.free))?;
            (chunk.free, next_of(self.cell(freed)?.load(Relaxed)))
        } else if u32::from(chunk.fresh) < CHUNK {
            (chunk.fresh, END)
        } else {
            return None;
        };
        let handle = Handle::from_raw(chunk.number * CHUNK + u32::from(within))?;
        if chunk.free == END {
            chunk.fresh += 1;
        } else {
            chunk.free = next_free;
        }
        chunk.used += 1;
        self.set_location(handle, location);
        Some(handle)
    }

    /// Frees a live handle of `chunk`.
    pub(super) fn give(&self, chunk: &mut Chunk, handle: Handle) {
        if let Some(cell) = self.cell(handle) {
            cell.store(u32::from(chunk.free), Relaxed);
            chunk.free = (handle.raw() % CHUNK) as u16;
            chunk.used -= 1;
        }
    }

    /// Bytes of the table.
    pub(super) fn bytes(&self) -> usize {
        self.live_chunks.load(Relaxed) * (PAGE_SIZE + size_of::<Chunk>())
    }
}

/// A free cell holds the number of the next free one of its chunk, which no packed location can look like.
fn next_of(cell: u32) -> u16 {
    u16::try_from(cell).unwrap_or(END)
}
