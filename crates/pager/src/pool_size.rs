//! How much of the cap the pool has, where there is a swap file for what does not fit.
//!
//! Memory of the pool holds three pages where a program has one, and a page of it comes back sooner than from the file. But a page that
//! comes back after fewer evictions than the pool has pages of memory would not have left if the program had had that memory:
//! it went out and in for nothing. What comes back later would have come from the file. The kernel gives its pool a fixed share; here
//! both are counted, weighed with the time they take, and the limit moves towards whatever takes less, between a part and a multiple of
//! what it began with. What is read all the same counts for the pool, too: with more of it, some would not be.
//!
//! Where programs have nothing more to give, the pool has: what it holds leaves for the file, oldest first.
//!
//! It trades a look at three counters a batch. What it can never do: leave these bounds; move a limit that it has seen somebody else
//! set; or know what the program will do next, and so which of the reads a larger pool would spare.

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
/// With less than this for pages, hardly any would find a place.
const LEAST_POOL: u64 = 512 << 10;

pub(crate) struct PoolSize {
    begun_with: u64,
    limit: AtomicU64,
    /// Pages that came back so soon that they would not have left without the pool.
    soon: AtomicU64,
    /// Pages read from the swap file, and how long that took, in nanoseconds.
    read: AtomicU64,
    reading: AtomicU64,
    /// At the last decision: pages that had come from the pool, those that had come soon, and those that had been read.
    last: [AtomicU64; 3],
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
            last: [const { AtomicU64::new(0) }; 3],
        }
    }

    /// A page came back from the pool that was out for so many evictions.
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

    /// Moves the limit of `cache` if it is time for that. One thread does. `cramped`: programs have hardly more left than the least.
    pub(crate) fn settle(&self, cache: &Zswap, cramped: bool) {
        let now = [cache.stats().get(Counter::Zswpin), self.soon.load(Relaxed), self.read.load(Relaxed)];
        let [loaded, soon, read] = [0, 1, 2].map(|at| now[at].saturating_sub(self.last[at].load(Relaxed)));
        if loaded + read < SAMPLE {
            return;
        }
        self.last.iter().zip(now).for_each(|(last, now)| last.store(now, Relaxed));
        let limit = self.limit.load(Relaxed);
        let wanted = self.wanted(limit, loaded, soon, read).max(self.least(cache));
        if wanted < limit || !cramped {
            self.set(cache, limit, wanted);
        }
    }

    /// For programs that have nothing left to give and need so many bytes: those are the pool's of `cache` no more, and what it held there leaves
    /// for the file. Whether it does: `false` where that is more than it can give, or somebody else set its limit.
    pub(crate) fn give_way(&self, cache: &Zswap, needed: u64) -> bool {
        let limit = self.limit.load(Relaxed);
        let held = held(cache);
        let rest = held.saturating_sub(needed);
        if !PoolSize::is_set_here(cache, limit) || rest < self.least(cache) {
            return false;
        }
        // What was asked for before may be under way still.
        held > limit || self.set(cache, limit, rest.min(limit))
    }

    /// The least limit: the cache's tables count, too.
    fn least(&self, cache: &Zswap) -> u64 {
        let tables = cache.stats().get(Counter::MetadataBytes);
        (self.begun_with / LEAST).max(tables + LEAST_POOL).min(self.begun_with)
    }

    /// Whether this limit is that of the cache: some profiles have none, and anybody may set another.
    fn is_set_here(cache: &Zswap, limit: u64) -> bool {
        cache.get(Param::MaxPoolBytes) == Some(limit.to_string())
    }

    /// Sets another limit, as long as the one that is set was set here. Whether it did.
    fn set(&self, cache: &Zswap, limit: u64, wanted: u64) -> bool {
        let done = wanted != limit
            && PoolSize::is_set_here(cache, limit)
            && cache.set(Param::MaxPoolBytes, &wanted.to_string()).is_ok();
        if done {
            self.limit.store(wanted, Relaxed);
        }
        done
    }

    fn wanted(&self, limit: u64, loaded: u64, soon: u64, read: u64) -> u64 {
        let a_read = self
            .reading
            .load(Relaxed)
            .checked_div(self.read.load(Relaxed))
            .map_or(UNREAD, Duration::from_nanos);
        #[expect(clippy::cast_precision_loss, reason = "a comparison of estimates")]
        let cost = |pages: u64, each: Duration| pages as f64 * each.as_secs_f64();
        let (for_nothing, saved) = (cost(soon, AWAY), cost(loaded.saturating_sub(soon) + read, a_read));
        // With more than it began with, programs may be left with too little to work at all: where many wait for slow reads at once,
        // those cost less than they take, and half of what comes back soon is a sign of that.
        let may_grow = limit < self.begun_with || soon * 2 < loaded;
        let is_too_much = limit > self.begun_with && soon * 3 > loaded * 2;
        if for_nothing > CLEARLY * saved || is_too_much {
            limit / 4 * 3
        } else if saved > CLEARLY * for_nothing && may_grow {
            (limit / 4 * 5).min(self.begun_with.saturating_mul(MOST))
        } else {
            limit
        }
    }
}

/// What counts against the limit.
fn held(cache: &Zswap) -> u64 {
    let stats = cache.stats();
    stats.get(Counter::PoolTotalSize) + stats.get(Counter::MetadataBytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_moves_towards_what_costs_less_and_stays_within_its_bounds() {
        let size = PoolSize::new(1 << 20);
        assert_eq!(size.wanted(1 << 20, 2048, 2000, 0), (1 << 20) / 4 * 3, "most came back at once");
        assert_eq!(size.wanted(3 << 20, 2048, 0, 0), 3 << 20, "it is the most already");
        assert_eq!(size.wanted(1 << 20, 2048, 0, 0), (1 << 20) / 4 * 5, "all would have been read");
        assert_eq!(size.wanted(1 << 20, 2048, 1024, 0), 1 << 20, "half would have been there");
        assert_eq!(size.wanted(2 << 20, 2048, 1024, 0), 2 << 20, "the same, and it has more than at first");
        assert_eq!(
            size.wanted(2 << 20, 2048, 1400, 0),
            (2 << 20) / 4 * 3,
            "more than two thirds would have been there"
        );
        assert_eq!(size.wanted(1 << 19, 2048, 0, 0), (1 << 19) / 4 * 5, "all would have been read");
        assert_eq!(
            size.wanted(1 << 18, 2048, 2048, 2048),
            (1 << 18) / 4 * 5,
            "there are more reads than it spares"
        );
        assert_eq!(size.wanted(1 << 20, 0, 0, 2048), 1 << 20, "nothing comes back from it");
        // 100 us a page that is read, 20 us a page that was out for nothing.
        assert_eq!(size.wanted(1 << 19, 6000, 5000, 0), 1 << 19, "they cost the same");
        // A faster file.
        size.were_read(1000, Duration::from_millis(20));
        assert_eq!(size.wanted(1 << 19, 6000, 5000, 0), (1 << 19) / 4 * 3);
        assert_eq!(size.wanted(1 << 19, 6000, 3000, 0), 1 << 19);
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
            size.settle(&cache, false);
            cache.get(Param::MaxPoolBytes).unwrap()
        };
        assert_eq!(settled(), ((1 << 24) / 4 * 3).to_string());
        cache.set(Param::MaxPoolBytes, "10000000").unwrap();
        assert_eq!(settled(), "10000000");
    }

    #[test]
    fn it_gives_way_as_far_as_it_goes_and_grows_no_more_where_programs_have_little() {
        let mut options = zswap::Options::new(zswap::Profile::named("default").unwrap());
        options.params = vec![(Param::MaxPoolBytes.name().to_owned(), (1 << 24).to_string())];
        let cache = Zswap::new(options).unwrap();
        cache.swapon(0, 1 << 12, None).unwrap();
        let limit = || cache.get(Param::MaxPoolBytes).unwrap().parse::<u64>().unwrap();
        // Half of it is noise.
        let page = |at: u32| {
            let mut noise = u64::from(at + 1);
            std::array::from_fn(|byte| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if byte < 2000 { (noise >> 56) as u8 } else { 0 }
            })
        };
        let fill = || {
            for offset in 0..1000 {
                cache.store(zswap::SwapEntry { swap_type: 0, offset }, &page(offset)).unwrap();
            }
        };
        fill();
        let size = PoolSize::new(1 << 24);
        let begun_with = held(&cache);
        assert!(!size.give_way(&cache, begun_with) && limit() == 1 << 24, "that is more than it has");
        assert!(size.give_way(&cache, 1 << 20));
        assert_eq!(limit(), begun_with - (1 << 20));
        assert!(size.give_way(&cache, 1 << 19), "it is under way");
        assert_eq!(limit(), begun_with - (1 << 20));
        cache.set(Param::MaxPoolBytes, "10000000").unwrap();
        assert!(!size.give_way(&cache, 1 << 19), "somebody else has set it");
        cache.set(Param::MaxPoolBytes, &(begun_with - (1 << 20)).to_string()).unwrap();

        for _ in 0..20 {
            for _ in 0..SAMPLE {
                let entry = zswap::SwapEntry { swap_type: 0, offset: 0 };
                cache.load(entry, &mut [0; PAGE_SIZE], zswap::Keep::Always).unwrap();
                size.came_back(0);
            }
            size.settle(&cache, true);
        }
        assert_eq!(limit(), size.least(&cache));
        size.were_read(SAMPLE as usize, Duration::from_millis(200));
        size.settle(&cache, true);
        assert_eq!(limit(), size.least(&cache), "programs have little");
        size.were_read(SAMPLE as usize, Duration::from_millis(200));
        size.settle(&cache, false);
        assert!(limit() > size.least(&cache));
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
