//! Arenas: the pool's memory in pieces of 2 MiB of addresses, each lent to one class while that has zspages in it.
//!
//! A class cuts its arenas into zspages of its own chain length, one behind the other, so a zspage is contiguous in
//! addresses and no object is ever split between pages. Only the pages of zspages are resident; addresses cost nothing
//! but page tables, one 4 KiB table an arena, which the kernel frees with the pool.
//!
//! An [`Arena`] is owned like a box, so the borrow checker sees to it that nobody reads what somebody else writes.

use std::sync::Arc;

use crate::PAGE_SIZE;
use crate::span::{NoMemory, Span};
use crate::sync::Mutex;

/// Pages of an arena.
pub(super) const ARENA_PAGES: usize = 512;
/// Bytes of an arena.
const ARENA_BYTES: usize = ARENA_PAGES * PAGE_SIZE;
/// Arenas a pool can have: their numbers have 16 bits. 128 GiB of pool.
const MOST: usize = 1 << 16;

/// The arenas of one pool.
pub(super) struct Arenas {
    span: Span,
    numbers: Mutex<Numbers>,
}

/// Which arenas are not lent.
struct Numbers {
    /// Numbers from here on were never lent.
    next: usize,
    /// Has room for all numbers that were ever lent, so that giving one back never needs memory.
    freed: Vec<u16>,
}

impl Arenas {
    pub(super) fn new() -> Result<Arc<Arenas>, NoMemory> {
        let span = Span::reserve(MOST * ARENA_BYTES, 16 * ARENA_BYTES)?;
        Ok(Arc::new(Arenas { span, numbers: Mutex::new(Numbers { next: 0, freed: Vec::new() }) }))
    }

    /// An arena that no class has, without resident pages.
    pub(super) fn take(self: &Arc<Arenas>) -> Result<Arena, NoMemory> {
        let mut numbers = self.numbers.lock();
        let number = match numbers.freed.pop() {
            Some(number) => number,
            None => {
                let number = u16::try_from(numbers.next).map_err(|_| NoMemory)?;
                let lent = numbers.next + 1;
                // The list is empty here, so this makes room for all that will have been lent.
                numbers.freed.try_reserve(lent).map_err(|_| NoMemory)?;
                self.span.make_usable(lent * ARENA_BYTES)?;
                numbers.next = lent;
                number
            }
        };
        Ok(Arena { arenas: Arc::clone(self), number })
    }

    /// Bytes of the list of numbers.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Arenas>() + self.numbers.lock().freed.capacity() * size_of::<u16>()
    }
}

/// 2 MiB, owned. Pages that are not resident read as zeros. Whoever drops an arena has released its pages.
pub(super) struct Arena {
    arenas: Arc<Arenas>,
    number: u16,
}

impl Arena {
    /// The offset in the span of `len` bytes from byte `within` on.
    fn offset(&self, within: usize, len: usize) -> usize {
        assert!(within <= ARENA_BYTES && len <= ARENA_BYTES - within, "outside of the arena");
        usize::from(self.number) * ARENA_BYTES + within
    }

    pub(super) fn bytes(&self, within: usize, len: usize) -> &[u8] {
        // SAFETY: the range lies in this arena (`offset` checks it), whose number is lent to this value alone (`take`,
        // `drop`); `&self` keeps it from being written or released meanwhile, both of which take `&mut self`.
        unsafe { self.arenas.span.bytes(self.offset(within, len), len) }
    }

    pub(super) fn bytes_mut(&mut self, within: usize, len: usize) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `&mut self` is the only way into this arena meanwhile.
        unsafe { self.arenas.span.bytes_mut(self.offset(within, len), len) }
    }

    /// Copies `len` bytes from byte `from` to byte `to`; the two ranges do not overlap. Other parts of the arena may be read
    /// meanwhile, so no more than these ranges is borrowed.
    pub(super) fn copy_within(&mut self, from: usize, to: usize, len: usize) {
        assert!(from.abs_diff(to) >= len, "two objects overlap");
        let (from, to) = (self.offset(from, len), self.offset(to, len));
        // SAFETY: both lie in this arena, whose only way in is `&mut self`, but for readers of other objects; and not over
        // one another, by the assertion.
        unsafe { self.arenas.span.bytes_mut(to, len).copy_from_slice(self.arenas.span.bytes(from, len)) };
    }

    /// Backs `pages` pages from page `first` on, or none of them.
    pub(super) fn populate(&mut self, first: usize, pages: usize) -> Result<(), NoMemory> {
        let len = pages * PAGE_SIZE;
        let offset = self.offset(first * PAGE_SIZE, len);
        self.arenas.span.populate(offset, len).inspect_err(|_| {
            self.arenas.span.release(offset, len);
        })
    }

    /// Gives `pages` pages from page `first` on back to the system. `false`: they are still there.
    pub(super) fn release(&mut self, first: usize, pages: usize) -> bool {
        let len = pages * PAGE_SIZE;
        self.arenas.span.release(self.offset(first * PAGE_SIZE, len), len)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        self.arenas.numbers.lock().freed.push(self.number);
    }
}
