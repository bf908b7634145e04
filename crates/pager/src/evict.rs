//! Moving pages out: the evictor's thread.
//!
//! One batch goes like this:
//!
//! ```text
//! choose      the policy's candidates, all of one memory
//! lock        the memory; leave out what is not resident under its stamp any more, and what there are no slots for
//! order       the agent moves them into its staging area; until then nobody reads this memory's events
//! unlock      what was moved is noted as busy
//! read        the staging area into a buffer here, part by part; faults on these pages are served from that
//! store       each page in the cache, with everybody's help who waits for room, once its part is read
//! empty       the agent gives the staging area back to the system meanwhile
//! lock, note  the slot of each page that was not wanted back meanwhile; unlock
//! ```
//!
//! What was moved is what is in the staging area, which was empty before: the kernel's page tables are asked, not the agent.
//!
//! An agent that does not answer (the process is stopped, or traced) cannot be waited for: its memory is locked. The
//! staging area's registration is taken away then, from here; after that the kernel refuses every move into it, and the
//! batch goes on with what is there.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use agent::protocol::{Action, BATCH, Command, Run};
use parking_lot::MutexGuard;
use zswap::PAGE_SIZE;

use crate::batch::{Batch, PART, Part};
use crate::choose::Chooser;
use crate::discover::Depth;
use crate::kept::remember_wiped;
use crate::link::{Done, Hands};
use crate::memory::{Inner, Memory};
use crate::policy::Candidate;
use crate::proc::Proc;
use crate::scheduling::{Away, Scheduling};
use crate::table::{Page, State, address_of, page_of};
use crate::uffd::Put;
use crate::{SWAP_TYPE, Shared, own_code};

/// `max_pool_bytes` where nothing but the cap limits the pool.
const UNLIMITED: &str = "4611686018427387904";
/// How long nobody tries again when nothing can leave, at first and at most.
const LEAST_REST: Duration = Duration::from_millis(100);
const MOST_REST: Duration = Duration::from_secs(2);
/// How long there has to be nothing to gain before that is said.
const DRY_LIMIT: Duration = Duration::from_millis(200);
/// Between two looks whether the pool has given way to programs.
const GIVING_WAY: Duration = Duration::from_millis(2);
/// What storing a batch may take, by how long the last took, and the fewest pages of one: while a batch is stored, nobody finds what
/// programs take without a fault of ours.
const SLOW: Duration = Duration::from_millis(2);
const LEAST_BATCH: usize = 32;
/// A batch of which less than this share finds a place gains nothing.
const LEAST_SHARE: usize = 8;

/// A page of a batch: its place in the staging area is its place in the list.
struct Moving {
    page: Page,
    /// The errno of its move; 0: it is there.
    errno: u8,
    /// It was noted where it is.
    noted: bool,
}

/// There was nothing left that could leave.
#[derive(Clone, Copy)]
struct Dry {
    since: Instant,
    /// Pages that had left by then, and those that had come back.
    gained: u64,
    came_back: u64,
}

impl Dry {
    /// Whether more has left since than came back: the pages of a program that are in use all the time leave and come back without
    /// end, and nothing is gained by it.
    fn is_over(self, gained: u64, came_back: u64) -> bool {
        gained - self.gained > came_back - self.came_back + BATCH as u64
    }
}

pub(crate) struct Evictor {
    shared: Arc<Shared>,
    chooser: Chooser,
    /// Those that were busy the last time, and are tried once more.
    busy: HashSet<Candidate>,
    /// Room for the parts of a batch, kept from one to the next.
    buffers: Vec<Part>,
    /// Orders are large; one is enough.
    command: Box<Command>,
    /// Pages of a batch, at most.
    most: usize,
    /// Since when nothing has been to gain.
    stuck_since: Option<Instant>,
}

impl Evictor {
    pub(crate) fn new(shared: Arc<Shared>) -> Evictor {
        Evictor {
            chooser: Chooser::new(shared.clone()),
            shared,
            busy: HashSet::new(),
            buffers: Vec::new(),
            command: Box::new(Command::new(Action::Move)),
            most: BATCH,
            stuck_since: None,
        }
    }

    /// Works until the pager stops.
    pub(crate) fn run(mut self) {
        let shared = self.shared.clone();
        // Whoever is woken to make room comes too late if it has to wait until others had their slices.
        if let Some(own) = Scheduling::own() {
            own.promptly().set();
        }
        let mut has_begun = false;
        let mut away = Away::new();
        while !shared.stopping.load(Relaxed) {
            shared.drop_emptied();
            if !shared.budget.wait_for_work(Duration::from_millis(100)) {
                self.buffers = Vec::new();
                continue;
            }
            if !std::mem::replace(&mut has_begun, true) {
                shared.look_at_accessed();
                own_code::unmap();
            }
            shared.find_unknown();
            if shared.budget.estimate() <= shared.budget.high() {
                shared.budget.gave_up.store(false, Relaxed);
                self.stuck_since = None;
            } else if !self.make_room(&mut away) && shared.budget.estimate() > shared.budget.high() {
                shared.give_up();
                self.rest();
            }
        }
    }

    /// Moves pages out until there is room. `false`: nothing more can leave.
    fn make_room(&mut self, away: &mut Away) -> bool {
        let shared = self.shared.clone();
        let came_back = || shared.counters.restored_pages.get();
        let mut gained = 0;
        let mut dry: Option<Dry> = None;
        let mut cramped_since = None;
        while shared.budget.estimate() > shared.budget.low() && !shared.stopping.load(Relaxed) {
            if shared.budget.anonymous() < shared.budget.floor() {
                let needed = shared.budget.estimate().saturating_sub(shared.budget.low());
                let since = *cramped_since.get_or_insert_with(Instant::now);
                let may_wait = since.elapsed() < DRY_LIMIT && shared.has_device();
                if may_wait && shared.pool_size.give_way(&shared.cache, needed) {
                    std::thread::park_timeout(GIVING_WAY);
                    continue;
                }
                return false;
            }
            cramped_since = None;
            away.keep(&shared.taken);
            shared.find_unknown();
            let deferred = shared.counters.deferred_pages.get();
            let left = self.batch();
            if left > 0 {
                gained += left as u64;
                shared.budget.gave_up.store(false, Relaxed);
                if shared.has_device() {
                    let cramped = shared.budget.anonymous() < shared.budget.floor() * 2;
                    shared.pool_size.settle(&shared.cache, cramped);
                }
                continue;
            }
            if shared.counters.deferred_pages.get() != deferred {
                // An event is unread: its reader waits for room, or for the lock that this thread takes again and again.
                shared.budget.recall();
                std::thread::sleep(Duration::from_micros(50));
                continue;
            }
            // It is known already, and what came back since is out.
            if self.stuck_since.is_some() {
                return false;
            }
            if dry.is_none_or(|dry| dry.is_over(gained, came_back())) {
                dry = Some(Dry { since: Instant::now(), gained, came_back: came_back() });
                // The queues are empty or hold nothing that can go: look for pages that nobody told us of.
                if shared.discover(Depth::Known) + shared.discover(Depth::Small) > 0 {
                    continue;
                }
            }
            if dry.is_some_and(|dry| dry.since.elapsed() > DRY_LIMIT) {
                return false;
            }
            std::thread::park_timeout(DRY_LIMIT / 20);
        }
        true
    }

    /// While there is nothing to gain: the longer that has been so, the longer; but not while programs grow.
    fn rest(&mut self) {
        let shared = &self.shared;
        let begun = Instant::now();
        let since = *self.stuck_since.get_or_insert(begun);
        let pause = (begun - since).clamp(LEAST_REST, MOST_REST);
        let too_much = shared.budget.estimate() + shared.budget.cap() / 8;
        while begun.elapsed() < pause {
            let now = shared.budget.estimate();
            if shared.stopping.load(Relaxed) || now > too_much || now <= shared.budget.high() {
                return;
            }
            std::thread::park_timeout(LEAST_REST / 20);
        }
        // What could not leave may be able to by now; of what found no place a batch at a time.
        shared.discover(Depth::Small);
        shared.books.lock().policy.try_refused(BATCH);
    }

    /// Moves one batch out. Returns how many pages that gained.
    fn batch(&mut self) -> usize {
        self.shared.drop_emptied();
        // Queues can be full of candidates that are none any more; as many of those as there can be are passed over.
        let mut to_pass = self.shared.books.lock().policy.len() + 2 * BATCH;
        while to_pass > 0 {
            // For a few pages nobody looks through the queues, and where each page that comes back makes place for one there are
            // always a few.
            if self.shared.books.lock().slots.free_count() * LEAST_SHARE < BATCH {
                return 0;
            }
            let Some((memory, candidates)) = self.chooser.choose(self.most) else { return 0 };
            to_pass = to_pass.saturating_sub(candidates.len());
            // A memory that ended leaves candidates behind.
            let Some(memory) = memory else { continue };
            let mut hands = memory.hands.lock();
            // Nobody can move pages of a process whose agent is not there.
            let Some(hands) = hands.as_mut() else {
                self.put_back(&candidates);
                continue;
            };
            let deferred = self.shared.counters.deferred_pages.get();
            let moved = self.take(&memory, hands, &candidates);
            // Where an event is unread, its reader is to have the lock.
            if moved > 0 || self.shared.counters.deferred_pages.get() != deferred {
                return moved;
            }
        }
        0
    }

    /// The batch itself.
    fn take(&mut self, memory: &Arc<Memory>, hands: &mut Hands, candidates: &[Candidate]) -> usize {
        let shared = self.shared.clone();
        let Some(proc) = memory.proc.get() else { return 0 };
        // What the last batch left is given back by now, as a rule. Nobody waits for that with the lock, and nothing can be moved before.
        if hands.owes_reply() && !matches!(hands.settle(), Done::Reply(_)) {
            self.put_back(candidates);
            return 0;
        }
        if memory.inner.lock().looked_at.is_none() {
            // Before anything more of it is out. Not sooner: other programs grow while this one's memory is walked.
            remember_wiped(memory);
        }
        let mut inner = memory.inner.lock();
        if inner.draining {
            return 0;
        }
        if inner.events_wait || inner.batch.is_some() {
            drop(inner);
            shared.counters.deferred_pages.add(candidates.len());
            self.put_back(candidates);
            return 0;
        }
        let is_there =
            |candidate: &Candidate| inner.table.get(candidate.page) == State::Resident(candidate.stamp);
        let (stay, go): (Vec<_>, Vec<_>) =
            candidates.iter().copied().filter(is_there).partition(|candidate| {
                inner.kept.as_ref().is_some_and(|kept| kept.contains(&candidate.page))
            });
        self.put_back(&stay);
        let mut moving: Vec<Moving> =
            go.iter().map(|candidate| Moving { page: candidate.page, errno: 0, noted: false }).collect();
        moving.sort_unstable_by_key(|moving| moving.page);
        moving.dedup_by_key(|moving| moving.page);
        if moving.is_empty() {
            return 0;
        }
        let (staging, staging_end) = hands.staging();
        let mut is_empty = true;
        let looked = proc.mapped(staging, staging_end, |_, _| is_empty = false);
        if !is_empty || looked.is_err() || memory.uffd.register(staging, staging_end).is_err() {
            // The area could not be emptied, or the process is ending.
            drop(inner);
            let _ = hands.order(self.order(Action::Empty, &[]));
            self.put_back(candidates);
            return 0;
        }
        // What has a slot can be kept whatever happens; what is out and can neither be kept nor go back would be lost.
        let reserved = shared.reserve(moving.len());
        let left: HashSet<Page> = moving.drain(reserved.len()..).map(|moving| moving.page).collect();
        if !left.is_empty() {
            let left: Vec<_> =
                candidates.iter().filter(|candidate| left.contains(&candidate.page)).copied().collect();
            self.put_back(&left);
        }
        let done = hands.order(self.order(Action::Move, &moving));
        if !matches!(done, Done::Reply(_)) {
            // From here on nothing can be moved there any more.
            shared.counters.stalled_batches.add(1);
            if memory.uffd.unregister(staging, staging_end).is_err() && !memory.uffd.is_dead(memory.probe) {
                // The agent may go on to move, and nobody would know what.
                shared.tell("a program's staging area cannot be unregistered; ending it");
                shared.kill(memory);
            }
        }
        // The agent says why a page was not moved; whether it was, the kernel is asked.
        for (at, moving) in moving.iter_mut().enumerate() {
            moving.errno = match &done {
                Done::Reply(reply) if reply.errno == 0 && reply.pages[at] != 0 => reply.pages[at],
                _ => libc::EAGAIN as u8,
            };
        }
        let looked = proc.mapped(staging, staging_end, |address, pages| {
            let first = page_of(address) - page_of(staging);
            for at in first..first + pages {
                if let Some(moving) = moving.get_mut(at as usize) {
                    moving.errno = 0;
                }
            }
        });
        if looked.is_err() {
            if !memory.uffd.is_dead(memory.probe) {
                shared.tell("a program's page tables cannot be read (pagemap); ending it");
                shared.kill(memory);
            }
            return 0;
        }
        let moved = self.mark(&mut inner, &moving, candidates);
        if moved == 0 {
            drop(inner);
            self.unshare(memory, hands, &moving);
            return 0;
        }
        let batch = shared.begin_batch(reserved, moving.iter().map(|moving| moving.errno == 0));
        inner.batch = Some(batch.clone());
        drop(inner);
        if !self.read(memory, proc, hands, &moving, &batch) {
            shared.give_up_batch(&batch);
            let mut inner = memory.inner.lock();
            // Its pages stay busy. Another batch would have pages by the same numbers, and these would be taken for those.
            inner.draining = true;
            inner.batch = None;
            memory.settled.notify_all();
            return 0;
        }
        shared.counters.evicted_pages.add(moved);
        // An agent that owes an answer is told to empty the area when it has given that, and before anything else. Nobody waits
        // for it to be done: it runs where the program does, while this thread has pages to store.
        if !hands.owes_reply() {
            let _ = hands.begin(self.order(Action::Empty, &[]));
        }
        shared.budget.sub((moved * PAGE_SIZE) as u64);
        let begun = Instant::now();
        shared.store(&batch);
        self.most = fitting(moved, begun.elapsed());
        let gained = (0..moving.len()).filter(|&at| batch.slot(at).is_some()).count();
        let mut inner = memory.inner.lock();
        while !self.note(memory, &mut inner, &mut moving, &batch) {
            // An event keeps pages from going back, and whoever reads it needs the lock.
            MutexGuard::unlocked(&mut inner, || std::thread::sleep(Duration::from_micros(200)));
        }
        inner.batch = None;
        memory.settled.notify_all();
        drop(inner);
        shared.end_batch(&batch);
        self.buffers.extend(Arc::into_inner(batch).into_iter().flat_map(Batch::into_parts));
        shared.measure();
        self.unshare(memory, hands, &moving);
        if gained * LEAST_SHARE < moved { 0 } else { gained }
    }

    /// An order over the pages of a batch.
    fn order(&mut self, action: Action, moving: &[Moving]) -> &mut Command {
        let command = &mut self.command;
        command.action = action as u32;
        command.runs_len = 0;
        let mut last: Option<Page> = None;
        for moving in moving {
            let used = command.runs_len as usize;
            if last == Some(moving.page.wrapping_sub(1)) && used > 0 {
                command.runs[used - 1].pages += 1;
            } else if let Some(run) = command.runs.get_mut(used) {
                *run = Run { start: address_of(moving.page), pages: 1 };
                command.runs_len += 1;
            }
            last = Some(moving.page);
        }
        command
    }

    /// Notes the state of every page of the batch. Returns how many were moved.
    fn mark(&mut self, inner: &mut Inner, moving: &[Moving], candidates: &[Candidate]) -> usize {
        let shared = self.shared.clone();
        let mut moved = 0;
        for (at, moving) in (0u32..).zip(moving) {
            match i32::from(moving.errno) {
                0 => {
                    inner.table.set(moving.page, State::Busy(at));
                    inner.resident = inner.resident.saturating_sub(1);
                    moved += 1;
                }
                libc::ENOENT => {
                    // Nothing is there any more.
                    inner.table.set(moving.page, State::Unknown);
                    inner.resident = inner.resident.saturating_sub(1);
                }
                errno @ (libc::EAGAIN | libc::EBUSY) => {
                    let count = if errno == libc::EBUSY {
                        &shared.counters.busy_pages
                    } else {
                        &shared.counters.deferred_pages
                    };
                    count.add(1);
                    let again = candidates.iter().find(|candidate| {
                        let state = State::Resident(candidate.stamp);
                        candidate.page == moving.page && inner.table.get(moving.page) == state
                    });
                    match again {
                        // As soon as the event is read, or the page is made the process's own. One that is busy after that
                        // is pinned for I/O.
                        Some(again) if errno == libc::EAGAIN || self.busy.insert(*again) => {
                            self.chooser.again(*again)
                        }
                        Some(again) => {
                            self.busy.remove(again);
                            shared.books.lock().policy.put_back(*again);
                        }
                        None => {}
                    }
                }
                // What cannot be moved (locked, not writable, not ours) stays resident. That may change, and nobody tells: it is
                // looked at anew, as what was given up is.
                _ => {
                    shared.counters.unmovable_pages.add(1);
                    inner.table.set(moving.page, State::Removed(shared.seconds()));
                    inner.resident = inner.resident.saturating_sub(1);
                }
            }
        }
        moved
    }

    /// Reads what was moved, for all who store it. `false`: it cannot be, and the program has ended, or was ended: it could not go
    /// on without.
    fn read(
        &mut self,
        memory: &Memory,
        proc: &Proc,
        hands: &Hands,
        moving: &[Moving],
        batch: &Batch,
    ) -> bool {
        let mut staging = hands.hello.staging;
        for (number, moving) in moving.chunks(PART).enumerate() {
            let mut part = self.buffers.pop().unwrap_or_else(|| vec![[0; PAGE_SIZE]; PART]);
            let mut is_read = read_moved(staging, &mut part, moving, |from, to| proc.read_pages(from, to));
            if is_read && hands.is_gone() {
                // It executes another program: what was read may be of that one's memory. This one may live on in another process.
                is_read = read_moved(staging, &mut part, moving, |from, to| proc.read_old_pages(from, to));
            }
            if !is_read {
                if !memory.uffd.is_dead(memory.probe) {
                    self.shared.tell("a program's memory cannot be read back (process_vm_readv); ending it");
                    self.shared.kill(memory);
                }
                return false;
            }
            batch.publish(number, part);
            // Whoever waits for room has something to do.
            self.shared.budget.recall();
            staging += (PART * PAGE_SIZE) as u64;
        }
        true
    }

    /// Notes where the pages are now. `false`: some that found no place cannot go back yet; call it again.
    fn note(&self, memory: &Memory, inner: &mut Inner, moving: &mut [Moving], batch: &Batch) -> bool {
        let shared = &self.shared;
        let mut is_done = true;
        for (at, moving) in (0u32..).zip(moving) {
            if moving.errno != 0 || moving.noted {
                continue;
            }
            let is_out = inner.table.get(moving.page) == State::Busy(at);
            let at = at as usize;
            match batch.slot(at) {
                Some(slot) if is_out => {
                    inner.table.set(moving.page, State::Slot(slot));
                }
                // It was wanted back or given up while it was on its way.
                Some(slot) => shared.release(slot),
                None if is_out => {
                    let content = batch.content(at).map(std::slice::from_ref).unwrap_or_default();
                    let put = if inner.events_wait {
                        // A child that was forked is to have it too, or it is somewhere else by now.
                        Put::Again(0)
                    } else {
                        memory.uffd.copy(address_of(moving.page), content)
                    };
                    match put {
                        // Whoever reads the event finds it there.
                        Put::Again(_) | Put::NoMemory => match shared.keep(batch, at) {
                            Some(slot) => {
                                inner.table.set(moving.page, State::Slot(slot));
                            }
                            None if inner.events_wait => {
                                shared.tell("there is no memory to keep a page in; ending its program");
                                shared.kill(memory);
                                // It stays busy, for all who look.
                                inner.draining = true;
                            }
                            None => {
                                is_done = false;
                                continue;
                            }
                        },
                        Put::Gone => {
                            memory.uffd.wake(address_of(moving.page), 1);
                            inner.table.set(moving.page, State::Unknown);
                        }
                        Put::Exists(_) | Put::Done | Put::Dead => {
                            if matches!(put, Put::Exists(_)) {
                                memory.uffd.wake(address_of(moving.page), 1);
                            }
                            let stamp = shared.books.lock().policy.refuse(memory.number, moving.page);
                            inner.table.set(moving.page, State::Resident(stamp));
                            inner.resident += 1;
                        }
                    }
                }
                None => {}
            }
            moving.noted = true;
        }
        is_done
    }

    fn put_back(&self, candidates: &[Candidate]) {
        let mut books = self.shared.books.lock();
        for candidate in candidates {
            books.policy.put_back(*candidate);
        }
    }

    /// Pages shared since a fork cannot be moved until they are the process's own.
    fn unshare(&mut self, memory: &Memory, hands: &mut Hands, moving: &[Moving]) {
        let busy: Vec<_> = moving
            .iter()
            .filter(|moving| i32::from(moving.errno) == libc::EBUSY)
            .map(|moving| Moving { page: moving.page, errno: 0, noted: false })
            .collect();
        if busy.is_empty() {
            // Whatever was busy before has found its way by now.
            self.busy.clear();
            return;
        }
        // It may have been forked before it was managed.
        memory.has_forked.store(true, Relaxed);
        let _ = hands.order(self.order(Action::Unshare, &busy));
    }
}

/// How many pages a batch may have, where so many took so long to store.
fn fitting(pages: usize, took: Duration) -> usize {
    let each = took.as_nanos().checked_div(pages as u128).unwrap_or(0);
    SLOW.as_nanos()
        .checked_div(each)
        .and_then(|fit| fit.try_into().ok())
        .unwrap_or(BATCH)
        .clamp(LEAST_BATCH, BATCH)
}

/// Reads each run of moved pages with `read`, which tells how many it read. Whether all were.
fn read_moved(
    staging: u64,
    buffer: &mut [[u8; PAGE_SIZE]],
    moving: &[Moving],
    read: impl Fn(u64, &mut [[u8; PAGE_SIZE]]) -> usize,
) -> bool {
    let mut at = 0;
    while at < moving.len() {
        let run = moving[at..].iter().take_while(|moving| moving.errno == 0).count();
        if run > 0 && read(staging + (at * PAGE_SIZE) as u64, &mut buffer[at..at + run]) < run {
            return false;
        }
        at += run.max(1);
    }
    true
}

impl Shared {
    /// Whether there is a swap file that works. When it fails, what stays in memory is not limited any more by what could
    /// be written out.
    pub(crate) fn has_device(&self) -> bool {
        if !self.with_device.load(Relaxed) {
            return false;
        }
        let Some(errno) = self.cache.device_error(SWAP_TYPE) else { return true };
        if self.with_device.swap(false, Relaxed) {
            let why = std::io::Error::from_raw_os_error(errno);
            self.tell(&format!("the swap file failed ({why}); the program goes on in memory"));
            let _ = self.cache.set(zswap::Param::MaxPoolBytes, UNLIMITED);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_smaller_where_storing_is_slow() {
        let micros = Duration::from_micros;
        assert_eq!(fitting(BATCH, micros(600)), BATCH);
        assert_eq!(fitting(200, SLOW * 2), 100);
        assert_eq!(fitting(BATCH, SLOW * 100), LEAST_BATCH);
        assert_eq!(fitting(LEAST_BATCH, micros(80)), BATCH, "it is fast again");
        assert_eq!([fitting(0, SLOW), fitting(1, Duration::ZERO)], [BATCH; 2]);
    }
}
