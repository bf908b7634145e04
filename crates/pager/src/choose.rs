//! Choosing what leaves: the policy's victims, less those that are seen to be in use, a batch of one memory at a time.
//!
//! What it trades: to clear accessed bits the kernel walks over all anonymous pages of a process (80 ns each, 6.18) and lets
//! no fault of it be served meanwhile. So it is never done for more than a thirtieth of the time, and where programs are so large
//! that it would take too long at once, their accessed bits are not looked at any more.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use agent::protocol::BATCH;

use crate::Shared;
use crate::accessed::Accessed;
use crate::memory::Memory;
use crate::policy::Candidate;
use crate::table::{Page, State};

/// Times that victims are asked for again because they were in use. Where all of them are, some have to go.
const ROUNDS: usize = 16;

/// After the bits were cleared, the least time to the next time, in times of what it took.
const PAUSE: u32 = 32;

/// Resident pages of all programs above which bits are not cleared any more: they would stand still for 50 ms.
pub(crate) const MOST_RESIDENT: usize = 600_000;

/// What became of a candidate.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    /// It is none any more: its memory ended, or its page left, or came again and is another candidate.
    Gone,
    Unused,
    Used,
}

/// Candidates between the policy's queues and a batch.
pub(crate) struct Chooser {
    shared: Arc<Shared>,
    next: Vec<Candidate>,
    clear_after: Option<Instant>,
}

impl Chooser {
    pub(crate) fn new(shared: Arc<Shared>) -> Chooser {
        Chooser { shared, next: Vec::new(), clear_after: None }
    }

    /// This one again, as soon as can be.
    pub(crate) fn again(&mut self, candidate: Candidate) {
        self.next.push(candidate);
    }

    /// Candidates of one memory, at most so many. Stale ones are among them.
    pub(crate) fn choose(&mut self, most: usize) -> Option<(Option<Arc<Memory>>, Vec<Candidate>)> {
        self.fill();
        let number = self.next.first()?.memory;
        let (mut chosen, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.next).into_iter().partition(|candidate| candidate.memory == number);
        self.next = rest;
        if chosen.len() > most {
            let more = chosen.split_off(most);
            self.next.splice(0..0, more);
        }
        Some((self.shared.books.lock().memory(number), chosen))
    }

    /// Enough for a batch even if a few memories take turns.
    fn fill(&mut self) {
        let shared = self.shared.clone();
        let accessed = shared.accessed.get().and_then(|accessed| accessed.as_ref().ok());
        let accessed = accessed.filter(|_| !shared.too_large.load(Relaxed));
        for round in 0..=ROUNDS {
            let mut books = self.shared.books.lock();
            let wanted = (2 * BATCH).saturating_sub(self.next.len());
            let victims: Vec<_> = std::iter::from_fn(|| books.policy.victim()).take(wanted).collect();
            let is_blind = books.policy.is_blind();
            drop(books);
            if victims.is_empty() {
                break;
            }
            let Some(accessed) = accessed.filter(|_| round < ROUNDS) else {
                self.next.extend(victims.iter().map(|victim| victim.candidate));
                break;
            };
            let mut known = Vec::new();
            for victim in victims {
                let next = if victim.is_known { &mut known } else { &mut self.next };
                next.push(victim.candidate);
            }
            let unused = self.spare(&accessed.lock(), known);
            self.next.extend(unused);
            if is_blind {
                self.clear(&accessed.lock());
            }
        }
    }

    /// Those that are there and were not used, as far as that can be seen; the policy is told of the others.
    fn spare(&self, accessed: &Accessed, known: Vec<Candidate>) -> Vec<Candidate> {
        let mut places: HashMap<u32, Vec<usize>> = HashMap::new();
        for (at, candidate) in known.iter().enumerate() {
            places.entry(candidate.memory).or_default().push(at);
        }
        let mut fates = vec![Fate::Gone; known.len()];
        let mut looked = 0;
        for (number, mut places) in places {
            let Some(memory) = self.shared.books.lock().memory(number) else { continue };
            let inner = memory.inner.lock();
            places.retain(|&at| inner.table.get(known[at].page) == State::Resident(known[at].stamp));
            drop(inner);
            places.iter().for_each(|&at| fates[at] = Fate::Unused);
            let Some(proc) = memory.proc.get().filter(|proc| proc.is_cleared()) else { continue };
            looked += places.len();
            let pages: Vec<Page> = places.iter().map(|&at| known[at].page).collect();
            accessed.used(proc.pid(), &pages, |at| fates[places[at]] = Fate::Used);
        }
        let with = |wanted: Fate| {
            let fates = known.iter().zip(&fates);
            fates.filter(move |(_, fate)| **fate == wanted).map(|(candidate, _)| *candidate)
        };
        let used: Vec<_> = with(Fate::Used).collect();
        self.shared.counters.spared_pages.add(used.len());
        self.shared.books.lock().policy.used(looked, &used);
        with(Fate::Unused).collect()
    }

    /// Looks at what is known, and clears the bits.
    fn clear(&mut self, accessed: &Accessed) {
        if self.clear_after.is_some_and(|after| Instant::now() < after) {
            return;
        }
        let memories = self.shared.books.lock().memories();
        let resident: usize = memories.iter().map(|memory| memory.inner.lock().resident).sum();
        if resident > MOST_RESIDENT {
            self.shared.too_large.store(true, Relaxed);
            self.shared.books.lock().policy.see_no_more();
            return;
        }
        let known = self.shared.books.lock().policy.take_known();
        let unused = self.spare(accessed, known);
        let begun = Instant::now();
        memories.iter().filter_map(|memory| memory.proc.get()).for_each(|proc| proc.clear_accessed());
        self.clear_after = Some(Instant::now() + begun.elapsed() * PAUSE);
        self.shared.books.lock().policy.cleared(&unused);
        self.shared.counters.accessed_clears.add(1);
    }
}

/// Candidates beyond twice those that there can be, from which on it is looked for those that are none any more.
const MOST_STALE: usize = 1 << 14;
/// Looked at in one hold of a memory's lock.
const AT_ONCE: usize = 1 << 12;

impl Shared {
    /// Has the policy forget candidates that are none any more, when they are more than the others. A program that gives its memory
    /// up and takes it again, and never reaches its cap, makes nothing but such.
    pub(crate) fn sweep_candidates(&self) {
        let resident = || {
            let memories = self.books.lock().memories();
            memories.iter().map(|memory| memory.inner.lock().resident).sum::<usize>()
        };
        let queued = self.books.lock().policy.len();
        if queued <= MOST_STALE || queued - MOST_STALE <= 2 * resident() {
            return;
        }
        let mut stale = HashSet::new();
        let mut candidates = self.books.lock().policy.candidates();
        // Not under the lock: faults wait for that.
        candidates.sort_unstable();
        for of_one in candidates.chunk_by(|one, other| one.candidate().memory == other.candidate().memory) {
            let memory = of_one.first().and_then(|it| self.books.lock().memory(it.candidate().memory));
            for some in of_one.chunks(AT_ONCE) {
                let inner = memory.as_ref().map(|memory| memory.inner.lock());
                let is_there = |it: Candidate| {
                    inner.as_ref().is_some_and(|inner| inner.table.get(it.page) == State::Resident(it.stamp))
                };
                stale.extend(some.iter().filter(|it| !is_there(it.candidate())));
            }
        }
        drop(candidates);
        self.books.lock().policy.forget(&stale);
    }
}
