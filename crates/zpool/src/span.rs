//! The memory of a pool: one range of addresses, reserved at once and backed by pages piece by piece.
//!
//! Reserving takes no memory and no commit charge (`PROT_NONE`); a piece becomes usable by `mprotect`, gets its pages by
//! `MADV_POPULATE_WRITE`, which reports a lack of memory as an error instead of killing the process at a later touch, and
//! loses them by `MADV_DONTNEED`. All raw memory of the crate is reached through here.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::PAGE_SIZE;

/// `MADV_DONTNEED_LOCKED` (5.18): gives pages back though they are locked. The server locks its memory by `mlockall`,
/// and plain `MADV_DONTNEED` refuses locked ranges.
const MADV_DONTNEED_LOCKED: libc::c_int = 24;

/// The pages that were asked for are not to be had.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoMemory;

pub(crate) struct Span {
    base: NonNull<u8>,
    reserved: usize,
    /// Bytes from the start that are readable and writable.
    usable: AtomicUsize,
}

// SAFETY: the range is owned by this value alone; who may touch which part when is for the callers of `bytes` and
// `bytes_mut` to arrange, as their contracts say.
unsafe impl Send for Span {}
// SAFETY: as above.
unsafe impl Sync for Span {}

impl Span {
    /// Reserves `most` bytes of addresses, or as many halvings fewer as it takes, but not below `least`.
    pub(crate) fn reserve(most: usize, least: usize) -> Result<Span, NoMemory> {
        let mut reserved = most.next_multiple_of(PAGE_SIZE);
        loop {
            // SAFETY: a fresh private mapping at an address of the kernel's choosing touches nothing that exists.
            let base = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    reserved,
                    libc::PROT_NONE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                    -1,
                    0,
                )
            };
            if base != libc::MAP_FAILED {
                let base = NonNull::new(base.cast()).ok_or(NoMemory)?;
                let span = Span { base, reserved, usable: AtomicUsize::new(0) };
                // A huge page would back objects that are not there. A child has no use for the pool; sharing it would copy
                // each page at the next store. Both are advice.
                span.advise(0, reserved, libc::MADV_NOHUGEPAGE);
                span.advise(0, reserved, libc::MADV_DONTFORK);
                return Ok(span);
            }
            reserved /= 2;
            if reserved < least.max(PAGE_SIZE) {
                return Err(NoMemory);
            }
        }
    }

    /// Bytes reserved.
    pub(crate) fn reserved(&self) -> usize {
        self.reserved
    }

    /// Makes the first `bytes` bytes readable and writable. One caller at a time.
    pub(crate) fn make_usable(&self, bytes: usize) -> Result<(), NoMemory> {
        let usable = self.usable.load(Relaxed);
        if bytes <= usable {
            return Ok(());
        }
        if bytes > self.reserved {
            return Err(NoMemory);
        }
        // SAFETY: the range lies in the reservation, checked above, and was PROT_NONE until now: no reference to it exists.
        let done = unsafe {
            libc::mprotect(
                self.base.as_ptr().add(usable).cast(),
                bytes - usable,
                libc::PROT_READ | libc::PROT_WRITE,
            )
        };
        if done != 0 {
            return Err(NoMemory);
        }
        self.usable.store(bytes, Relaxed);
        Ok(())
    }

    /// Whether the first `bytes` bytes are usable.
    pub(crate) fn is_usable(&self, bytes: usize) -> bool {
        bytes <= self.usable.load(Relaxed)
    }

    /// Backs a usable range with pages, keeping what it holds. After an error some of them may be there.
    pub(crate) fn populate(&self, offset: usize, len: usize) -> Result<(), NoMemory> {
        match self.advise(offset, len, libc::MADV_POPULATE_WRITE) {
            // Kernels before 5.14 do not know the advice; the pages then come at the first touch.
            0 | libc::EINVAL => Ok(()),
            _ => Err(NoMemory),
        }
    }

    /// Gives the pages of a usable range back; it reads as zeros then. `false`: they are still there, with what they hold.
    pub(crate) fn release(&self, offset: usize, len: usize) -> bool {
        let done = match self.advise(offset, len, MADV_DONTNEED_LOCKED) {
            libc::EINVAL => self.advise(offset, len, libc::MADV_DONTNEED),
            done => done,
        };
        done == 0
    }

    /// Returns 0 or the errno.
    fn advise(&self, offset: usize, len: usize, advice: libc::c_int) -> i32 {
        if offset.checked_add(len).is_none_or(|end| end > self.reserved) {
            return libc::ENOMEM;
        }
        // SAFETY: the range lies in the reservation, checked above. Advice that drops content is given only by `release`,
        // whose callers own what is in the range.
        let done = unsafe { libc::madvise(self.base.as_ptr().add(offset).cast(), len, advice) };
        if done == 0 { 0 } else { std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL) }
    }

    /// The address of a usable byte; null where it is not usable.
    pub(crate) fn address(&self, offset: usize, len: usize) -> *mut u8 {
        match offset.checked_add(len) {
            // SAFETY: the range is in the usable part of the reservation, checked here.
            Some(end) if self.is_usable(end) => unsafe { self.base.as_ptr().add(offset) },
            _ => std::ptr::null_mut(),
        }
    }

    /// The bytes of a range, empty where it is not usable.
    ///
    /// # Safety
    ///
    /// - While the result lives, nobody writes to the range or gives its pages back.
    pub(crate) unsafe fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        let address = self.address(offset, len);
        if address.is_null() {
            return &[];
        }
        // SAFETY: the range is mapped and readable (`address`), and nobody writes to it, by this function's contract.
        unsafe { std::slice::from_raw_parts(address, len) }
    }

    /// The bytes of a range, for writing; empty where it is not usable.
    ///
    /// # Safety
    ///
    /// - While the result lives, nobody else reads or writes the range or gives its pages back.
    #[expect(
        clippy::mut_from_ref,
        reason = "the span is memory that its owner shares out, not the value borrowed"
    )]
    pub(crate) unsafe fn bytes_mut(&self, offset: usize, len: usize) -> &mut [u8] {
        let address = self.address(offset, len);
        if address.is_null() {
            return &mut [];
        }
        // SAFETY: the range is mapped and writable (`address`), and nobody else touches it, by this function's contract.
        unsafe { std::slice::from_raw_parts_mut(address, len) }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `reserve` with this length and ends with its owner.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.reserved) };
    }
}
