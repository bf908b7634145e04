//! Finding pages that nobody told us of.
//!
//! The kernel puts a program's new mappings beside the registered ones, and says nothing; and where a page of zeros was given out,
//! the first write to it is the kernel's own affair. Both show as anonymous memory that is not known page by page, and then the
//! program's mappings are looked through: first those that are not registered, which takes as long as there are new ones, and
//! everything only where that does not explain it, which takes milliseconds.
//!
//! What it can never do: enter a range that is not registered for certain; its pages would be moved out, and read as zeros.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use zswap::PAGE_SIZE;

use crate::Shared;
use crate::link::{self, Process};
use crate::memory::{Inner, Memory};
use crate::proc::Mapping;
use crate::table::{State, page_of};

/// How long after a page was given up it is sure that the kernel dropped it. The kernel tells before it drops, with no
/// word afterwards; all it does in between is to take a lock.
pub(crate) const REMOVAL: Duration = Duration::from_secs(10);

/// Mappings smaller than this are left alone at first: each registered one is a mapping of its own for the kernel.
const SMALL: u64 = 16 * PAGE_SIZE as u64;
/// Between two looks whether processes have answered.
const WELCOME_PAUSE: Duration = Duration::from_micros(100);
/// Bytes looked through in one hold of a memory's lock.
const LOOK: u64 = 64 << 20;

/// How much is looked through.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Depth {
    /// What is not registered: new mappings.
    New,
    /// What is registered too: pages of zeros that were written to, and what a forked child brought with it.
    Known,
    /// And small mappings.
    Small,
}

impl Shared {
    /// Memory that nobody told us of grows without waiting for us: it must be found before it is too much.
    pub(crate) fn find_unknown(self: &Arc<Self>) {
        let is_much = || self.unknown_bytes() > self.budget.step();
        if !is_much() {
            return;
        }
        // It may be what the last batch left in a staging area, which its agent empties meanwhile.
        let staged = self.staged_bytes();
        self.measure();
        let is_much = || self.unknown_bytes() > self.budget.step() + staged;
        for depth in [Depth::New, Depth::Known] {
            if !is_much() {
                return;
            }
            self.discover(depth);
        }
        if self.unmanageable.load(Relaxed) > self.budget.cap() / 16 {
            // It is in many small mappings.
            self.discover(Depth::Small);
        }
    }

    /// Anonymous memory of the managed processes that is not known page by page.
    fn unknown_bytes(&self) -> u64 {
        let memories = self.books.lock().memories();
        let known: usize = memories.iter().map(|memory| memory.inner.lock().resident).sum();
        // What was looked at and cannot be managed is not looked for again.
        let given_up = self.unmanageable.load(Relaxed);
        self.budget.anonymous().saturating_sub((known * PAGE_SIZE) as u64 + given_up)
    }

    /// What lies in the staging areas.
    fn staged_bytes(&self) -> u64 {
        let memories = self.books.lock().memories();
        let mut staged = 0;
        for memory in memories {
            if let Some(proc) = memory.proc.get()
                && let Some(hands) = &*memory.hands.lock()
            {
                let (start, end) = hands.staging();
                // Of one that is ending it is not worth knowing.
                let _ = proc.mapped(start, end, |_, pages| staged += pages * PAGE_SIZE as u64);
            }
        }
        staged
    }

    /// Finds resident pages that no fault told us of, registers where they are, and queues them. Returns how many.
    pub(crate) fn discover(self: &Arc<Self>, depth: Depth) -> usize {
        self.counters.searches.add(1);
        let mut processes: Vec<_> = self
            .processes
            .lock()
            .iter()
            .filter_map(|process| Some((process.proc.resident()?.anonymous, process.clone())))
            .filter(|(anonymous, _)| *anonymous >= SMALL)
            .collect();
        processes.sort_unstable_by_key(|(anonymous, _)| std::cmp::Reverse(*anonymous));
        let mut unseen = Vec::new();
        let mut is_any_new = false;
        let begun_with = self.budget.anonymous();
        self.manage_all(processes, |anonymous, process, memory| {
            let known = {
                let inner = memory.inner.lock();
                is_any_new |= inner.kept.is_none();
                (inner.resident * PAGE_SIZE) as u64
            };
            // What is known is most of what there is: nothing to be found but what cannot be moved.
            if anonymous.saturating_sub(known) > SMALL || depth == Depth::Small {
                let mappings = self.take_in(&memory, &process, depth);
                unseen.push((memory, process, mappings));
            }
        });
        let mut found = 0;
        for (memory, process, mappings) in unseen {
            if self.stopping.load(Relaxed) {
                break;
            }
            found += self.look_through(&memory, &process, &mappings);
        }
        if is_any_new {
            // Before anything of it can leave, which is not before who asked for this moves it; and not before it is registered, since
            // this may take as long as a program takes to grow by megabytes.
            self.keep_for_the_kernel();
        }
        if (found * PAGE_SIZE) as u64 > SMALL {
            self.budget.found_unseen();
        }
        if depth > Depth::New {
            self.unmanageable.store(0, Relaxed);
            let grown = self.budget.anonymous().saturating_sub(begun_with);
            let rest = self.unknown_bytes().saturating_sub(grown + self.staged_bytes());
            self.unmanageable.store(rest, Relaxed);
        }
        found
    }

    /// Manages processes, and tells `each` of them, by who answers first: all grow meanwhile, and on busy CPUs one may take long.
    fn manage_all(
        self: &Arc<Self>,
        processes: Vec<(u64, Arc<Process>)>,
        mut each: impl FnMut(u64, Arc<Process>, Arc<Memory>),
    ) {
        processes.iter().for_each(|(_, process)| link::ask(self, process));
        let mut left = processes;
        loop {
            left.retain(|(anonymous, process)| {
                if let Some(memory) = link::manage(self, process) {
                    each(*anonymous, process.clone(), memory);
                    return false;
                }
                process.is_to_answer()
            });
            if left.is_empty() {
                return;
            }
            std::thread::sleep(WELCOME_PAUSE);
        }
    }

    /// Registers mappings, and says which are to be looked through.
    fn take_in(&self, memory: &Memory, process: &Process, depth: Depth) -> Vec<Mapping> {
        let mut mappings = Vec::new();
        if process.proc.mappings(|mapping| mappings.push(mapping)).is_err() {
            return Vec::new();
        }
        mappings.retain(|mapping| mapping.end - mapping.start >= SMALL || depth == Depth::Small);
        {
            let hands = memory.hands.lock();
            let is_own =
                |mapping: &Mapping| hands.as_ref().is_none_or(|hands| hands.owns(mapping.start, mapping.end));
            mappings.retain(|mapping| !is_own(mapping));
        }
        if depth == Depth::New {
            let inner = memory.inner.lock();
            mappings.retain(|mapping| !inner.unregistered(mapping.start, mapping.end).is_empty());
        }
        if mappings.is_empty() {
            return mappings;
        }
        let locked = process.proc.locked();
        mappings.retain(|mapping| {
            !locked.iter().any(|lock| lock.start < mapping.end && mapping.start < lock.end)
        });
        mappings.retain(|mapping| {
            // One that nothing is in is not worth it.
            let has_pages = matches!(process.proc.first_present(mapping.start, mapping.end), Ok(Some(_)));
            has_pages && self.is_registered(memory, &mut memory.inner.lock(), process, *mapping)
        });
        mappings
    }

    /// Whether all of a mapping is registered, as far as it can be now.
    fn is_registered(&self, memory: &Memory, inner: &mut Inner, process: &Process, mapping: Mapping) -> bool {
        let Mapping { start, end } = mapping;
        // An event that was read and waits for the batch: until it is applied, the table is older than the mappings, and a
        // mapping that is new where another was moved away would be taken for that.
        if inner.draining
            || inner.events_wait
            || inner.blind_until.is_some_and(|until| Instant::now() < until)
        {
            return false;
        }
        inner.unregistered(start, end).is_empty() || self.register(memory, inner, process, start, end)
    }

    /// Queues what is present in mappings. Returns how many pages.
    fn look_through(&self, memory: &Memory, process: &Process, mappings: &[Mapping]) -> usize {
        let mut found = 0;
        for mapping in mappings {
            let mut from = mapping.start;
            // Without the lock, to know what it is worth taking for: terabytes may be reserved, and a few pages used.
            while let Ok(Some(first)) = process.proc.first_present(from, mapping.end) {
                let to = mapping.end.min(first.saturating_add(LOOK));
                let Some(fresh) = self.look(memory, process, *mapping, first, to) else { break };
                found += fresh;
                from = to;
            }
        }
        found
    }

    /// Queues what is present in a part of a mapping, and says how much that is. `None`: it is not registered, or cannot be looked through now.
    fn look(
        &self,
        memory: &Memory,
        process: &Process,
        mapping: Mapping,
        from: u64,
        to: u64,
    ) -> Option<usize> {
        let mut inner = memory.inner.lock();
        // What was registered may be gone, or events of it be unread.
        if !self.is_registered(memory, &mut inner, process, mapping) {
            return None;
        }
        let now = self.seconds();
        let mut fresh = Vec::new();
        let _ = process.proc.present(from, to, |address, pages| {
            for page in page_of(address)..page_of(address) + pages {
                let is_new = match inner.table.get(page) {
                    State::Unknown => true,
                    State::Removed(at) => u64::from(now.wrapping_sub(at)) > REMOVAL.as_secs(),
                    _ => false,
                };
                if is_new {
                    fresh.push(page);
                }
            }
        });
        let mut books = self.books.lock();
        for &page in &fresh {
            let stamp = books.policy.admit(memory.number, page, None);
            inner.table.set(page, State::Resident(stamp));
        }
        inner.resident += fresh.len();
        Some(fresh.len())
    }

    /// Registers a mapping, whole: a part alone would make two mappings of it, and the program would be told when it moves
    /// both at once. Mappings that touch it on either side are registered with it, so that the kernel can join them.
    fn register(&self, memory: &Memory, inner: &mut Inner, process: &Process, start: u64, end: u64) -> bool {
        if !self.register_one(memory, inner, process, start, end) {
            return false;
        }
        let mut behind = end;
        while let Ok(Some(next)) = process.proc.mapping_at(behind)
            && next.start <= behind
            && self.register_one(memory, inner, process, behind, next.end)
        {
            behind = next.end;
        }
        let page = PAGE_SIZE as u64;
        let mut front = start;
        while let Ok(Some(before)) = process.proc.mapping_at(front - page)
            && before.start < front
            && before.end >= front
            && self.register_one(memory, inner, process, before.start, front)
        {
            front = before.start;
        }
        true
    }

    /// Registers a range that is all of a mapping, or what is not registered of it, and enters it once that is certain.
    ///
    /// The list that the range is from is old by now: the mapping may have gone, and others come in its place. A range that
    /// is entered and not registered is the one mistake that nothing would notice: its pages would be moved out, and read as
    /// zeros. So the kernel is asked before and when it is done. If the range lies in one mapping, and the last page of that is
    /// registered or is not, so is all of it: registered memory and other is never one mapping; and had anything registered been
    /// unmapped in between, its event would be unread, since whoever reads events needs the lock that is held here, and
    /// the question would not have been answered.
    fn register_one(
        &self,
        memory: &Memory,
        inner: &mut Inner,
        process: &Process,
        start: u64,
        end: u64,
    ) -> bool {
        let covers = |mapping: Mapping| mapping.start <= start && mapping.end >= end;
        let last = end - PAGE_SIZE as u64;
        let is_one = || match process.proc.mapping_at(start) {
            Ok(found) => found.is_some_and(covers),
            // Before kernel 6.11 the whole list has to be read.
            Err(_) => {
                let mut found = false;
                let read = process.proc.mappings(|mapping| found |= covers(mapping));
                read.is_ok() && found
            }
        };
        if !is_one() {
            return false;
        }
        match memory.uffd.is_registered(last) {
            Some(true) => {}
            // What is known of pages there is of an older mapping: a forked child may have got it with the fork, while
            // another thread of its parent was unmapping. Now, and not when it is registered: were that to fail half way,
            // nobody could tell afterwards.
            Some(false) => self.forget(inner, start, end),
            None => return false,
        }
        if !inner.events_wait {
            // All has been heard.
            self.release_older(inner.overtaken.settle());
        }
        if memory.uffd.register(start, end).is_err() {
            // Not for us: special memory, or another userfaultfd has it, or it is gone already.
            return false;
        }
        if !is_one() || memory.uffd.is_registered(last) != Some(true) {
            return false;
        }
        inner.add_region(start, end);
        true
    }
}
