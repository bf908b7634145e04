//! Pages in anonymous memory.
//!
//! For tests, and for a second tier that is RAM but not the pool. A page takes memory from its first write to its
//! discard, and the memory of a discarded page goes back to the system at once, also from a process that locks its
//! memory. What this can never do: hold more pages than its cap, or keep content across a restart.

use std::ffi::c_void;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munlock, munmap};

use crate::{DeviceError, PAGE_SIZE, Page, SwapDevice, check_range, run_length};

/// Pages under one lock: the bits of a word.
const BLOCK: u64 = u64::BITS as u64;

/// See the head of this file.
pub struct Memory {
    base: NonNull<c_void>,
    pages: usize,
    /// A lock for each 64 pages. It guards their content and the bitmap of those that are held.
    blocks: Box<[RwLock<u64>]>,
    /// Pages held.
    held: AtomicUsize,
    /// Pages that may be held.
    cap: AtomicUsize,
}

// SAFETY: `base` is this struct's own mapping, and the bytes of a page are reached only under the lock of its block.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// A device of `pages` pages that takes memory for at most `cap` of them. Address space is reserved, no memory.
    /// `Io(ENOMEM)` where there is not that much address space.
    pub fn new(pages: u64, cap: usize) -> Result<Memory, DeviceError> {
        let no_memory = DeviceError::from(Errno::NOMEM);
        let pages = usize::try_from(pages).map_err(|_| no_memory)?;
        let bytes = pages.checked_mul(PAGE_SIZE).ok_or(no_memory)?;
        let mut blocks = Vec::new();
        let count = pages.div_ceil(u64::BITS as usize);
        blocks.try_reserve_exact(count).map_err(|_| no_memory)?;
        blocks.resize_with(count, || RwLock::new(0));
        let base = if bytes == 0 {
            NonNull::dangling()
        } else {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            // SAFETY: a new private mapping at an address of the kernel's choice touches no memory of anybody's.
            let base = unsafe { mmap_anonymous(null_mut(), bytes, access, flags)? };
            // A huge page would take memory for pages that nobody wrote. EINVAL: the kernel has none.
            // SAFETY: the range is the mapping made above; this advice changes no content.
            let _ = unsafe { madvise(base, bytes, Advice::LinuxNoHugepage) };
            NonNull::new(base).ok_or(no_memory)?
        };
        let (held, cap) = (AtomicUsize::new(0), AtomicUsize::new(cap));
        Ok(Memory { base, pages, blocks: blocks.into_boxed_slice(), held, cap })
    }

    /// Pages that may be held from now on; those held already stay. A write above it fails with `Io(ENOSPC)`.
    pub fn set_cap(&self, cap: usize) {
        self.cap.store(cap, Ordering::Relaxed);
    }

    /// The lock of a page's block, its bit there, and its memory. The page is on the device.
    fn place(&self, page: u64) -> Result<(&RwLock<u64>, u64, NonNull<Page>), DeviceError> {
        let index = usize::try_from(page).map_err(|_| DeviceError::OutOfRange)?;
        let block = self.blocks.get(index / u64::BITS as usize).ok_or(DeviceError::OutOfRange)?;
        if index >= self.pages {
            return Err(DeviceError::OutOfRange);
        }
        // SAFETY: `index` is below `pages`, so this stays inside the mapping of `pages` pages.
        let memory = unsafe { self.base.cast::<Page>().add(index) };
        Ok((block, 1 << (page % BLOCK), memory))
    }

    fn hold_one(&self) -> Result<(), DeviceError> {
        let cap = self.cap.load(Ordering::Relaxed);
        self.held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| (held < cap).then_some(held + 1))
            .map(|_| ())
            .map_err(|_| Errno::NOSPC.into())
    }
}

/// Gives pages back though they are locked (Linux 5.18).
const MADV_DONTNEED_LOCKED: libc::c_int = 24;

/// Gives the memory of `count` pages back; they read as zeros then.
///
/// # Safety
/// The pages are part of one mapping, and the caller alone may reach them.
unsafe fn give_back(first: NonNull<Page>, count: usize) -> Result<(), Errno> {
    let (start, bytes) = (first.as_ptr().cast::<c_void>(), count * PAGE_SIZE);
    // SAFETY: the caller's promise: mapped pages that nobody else reaches.
    unsafe {
        // rustix does not know this advice.
        if libc::madvise(start, bytes, MADV_DONTNEED_LOCKED) == 0 {
            return Ok(());
        }
        // Before Linux 5.18; there, locked pages have to be unlocked.
        munlock(start, bytes).and_then(|()| madvise(start, bytes, Advice::LinuxDontNeed))
    }
}

impl SwapDevice for Memory {
    fn pages(&self) -> u64 {
        self.pages as u64
    }

    fn read_page(&self, page: u64, out: &mut Page) -> Result<(), DeviceError> {
        let (block, bit, memory) = self.place(page)?;
        let held = block.read();
        if *held & bit == 0 {
            out.fill(0);
        } else {
            // SAFETY: `place` checked the page; the block's lock keeps writers away.
            *out = unsafe { memory.read() };
        }
        Ok(())
    }

    /// `Io(ENOSPC)` at the cap; pages of the run before the first without room are then written.
    fn write_pages(&self, first: u64, data: &[Page]) -> Result<(), DeviceError> {
        check_range(self.pages(), first, run_length(data))?;
        for (page, content) in (first..).zip(data) {
            let (block, bit, memory) = self.place(page)?;
            let mut held = block.write();
            if *held & bit == 0 {
                self.hold_one()?;
                *held |= bit;
            }
            // SAFETY: `place` checked the page; the block's lock is held for writing.
            unsafe { memory.write(*content) };
        }
        Ok(())
    }

    fn discard(&self, first: u64, count: u64) -> Result<(), DeviceError> {
        check_range(self.pages(), first, count)?;
        let end = first + count;
        let mut from = first;
        while from < end {
            let length = (end - from).min(BLOCK - from % BLOCK);
            let (block, _, memory) = self.place(from)?;
            let bits = u64::MAX >> (BLOCK - length) << (from % BLOCK);
            let mut held = block.write();
            if *held & bits != 0 {
                // SAFETY: `length` pages from `from` are on the device and in one block, whose lock is held.
                unsafe { give_back(memory, length.min(BLOCK) as usize)? };
                self.held.fetch_sub((*held & bits).count_ones() as usize, Ordering::Relaxed);
                *held &= !bits;
            }
            from += length;
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.held.load(Ordering::Relaxed) * PAGE_SIZE
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.pages > 0 {
            // SAFETY: this struct's own mapping; nothing borrowed from it is left. The call can only fail for a
            // mapping that is not there.
            let _ = unsafe { munmap(self.base.as_ptr(), self.pages * PAGE_SIZE) };
        }
    }
}
