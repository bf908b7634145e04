//! A fixed set of page-aligned buffers for direct I/O.
//!
//! Direct I/O wants aligned memory and a caller's page may lie anywhere. The buffers are there from the start: writing
//! pages out is what a system short of memory does, so it must not need memory. That trades waiting for it: when all
//! buffers are lent, the next thread waits until a transfer ends. A buffer is never lent twice at a time.

use std::ffi::c_void;
use std::ops::{Deref, DerefMut};
use std::ptr::{NonNull, null_mut};
use std::slice;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::{PAGE_SIZE, Page};

/// Pages in one buffer; longer runs are several requests.
pub(crate) const RUN: usize = 16;
/// Buffers: transfers that can go on at once.
const BUFFERS: usize = 8;
const BYTES: usize = BUFFERS * RUN * PAGE_SIZE;

pub(crate) struct Buffers {
    base: NonNull<c_void>,
    /// std's lock and not parking_lot's: its waiters need no heap memory.
    lent: Mutex<Lent>,
    freed: Condvar,
}

struct Lent {
    /// A bit for each buffer that is free.
    free: u32,
    /// Threads that wait for one: std's condition variable asks the kernel to wake even where nobody waits.
    waiting: u32,
}

// SAFETY: `base` is this struct's own mapping; access to it goes through a `Buffer`, of which there is one a bit of
// `Lent::free`, so no two threads reach the same bytes.
unsafe impl Send for Buffers {}
// SAFETY: as above.
unsafe impl Sync for Buffers {}

impl Buffers {
    pub(crate) fn new() -> Result<Buffers, Errno> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new private mapping at an address of the kernel's choice touches no memory of anybody's.
        let base =
            unsafe { mmap_anonymous(null_mut(), BYTES, access, MapFlags::PRIVATE | MapFlags::POPULATE)? };
        let base = NonNull::new(base).ok_or(Errno::NOMEM)?;
        Ok(Buffers {
            base,
            lent: Mutex::new(Lent { free: (1 << BUFFERS) - 1, waiting: 0 }),
            freed: Condvar::new(),
        })
    }

    /// A buffer of [`RUN`] pages with undefined content; waits until one is free.
    pub(crate) fn take(&self) -> Buffer<'_> {
        let mut lent = self.lock();
        while lent.free == 0 {
            lent.waiting += 1;
            lent = self.freed.wait(lent).unwrap_or_else(PoisonError::into_inner);
            lent.waiting -= 1;
        }
        let index = lent.free.trailing_zeros();
        lent.free &= !(1 << index);
        Buffer { buffers: self, index }
    }

    fn lock(&self) -> MutexGuard<'_, Lent> {
        // Nothing can panic while it is held.
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: `base` is this struct's mapping of `BYTES` bytes, and each `Buffer` borrows the struct, so none is
        // left. The call can only fail for a mapping that is not there.
        let _ = unsafe { munmap(self.base.as_ptr(), BYTES) };
    }
}

/// A buffer on loan.
pub(crate) struct Buffer<'a> {
    buffers: &'a Buffers,
    index: u32,
}

impl Buffer<'_> {
    fn start(&self) -> NonNull<Page> {
        // SAFETY: `index` is below `BUFFERS` (it was a set bit of `Lent::free`), so this stays inside the mapping.
        unsafe { self.buffers.base.cast::<Page>().add(self.index as usize * RUN) }
    }
}

impl Deref for Buffer<'_> {
    type Target = [Page];

    fn deref(&self) -> &[Page] {
        // SAFETY: the `RUN` pages from `start` are mapped, were initialised by the kernel, and belong to this loan only.
        unsafe { slice::from_raw_parts(self.start().as_ptr(), RUN) }
    }
}

impl DerefMut for Buffer<'_> {
    fn deref_mut(&mut self) -> &mut [Page] {
        // SAFETY: as in `deref`, and `self` is borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.start().as_ptr(), RUN) }
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        let mut lent = self.buffers.lock();
        lent.free |= 1 << self.index;
        if lent.waiting > 0 {
            self.buffers.freed.notify_one();
        }
    }
}
