//! Serving a memory: its faults and its events, on a thread of its own.
//!
//! What it can never do: give out a page whose content it is not sure of. A page that cannot be brought back is poisoned;
//! its user gets SIGBUS, as for memory that the hardware lost.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use zswap::{Keep, LoadError, PAGE_SIZE, Source};

use crate::Shared;
use crate::beside::Beside;
use crate::memory::{Inner, Memory};
use crate::overtaken::Older;
use crate::stream::WINDOW;
use crate::table::{Page, State, address_of, page_of};
use crate::turns::{ASK_AGAIN, Allowance};
use crate::uffd::{MESSAGES, Message, Put, Uffd, Wake};

/// Never-touched pages given out at once, at most, to a run of writes.
const FIRST_TOUCH: usize = 16;
/// How long a fault waits for room at most.
const ROOM_LIMIT: Duration = Duration::from_millis(20);
/// Slots that may wait for somebody to drop what is in them. The evictor does that as a rule, since whoever waits for a page waits for what
/// is done after it, too: a microsecond a page.
const MOST_EMPTIED: usize = agent::protocol::BATCH;
/// Between two looks whether a memory has ended that cannot tell.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// Until a fault is tried again that an event made wait.
const EVENT_PAUSE: Duration = Duration::from_micros(20);
/// How long a message that cannot be taken is left.
const UNREAD_PAUSE: Duration = Duration::from_millis(2);

static ZEROS: [[u8; PAGE_SIZE]; FIRST_TOUCH] = [[0; PAGE_SIZE]; FIRST_TOUCH];

/// A thread of the program that waits for a page.
struct Fault {
    page: Page,
    write: bool,
    /// How far its run goes, and what comes with it of what lies around it. What knows is asked once, however often this one has to be
    /// tried.
    run: Option<usize>,
    block: Option<Range<Page>>,
}

impl Fault {
    fn run(&mut self, inner: &mut Inner) -> usize {
        *self.run.get_or_insert_with(|| inner.streams.window(self.page))
    }

    fn block(&mut self, inner: &mut Inner, with_device: bool) -> Range<Page> {
        let page = self.page;
        let run_end = page + self.run(inner) as Page;
        let asked = self.block.get_or_insert_with(|| {
            let Inner { around, table, streams, .. } = inner;
            let slot_of = |page| match table.get(page) {
                State::Slot(slot) => Some(slot),
                _ => None,
            };
            let mut block = around.of(page, run_end, |page| slot_of(page).is_some());
            if with_device {
                // A page that lies elsewhere on the device would take as long as this one. Where some are in the pool and some there, it is
                // more than one request all the same: without these, java took a quarter longer.
                let is_next =
                    |page: &Page| slot_of(*page - 1).is_some_and(|slot| slot_of(*page) == Some(slot + 1));
                block = page..(page + 1..block.end).take_while(is_next).last().unwrap_or(page) + 1;
            }
            streams.came_up_to(block.end);
            block
        });
        asked.clone()
    }
}

/// The page that was wanted could not be loaded.
enum Failed {
    /// There was no memory to decompress it with.
    ForNow,
    ForGood,
}

/// The thread of one memory.
pub(crate) struct Server {
    shared: Arc<Shared>,
    memory: Arc<Memory>,
    buffer: Vec<[u8; PAGE_SIZE]>,
    /// Room for messages, kept from one read to the next.
    messages: Vec<Message>,
    /// Faults that have to wait for room, or for an event to be over.
    waiting: Vec<Fault>,
    /// Since when there has been no room for them.
    waits_since: Option<Instant>,
    /// Pages that may come without any, since that was in vain: what is left may be locked, and then no room comes. New memory takes a
    /// microsecond a page: milliseconds would be many megabytes.
    without_room: usize,
    allowance: Allowance,
    /// What waits now need not wait for a turn any more.
    may_go: bool,
    /// Something older than what was heard is still to be heard.
    is_unsettled: bool,
    /// Of who waits for what is served now.
    wake: Wake,
}

impl Server {
    pub(crate) fn new(shared: Arc<Shared>, memory: Arc<Memory>) -> Server {
        Server {
            shared,
            memory,
            buffer: vec![[0; PAGE_SIZE]; WINDOW],
            messages: Vec::with_capacity(MESSAGES),
            waiting: Vec::new(),
            waits_since: None,
            without_room: 0,
            allowance: Allowance::new(),
            may_go: false,
            is_unsettled: false,
            wake: Wake::Now,
        }
    }

    /// Serves until the memory ends.
    pub(crate) fn run(mut self) {
        let memory = self.memory.clone();
        let mut fds = vec![PollFd::new(&memory.uffd, PollFlags::IN)];
        fds.extend(memory.ended.as_ref().map(|ended| PollFd::new(ended, PollFlags::IN)));
        // Where there was no descriptor left that could tell of the end, it is looked for.
        let look = memory.ended.is_none().then_some(&LOOK);
        let mut beside = Beside::new();
        let mut has_woken = false;
        let mut waits_for_turn = false;
        loop {
            // An event that makes a fault wait is over when the thread that caused it ran on; it has been woken.
            let pause = if waits_for_turn { ASK_AGAIN } else { EVENT_PAUSE };
            let pause = Timespec { tv_sec: 0, tv_nsec: i64::from(pause.subsec_nanos()) };
            let limit = if self.waiting.is_empty() && !self.is_unsettled { look } else { Some(&pause) };
            // A thread that was woken on this CPU has run meanwhile, and its next fault is there.
            let has_waited = std::mem::take(&mut has_woken);
            let polled = if has_waited { Ok(1) } else { poll(&mut fds, limit) };
            let is_told = || fds.get(1).is_some_and(|ended| !ended.revents().is_empty());
            let has_left = || !self.shared.books.lock().has(&memory);
            if polled.is_ok() && is_told() || polled == Ok(0) && look.is_some() && has_left() {
                beside.disturbed();
                beside.tell(&self.shared.taken);
                self.shared.turns.leave(memory.number);
                return;
            }
            let mut inner = memory.inner.lock();
            self.settle_overtaken(&mut inner);
            let mut messages = std::mem::take(&mut self.messages);
            let mut unread = false;
            loop {
                match memory.uffd.read(|message| messages.push(message)) {
                    // A read that was not full took all there was.
                    Ok(taken) if taken < MESSAGES => break,
                    Ok(_) => {}
                    Err(_) => {
                        // A fork for which we have no descriptor left: it stays first in line, and its parent waits, until
                        // another process has ended.
                        unread = true;
                        break;
                    }
                }
            }
            if has_waited && messages.is_empty() {
                drop(inner);
                self.messages = messages;
                beside.is_alone(memory.proc.get().map(Arc::as_ref));
                continue;
            }
            let mut last_thread = None;
            for message in messages.drain(..) {
                match message {
                    Message::Fault { address, write, thread } => {
                        last_thread = Some(thread);
                        beside.begin(thread);
                        let page = page_of(address);
                        if self.waiting.iter().any(|fault| (fault.page, fault.write) == (page, write)) {
                            // Another thread wants it, too; or this one had a signal meanwhile, and would ask again and again for as long as that is
                            // pending, where it is in a system call.
                            self.may_go = true;
                            continue;
                        }
                        self.shared.counters.faults.add(1);
                        self.waiting.push(Fault { page, write, run: None, block: None });
                    }
                    event => {
                        beside.disturbed();
                        self.apply(&mut inner, event);
                    }
                }
            }
            self.settle_overtaken(&mut inner);
            self.is_unsettled = !inner.overtaken.is_empty();
            if unread {
                MutexGuard::unlocked(&mut inner, || std::thread::sleep(UNREAD_PAUSE));
            }
            if self.waiting.is_empty() {
                self.waits_since = None;
                self.messages = messages;
                continue;
            }
            if !self.may_go {
                let cap = self.shared.budget.cap();
                self.may_go = self.shared.turns.may_go(&memory, &inner, cap, &mut self.allowance);
            }
            if !self.may_go {
                if !std::mem::replace(&mut waits_for_turn, true) {
                    self.shared.counters.turns_waited_for.add(1);
                }
                beside.disturbed();
                beside.tell(&self.shared.taken);
                self.waits_since = None;
                self.messages = messages;
                continue;
            }
            waits_for_turn = false;
            // Who takes memory waits until there is some. Events were read before: nothing could leave otherwise.
            let since = *self.waits_since.get_or_insert_with(Instant::now);
            if !self.shared.budget.is_over() {
                self.without_room = 0;
            } else if self.without_room == 0 {
                if since.elapsed() < ROOM_LIMIT {
                    drop(inner);
                    // Whoever comes before others everywhere is not to hold what the pool locks.
                    if beside.is_idle() || !self.shared.help_to_store() {
                        self.shared.budget.wait_for_room(ROOM_LIMIT / 20);
                    }
                    continue;
                }
                // All that wait have so much together.
                let memories = self.shared.books.lock().memories().len().max(1);
                self.without_room = (self.shared.budget.step() as usize / PAGE_SIZE / memories).max(1);
            }
            let mut waiting = std::mem::take(&mut self.waiting);
            // Who is woken comes before us then: no lock is to be held, and nobody else to wait.
            if waiting.len() > 1 {
                beside.disturbed();
            }
            let later = waiting.first().map(|fault| fault.page).filter(|_| beside.is_idle());
            self.wake = if later.is_some() { Wake::Later } else { Wake::Now };
            let before = inner.resident;
            waiting.retain_mut(|fault| !self.fault(&mut inner, fault));
            self.without_room = self.without_room.saturating_sub(inner.resident.saturating_sub(before));
            self.waiting = waiting;
            drop(inner);
            self.shared.turns.waited(since.elapsed());
            self.waits_since = None;
            if self.waiting.is_empty() {
                self.may_go = false;
                self.shared.turns.served(memory.number);
            }
            self.messages = messages;
            if let Some(thread) = last_thread {
                beside.end(memory.proc.get().map(Arc::as_ref), thread);
            }
            beside.tell(&self.shared.taken);
            if let Some(page) = later.filter(|_| self.waiting.is_empty()) {
                memory.uffd.wake(address_of(page), 1);
                has_woken = true;
            }
        }
    }

    /// Serves a fault. `false`: not now, an event has to be over first.
    fn fault(&mut self, inner: &mut MutexGuard<'_, Inner>, fault: &mut Fault) -> bool {
        match inner.table.get(fault.page) {
            State::Slot(_) => self.bring_in(inner, fault),
            State::Busy(at) => self.turn_back(inner, fault.page, at),
            State::Unknown | State::Resident(_) | State::Removed(_) => self.first_touch(inner, fault),
        }
    }

    /// A page that is in the cache, those behind it if faults come in a run, and those around it that are wanted as a rule.
    fn bring_in(&mut self, inner: &mut MutexGuard<'_, Inner>, fault: &mut Fault) -> bool {
        let page = fault.page;
        let with_device = self.shared.with_device.load(Relaxed);
        let run_end = page + fault.run(inner) as Page;
        let block = fault.block(inner, with_device);
        let wanted = (page..block.end.max(run_end)).chain(block.start..page);
        let in_slot = |page| match inner.table.get(page) {
            State::Slot(slot) => Some((page, slot)),
            _ => None,
        };
        let mut found: Vec<(Page, u32)> = wanted.filter_map(in_slot).take(WINDOW).collect();
        let takes_long = found.len() > 1 || with_device;
        // Where everything is brought back, pages leave their slots all the time.
        let loaded = if takes_long && !inner.draining {
            // The evictor needs the lock twice a batch, and is not to wait for this.
            let left_slots = inner.table.left_slots();
            let loaded = MutexGuard::unlocked(inner, || self.load(&found, with_device));
            if inner.table.left_slots() != left_slots {
                // A slot may hold another page by now.
                return false;
            }
            loaded
        } else {
            self.load(&found, with_device)
        };
        match loaded {
            Ok(loaded) => found.truncate(loaded),
            Err(Failed::ForNow) => return false,
            Err(Failed::ForGood) => return self.shared.lose(&self.memory, inner, page),
        }
        let mut is_there = false;
        let mut at = 0;
        while at < found.len() {
            let first = found[at].0;
            let run = found[at..].iter().zip(first..).take_while(|((page, _), next)| page == next).count();
            let (run, outcome) = self.copy(first, &self.buffer[at..at + run]);
            let done = match outcome {
                Put::Done => run,
                // Something is there already, and newer than what we have.
                Put::Exists(done) => done + 1,
                Put::Again(done) => done,
                Put::Gone | Put::Dead | Put::NoMemory => 0,
            };
            is_there |= at == 0 && (done > 0 || matches!(outcome, Put::Gone | Put::Dead));
            match outcome {
                Put::Exists(done) => self.memory.uffd.wake(address_of(first + done as Page), 1),
                // It is not ours any more: whoever waits is to look again.
                Put::Gone => self.memory.uffd.wake(address_of(first), 1),
                _ => {}
            }
            self.shared.restored(&self.memory, inner, &found[at..at + done]);
            if done < run && !matches!(outcome, Put::Exists(_)) {
                break;
            }
            at += done;
        }
        if is_there {
            self.shared.counters.prefetched_pages.add(found.len() - 1);
        }
        is_there
    }

    /// Loads pages into the buffer. Returns how many, from the first on: all until one that cannot be loaded.
    fn load(&mut self, wanted: &[(Page, u32)], with_device: bool) -> Result<usize, Failed> {
        let (mut at, mut run_end) = (0, 0);
        while let (Some(&(page, slot)), Some(room)) = (wanted.get(at), self.buffer.get_mut(at..)) {
            // Neighbours in memory that are neighbours in the swap file come by one request.
            if with_device && at >= run_end {
                let neighbours = (page..).zip(slot..=u32::MAX);
                run_end =
                    at + wanted[at..].iter().zip(neighbours).take_while(|(one, next)| *one == next).count();
            }
            let mut loaded = 0;
            let begun = with_device.then(Instant::now);
            if at + 1 < run_end {
                let run = room.len().min(run_end - at);
                loaded = self.shared.cache.load_from_device(self.shared.entry(slot), &mut room[..run]);
            }
            if loaded == 0
                && let Some(buffer) = room.first_mut()
            {
                // Kept until it is surely there.
                match self.shared.cache.load(self.shared.entry(slot), buffer, Keep::Always) {
                    Ok(Some(Source::Cache)) => {
                        if with_device {
                            let age = self.shared.books.lock().slots.age(slot);
                            self.shared.pool_size.came_back(age);
                        }
                        at += 1;
                        continue;
                    }
                    Ok(Some(Source::Device)) => loaded = 1,
                    Err(LoadError::NoMemory) if at == 0 => return Err(Failed::ForNow),
                    _ if at == 0 => return Err(Failed::ForGood),
                    _ => {}
                }
            }
            if loaded == 0 {
                break;
            }
            if let Some(begun) = begun {
                self.shared.pool_size.were_read(loaded, begun.elapsed());
            }
            at += loaded;
        }
        Ok(at)
    }

    /// Puts pages where they belong. A run that goes over a border between two mappings is cut to its first page. Returns how
    /// many it was about.
    fn copy(&self, first: Page, pages: &[[u8; PAGE_SIZE]]) -> (usize, Put) {
        let copy = |pages| self.memory.uffd.copy_and(self.wake, address_of(first), pages);
        match copy(pages) {
            Put::Gone if pages.len() > 1 => (1, copy(&pages[..1])),
            outcome => (pages.len(), outcome),
        }
    }

    /// A page of the batch under way: it goes straight back.
    fn turn_back(&mut self, inner: &mut Inner, page: Page, at: u32) -> bool {
        let Some(batch) = inner.batch.clone() else { return false };
        // Not read yet: soon.
        let Some(content) = batch.content(at as usize) else { return false };
        match self.memory.uffd.copy_and(self.wake, address_of(page), std::slice::from_ref(content)) {
            Put::Done => {}
            Put::Exists(_) => self.memory.uffd.wake(address_of(page), 1),
            Put::Again(_) | Put::NoMemory => return false,
            Put::Gone | Put::Dead => {
                self.memory.uffd.wake(address_of(page), 1);
                return true;
            }
        }
        // It was wanted while it was on its way out: it is worth keeping.
        let stamp = self.shared.books.lock().policy.admit(self.memory.number, page, Some(0));
        inner.table.set(page, State::Resident(stamp));
        inner.resident += 1;
        self.shared.budget.add(PAGE_SIZE as u64);
        true
    }

    /// A page without content: zeros.
    fn first_touch(&mut self, inner: &mut Inner, fault: &mut Fault) -> bool {
        self.shared.counters.zero_faults.add(1);
        let page = fault.page;
        let address = address_of(page);
        if !fault.write {
            // The kernel's own page of zeros; it takes no memory until somebody writes.
            let outcome = self.memory.uffd.zeropage(self.wake, address, 1);
            match outcome {
                Put::Done => {
                    if matches!(inner.table.set(page, State::Unknown), State::Resident(_)) {
                        inner.resident = inner.resident.saturating_sub(1);
                    }
                }
                Put::Exists(_) => self.memory.uffd.wake(address, 1),
                Put::Again(_) | Put::NoMemory => return false,
                Put::Gone | Put::Dead => self.memory.uffd.wake(address, 1),
            }
            return true;
        }
        let window = fault.run(inner).min(FIRST_TOUCH) as Page;
        let end = self.end_of_region(inner, address).map_or(page + 1, page_of);
        let fresh = (page..(page + window).min(end))
            .take_while(|&ahead| ahead == page || inner.table.get(ahead) == State::Unknown)
            .count();
        let (fresh, outcome) = self.copy(page, &ZEROS[..fresh]);
        let done = match outcome {
            Put::Done => fresh,
            Put::Exists(0) => {
                self.memory.uffd.wake(address, 1);
                return true;
            }
            Put::Exists(done) | Put::Again(done) if done > 0 => done,
            Put::Again(_) | Put::NoMemory | Put::Exists(_) => return false,
            Put::Gone | Put::Dead => {
                self.memory.uffd.wake(address, 1);
                return true;
            }
        };
        let mut books = self.shared.books.lock();
        for page in page..page + done as Page {
            let stamp = books.policy.admit(self.memory.number, page, None);
            if !matches!(inner.table.set(page, State::Resident(stamp)), State::Resident(_)) {
                inner.resident += 1;
            }
        }
        drop(books);
        self.shared.budget.add((done * PAGE_SIZE) as u64);
        true
    }

    fn end_of_region(&self, inner: &Inner, address: u64) -> Option<u64> {
        let (_, &end) = inner.regions.range(..=address).next_back()?;
        (end > address).then_some(end)
    }

    /// A change of the memory.
    fn apply(&mut self, inner: &mut MutexGuard<'_, Inner>, event: Message) {
        match event {
            Message::Fault { .. } => {}
            Message::Fork(child) => {
                // The parent runs on already: the sooner it is asked, the less it can have changed.
                let absent = self.not_inherited(inner);
                self.settle(inner);
                self.fork(inner, child, absent);
            }
            Message::Remap { from, to, len } => {
                self.settle(inner);
                self.remap(inner, from, to, len);
            }
            Message::Remove { start, end } => {
                self.shared.forget(inner, start, end);
                self.mark_removed(inner, start, end);
            }
            Message::Unmap { start, end } => {
                let (parts, older) = inner.overtaken.unmapped(start..end);
                self.shared.release_older(older);
                for part in parts {
                    self.shared.forget(inner, part.start, part.end);
                    inner.cut_region(part.start, part.end);
                }
            }
        }
    }

    /// Waits until no batch is under way: its pages are under numbers that the event changes.
    fn settle(&self, inner: &mut MutexGuard<'_, Inner>) {
        inner.events_wait = true;
        while inner.batch.is_some() {
            self.memory.settled.wait(inner);
        }
        inner.events_wait = false;
    }

    /// Pages that are present now may be those that the kernel is about to drop.
    fn mark_removed(&self, inner: &mut Inner, start: u64, end: u64) {
        let now = self.shared.seconds();
        let scanned = self.memory.proc.get().map(|proc| {
            proc.mapped(start, end, |address, pages| {
                for page in page_of(address)..page_of(address) + pages {
                    inner.table.set(page, State::Removed(now));
                }
            })
        });
        if !matches!(scanned, Some(Ok(()))) {
            // Not to be looked at now: nothing of this memory is newly taken for resident until the drop is surely over.
            inner.blind_until = Some(Instant::now() + crate::discover::REMOVAL);
        }
    }

    fn remap(&self, inner: &mut Inner, from: u64, to: u64, len: u64) {
        if from == to {
            return;
        }
        let mut moved = Vec::new();
        let (parts, older) = inner.overtaken.moved(from..from + len);
        for pages in older.into_iter().filter_map(|older| older.pages) {
            inner.resident += pages.iter().filter(|(_, state)| matches!(state, State::Resident(_))).count();
            moved.extend(pages);
        }
        for part in parts {
            inner.table.take(page_of(part.start), page_of(part.end), |page, state| moved.push((page, state)));
            inner.cut_region(part.start, part.end);
        }
        // That it is unmapped is said apart; or it stays, with MREMAP_DONTUNMAP, and nothing more is said.
        inner.overtaken.left(from..from + len);
        // What is known of the new place has been unmapped or moved before, which is not heard of yet.
        for place in inner.registered(to, to + len) {
            let mut replaced = Vec::new();
            let (first, end) = (page_of(place.start), page_of(place.end));
            inner.table.take(first, end, |page, state| replaced.push((page, state)));
            let resident = replaced.iter().filter(|(_, state)| matches!(state, State::Resident(_))).count();
            inner.resident = inner.resident.saturating_sub(resident);
            inner.overtaken.replaced(place, replaced);
        }
        self.shared.forget(inner, to, to + len);
        let mut books = self.shared.books.lock();
        for (page, state) in moved {
            let page = page - page_of(from) + page_of(to);
            let state = match state {
                State::Resident(_) => State::Resident(books.policy.admit(self.memory.number, page, None)),
                other => other,
            };
            inner.table.set(page, state);
        }
        drop(books);
        inner.add_region(to, to + len);
    }

    /// Lets go of what was only kept until all has been heard, if it has.
    fn settle_overtaken(&self, inner: &mut Inner) {
        if !inner.overtaken.is_empty() && self.memory.uffd.is_registered(self.memory.probe).is_some() {
            let older = inner.overtaken.settle();
            self.shared.release_older(older);
        }
    }

    /// What a child that was forked just now finds empty, and what it may not have at all, if anything is out that it could be given. The event
    /// does not tell, and for the child nobody knows a number yet; the parent has the same mappings, but for what its other
    /// threads change at this moment.
    fn not_inherited(&self, inner: &Inner) -> [Vec<Range<Page>>; 2] {
        const TRIES: usize = 100;
        let mut is_any_out = false;
        inner.table.for_each(|_, state| is_any_out |= matches!(state, State::Slot(_) | State::Busy(_)));
        let proc = self.memory.proc.get().filter(|_| is_any_out);
        let absent = proc.and_then(|proc| {
            (0..TRIES).find_map(|_| {
                let absent = proc.not_inherited().ok();
                if absent.is_none() && proc.resident().is_some() {
                    // It may be a descriptor that is missing, until another process has ended.
                    std::thread::sleep(UNREAD_PAUSE);
                }
                absent
            })
        });
        // A parent that has ended (daemons), or executes another program, has these no more. What it had a second ago is as good, most often.
        let absent = absent.filter(|_| !self.memory.uffd.is_dead(self.memory.probe));
        let absent = absent.unwrap_or_else(|| [inner.wiped.clone(), Vec::new()]);
        absent.map(|ranges| ranges.iter().map(|range| page_of(range.start)..page_of(range.end)).collect())
    }

    /// The child has the same pages out; it is served from the same slots.
    fn fork(&self, inner: &mut Inner, child: OwnedFd, [wiped, left_out]: [Vec<Range<Page>>; 2]) {
        self.shared.counters.forks.add(1);
        self.memory.has_forked.store(true, Relaxed);
        // What is registered in the child, it is asked when it is looked through. These books may be ahead of the fork, and
        // of other threads' changes behind it.
        let mut copy = Inner::default();
        let mut lost = Vec::new();
        let child = Uffd::from(child);
        let is_in = |ranges: &[Range<Page>], page: Page| ranges.iter().any(|range| range.contains(&page));
        // Whether the mark was there before the fork, the child knows: it has the page or not.
        let is_absent = |page: Page| {
            is_in(&wiped, page)
                || is_in(&left_out, page) && child.is_registered(address_of(page)) == Some(false)
        };
        let mut books = self.shared.books.lock();
        inner.table.for_each(|page, state| match state {
            // There the child has zeros, or nothing.
            _ if is_absent(page) => {}
            State::Slot(slot) => {
                books.slots.share(slot);
                copy.table.set(page, state);
            }
            // The parent was ended because its batch could not be read.
            State::Busy(_) => lost.push(page),
            _ => {}
        });
        drop(books);
        let is_poisoned = |&page: &Page| match child.poison(address_of(page)) {
            Ok(()) => true,
            // Nothing is missing there.
            Err(error) => matches!(error.raw_os_error(), Some(libc::EEXIST | libc::ENOENT | libc::ESRCH)),
        };
        if !lost.iter().all(is_poisoned) {
            // With the descriptor open and nobody there, who touches a page waits, and reads no zeros.
            std::mem::forget(child);
            return self.shared.tell("pages of a forked process are lost; it stands still");
        }
        self.shared.adopt(child, self.memory.probe, copy);
    }
}

impl Shared {
    /// Content of a range is nobody's any more.
    pub(crate) fn forget(&self, inner: &mut Inner, start: u64, end: u64) {
        let mut slots = Vec::new();
        let mut resident = 0;
        inner.table.take(page_of(start), page_of(end), |_, state| match state {
            State::Slot(slot) => slots.push(slot),
            State::Resident(_) => resident += 1,
            _ => {}
        });
        inner.resident = inner.resident.saturating_sub(resident);
        self.release_all(&slots);
    }

    /// What was at a place before something else was, and is nobody's any more.
    pub(crate) fn release_older(&self, older: Vec<Older>) {
        let states = older.into_iter().filter_map(|older| older.pages).flatten().map(|(_, state)| state);
        let slots: Vec<_> = states.filter_map(State::slot).collect();
        self.release_all(&slots);
    }

    /// A page that is lost: its user is told by the kernel. `false`: it cannot be now, because an event is unread or there is no memory.
    pub(crate) fn lose(&self, memory: &Memory, inner: &mut Inner, page: Page) -> bool {
        let poisoned = memory.uffd.poison(address_of(page));
        let why = poisoned.map_err(|error| error.raw_os_error().unwrap_or(0));
        // Something newer is there, or nobody is left who could ask for it.
        let is_moot = matches!(why, Err(libc::EEXIST | libc::ENOENT | libc::ESRCH));
        if why.is_err() && !is_moot {
            return false;
        }
        if let State::Slot(slot) = inner.table.set(page, State::Unknown) {
            self.release(slot);
        }
        if !is_moot {
            self.counters.lost_pages.add(1);
            self.tell(
                "a page could not be read back from the cache or its swap file; the program gets SIGBUS",
            );
        }
        memory.uffd.wake(address_of(page), 1);
        true
    }

    /// Pages came back into `memory` from these slots.
    pub(crate) fn restored(&self, memory: &Memory, inner: &mut Inner, pages: &[(Page, u32)]) {
        if pages.is_empty() {
            return;
        }
        let mut books = self.books.lock();
        for &(page, slot) in pages {
            let age = books.slots.age(slot);
            let stamp = books.policy.admit(memory.number, page, Some(age));
            inner.table.set(page, State::Resident(stamp));
            books.release(slot);
        }
        let leave_it = books.emptied.len() < MOST_EMPTIED;
        drop(books);
        if !leave_it {
            self.drop_emptied();
        }
        inner.resident += pages.len();
        inner.around.came(pages.len());
        memory.came.fetch_add(pages.len(), Relaxed);
        self.counters.restored_pages.add(pages.len());
        self.budget.add((pages.len() * PAGE_SIZE) as u64);
    }

    /// One user less of each slot.
    pub(crate) fn release_all(&self, slots: &[u32]) {
        if slots.is_empty() {
            return;
        }
        let mut books = self.books.lock();
        slots.iter().for_each(|&slot| books.release(slot));
        drop(books);
        self.drop_emptied();
    }

    /// Drops what is in slots that nobody has any more; they are free then.
    pub(crate) fn drop_emptied(&self) {
        let emptied = std::mem::take(&mut self.books.lock().emptied);
        if emptied.is_empty() {
            return;
        }
        emptied.iter().for_each(|&slot| self.cache.invalidate_page(self.entry(slot)));
        let mut books = self.books.lock();
        emptied.iter().for_each(|&slot| books.slots.free(slot));
    }

    pub(crate) fn release(&self, slot: u32) {
        self.release_all(&[slot]);
    }

    /// Ends the process of a memory that could only go on with a wrong page.
    pub(crate) fn kill(&self, memory: &Memory) {
        let pid = memory.proc.get().and_then(|proc| i32::try_from(proc.pid()).ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}
