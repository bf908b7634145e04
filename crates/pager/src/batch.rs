//! Pages on their way from a program into the cache, and the work of storing them.
//!
//! To compress is most of what eviction costs. So it is work that can be shared: the evictor begins, and every thread that has
//! to wait until there is room takes a page of the batch, and another, until none is left.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use parking_lot::{Condvar, Mutex};
use zswap::PAGE_SIZE;

use crate::Shared;

/// What the pages of a batch contain, and where they are to go.
struct Filled {
    content: Vec<[u8; PAGE_SIZE]>,
    /// Of each page; `None`: it was not moved out, or there is no slot for it.
    slots: Vec<Option<u32>>,
}

/// A batch under way. Its pages are numbered from 0.
#[derive(Default)]
pub(crate) struct Batch {
    /// Not before it was read from the program.
    filled: OnceLock<Filled>,
    next: AtomicUsize,
    stored: Vec<AtomicBool>,
}

impl Batch {
    /// Of so many pages.
    pub(crate) fn new(pages: usize) -> Batch {
        Batch { stored: (0..pages).map(|_| AtomicBool::new(false)).collect(), ..Batch::default() }
    }

    /// The content of a page, once it is known.
    pub(crate) fn content(&self, at: usize) -> Option<&[u8; PAGE_SIZE]> {
        self.filled.get()?.content.get(at)
    }

    /// The slot in which a page is.
    pub(crate) fn slot(&self, at: usize) -> Option<u32> {
        let is_stored = self.stored.get(at)?.load(Relaxed);
        *self.filled.get()?.slots.get(at).filter(|_| is_stored)?
    }

    /// The buffer again, if nobody else looks at it any more.
    pub(crate) fn into_content(self) -> Vec<[u8; PAGE_SIZE]> {
        self.filled.into_inner().map(|filled| filled.content).unwrap_or_default()
    }

    /// Stores pages until none is left that nobody has taken.
    fn work(&self, store: impl Fn(u32, &[u8; PAGE_SIZE]) -> bool) {
        let Some(filled) = self.filled.get() else { return };
        loop {
            let at = self.next.fetch_add(1, Relaxed);
            let (Some(slot), Some(content), Some(stored)) =
                (filled.slots.get(at), filled.content.get(at), self.stored.get(at))
            else {
                return;
            };
            if let Some(slot) = *slot {
                stored.store(store(slot, content), Relaxed);
            }
        }
    }

    /// The slots that were meant for pages and have none.
    fn unused(&self) -> Vec<u32> {
        let slots = self.filled.get().map(|filled| filled.slots.as_slice()).unwrap_or_default();
        let unused = |(at, slot): (usize, &Option<u32>)| slot.filter(|_| self.slot(at).is_none());
        slots.iter().enumerate().filter_map(unused).collect()
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
    /// Stores a batch, with those who help. When this returns, all of it is done.
    fn run(&self, batch: &Arc<Batch>, store: impl Fn(u32, &[u8; PAGE_SIZE]) -> bool) {
        self.now.lock().batch = Some(batch.clone());
        batch.work(store);
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
        batch.work(store);
        drop(batch);
        let mut now = self.now.lock();
        now.helpers -= 1;
        if now.helpers == 0 {
            self.alone.notify_all();
        }
        // All of it is in work; the evictor does not go on to another before this lock is free.
        now.batch = None;
        true
    }
}

impl Shared {
    /// Puts the moved pages of a batch into the cache; `moved` tells which those are.
    pub(crate) fn store(
        &self,
        batch: &Arc<Batch>,
        content: Vec<[u8; PAGE_SIZE]>,
        moved: impl Iterator<Item = bool>,
    ) {
        let moved: Vec<bool> = moved.collect();
        let mut books = self.books.lock();
        let wanted = moved.iter().filter(|moved| **moved);
        let mut free: Vec<u32> = wanted.map_while(|_| books.slots.allocate()).collect();
        drop(books);
        // Neighbours stay neighbours: the swap file is written and read in runs.
        free.sort_unstable();
        let mut free = free.into_iter();
        let slots = moved.into_iter().map(|moved| if moved { free.next() } else { None }).collect();
        let _ = batch.filled.set(Filled { content, slots });
        self.storing.run(batch, |slot, page| self.place(slot, page));
        self.release_all(&batch.unused());
    }

    /// Takes part in what the evictor stores. Whether there was anything to do.
    pub(crate) fn help_to_store(&self) -> bool {
        self.storing.help(|slot, page| self.place(slot, page))
    }

    fn place(&self, slot: u32, page: &[u8; PAGE_SIZE]) -> bool {
        // Without a device, a page that does not compress takes as much memory out there as in the program.
        if self.has_device() {
            self.cache.swap_out(self.entry(slot), page).is_ok()
        } else {
            self.cache.store(self.entry(slot), page).is_ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn each_page_is_stored_once_and_none_is_under_way_afterwards() {
        const PAGES: usize = 64;
        let storing = Storing::default();
        let over = AtomicBool::new(false);
        let helped = AtomicU32::new(0);
        let counts: Vec<AtomicU32> = (0..PAGES).map(|_| AtomicU32::new(0)).collect();
        // Every seventh was not moved, every fifth finds no place.
        let store = |slot: u32, page: &[u8; PAGE_SIZE]| {
            assert_eq!(usize::from(page[0]), slot as usize);
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
                let batch = Arc::new(Batch::new(PAGES));
                let content = (0..PAGES).map(|at| [at as u8; PAGE_SIZE]).collect();
                let slots = (0..PAGES as u32).map(|at| (at % 7 != 0).then_some(at)).collect();
                assert!(batch.filled.set(Filled { content, slots }).is_ok());
                storing.run(&batch, store);
                for (at, count) in counts.iter().enumerate() {
                    let moved = at % 7 != 0;
                    assert_eq!(count.swap(0, Relaxed), u32::from(moved), "page {at}");
                    assert_eq!(batch.slot(at).is_some(), moved && at % 5 != 0, "page {at}");
                }
                let unused = (0..PAGES as u32).filter(|at| at % 7 != 0 && at % 5 == 0);
                assert_eq!(batch.unused(), unused.collect::<Vec<_>>());
                assert_eq!(
                    Arc::into_inner(batch).map(Batch::into_content).map_or(0, |content| content.len()),
                    PAGES
                );
            }
            over.store(true, Relaxed);
        });
    }
}
