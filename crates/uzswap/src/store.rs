//! The cache as a block device's page store.

use std::sync::Arc;

use swapdev::{Errno, Page, PageStore};
use zswap::{Keep, SwapEntry, Zswap};

/// The swap type that the device is in its cache.
pub const SWAP_TYPE: u8 = 0;

/// Serves the pages of a cache.
pub struct CacheStore {
    cache: Arc<Zswap>,
    pages: u32,
}

impl CacheStore {
    /// The store of `pages` slots of `cache`, whose swap type [`SWAP_TYPE`] is on.
    pub fn new(cache: Arc<Zswap>, pages: u32) -> CacheStore {
        CacheStore { cache, pages }
    }

    fn entry(&self, page: u64) -> Result<SwapEntry, Errno> {
        match u32::try_from(page) {
            Ok(offset) if offset < self.pages => Ok(SwapEntry { swap_type: SWAP_TYPE, offset }),
            _ => Err(Errno::INVAL),
        }
    }
}

impl PageStore for CacheStore {
    fn pages(&self) -> u64 {
        u64::from(self.pages)
    }

    fn thread_start(&self) {
        self.cache.warm_up();
    }

    fn read(&self, page: u64, out: &mut Page) -> Result<(), Errno> {
        // Kept always: the kernel may drop a page that it has read and read the slot again.
        match self.cache.load(self.entry(page)?, out, Keep::Always) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => {
                out.fill(0);
                Ok(())
            }
            Err(error) => Err(Errno::from_raw_os_error(error.errno())),
        }
    }

    fn write(&self, page: u64, data: &Page) -> Result<(), Errno> {
        match self.cache.swap_out(self.entry(page)?, data) {
            Ok(_) => Ok(()),
            Err(error) => Err(Errno::from_raw_os_error(error.errno())),
        }
    }

    fn discard(&self, first: u64, count: u64) -> Result<(), Errno> {
        let count = u32::try_from(count.min(self.pages().saturating_sub(first))).map_err(|_| Errno::INVAL)?;
        self.cache.invalidate_range(self.entry(first)?, count);
        Ok(())
    }

    fn flush(&self) -> Result<(), Errno> {
        self.cache.flush(SWAP_TYPE).map_err(|error| Errno::from_raw_os_error(error.errno()))
    }
}
