//! Changes of a memory that are heard of in another order than they happened in.
//!
//! The kernel tells of a move or an unmapping when it is done and the memory's lock let go, and of a move in two steps: that it
//! was, and, once that has been read, that the old place is unmapped (mm/mremap.c, fs/userfaultfd.c; kernel 6.18). Meanwhile another
//! thread may be given the place, and that can be heard first. Then two contents belong to the same addresses, and what is heard
//! next is about the older one.
//!
//! As long as something is unheard the kernel refuses to take pages or to put any (EAGAIN). So what the books say in between does no
//! harm; when all has been heard they have to be right. What is kept here is of that time, and goes when it ends.

use std::ops::Range;

use crate::table::{Page, State, page_of};

/// Addresses of which something is still to be heard that is older than what the books have there.
pub(crate) struct Older {
    place: Range<u64>,
    /// What was there, and was not heard of as gone. `None`: it was moved away, and the place is yet to be unmapped.
    pub(crate) pages: Option<Vec<(Page, State)>>,
}

impl Older {
    fn part(&self, place: Range<u64>) -> Older {
        let is_in = |page: &Page| (page_of(place.start)..page_of(place.end)).contains(page);
        let pages = self.pages.as_ref();
        let pages = pages.map(|pages| pages.iter().filter(|(page, _)| is_in(page)).copied().collect());
        Older { place, pages }
    }
}

/// All of a memory, the oldest first.
#[derive(Default)]
pub(crate) struct Overtaken(Vec<Older>);

impl Overtaken {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was at `place` is elsewhere now, and that it is unmapped is heard soon.
    pub(crate) fn left(&mut self, place: Range<u64>) {
        self.0.push(Older { place, pages: None });
    }

    /// Something else is at `place` now, before it was heard what became of `pages`.
    pub(crate) fn replaced(&mut self, place: Range<u64>, pages: Vec<(Page, State)>) {
        self.0.push(Older { place, pages: Some(pages) });
    }

    /// What an unmapping of `range` is about: the parts of it of which nothing older is known, and what is older.
    pub(crate) fn unmapped(&mut self, range: Range<u64>) -> (Vec<Range<u64>>, Vec<Older>) {
        self.take(range, |_| true)
    }

    /// What a move from `range` is about, likewise: what has been moved away is not moved again.
    pub(crate) fn moved(&mut self, range: Range<u64>) -> (Vec<Range<u64>>, Vec<Older>) {
        self.take(range, |older| older.pages.is_some())
    }

    /// All was heard.
    pub(crate) fn settle(&mut self) -> Vec<Older> {
        std::mem::take(&mut self.0)
    }

    /// Takes the oldest of each address in `range`, of those that may be meant.
    fn take(
        &mut self,
        range: Range<u64>,
        may_be_meant: impl Fn(&Older) -> bool,
    ) -> (Vec<Range<u64>>, Vec<Older>) {
        let (mut rest, mut taken, mut kept) = (vec![range], Vec::new(), Vec::new());
        for older in std::mem::take(&mut self.0) {
            if !may_be_meant(&older) {
                kept.push(older);
                continue;
            }
            let mut untouched = vec![older.place.clone()];
            for piece in std::mem::take(&mut rest) {
                let both = piece.start.max(older.place.start)..piece.end.min(older.place.end);
                if both.is_empty() {
                    rest.push(piece);
                    continue;
                }
                rest.extend(without(&piece, &both));
                untouched = untouched.iter().flat_map(|place| without(place, &both)).collect();
                taken.push(older.part(both));
            }
            kept.extend(untouched.into_iter().map(|place| older.part(place)));
        }
        self.0 = kept;
        (rest, taken)
    }
}

/// `range` without `hole`: what is before it and what is behind it.
fn without(range: &Range<u64>, hole: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
    let before = range.start..range.end.min(hole.start);
    let behind = range.start.max(hole.end)..range.end;
    [before, behind].into_iter().filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 4096;

    /// Numbers of pages.
    fn numbers(ranges: Vec<Range<u64>>) -> Vec<(u64, u64)> {
        ranges.into_iter().map(|range| (range.start / SIZE, range.end / SIZE)).collect()
    }

    fn pages(taken: Vec<Older>) -> Vec<Option<Vec<Page>>> {
        taken
            .into_iter()
            .map(|older| older.pages.map(|pages| pages.iter().map(|it| it.0).collect()))
            .collect()
    }

    #[test]
    fn the_oldest_is_meant() {
        let mut overtaken = Overtaken::default();
        // Moved away from 0 to 4; what came there then was moved over, before it was heard that it had gone.
        overtaken.left(0..4 * SIZE);
        overtaken.replaced(0..4 * SIZE, (0..4).map(|page| (page, State::Slot(7))).collect());
        let (rest, taken) = overtaken.unmapped(0..4 * SIZE);
        assert!(rest.is_empty());
        assert_eq!(pages(taken), [None]);
        let (rest, taken) = overtaken.unmapped(SIZE..6 * SIZE);
        assert_eq!(numbers(rest), [(4, 6)]);
        assert_eq!(pages(taken), [Some(vec![1, 2, 3])]);
        let (rest, taken) = overtaken.unmapped(0..2 * SIZE);
        assert_eq!(numbers(rest), [(1, 2)]);
        assert_eq!(pages(taken), [Some(vec![0])]);
        assert!(overtaken.is_empty());
    }

    #[test]
    fn what_has_gone_is_not_moved_again() {
        let mut overtaken = Overtaken::default();
        overtaken.left(0..2 * SIZE);
        let (rest, taken) = overtaken.moved(0..2 * SIZE);
        assert_eq!(numbers(rest), [(0, 2)]);
        assert!(taken.is_empty());
        overtaken.replaced(SIZE..3 * SIZE, vec![(1, State::Slot(1)), (2, State::Slot(2))]);
        let (rest, taken) = overtaken.moved(0..2 * SIZE);
        assert_eq!(numbers(rest), [(0, 1)]);
        assert_eq!(pages(taken), [Some(vec![1])]);
        assert_eq!(pages(overtaken.settle()), [None, Some(vec![2])]);
    }
}
