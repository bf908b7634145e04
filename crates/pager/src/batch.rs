//! Pages on their way from a program into the cache, and the work of storing them.
//!
//! To compress is most of what eviction costs. So it is work that can be shared: a batch is read from the program part by part, and
//! as soon as a part is there, every thread that has to wait until there is room takes a page of it, and another; the evictor
//! too, once all is read.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use parking_lot::{Condvar, Mutex};
use zswap::PAGE_SIZE;

use crate::Shared;

/// Pages of a part.
pub(crate) const PART: usize = 64;

/// What the pages of a part contain. Of the last part, what is behind the batch means nothing.
pub(crate) type Part = Vec<[u8; PAGE_SIZE]>;

/// A batch under way. Its pages are numbered from 0.
pub(crate) struct Batch {
    /// Where each page is to go. `None`: it was not moved out.
    slots: Vec<Option<u32>>,
    /// Not before they were read from the program.
    parts: Vec<OnceLock<Part>>,
    next: AtomicUsize,
    stored: Vec<AtomicBool>,
}

impl Batch {
    fn new(slots: Vec<Option<u32>>) -> Batch {
        Batch {
            parts: slots.chunks(PART).map(|_| OnceLock::new()).collect(),
            next: AtomicUsize::new(0),
            stored: slots.iter().map(|_| AtomicBool::new(false)).collect(),
            slots,
        }
    }

    /// A part was read.
    pub(crate) fn publish(&self, number: usize, part: Part) {
        if let Some(place) = self.parts.get(number) {
            let _ = place.set(part);
        }
    }

    /// The content of a page, once it is known.
    pub(crate) fn content(&self, at: usize) -> Option<&[u8; PAGE_SIZE]> {
        self.slots.get(at)?;
        self.parts.get(at / PART)?.get()?.get(at % PART)
    }

    /// The slot that is meant for a page.
    fn meant(&self, at: usize) -> Option<u32> {
        self.slots.get(at).copied().flatten()
    }

    /// The slot in which a page is.
    pub(crate) fn slot(&self, at: usize) -> Option<u32> {
        self.meant(at).filter(|_| self.stored.get(at).is_some_and(|stored| stored.load(Relaxed)))
    }

    /// All slots that were meant for its pages.
    pub(crate) fn slots(&self) -> Vec<u32> {
        self.slots.iter().flatten().copied().collect()
    }

    /// The buffers again, if nobody else looks at them any more.
    pub(crate) fn into_parts(self) -> impl Iterator<Item = Part> {
        self.parts.into_iter().filter_map(OnceLock::into_inner)
    }

    /// Pages that have a slot and were not stored, neighbours in the program and in the swap file together: the number of the first,
    /// its slot, and what they contain.
    fn refused(&self) -> impl Iterator<Item = (usize, u32, &[[u8; PAGE_SIZE]])> {
        let is_refused = |at: usize| self.slot(at).is_none();
        let slot = move |at: usize| self.meant(at).filter(|_| is_refused(at));
        let mut next = 0;
        std::iter::from_fn(move || {
            let first = (next..self.slots.len()).find_map(|at| Some((at, slot(at)?)));
            let (at, first) = first?;
            let end = self.slots.len().min(at / PART * PART + PART);
            let run = (at..end)
                .zip(first..=u32::MAX)
                .take_while(|&(at, expected)| slot(at) == Some(expected))
                .count();
            next = at + run;
            let part = self.parts.get(at / PART)?.get()?;
            Some((at, first, part.get(at % PART..at % PART + run)?))
        })
    }

    fn has_stored(&self, at: usize) {
        if let Some(stored) = self.stored.get(at) {
            stored.store(true, Relaxed);
        }
    }

    /// Stores pages until none is left that is known and that nobody has taken. Whether there was any.
    fn work(&self, store: impl Fn(u32, &[u8; PAGE_SIZE]) -> bool) -> bool {
        let mut has_worked = false;
        let known = |at| self.content(at).map(|_| at + 1);
        while let Ok(at) = self.next.fetch_update(Relaxed, Relaxed, known) {
            has_worked = true;
            if let (Some(slot), Some(content), Some(stored)) =
                (self.meant(at), self.content(at), self.stored.get(at))
            {
                stored.store(store(slot, content), Relaxed);
            }
        }
        has_worked
    }

    /// Whether somebody has taken each page.
    fn is_taken(&self) -> bool {
        self.next.load(Relaxed) >= self.slots.len()
    }

    /// The slots that were meant for pages and have none.
    fn unused(&self) -> Vec<u32> {
        let unused = |(at, slot): (usize, &Option<u32>)| slot.filter(|_| self.slot(at).is_none());
        self.slots.iter().enumerate().filter_map(unused).collect()
    }
}

/// Slots that are not free and hold nothing yet. What is left of them at the end is free again.
pub(crate) struct Reserved<'a> {
    shared: &'a Shared,
    slots: Vec<u32>,
}

impl Reserved<'_> {
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.shared.release_all(&self.slots);
    }
}

/// The batch that is being stored, for whoever wants to help.
#[derive(Default)]
pub(crate) struct Storing {
    now: Mutex<Now>,
    /// The last helper left.
    alone: Condvar,
}

#[derive(Default)]
struct Now {
    batch: Option<Arc<Batch>>,
    helpers: usize,
}

impl Storing {
    /// From now on others may store what is known of a batch.
    fn begin(&self, batch: &Arc<Batch>) {
        self.now.lock().batch = Some(batch.clone());
    }

    /// Nobody stores any more of it, nor will.
    fn end(&self) {
        let mut now = self.now.lock();
        now.batch = None;
        while now.helpers > 0 {
            self.alone.wait(&mut now);
        }
    }

    /// Takes part in what is being stored. Whether there was anything.
    fn help(&self, store: impl Fn(u32, &[u8; PAGE_SIZE]) -> bool) -> bool {
        let mut now = self.now.lock();
        let Some(batch) = now.batch.clone() else { return false };
        now.helpers += 1;
        drop(now);
        let has_helped = batch.work(store);
        let is_taken = batch.is_taken();
        drop(batch);
        let mut now = self.now.lock();
        now.helpers -= 1;
        if now.helpers == 0 {
            self.alone.notify_all();
        }
        if is_taken {
            // The evictor does not go on to another before this lock is free.
            now.batch = None;
        }
        has_helped
    }
}

impl Shared {
    /// Slots for so many pages that are about to be moved out, or for as many as there are slots.
    pub(crate) fn reserve(&self, pages: usize) -> Reserved<'_> {
        let mut books = self.books.lock();
        let mut slots: Vec<u32> = (0..pages).map_while(|_| books.slots.allocate()).collect();
        drop(books);
        // Neighbours stay neighbours: the swap file is written and read in runs.
        slots.sort_unstable();
        Reserved { shared: self, slots }
    }

    /// A batch of pages, of which `moved` tells whether they were moved out, no more than were reserved for. When they are read,
    /// those that wait for room store them.
    pub(crate) fn begin_batch(
        &self,
        mut reserved: Reserved<'_>,
        moved: impl Iterator<Item = bool>,
    ) -> Arc<Batch> {
        let mut free = std::mem::take(&mut reserved.slots).into_iter();
        let slots = moved.map(|moved| if moved { free.next() } else { None }).collect();
        reserved.slots = free.collect();
        let batch = Arc::new(Batch::new(slots));
        self.storing.begin(&batch);
        batch
    }

    /// Puts the pages of a batch into the cache, all of which were read. When this returns, all of it is done, and what has no place
    /// is [`Shared::keep`]'s or goes back.
    pub(crate) fn store(&self, batch: &Batch) {
        batch.work(|slot, page| self.place(slot, page));
        self.storing.end();
        // Without a device, a page that does not compress takes as much memory out there as in the program.
        if self.has_device() {
            self.write_out(batch);
        }
    }

    /// Puts a page that found no place into the cache all the same, whatever limits there are. Its slot; `None`: there is no memory
    /// for it.
    pub(crate) fn keep(&self, batch: &Batch, at: usize) -> Option<u32> {
        let (slot, content) = (batch.meant(at)?, batch.content(at)?);
        self.cache.keep(self.entry(slot), content).ok()?;
        batch.has_stored(at);
        Some(slot)
    }

    /// Every page of a batch is noted where it is: slots without a page are free.
    pub(crate) fn end_batch(&self, batch: &Batch) {
        self.release_all(&batch.unused());
    }

    /// Writes the pages that the cache refused to the swap file, neighbours by one request.
    fn write_out(&self, batch: &Batch) {
        for (first, slot, pages) in batch.refused() {
            let written = self.cache.write_through(self.entry(slot), pages).is_ok();
            for ((at, slot), page) in (first..).zip(slot..=u32::MAX).zip(pages) {
                if written || self.cache.swap_out(self.entry(slot), page).is_ok() {
                    batch.has_stored(at);
                }
            }
        }
    }

    /// Gives up a batch that could not be read.
    pub(crate) fn give_up_batch(&self, batch: &Batch) {
        self.storing.end();
        self.release_all(&batch.slots());
    }

    /// Takes part in what the evictor stores. Whether there was anything to do.
    pub(crate) fn help_to_store(&self) -> bool {
        self.storing.help(|slot, page| self.place(slot, page))
    }

    fn place(&self, slot: u32, page: &[u8; PAGE_SIZE]) -> bool {
        self.cache.store(self.entry(slot), page).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn each_page_is_stored_once_and_none_is_under_way_afterwards() {
        const PAGES: usize = 3 * PART;
        let storing = Storing::default();
        let over = AtomicBool::new(false);
        let helped = AtomicU32::new(0);
        let counts: Vec<AtomicU32> = (0..PAGES).map(|_| AtomicU32::new(0)).collect();
        // Every seventh was not moved, every fifth finds no place.
        let store = |slot: u32, page: &[u8; PAGE_SIZE]| {
            assert_eq!(page[0], slot as u8);
            std::thread::yield_now();
            counts[slot as usize].fetch_add(1, Relaxed);
            !slot.is_multiple_of(5)
        };
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !over.load(Relaxed) {
                        helped.fetch_add(u32::from(storing.help(store)), Relaxed);
                    }
                });
            }
            let mut round = 0;
            // Until there was enough help for it to mean something.
            while round < 500 || helped.load(Relaxed) < 100 {
                round += 1;
                let slots = (0..PAGES as u32).map(|at| (at % 7 != 0).then_some(at)).collect();
                let batch = Arc::new(Batch::new(slots));
                storing.begin(&batch);
                for number in 0..PAGES / PART {
                    let first = number * PART;
                    batch.publish(number, (first..first + PART).map(|at| [at as u8; PAGE_SIZE]).collect());
                    std::thread::yield_now();
                    let next = batch.next.load(Relaxed);
                    assert!(next <= first + PART, "page {next} was stored before it was read");
                }
                batch.work(store);
                storing.end();
                for (at, count) in counts.iter().enumerate() {
                    let moved = at % 7 != 0;
                    assert_eq!(count.swap(0, Relaxed), u32::from(moved), "page {at}");
                    assert_eq!(batch.slot(at).is_some(), moved && at % 5 != 0, "page {at}");
                }
                let unused = (0..PAGES as u32).filter(|at| at % 7 != 0 && at % 5 == 0);
                assert_eq!(batch.unused(), unused.collect::<Vec<_>>());
                assert_eq!(
                    Arc::into_inner(batch).map(|batch| batch.into_parts().count()),
                    Some(PAGES / PART)
                );
            }
            over.store(true, Relaxed);
        });
    }
}
