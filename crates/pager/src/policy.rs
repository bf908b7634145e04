//! Which page goes next. `compare policy` holds this against others.
//!
//! The pager sees faults and never accesses. So at first this knows when a page came, and nothing else. Two queues by age, as in
//! 2Q: pages come into *probation*; one that was evicted and is wanted back before as many others were evicted as there are
//! resident pages (the refault distance that the kernel's workingset code uses) comes into *protected*. Probation is emptied
//! first while it is larger than its share. So a scan through more memory than there is passes through probation and leaves
//! the protected pages where they are. A page of the protected queue gets its second chance by being evicted and wanted back soon.
//!
//! Where accessed bits can be seen ([`Policy::see`]), there is one queue, and pages in use are found before they go: CLOCK. Its
//! hand does not clear the bit of one page: those of all pages are cleared at once. So a page that came since they were
//! cleared is not known. When half as many came as are resident, the old end of the queue is looked at and the bits are
//! cleared; victims are looked at as well; used pages go to the young end. Clearing is not free, and of no use to a program
//! that loops over more than there is: the fewer of those looked at were used, the later the bits are cleared again.
//!
//! What it trades: blind, a loop over more than half as much again as there is misses every time, and seeing, any loop over more
//! than there is, as with LRU. Entries are removed lazily: the queue holds stamps, and an entry whose stamp is not the page's any
//! more is skipped by its user.

use std::collections::VecDeque;

/// Share of probation among resident pages, in percent, while nothing is seen. With 25, real programs had a tenth to a third more
/// pages evicted, and a zipfian order (`compare policy`) 7 % more misses.
const PROBATION_PERCENT: usize = 5;

/// One of so many victims is a page that was refused before: its content may have changed.
const REFUSED_ONE_IN: u32 = 64;

/// When less than this share of those looked at were used, in percent, the bits are cleared less often.
const WORTH_PERCENT: usize = 25;
/// Unused means something only after this part of as many pages as are resident came since the bits were cleared.
const WINDOW: usize = 4;
/// How often as many pages as are resident come before the bits are cleared again, at most.
const MOST_TURNS: usize = 8;
/// How many are looked at at most when the bits are cleared; what is behind them has time to be used again.
const MOST_KNOWN: usize = 1 << 16;

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

/// A page that goes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Victim {
    /// Which.
    pub candidate: Candidate,
    /// The accessed bits were cleared since it came: it was used if its bit is set.
    pub is_known: bool,
}

/// The queues. Eight bytes for each resident page that may be evicted.
#[derive(Default)]
pub struct Policy {
    /// All pages, once accessed bits are seen.
    probation: VecDeque<u64>,
    protected: VecDeque<u64>,
    /// Pages that found no place outside.
    refused: VecDeque<u64>,
    stamp: u32,
    victims: u32,
    sight: Option<Sight>,
}

/// What is known of accessed bits.
#[derive(Clone, Copy)]
struct Sight {
    /// Candidates at the young end that came there since the bits were cleared.
    fresh: usize,
    /// Pages that became resident since then.
    came: usize,
    /// Pages that were looked at since then, after a while in which they could have been used, and those that were used.
    looked: usize,
    used: usize,
    /// How many of a hundred were used, of late.
    used_percent: usize,
}

impl Policy {
    /// From now on accessed bits can be looked at.
    pub fn see(&mut self) {
        let protected = std::mem::take(&mut self.protected);
        self.probation.extend(protected);
        let all = self.probation.len();
        self.sight =
            Some(Sight { fresh: all, came: all, looked: 0, used: 0, used_percent: 2 * WORTH_PERCENT });
    }

    /// They cannot be looked at any more.
    pub fn see_no_more(&mut self) {
        self.sight = None;
    }

    /// Whether it is time to look at [`Policy::take_known`], to clear the accessed bits of all pages, and to tell it to
    /// [`Policy::cleared`].
    pub fn is_blind(&self) -> bool {
        self.sight.is_some_and(|sight| {
            let half = (self.probation.len() / 2).max(1);
            let later = half * WORTH_PERCENT / sight.used_percent.max(1);
            // So many were in use that none is known any more before it could be told how many.
            let ran_out = sight.looked == 0 && sight.fresh >= self.probation.len();
            sight.came >= if ran_out { half } else { later.clamp(half, half * 2 * MOST_TURNS) }
        })
    }

    /// The old end, as far as it is known whether the pages were used. They are victims no more: those that were used are told to
    /// [`Policy::used`], the others, in this order, to [`Policy::cleared`].
    pub fn take_known(&mut self) -> Vec<Candidate> {
        let fresh = self.sight.map_or(0, |sight| sight.fresh);
        let known = self.probation.len().saturating_sub(fresh).min(MOST_KNOWN);
        self.probation.drain(..known).map(Candidate::unpack).collect()
    }

    /// So many known pages were looked at, and these were used since the accessed bits were cleared. They stay.
    pub fn used(&mut self, looked: usize, used: &[Candidate]) {
        if let Some(sight) = &mut self.sight {
            if sight.came * WINDOW >= self.probation.len() {
                sight.looked += looked;
                sight.used += used.len();
            }
            sight.fresh += used.len();
        }
        self.probation.extend(used.iter().map(|candidate| candidate.pack()));
    }

    /// The accessed bits of all pages were cleared; these were not used before.
    pub fn cleared(&mut self, unused: &[Candidate]) {
        unused.iter().rev().for_each(|candidate| self.probation.push_front(candidate.pack()));
        if let Some(sight) = &mut self.sight {
            sight.used_percent = match (sight.used * 100).checked_div(sight.looked) {
                Some(percent) => (sight.used_percent + percent) / 2,
                None => 2 * WORTH_PERCENT,
            };
            *sight = Sight { fresh: 0, came: 0, looked: 0, used: 0, ..*sight };
        }
    }

    /// A page is resident now. `age`: how many pages were evicted since it was, if it was. Returns its stamp.
    pub fn admit(&mut self, memory: u32, page: u64, age: Option<u32>) -> u32 {
        let candidate = self.candidate(memory, page);
        let soon = age.is_some_and(|age| (age as usize) < self.len());
        match &mut self.sight {
            Some(sight) => sight.came += 1,
            None if soon => {
                self.protected.push_back(candidate.pack());
                return candidate.stamp;
            }
            None => {}
        }
        self.put_back(candidate);
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
    pub fn victim(&mut self) -> Option<Victim> {
        let unknown = |packed| Victim { candidate: Candidate::unpack(packed), is_known: false };
        self.victims = self.victims.wrapping_add(1);
        if self.victims.is_multiple_of(REFUSED_ONE_IN)
            && let Some(again) = self.refused.pop_front()
        {
            return Some(unknown(again));
        }
        let probation_is_due = self.probation.len() * 100 > self.len() * PROBATION_PERCENT;
        let is_known = self.sight.is_some_and(|sight| self.probation.len() > sight.fresh);
        let (first, second) = if probation_is_due {
            (&mut self.probation, &mut self.protected)
        } else {
            (&mut self.protected, &mut self.probation)
        };
        let next = first.pop_front().or_else(|| second.pop_front());
        if let Some(sight) = &mut self.sight {
            sight.fresh = sight.fresh.min(self.probation.len());
        }
        next.map(|next| Victim { is_known, ..unknown(next) })
            .or_else(|| self.refused.pop_front().map(unknown))
    }

    /// Takes a candidate back that could not be evicted; it is due again after all others of its kind.
    pub fn put_back(&mut self, candidate: Candidate) {
        self.probation.push_back(candidate.pack());
        if let Some(sight) = &mut self.sight {
            sight.fresh += 1;
        }
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

    fn victim(policy: &mut Policy) -> Option<Candidate> {
        policy.victim().map(|victim| victim.candidate)
    }

    #[test]
    fn a_candidate_comes_back_whole() {
        let mut policy = Policy::default();
        for (memory, page) in [(0, 0), (MEMORIES - 1, (1 << PAGE_BITS) - 1), (7, 0x7_ffff_f123)] {
            let stamp = policy.admit(memory, page, None);
            assert_eq!(victim(&mut policy), Some(Candidate { memory, page, stamp }));
        }
        assert_eq!(victim(&mut policy), None);
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
        let victims: Vec<_> = std::iter::from_fn(|| victim(&mut policy)).collect();
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
                gone += usize::from(victim(&mut policy).is_some_and(|victim| victim.page < 1000));
            }
        }
        // The first few came when nothing else was resident: three evictions were many then.
        assert!(gone <= 4, "{gone} of 100 went");
    }

    /// Clears the bits of a policy whose pages are used as told.
    fn clear(policy: &mut Policy, is_used: impl Fn(u64) -> bool) {
        let known = policy.take_known();
        let (used, unused): (Vec<_>, Vec<_>) = known.iter().partition(|known| is_used(known.page));
        policy.used(known.len(), &used);
        policy.cleared(&unused);
    }

    #[test]
    fn what_is_used_goes_last_and_what_came_since_is_not_known() {
        let mut policy = Policy::default();
        for page in 0..10 {
            // Wanted back soon or not.
            policy.admit(0, page, (page % 2 == 0).then_some(0));
        }
        policy.see();
        assert!(policy.is_blind(), "all of them came before the bits were ever cleared");
        clear(&mut policy, |_| panic!("nothing is known"));
        assert!(!policy.is_blind());
        for page in 10..19 {
            assert!(!policy.is_blind());
            policy.admit(0, page, Some(0));
        }
        assert!(policy.is_blind(), "half of them came since");
        clear(&mut policy, |page| page < 4);
        for page in 19..21 {
            policy.admit(0, page, None);
        }
        let order: Vec<_> = std::iter::from_fn(|| policy.victim()).collect();
        let known = order.iter().filter(|victim| victim.is_known).map(|victim| victim.candidate.page);
        let mut known: Vec<_> = known.collect();
        assert_eq!(
            order.iter().skip(known.len()).map(|victim| victim.candidate.page).collect::<Vec<_>>(),
            [19, 20]
        );
        assert_eq!(known[6..15], (10..19).collect::<Vec<_>>(), "these came before the bits were cleared");
        known[..6].sort_unstable();
        known[15..].sort_unstable();
        assert_eq!((&known[..6], &known[15..]), (&[4, 5, 6, 7, 8, 9][..], &[0, 1, 2, 3][..]));
    }

    /// A policy of a thousand pages at work: so many are admitted, of which some are used. Returns how often bits were cleared.
    fn work(policy: &mut Policy, pages: std::ops::Range<u64>, is_used: &dyn Fn(u64) -> bool) -> usize {
        let mut clears = 0;
        for page in pages {
            policy.admit(0, page, None);
            if policy.len() <= 1000 {
                continue;
            }
            while let Some(Victim { candidate, is_known: true }) = policy.victim() {
                let used = is_used(candidate.page);
                policy.used(1, if used { std::slice::from_ref(&candidate) } else { &[] });
                if !used {
                    break;
                }
            }
            if policy.is_blind() {
                clears += 1;
                clear(policy, is_used);
            }
        }
        clears
    }

    #[test]
    fn use_is_noticed_again_after_a_time_without() {
        let mut policy = Policy::default();
        policy.see();
        assert!(work(&mut policy, 0..50_000, &|_| false) < 30);
        // Nearly everything that came is in use: what is known runs out at once.
        let clears = work(&mut policy, 50_000..100_000, &|page| page % 50 != 0);
        assert!(clears > 60, "{clears}");
    }

    #[test]
    fn where_looking_is_of_no_use_the_bits_are_seldom_cleared() {
        let clears = |is_used: &dyn Fn(u64) -> bool| {
            let mut policy = Policy::default();
            policy.see();
            work(&mut policy, 0..100_000, is_used)
        };
        let (seldom, often) = (clears(&|_| false), clears(&|page| page % 3 == 0));
        assert!((100_000 / 1000 / MOST_TURNS..40).contains(&seldom), "{seldom}");
        assert!(often > 100, "{often}");
    }
}
