//! Pools: an allocator and a compressor that belong together.
//!
//! Exactly one pool is current and takes new pages. Changing `compressor` or `zpool` makes another pair current; the pool
//! before it keeps its pages, with the compressor they were made by, until the last one leaves, and is then freed. Going
//! back to a pair that still drains revives its pool.

use std::sync::Arc;

use zcomp::Compressor;
use zpool::Zpool;

use crate::entry::POOLS;

/// One allocator and one compressor.
pub(crate) struct Pool {
    pub zpool: Arc<dyn Zpool>,
    pub compressor: Arc<dyn Compressor>,
    /// Bytes in front of each object: where the allocator drives eviction, an object tells whose it is (3.11).
    pub header: usize,
    /// It stays though it is not current and holds nothing: the fallback for pages that have nowhere else to go.
    pub fallback: bool,
}

/// The pools there are, by the number that entries hold. Every worker has a copy of this table, so that looking at it
/// takes no lock of its own; it is changed only while all workers are locked.
#[derive(Clone)]
pub(crate) struct Pools {
    slots: [Option<Arc<Pool>>; POOLS as usize],
    /// No pool has this number or a higher one: each store goes through all pools, and there is seldom more than one.
    end: u8,
    current: u8,
}

impl Pools {
    pub(crate) fn new(first: Pool) -> Pools {
        let mut slots = [const { None }; POOLS as usize];
        slots[0] = Some(Arc::new(first));
        Pools { slots, end: 1, current: 0 }
    }

    pub(crate) fn get(&self, number: u8) -> Option<&Arc<Pool>> {
        self.slots.get(usize::from(number))?.as_ref()
    }

    pub(crate) fn current(&self) -> u8 {
        self.current
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u8, &Arc<Pool>)> {
        (0..self.end).zip(&self.slots).filter_map(|(number, slot)| Some((number, slot.as_ref()?)))
    }

    /// The pool of this pair, if it is still here.
    pub(crate) fn find(&self, zpool: &str, compressor: &str) -> Option<u8> {
        self.iter()
            .find(|(_, pool)| {
                !pool.fallback && pool.zpool.driver() == zpool && pool.compressor.name() == compressor
            })
            .map(|(number, _)| number)
    }

    /// The pool for pages that have nowhere else to go, if it was ever needed.
    pub(crate) fn fallback(&self) -> Option<u8> {
        self.iter().find(|(_, pool)| pool.fallback).map(|(number, _)| number)
    }

    /// Adds a pool; `None` where every slot is taken.
    pub(crate) fn add(&mut self, pool: Pool) -> Option<u8> {
        let (number, slot) = (0..).zip(&mut self.slots).find(|(_, slot)| slot.is_none())?;
        *slot = Some(Arc::new(pool));
        self.end = self.end.max(number + 1);
        Some(number)
    }

    pub(crate) fn set_current(&mut self, number: u8) {
        self.current = number;
    }

    /// Forgets the pools that are not current and hold no object. Returns whether there were any.
    pub(crate) fn retire_drained(&mut self) -> bool {
        let mut retired = false;
        for (number, slot) in (0..).zip(&mut self.slots) {
            let drained = |pool: &Arc<Pool>| !pool.fallback && pool.zpool.total_pages() == 0;
            if number != self.current && slot.as_ref().is_some_and(drained) {
                *slot = None;
                retired = true;
            }
        }
        retired
    }

    /// Bytes of pool memory, all pools together.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.iter().map(|(_, pool)| pool.zpool.total_pages() as u64 * zpool::PAGE_SIZE as u64).sum()
    }

    /// Bytes the allocators hold beside that.
    pub(crate) fn metadata_bytes(&self) -> u64 {
        self.iter().map(|(_, pool)| pool.zpool.metadata_bytes() as u64).sum()
    }
}
