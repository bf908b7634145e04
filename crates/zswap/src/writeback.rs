//! Writeback: moving the oldest entries from the pool to the device of their swap type. It can be thought of as finishing
//! a swap-out that the cache had put off.
//!
//! ```text
//! 1 under the lock: take candidates, oldest first; one that was referenced is made young instead;
//!   pin the others and note their slots of the device as being written
//! 2 restore the pages into the batch, check their checksums
//! 3 write them, runs of neighbours in one request
//! 4 under the lock: an entry that is still the same one becomes a device entry; the pin ends
//! ```
//!
//! Until step 4 the page is in the pool and is loaded from there, so a failed or half done write loses nothing, and there
//! is no moment at which the page is in neither place. An invalidate or a new store between 1 and 4 wins: the entry is then
//! not the same, and what was written is garbage in a slot that nobody reads. That it stays garbage which nobody reads is
//! what the noted slots are for: the next write to the slot starts after this one ended.

use swapfile::SwapDevice;
use zcomp::{PAGE_SIZE, Page};

use crate::area::{Area, Extent, Object};
use crate::cache::Zswap;
use crate::checksum;
use crate::entry::{Entry, What};
use crate::error::LoadError;
use crate::stats::Counter;
use crate::store::entry_of_header;

/// Pages written back in one go.
pub(crate) const BATCH: usize = if cfg!(shuttle) { 2 } else { 32 };

/// How far one go came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Progress {
    /// Entries that left the pool.
    pub written: usize,
    /// Entries that could not be written or restored.
    pub failed: usize,
}

/// An entry on its way out.
#[derive(Clone, Copy)]
struct Leaving {
    offset: u32,
    entry: Entry,
    object: Object,
    len: usize,
    checksum: u32,
    /// Step 2 worked.
    restored: bool,
    /// Step 3 worked.
    written: bool,
}

/// The memory of a batch.
pub(crate) struct Batch {
    leaving: Vec<Leaving>,
    pages: Vec<Page>,
}

impl Batch {
    pub(crate) fn new() -> Batch {
        Batch { leaving: Vec::with_capacity(BATCH), pages: vec![[0; PAGE_SIZE]; BATCH] }
    }

    pub(crate) const BYTES: usize = BATCH * (PAGE_SIZE + size_of::<Leaving>());
}

impl Zswap {
    /// Writes back up to [`BATCH`] of the oldest entries of `area`.
    pub(crate) fn write_back(&self, area: &Area, batch: &mut Batch, most: usize) -> Progress {
        let mut progress = Progress::default();
        batch.leaving.clear();
        let mut state = area.state.lock();
        // Each entry is looked at twice at most: once to be made young, once to leave.
        let mut looks = state.on.as_ref().map_or(0, |on| 2 * on.tree.len());
        while batch.leaving.len() < most.min(BATCH) && looks > 0 {
            looks -= 1;
            let Some(on) = state.on.as_mut() else { break };
            if on.device.as_ref().is_none_or(|device| device.error().is_some()) {
                break;
            }
            let Some(candidate) = on.lru.pop_oldest(&*on.tree) else { break };
            let Some(entry) = on.tree.get(candidate.offset).filter(|entry| entry.stamp == candidate.stamp)
            else {
                continue;
            };
            if entry.referenced {
                rejuvenate(&mut state, candidate.offset);
            } else {
                // One that is on its way out already is left alone, and stays as old as it is: a scan in the middle of a batch
                // names the entries of that batch again.
                begin_leaving(&mut state, batch, candidate.offset, entry);
            }
        }
        area.note_bytes(&state);
        drop(state);
        self.finish_leaving(area, batch, &mut progress);
        progress
    }

    /// Writes back these entries of `area`, if they still are what they were.
    fn write_back_these(&self, area: &Area, batch: &mut Batch, which: &[(u32, Object)]) -> Progress {
        let mut progress = Progress::default();
        batch.leaving.clear();
        let mut state = area.state.lock();
        for &(offset, object) in which {
            let Some(entry) = state.on.as_ref().and_then(|on| on.tree.get(offset)) else { continue };
            if !matches!(entry.what, What::Pool { pool, handle, .. } if (Object { pool, handle }) == object) {
                continue;
            }
            if !begin_leaving(&mut state, batch, offset, entry) {
                progress.failed += 1;
            }
        }
        drop(state);
        self.finish_leaving(area, batch, &mut progress);
        progress
    }

    /// Steps 2 to 4.
    fn finish_leaving(&self, area: &Area, batch: &mut Batch, progress: &mut Progress) {
        let Batch { leaving, pages } = batch;
        if leaving.is_empty() {
            return;
        }
        leaving.sort_unstable_by_key(|leaving| leaving.offset);
        let mut worker = self.workers.one();
        for (leaving, page) in leaving.iter_mut().zip(pages.iter_mut()) {
            let Leaving { object, len, checksum, .. } = *leaving;
            let restored = worker.restore(object.pool, object.handle, len, page);
            leaving.restored = restored.is_ok() && checksum::of(page) == checksum;
            if restored != Err(LoadError::NoMemory) && !leaving.restored {
                self.count(Counter::DecompressFail);
            }
        }
        drop(worker);
        let device = area.state.lock().on.as_ref().and_then(|on| on.device.clone());
        if let Some(device) = device {
            self.write_runs(&device, leaving, pages);
        }
        let worker = self.workers.one();
        let mut state = area.state.lock();
        let mut freed = [None; BATCH];
        for (leaving, freed) in leaving.iter_mut().zip(&mut freed) {
            let Leaving { offset, entry, checksum, .. } = *leaving;
            state.end_write(Extent { first: offset, count: 1 });
            let same = |on: &crate::area::On| {
                on.tree.get(offset).is_some_and(|now| now.stamp == entry.stamp && now.what == entry.what)
            };
            let still_there = state.on.as_ref().is_some_and(same);
            if leaving.written && still_there {
                if let Some(on) = state.on.as_mut() {
                    on.tree.update(offset, &mut |entry| entry.what = What::Device { checksum });
                }
                state.release(&entry);
                progress.written += 1;
            } else {
                leaving.written = false;
                if still_there {
                    progress.failed += 1;
                    rejuvenate(&mut state, offset);
                }
            }
            *freed = state.unpin(leaving.object);
        }
        area.note_bytes(&state);
        drop(state);
        area.quiet.notify_all();
        let mut drained = false;
        for object in freed.into_iter().flatten() {
            self.free(&worker, object);
            drained |= Zswap::is_drained(&worker, object.pool);
        }
        drop(worker);
        for leaving in leaving.iter().filter(|leaving| leaving.written) {
            self.gauge_out(&leaving.entry.what);
            self.gauge_in(&What::Device { checksum: leaving.checksum });
            self.count(Counter::WrittenBackPages);
            self.count(Counter::Zswpwb);
        }
        if drained {
            self.retire_drained();
        }
    }

    /// Step 3: neighbours on the device go in one request.
    fn write_runs(&self, device: &crate::area::Device, leaving: &mut [Leaving], pages: &[Page]) {
        let mut at = 0;
        while at < leaving.len() {
            let run = leaving[at..]
                .iter()
                .zip(u64::from(leaving[at].offset)..)
                .take_while(|(leaving, expected)| leaving.restored && u64::from(leaving.offset) == *expected)
                .count();
            if run == 0 {
                at += 1;
                continue;
            }
            let written = device.write_pages(u64::from(leaving[at].offset), &pages[at..at + run]).is_ok();
            if !written {
                self.count(Counter::DeviceErrors);
            }
            for leaving in &mut leaving[at..at + run] {
                leaving.written = written;
            }
            at += run;
        }
    }

    /// 2012: a store makes room itself. Writes back up to 16 of the oldest entries of its swap type and returns how many.
    pub(crate) fn evict_oldest(&self, swap_type: u8) -> usize {
        const MOST: usize = 16;
        let Some(area) = self.area(swap_type) else { return 0 };
        self.requests.with_batch(|batch| self.write_back(area, batch, MOST).written)
    }

    /// 3.11: the allocator names its oldest page, and what is in it is written back; the first failure ends the page, which
    /// then goes to the young end. Up to 8 pages are tried. Returns how many entries were written back.
    pub(crate) fn evict_allocator_page(&self) -> usize {
        const TRIES: usize = 8;
        for _ in 0..TRIES {
            let worker = self.workers.one();
            let number = worker.pools.current();
            let Some(pool) = worker.pools.get(number).cloned() else { return 0 };
            drop(worker);
            let Some(handles) = pool.zpool.oldest_page() else { return 0 };
            let mut written = 0;
            let mut whole = true;
            for &handle in &handles {
                let mut owner = None;
                // The header may be of an object that is being replaced: the index decides whether it is still the one.
                let read = pool.zpool.obj_read(handle, &mut |bytes| owner = entry_of_header(bytes));
                let Some(entry) = owner.filter(|_| read.is_ok()) else { continue };
                let Some(area) = self.area(entry.swap_type) else { continue };
                let which = [(entry.offset, Object { pool: number, handle })];
                let progress = self.requests.with_batch(|batch| self.write_back_these(area, batch, &which));
                written += progress.written;
                if progress.written == 0 {
                    whole = false;
                    break;
                }
            }
            if whole && written > 0 {
                return written;
            }
            if let Some(&handle) = handles.first() {
                pool.zpool.rotate_page(handle);
            }
        }
        0
    }

    /// Compacts all pools and returns the pages that this gave back.
    pub(crate) fn compact(&self) -> usize {
        let pools: Vec<_> = self.workers.one().pools.iter().map(|(_, pool)| pool.clone()).collect();
        let pages = pools.iter().map(|pool| pool.zpool.compact()).sum();
        self.stats().add(Counter::CompactedPages, pages as u64);
        pages
    }
}

/// Makes the entry at `offset` the youngest and forgets that it was referenced.
fn rejuvenate(state: &mut crate::area::State, offset: u32) {
    let Some(on) = state.on.as_mut() else { return };
    let stamp = on.stamp();
    on.tree.update(offset, &mut |entry| {
        entry.stamp = stamp;
        entry.referenced = false;
    });
}

/// Step 1 for one entry. `false`: it cannot leave now.
fn begin_leaving(state: &mut crate::area::State, batch: &mut Batch, offset: u32, entry: Entry) -> bool {
    let slot = Extent { first: offset, count: 1 };
    let What::Pool { pool, handle, len, checksum } = entry.what else { return false };
    if state.is_writing(slot) {
        return false;
    }
    let object = Object { pool, handle };
    state.pin(object);
    state.begin_write(slot);
    batch.leaving.push(Leaving {
        offset,
        entry,
        object,
        len: usize::from(len),
        checksum,
        restored: false,
        written: false,
    });
    true
}
