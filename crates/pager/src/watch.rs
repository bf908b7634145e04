//! Looking: how much memory there is, which processes came and went, and which pages nobody told us of.
//!
//! How often follows from the distance to the cap: a program that is far from it must notice nothing, one that is near it
//! can grow by megabytes in a millisecond.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use zswap::{Counter, PAGE_SIZE};

use crate::Shared;
use crate::budget::Sample;
use crate::link::{self, Process, Stage};
use crate::memory::{Inner, Memory};
use crate::proc::Mapping;
use crate::table::{State, page_of};

/// How long after a page was given up it is sure that the kernel dropped it. The kernel tells before it drops, with no
/// word afterwards; all it does in between is to take a lock.
pub(crate) const REMOVAL: Duration = Duration::from_secs(10);

/// Between two looks, at least and at most.
const NEAR: Duration = Duration::from_millis(1);
const FAR: Duration = Duration::from_millis(20);
/// Bytes by which programs may grow in a millisecond: a thread that does nothing but touch new memory takes 2 to 3 MiB, and more by huge
/// pages.
const GROWTH: u64 = 8 << 20;

/// Mappings smaller than this are left alone at first: each registered one is a mapping of its own for the kernel.
const SMALL: u64 = 16 * PAGE_SIZE as u64;
/// Bytes looked through in one hold of a memory's lock.
const LOOK: u64 = 64 << 20;

/// Until the next look, where there is so much room in bytes before it matters.
fn pause(room: u64) -> Duration {
    Duration::from_millis(room / GROWTH).clamp(NEAR, FAR)
}

impl Shared {
    /// The watcher's thread.
    pub(crate) fn watch(self: &Arc<Self>) {
        let mut last_round = Instant::now();
        while !self.stopping.load(Relaxed) {
            self.accept();
            self.measure();
            if last_round.elapsed() > Duration::from_millis(50) {
                last_round = Instant::now();
                self.bury();
                self.sweep_candidates();
                (self.publish)(&self.counters, &self.accessed_bits());
            }
            let room = self.budget.near().saturating_sub(self.budget.estimate());
            // The end unparks it.
            std::thread::park_timeout(pause(room));
        }
    }

    /// Takes new connections.
    fn accept(&self) {
        let flags = rustix::net::SocketFlags::CLOEXEC;
        while let Ok(socket) = rustix::net::accept_with(&self.listener, flags) {
            if let Ok(process) = link::greet(self, socket) {
                self.processes.lock().push(Arc::new(process));
            }
        }
    }

    /// Asks the kernel how much memory everything takes.
    pub(crate) fn measure(&self) {
        let processes = self.processes.lock().clone();
        let mut sample = Sample::default();
        for process in &processes {
            if let Some(resident) = process.proc.resident() {
                sample.anonymous += process.anonymous(resident.anonymous);
                sample.shared = sample.shared.max(resident.shared);
            }
        }
        if let Some(own) = self.own.resident() {
            sample.own = own.anonymous + own.shared;
        }
        sample.pool = self.cache.stats().get(Counter::PoolTotalSize);
        self.budget.measured(sample);
    }

    /// Anonymous memory of the managed processes that is not known page by page.
    pub(crate) fn unknown_bytes(&self) -> u64 {
        let memories = self.books.lock().memories();
        let known: usize = memories.iter().map(|memory| memory.inner.lock().resident).sum();
        // What was looked at and cannot be managed is not looked for again.
        let given_up = self.unmanageable.load(Relaxed);
        self.budget.anonymous().saturating_sub((known * PAGE_SIZE) as u64 + given_up)
    }

    /// Lets go of processes and memories that ended.
    fn bury(self: &Arc<Self>) {
        // Not under the lock of the list: whoever holds a memory's hands may want that.
        let mut gone = self.processes.lock().clone();
        gone.retain(|process| process.is_gone());
        self.processes.lock().retain(|process| !gone.iter().any(|gone| Arc::ptr_eq(gone, process)));
        for process in gone {
            if let Stage::Managed(memory) = &*process.state.lock() {
                *memory.hands.lock() = None;
            }
        }
        let memories = self.books.lock().memories();
        for memory in memories {
            if memory.uffd.is_dead(memory.probe) {
                self.end(&memory);
            }
        }
    }

    /// A memory is no more: its slots are free, its thread ends.
    fn end(&self, memory: &Memory) {
        let mut slots = Vec::new();
        let mut inner = memory.inner.lock();
        while inner.batch.is_some() {
            memory.settled.wait(&mut inner);
        }
        inner.draining = true;
        inner.table.take(0, u64::MAX, |_, state| {
            if let State::Slot(slot) = state {
                slots.push(slot);
            }
        });
        drop(inner);
        self.release_all(&slots);
        self.books.lock().leave(memory.number);
        let _ = rustix::io::write(&memory.ended, &1u64.to_ne_bytes());
    }

    /// Finds resident pages that no fault told us of, registers where they are, and queues them. `thorough`: also in small
    /// mappings. Returns how many.
    pub(crate) fn discover(self: &Arc<Self>, thorough: bool) -> usize {
        self.counters.searches.add(1);
        let mut processes: Vec<_> = self
            .processes
            .lock()
            .iter()
            .filter_map(|process| Some((process.proc.resident()?.anonymous, process.clone())))
            .filter(|(anonymous, _)| *anonymous >= SMALL)
            .collect();
        processes.sort_unstable_by_key(|(anonymous, _)| std::cmp::Reverse(*anonymous));
        let mut found = 0;
        let begun_with = self.budget.anonymous();
        for (anonymous, process) in processes {
            let Some(memory) = link::manage(self, &process) else { continue };
            let known = (memory.inner.lock().resident * PAGE_SIZE) as u64;
            // What is known is most of what there is: nothing to be found but what cannot be moved.
            if anonymous.saturating_sub(known) > SMALL || thorough {
                found += self.look_through(&memory, &process, thorough);
            }
            if self.stopping.load(Relaxed) {
                break;
            }
        }
        self.unmanageable.store(0, Relaxed);
        let rest = self.unknown_bytes().saturating_sub(self.budget.anonymous().saturating_sub(begun_with));
        self.unmanageable.store(rest, Relaxed);
        found
    }

    fn look_through(&self, memory: &Memory, process: &Process, thorough: bool) -> usize {
        let mut mappings = Vec::new();
        if process.proc.mappings(|mapping| mappings.push(mapping)).is_err() {
            return 0;
        }
        let locked = process.proc.locked();
        let mut found = 0;
        for mapping in mappings {
            let is_locked = locked.iter().any(|lock| lock.start < mapping.end && mapping.start < lock.end);
            let is_own = {
                let hands = memory.hands.lock();
                hands.as_ref().is_none_or(|hands| hands.owns(mapping.start, mapping.end))
            };
            let is_small = mapping.end - mapping.start < SMALL && !thorough;
            if is_locked || is_own || is_small {
                continue;
            }
            let mut from = mapping.start;
            while from < mapping.end {
                let to = mapping.end.min(from.saturating_add(LOOK));
                let mut anything = false;
                // Without the lock, to know whether it is worth taking: a mapping of which nothing is touched costs a walk.
                let _ = process.proc.present(from, to, |_, _| anything = true);
                if anything {
                    found += self.look(memory, process, mapping.start, mapping.end, from, to);
                }
                from = to;
            }
        }
        found
    }

    /// Registers a mapping and queues what is present in a part of it.
    fn look(&self, memory: &Memory, process: &Process, start: u64, end: u64, from: u64, to: u64) -> usize {
        let mut inner = memory.inner.lock();
        // An event that was read and waits for the batch: until it is applied, the table is older than the mappings, and a
        // mapping that is new where another was moved away would be taken for that.
        if inner.draining
            || inner.events_wait
            || inner.blind_until.is_some_and(|until| Instant::now() < until)
        {
            return 0;
        }
        if !inner.unregistered(start, end).is_empty()
            && !self.register(memory, &mut inner, process, start, end)
        {
            return 0;
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
        fresh.len()
    }
}

impl Shared {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_cannot_grow_past_the_room_between_two_looks() {
        for shift in 0..40 {
            let room = (1 << shift) - 1;
            let grown = GROWTH * u64::try_from(pause(room).as_millis()).unwrap();
            assert!(grown <= room.max(GROWTH), "{grown} bytes into {room}");
        }
        assert_eq!(pause(1 << 40), FAR);
    }
}
