//! Loading a page, and invalidating: frontswap's `load`, `invalidate_page` and `invalidate_area`.
//!
//! A load pins the object, restores the page outside the lock, and only then removes the entry: while a load is under
//! way every other load still finds the page. Whatever removes the entry meanwhile leaves the object alone until the pin
//! ends.

use std::sync::atomic::Ordering::Relaxed;

use zcomp::{PAGE_SIZE, Page};

use crate::area::{Area, Extent, Object, RUN, Removed};
use crate::cache::{SwapEntry, Zswap};
use crate::checksum;
use crate::entry::{Entry, What};
use crate::error::LoadError;
use crate::same_filled;
use crate::stats::Counter;

/// What a load does with an entry it finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// As `exclusive_loads` says: Y removes it. The caller's page is then the only copy.
    AsConfigured,
    /// Keeps it. A block device must: the kernel may drop a page it has read and read the slot again.
    Always,
}

/// Where a loaded page came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The pool, or the index for a same-filled page.
    Cache,
    /// The swap device.
    Device,
}

impl Zswap {
    /// Fills `page` with the last stored content of `entry`. `Ok(None)`: it is not here, and `page` is as it was. On an
    /// error the content of `page` is undefined and the entry is kept.
    pub fn load(&self, entry: SwapEntry, page: &mut Page, keep: Keep) -> Result<Option<Source>, LoadError> {
        let Some(area) = self.area(entry.swap_type) else { return Ok(None) };
        let remove = keep == Keep::AsConfigured && self.live.exclusive_loads.load(Relaxed);
        loop {
            let mut worker = self.workers.one();
            let mut state = area.state.lock();
            let Some(found) = state.on.as_ref().and_then(|on| on.tree.get(entry.offset)) else {
                drop(worker);
                // A refused page may be on its way to the device: it is not here yet, but it is not nowhere either.
                let extent = Extent { first: entry.offset, count: 1 };
                if state.is_writing(extent) {
                    drop(Zswap::wait_for_writes(area, state, extent));
                    continue;
                }
                return Ok(None);
            };
            match found.what {
                What::Pool { pool, handle, len, checksum } => {
                    let object = Object { pool, handle };
                    state.pin(object);
                    drop(state);
                    let restored = worker.restore(pool, handle, usize::from(len), page).and_then(|()| {
                        if checksum::of(page) == checksum { Ok(()) } else { Err(LoadError::Damaged) }
                    });
                    let mut state = area.state.lock();
                    let removed = self.settle(&mut state, entry.offset, &found, restored.is_ok(), remove);
                    if let Some(removed) = &removed {
                        state.release(removed);
                    }
                    let freed = state.unpin(object);
                    let quiet = state.is_quiet();
                    if removed.is_some() {
                        area.note_bytes(&state);
                    }
                    drop(state);
                    if quiet {
                        area.quiet.notify_all();
                    }
                    if let Some(object) = freed {
                        self.free(&worker, object);
                    }
                    if let Some(removed) = &removed {
                        self.gauge_out(&removed.what);
                    }
                    self.count(if restored.is_ok() { Counter::Zswpin } else { Counter::DecompressFail });
                    self.publish_sometimes(&mut worker);
                    if freed.is_some() && Zswap::is_drained(&worker, pool) {
                        drop(worker);
                        self.retire_drained();
                    }
                    return restored.map(|()| Some(Source::Cache));
                }
                What::Same { word } => {
                    let removed = self.settle(&mut state, entry.offset, &found, true, remove);
                    area.note_bytes(&state);
                    drop(state);
                    same_filled::fill(page, word);
                    if let Some(removed) = &removed {
                        self.gauge_out(&removed.what);
                    }
                    self.count(Counter::Zswpin);
                    return Ok(Some(Source::Cache));
                }
                What::Device { checksum } => {
                    let device = state.on.as_ref().and_then(|on| on.device.clone());
                    state.begin_read();
                    drop(state);
                    drop(worker);
                    // Read aside: if the entry goes meanwhile, this is a miss, and the caller's page stays as it is.
                    let mut content = [0; PAGE_SIZE];
                    let read = match device {
                        Some(device) => {
                            swapfile::SwapDevice::read_page(&*device, u64::from(entry.offset), &mut content)
                                .map_err(LoadError::Device)
                        }
                        None => Err(LoadError::Damaged),
                    };
                    let intact = read.is_ok() && checksum::of(&content) == checksum;
                    let mut state = area.state.lock();
                    state.end_read();
                    if state.is_quiet() {
                        area.quiet.notify_all();
                    }
                    let now = state.on.as_ref().and_then(|on| on.tree.get(entry.offset));
                    if !now.is_some_and(|now| now.stamp == found.stamp && now.what == found.what) {
                        // Another store, load or invalidate won, and may have changed the device under the read.
                        continue;
                    }
                    let removed = self.settle(&mut state, entry.offset, &found, intact, remove);
                    area.note_bytes(&state);
                    drop(state);
                    if let Some(removed) = &removed {
                        self.gauge_out(&removed.what);
                    }
                    if let Err(error) = read {
                        self.count(Counter::DeviceErrors);
                        return Err(error);
                    }
                    if !intact {
                        self.count(Counter::DecompressFail);
                        return Err(LoadError::Damaged);
                    }
                    *page = content;
                    self.count(Counter::DeviceReads);
                    self.recent_device_reads.fetch_add(1, Relaxed);
                    return Ok(Some(Source::Device));
                }
                What::Damaged => {
                    self.count(Counter::DecompressFail);
                    return Err(LoadError::Damaged);
                }
            }
        }
    }

    /// Fills `pages` with the content of `first` and of the entries behind it, as far as they are on the device, by one request to
    /// it; all are kept. Returns how many, from the first on, are filled; what is in the others is undefined. What kept it from
    /// more, [`Zswap::load`] of the next one tells.
    pub fn load_from_device(&self, first: SwapEntry, pages: &mut [Page]) -> usize {
        let Some(area) = self.area(first.swap_type) else { return 0 };
        let offsets = first.offset..=u32::MAX;
        let mut state = area.state.lock();
        let Some(on) = state.on.as_ref() else { return 0 };
        let at_device = |offset| on.tree.get(offset).filter(|it| matches!(it.what, What::Device { .. }));
        let found: Vec<Entry> = offsets.clone().take(pages.len()).map_while(at_device).collect();
        let (Some(device), Some(pages)) = (on.device.clone(), pages.get_mut(..found.len())) else { return 0 };
        if found.is_empty() {
            return 0;
        }
        state.begin_read();
        drop(state);
        let read = swapfile::SwapDevice::read_pages(&*device, u64::from(first.offset), pages);
        let is_intact = |(entry, page): &(&Entry, &mut Page)| matches!(entry.what, What::Device { checksum } if checksum::of(page) == checksum);
        let intact = if read.is_ok() { found.iter().zip(pages).take_while(is_intact).count() } else { 0 };
        let mut state = area.state.lock();
        state.end_read();
        if state.is_quiet() {
            area.quiet.notify_all();
        }
        let mut loaded = 0;
        for (offset, found) in offsets.zip(&found).take(intact) {
            let now = state.on.as_ref().and_then(|on| on.tree.get(offset));
            // As in load: what is not the same any more may have changed on the device under the read.
            if !now.is_some_and(|now| now.stamp == found.stamp && now.what == found.what) {
                break;
            }
            self.settle(&mut state, offset, found, true, false);
            loaded += 1;
        }
        drop(state);
        self.stats().add(Counter::DeviceReads, loaded as u64);
        self.recent_device_reads.fetch_add(loaded as u64, Relaxed);
        loaded
    }

    /// After a load: removes the entry that was `found`, or notes that it was used. Nothing happens where the load failed
    /// or the entry is not the same any more. Returns what was removed.
    ///
    /// The same entry may have got younger meanwhile, or been written back: the object in the pool is pinned, so that none
    /// but the same entry can name it, and a page on the device with the same checksum has the content that was loaded.
    fn settle(
        &self,
        state: &mut crate::area::State,
        offset: u32,
        found: &Entry,
        loaded: bool,
        remove: bool,
    ) -> Option<Entry> {
        let on = state.on.as_mut()?;
        let is_same = |now: Entry| {
            now.what == found.what
                || match (found.what, now.what) {
                    (What::Pool { checksum: loaded, .. }, What::Device { checksum }) => loaded == checksum,
                    _ => false,
                }
        };
        if !loaded || !on.tree.get(offset).is_some_and(is_same) {
            return None;
        }
        if remove {
            return on.tree.remove(offset);
        }
        if !found.referenced {
            on.tree.update(offset, &mut |entry| entry.referenced = true);
        }
        None
    }

    /// Whether `entry` has content here, in the cache or on the device.
    pub fn contains(&self, entry: SwapEntry) -> bool {
        self.area(entry.swap_type).is_some_and(|area| {
            area.state.lock().on.as_ref().is_some_and(|on| on.tree.get(entry.offset).is_some())
        })
    }

    /// The slot's last user is gone: forgets its content. Missing is fine.
    pub fn invalidate_page(&self, entry: SwapEntry) {
        if self.area(entry.swap_type).is_some_and(|area| self.drop_entry(area, entry.offset)) {
            self.count(Counter::InvalidatedPages);
        }
    }

    /// Forgets `count` slots from `first` on, and tells the device about the ones it held.
    pub fn invalidate_range(&self, first: SwapEntry, count: u32) {
        let Some(area) = self.area(first.swap_type) else { return };
        let end = first.offset.saturating_add(count);
        let mut next = first.offset;
        while next < end {
            let mut removed: [Option<Removed>; RUN] = [None; RUN];
            let mut on_device: Option<(u32, u32)> = None;
            let worker = self.workers.one();
            let mut state = area.state.lock();
            for slot in &mut removed {
                let Some(on) = state.on.as_mut() else { return };
                let Some(offset) = on.tree.next_at(next).filter(|offset| *offset < end) else {
                    next = end;
                    break;
                };
                next = offset + 1;
                let Some(entry) = on.tree.remove(offset) else { continue };
                if matches!(entry.what, What::Device { .. }) {
                    on_device = Some(on_device.map_or((offset, offset), |(low, _)| (low, offset)));
                }
                *slot = Some((entry, state.release(&entry)));
            }
            let device = state.on.as_ref().and_then(|on| on.device.clone());
            // A write that is under way between the slots removed may be of a page stored after this invalidate began: its
            // slot must not be discarded, so nothing is.
            let extent = on_device
                .map(|(low, high)| Extent { first: low, count: high - low + 1 })
                .filter(|extent| !state.is_writing(*extent));
            if let Some(extent) = extent {
                state.begin_write(extent);
            }
            area.note_bytes(&state);
            drop(state);
            let mut drained = false;
            for (entry, freed) in removed.iter().flatten() {
                self.gauge_out(&entry.what);
                self.count(Counter::InvalidatedPages);
                if let Some(object) = freed {
                    self.free(&worker, *object);
                    drained |= Zswap::is_drained(&worker, object.pool);
                }
            }
            drop(worker);
            if drained {
                self.retire_drained();
            }
            if let (Some(extent), Some(device)) = (extent, device) {
                // Advice: what was discarded is not trusted either way, and a failure is latched by the device.
                let discarded =
                    swapfile::SwapDevice::discard(&*device, u64::from(extent.first), u64::from(extent.count));
                if discarded.is_err() {
                    self.count(Counter::DeviceErrors);
                }
                self.end_write(area, extent);
            }
        }
    }

    /// Switches a swap type off: forgets everything it held and refuses its stores. Returns when nothing is under way on
    /// its device any more.
    pub fn invalidate_area(&self, swap_type: u8) {
        let Some(area) = self.area(swap_type) else { return };
        let mut state = area.state.lock();
        let Some(on) = state.on.take() else { return };
        area.note_bytes(&state);
        while !state.is_quiet() {
            area.quiet.wait(&mut state);
        }
        drop(state);
        // Nothing is pinned and nobody can find the entries any more.
        let worker = self.workers.one();
        on.tree.for_each(&mut |_, entry| {
            self.gauge_out(&entry.what);
            if let What::Pool { pool, handle, .. } = entry.what {
                self.free(&worker, Object { pool, handle });
            }
        });
        drop(worker);
        drop(on);
        self.retire_drained();
        self.publish_gauges();
    }

    pub(crate) fn end_write(&self, area: &Area, extent: Extent) {
        area.state.lock().end_write(extent);
        area.quiet.notify_all();
    }
}
