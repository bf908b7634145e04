//! How much of the cap the pool has, where there is a swap file for what does not fit.
//!
//! Memory of the pool holds three pages where a program has one, and a page of it comes back sooner than from the file. But a page that
//! comes back after fewer evictions than the pool has pages of memory would not have left if the program had had that memory:
//! it went out and in for nothing. What comes back later would have come from the file. The kernel gives its pool a fixed share; here
//! both are counted, weighed with the time they take, and the limit moves towards whatever takes less, between a part and a multiple of
//! what it began with.
//!
//! It trades a look at two counters a batch. What it can never do: leave these bounds; move a limit that it has seen somebody else
//! set; or know what the program will do next.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use zswap::{Counter, PAGE_SIZE, Param, Zswap};

/// Pages from the pool between two decisions.
const SAMPLE: u64 = 2048;
/// What a page costs that goes out and comes in for nothing: a fault, and the eviction of another page. Measured, 15 to 25 us.
const AWAY: Duration = Duration::from_micros(20);
/// What a page from the swap file is taken to cost before any was read.
const UNREAD: Duration = Duration::from_micros(100);
/// How many times as much the one has to cost as the other before the limit moves.
const CLEARLY: f64 = 1.5;
/// The least limit, as a part of what it began with, and the largest, in times of that. In a uniform order four times as much was too
/// much: with all but a fifth of the cap for the pool, the peak was 1.16 of the cap.
const LEAST: u64 = 16;
const MOST: u64 = 3;

pub(crate) struct PoolSize {
    begun_with: u64,
    limit: AtomicU64,
    /// Pages that came back so soon that they would not have left without the pool.
    soon: AtomicU64,
    /// Pages read from the swap file, and how long that took, in nanoseconds.
    read: AtomicU64,
    reading: AtomicU64,
    /// Pages that had come from the pool, and those that had come soon, at the last decision.
    last: [AtomicU64; 2],
}

impl PoolSize {
    /// Begins with a limit of so many bytes, which somebody has set.
    pub(crate) fn new(limit: u64) -> PoolSize {
        PoolSize {
            begun_with: limit,
            limit: AtomicU64::new(limit),
            soon: AtomicU64::new(0),
            read: AtomicU64::new(0),
            reading: AtomicU64::new(0),
            last: [const { AtomicU64::new(0) }; 2],
        }
    }

    /// A page came back that was out for so many evictions.
    pub(crate) fn came_back(&self, age: u32) {
        if u64::from(age) < self.limit.load(Relaxed) / PAGE_SIZE as u64 {
            self.soon.fetch_add(1, Relaxed);
        }
    }

    /// Pages were read from the swap file in this time.
    pub(crate) fn were_read(&self, pages: usize, took: Duration) {
        self.read.fetch_add(pages as u64, Relaxed);
        self.reading.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Moves the limit of `cache` if it is time for that. One thread does.
    pub(crate) fn settle(&self, cache: &Zswap) {
        let now = [cache.stats().get(Counter::Zswpin), self.soon.load(Relaxed)];
        let [loaded, soon] = [0, 1].map(|at| now[at].saturating_sub(self.last[at].load(Relaxed)));
        if loaded < SAMPLE {
            return;
        }
        self.last.iter().zip(now).for_each(|(last, now)| last.store(now, Relaxed));
        let limit = self.limit.load(Relaxed);
        let wanted = self.wanted(limit, loaded, soon);
        // As long as it is the one that was set here.
        if wanted != limit
            && cache.get(Param::MaxPoolBytes) == Some(limit.to_string())
            && cache.set(Param::MaxPoolBytes, &wanted.to_string()).is_ok()
        {
            self.limit.store(wanted, Relaxed);
        }
    }

    fn wanted(&self, limit: u64, loaded: u64, soon: u64) -> u64 {
        let read = self.read.load(Relaxed);
        let a_read = self.reading.load(Relaxed).checked_div(read).map_or(UNREAD, Duration::from_nanos);
        #[expect(clippy::cast_precision_loss, reason = "a comparison of estimates")]
        let cost = |pages: u64, each: Duration| pages as f64 * each.as_secs_f64();
        let (for_nothing, saved) = (cost(soon, AWAY), cost(loaded.saturating_sub(soon), a_read));
        // With more than it began with, programs may be left with too little to work at all: where many wait for slow reads at once,
        // those cost less than they take, and half of what comes back soon is a sign of that.
        let may_grow = limit < self.begun_with || soon * 2 < loaded;
        let is_too_much = limit > self.begun_with && soon * 3 > loaded * 2;
        if for_nothing > CLEARLY * saved || is_too_much {
            (limit / 4 * 3).max(self.begun_with / LEAST)
        } else if saved > CLEARLY * for_nothing && may_grow {
            (limit / 4 * 5).min(self.begun_with.saturating_mul(MOST))
        } else {
            limit
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_moves_towards_what_costs_less_and_stays_within_its_bounds() {
        let size = PoolSize::new(1 << 20);
        assert_eq!(size.wanted(1 << 20, 2048, 2000), (1 << 20) / 4 * 3, "most came back at once");
        assert_eq!(size.wanted(3 << 20, 2048, 0), 3 << 20, "it is the most already");
        assert_eq!(size.wanted(1 << 20, 2048, 0), (1 << 20) / 4 * 5, "all would have been read");
        assert_eq!(size.wanted(1 << 20, 2048, 1024), 1 << 20, "half would have been there");
        assert_eq!(size.wanted(2 << 20, 2048, 1024), 2 << 20, "the same, and it has more than at first");
        assert_eq!(
            size.wanted(2 << 20, 2048, 1400),
            (2 << 20) / 4 * 3,
            "more than two thirds would have been there"
        );
        assert_eq!(size.wanted(1 << 19, 2048, 0), (1 << 19) / 4 * 5, "all would have been read");
        assert_eq!(size.wanted(1 << 16, 2048, 2048), 1 << 16, "it is the least");
        // 100 us a page that is read, 20 us a page that was out for nothing.
        assert_eq!(size.wanted(1 << 19, 6000, 5000), 1 << 19, "they cost the same");
        // A faster file.
        size.were_read(1000, Duration::from_millis(20));
        assert_eq!(size.wanted(1 << 19, 6000, 5000), (1 << 19) / 4 * 3);
        assert_eq!(size.wanted(1 << 19, 6000, 3000), 1 << 19);
    }

    #[test]
    fn a_limit_that_somebody_else_sets_stays() {
        let mut options = zswap::Options::new(zswap::Profile::named("default").unwrap());
        options.params = vec![(Param::MaxPoolBytes.name().to_owned(), (1 << 24).to_string())];
        let cache = Zswap::new(options).unwrap();
        cache.swapon(0, 1, None).unwrap();
        let entry = zswap::SwapEntry { swap_type: 0, offset: 0 };
        let page = std::array::from_fn(|at| (at / 7) as u8);
        cache.store(entry, &page).unwrap();
        let size = PoolSize::new(1 << 24);
        let settled = || {
            for _ in 0..SAMPLE {
                let loaded = cache.load(entry, &mut [0; PAGE_SIZE], zswap::Keep::Always);
                assert!(matches!(loaded, Ok(Some(zswap::Source::Cache))), "{loaded:?}");
                size.came_back(0);
            }
            size.settle(&cache);
            cache.get(Param::MaxPoolBytes).unwrap()
        };
        assert_eq!(settled(), ((1 << 24) / 4 * 3).to_string());
        cache.set(Param::MaxPoolBytes, "10000000").unwrap();
        assert_eq!(settled(), "10000000");
    }

    #[test]
    fn what_came_back_after_as_many_evictions_as_the_pool_has_pages_is_not_soon() {
        let size = PoolSize::new(100 * PAGE_SIZE as u64);
        for age in [0, 99, 100, u32::MAX] {
            size.came_back(age);
        }
        assert_eq!(size.soon.load(Relaxed), 2);
    }
}
