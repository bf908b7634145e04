//! What has to be done now and then, and does not hurry: to let go of what ended, to look at what has changed without a word, to
//! tell the figures.
//!
//! Some of it takes as long as a program takes to grow by many megabytes: to know what children find empty, the kernel walks all of a
//! memory, 9 ms for node in 130 MiB. Whoever looks how much memory there is cannot be kept that long.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use crate::Shared;
use crate::discover::REMOVAL;
use crate::kept::remember_wiped;
use crate::link::Stage;
use crate::memory::Memory;
use crate::thrashing::Thrashing;

/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(50);

/// A memory wants pages if so many came in while it was looked.
const WANTS: usize = 64;

impl Shared {
    /// The thread for that.
    pub(crate) fn tend(self: &Arc<Self>) {
        let mut looked_anew = Instant::now();
        let mut thrashing = Thrashing::new(self.cpus);
        while !self.stopping.load(Relaxed) {
            self.look_at_shares();
            // First: to let go of what ended may wait for a batch.
            if self.budget.estimate() >= self.budget.near() {
                self.keep_for_the_kernel();
                let memories = self.books.lock().memories();
                memories.iter().for_each(|memory| remember_wiped(memory));
            }
            self.bury();
            let seen = self.turns.seen(self.begun.elapsed());
            self.turns.set(thrashing.needs_turns(seen, || self.wanting()));
            self.sweep_candidates();
            if looked_anew.elapsed() > REMOVAL {
                looked_anew = Instant::now();
                // What could not be managed may be now.
                self.unmanageable.store(0, Relaxed);
            }
            (self.publish)(&self.counters, &self.accessed_bits());
            // The end unparks it.
            std::thread::park_timeout(PAUSE);
        }
        // Everything comes back, and whoever waits goes on.
        self.turns.set(false);
    }

    /// What processes share since a fork counts once; where it could matter, the kernel is asked how much that is.
    fn look_at_shares(&self) {
        let processes = self.processes.lock().clone();
        let each = processes.iter().filter_map(|process| process.proc.resident());
        let all: u64 = each.map(|resident| resident.anonymous).sum();
        let beside = self.budget.estimate().saturating_sub(self.budget.anonymous());
        if all + beside >= self.budget.near() {
            processes.iter().for_each(|process| process.look_at_share());
        }
    }

    /// Memories that brought pages in since this was last asked.
    fn wanting(&self) -> usize {
        let memories = self.books.lock().memories();
        memories.iter().filter(|memory| memory.came.swap(0, Relaxed) >= WANTS).count()
    }

    /// Lets go of processes and memories that ended.
    fn bury(self: &Arc<Self>) {
        let processes = self.processes.lock().clone();
        processes.iter().filter(|it| it.proc.is_only_agent()).for_each(|process| process.dismiss());
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
        inner.draining = true;
        while inner.batch.is_some() {
            memory.settled.wait(&mut inner);
        }
        // A fork that waited for the batch is still to be applied: the child is to have the slots.
        while inner.events_wait {
            MutexGuard::unlocked(&mut inner, || std::thread::sleep(Duration::from_micros(20)));
        }
        inner.table.take(0, u64::MAX, |_, state| slots.extend(state.slot()));
        let older = inner.overtaken.settle();
        drop(inner);
        self.release_older(older);
        self.release_all(&slots);
        self.books.lock().leave(memory.number);
        memory.tell_end();
    }
}
