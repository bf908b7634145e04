//! Space on disk, taken ahead of the pages that are written there.
//!
//! A write into a hole makes the file system find space for it, and until it has, no read of the file goes on: beside such writes
//! a page took 140 us to read from ext4 (kernel 6.18), beside others 50. So a file that grows from its start on has its space taken some
//! MiB at a time. What this trades: that much space that may stay unused, and time in one write of many.
//!
//! It can never fail a write: where there is no space ahead, or no such request, each write finds its own as before.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustix::fs::{FallocateFlags, fallocate, fstatfs};

use crate::PAGE_SIZE;

/// Pages taken at a time: 4 MiB.
const STEP: u64 = 1024;

/// The space of one file.
pub(crate) struct Space {
    /// Pages of the file; none is taken beyond.
    pages: u64,
    /// Those below this one have space, or are not to have any ahead: all, once a request for it failed.
    taken: AtomicU64,
}

impl Space {
    /// Of a file of so many pages. Where files are memory (tmpfs), space ahead would be memory: there is none.
    pub(crate) fn new(file: &OwnedFd, pages: u64) -> Space {
        let is_memory = fstatfs(file).is_ok_and(|it| it.f_type == libc::TMPFS_MAGIC);
        Space { pages, taken: AtomicU64::new(if is_memory { u64::MAX } else { 0 }) }
    }

    /// To be called before the pages `first` to before `end` are written to `file`. Where these go on what was taken before, or leave
    /// less than one step out, space is taken up to a step beyond them. Otherwise the file does not grow from its start on,
    /// and nothing is.
    pub(crate) fn take_ahead(&self, file: &OwnedFd, first: u64, end: u64) {
        let taken = self.taken.load(Relaxed);
        if end <= taken || first >= taken.saturating_add(STEP) {
            return;
        }
        let upto = end.saturating_add(STEP).min(self.pages);
        // Who comes second writes without waiting: into a hole, perhaps.
        if self.taken.compare_exchange(taken, upto, Relaxed, Relaxed).is_err() {
            return;
        }
        let page = PAGE_SIZE as u64;
        if fallocate(file, FallocateFlags::KEEP_SIZE, taken * page, (upto - taken) * page).is_err() {
            self.taken.store(u64::MAX, Relaxed);
        }
    }
}
