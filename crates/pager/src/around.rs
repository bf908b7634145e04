//! What lies around a page that is wanted, and how much of it to bring in with it.
//!
//! Programs seldom go over their memory page by page, as [`crate::stream`] finds them doing: an allocator deals out pages by size of
//! object, a tree is walked from its end. What they use together still lies together, and the more pages of a region were wanted
//! of late, the surer the others are. How sure, is measured: of every sixteenth region of 64 pages nothing but runs is brought in before it
//! is wanted, and what was wanted there soon is counted. Everywhere else a page comes with its block of the largest size of which at
//! least two fifths are wanted, and two fifths of what a block of half the size has not, where as many pages of its region were wanted
//! before.
//!
//! What it trades: a fault for each page of the regions that are watched, but for those that come with a run. What it can never do:
//! bring in a block around a page of which, where it looked, less than that was wanted.

use std::collections::VecDeque;
use std::ops::Range;

use crate::table::Page;

/// Pages of a region, a bit each in a word; the largest block.
const REGION: Page = 64;
/// The sizes of blocks: from 2 pages on, each twice the last.
const SIZES: usize = 6;
/// One region of so many is watched.
const WATCHED_ONE_IN: u64 = 16;
/// Regions remembered.
const VISITS: usize = 64;
/// Pages wanted of a region that are told apart; so many or more.
const FAULTS: usize = 4;
/// Pages that come in while a region is watched. What was wanted later might have left again.
const SOON: u32 = 1024;
/// Pages that must have been watched before it is known anything.
const LEAST: u32 = 64;
/// The share of them that must be wanted, in percent. A page that comes in vain takes 8 us to bring in and to take out again, a
/// fault that is saved 12 and more; with 33 and 50, python takes more time.
const WORTH_PERCENT: u32 = 40;
/// From so many on, what was seen before counts half.
const MOST: u32 = 8192;

/// A region since a page of it was wanted.
#[derive(Clone, Copy)]
struct Visit {
    region: Page,
    begun: u32,
    /// Faults there, one at least and no more than are told apart, and the pages that the first of them wanted.
    faults: u8,
    first: [u8; FAULTS],
    /// Of a watched region: what was out at first, and what of it was wanted since.
    out: u64,
    wanted: u64,
}

/// Pages around those that were wanted, which are in the block of one size and not in that of the next smaller one, and those of them
/// that were wanted later.
#[derive(Clone, Copy, Default)]
struct Seen {
    out: u32,
    wanted: u32,
}

impl Seen {
    fn add(&mut self, other: Seen) {
        self.out += other.out;
        self.wanted += other.wanted;
    }

    fn is_worth(self) -> bool {
        self.out >= LEAST && self.wanted * 100 >= self.out * WORTH_PERCENT
    }
}

/// That of one memory.
#[derive(Default)]
pub(crate) struct Around {
    /// The oldest first.
    visits: VecDeque<Visit>,
    /// By faults in the region so far, one and more, and size of block.
    seen: [[Seen; SIZES]; FAULTS],
    /// Pages that came in, round and round.
    came: u32,
}

impl Around {
    /// What to bring in when `page` is wanted, which is out, as others are of which `is_out` says so, and comes with all up to `run_end`.
    /// All of it is in one region, and some may not be out.
    pub(crate) fn of(&mut self, page: Page, run_end: Page, is_out: impl Fn(Page) -> bool) -> Range<Page> {
        let is_watched = is_watched(page / REGION);
        let faults = self.visit(page, run_end, is_watched, is_out);
        let size = if is_watched { 1 } else { self.size(faults) };
        let start = page - page % size;
        start..start + size
    }

    /// The largest block that is worth it, and of which the half that the next smaller one has not is.
    fn size(&self, faults: usize) -> Page {
        let mut all = Seen::default();
        let mut size = 1;
        for (at, seen) in self.seen[faults - 1].iter().enumerate() {
            all.add(*seen);
            if seen.is_worth() && all.is_worth() {
                size = size_of_block(at);
            }
        }
        size
    }

    /// So many pages came in.
    pub(crate) fn came(&mut self, pages: usize) {
        self.came = self.came.wrapping_add(pages as u32);
    }

    /// Notes a fault. Returns how many there were in the region of late, of those told apart.
    fn visit(&mut self, page: Page, run_end: Page, is_watched: bool, is_out: impl Fn(Page) -> bool) -> usize {
        let now = self.came;
        let is_old = |visit: &Visit| now.wrapping_sub(visit.begun) > SOON;
        let (region, at) = (page / REGION, (page % REGION) as u8);
        let found = self.visits.iter_mut().rev().find(|visit| visit.region == region && !is_old(visit));
        let visit = match found {
            Some(visit) => {
                if let Some(first) = visit.first.get_mut(usize::from(visit.faults)) {
                    *first = at;
                    visit.faults += 1;
                }
                visit
            }
            None => {
                while let Some(oldest) = self.visits.front()
                    && (self.visits.len() == VISITS || is_old(oldest))
                    && let Some(oldest) = self.visits.pop_front()
                {
                    self.count(&oldest);
                }
                let first = region * REGION;
                let out = match is_watched {
                    true => (0..REGION).filter(|at| is_out(first + at)).fold(0, |out, at| out | 1 << at),
                    false => 0,
                };
                self.visits.push_back(Visit {
                    region,
                    begun: now,
                    faults: 1,
                    first: [at; FAULTS],
                    out,
                    wanted: 0,
                });
                self.visits.back_mut().expect("one was pushed")
            }
        };
        visit.wanted |= 1 << at;
        // What comes with a run would not be wanted again, and comes in any case.
        let behind = (run_end - page - 1).min(REGION - 1 - page % REGION);
        visit.out &= !(((1 << behind) - 1) << at << 1);
        usize::from(visit.faults)
    }

    fn count(&mut self, visit: &Visit) {
        if visit.out == 0 {
            return;
        }
        let mut before = 0;
        for (first, seen) in visit.first.iter().take(visit.faults.into()).zip(&mut self.seen) {
            before |= 1 << first;
            let mut others = visit.out & !before;
            for (at, seen) in seen.iter_mut().enumerate() {
                let size = size_of_block(at);
                let block = (u64::MAX >> (REGION - size)) << (u64::from(*first) / size * size);
                let ring = others & block;
                others &= !block;
                seen.add(Seen { out: ring.count_ones(), wanted: (ring & visit.wanted).count_ones() });
            }
            if seen.iter().any(|seen| seen.out > MOST) {
                seen.iter_mut().for_each(|seen| *seen = Seen { out: seen.out / 2, wanted: seen.wanted / 2 });
            }
        }
    }
}

/// Pages of a block of the size at this place of [`Around::seen`].
fn size_of_block(at: usize) -> Page {
    2 << at
}

fn is_watched(region: Page) -> bool {
    (region.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).is_multiple_of(WATCHED_ONE_IN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that uses pages in some order: how many come with one that is wanted, at the end.
    fn brought(order: impl Fn(u64) -> Page) -> f64 {
        let mut around = Around::default();
        let mut since = std::collections::HashMap::new();
        let (mut faults, mut pages, mut now) = (0, 0, 0);
        for at in 0..200_000 {
            let page = order(at);
            if since.get(&page).is_some_and(|since| now - since < u64::from(SOON)) {
                continue;
            }
            let wanted = around.of(page, page + 1, |page| {
                since.get(&page).is_none_or(|since| now - since >= u64::from(SOON))
            });
            assert!(wanted.contains(&page) && wanted.start / REGION == (wanted.end - 1) / REGION);
            assert!(!is_watched(page / REGION) || wanted == (page..page + 1));
            let came = wanted.end - wanted.start;
            since.extend(wanted.map(|page| (page, now)));
            now += came;
            around.came(came as usize);
            if at > 100_000 && !is_watched(page / REGION) {
                faults += 1;
                pages += came;
            }
        }
        pages as f64 / f64::from(faults)
    }

    fn random(at: u64) -> u64 {
        at.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 20
    }

    #[test]
    fn what_is_used_together_comes_together() {
        // Every page of a region, backwards, region after region at random.
        let backwards = |at: u64| random(at / REGION) % 100_000 * REGION + (REGION - 1 - at % REGION);
        let backwards = brought(backwards);
        assert!(backwards > 50.0, "{backwards}");
        // Four neighbours here, four there.
        let fours = brought(|at| random(at / 4) % 1_000_000 * 4 + at % 4);
        assert!((3.5..=4.0).contains(&fours), "{fours}");
        let twos = brought(|at| random(at / 2) % 1_000_000 * 2 + at % 2);
        assert!((1.8..=2.0).contains(&twos), "{twos}");
        // Every other page.
        let others = brought(|at| random(at / 32) % 100_000 * REGION + at % 32 * 2);
        assert!(others > 30.0, "{others}");
    }

    #[test]
    fn what_comes_with_a_run_says_nothing() {
        let mut around = Around::default();
        // Of each region the first page, and those from the third on in a run: nothing of it is wanted for the first one's sake.
        for region in 0..10_000 {
            let first = region * REGION;
            around.of(first, first + 1, |_| true);
            around.of(first + 2, first + REGION, |page| page > first);
            around.came(64);
        }
        assert_eq!(
            around.size(1),
            4,
            "the second page was not wanted, the third was, the others came with it"
        );
        assert_eq!([2, 3, 4].map(|faults| around.size(faults)), [1, 1, 1]);
    }

    #[test]
    fn where_pages_are_used_at_random_they_come_alone() {
        assert!(brought(|at| random(at) % 1_000_000) < 1.1);
        // One of each region.
        assert!(brought(|at| at * REGION + random(at) % REGION) < 1.1);
    }
}
