//! What lies around a page that is wanted, and how much of it to bring in with it.
//!
//! Programs seldom go over their memory page by page, as [`crate::stream`] finds them doing: an allocator deals out pages by size of
//! object, a tree is walked from its end. What they use together still lies together, and the more pages of a region were wanted
//! of late, the surer the others are. How sure, is measured: of every sixteenth region of 64 pages nothing is brought in before it
//! is wanted, and what was wanted there soon is counted. Everywhere else a page comes with its block of the largest size of which at
//! least two of five pages are wanted, where as many pages of its region were wanted before.
//!
//! What it trades: a fault for each page of the regions that are watched. What it can never do: bring in more than
//! three fifths in vain for long.

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
/// The share of them that must be wanted, in percent. With 50, python in half of what it takes had 72 000 faults and took 5.0 s; with
/// 40, 42 000 and 4.8 s; with 33, 26 000 and 5.1 s, because what came in vain has to leave again.
const WORTH_PERCENT: u32 = 40;
/// From so many on, what was seen before counts half.
const MOST: u32 = 2048;

/// A region since a page of it was wanted.
#[derive(Clone, Copy)]
struct Visit {
    region: Page,
    begun: u32,
    /// Faults there, one at least, and the pages that the first of them wanted.
    faults: usize,
    first: [u32; FAULTS],
    /// Of a watched region: what was out at first, and what of it was wanted since.
    out: u64,
    wanted: u64,
}

/// Pages around those that were wanted, and those of them that were wanted later.
#[derive(Clone, Copy, Default)]
struct Seen {
    out: u32,
    wanted: u32,
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
    /// What to bring in when `page` is wanted, which is out, as others are of which `is_out` says so. All of it is in one region, and
    /// some may not be out.
    pub(crate) fn of(&mut self, page: Page, is_out: impl Fn(Page) -> bool) -> Range<Page> {
        let is_watched = is_watched(page / REGION);
        let faults = self.visit(page, is_watched, is_out);
        let is_worth = |seen: &Seen| seen.out >= LEAST && seen.wanted * 100 >= seen.out * WORTH_PERCENT;
        let seen = &self.seen[faults.min(FAULTS) - 1];
        let size = match seen.iter().rposition(is_worth) {
            Some(at) if !is_watched => size_of_block(at),
            _ => 1,
        };
        let start = page - page % size;
        start..start + size
    }

    /// So many pages came in.
    pub(crate) fn came(&mut self, pages: usize) {
        self.came = self.came.wrapping_add(pages as u32);
    }

    /// Notes a fault. Returns how many there were in the region of late.
    fn visit(&mut self, page: Page, is_watched: bool, is_out: impl Fn(Page) -> bool) -> usize {
        let now = self.came;
        while let Some(oldest) = self.visits.front()
            && (self.visits.len() == VISITS || now.wrapping_sub(oldest.begun) > SOON)
            && let Some(oldest) = self.visits.pop_front()
        {
            self.count(&oldest);
        }
        let (region, at) = (page / REGION, (page % REGION) as u32);
        if let Some(visit) = self.visits.iter_mut().rev().find(|visit| visit.region == region) {
            if let Some(first) = visit.first.get_mut(visit.faults) {
                *first = at;
            }
            visit.faults += 1;
            visit.wanted |= 1 << at;
            return visit.faults;
        }
        let first = region * REGION;
        let out = match is_watched {
            true => (0..REGION).filter(|at| is_out(first + at)).fold(0, |out, at| out | 1 << at),
            false => 0,
        };
        let visit = Visit { region, begun: now, faults: 1, first: [at; FAULTS], out, wanted: 1 << at };
        self.visits.push_back(visit);
        1
    }

    fn count(&mut self, visit: &Visit) {
        let mut before = 0;
        for (first, seen) in visit.first.iter().take(visit.faults).zip(&mut self.seen) {
            before |= 1 << first;
            for (at, seen) in seen.iter_mut().enumerate() {
                let size = size_of_block(at);
                let block = (u64::MAX >> (REGION - size)) << (u64::from(*first) / size * size);
                let others = visit.out & block & !before;
                seen.out += others.count_ones();
                seen.wanted += (others & visit.wanted).count_ones();
                if seen.out > MOST {
                    (seen.out, seen.wanted) = (seen.out / 2, seen.wanted / 2);
                }
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

    /// Programs that use some pages of each region, in some order: how many pages come with one, at the end.
    fn brought(order: impl Fn(u64) -> Page) -> f64 {
        let mut around = Around::default();
        let mut faults = 0;
        let mut pages = 0;
        for at in 0..100_000 {
            let page = order(at);
            let wanted = around.of(page, |_| true);
            assert!(wanted.contains(&page) && wanted.start / REGION == (wanted.end - 1) / REGION);
            assert!(!is_watched(page / REGION) || wanted == (page..page + 1));
            let came = wanted.end - wanted.start;
            around.came(came as usize);
            if at > 50_000 {
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
        assert!(brought(backwards) > 50.0);
        // Four neighbours here, four there.
        let fours = brought(|at| random(at / 4) % 1_000_000 * 4 + at % 4);
        assert!((3.0..5.0).contains(&fours), "{fours}");
    }

    #[test]
    fn where_pages_are_used_at_random_they_come_alone() {
        assert!(brought(|at| random(at) % 1_000_000) < 1.1);
        // One of each region.
        assert!(brought(|at| at * REGION + random(at) % REGION) < 1.1);
    }
}
