//! One managed memory (an `mm` of the kernel's): what is registered, where each page is, and what is under way.
//!
//! Everything about it is under one lock. The rule that keeps pages right: **messages of the userfaultfd are read and
//! applied, and pages are moved out and noted, within one hold of that lock.** The kernel refuses a move while an event is
//! unread, so every change of the memory is known before a page that it concerns can be moved, and the other way round.
//!
//! Lock order: [`Hands`] (of one memory), then its [`Inner`], then the books, the line for turns, or the batch that is being stored.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::fd::OwnedFd;

use crate::around::Around;
use crate::batch::Batch;
use crate::link::Hands;
use crate::overtaken::Overtaken;
use crate::proc::{Mapping, Proc};
use crate::stream::Streams;
use crate::table::{Page, Table};
use crate::uffd::Uffd;

/// A memory that is ours to serve.
pub(crate) struct Memory {
    /// Its number in the queues.
    pub(crate) number: u32,
    /// How many were managed before it.
    pub(crate) age: u64,
    pub(crate) uffd: Uffd,
    /// The agent's page that is mapped in it for certain.
    pub(crate) probe: u64,
    pub(crate) inner: Mutex<Inner>,
    /// The batch under way ended.
    pub(crate) settled: Condvar,
    /// Its process; a forked child's is not known until its agent says who it is.
    pub(crate) proc: OnceLock<Arc<Proc>>,
    /// The agent there.
    pub(crate) hands: Mutex<Option<Hands>>,
    /// It was forked, or forked itself: some pages may be shared with another process.
    pub(crate) has_forked: AtomicBool,
    /// Pages that came back since somebody looked.
    pub(crate) came: AtomicUsize,
    /// An eventfd that ends its thread.
    /// `None`: there was no descriptor left for it.
    pub(crate) ended: Option<OwnedFd>,
}

impl Memory {
    /// Ends its thread, which finds out later by itself where it cannot be told.
    pub(crate) fn tell_end(&self) {
        if let Some(ended) = &self.ended {
            let _ = rustix::io::write(ended, &1u64.to_ne_bytes());
        }
    }
}

/// What is known about it.
#[derive(Default)]
pub(crate) struct Inner {
    pub(crate) table: Table,
    /// Registered ranges: start to end.
    pub(crate) regions: BTreeMap<u64, u64>,
    /// Moved out, and on its way into the cache.
    pub(crate) batch: Option<Arc<Batch>>,
    pub(crate) streams: Streams,
    pub(crate) around: Around,
    /// Pages in the state Resident.
    pub(crate) resident: usize,
    /// What was heard of before something older was.
    pub(crate) overtaken: Overtaken,
    /// An event was read and waits for the batch to end: no other may begin.
    pub(crate) events_wait: bool,
    /// Pages found present before this are not taken for resident: one of them may be about to be dropped.
    pub(crate) blind_until: Option<Instant>,
    /// Pages that stay, once it was looked which: the kernel needs them itself.
    pub(crate) kept: Option<HashSet<Page>>,
    /// What children found empty when that was last looked at, when, and how long it took.
    pub(crate) wiped: Vec<Mapping>,
    pub(crate) looked_at: Option<(Instant, Duration)>,
    /// Everything is being brought back, or a batch was lost: nothing may leave any more.
    pub(crate) draining: bool,
}

impl Inner {
    /// A range is registered.
    pub(crate) fn add_region(&mut self, start: u64, end: u64) {
        let (mut start, mut end) = (start, end);
        // Neighbours and overlaps become one.
        while let Some((&other, &other_end)) = self.regions.range(..=end).next_back() {
            if other_end < start {
                break;
            }
            start = start.min(other);
            end = end.max(other_end);
            self.regions.remove(&other);
        }
        self.regions.insert(start, end);
    }

    /// A range is registered no more.
    pub(crate) fn cut_region(&mut self, start: u64, end: u64) {
        while let Some((&other, &other_end)) = self.regions.range(..end).next_back() {
            if other_end <= start {
                break;
            }
            self.regions.remove(&other);
            if other_end > end {
                self.regions.insert(end, other_end);
            }
            if other < start {
                self.regions.insert(other, start);
                break;
            }
        }
    }

    /// The parts of a range that are registered.
    pub(crate) fn registered(&self, start: u64, end: u64) -> Vec<Range<u64>> {
        let first = self.regions.range(..=start).next_back().map_or(start, |(&other, _)| other);
        let regions = self.regions.range(first..end);
        let parts = regions.map(|(&other, &other_end)| other.max(start)..other_end.min(end));
        parts.filter(|part| !part.is_empty()).collect()
    }

    /// Calls `each` with the parts of a range that are not registered.
    pub(crate) fn unregistered(&self, start: u64, end: u64) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        let mut from = start;
        let first = self.regions.range(..=start).next_back().map_or(start, |(&other, _)| other);
        for (&other, &other_end) in self.regions.range(first..end) {
            if other > from {
                gaps.push((from, other.min(end)));
            }
            from = from.max(other_end);
        }
        if from < end {
            gaps.push((from, end));
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_join_and_part() {
        let mut inner = Inner::default();
        inner.add_region(10, 20);
        inner.add_region(30, 40);
        inner.add_region(20, 25);
        assert_eq!(inner.regions, BTreeMap::from([(10, 25), (30, 40)]));
        assert_eq!(inner.unregistered(0, 50), [(0, 10), (25, 30), (40, 50)]);
        assert_eq!(inner.unregistered(12, 32), [(25, 30)]);
        assert_eq!(inner.registered(12, 32), [12..25, 30..32]);
        assert_eq!(inner.registered(25, 30), []);
        assert_eq!(inner.unregistered(12, 20), []);
        inner.cut_region(15, 35);
        assert_eq!(inner.regions, BTreeMap::from([(10, 15), (35, 40)]));
        inner.add_region(0, 100);
        assert_eq!(inner.regions, BTreeMap::from([(0, 100)]));
        inner.cut_region(40, 50);
        assert_eq!(inner.regions, BTreeMap::from([(0, 40), (50, 100)]));
        inner.cut_region(0, 200);
        assert!(inner.regions.is_empty());
    }
}
