//! `zsmalloc`: objects of like size share runs of pages, so that hardly a byte is lost.
//!
//! The classes, their zspages and fullness groups are the kernel's; three things are leaner. A zspage's pages have
//! adjacent addresses, so no object is ever split over two places. A handle is 3 bytes instead of 8. An object has no
//! back pointer to its handle, 8 bytes in the kernel; compaction looks the handles up instead ([`class`]'s `evacuate`).
//!
//! An object is read where it lies, without a copy and outside of its class's lock: decompressing takes far longer than
//! all else here. Its slot is noted as being read meanwhile, and what would change it waits or goes round it.
//!
//! What it trades: a little work in compaction for 13 bytes an object. What it can never do: move or free an object while
//! somebody reads it, or hold more than 128 GiB, 2^27 objects, or (where limits on the address space are tighter) what
//! could be reserved: then `malloc` says [`MallocError::NoMemory`].
//!
//! Order of locks: `compacting`, then one class, then the handle table's or the span's. Two classes are never locked
//! at once.

mod arenas;
mod class;
mod handles;
mod pages;
mod reading;
mod sizes;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::registry::CreateError;
use crate::span::NoMemory;
use crate::sync::{Mutex, MutexGuard, yield_now};
use crate::{BadHandle, ClassStats, Config, Handle, MallocError, PAGE_SIZE, Zpool};
use arenas::Arenas;
use class::Class;
use handles::{HandleTable, Location};
use pages::Pages;
use reading::Reading;

/// Pages that compaction empties under one hold of a class's lock, at least: a millisecond or so of moving.
const BATCH_PAGES: usize = 1024;

/// A size class on cache lines of its own, so that threads at work in two classes do not slow each other down.
#[repr(align(128))]
struct Locked {
    class: Mutex<Class>,
    /// What is read outside of the lock; what is noted here stays as it is and where it is.
    reading: Reading,
}

/// See the head of this file.
pub(crate) struct Zsmalloc {
    shared: Shared,
    classes: Vec<Locked>,
    /// By nominal size: the index of the class.
    class_of: [u8; sizes::NOMINAL],
    compacting: Mutex<()>,
}

/// What the classes of a pool have in common.
struct Shared {
    config: Config,
    arenas: Arc<Arenas>,
    handles: HandleTable,
    pages: Pages,
    /// Bytes of the classes' descriptors.
    metadata: AtomicUsize,
}

impl Shared {
    fn new(config: &Config) -> Result<Shared, NoMemory> {
        let (arenas, handles) = (Arenas::new()?, HandleTable::new()?);
        Ok(Shared {
            config: config.clone(),
            arenas,
            handles,
            pages: Pages::new(),
            metadata: AtomicUsize::new(0),
        })
    }
}

/// Where a handle's cell is and where it points, read under its class's lock.
struct Found {
    chunk: u32,
    cell: u32,
    location: Location,
}

impl Zsmalloc {
    pub(crate) fn new(config: &Config) -> Result<Zsmalloc, CreateError> {
        let (shapes, class_of) = sizes::table(config.chain_size);
        let class =
            |(index, shape)| Locked { class: Mutex::new(Class::new(index, shape)), reading: Reading::new() };
        Ok(Zsmalloc {
            shared: Shared::new(config).map_err(|_| CreateError::NoMemory)?,
            classes: shapes.into_iter().enumerate().map(class).collect(),
            class_of,
            compacting: Mutex::new(()),
        })
    }

    /// The class that `handle` belongs to, its lock, and where the object is.
    fn find(&self, handle: Handle) -> Result<(&Locked, MutexGuard<'_, Class>, Found), BadHandle> {
        let found = self.shared.handles.find(handle).and_then(|(id, cell)| {
            let chunk = self.shared.handles.try_chunk(id)?;
            let owner = chunk.owner()?;
            let locked = self.classes.get(owner)?;
            let class = locked.class.lock();
            // Until we had the lock, the handle may have died and its chunk gone to another class; it was dead then.
            if chunk.owner() != Some(owner) {
                return None;
            }
            let location = chunk.get(cell)?;
            Some((locked, class, Found { chunk: id, cell, location }))
        });
        found.ok_or(BadHandle(handle))
    }

    /// The class for objects of `size` bytes, if there is one.
    fn class_of(&self, size: usize) -> Option<usize> {
        let nominal = size.saturating_sub(sizes::SMALLEST).div_ceil(sizes::STEP);
        self.class_of.get(nominal).copied().map(usize::from)
    }

    /// Takes an object of `size` bytes that begins with `content`.
    fn take(&self, size: usize, content: &[u8]) -> Result<Handle, MallocError> {
        if size == 0 {
            return Err(MallocError::ZeroSize);
        }
        let class = self.class_of(size).ok_or(MallocError::TooBig { max: PAGE_SIZE })?;
        for Locked { class, .. } in &self.classes[class..] {
            let taken = class.lock().malloc(&self.shared, content);
            if taken != Err(MallocError::NoMemory) {
                return taken;
            }
            if self.shared.pages.any_idle() {
                // Pages kept for other classes are no reason to refuse.
                self.trim();
                let taken = class.lock().malloc(&self.shared, content);
                if taken != Err(MallocError::NoMemory) {
                    return taken;
                }
            }
            // Nor is a class that has no number for one more object: the next has slots large enough too.
            if !class.lock().is_at_limit() {
                break;
            }
        }
        Err(MallocError::NoMemory)
    }

    /// Runs `act`, which changes the object, under the lock of its class, when nobody reads it.
    fn change<R>(&self, handle: Handle, act: impl FnOnce(&mut Class, Found) -> R) -> Result<R, BadHandle> {
        loop {
            let (locked, mut class, found) = self.find(handle)?;
            if !locked.reading.has(found.location) {
                return Ok(act(&mut class, found));
            }
            drop(class);
            yield_now();
        }
    }

    /// Gives all idle pages of all classes back.
    fn trim(&self) {
        for locked in &self.classes {
            locked.class.lock().trim(&self.shared);
        }
    }

    fn trim_excess(&self) {
        if self.shared.pages.too_many_idle() {
            self.trim();
        }
    }
}

/// Asks for the lines of an object that is read next, all at once: it is in no cache as a rule, and who decompresses it asks for one
/// after the other. 75 000 pages loaded at random, decompressed by `weft`, take 2.2 us each so, and 3.2 without (processor time, medians of
/// 7 runs in turn, 2026-11-22).
fn fetch(object: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in object.chunks(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which reads nothing and faults nowhere, and the address is within a slice (chunks).
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
}

impl Zpool for Zsmalloc {
    fn driver(&self) -> &'static str {
        "zsmalloc"
    }

    fn max_object(&self) -> usize {
        PAGE_SIZE
    }

    fn malloc(&self, size: usize) -> Result<Handle, MallocError> {
        self.take(size, &[])
    }

    fn put(&self, bytes: &[u8]) -> Result<Handle, MallocError> {
        self.take(bytes.len(), bytes)
    }

    fn free(&self, handle: Handle) -> Result<(), BadHandle> {
        self.change(handle, |class, found| {
            class.free(&self.shared, found.chunk, found.cell, found.location);
        })?;
        self.trim_excess();
        Ok(())
    }

    fn obj_read(&self, handle: Handle, read: &mut dyn FnMut(&[u8])) -> Result<(), BadHandle> {
        let (locked, class, Found { location, .. }) = self.find(handle)?;
        let slot = class.slot(location);
        let Some(_noted) = locked.reading.begin(location) else {
            // As many as can be noted are being read in this class.
            read(slot);
            return Ok(());
        };
        let slot: *const [u8] = slot;
        drop(class);
        // SAFETY: the slot belongs to a live handle (`find`), and its location is noted in `reading` until `_noted` is
        // dropped. Until then nobody writes or frees it (`change` waits), compaction moves nothing out of its zspage
        // (`evacuate`), and so the zspage is not empty and keeps its pages and its arena.
        let slot = unsafe { &*slot };
        // Nobody who wants the class waits for this: it takes as long as memory does.
        fetch(slot);
        read(slot);
        Ok(())
    }

    fn obj_write(&self, handle: Handle, bytes: &[u8]) -> Result<(), BadHandle> {
        let written = self.change(handle, |class, found| {
            let room = class.slot_mut(found.location).get_mut(..bytes.len());
            room.map(|room| room.copy_from_slice(bytes))
        })?;
        written.ok_or(BadHandle(handle))
    }

    fn total_pages(&self) -> usize {
        self.shared.pages.total()
    }

    fn metadata_bytes(&self) -> usize {
        let fixed = size_of::<Zsmalloc>() + self.classes.capacity() * size_of::<Locked>();
        let shared = self.shared.handles.metadata_bytes() + self.shared.arenas.bytes();
        fixed + shared + self.shared.metadata.load(Ordering::Relaxed)
    }

    fn compact(&self) -> usize {
        let Some(_running) = self.compacting.try_lock() else { return 0 };
        let mut freed = 0;
        for Locked { class, reading } in &self.classes {
            // What others do meanwhile is for the next run, so that this one ends.
            let (pages, mut left) = {
                let class = class.lock();
                (class.shape.pages, class.freeable())
            };
            // Each batch looks at all handles of the class, so a large class is not to take many.
            let batch = (BATCH_PAGES / pages).max(left / 8);
            while left > 0 {
                let released = class.lock().evacuate(&self.shared, reading, left.min(batch));
                if released == 0 {
                    break;
                }
                freed += pages * released;
                left = left.saturating_sub(released);
            }
        }
        self.trim_excess();
        freed
    }

    fn oldest_page(&self) -> Option<Vec<Handle>> {
        None
    }

    fn rotate_page(&self, _handle: Handle) {}

    fn class_stats(&self) -> Vec<ClassStats> {
        self.classes.iter().map(|locked| locked.class.lock().stats()).collect()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    /// A cell has room for 2^24 locations or so. Who is beyond that gets a larger slot.
    #[test]
    fn a_class_at_its_limit_sends_on_to_the_next() {
        let pool = Zsmalloc::new(&Config::default()).unwrap();
        assert_eq!(pool.classes[0].class.lock().most_regions, 256);
        pool.classes[0].class.lock().most_regions = 2;
        let handles: Vec<_> = (0..2 * 65536 + 3).map(|_| pool.put(&[7; 32]).unwrap()).collect();
        let used: Vec<_> = pool.class_stats().iter().take(3).map(|class| class.obj_used).collect();
        assert_eq!(used, [2 * 65536, 3, 0]);
        // One place gets free, and is used again.
        pool.free(handles[5]).unwrap();
        pool.put(&[8; 32]).unwrap();
        assert_eq!(pool.classes[0].class.lock().stats().obj_used, 2 * 65536);
        // The largest class has none to send on to.
        for locked in &pool.classes {
            locked.class.lock().most_regions = 2;
        }
        let most = 2 * 512;
        let held = (0..=most).map_while(|_| pool.malloc(PAGE_SIZE).ok()).count();
        assert_eq!(held, most);
    }
}
