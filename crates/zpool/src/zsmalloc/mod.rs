//! zsmalloc: size classes of close-set slots, so that an object costs little more than its bytes.
//!
//! ```text
//! pool -> class (one slot size) -> arena (2 MiB of addresses) -> zspage (1 to 16 pages) -> slot (one object)
//! handle -> cell (4 bytes: arena, slot)
//! ```
//!
//! Departures from the kernel's, and what they trade:
//!
//! 1. A zspage is contiguous in addresses, which user space can have for nothing, so no object is split between pages and
//!    none is ever copied to be read.
//! 2. An object has no header (the kernel's is 8 bytes, pointing back to the handle); compaction finds the handles of
//!    what it moves by looking at all handles of the class.
//! 3. A handle's cell takes 4 bytes instead of 8; that limits a pool to 128 GiB.
//!
//! Lock order: a class, then the numbers of the handle table or of the arenas (each a leaf). No two classes are locked at
//! once. A reader holds its class's lock while it looks at an object, so objects never move under it.

mod arenas;
mod class;
mod handles;
mod sizes;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use arenas::{Arenas, Location};
use class::{Class, Pool};
use handles::Handles;

use crate::registry::CreateError;
use crate::sync::{Mutex, MutexGuard};
use crate::{BadHandle, ClassStats, Config, Handle, MallocError, PAGE_SIZE, Zpool};

/// See the head of this file.
pub(crate) struct Zsmalloc {
    config: Config,
    arenas: Arenas,
    handles: Handles,
    classes: Box<[Mutex<Class>]>,
    class_of: [u8; sizes::NOMINAL],
    /// Bytes of the descriptors of all zspages.
    descriptors: AtomicUsize,
    compacting: Mutex<()>,
}

impl Zsmalloc {
    pub(crate) fn new(config: &Config) -> Result<Zsmalloc, CreateError> {
        let (shapes, class_of) = sizes::table(config.chain_size);
        let class = |(number, shape)| Mutex::new(Class::new(number, shape));
        Ok(Zsmalloc {
            config: config.clone(),
            arenas: Arenas::new().map_err(|_| CreateError::NoMemory)?,
            handles: Handles::new().map_err(|_| CreateError::NoMemory)?,
            classes: (0..=u8::MAX).zip(shapes).map(class).collect(),
            class_of,
            descriptors: AtomicUsize::new(0),
            compacting: Mutex::new(()),
        })
    }

    fn pool(&self) -> Pool<'_> {
        Pool { arenas: &self.arenas, handles: &self.handles, config: &self.config }
    }

    /// Locks the class of a live object. The object's location and the position of its arena hold while the lock is held.
    fn lock(&self, handle: Handle) -> Result<(MutexGuard<'_, Class>, Location, u16), BadHandle> {
        let bad = BadHandle(handle);
        // The object may move, and even its handle be freed and taken by another class, until the right lock is held.
        // Each round after the first means that one of these just happened.
        loop {
            let location = self.handles.location(handle).ok_or(bad)?;
            let Some(home) = self.arenas.home(location.arena) else {
                std::hint::spin_loop();
                continue;
            };
            let class = self.classes.get(usize::from(home.class)).ok_or(bad)?.lock();
            let location = self.handles.location(handle).ok_or(bad)?;
            match self.arenas.home(location.arena) {
                Some(now) if now.class == home.class => return Ok((class, location, now.position)),
                _ => drop(class),
            }
        }
    }

    /// Works on a class and notes how many descriptors it has afterwards.
    fn with_class<R>(&self, mut class: MutexGuard<'_, Class>, work: impl FnOnce(&mut Class) -> R) -> R {
        let before = class.arenas();
        let result = work(&mut class);
        let (after, bytes) = (class.arenas(), class.descriptor_bytes());
        drop(class);
        if after > before {
            self.descriptors.fetch_add((after - before) * bytes, Relaxed);
        } else if after < before {
            self.descriptors.fetch_sub((before - after) * bytes, Relaxed);
        }
        result
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
        if size == 0 {
            return Err(MallocError::ZeroSize);
        }
        let nominal = size.saturating_sub(sizes::SMALLEST).div_ceil(sizes::STEP);
        let class = self.class_of.get(nominal).ok_or(MallocError::TooBig { max: PAGE_SIZE })?;
        let class = self.classes[usize::from(*class)].lock();
        self.with_class(class, |class| class.malloc(self.pool()))
    }

    fn free(&self, handle: Handle) -> Result<(), BadHandle> {
        let (class, location, position) = self.lock(handle)?;
        let freed = self.with_class(class, |class| class.free(self.pool(), handle, location, position));
        if self.arenas.caches_too_much() {
            for class in &self.classes {
                self.with_class(class.lock(), |class| class.drop_cached(&self.arenas));
            }
        }
        freed
    }

    fn obj_read(&self, handle: Handle, read: &mut dyn FnMut(&[u8])) -> Result<(), BadHandle> {
        let (class, location, position) = self.lock(handle)?;
        let offset = class.bytes_at(location, position).ok_or(BadHandle(handle))?;
        // SAFETY: the slot is a live object's, and the class's lock is held until `read` returns, so nobody writes to the
        // slot, moves the object or frees it.
        read(unsafe { self.arenas.span.bytes(offset, class.size()) });
        Ok(())
    }

    fn obj_write(&self, handle: Handle, bytes: &[u8]) -> Result<(), BadHandle> {
        let (class, location, position) = self.lock(handle)?;
        let offset = class.bytes_at(location, position).ok_or(BadHandle(handle))?;
        // SAFETY: the slot is a live object's, and the class's lock is held, so nobody reads it, moves it or frees it.
        let slot = unsafe { self.arenas.span.bytes_mut(offset, class.size()) };
        slot.get_mut(..bytes.len()).ok_or(BadHandle(handle))?.copy_from_slice(bytes);
        Ok(())
    }

    fn total_pages(&self) -> usize {
        self.arenas.total_pages()
    }

    fn metadata_bytes(&self) -> usize {
        let fixed = size_of::<Zsmalloc>() + self.classes.len() * size_of::<Mutex<Class>>();
        fixed + self.arenas.bytes() + self.handles.bytes() + self.descriptors.load(Relaxed)
    }

    fn compact(&self) -> usize {
        let Some(_one) = self.compacting.try_lock() else { return 0 };
        let mut pages = 0;
        for class in &self.classes {
            loop {
                let step = self.with_class(class.lock(), |class| class.compact(self.pool()));
                pages += step;
                if step == 0 {
                    break;
                }
            }
        }
        pages
    }

    fn oldest_page(&self) -> Option<Vec<Handle>> {
        None
    }

    fn rotate_page(&self, _handle: Handle) {}

    fn class_stats(&self) -> Vec<ClassStats> {
        self.classes.iter().map(|class| class.lock().stats()).collect()
    }
}
