//! Storing a page: frontswap's `store`.
//!
//! ```text
//! 1 enabled?                         no: refuse
//! 2 below the limit?                 no: make room (2012, 3.11) or refuse and wake the shrink worker
//! 3 same-filled?                     yes: the word is the content, go to 6
//! 4 checksum, compress               too large: raw, or refuse
//! 5 allocate an object, copy
//! 6 publish: index and age in one step, replacing an older entry
//! R refused: drop the older entry
//! ```
//!
//! Step R is what keeps an old copy from being written back over newer data later. A page is never half stored: until
//! step 6 nobody can find it, and from then on it can be loaded, written back and invalidated.

use std::sync::atomic::Ordering::Relaxed;

use zcomp::{CompressError, PAGE_SIZE, Page};
use zpool::MallocError;

use crate::area::{Area, Device, Extent, Object, RUN, Removed};
use crate::cache::{SwapEntry, Zswap};
use crate::checksum;
use crate::entry::{Entry, What};
use crate::error::Refusal;
use crate::profile::{Eviction, SameFilled};
use crate::same_filled;
use crate::stats::Counter;
use crate::sync::MutexGuard;
use crate::tree::TreeKind;
use crate::worker::{HEADER, Worker};

/// How much a store tries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// What parameters and profile allow.
    Policy,
    /// Anything below the limit: there is nowhere else for the page to go.
    LastResort,
}

impl Zswap {
    /// Stores `page` as the content of `entry`. A refusal drops an older copy too: the caller then holds the only one.
    pub fn store(&self, entry: SwapEntry, page: &Page) -> Result<(), Refusal> {
        let area = self.area(entry.swap_type).ok_or(Refusal::NoArea)?;
        self.try_store(area, entry, page).inspect_err(|_| {
            self.drop_entry(area, entry.offset);
        })
    }

    /// [`Zswap::store`] without step R. The refusal is counted.
    pub(crate) fn try_store(&self, area: &Area, entry: SwapEntry, page: &Page) -> Result<(), Refusal> {
        let result = self.store_by_policy(area, entry, page);
        if let Err(refusal) = result {
            self.count_refusal(refusal);
            if self.full.load(Relaxed) && self.profile.rules.eviction == Eviction::Worker {
                self.requests.shrink();
            }
        }
        result
    }

    fn store_by_policy(&self, area: &Area, entry: SwapEntry, page: &Page) -> Result<(), Refusal> {
        if !self.live.enabled.load(Relaxed) {
            return Err(Refusal::Disabled);
        }
        let worker = self.admit(entry.swap_type)?;
        let put = self.put(worker, area, entry, page, Effort::Policy);
        if put == Err(Refusal::AllocFail)
            && self.profile.rules.eviction == Eviction::StoreOldest
            && self.evict_oldest(entry.swap_type) > 0
        {
            let again = || self.put(self.workers.one(), area, entry, page, Effort::Policy);
            let mut put = again();
            if put == Err(Refusal::AllocFail) {
                // What was freed is of other sizes. Whole pages given back to the system could be had again.
                self.compact();
                put = again();
            }
            if put.is_ok() {
                self.count(Counter::SavedByWriteback);
            }
            return put;
        }
        put
    }

    /// Lets a store in where the pool is below its limit or room can be made.
    fn admit(&self, swap_type: u8) -> Result<MutexGuard<'_, Worker>, Refusal> {
        let max = self.max_bytes();
        let worker = self.workers.one();
        let held = self.held_bytes(&worker);
        if held < max {
            if self.full.load(Relaxed) {
                if held > self.live.accept_bytes(max) {
                    return Err(Refusal::Hysteresis);
                }
                self.full.store(false, Relaxed);
            }
            return Ok(worker);
        }
        drop(worker);
        self.count(Counter::PoolLimitHit);
        let eviction = self.profile.rules.eviction;
        if eviction == Eviction::Worker {
            self.full.store(true, Relaxed);
            return Err(Refusal::PoolLimit);
        }
        const ROUNDS: usize = 8;
        for _ in 0..ROUNDS {
            let evicted = match eviction {
                Eviction::StoreAllocatorPage => self.evict_allocator_page(),
                _ => self.evict_oldest(swap_type),
            };
            if evicted == 0 {
                break;
            }
            self.compact();
            let worker = self.workers.one();
            if self.held_bytes(&worker) < max {
                return Ok(worker);
            }
        }
        Err(Refusal::ReclaimFail)
    }

    /// Steps 3 to 6.
    pub(crate) fn put<'a>(
        &'a self,
        mut worker: MutexGuard<'a, Worker>,
        area: &Area,
        entry: SwapEntry,
        page: &Page,
        effort: Effort,
    ) -> Result<(), Refusal> {
        let what = match self.same_filled(page, effort) {
            Some(word) => What::Same { word },
            None if effort == Effort::Policy && !self.live.non_same_filled_pages_enabled.load(Relaxed) => {
                return Err(Refusal::NonSameFilled);
            }
            None => match self.put_object(&mut worker, area, entry, page, effort) {
                Err(Refusal::CompressPoor | Refusal::CompressFail) if effort == Effort::LastResort => {
                    drop(worker);
                    let number = self.fallback_pool().ok_or(Refusal::AllocFail)?;
                    worker = self.workers.one();
                    put_raw(&worker, number, page)?
                }
                what => what?,
            },
        };
        let published = self.publish_entry(&worker, area, entry.offset, what);
        if published.is_err()
            && let What::Pool { pool, handle, .. } = what
        {
            self.free(&worker, Object { pool, handle });
        }
        self.publish_sometimes(&mut worker);
        let replaced_in = published?;
        if let Some(number) = replaced_in
            && Zswap::is_drained(&worker, number)
        {
            drop(worker);
            self.retire_drained();
        }
        Ok(())
    }

    fn same_filled(&self, page: &Page, effort: Effort) -> Option<u64> {
        let wanted = match self.profile.rules.same_filled {
            SameFilled::None => return None,
            SameFilled::Zero => same_filled::word_of(page).filter(|word| *word == 0),
            SameFilled::Any => same_filled::word_of(page),
        };
        wanted.filter(|_| effort == Effort::LastResort || self.live.same_filled_pages_enabled.load(Relaxed))
    }

    /// Steps 4 and 5: the object that holds `page`, which no entry names yet.
    fn put_object(
        &self,
        worker: &mut Worker,
        area: &Area,
        entry: SwapEntry,
        page: &Page,
        effort: Effort,
    ) -> Result<What, Refusal> {
        let checksum = checksum::of(page);
        let number = worker.pools.current();
        let (pool, context, out) = worker.tools(number).ok_or(Refusal::KmemcacheFail)?;
        let header = pool.header;
        let room = out.get_mut(header..header + PAGE_SIZE).ok_or(Refusal::CompressFail)?;
        let len = match context.compress(page, room) {
            Ok(len) if len > 0 && len < PAGE_SIZE => {
                let ratio = self.live.max_compression_ratio.load(Relaxed) as usize;
                if effort == Effort::Policy && len * 100 > ratio * PAGE_SIZE {
                    return Err(Refusal::CompressPoor);
                }
                len
            }
            _ if effort == Effort::LastResort
                || self.profile.rules.raw_incompressible && may_write_back(area) =>
            {
                room.copy_from_slice(page);
                PAGE_SIZE
            }
            Ok(_) | Err(CompressError::NoRoom) if !self.profile.rules.raw_incompressible => {
                return Err(Refusal::CompressPoor);
            }
            _ => return Err(Refusal::CompressFail),
        };
        if header > 0 {
            out[..HEADER].copy_from_slice(&object_header(entry));
        }
        let bytes = &out[..header + len];
        let handle = pool.zpool.put(bytes).map_err(refusal_of)?;
        Ok(What::Pool { pool: number, handle, len: u16_of(len), checksum })
    }

    /// Step 6. Returns the pool in which a replaced entry's object was freed.
    fn publish_entry(
        &self,
        worker: &Worker,
        area: &Area,
        offset: u32,
        what: What,
    ) -> Result<Option<u8>, Refusal> {
        let mut state = area.state.lock();
        let on = state.on.as_mut().filter(|on| offset < on.pages).ok_or(Refusal::NoArea)?;
        let stamp = on.stamp();
        let referenced = self.profile.rules.store_references;
        let replaced = on.tree.insert(offset, Entry { what, referenced, stamp }).map_err(|_| {
            // In a tree of nodes, the node is the entry; a leaf of many entries is the index (kernel 6.10).
            if self.tree == TreeKind::Rbtree { Refusal::KmemcacheFail } else { Refusal::AllocFail }
        })?;
        let freed = replaced.as_ref().and_then(|old| state.release(old));
        area.note_bytes(&state);
        drop(state);
        self.count(Counter::Zswpout);
        self.gauge_in(&what);
        if let Some(old) = replaced {
            self.count(Counter::DuplicateEntry);
            self.gauge_out(&old.what);
        }
        if let Some(object) = freed {
            self.free(worker, object);
        }
        Ok(freed.map(|object| object.pool))
    }

    /// Step R, and an invalidate: forgets what the cache or the device holds for a slot. Returns whether there was
    /// anything.
    pub(crate) fn drop_entry(&self, area: &Area, offset: u32) -> bool {
        let worker = self.workers.one();
        let mut state = area.state.lock();
        let Some(entry) = state.on.as_mut().and_then(|on| on.tree.remove(offset)) else { return false };
        let freed = state.release(&entry);
        area.note_bytes(&state);
        drop(state);
        self.finish_removal(worker, &entry, freed);
        true
    }

    /// [`Zswap::drop_entry`] for the slots of `extent`, [`RUN`] at most, and in the same step notes that they are about to be written on the
    /// device. Returns that device; it stays the swap type's until the write ends. `None`: it has none by now, and nothing is noted.
    pub(crate) fn drop_and_begin_write(&self, area: &Area, extent: Extent) -> Option<Device> {
        let mut state = Zswap::wait_for_writes(area, area.state.lock(), extent);
        let on = state.on.as_ref().filter(|on| extent.end() <= u64::from(on.pages));
        let device = on.and_then(|on| on.device.clone());
        let mut removed: [Option<Removed>; RUN] = [None; RUN];
        for (offset, removed) in (extent.first..=u32::MAX).take(extent.count as usize).zip(&mut removed) {
            if let Some(entry) = state.on.as_mut().and_then(|on| on.tree.remove(offset)) {
                *removed = Some((entry, state.release(&entry)));
            }
        }
        if device.is_some() {
            state.begin_write(extent);
        }
        area.note_bytes(&state);
        drop(state);
        self.finish_removals(&removed);
        device
    }

    /// [`Zswap::finish_removal`] of each.
    pub(crate) fn finish_removals(&self, removed: &[Option<Removed>]) {
        for (entry, freed) in removed.iter().flatten() {
            self.finish_removal(self.workers.one(), entry, *freed);
        }
    }

    /// What follows once an entry is out of its index: gauges, its object, and its pool if it was the last.
    pub(crate) fn finish_removal(
        &self,
        mut worker: MutexGuard<'_, Worker>,
        entry: &Entry,
        freed: Option<Object>,
    ) {
        self.gauge_out(&entry.what);
        if let Some(object) = freed {
            self.free(&worker, object);
        }
        self.publish_sometimes(&mut worker);
        if freed.is_some_and(|object| Zswap::is_drained(&worker, object.pool)) {
            drop(worker);
            self.retire_drained();
        }
    }

    pub(crate) fn gauge_in(&self, what: &What) {
        self.gauge(what, 1);
    }

    pub(crate) fn gauge_out(&self, what: &What) {
        self.gauge(what, 1u64.wrapping_neg());
    }

    fn gauge(&self, what: &What, amount: u64) {
        let stats = self.stats();
        match *what {
            What::Pool { len, .. } => {
                stats.add(Counter::StoredPages, amount);
                stats.add(Counter::CompressedBytes, amount.wrapping_mul(u64::from(len)));
                if usize::from(len) == PAGE_SIZE {
                    stats.add(Counter::StoredIncompressiblePages, amount);
                }
            }
            What::Same { .. } => {
                stats.add(Counter::StoredPages, amount);
                stats.add(Counter::SameFilledPages, amount);
            }
            What::Device { .. } => stats.add(Counter::DevicePages, amount),
            What::Damaged => {}
        }
    }
}

/// Keeps `page` as it is in pool `number`.
fn put_raw(worker: &Worker, number: u8, page: &Page) -> Result<What, Refusal> {
    let pool = worker.pools.get(number).ok_or(Refusal::AllocFail)?;
    let handle = pool.zpool.put(page).map_err(refusal_of)?;
    Ok(What::Pool { pool: number, handle, len: u16_of(PAGE_SIZE), checksum: checksum::of(page) })
}

fn refusal_of(error: MallocError) -> Refusal {
    match error {
        MallocError::TooBig { .. } => Refusal::CompressPoor,
        _ => Refusal::AllocFail,
    }
}

/// Whether what is stored raw can leave again.
fn may_write_back(area: &Area) -> bool {
    area.state
        .lock()
        .on
        .as_ref()
        .and_then(|on| on.device.as_ref())
        .is_some_and(|device| device.error().is_none())
}

/// The header that 3.11 puts in front of an object: type and offset.
fn object_header(entry: SwapEntry) -> [u8; HEADER] {
    (u64::from(entry.swap_type) << 32 | u64::from(entry.offset)).to_le_bytes()
}

/// The entry that an object's header names.
pub(crate) fn entry_of_header(object: &[u8]) -> Option<SwapEntry> {
    let header = u64::from_le_bytes(*object.first_chunk()?);
    Some(SwapEntry {
        swap_type: u8::try_from(header >> 32).ok()?,
        offset: u32::try_from(header & u64::from(u32::MAX)).ok()?,
    })
}

/// A length of at most a page.
fn u16_of(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::refusal;
    use crate::{Keep, Options, Param, Placed, Profile};

    const AT: SwapEntry = SwapEntry { swap_type: 0, offset: 1 };

    fn cache(tree: TreeKind) -> Zswap {
        let mut options = Options::new(Profile::named("default").unwrap());
        options.params = vec![("tree".into(), tree.name().into())];
        options.ram_bytes = 1 << 30;
        let cache = Zswap::new(options).unwrap();
        cache.swapon(0, 64, Some(std::sync::Arc::new(swapfile::Memory::new(64, 64).unwrap()))).unwrap();
        cache
    }

    fn is_empty(cache: &Zswap) -> bool {
        let gauges =
            [Counter::StoredPages, Counter::DevicePages, Counter::PoolTotalSize, Counter::CompressedBytes];
        !cache.contains(AT) && gauges.into_iter().all(|gauge| cache.counter(gauge) == 0)
    }

    /// An index without memory refuses the page, by the name the kernel had for it, and nothing is left.
    #[test]
    fn an_index_without_memory_refuses() {
        for (tree, expected, counted) in [
            (TreeKind::Radix, Refusal::AllocFail, Counter::RejectAllocFail),
            (TreeKind::Rbtree, Refusal::KmemcacheFail, Counter::RejectKmemcacheFail),
        ] {
            for page in [std::array::from_fn(|at| (at % 50) as u8), [7; PAGE_SIZE]] {
                let cache = cache(tree);
                refusal::after(Some(0));
                assert_eq!(cache.store(AT, &page), Err(expected), "{tree}");
                assert_eq!(refusal::after(None), None);
                assert_eq!(cache.counter(counted), 1, "{tree}");
                assert!(is_empty(&cache), "{tree}");
                // The layer around puts the page onto the device, for which there is memory again.
                refusal::after(Some(0));
                assert_eq!(cache.swap_out(AT, &page), Ok(Placed::Device(expected)), "{tree}");
                assert_eq!(refusal::after(None), None);
                let mut out = [0; PAGE_SIZE];
                assert!(cache.load(AT, &mut out, Keep::Always).unwrap().is_some() && out == page);
                cache.invalidate_page(AT);
                assert!(is_empty(&cache), "{tree}");
            }
        }
    }

    /// A page that is on the device and in no index would be lost: it stays in RAM, once there is memory for its entry, or
    /// its writer is told.
    #[test]
    fn a_direct_write_without_memory_for_the_entry_is_no_write() {
        for tree in TreeKind::ALL {
            let cache = cache(tree);
            cache.set(Param::Enabled, "N").unwrap();
            refusal::after(Some(0));
            assert_eq!(cache.swap_out(AT, &[7; PAGE_SIZE]), Ok(Placed::Fallback), "{tree}");
            assert_eq!(refusal::after(None), None);
            let mut out = [0; PAGE_SIZE];
            assert!(cache.load(AT, &mut out, Keep::Always).unwrap().is_some() && out == [7; PAGE_SIZE]);
            cache.invalidate_page(AT);
            assert!(is_empty(&cache), "{tree}");
            assert_eq!(cache.device_error(0), None, "the device is fine");
        }
    }
}
