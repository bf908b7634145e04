//! The order of age, without a list.
//!
//! Every entry carries a stamp: the number that its area's clock had when it was stored or last given another chance. The
//! order of stamps is the order of the LRU, so joining it, leaving it and moving to its young end are one store to the
//! entry, with no links (the kernel's list takes 16 bytes an entry) and no other entry touched. The price is paid when
//! somebody asks for the oldest: a scan over all stamps picks a batch of them, which is then handed out one by one. The
//! batch is a sixteenth of the entries, so a scan reads 16 stamps for each entry written back.
//!
//! What is handed out is exact: entries stored after the scan are younger than all of the batch, and one that left or
//! moved meanwhile no longer has the stamp it was picked by. A pair of offset and stamp is therefore also the identity
//! that writeback checks again before it acts.
//!
//! The clock wraps. [`Lru::stamp`] says when [`AGE_LIMIT`] could soon be reached, and the area then lifts older stamps to
//! that age: among entries that saw 2^31 later stores go by, order is lost.

use crate::entry::Kind;
use crate::tree::Tree;

/// The oldest age that is told apart, in stamps.
pub(crate) const AGE_LIMIT: u32 = 1 << 31;
/// Stamps between two checks of the limit: half of what is left above it.
const SWEEP_EVERY: u32 = 1 << 30;
const BATCH_SHARE: usize = 16;
const BATCH_MIN: usize = if cfg!(shuttle) { 2 } else { 256 };
const BATCH_MAX: usize = 1 << 16;

/// An entry by identity: if the entry at `offset` still has `stamp`, it is the same one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Candidate {
    pub offset: u32,
    pub stamp: u32,
}

pub(crate) struct Lru {
    clock: u32,
    /// The oldest entries of the last scan, youngest first, so that the oldest is popped.
    batch: Vec<Candidate>,
}

impl Lru {
    pub(crate) fn new() -> Lru {
        Lru::with_clock(0)
    }

    pub(crate) fn with_clock(clock: u32) -> Lru {
        Lru { clock, batch: Vec::new() }
    }

    /// The next stamp, and whether it is time to call [`Lru::sweep`].
    pub(crate) fn stamp(&mut self) -> (u32, bool) {
        self.clock = self.clock.wrapping_add(1);
        (self.clock, self.clock.is_multiple_of(SWEEP_EVERY))
    }

    /// The oldest entry in the pool, as far as the last scan knows: the caller looks whether it still is what it was.
    /// `None`: the tree holds no entry in the pool.
    pub(crate) fn pop_oldest(&mut self, tree: &dyn Tree) -> Option<Candidate> {
        if self.batch.is_empty() {
            self.scan(tree);
        }
        self.batch.pop()
    }

    /// Picks the oldest entries of `tree`.
    fn scan(&mut self, tree: &dyn Tree) {
        let clock = self.clock;
        let want = (tree.len() / BATCH_SHARE).clamp(BATCH_MIN, BATCH_MAX);
        let mut batch = std::mem::take(&mut self.batch);
        // Twice the batch, so that picking the older half is amortised over as many entries. Without memory for that the
        // batch is as large as what there is room for.
        if batch.try_reserve_exact(2 * want).is_err() && batch.capacity() < 2 {
            return;
        }
        let want = want.min(batch.capacity() / 2);
        let older_first = |a: &Candidate, b: &Candidate| {
            clock.wrapping_sub(b.stamp).cmp(&clock.wrapping_sub(a.stamp)).then(a.offset.cmp(&b.offset))
        };
        let mut youngest_kept = 0;
        tree.for_each_stamp(&mut |offset, stamp, meta| {
            if meta.kind() != Kind::Pool || clock.wrapping_sub(stamp) < youngest_kept {
                return;
            }
            batch.push(Candidate { offset, stamp });
            if batch.len() == 2 * want {
                let (_, last, _) = batch.select_nth_unstable_by(want - 1, older_first);
                youngest_kept = clock.wrapping_sub(last.stamp);
                batch.truncate(want);
            }
        });
        batch.sort_unstable_by(older_first);
        batch.truncate(want);
        batch.reverse();
        self.batch = batch;
    }

    /// Lifts every stamp older than [`AGE_LIMIT`] to that age, before the clock comes round to it.
    pub(crate) fn sweep(&mut self, tree: &mut dyn Tree) {
        let floor = self.clock.wrapping_sub(AGE_LIMIT);
        let clock = self.clock;
        loop {
            // In rounds of bounded size, because this runs under the area's lock with no memory set aside for it.
            let mut old = [0; 256];
            let mut found = 0;
            tree.for_each_stamp(&mut |offset, stamp, _| {
                if found < old.len() && clock.wrapping_sub(stamp) > AGE_LIMIT {
                    old[found] = offset;
                    found += 1;
                }
            });
            for &offset in &old[..found] {
                tree.update(offset, &mut |entry| entry.stamp = floor);
            }
            if found < old.len() {
                break;
            }
        }
        self.batch.clear();
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.batch.capacity() * size_of::<Candidate>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Entry, What};
    use crate::tree::{TreeKind, make};

    fn entry(stamp: u32) -> Entry {
        let handle = zpool::Handle::from_raw(1).unwrap();
        Entry { what: What::Pool { pool: 0, handle, len: 1, checksum: 0 }, referenced: false, stamp }
    }

    /// Stores, removals and second chances in any order, with the clock about to wrap: what is handed out is what a list
    /// would hand out.
    #[test]
    fn hands_out_what_a_list_would() {
        for kind in TreeKind::ALL {
            let mut tree = make(kind);
            let mut lru = Lru::with_clock(u32::MAX - 3000);
            let mut list = std::collections::VecDeque::new();
            let mut seed = 7u64;
            let mut random = |below: u64| {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (seed >> 33) % below
            };
            for _ in 0..20_000 {
                match random(4) {
                    0 => {
                        while let Some(candidate) = lru.pop_oldest(&*tree) {
                            if tree.get(candidate.offset).is_some_and(|entry| entry.stamp == candidate.stamp)
                            {
                                assert_eq!(Some(candidate.offset), list.pop_front());
                                tree.remove(candidate.offset);
                                break;
                            }
                        }
                    }
                    1 => {
                        let offset = random(3000) as u32;
                        tree.remove(offset);
                        list.retain(|&it| it != offset);
                    }
                    _ => {
                        let offset = random(3000) as u32;
                        let (stamp, sweep) = lru.stamp();
                        tree.insert(offset, entry(stamp)).unwrap();
                        list.retain(|&it| it != offset);
                        list.push_back(offset);
                        if sweep {
                            lru.sweep(&mut *tree);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_sweep_keeps_the_oldest_oldest() {
        let mut tree = make(TreeKind::Radix);
        for offset in 0..1000 {
            tree.insert(offset, entry(offset)).unwrap();
        }
        let mut lru = Lru::with_clock(AGE_LIMIT + 600);
        lru.sweep(&mut *tree);
        let mut lifted = 0;
        tree.for_each(&mut |offset, entry| {
            lifted += usize::from(entry.stamp != offset);
            assert!(entry.stamp >= 600);
        });
        assert_eq!(lifted, 600);
        assert!(lru.pop_oldest(&*tree).unwrap().offset <= 600);
    }
}
