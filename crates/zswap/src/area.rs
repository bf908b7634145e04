//! One swap type: its index, its order of age, and what is under way on it.
//!
//! All of it is under one lock, as tree and LRU of a swap type were in 2012; the lock is held for tens of nanoseconds and
//! never across compression, a checksum or I/O. Because index and age are one structure ([`crate::lru`]), an entry that
//! can be found can be written back and the other way round: there is no moment between joining the one and the other.
//!
//! Three kinds of work go on outside the lock and are noted here:
//! * A *pin* keeps an object alive while its bytes are read. Whoever removes the entry meanwhile leaves freeing the object
//!   to the last one that unpins it.
//! * A *write* is a range of the device under way: a writeback, a direct write or a discard. Nobody starts another one
//!   that overlaps it and is not harmless; that is what keeps an old writeback from landing on newer data.
//! * A *read* of the device. Only a swapoff waits for those.

use std::sync::Arc;

use swapfile::{Latched, SwapDevice};
use zpool::Handle;

use crate::entry::{Entry, What};
use crate::lru::Lru;
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use crate::sync::{Condvar, Mutex};
use crate::tree::Tree;

/// The device of a swap type.
pub(crate) type Device = Arc<Latched<Arc<dyn SwapDevice>>>;

/// Entries that are put in, or taken out, in one hold of an area's lock. What became of them is kept on the stack: a thread that makes
/// room in memory must not ask for any.
pub(crate) const RUN: usize = if cfg!(shuttle) { 2 } else { 64 };

/// An entry that was taken out of the index, and its object where that is to be freed.
pub(crate) type Removed = (Entry, Option<Object>);

/// Pages of one device that a request under way may be changing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub first: u32,
    pub count: u32,
}

impl Extent {
    /// The page behind it.
    pub(crate) fn end(self) -> u64 {
        u64::from(self.first) + u64::from(self.count)
    }

    fn overlaps(self, other: Extent) -> bool {
        u64::from(self.first) < other.end() && u64::from(other.first) < self.end()
    }
}

/// An object that is being read.
struct Pin {
    object: Object,
    readers: usize,
    /// The entry is gone; the last reader frees the object.
    doomed: bool,
}

/// An object of a pool.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Object {
    pub pool: u8,
    pub handle: Handle,
}

pub(crate) struct Area {
    pub state: Mutex<State>,
    /// A write, a read or a pin ended.
    pub quiet: Condvar,
    bytes: AtomicUsize,
}

#[derive(Default)]
pub(crate) struct State {
    pub on: Option<On>,
    pins: Vec<Pin>,
    writes: Vec<Extent>,
    reads: usize,
}

/// A swap type that is switched on.
pub(crate) struct On {
    pub tree: Box<dyn Tree>,
    pub lru: Lru,
    pub pages: u32,
    pub device: Option<Device>,
}

impl On {
    pub(crate) fn stamp(&mut self) -> u32 {
        let (stamp, sweep) = self.lru.stamp();
        if sweep {
            self.lru.sweep(&mut *self.tree);
        }
        stamp
    }

    pub(crate) fn bytes(&self) -> usize {
        self.tree.bytes() + self.lru.bytes()
    }
}

impl Area {
    pub(crate) fn new() -> Area {
        Area { state: Mutex::new(State::default()), quiet: Condvar::new(), bytes: AtomicUsize::new(0) }
    }

    /// Bytes of the index, as last noted.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Notes how large the index is. To be called after changes that may have taken or freed memory.
    pub(crate) fn note_bytes(&self, state: &State) {
        let bytes = state.on.as_ref().map_or(0, On::bytes);
        if self.bytes() != bytes {
            self.bytes.store(bytes, Relaxed);
        }
    }
}

impl State {
    /// The object of an entry that was just taken out of the index, if it is the caller's to free now.
    pub(crate) fn release(&mut self, entry: &Entry) -> Option<Object> {
        let What::Pool { pool, handle, .. } = entry.what else { return None };
        let object = Object { pool, handle };
        match self.pins.iter_mut().find(|pin| pin.object == object) {
            Some(pin) => {
                pin.doomed = true;
                None
            }
            None => Some(object),
        }
    }

    pub(crate) fn pin(&mut self, object: Object) {
        match self.pins.iter_mut().find(|pin| pin.object == object) {
            Some(pin) => pin.readers += 1,
            None => self.pins.push(Pin { object, readers: 1, doomed: false }),
        }
    }

    /// Ends a pin. Returns the object if its entry is gone and this was the last reader: it is the caller's to free.
    pub(crate) fn unpin(&mut self, object: Object) -> Option<Object> {
        let at = self.pins.iter().position(|pin| pin.object == object)?;
        self.pins[at].readers -= 1;
        if self.pins[at].readers > 0 {
            return None;
        }
        self.pins.swap_remove(at).doomed.then_some(object)
    }

    pub(crate) fn is_writing(&self, extent: Extent) -> bool {
        self.writes.iter().any(|write| write.overlaps(extent))
    }

    pub(crate) fn begin_write(&mut self, extent: Extent) {
        self.writes.push(extent);
    }

    pub(crate) fn end_write(&mut self, extent: Extent) {
        if let Some(at) = self.writes.iter().position(|write| *write == extent) {
            self.writes.swap_remove(at);
        }
    }

    pub(crate) fn begin_read(&mut self) {
        self.reads += 1;
    }

    pub(crate) fn end_read(&mut self) {
        self.reads -= 1;
    }

    /// Nothing is under way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.pins.is_empty() && self.writes.is_empty() && self.reads == 0
    }
}
