//! The count of a pool's pages, and the rule for empty pages kept for reuse.
//!
//! A page that empties is likely to be needed again soon, and taking one from the system costs a microsecond, so a few
//! stay resident: at most 1024 pages a pool (4 MiB), and at most one for 64 that hold objects. They count as the pool's.

use std::sync::atomic::Ordering;

use crate::sync::AtomicU64;

/// Pages a pool holds, and how many of them are idle (empty, kept for reuse).
///
/// Both live in one word, so that of two threads that empty pages at the same time the later sees what is left over.
pub(super) struct Pages {
    /// Idle pages in the upper half, all pages in the lower; the span's 128 GiB are 2^25.
    count: AtomicU64,
}

const HELD: u64 = 1;
const IDLE: u64 = 1 << 32;

fn split(count: u64) -> (u64, u64) {
    (count % IDLE, count / IDLE)
}

/// The most idle pages beside `live` pages that hold objects.
fn idle_limit(live: u64) -> u64 {
    (live / 64).min(1024)
}

impl Pages {
    pub(super) fn new() -> Pages {
        Pages { count: AtomicU64::new(0) }
    }

    /// `pages` came from the system.
    pub(super) fn add(&self, pages: usize) {
        self.count.fetch_add(HELD * pages as u64, Ordering::SeqCst);
    }

    /// `pages` that held objects went back to the system.
    pub(super) fn remove(&self, pages: usize) {
        self.count.fetch_sub(HELD * pages as u64, Ordering::SeqCst);
    }

    /// Idle pages hold objects again.
    pub(super) fn wake(&self, pages: usize) {
        self.count.fetch_sub(IDLE * pages as u64, Ordering::SeqCst);
    }

    /// Pages that held objects stay although they are empty.
    pub(super) fn rest(&self, pages: usize) {
        self.count.fetch_add(IDLE * pages as u64, Ordering::SeqCst);
    }

    /// Like [`Pages::rest`], but only as far as the limit allows.
    pub(super) fn try_rest(&self, pages: usize) -> bool {
        let pages = pages as u64;
        let rest = |count| {
            let (held, idle) = split(count);
            let fits = idle + pages <= idle_limit(held - idle - pages);
            fits.then(|| count + IDLE * pages)
        };
        self.count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, rest).is_ok()
    }

    /// Whether more pages are idle than the limit allows: it fell with the pages that hold objects.
    pub(super) fn too_many_idle(&self) -> bool {
        let (held, idle) = split(self.count.load(Ordering::SeqCst));
        idle > idle_limit(held - idle)
    }

    pub(super) fn any_idle(&self) -> bool {
        split(self.count.load(Ordering::SeqCst)).1 > 0
    }

    pub(super) fn total(&self) -> usize {
        usize::try_from(split(self.count.load(Ordering::SeqCst)).0).unwrap_or(usize::MAX)
    }
}
