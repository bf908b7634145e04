//! Which page goes next. The pager sees faults and scans, never accesses, so this sees when a page came and nothing else.
//!
//! Two queues by age, as in 2Q: pages come into *probation*; one that was evicted and is wanted back before as many others
//! were evicted as there are resident pages (the refault distance that the kernel's workingset code uses) comes into
//! *protected*. Probation is emptied first while it is larger than its share. So a scan through more memory than there is
//! passes through probation and leaves the protected pages where they are. A loop over more than half as much again as there is
//! misses every time, as with LRU: none of its pages is wanted back soon. `compare policy` holds this against others.
//!
//! What it trades: pages are never moved within a queue, since nobody tells us that they are used; a page of the protected
//! queue gets its second chance by being evicted and wanted back soon. Entries are removed lazily: the queue holds stamps,
//! and an entry whose stamp is not the page's any more is skipped by its user.

use std::collections::VecDeque;

/// Share of probation among resident pages, in percent. With 25, real programs had a tenth to a third more pages evicted, and a
/// zipfian order (`compare policy`) 7 % more misses.
const PROBATION_PERCENT: usize = 5;

/// One of so many victims is a page that was refused before: its content may have changed.
const REFUSED_ONE_IN: u32 = 64;

/// Distinguishes the times that a page was resident; equal stamps after 16384 times only make an eviction come early.
const STAMP_BITS: u32 = 14;
const MEMORY_BITS: u32 = 14;
const PAGE_BITS: u32 = 36;

/// Memories (processes) that the queues tell apart.
pub const MEMORIES: u32 = 1 << MEMORY_BITS;

/// A page of some memory, resident since some time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Candidate {
    /// The memory's number, below [`MEMORIES`].
    pub memory: u32,
    /// The page's number there.
    pub page: u64,
    /// What [`Policy::admit`] gave.
    pub stamp: u32,
}

impl Candidate {
    fn pack(self) -> u64 {
        u64::from(self.memory) << (PAGE_BITS + STAMP_BITS)
            | (self.page & ((1 << PAGE_BITS) - 1)) << STAMP_BITS
            | u64::from(self.stamp)
    }

    fn unpack(packed: u64) -> Candidate {
        let low = |bits: u32| (1u64 << bits) - 1;
        // Each part was masked to fewer than 32 bits, or is the 36 bits of a page.
        Candidate {
            memory: (packed >> (PAGE_BITS + STAMP_BITS)) as u32,
            page: packed >> STAMP_BITS & low(PAGE_BITS),
            stamp: (packed & low(STAMP_BITS)) as u32,
        }
    }
}

/// The queues. Eight bytes for each resident page that may be evicted.
#[derive(Default)]
pub struct Policy {
    probation: VecDeque<u64>,
    protected: VecDeque<u64>,
    /// Pages that found no place outside.
    refused: VecDeque<u64>,
    stamp: u32,
    victims: u32,
}

impl Policy {
    /// A page is resident now. `age`: how many pages were evicted since it was, if it was. Returns its stamp.
    pub fn admit(&mut self, memory: u32, page: u64, age: Option<u32>) -> u32 {
        let candidate = self.candidate(memory, page);
        let soon = age.is_some_and(|age| (age as usize) < self.len());
        let queue = if soon { &mut self.protected } else { &mut self.probation };
        queue.push_back(candidate.pack());
        candidate.stamp
    }

    /// A page is resident again because it found no place outside. Returns its stamp.
    pub fn refuse(&mut self, memory: u32, page: u64) -> u32 {
        let candidate = self.candidate(memory, page);
        self.refused.push_back(candidate.pack());
        candidate.stamp
    }

    fn candidate(&mut self, memory: u32, page: u64) -> Candidate {
        self.stamp = (self.stamp + 1) % (1 << STAMP_BITS);
        Candidate { memory, page, stamp: self.stamp }
    }

    /// The page that goes next.
    pub fn victim(&mut self) -> Option<Candidate> {
        self.victims = self.victims.wrapping_add(1);
        if self.victims.is_multiple_of(REFUSED_ONE_IN)
            && let Some(again) = self.refused.pop_front()
        {
            return Some(Candidate::unpack(again));
        }
        let probation_is_due = self.probation.len() * 100 > self.len() * PROBATION_PERCENT;
        let (first, second) = if probation_is_due {
            (&mut self.probation, &mut self.protected)
        } else {
            (&mut self.protected, &mut self.probation)
        };
        let next = first.pop_front().or_else(|| second.pop_front()).or_else(|| self.refused.pop_front());
        next.map(Candidate::unpack)
    }

    /// Takes a candidate back that could not be evicted; it is due again after all others of its kind.
    pub fn put_back(&mut self, candidate: Candidate) {
        self.probation.push_back(candidate.pack());
    }

    /// Candidates, those included that are none any more.
    pub fn len(&self) -> usize {
        self.probation.len() + self.protected.len() + self.refused.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        (self.probation.capacity() + self.protected.capacity() + self.refused.capacity()) * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candidate_comes_back_whole() {
        let mut policy = Policy::default();
        for (memory, page) in [(0, 0), (MEMORIES - 1, (1 << PAGE_BITS) - 1), (7, 0x7_ffff_f123)] {
            let stamp = policy.admit(memory, page, None);
            assert_eq!(policy.victim(), Some(Candidate { memory, page, stamp }));
        }
        assert_eq!(policy.victim(), None);
    }

    #[test]
    fn what_found_no_place_is_seldom_tried_again() {
        let mut policy = Policy::default();
        for page in 0..100 {
            policy.refuse(0, page);
        }
        for page in 1000..3000 {
            policy.admit(0, page, None);
        }
        let victims: Vec<_> = std::iter::from_fn(|| policy.victim()).collect();
        assert_eq!(victims.len(), 2100, "none is forgotten");
        let again = victims[..1280].iter().filter(|victim| victim.page < 100).count();
        assert_eq!(again, 20);
    }

    #[test]
    fn what_is_wanted_back_soon_outlives_a_scan() {
        let mut policy = Policy::default();
        for page in 0..100 {
            policy.admit(0, page, Some(3));
        }
        let mut gone = 0;
        for page in 1000..5000 {
            policy.admit(0, page, None);
            if policy.len() > 200 {
                gone += usize::from(policy.victim().is_some_and(|victim| victim.page < 1000));
            }
        }
        // The first few came when nothing else was resident: three evictions were many then.
        assert!(gone <= 4, "{gone} of 100 went");
    }
}
