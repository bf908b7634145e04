//! Which page goes next. `compare policy` holds this against others.
//!
//! The pager sees faults and never accesses. So at first this knows when a page came, and nothing else. Two queues by age, as in
//! 2Q: pages come into *probation*; one that was evicted and is wanted back before as many others were evicted as there are
//! resident pages (the refault distance that the kernel's workingset code uses) comes into *protected*. Probation is emptied
//! first while it is larger than its share. A page of the protected queue gets its second chance by being evicted and wanted back
//! soon.
//!
//! Where accessed bits can be seen ([`Policy::see`]), there is one queue, and pages in use are found before they go: CLOCK. Its
//! hand does not clear the bit of one page: those of all pages are cleared at once. So a page that came since they were
//! cleared is not known. When half as many came as are resident, the old end of the queue is looked at and the bits are
//! cleared; victims are looked at as well; used pages go to the young end. Clearing is not free, and of no use where nothing is
//! used twice: the fewer of those looked at were used, the later the bits are cleared again.
//!
//! Both let what comes take the place of what is oldest. In a loop over more than there is they find next to nothing again. Where
//! that is what a program does (`duel` finds out), what comes goes on probation, but for a sixteenth of it and half of what is
//! wanted back very soon, and what is protected stays.
//!
//! What it trades: a sixteenth of the pages is kept the way that is the worse one. Entries are removed lazily: the queues hold stamps,
//! and an entry whose stamp is not the page's any more is skipped by its user, who has all such forgotten ([`Policy::forget`]) when
//! they are too many.

mod duel;
mod queues;

use std::collections::{HashSet, VecDeque};

use duel::{Duel, Group, SHARES};
use queues::Queues;

/// One of so many victims is a page that was refused before: its content may have changed.
const REFUSED_ONE_IN: u32 = 64;

/// Of those that come where what is there stays, one of so many stays as well; of those that are wanted back very soon, more.
const SETTLES_ONE_IN: u32 = 16;
const SOON_SETTLES_ONE_IN: u32 = 2;
/// Very soon: before so small a part of as many others left as are resident.
const VERY_SOON: usize = 8;
/// So many that come after one another are treated alike, since they lie next to each other: runs of pages stay whole.
const TOGETHER: u32 = 64;

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

/// A candidate in a third of the space. Those of one memory are next to each other in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Packed(u64);

impl Packed {
    /// Which it is.
    pub fn candidate(self) -> Candidate {
        Candidate::unpack(self.0)
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
    /// By [`Group`].
    groups: [Queues; 3],
    duel: Duel,
    /// Pages that found no place outside.
    refused: VecDeque<u64>,
    stamp: u32,
    victims: u32,
    sight: Option<Sight>,
}

/// What is known of accessed bits.
#[derive(Clone, Copy)]
struct Sight {
    /// Pages that became resident since the bits were cleared.
    came: usize,
    /// Candidates that were taken to be looked at, and are neither used nor unused yet.
    taken: usize,
    /// Pages that were looked at since then, after a while in which they could have been used, and those that were used.
    looked: usize,
    used: usize,
    /// How many of a hundred were used, of late.
    used_percent: usize,
}

impl Policy {
    /// From now on accessed bits can be looked at.
    pub fn see(&mut self) {
        self.groups.iter_mut().for_each(Queues::protect_all);
        let came = self.queued();
        self.sight = Some(Sight { came, taken: 0, looked: 0, used: 0, used_percent: 2 * WORTH_PERCENT });
    }

    /// They cannot be looked at any more.
    pub fn see_no_more(&mut self) {
        self.sight = None;
        for group in Group::ALL {
            let queues = &mut self.groups[group as usize];
            queues.protect_none();
            if self.duel.stays(group) {
                queues.protect_old();
            }
        }
    }

    /// Whether it is time to look at [`Policy::take_known`], to clear the accessed bits of all pages, and to tell it to
    /// [`Policy::cleared`].
    pub fn is_blind(&self) -> bool {
        self.sight.is_some_and(|sight| {
            let half = (self.queued() / 2).max(1);
            let later = half * WORTH_PERCENT / sight.used_percent.max(1);
            let fresh: usize = self.groups.iter().map(Queues::fresh).sum();
            // So many were in use that none is known any more before it could be told how many.
            let ran_out = sight.looked == 0 && fresh >= self.queued();
            sight.came >= if ran_out { half } else { later.clamp(half, half * 2 * MOST_TURNS) }
        })
    }

    /// The old end, as far as it is known whether the pages were used. They are victims no more: those that were used are told to
    /// [`Policy::used`], the others, in this order, to [`Policy::cleared`].
    pub fn take_known(&mut self) -> Vec<Candidate> {
        let mut known = Vec::new();
        for group in Group::ALL {
            let queues = &mut self.groups[group as usize];
            known.extend(queues.take_known(MOST_KNOWN * group.share() / SHARES));
        }
        if let Some(sight) = &mut self.sight {
            sight.taken = known.len();
        }
        known
    }

    /// So many known pages were looked at, and these were used since the accessed bits were cleared. They stay.
    pub fn used(&mut self, looked: usize, used: &[Candidate]) {
        let queued = self.queued();
        if let Some(sight) = &mut self.sight {
            if sight.came * WINDOW >= queued {
                sight.looked += looked;
                sight.used += used.len();
            }
            sight.taken = sight.taken.saturating_sub(used.len());
        }
        used.iter().for_each(|&candidate| self.queues_of(candidate).protect(candidate));
    }

    /// The accessed bits of all pages were cleared; these were not used before.
    pub fn cleared(&mut self, unused: &[Candidate]) {
        unused.iter().rev().for_each(|&candidate| self.queues_of(candidate).untake(candidate));
        self.groups.iter_mut().for_each(Queues::cleared);
        if let Some(sight) = &mut self.sight {
            sight.used_percent = match (sight.used * 100).checked_div(sight.looked) {
                Some(percent) => (sight.used_percent + percent) / 2,
                None => 2 * WORTH_PERCENT,
            };
            *sight = Sight { came: 0, taken: 0, looked: 0, used: 0, ..*sight };
        }
    }

    /// A page is resident now. `age`: how many pages were evicted since it was, if it was. Returns its stamp.
    pub fn admit(&mut self, memory: u32, page: u64, age: Option<u32>) -> u32 {
        let candidate = self.candidate(memory, page);
        let group = Group::of(memory, page);
        if age.is_some() && self.duel.missed(group, self.queued()) {
            self.follow();
        }
        let sooner_than = |limit: usize| age.is_some_and(|age| (age as usize) < limit);
        let is_protected = if self.duel.stays(group) {
            let one_in =
                if sooner_than(self.len() / VERY_SOON) { SOON_SETTLES_ONE_IN } else { SETTLES_ONE_IN };
            // Before anything had to leave there was room for all.
            self.victims == 0 || (candidate.stamp / TOGETHER).is_multiple_of(one_in)
        } else {
            self.sight.is_some() || sooner_than(self.len())
        };
        if let Some(sight) = &mut self.sight {
            sight.came += 1;
        }
        let queues = self.queues_of(candidate);
        if is_protected {
            queues.protect(candidate)
        } else {
            queues.put_on_probation(candidate)
        }
        candidate.stamp
    }

    /// The pages that follow go the other way from now on.
    fn follow(&mut self) {
        let stays = self.duel.stays(Group::Following);
        let queues = &mut self.groups[Group::Following as usize];
        if stays {
            queues.protect_old();
        } else if self.sight.is_some() {
            queues.protect_all();
        }
    }

    fn queues_of(&mut self, candidate: Candidate) -> &mut Queues {
        &mut self.groups[Group::of(candidate.memory, candidate.page) as usize]
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
        if self.is_empty() {
            return None;
        }
        self.victims = self.victims.wrapping_add(1).max(1);
        let unknown = |packed| Victim { candidate: Candidate::unpack(packed), is_known: false };
        if self.victims.is_multiple_of(REFUSED_ONE_IN)
            && let Some(again) = self.refused.pop_front()
        {
            return Some(unknown(again));
        }
        let for_its_share = |group: &Group| self.groups[*group as usize].len() * (SHARES - 2) / group.share();
        let fullest = Group::ALL.into_iter().max_by_key(for_its_share)?;
        let sees = self.sight.is_some();
        let next = self.groups[fullest as usize].pop();
        next.map(|(candidate, is_known)| Victim { candidate, is_known: is_known && sees })
    }

    /// Has so many pages that found no place outside tried again before any others. Without this, one comes with so many others; were
    /// they victims whenever there are none else, a program whose pages do not compress would have all of them moved out and back
    /// all the time.
    pub fn try_refused(&mut self, most: usize) {
        let most = most.min(self.refused.len());
        let again: Vec<_> = self.refused.drain(..most).map(Candidate::unpack).collect();
        again.into_iter().for_each(|candidate| self.queues_of(candidate).put_on_probation(candidate));
    }

    /// Takes a candidate back that could not be evicted; it is due again after all others of its kind.
    pub fn put_back(&mut self, candidate: Candidate) {
        // Not on probation, which is emptied first: those of a program that is stopped would be all that is ever tried.
        self.queues_of(candidate).protect(candidate);
    }

    /// All candidates, for a look at which are none any more.
    pub fn candidates(&self) -> Vec<Packed> {
        let queued = self.groups.iter().flat_map(Queues::iter);
        queued.chain(&self.refused).copied().map(Packed).collect()
    }

    /// These are none any more.
    pub fn forget(&mut self, stale: &HashSet<Packed>) {
        let keep = |packed| !stale.contains(&Packed(packed));
        self.groups.iter_mut().for_each(|queues| queues.retain(keep));
        self.refused.retain(|&packed| keep(packed));
        self.refused.shrink_to_fit();
    }

    /// Candidates but those that were refused.
    fn queued(&self) -> usize {
        let taken = self.sight.map_or(0, |sight| sight.taken);
        self.groups.iter().map(Queues::len).sum::<usize>() + taken
    }

    /// Candidates, those included that are none any more.
    pub fn len(&self) -> usize {
        self.queued() + self.refused.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        let queues: usize = self.groups.iter().map(Queues::bytes).sum();
        queues + self.refused.capacity() * size_of::<u64>()
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
    fn what_is_forgotten_is_gone_and_all_else_as_it_was() {
        let all = |mut policy: Policy| std::iter::from_fn(move || policy.victim()).collect::<Vec<_>>();
        let filled = || {
            let mut policy = Policy::default();
            for page in 0..3000 {
                policy.admit(0, page, (page % 3 == 0).then_some(7));
            }
            policy.see();
            policy.cleared(&[]);
            for page in 3000..4000 {
                policy.admit(1, page, None);
            }
            policy.refuse(2, 5000);
            policy
        };
        for one_in in [1, 2, 7] {
            let mut policy = filled();
            let (stale, left): (Vec<_>, Vec<_>) =
                policy.candidates().into_iter().partition(|it| it.candidate().page.is_multiple_of(one_in));
            let stale = HashSet::from_iter(stale);
            let bytes = policy.bytes();
            policy.forget(&stale);
            assert_eq!(policy.len(), left.len());
            assert!(policy.bytes() * 2 <= bytes || one_in > 1, "{} of {bytes} bytes", policy.bytes());
            let mut expected = all(filled());
            expected.retain(|victim| !stale.contains(&Packed(victim.candidate.pack())));
            let known = |victims: &[Victim]| {
                let mut known: Vec<_> =
                    victims.iter().map(|it| (it.candidate.memory, it.candidate.page, it.is_known)).collect();
                known.sort_unstable();
                known
            };
            assert_eq!(known(&all(policy)), known(&expected));
        }
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
        let refused = |victims: &[Candidate]| victims.iter().filter(|victim| victim.page < 100).count();
        let victims: Vec<_> = std::iter::from_fn(|| victim(&mut policy)).collect();
        assert_eq!(refused(&victims[..1280]), 20);
        let seldom = refused(&victims);
        assert_eq!(victims.len() - seldom, 2000);
        assert!(seldom < 40, "{seldom} with nothing else");
        policy.try_refused(50);
        let some = std::iter::from_fn(|| victim(&mut policy)).count();
        assert!((50..60).contains(&some), "{some} when asked for");
        policy.try_refused(50);
        let others = std::iter::from_fn(|| victim(&mut policy)).count();
        assert_eq!((seldom + some + others, policy.len()), (100, 0), "none is forgotten");
    }

    /// Pages that are of the same group: those that follow.
    fn following() -> impl Iterator<Item = u64> {
        (0..).filter(|page| Group::of(0, *page) == Group::Following)
    }

    #[test]
    fn what_is_wanted_back_soon_outlives_a_scan() {
        let mut policy = Policy::default();
        let mut pages = following();
        let soon: Vec<u64> = pages.by_ref().take(100).collect();
        for page in &soon {
            policy.admit(0, *page, Some(3));
        }
        let mut gone = 0;
        for page in pages.take(4000) {
            policy.admit(0, page, None);
            if policy.len() > 200 {
                gone += usize::from(victim(&mut policy).is_some_and(|victim| soon.contains(&victim.page)));
            }
        }
        // The first few came when nothing else was resident: three evictions were many then.
        assert!(gone <= 4, "{gone} of 100 went");
    }

    /// A memory with room for so many pages, and a policy at work; whether accessed bits are seen.
    struct Simulated {
        policy: Policy,
        room: usize,
        sees: bool,
        /// Each with its accessed bit.
        resident: std::collections::HashMap<u64, bool>,
        left_at: std::collections::HashMap<u64, u32>,
        evictions: u32,
    }

    impl Simulated {
        fn new(room: usize, sees: bool) -> Simulated {
            let mut policy = Policy::default();
            if sees {
                policy.see();
            }
            Simulated {
                policy,
                room,
                sees,
                resident: Default::default(),
                left_at: Default::default(),
                evictions: 0,
            }
        }

        fn evict(&mut self) {
            if self.sees && self.policy.is_blind() {
                let resident = &mut self.resident;
                clear(&mut self.policy, |page| resident[&page]);
                resident.values_mut().for_each(|bit| *bit = false);
            }
            loop {
                let Victim { candidate, is_known } = self.policy.victim().expect("pages are resident");
                assert!(self.sees || !is_known);
                if is_known && self.resident[&candidate.page] {
                    self.policy.used(1, &[candidate]);
                    continue;
                }
                assert!(self.resident.remove(&candidate.page).is_some(), "it goes once");
                self.evictions += 1;
                self.left_at.insert(candidate.page, self.evictions);
                return;
            }
        }

        /// Touches pages. Returns how many of a thousand were not there.
        fn touch(&mut self, pages: impl Iterator<Item = u64>) -> usize {
            let (mut touches, mut missed) = (0, 0);
            for page in pages {
                touches += 1;
                if let Some(bit) = self.resident.get_mut(&page) {
                    *bit = true;
                    continue;
                }
                missed += 1;
                if self.resident.len() == self.room {
                    self.evict();
                }
                let age = self.left_at.remove(&page).map(|left| self.evictions - left);
                self.policy.admit(0, page, age);
                self.resident.insert(page, true);
            }
            assert_eq!(self.resident.len(), self.policy.len());
            missed * 1000 / touches
        }
    }

    /// Loops over more than there is find again what stays; what is used most is in memory soon after that changes.
    #[test]
    fn loops_find_what_stays_and_new_pages_their_place() {
        for sees in [false, true] {
            let mut memory = Simulated::new(4000, sees);
            for (pages, most) in [(4500, 400), (6000, 650), (10000, 800)] {
                let mut around = || memory.touch((0..pages).cycle().take(pages as usize * 4));
                around();
                let missed = around();
                assert!(missed < most, "{missed} of 1000 in a loop over {pages}, seeing: {sees}");
            }
            // Another 3000 pages over and over: they fit.
            memory.touch((100_000..103_000).cycle().take(60_000));
            let missed = memory.touch((100_000..103_000).cycle().take(60_000));
            assert!(missed < 20, "{missed} of 1000 although there is room, seeing: {sees}");
        }
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
        let pages: Vec<u64> = following().take(21).collect();
        for (at, page) in pages[..10].iter().enumerate() {
            // Wanted back soon or not.
            policy.admit(0, *page, (at % 2 == 0).then_some(0));
        }
        policy.see();
        assert!(policy.is_blind(), "all of them came before the bits were ever cleared");
        clear(&mut policy, |_| panic!("nothing is known"));
        assert!(!policy.is_blind());
        for page in &pages[10..19] {
            assert!(!policy.is_blind());
            policy.admit(0, *page, Some(0));
        }
        assert!(policy.is_blind(), "half of them came since");
        clear(&mut policy, |page| page < pages[4]);
        for page in &pages[19..] {
            policy.admit(0, *page, None);
        }
        let order: Vec<_> = std::iter::from_fn(|| policy.victim()).collect();
        let known = order.iter().filter(|victim| victim.is_known).map(|victim| victim.candidate.page);
        let mut known: Vec<_> = known.collect();
        assert_eq!(
            order.iter().skip(known.len()).map(|victim| victim.candidate.page).collect::<Vec<_>>(),
            pages[19..]
        );
        assert_eq!(known[6..15], pages[10..19], "these came before the bits were cleared");
        known[..6].sort_unstable();
        known[15..].sort_unstable();
        assert_eq!((&known[..6], &known[15..]), (&pages[4..10], &pages[..4]));
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

    /// Nothing is lost when bits cannot be seen any more in the middle of everything, and nothing is taken for known then.
    #[test]
    fn what_was_seen_goes_on_blind() {
        let mut policy = Policy::default();
        let mut there = std::collections::BTreeSet::new();
        policy.see();
        for page in 0..20_000u64 {
            policy.admit(0, page, (page % 5 == 0).then_some(20));
            there.insert(page);
            if policy.len() > 3000 {
                let Victim { candidate, is_known } = policy.victim().expect("there are many");
                if is_known && candidate.page % 3 == 0 {
                    policy.used(1, &[candidate]);
                } else {
                    there.remove(&candidate.page);
                }
            }
            if policy.is_blind() {
                clear(&mut policy, |page| page % 3 == 0);
            }
        }
        policy.see_no_more();
        assert!(!policy.is_blind());
        assert_eq!(policy.len(), there.len());
        for _ in 0..there.len() {
            let victim = policy.victim().expect("as many as there are");
            assert!(!victim.is_known);
            assert!(there.remove(&victim.candidate.page), "{} goes once", victim.candidate.page);
        }
        assert_eq!(policy.victim(), None);
    }

    /// The pages of a program that is stopped are not all that is ever tried: of the others no more than a twentieth of all is left.
    #[test]
    fn what_cannot_go_now_keeps_nothing_else() {
        for sees in [false, true] {
            let mut policy = Policy::default();
            if sees {
                policy.see();
            }
            const STOPPED: u64 = 10_000;
            const OTHERS: u64 = 5000;
            for page in 0..STOPPED {
                policy.admit(0, page, None);
            }
            for page in 0..OTHERS {
                policy.admit(1, page, Some(0));
            }
            let mut tried = 0;
            let mut left = OTHERS;
            while left > (STOPPED + OTHERS) / 20 {
                tried += 1;
                assert!(tried < 2 * (STOPPED + OTHERS), "{left} of the others are left, seeing: {sees}");
                match policy.victim().expect("there are many").candidate {
                    candidate if candidate.memory == 0 => policy.put_back(candidate),
                    _ => left -= 1,
                }
            }
            assert_eq!(policy.len() as u64, STOPPED + left);
        }
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
