//! Counters and gauges, by the kernel's names where the kernel has them.
//!
//! [`Stats`] is plain memory full of atomics: it may live in a mapping that other processes read. Counters are striped
//! by thread, so that two threads do not fight over a cache line; a reader sums the stripes. The first threads have a stripe
//! each and add to it without a locked instruction, of which an operation would have several. As in the kernel, the
//! numbers are exact only when nothing runs, and may be off by what is just happening.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Where the kernel shows a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// A file of `/sys/kernel/debug/zswap`.
    Debugfs,
    /// A line of `/proc/vmstat`.
    Vmstat,
    /// Ours; shown beside the debugfs files.
    Own,
}

macro_rules! counters {
    ($( $(#[$doc:meta])+ $variant:ident = $name:literal, $place:ident; )+) => {
        /// Everything that is counted.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(usize)]
        pub enum Counter { $( $(#[$doc])+ $variant, )+ }

        impl Counter {
            /// All of them, in the order they are shown.
            pub const ALL: &'static [Counter] = &[$(Counter::$variant,)+];

            /// The name of its file or line.
            pub fn name(self) -> &'static str {
                match self { $(Counter::$variant => $name,)+ }
            }

            /// Where the kernel shows it.
            pub fn place(self) -> Place {
                match self { $(Counter::$variant => Place::$place,)+ }
            }
        }
    };
}

counters! {
    /// Stores that found the pool at its limit.
    PoolLimitHit = "pool_limit_hit", Debugfs;
    /// Writebacks that failed, or found nothing to write.
    RejectReclaimFail = "reject_reclaim_fail", Debugfs;
    /// Stores refused because the allocator (or, by kernel 6.10, the index) had no memory.
    RejectAllocFail = "reject_alloc_fail", Debugfs;
    /// Stores refused because there was no memory for the entry.
    RejectKmemcacheFail = "reject_kmemcache_fail", Debugfs;
    /// Stores refused because the page compresses too little.
    RejectCompressPoor = "reject_compress_poor", Debugfs;
    /// Stores refused because the compressor failed or made nothing smaller.
    RejectCompressFail = "reject_compress_fail", Debugfs;
    /// Loads and writebacks that could not restore the page: damage.
    DecompressFail = "decompress_fail", Debugfs;
    /// Pages written back to the swap device.
    WrittenBackPages = "written_back_pages", Debugfs;
    /// Stores that replaced an entry.
    DuplicateEntry = "duplicate_entry", Debugfs;
    /// Gauge: bytes of pool memory.
    PoolTotalSize = "pool_total_size", Debugfs;
    /// Gauge: pages stored in the cache, same-filled ones included.
    StoredPages = "stored_pages", Debugfs;
    /// Gauge: same-filled pages stored.
    SameFilledPages = "same_filled_pages", Debugfs;
    /// Gauge: pages stored raw because they do not compress.
    StoredIncompressiblePages = "stored_incompressible_pages", Debugfs;
    /// Pages loaded from the cache.
    Zswpin = "zswpin", Vmstat;
    /// Pages stored in the cache.
    Zswpout = "zswpout", Vmstat;
    /// Pages written from the cache to the swap device.
    Zswpwb = "zswpwb", Vmstat;
    /// Stores refused because `enabled` is N.
    RejectDisabled = "reject_disabled", Own;
    /// Stores refused because the pool had been full and is not down to its accept threshold.
    RejectHysteresis = "reject_hysteresis", Own;
    /// Stores refused because `non_same_filled_pages_enabled` is N.
    RejectNonSameFilled = "reject_non_same_filled", Own;
    /// Stores that worked after a synchronous writeback made room (2012 patch set).
    SavedByWriteback = "saved_by_writeback", Own;
    /// Pages read back from the swap device.
    DeviceReads = "device_reads", Own;
    /// Pages that the cache refused and that went straight to the swap device.
    DeviceWrites = "device_writes", Own;
    /// Requests of the swap device that failed.
    DeviceErrors = "device_errors", Own;
    /// Gauge: pages that only the swap device holds.
    DevicePages = "device_pages", Own;
    /// Pages that could be put nowhere: the writer was told and keeps them.
    SwapOutFail = "swap_out_fail", Own;
    /// Entries dropped by invalidate and discard.
    InvalidatedPages = "invalidated_pages", Own;
    /// Pool pages that compaction gave back.
    CompactedPages = "compacted_pages", Own;
    /// Gauge: bytes of compressed data in the pool, the payload alone.
    CompressedBytes = "compressed_bytes", Own;
    /// Gauge: bytes held beside the pool: index, handles, descriptors, working buffers.
    MetadataBytes = "metadata_bytes", Own;
    /// Gauge: the most that pool and metadata may take, in bytes.
    PoolLimitBytes = "pool_limit_bytes", Own;
}

/// Stripes of one thread each.
const OWNED: usize = 16;
/// Stripes that all other threads share.
const SHARED: usize = 16;
/// Room for every counter, rounded up to whole pairs of cache lines so that neighbours share none.
const STRIPE_LEN: usize = Counter::ALL.len().next_multiple_of(16);

#[repr(C, align(128))]
struct Stripe([AtomicU64; STRIPE_LEN]);

/// The block of counters of one cache. All zeros is its first state, so it may be placed in fresh shared memory.
#[repr(C)]
pub struct Stats {
    stripes: [Stripe; OWNED + SHARED],
}

impl Default for Stats {
    fn default() -> Self {
        Stats { stripes: std::array::from_fn(|_| Stripe(std::array::from_fn(|_| AtomicU64::new(0)))) }
    }
}

/// Memory that holds a [`Stats`] for as long as the cache runs.
pub trait StatsBlock: Send + Sync {
    /// The block.
    fn stats(&self) -> &Stats;
}

impl StatsBlock for Box<Stats> {
    fn stats(&self) -> &Stats {
        self
    }
}

impl<T: StatsBlock + ?Sized> StatsBlock for std::sync::Arc<T> {
    fn stats(&self) -> &Stats {
        (**self).stats()
    }
}

impl Stats {
    /// The value now. A gauge's stripes may be below zero one by one; their sum is not, but for what is under way.
    pub fn get(&self, counter: Counter) -> u64 {
        let sum = self
            .stripes
            .iter()
            .fold(0u64, |sum, stripe| sum.wrapping_add(stripe.0[counter as usize].load(Relaxed)));
        if sum.cast_signed() < 0 { 0 } else { sum }
    }

    /// Adds to a counter; a gauge is lowered by the two's complement of the amount.
    pub(crate) fn add(&self, counter: Counter, amount: u64) {
        let thread = thread_number();
        if thread < OWNED {
            // Numbers are given out once, so nobody else writes here.
            let cell = &self.stripes[thread].0[counter as usize];
            cell.store(cell.load(Relaxed).wrapping_add(amount), Relaxed);
        } else {
            self.stripes[OWNED + thread % SHARED].0[counter as usize].fetch_add(amount, Relaxed);
        }
    }

    pub(crate) fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Sets a gauge that is computed as a whole. Such a gauge lives in the first stripe alone.
    pub(crate) fn set(&self, gauge: Counter, value: u64) {
        let cell = &self.stripes[0].0[gauge as usize];
        if cell.load(Relaxed) != value {
            cell.store(value, Relaxed);
        }
    }
}

/// A small number for this thread, given out in order of first use and to no other thread later.
pub(crate) fn thread_number() -> usize {
    use std::cell::Cell;
    use std::sync::atomic::AtomicUsize;
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static MINE: Cell<usize> = const { Cell::new(usize::MAX) });
    MINE.with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Relaxed));
        }
        mine.get()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_sums_cross_threads() {
        let names: std::collections::BTreeSet<_> = Counter::ALL.iter().map(|c| c.name()).collect();
        assert_eq!(names.len(), Counter::ALL.len());
        let stats = Stats::default();
        std::thread::scope(|scope| {
            // More than there are stripes, so that some share one.
            for _ in 0..40 {
                scope.spawn(|| (0..1000).for_each(|_| stats.count(Counter::StoredPages)));
            }
        });
        stats.add(Counter::StoredPages, 39_999u64.wrapping_neg());
        assert_eq!(stats.get(Counter::StoredPages), 1);
        stats.add(Counter::StoredPages, 2u64.wrapping_neg());
        assert_eq!(stats.get(Counter::StoredPages), 0, "a gauge never shows a wrapped value");
    }
}
