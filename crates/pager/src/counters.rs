//! Counters of the pager, beside the cache's.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])+ $name:ident),+ $(,)?) => {
        /// Counters since the start.
        #[derive(Default)]
        pub struct Counters { $( $(#[$doc])+ pub $name: Count, )+ }

        impl Counters {
            /// Every counter by its name.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get())),+]
            }
        }
    };
}

counters! {
    /// Faults served.
    faults,
    /// Faults on pages that were never touched, or given up by the program.
    zero_faults,
    /// Pages brought in before they were asked for.
    prefetched_pages,
    /// Pages moved out.
    evicted_pages,
    /// Pages that were due to be moved out, were seen to be in use, and stayed.
    spared_pages,
    /// Times that the accessed bits of all processes were cleared.
    accessed_clears,
    /// Evicted pages that came back.
    restored_pages,
    /// Times that faults of a process waited for its turn, since too many wanted pages at once.
    turns_waited_for,
    /// Moves refused because the page was pinned for I/O, or shared since a fork (EBUSY).
    busy_pages,
    /// Moves refused, or not tried, because an event was unread (EAGAIN); these are tried again.
    deferred_pages,
    /// Moves refused because the memory is not of a kind that can be moved (EINVAL and others): locked, write-protected.
    unmovable_pages,
    /// Looks through a program's mappings for pages that no fault told of.
    searches,
    /// Batches given up because the process did not run.
    stalled_batches,
    /// Pages that could not be brought back: their next use is SIGBUS.
    lost_pages,
    /// Processes that had an agent.
    processes,
    /// Memories that were managed.
    memories,
    /// Forks of managed processes.
    forks,
}

/// A counter.
#[derive(Default)]
pub struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, amount: usize) {
        self.0.fetch_add(amount as u64, Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
