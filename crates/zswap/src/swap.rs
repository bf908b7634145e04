//! The swap layer around the cache: what the kernel's page I/O does around zswap.
//!
//! A page goes to the cache; if that refuses it, to the device; if there is none, it is kept in RAM below the limit
//! whatever the policy says, because there is nowhere else. A page that is put nowhere is reported, and then nothing older
//! is left to be mistaken for it.

use std::sync::atomic::Ordering::Relaxed;

use swapfile::{DeviceError, SwapDevice};
use zcomp::Page;

use crate::area::{Area, Extent, RUN, Removed};
use crate::cache::{SwapEntry, Zswap};
use crate::checksum;
use crate::entry::{Entry, What};
use crate::error::{Refusal, SwapOutError};
use crate::stats::Counter;
use crate::store::Effort;

/// Where a page went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placed {
    /// Into the cache.
    Cache,
    /// Into RAM, though the policy refused it: there is no device, or it failed.
    Fallback,
    /// Straight to the device, for this reason.
    Device(Refusal),
}

impl Zswap {
    /// Puts `page` where it will be found by [`Zswap::load`]: into the cache if that takes it, else onto the device. After an
    /// error neither this page nor an older one is held for `entry`.
    pub fn swap_out(&self, entry: SwapEntry, page: &Page) -> Result<Placed, SwapOutError> {
        let nowhere = |refusal| {
            self.count(Counter::SwapOutFail);
            Err(SwapOutError::NoDevice(refusal))
        };
        let Some(area) = self.area(entry.swap_type) else { return nowhere(Refusal::NoArea) };
        let refusal = match self.try_store(area, entry, page) {
            Ok(()) => return Ok(Placed::Cache),
            Err(refusal) => refusal,
        };
        // A device that failed is one that is not there: it takes nothing any more.
        let (exists, has_device) = {
            let state = area.state.lock();
            let on = state.on.as_ref().filter(|on| entry.offset < on.pages);
            let works = |on: &crate::area::On| on.device.as_ref().is_some_and(|it| it.error().is_none());
            (on.is_some(), on.is_some_and(works))
        };
        let failed = if has_device {
            match self.write_run(area, entry.offset, std::slice::from_ref(page)) {
                Ok(()) => return Ok(Placed::Device(refusal)),
                Err(error) => Some(error),
            }
        } else {
            None
        };
        let below_limit = self.held_bytes(&self.workers.one()) < self.max_bytes();
        let kept = if exists && below_limit {
            self.put(self.workers.one(), area, entry, page, Effort::LastResort)
        } else {
            Err(refusal)
        };
        let Err(last) = kept else { return Ok(Placed::Fallback) };
        self.drop_entry(area, entry.offset);
        self.count(Counter::SwapOutFail);
        Err(match failed {
            Some(error) => SwapOutError::Device(refusal, error),
            None if !exists => SwapOutError::NoDevice(Refusal::NoArea),
            None if !below_limit => SwapOutError::NoDevice(Refusal::PoolLimit),
            None => SwapOutError::NoDevice(last),
        })
    }

    /// Puts `page` into RAM whatever limit and policy say, for one that has no other place in the world. After an error (there is no
    /// memory, or no such slot) neither this page nor an older one is held for `entry`.
    pub fn keep(&self, entry: SwapEntry, page: &Page) -> Result<(), Refusal> {
        let area = self.area(entry.swap_type).ok_or(Refusal::NoArea)?;
        self.put(self.workers.one(), area, entry, page, Effort::LastResort).inspect_err(|_| {
            self.drop_entry(area, entry.offset);
        })
    }

    /// Puts neighbours from `first` on straight onto the device, in one request: pages that the cache refused. Older content of
    /// all of them is gone, whatever comes of it. After an error it is not told which of them are held now; what is, is right, and
    /// [`Zswap::swap_out`] of each finds another place for it or says that there is none.
    pub fn write_through(&self, first: SwapEntry, pages: &[Page]) -> Result<(), DeviceError> {
        let area = self.area(first.swap_type).ok_or(DeviceError::Io(libc::ENODEV))?;
        let mut result = Ok(());
        for (run, first) in pages.chunks(RUN).zip((first.offset..=u32::MAX).step_by(RUN)) {
            // Also after an error: older content goes.
            result = result.and(self.write_run(area, first, run));
        }
        result
    }

    /// [`Zswap::write_through`] of [`RUN`] pages at most. Their slots are noted as being written from the moment their older content is
    /// dropped until the new one is published, so a load in between waits instead of finding nothing.
    fn write_run(&self, area: &Area, first: u32, pages: &[Page]) -> Result<(), DeviceError> {
        debug_assert!(pages.len() <= RUN, "more than can be kept track of");
        let count = u32::try_from(pages.len()).map_err(|_| DeviceError::OutOfRange)?;
        let extent = Extent { first, count };
        let Some(device) = self.drop_and_begin_write(area, extent) else {
            // Switched off meanwhile.
            return Err(DeviceError::Io(libc::ENODEV));
        };
        let written = device.write_pages(u64::from(first), pages);
        let mut checksums = [0; RUN];
        for (checksum, page) in checksums.iter_mut().zip(pages) {
            *checksum = checksum::of(page);
        }
        let mut replaced: [Option<Removed>; RUN] = [None; RUN];
        let mut held = 0;
        let mut state = area.state.lock();
        let published = written.and_then(|()| {
            let new = (first..=u32::MAX).zip(checksums).take(pages.len());
            for ((offset, checksum), replaced) in new.zip(&mut replaced) {
                let on = state.on.as_mut().ok_or(DeviceError::Io(libc::ENODEV))?;
                let entry = Entry { what: What::Device { checksum }, referenced: false, stamp: on.stamp() };
                // Without memory for the entry nobody could find the page again: that is a failed write.
                let old = on.tree.insert(offset, entry).map_err(|_| DeviceError::Io(libc::ENOMEM))?;
                *replaced = old.map(|old| (old, state.release(&old)));
                held += 1;
            }
            Ok(())
        });
        state.end_write(extent);
        area.note_bytes(&state);
        drop(state);
        area.quiet.notify_all();
        self.finish_removals(&replaced);
        let stats = self.stats();
        stats.add(Counter::DevicePages, held);
        stats.add(Counter::DeviceWrites, held);
        if published.is_err() {
            self.count(Counter::DeviceErrors);
        }
        published
    }

    /// Whether the device of a swap type failed, and with which errno it did.
    pub fn device_error(&self, swap_type: u8) -> Option<i32> {
        let state = self.area(swap_type)?.state.lock();
        state.on.as_ref()?.device.as_ref()?.error()
    }

    /// Asks the device of a swap type to make everything written so far as safe as it can.
    pub fn flush(&self, swap_type: u8) -> Result<(), DeviceError> {
        let device = self
            .area(swap_type)
            .and_then(|area| area.state.lock().on.as_ref().and_then(|on| on.device.clone()));
        device.map_or(Ok(()), |device| device.flush())
    }

    /// Whether the pool is refusing stores until it comes down to its accept threshold.
    pub fn is_full(&self) -> bool {
        self.full.load(Relaxed)
    }
}
