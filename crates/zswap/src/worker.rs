//! Working memory of the threads, as the kernel has it per CPU.
//!
//! A worker holds what one operation needs: the table of pools, a compressor's context for each pool, and buffers. An
//! operation locks one worker from its beginning to its end. That makes the set of workers a sharded reader-writer lock
//! over the table of pools: whoever holds one may use the table, and whoever holds all may change it, knowing that no
//! operation is under way.
//!
//! Lock order: one worker (or all, in ascending order, by somebody who holds none), then an area, then locks inside a
//! zpool. Nobody waits for a device or a condition while holding a worker.

use crate::entry::POOLS;
use crate::error::LoadError;
use crate::pool::{Pool, Pools};
use crate::stats::thread_number;
use crate::sync::{Mutex, MutexGuard};
use zcomp::{Context, PAGE_SIZE, Page};

pub(crate) struct Worker {
    pub pools: Pools,
    contexts: Contexts,
    /// What the compressor makes of a page, behind room for an object header.
    pub out: Box<[u8; HEADER + PAGE_SIZE]>,
    /// Operations since the gauges were last published.
    pub unpublished: u32,
}

/// Bytes that 3.11 puts in front of an object: the swap entry it belongs to.
pub(crate) const HEADER: usize = 8;

impl Worker {
    fn new(pools: &Pools) -> Worker {
        Worker {
            pools: pools.clone(),
            contexts: Contexts { made: [const { None }; POOLS as usize], bytes: 0 },
            out: Box::new([0; HEADER + PAGE_SIZE]),
            unpublished: 0,
        }
    }

    /// Bytes that it holds.
    fn bytes(&self) -> usize {
        size_of::<Worker>() + HEADER + PAGE_SIZE + self.contexts.bytes
    }

    /// The pool of this number, a context of its compressor, and the output buffer. `None`: no memory for a context.
    pub(crate) fn tools(
        &mut self,
        number: u8,
    ) -> Option<(&Pool, &mut dyn Context, &mut [u8; HEADER + PAGE_SIZE])> {
        let pool = self.pools.get(number)?;
        let context = self.contexts.of(number, pool)?;
        Some((pool, context, &mut self.out))
    }

    /// Restores the page whose object in pool `number` is `handle`, `len` bytes of it being content.
    pub(crate) fn restore(
        &mut self,
        number: u8,
        handle: zpool::Handle,
        len: usize,
        page: &mut Page,
    ) -> Result<(), LoadError> {
        let pool = self.pools.get(number).ok_or(LoadError::Damaged)?;
        let mut context = match len {
            PAGE_SIZE => None,
            _ => Some(self.contexts.of(number, pool).ok_or(LoadError::NoMemory)?),
        };
        let mut read = Err(LoadError::Damaged);
        let found = pool.zpool.obj_read(handle, &mut |bytes| {
            let Some(data) = bytes.get(pool.header..pool.header + len) else { return };
            read = match &mut context {
                Some(context) => context.decompress(data, page).map_err(|_| LoadError::Damaged),
                None => {
                    page.copy_from_slice(data);
                    Ok(())
                }
            };
        });
        found.map_err(|_| LoadError::Damaged).and(read)
    }
}

/// A compressor's context for each pool, made when it is first needed.
struct Contexts {
    made: [Option<Box<dyn Context>>; POOLS as usize],
    /// Bytes that they hold.
    bytes: usize,
}

impl Contexts {
    /// That of pool `number`, which is `pool`. `None`: no memory for it.
    fn of(&mut self, number: u8, pool: &Pool) -> Option<&mut dyn Context> {
        let place = self.made.get_mut(usize::from(number))?;
        let context = match place {
            Some(context) => context,
            None => {
                let fresh = pool.compressor.context()?;
                self.bytes += fresh.memory_bytes();
                place.insert(fresh)
            }
        };
        Some(&mut **context)
    }

    /// Drops those of pools that are not there any more.
    fn retain(&mut self, pools: &Pools) {
        for (number, place) in (0..).zip(&mut self.made) {
            if pools.get(number).is_none()
                && let Some(context) = place.take()
            {
                self.bytes -= context.memory_bytes();
            }
        }
    }
}

pub(crate) struct Workers {
    slots: Box<[Slot]>,
}

/// A worker in cache lines of its own.
#[repr(align(128))]
struct Slot(Mutex<Worker>);

impl Workers {
    pub(crate) fn new(count: usize, pools: &Pools) -> Workers {
        Workers { slots: (0..count.max(1)).map(|_| Slot(Mutex::new(Worker::new(pools)))).collect() }
    }

    /// A worker for this thread: its own if that is free, else any free one, else its own when that gets free.
    pub(crate) fn one(&self) -> MutexGuard<'_, Worker> {
        let mine = thread_number();
        for probe in 0..self.slots.len() {
            if let Some(worker) = self.slots[(mine + probe) % self.slots.len()].0.try_lock() {
                return worker;
            }
        }
        self.slots[mine % self.slots.len()].0.lock()
    }

    /// Applies `change` to the table of pools, in every worker, while no operation is under way.
    pub(crate) fn change_pools<R>(&self, change: impl FnOnce(&mut Pools) -> R) -> R {
        let mut all: Vec<_> = self.slots.iter().map(|slot| slot.0.lock()).collect();
        let mut pools = all[0].pools.clone();
        let result = change(&mut pools);
        for worker in &mut all {
            worker.contexts.retain(&pools);
            worker.pools = pools.clone();
        }
        result
    }

    /// Bytes that all workers hold; those in use at this moment are counted as they last were.
    pub(crate) fn bytes(&self, own: &Worker) -> u64 {
        let other = |slot: &Slot| slot.0.try_lock().map_or(own.bytes(), |worker| worker.bytes());
        self.slots.iter().map(|slot| other(slot) as u64).sum()
    }
}
