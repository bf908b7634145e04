//! Memory between two pages that nobody may touch: one byte too far is a crash, in C as in Rust.

use std::ptr::NonNull;

use zcomp::{PAGE_SIZE, Page};

/// Whole pages, readable and writable, with a fence before and behind them.
pub struct Fenced {
    /// The first byte between the fences.
    start: NonNull<u8>,
    room: usize,
}

impl Fenced {
    /// Room for `room` bytes, a multiple of [`PAGE_SIZE`].
    pub fn new(room: usize) -> Fenced {
        assert!(room.is_multiple_of(PAGE_SIZE));
        // SAFETY: a new mapping at a place of the kernel's choosing.
        let all = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                room + 2 * PAGE_SIZE,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert!(all != libc::MAP_FAILED, "no memory");
        // SAFETY: the mapping is longer than a page.
        let start = unsafe { all.byte_add(PAGE_SIZE) };
        // SAFETY: `room` bytes from `start` on lie in the mapping, which nobody uses yet.
        let opened = unsafe { libc::mprotect(start, room, libc::PROT_READ | libc::PROT_WRITE) };
        assert_eq!(opened, 0);
        Fenced { start: NonNull::new(start.cast()).expect("not at address 0"), room }
    }

    /// The last `len` bytes, right before the fence behind.
    pub fn last(&mut self, len: usize) -> &mut [u8] {
        assert!(len <= self.room);
        // SAFETY: within the part that may be used, by the line above, and borrowed from `self`.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(self.room - len), len) }
    }

    /// The last page: with room for one only, there is a fence on both of its sides.
    pub fn page(&mut self) -> &mut Page {
        self.last(PAGE_SIZE).try_into().expect("as long as a page")
    }
}

impl Drop for Fenced {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, which nobody borrows any more.
        unsafe {
            let all = self.start.as_ptr().byte_sub(PAGE_SIZE);
            libc::munmap(all.cast(), self.room + 2 * PAGE_SIZE)
        };
    }
}
