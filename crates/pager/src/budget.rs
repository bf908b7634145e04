//! The cap, and how near it is.
//!
//! What counts: the resident memory of the managed processes and of this one, the pool and everything else it holds
//! included. File pages that several processes map count once, as far as one process's number can tell. The kernel is
//! asked every few milliseconds; in between, pages brought in and moved out are added and taken off.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// The part of the cap that is kept free, and its bounds: for what programs take before we look again. Of memory that is registered we
/// hear page by page. Who has found other memory lately will find more.
const RESERVE_FOR_UNSEEN: u64 = 32;
const RESERVE: u64 = 96;
const MOST_RESERVE: u64 = 48 << 20;
const LEAST_RESERVE: u64 = 1 << 20;
/// What is lately: within so many looks, a quarter of a second at most where memory is scarce.
const LATELY: u32 = 250;

/// This part of the reserve is left to what programs touch without a fault of ours. With nothing left, peaks were up to 1.038 of
/// the cap for a database that grows; a part of this size costs no time that could be measured.
const LEFT_FREE: u64 = 4;

/// What this process takes beside the pool once something leaves: buffers, tables, code that was not needed before. Less than
/// that is not there yet, and comes when memory is scarce already.
const AT_WORK: u64 = 7 << 19;

/// The joint maximum of a run.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Peaks {
    /// Managed processes.
    pub resident: u64,
    /// The pool.
    pub pool: u64,
    /// Everything together, at one time.
    pub total: u64,
}

/// A measurement, in bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Sample {
    /// Anonymous memory of the managed processes.
    pub anonymous: u64,
    /// File and shared pages of the process that has most of them.
    pub shared: u64,
    /// This process, pool included.
    pub own: u64,
    /// The pool.
    pub pool: u64,
}

impl Sample {
    fn total(&self) -> u64 {
        self.anonymous + self.shared + self.own
    }
}

pub(crate) struct Budget {
    cap: u64,
    estimate: AtomicU64,
    anonymous: AtomicU64,
    /// Looks since memory was found that nobody had told us of.
    looks: AtomicU32,
    /// The evictor has work.
    wanted: Mutex<bool>,
    wake: Condvar,
    /// Something was evicted.
    room: Condvar,
    room_lock: Mutex<()>,
    peaks: Mutex<Peaks>,
    /// Nothing more can leave: there is no use in waiting.
    pub(crate) gave_up: AtomicBool,
}

impl Budget {
    pub(crate) fn new(cap: u64) -> Budget {
        Budget {
            cap,
            estimate: AtomicU64::new(0),
            anonymous: AtomicU64::new(0),
            looks: AtomicU32::new(0),
            wanted: Mutex::new(false),
            wake: Condvar::new(),
            room: Condvar::new(),
            room_lock: Mutex::new(()),
            peaks: Mutex::new(Peaks::default()),
            gave_up: AtomicBool::new(false),
        }
    }

    /// Eviction begins above this.
    pub(crate) fn high(&self) -> u64 {
        let part = if self.looks.load(Relaxed) < LATELY { RESERVE_FOR_UNSEEN } else { RESERVE };
        self.cap - (self.cap / part).clamp(LEAST_RESERVE.min(self.cap / 8), MOST_RESERVE)
    }

    /// Above this, eviction may begin soon: what it needs to know of the programs is to be known by then. Their first answers, and to look through
    /// memory for the first time, take as long as programs take to grow by tens of megabytes: twelve that were forked and filled 60 MiB each were at
    /// 2.5 times a cap of 256 MiB by then, when this was an eighth of the cap, and one was looked at after the other.
    pub(crate) fn near(&self) -> u64 {
        self.high() - self.cap / 4
    }

    /// Eviction ends below this: a few batches, since what is free beyond that is of use to nobody.
    pub(crate) fn low(&self) -> u64 {
        self.high() - (self.cap / 256).clamp(LEAST_RESERVE.min(self.cap / 16), MOST_RESERVE / 8)
    }

    /// Nobody takes memory above this before something has left.
    fn full(&self) -> u64 {
        self.cap - (self.cap - self.high()) / LEFT_FREE
    }

    /// What may grow unseen.
    pub(crate) fn step(&self) -> u64 {
        (self.cap / 256).max(64 << 10)
    }

    /// Programs cannot be squeezed below this: they would do nothing but wait for pages.
    pub(crate) fn floor(&self) -> u64 {
        (self.cap / 8).max(1 << 20)
    }

    pub(crate) fn cap(&self) -> u64 {
        self.cap
    }

    pub(crate) fn anonymous(&self) -> u64 {
        self.anonymous.load(Relaxed)
    }

    pub(crate) fn estimate(&self) -> u64 {
        self.estimate.load(Relaxed)
    }

    /// The kernel's numbers.
    pub(crate) fn measured(&self, sample: Sample) {
        let to_come = AT_WORK.saturating_sub(sample.own.saturating_sub(sample.pool)).min(self.cap / 16);
        self.estimate.store(sample.total() + to_come, Relaxed);
        self.anonymous.store(sample.anonymous, Relaxed);
        let _ = self.looks.fetch_update(Relaxed, Relaxed, |looks| Some(looks.saturating_add(1)));
        let mut peaks = self.peaks.lock();
        if sample.total() > peaks.total {
            *peaks = Peaks {
                resident: sample.anonymous + sample.shared,
                pool: sample.pool,
                total: sample.total(),
            };
        }
        drop(peaks);
        self.nudge(self.near());
        self.tell_room();
    }

    /// Memory was found that nobody had told us of.
    pub(crate) fn found_unseen(&self) {
        self.looks.store(0, Relaxed);
    }

    pub(crate) fn peaks(&self) -> Peaks {
        *self.peaks.lock()
    }

    /// Bytes that a program has more.
    pub(crate) fn add(&self, bytes: u64) {
        self.estimate.fetch_add(bytes, Relaxed);
        self.nudge(self.high());
    }

    /// Bytes that are free again.
    pub(crate) fn sub(&self, bytes: u64) {
        let _ = self.estimate.fetch_update(Relaxed, Relaxed, |now| Some(now.saturating_sub(bytes)));
        self.tell_room();
    }

    fn tell_room(&self) {
        if !self.is_over() {
            self.recall();
        }
    }

    /// Whoever waits for room is to look at its messages first: nothing can leave before.
    pub(crate) fn recall(&self) {
        // Who holds this is about to wait. Who has looked and has not come so far waits its limit, which is short.
        drop(self.room_lock.lock());
        self.room.notify_all();
    }

    /// The evictor has work from so many bytes on.
    fn nudge(&self, from: u64) {
        if self.estimate() > from {
            let mut wanted = self.wanted.lock();
            if !*wanted {
                *wanted = true;
                self.wake.notify_one();
            }
        }
    }

    /// For the end: whoever waits looks again.
    pub(crate) fn wake_all(&self) {
        *self.wanted.lock() = true;
        self.wake.notify_all();
        self.room.notify_all();
    }

    /// For the evictor: until there is something to do, at most `limit`.
    pub(crate) fn wait_for_work(&self, limit: Duration) -> bool {
        let mut wanted = self.wanted.lock();
        if !*wanted {
            self.wake.wait_for(&mut wanted, limit);
        }
        std::mem::replace(&mut *wanted, false)
    }

    /// Whether there is no memory left below the cap, but for what grows unseen, and waiting for some has a use.
    pub(crate) fn is_over(&self) -> bool {
        self.estimate() > self.full() && !self.gave_up.load(Relaxed)
    }

    /// For who is about to take memory: until there is some, at most `limit`.
    pub(crate) fn wait_for_room(&self, limit: Duration) {
        self.nudge(self.high());
        let mut guard = self.room_lock.lock();
        if self.is_over() {
            self.room.wait_for(&mut guard, limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_in_order_for_every_cap() {
        for shift in 20..45 {
            for cap in [1 << shift, (1 << shift) + (1 << (shift - 1)) + 4096] {
                let budget = Budget::new(cap);
                for _ in 0..=LATELY {
                    let marks = [0, budget.near(), budget.low(), budget.high(), budget.full(), cap];
                    assert!(marks.is_sorted_by(|one, next| one < next), "{marks:?}");
                    budget.measured(Sample::default());
                }
            }
        }
    }

    #[test]
    fn more_is_kept_free_where_memory_was_found() {
        let budget = Budget::new(1 << 30);
        let (wary, look) = (budget.high(), || budget.measured(Sample::default()));
        (1..LATELY).for_each(|_| look());
        assert_eq!(budget.high(), wary);
        look();
        assert!(budget.high() > wary);
        budget.found_unseen();
        assert_eq!(budget.high(), wary);
    }
}
