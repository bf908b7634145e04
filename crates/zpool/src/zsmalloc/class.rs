//! One size class: its zspages, their slots and the handles of its objects. All of it is under the class's lock.
//!
//! A zspage is a run of pages with adjacent addresses, so no object is ever split. Zspages lie in arenas (2 MiB) that
//! the class takes from the pool's span and returns when no zspage is left in them. Slots carry no header: what is to
//! know about a zspage is in a 16-byte descriptor, and free slots are threaded through the slots themselves.

use std::sync::atomic::Ordering;

use super::Shared;
use super::arenas::{ARENA_PAGES, Arena};
use super::handles::{Location, NO_CHUNK};
use super::reading::Reading;
use super::sizes::Shape;
use crate::{ClassStats, Handle, MallocError, PAGE_SIZE};

/// Lists of zspages: 0 empty, 1 to 10 by tenths of the slots in use, 11 full, as in the kernel's fullness groups.
const EMPTY: usize = 0;
const FULL: usize = 11;
/// Places in the class's arenas where no zspage is now.
const VACANT: usize = 12;
/// Zspages that compaction is emptying; nothing is allocated there.
pub(super) const VICTIM: usize = 13;
const LISTS: usize = 14;

/// No zspage.
const NO_ZSPAGE: u32 = u32::MAX;
/// No slot: a zspage has at most 16 * 128.
const NO_SLOT: u16 = u16::MAX;

/// A zspage's descriptor.
#[derive(Clone, Copy)]
struct Zspage {
    /// Neighbours in its list.
    next: u32,
    prev: u32,
    /// Slots in use.
    inuse: u16,
    /// The last slot that was freed; its first two bytes name the one before.
    free: u16,
    /// Slots from this one on were never used and are not in the list of free ones.
    fresh: u16,
    /// Which list it is on.
    list: u16,
}
const _: () = assert!(size_of::<Zspage>() == 16);

/// An arena and the zspages in it. Descriptors exist up to the highest zspage ever built here.
struct Region {
    arena: Arena,
    zspages: Vec<Zspage>,
    /// Zspages that are not vacant.
    built: usize,
}

/// A zspage of the class: the region's place (upper bits) and its number in the region (lower 9 bits).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Id(u32);

const _: () = assert!(ARENA_PAGES == 1 << 9);

impl Id {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an arena has 512 pages, a class at most 2^16 arenas"
    )]
    fn new(region: usize, index: usize) -> Id {
        Id((region << 9 | index) as u32)
    }

    fn region(self) -> usize {
        (self.0 >> 9) as usize
    }

    fn index(self) -> usize {
        self.0 as usize % ARENA_PAGES
    }
}

/// A size class.
pub(super) struct Class {
    index: usize,
    pub(super) shape: Shape,
    /// 2^32 / slots, rounded up: see `divide`.
    reciprocal: u64,
    lists: [u32; LISTS],
    regions: Vec<Option<Region>>,
    /// The region where zspages without a descriptor are left; there is never a second.
    growing: Option<usize>,
    /// Lists of this class's handle chunks: those with free cells, and full ones.
    open_chunks: u32,
    full_chunks: u32,
    /// What is read outside of the lock; what is noted here stays as it is and where it is.
    pub(super) reading: Reading,
}

impl Class {
    pub(super) fn new(index: usize, shape: Shape) -> Class {
        Class {
            index,
            shape,
            reciprocal: (1u64 << 32).div_ceil(shape.slots as u64),
            lists: [NO_ZSPAGE; LISTS],
            regions: Vec::new(),
            growing: None,
            open_chunks: NO_CHUNK,
            full_chunks: NO_CHUNK,
            reading: Reading::new(),
        }
    }

    /// Takes a slot, a handle for it, and copies `content` there, which the class has room for.
    pub(super) fn malloc(&mut self, shared: &Shared, content: &[u8]) -> Result<Handle, MallocError> {
        let chunk = self.open_chunk(shared)?;
        let id = match self.roomy(shared).map_or_else(|| self.build(shared), Ok) {
            Ok(id) => id,
            Err(error) => {
                self.drop_empty_chunk(shared, chunk);
                return Err(error);
            }
        };
        let location = self.take_slot(id);
        self.slot_mut(location)[..content.len()].copy_from_slice(content);
        let taken = shared.handles.chunk(chunk);
        let cell = taken.take(location);
        if taken.is_full() {
            shared.handles.unlink(&mut self.open_chunks, chunk);
            shared.handles.link(&mut self.full_chunks, chunk);
        }
        Ok(shared.handles.handle(chunk, cell))
    }

    /// Gives up a live handle and its slot.
    pub(super) fn free(&mut self, shared: &Shared, chunk: u32, cell: u32, location: Location) {
        let taken = shared.handles.chunk(chunk);
        if taken.is_full() {
            shared.handles.unlink(&mut self.full_chunks, chunk);
            shared.handles.link(&mut self.open_chunks, chunk);
        }
        taken.free(cell);
        self.drop_empty_chunk(shared, chunk);
        let id = self.put_slot(location);
        if self.zspage(id).inuse == 0 && !(shared.pages.try_rest(self.shape.pages)) {
            self.release(shared, id);
        }
    }

    /// The object's slot.
    pub(super) fn slot(&self, location: Location) -> &[u8] {
        let (id, slot) = self.locate(location);
        self.region(id.region()).arena.bytes(self.offset(id, slot), self.shape.size)
    }

    /// The object's slot, to write.
    pub(super) fn slot_mut(&mut self, location: Location) -> &mut [u8] {
        let (id, slot) = self.locate(location);
        let (at, size) = (self.offset(id, slot), self.shape.size);
        self.region_mut(id.region()).arena.bytes_mut(at, size)
    }

    /// Gives all idle zspages back. Returns how many.
    pub(super) fn trim(&mut self, shared: &Shared) -> usize {
        let mut released = 0;
        let mut next = self.lists[EMPTY];
        while next != NO_ZSPAGE {
            let id = Id(next);
            next = self.zspage(id).next;
            shared.pages.wake(self.shape.pages);
            released += usize::from(self.release(shared, id));
        }
        released
    }

    /// zspages that moving objects together could free: the kernel's formula.
    pub(super) fn freeable(&self) -> usize {
        let (zspages, used) =
            self.all().fold((0, 0), |(count, used), z| (count + 1, used + usize::from(z.inuse)));
        zspages - used.div_ceil(self.shape.slots)
    }

    /// The row of this class.
    pub(super) fn stats(&self) -> ClassStats {
        let mut fullness = [0; 12];
        let mut obj_used = 0;
        for zspage in self.all() {
            fullness[self.group(zspage.inuse)] += 1;
            obj_used += usize::from(zspage.inuse);
        }
        let zspages: usize = fullness.iter().sum();
        ClassStats {
            class: self.index,
            size: self.shape.size,
            fullness,
            obj_allocated: zspages * self.shape.slots,
            obj_used,
            pages_used: zspages * self.shape.pages,
            pages_per_zspage: self.shape.pages,
            freeable: self.freeable() * self.shape.pages,
        }
    }

    /// Objects are moved out of the `count` emptiest zspages, at most, and these given back. Returns how many were.
    ///
    /// Objects do not know their handles (that saves the kernel's 8 bytes an object), so who has to be told of the move
    /// is found by looking through all handles of the class, once for all victims of a call.
    pub(super) fn evacuate(&mut self, shared: &Shared, count: usize) -> usize {
        // The free slots of all zspages are at least those of `freeable` whole ones, so whichever zspages we choose, the
        // rest has room for their objects.
        let mut released = self.trim(shared);
        let count = count.min(self.freeable());
        let mut left = 0;
        for list in 1..FULL {
            let mut next = self.lists[list];
            while left < count && next != NO_ZSPAGE {
                let id = Id(next);
                next = self.zspage(id).next;
                // An object that is being read stays where it is.
                if self.reading.all().all(|location| self.locate(location).0 != id) {
                    self.relist(id, VICTIM);
                    left += 1;
                }
            }
        }
        let lists = [self.open_chunks, self.full_chunks];
        'scan: for (_, chunk) in lists.into_iter().flat_map(|head| shared.handles.list(head)) {
            for cell in chunk.cells() {
                if left == 0 {
                    break 'scan;
                }
                let Some(from) = chunk.get(cell) else { continue };
                let (victim, _) = self.locate(from);
                if usize::from(self.zspage(victim).list) != VICTIM {
                    continue;
                }
                let Some(to) = self.roomy(shared).map(|id| self.take_slot(id)) else { break 'scan };
                self.copy(from, to);
                chunk.set(cell, to);
                self.put_slot(from);
                if self.zspage(victim).inuse == 0 {
                    left -= 1;
                    released += usize::from(self.release(shared, victim));
                }
            }
        }
        debug_assert!(self.lists[VICTIM] == NO_ZSPAGE);
        released
    }

    fn copy(&mut self, from: Location, to: Location) {
        let ((from_id, from), (to_id, to)) = (self.locate(from), self.locate(to));
        let (from, to, size) = (self.offset(from_id, from), self.offset(to_id, to), self.shape.size);
        match self.regions.get_disjoint_mut([from_id.region(), to_id.region()]) {
            Ok([Some(source), Some(target)]) => {
                target.arena.bytes_mut(to, size).copy_from_slice(source.arena.bytes(from, size));
            }
            _ => self.region_mut(to_id.region()).arena.copy_within(from, to, size),
        }
    }

    /// The first chunk with a free cell; it stays on the list of such.
    fn open_chunk(&mut self, shared: &Shared) -> Result<u32, MallocError> {
        if self.open_chunks == NO_CHUNK {
            let chunk = shared.handles.take(self.index).ok_or(MallocError::NoMemory)?;
            shared.handles.link(&mut self.open_chunks, chunk);
        }
        Ok(self.open_chunks)
    }

    fn drop_empty_chunk(&mut self, shared: &Shared, chunk: u32) {
        if shared.handles.chunk(chunk).is_empty() {
            shared.handles.unlink(&mut self.open_chunks, chunk);
            shared.handles.give_back(chunk);
        }
    }

    /// The fullest zspage with a free slot: the fuller ones fill up and the emptier ones get a chance to empty.
    fn roomy(&mut self, shared: &Shared) -> Option<Id> {
        let first = self.lists[..FULL].iter().rposition(|&head| head != NO_ZSPAGE)?;
        if first == EMPTY {
            shared.pages.wake(self.shape.pages);
        }
        Some(Id(self.lists[first]))
    }

    /// A new zspage, empty and listed so; the caller takes a slot of it at once.
    fn build(&mut self, shared: &Shared) -> Result<Id, MallocError> {
        let pages = self.shape.pages;
        if !shared.config.may_grow(pages) {
            return Err(MallocError::NoMemory);
        }
        let id = match self.lists[VACANT] {
            NO_ZSPAGE => self.vacancy(shared)?,
            vacant => Id(vacant),
        };
        if self.region_mut(id.region()).arena.populate(id.index() * pages, pages).is_err() {
            self.drop_empty_region(shared, id.region());
            return Err(MallocError::NoMemory);
        }
        shared.pages.add(pages);
        self.region_mut(id.region()).built += 1;
        let zspage = self.zspage_mut(id);
        (zspage.inuse, zspage.free, zspage.fresh) = (0, NO_SLOT, 0);
        self.relist(id, EMPTY);
        Ok(id)
    }

    /// zspages an arena has room for.
    fn per_arena(&self) -> usize {
        ARENA_PAGES / self.shape.pages
    }

    /// One more vacant zspage, in a new arena if need be.
    fn vacancy(&mut self, shared: &Shared) -> Result<Id, MallocError> {
        let place = match self.growing {
            Some(place) => place,
            None => self.new_region(shared)?,
        };
        let per_arena = self.per_arena();
        let zspages = &mut self.region_mut(place).zspages;
        if zspages.len() == zspages.capacity() {
            let old = zspages.capacity();
            // Twice as many as before, but not more than the arena can ever have.
            if zspages.try_reserve_exact(old.max(4).min(per_arena - old)).is_err() {
                self.drop_empty_region(shared, place);
                return Err(MallocError::NoMemory);
            }
            let more = zspages.capacity() - old;
            shared.metadata.fetch_add(more * size_of::<Zspage>(), Ordering::Relaxed);
        }
        let zspages = &mut self.region_mut(place).zspages;
        let id = Id::new(place, zspages.len());
        zspages.push(Zspage { next: NO_ZSPAGE, prev: NO_ZSPAGE, inuse: 0, free: NO_SLOT, fresh: 0, list: 0 });
        if zspages.len() == per_arena {
            self.growing = None;
        }
        self.link(id, VACANT);
        Ok(id)
    }

    /// Takes an arena from the span; it is the growing one now.
    fn new_region(&mut self, shared: &Shared) -> Result<usize, MallocError> {
        let place = match self.regions.iter().position(Option::is_none) {
            Some(place) => place,
            None => {
                let old = self.regions.capacity();
                self.regions.try_reserve(1).map_err(|_| MallocError::NoMemory)?;
                let more = self.regions.capacity() - old;
                shared.metadata.fetch_add(more * size_of::<Option<Region>>(), Ordering::Relaxed);
                self.regions.push(None);
                self.regions.len() - 1
            }
        };
        let Ok(arena) = shared.arenas.take() else {
            self.forget_last_regions(shared);
            return Err(MallocError::NoMemory);
        };
        self.regions[place] = Some(Region { arena, zspages: Vec::new(), built: 0 });
        self.growing = Some(place);
        Ok(place)
    }

    /// Gives an empty zspage that counts as live back to the system. `false`: the system would not have it, and it is
    /// idle now.
    fn release(&mut self, shared: &Shared, id: Id) -> bool {
        let pages = self.shape.pages;
        let region = self.region_mut(id.region());
        if !region.arena.release(id.index() * pages, pages) {
            shared.pages.rest(pages);
            self.relist(id, EMPTY);
            return false;
        }
        region.built -= 1;
        shared.pages.remove(pages);
        self.relist(id, VACANT);
        self.drop_empty_region(shared, id.region());
        true
    }

    /// Returns an arena without zspages to the span.
    fn drop_empty_region(&mut self, shared: &Shared, place: usize) {
        let region = self.region(place);
        if region.built > 0 {
            return;
        }
        for index in 0..region.zspages.len() {
            self.unlink(Id::new(place, index));
        }
        if self.growing == Some(place) {
            self.growing = None;
        }
        if let Some(region) = self.regions[place].take() {
            shared.metadata.fetch_sub(region.zspages.capacity() * size_of::<Zspage>(), Ordering::Relaxed);
        }
        self.forget_last_regions(shared);
    }

    fn forget_last_regions(&mut self, shared: &Shared) {
        while let Some(None) = self.regions.last() {
            self.regions.pop();
        }
        if self.regions.is_empty() {
            let bytes = self.regions.capacity() * size_of::<Option<Region>>();
            shared.metadata.fetch_sub(bytes, Ordering::Relaxed);
            self.regions = Vec::new();
        }
    }

    /// The zspage and the slot in it where an object lies.
    fn locate(&self, location: Location) -> (Id, usize) {
        let object = usize::from(location.object());
        let index = self.divide(object);
        (Id::new(usize::from(location.arena()), index), object - index * self.shape.slots)
    }

    /// `n` / slots, for `n` up to 2^16. By multiplication, since every operation needs it: the reciprocal is too large by
    /// less than 1, so the product by less than 2^16, and a zspage has no more than 2^11 slots, so that the whole part,
    /// 2^-11 away from the next, is right.
    fn divide(&self, n: usize) -> usize {
        ((n as u64 * self.reciprocal) >> 32) as usize
    }

    /// The place of a slot in its arena, in bytes.
    fn offset(&self, id: Id, slot: usize) -> usize {
        id.index() * self.shape.pages * PAGE_SIZE + slot * self.shape.size
    }

    /// Takes a free slot of a zspage that has one.
    fn take_slot(&mut self, id: Id) -> Location {
        let Zspage { free, fresh, .. } = *self.zspage(id);
        let slot = if free == NO_SLOT { fresh } else { free };
        let at = self.offset(id, usize::from(slot));
        let region = self.region_mut(id.region());
        let zspage = &mut region.zspages[id.index()];
        if free == NO_SLOT {
            zspage.fresh += 1;
        } else {
            let link = region.arena.bytes(at, size_of::<u16>());
            zspage.free = u16::from_ne_bytes([link[0], link[1]]);
        }
        zspage.inuse += 1;
        self.regroup(id);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "an arena has at most 2^16 objects, a class 2^16 arenas"
        )]
        Location::new(id.region() as u16, (id.index() * self.shape.slots) as u16 + slot)
    }

    /// Gives a slot up. Returns its zspage.
    fn put_slot(&mut self, location: Location) -> Id {
        let (id, slot) = self.locate(location);
        let at = self.offset(id, slot);
        let region = self.region_mut(id.region());
        let zspage = &mut region.zspages[id.index()];
        region.arena.bytes_mut(at, size_of::<u16>()).copy_from_slice(&zspage.free.to_ne_bytes());
        #[expect(clippy::cast_possible_truncation, reason = "a zspage has at most 2048 slots")]
        let slot = slot as u16;
        zspage.free = slot;
        zspage.inuse -= 1;
        self.regroup(id);
        id
    }

    /// The list for a zspage with that many slots in use.
    fn group(&self, inuse: u16) -> usize {
        match usize::from(inuse) {
            0 => EMPTY,
            inuse if inuse == self.shape.slots => FULL,
            inuse => 1 + self.divide(10 * inuse),
        }
    }

    fn regroup(&mut self, id: Id) {
        let zspage = *self.zspage(id);
        let group = self.group(zspage.inuse);
        let list = usize::from(zspage.list);
        if list != group && list != VICTIM {
            self.relist(id, group);
        }
    }

    fn relist(&mut self, id: Id, list: usize) {
        self.unlink(id);
        self.link(id, list);
    }

    /// Puts a zspage that is on no list at the head of `list`.
    fn link(&mut self, id: Id, list: usize) {
        let next = std::mem::replace(&mut self.lists[list], id.0);
        let zspage = self.zspage_mut(id);
        (zspage.next, zspage.prev) = (next, NO_ZSPAGE);
        #[expect(clippy::cast_possible_truncation, reason = "there are 14 lists")]
        {
            zspage.list = list as u16;
        }
        if next != NO_ZSPAGE {
            self.zspage_mut(Id(next)).prev = id.0;
        }
    }

    fn unlink(&mut self, id: Id) {
        let Zspage { next, prev, list, .. } = *self.zspage(id);
        match prev {
            NO_ZSPAGE => self.lists[usize::from(list)] = next,
            _ => self.zspage_mut(Id(prev)).next = next,
        }
        if next != NO_ZSPAGE {
            self.zspage_mut(Id(next)).prev = prev;
        }
    }

    /// All zspages that hold pages.
    fn all(&self) -> impl Iterator<Item = &Zspage> {
        let zspages = self.regions.iter().flatten().flat_map(|region| &region.zspages);
        zspages.filter(|zspage| usize::from(zspage.list) != VACANT)
    }

    fn region(&self, place: usize) -> &Region {
        self.regions[place].as_ref().expect("a zspage that is listed or located has its arena")
    }

    fn region_mut(&mut self, place: usize) -> &mut Region {
        self.regions[place].as_mut().expect("a zspage that is listed or located has its arena")
    }

    fn zspage(&self, id: Id) -> &Zspage {
        &self.region(id.region()).zspages[id.index()]
    }

    fn zspage_mut(&mut self, id: Id) -> &mut Zspage {
        &mut self.region_mut(id.region()).zspages[id.index()]
    }
}
