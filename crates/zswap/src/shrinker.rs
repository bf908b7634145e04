//! Making the pool smaller, by the worker that a full pool wakes and by the shrinker that memory pressure calls.
//!
//! The engine starts no threads. A caller lends one to [`Zswap::run_shrink_worker`]; without it a full pool stays full
//! until pages leave by themselves. The worker compacts before it writes back, because moving objects is cheaper than I/O,
//! and looks now and then whether freed objects left holes worth compacting: once a second, and where it finds some, ever sooner. Under a
//! program that takes 100 000 pages a second out of the pool and puts others in, holes were a twentieth of the pool after half a second.
//!
//! The shrinker's inputs, as in kernel 6.12: how many entries could leave (the length of the LRU), how many pages were
//! read back from disk since it last asked (each says that too much was written back), and how well pages compress (a
//! page that compresses well costs little to keep).

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::cache::Zswap;
use crate::stats::Counter;
use crate::sync::{Condvar, Mutex};
use crate::writeback::Batch;

/// Failed steps after which a run of the worker gives up, as in the kernel.
const FAILURES: usize = 16;

/// Compaction is worth it where it gives back such a part of the pool.
const WORTH_IT: usize = 64;
/// The worker sleeps no longer than this: gauges are to be fresh.
const TICK: Duration = Duration::from_secs(1);
/// Between two looks at compaction, at least; and so many times as long as one took.
const LEAST_PAUSE: Duration = Duration::from_millis(30);
const PAUSE: u32 = 32;

/// What the worker is asked to do, and the memory it works with.
pub(crate) struct Requests {
    wanted: Mutex<Wanted>,
    wake: Condvar,
    /// The one batch there is: writebacks take turns.
    batch: Mutex<Batch>,
}

#[derive(Default)]
struct Wanted {
    shrink: bool,
    stop: bool,
}

impl Requests {
    pub(crate) fn new() -> Requests {
        Requests {
            wanted: Mutex::new(Wanted::default()),
            wake: Condvar::new(),
            batch: Mutex::new(Batch::new()),
        }
    }

    /// Asks the worker to shrink the pool to its accept threshold.
    pub(crate) fn shrink(&self) {
        let mut wanted = self.wanted.lock();
        if !wanted.shrink {
            wanted.shrink = true;
            drop(wanted);
            self.wake.notify_all();
        }
    }

    /// Lends the batch, waiting for whoever has it.
    pub(crate) fn with_batch<R>(&self, work: impl FnOnce(&mut Batch) -> R) -> R {
        work(&mut self.batch.lock())
    }
}

impl Zswap {
    /// Works for the cache on the caller's thread until [`Zswap::stop_shrink_worker`] is called: shrinks a full pool to
    /// `accept_threshold_percent`, compacts, and keeps the gauges fresh.
    pub fn run_shrink_worker(&self) {
        let (mut looked, mut pause) = (Instant::now(), LEAST_PAUSE);
        loop {
            let mut wanted = self.requests.wanted.lock();
            if !wanted.shrink && !wanted.stop {
                let due_in = pause.saturating_sub(looked.elapsed());
                self.requests.wake.wait_for(&mut wanted, due_in.min(TICK));
            }
            if wanted.stop {
                return;
            }
            let shrink = std::mem::take(&mut wanted.shrink);
            drop(wanted);
            if shrink {
                self.shrink();
            } else if looked.elapsed() >= pause {
                let begun = Instant::now();
                let was_worth_it = self.compact_if_worth_it();
                looked = Instant::now();
                pause = next_pause(pause, was_worth_it, looked - begun);
            }
            self.publish_gauges();
        }
    }

    /// Ends [`Zswap::run_shrink_worker`], now or when it is next called. A writeback under way is finished first.
    pub fn stop_shrink_worker(&self) {
        self.requests.wanted.lock().stop = true;
        self.requests.wake.notify_all();
    }

    /// One run of the worker: brings the pool down to the accept threshold, oldest entries first. Returns how many
    /// pages it wrote back.
    pub fn shrink(&self) -> usize {
        /// Pages written back between two compactions, at least.
        const COMPACT_EVERY: usize = 256;
        let target = || self.live.accept_bytes(self.max_bytes());
        let held = || {
            let mut worker = self.workers.one();
            self.publish(&mut worker);
            self.held_bytes(&worker)
        };
        if held() <= target() {
            return 0;
        }
        self.compact();
        let (mut written, mut compacted_at, mut failures) = (0, 0, 0);
        while held() > target() && failures < FAILURES {
            let mut step = 0;
            for (_, area) in self.areas() {
                let progress =
                    self.requests.with_batch(|batch| self.write_back(area, batch, crate::writeback::BATCH));
                self.stats().add(Counter::RejectReclaimFail, progress.failed as u64);
                failures += progress.failed;
                step += progress.written;
            }
            written += step;
            if step == 0 {
                // Nothing could leave: no device, an empty pool, or a device that fails.
                failures += 1;
                if failures < FAILURES && self.writable_pages() == 0 {
                    break;
                }
            }
            if written - compacted_at >= COMPACT_EVERY.max(self.writable_pages() / 32) {
                self.compact();
                compacted_at = written;
            }
        }
        if written > compacted_at {
            self.compact();
        }
        self.publish_gauges();
        written
    }

    /// Entries in pools whose swap type has a device that works.
    fn writable_pages(&self) -> usize {
        self.areas()
            .map(|(_, area)| {
                let state = area.state.lock();
                let Some(on) = state.on.as_ref() else { return 0 };
                if on.device.as_ref().is_some_and(|device| device.error().is_none()) {
                    on.tree.len()
                } else {
                    0
                }
            })
            .sum()
    }

    /// Compacts where enough of the pool could be given back. Whether that was so.
    fn compact_if_worth_it(&self) -> bool {
        let pools: Vec<_> = self.workers.one().pools.iter().map(|(_, pool)| pool.clone()).collect();
        let freeable: usize =
            pools.iter().flat_map(|pool| pool.zpool.class_stats()).map(|class| class.freeable).sum();
        let total: usize = pools.iter().map(|pool| pool.zpool.total_pages()).sum();
        let is_worth_it = freeable > 0 && freeable >= total / WORTH_IT;
        if is_worth_it {
            self.compact();
        }
        is_worth_it
    }

    /// Under memory pressure: how many pages could leave the pool for the device with profit. 0 where `shrinker_enabled`
    /// is N. Consumes the count of recent reads from the device.
    pub fn shrinker_count(&self) -> u64 {
        let reads = self.recent_device_reads.swap(0, Relaxed);
        if !self.live.shrinker_enabled.load(Relaxed) {
            return 0;
        }
        let stats = self.stats();
        let stored = stats.get(Counter::StoredPages);
        let candidates = (self.writable_pages() as u64)
            .min(stored)
            .saturating_sub(stats.get(Counter::SameFilledPages))
            .saturating_sub(reads);
        let pool = self.workers.one().pools.total_bytes();
        let original = stored.saturating_mul(zcomp::PAGE_SIZE as u64).max(1);
        u64::try_from(u128::from(candidates) * u128::from(pool.min(original)) / u128::from(original))
            .unwrap_or(0)
    }

    /// Under memory pressure: writes back up to `pages` of the oldest entries. Returns how many left.
    pub fn shrinker_scan(&self, pages: u64) -> u64 {
        if !self.live.shrinker_enabled.load(Relaxed) {
            return 0;
        }
        let mut written = 0;
        for (_, area) in self.areas() {
            while written < pages {
                let most = usize::try_from(pages - written).unwrap_or(usize::MAX);
                let progress = self.requests.with_batch(|batch| self.write_back(area, batch, most));
                self.stats().add(Counter::RejectReclaimFail, progress.failed as u64);
                written += progress.written as u64;
                if progress.written == 0 {
                    break;
                }
            }
        }
        if written > 0 {
            self.compact();
        }
        written
    }
}

/// How long until the next look at compaction, after one that came `pause` after the one before.
fn next_pause(pause: Duration, was_worth_it: bool, took: Duration) -> Duration {
    let next = if was_worth_it { pause / 2 } else { pause * 2 };
    next.clamp(LEAST_PAUSE, TICK).max(took * PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_come_sooner_where_they_find_something_and_take_a_bounded_share_of_the_time() {
        let after =
            |looks: [bool; 8], took| looks.into_iter().fold(TICK, |pause, was| next_pause(pause, was, took));
        assert_eq!(after([true; 8], Duration::ZERO), LEAST_PAUSE);
        assert_eq!(after([false; 8], Duration::ZERO), TICK);
        assert_eq!(next_pause(LEAST_PAUSE, false, Duration::ZERO), LEAST_PAUSE * 2);
        let long = Duration::from_millis(100);
        assert_eq!(after([true; 8], long), long * PAUSE);
        assert_eq!(after([false; 8], long), long * PAUSE);
    }
}
