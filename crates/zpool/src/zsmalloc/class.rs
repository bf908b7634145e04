//! One size class: its zspages, their slots and the handles of its objects. All of it is under the class's lock.
//!
//! A zspage is a run of pages with adjacent addresses, so no object is ever split. Zspages lie in arenas (2 MiB) that
//! the class takes from the pool's span and returns when no zspage is left in them. Slots carry no header, and of a zspage
//! only a 4-byte descriptor is outside of it. Whatever else is to know concerns zspages with a free slot, and is in there:
//!
//! ```text
//! free slot:        the next free slot, less the one behind this      2 bytes
//! the first one:    next and previous zspage on the list              8 bytes
//! ```
//!
//! Pages come from the system as zeros, and by them each slot of a new zspage is followed by the one behind it.

use std::ops::Range;
use std::sync::atomic::Ordering;

use super::Shared;
use super::arenas::{ARENA_PAGES, Arena};
use super::handles::{Location, NO_CHUNK};
use super::reading::Reading;
use super::sizes::Shape;
use crate::{ClassStats, Handle, MallocError, PAGE_SIZE};

/// Lists of zspages: 0 empty, 1 to 10 by tenths of the slots in use, as in the kernel's fullness groups.
const EMPTY: usize = 0;
/// No slot is free: on no list, since nobody looks for such a zspage.
const FULL: usize = 11;
/// Zspages that compaction is emptying; nothing is allocated there.
const VICTIM: usize = 12;
const LISTS: usize = 13;
/// Not a list of the class: places in an arena where no zspage is now. Each region knows its own.
const VACANT: usize = 13;

/// No zspage.
const NO_ZSPAGE: u32 = u32::MAX;
/// No region.
const NO_REGION: u32 = u32::MAX;
/// No place in a region.
const NO_PLACE: u16 = ARENA_PAGES as u16;

/// A zspage's descriptor: slots in use, the first free slot, and which list it is on, in 12, 12 and 4 bits. Where all slots
/// are in use, the first free one is the one behind the last. Of a vacant place the second is the next vacant one.
#[derive(Clone, Copy)]
struct Zspage(u32);

impl Zspage {
    const BITS: u32 = 12;
    const MASK: u32 = (1 << Self::BITS) - 1;

    /// An empty zspage that is on no list yet, or with `free` the next vacant place, a vacant one.
    fn new(free: u16, list: usize) -> Zspage {
        let mut zspage = Zspage(0);
        zspage.set_free(free);
        zspage.set_list(list);
        zspage
    }

    fn inuse(self) -> u16 {
        (self.0 & Self::MASK) as u16
    }

    fn free(self) -> u16 {
        (self.0 >> Self::BITS & Self::MASK) as u16
    }

    fn list(self) -> usize {
        (self.0 >> (2 * Self::BITS)) as usize
    }

    fn set_inuse(&mut self, inuse: u16) {
        self.0 = self.0 & !Self::MASK | u32::from(inuse);
    }

    fn set_free(&mut self, free: u16) {
        self.0 = self.0 & !(Self::MASK << Self::BITS) | u32::from(free) << Self::BITS;
    }

    fn set_list(&mut self, list: usize) {
        #[expect(clippy::cast_possible_truncation, reason = "there are 14")]
        let list = list as u32;
        self.0 = self.0 & !(u32::MAX << (2 * Self::BITS)) | list << (2 * Self::BITS);
    }
}

/// What the first free slot of a zspage begins with.
#[derive(Clone, Copy)]
struct Link {
    /// The free slot after this one.
    free: u16,
    /// Neighbours in the zspage's list.
    next: u32,
    prev: u32,
}

impl Link {
    /// Bytes it takes of a slot.
    const BYTES: usize = 10;
    const NEXT: Range<usize> = 2..6;
    const PREV: Range<usize> = 6..10;

    fn read(bytes: &[u8], slot: u16) -> Link {
        let [f0, f1, n0, n1, n2, n3, p0, p1, p2, p3] =
            *bytes.first_chunk::<{ Link::BYTES }>().expect("a slot has 32 bytes");
        Link {
            free: u16::from_ne_bytes([f0, f1]).wrapping_add(slot + 1),
            next: u32::from_ne_bytes([n0, n1, n2, n3]),
            prev: u32::from_ne_bytes([p0, p1, p2, p3]),
        }
    }
}

/// An arena and the zspages in it. Descriptors exist up to the highest zspage ever built here.
struct Region {
    arena: Arena,
    zspages: Vec<Zspage>,
    /// Zspages that are not vacant.
    built: usize,
    /// The place vacated last; its descriptor names the one before.
    vacant: u16,
    /// Neighbours in the list of regions with vacant places, while this is one of them.
    next: u32,
    prev: u32,
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

/// Zspages an arena has room for.
fn per_arena(shape: Shape) -> usize {
    ARENA_PAGES / shape.pages
}

/// Division of a location by what is the same for all of a class, by multiplication: every operation needs it.
struct Divisor {
    by: usize,
    /// 2^40 / `by`, rounded up.
    reciprocal: u64,
}

impl Divisor {
    fn new(by: usize) -> Divisor {
        Divisor { by, reciprocal: (1u64 << 40).div_ceil(by as u64) }
    }

    /// `n` / `by` and the rest, for `n` below 2^24. The reciprocal is too large by less than 1, so the quotient by less than
    /// 2^-16, and `by` is no more than 2^16, so that the whole part, 2^-16 away from the next, is right.
    fn divide(&self, n: usize) -> (usize, usize) {
        let quotient = ((n as u64 * self.reciprocal) >> 40) as usize;
        (quotient, n - quotient * self.by)
    }

    /// `n` times the divisor.
    fn times(&self, n: usize) -> usize {
        n * self.by
    }
}

/// A size class.
pub(super) struct Class {
    index: usize,
    pub(super) shape: Shape,
    slots: Divisor,
    /// Objects of an arena.
    objects: Divisor,
    lists: [u32; LISTS],
    regions: Vec<Option<Region>>,
    /// The most regions: an object's location is a number of limited size.
    pub(super) most_regions: usize,
    /// The first region with a vacant place.
    vacant: u32,
    /// The region where zspages without a descriptor are left; there is never a second.
    growing: Option<usize>,
    /// Lists of this class's handle chunks: those with free cells, and full ones.
    open_chunks: u32,
    full_chunks: u32,
}

impl Class {
    pub(super) fn new(index: usize, shape: Shape) -> Class {
        Class {
            index,
            shape,
            slots: Divisor::new(shape.slots),
            objects: Divisor::new(per_arena(shape) * shape.slots),
            lists: [NO_ZSPAGE; LISTS],
            regions: Vec::new(),
            most_regions: Location::LIMIT / (per_arena(shape) * shape.slots),
            vacant: NO_REGION,
            growing: None,
            open_chunks: NO_CHUNK,
            full_chunks: NO_CHUNK,
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
        if self.zspage(id).inuse() == 0 && !(shared.pages.try_rest(self.shape.pages)) {
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
            next = self.link_of(id).next;
            shared.pages.wake(self.shape.pages);
            released += usize::from(self.release(shared, id));
        }
        released
    }

    /// zspages that moving objects together could free: the kernel's formula.
    pub(super) fn freeable(&self) -> usize {
        let (zspages, used) =
            self.all().fold((0, 0), |(count, used), z| (count + 1, used + usize::from(z.inuse())));
        zspages - used.div_ceil(self.shape.slots)
    }

    /// The row of this class.
    pub(super) fn stats(&self) -> ClassStats {
        let mut fullness = [0; 12];
        let mut obj_used = 0;
        for zspage in self.all() {
            fullness[self.group(zspage.inuse())] += 1;
            obj_used += usize::from(zspage.inuse());
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
    pub(super) fn evacuate(&mut self, shared: &Shared, reading: &Reading, count: usize) -> usize {
        // The free slots of all zspages are at least those of `freeable` whole ones, so whichever zspages we choose, the
        // rest has room for their objects.
        let mut released = self.trim(shared);
        let count = count.min(self.freeable());
        let mut left = 0;
        for list in 1..FULL {
            let mut next = self.lists[list];
            while left < count && next != NO_ZSPAGE {
                let id = Id(next);
                next = self.link_of(id).next;
                // An object that is being read stays where it is.
                if reading.all().all(|location| self.locate(location).0 != id) {
                    self.relist(id, VICTIM);
                    left += 1;
                }
            }
        }
        let lists = [self.open_chunks, self.full_chunks];
        'scan: for (_, chunk) in lists.into_iter().flat_map(|head| shared.handles.list(head)) {
            for (cell, from) in chunk.cells() {
                if left == 0 {
                    break 'scan;
                }
                let (victim, _) = self.locate(from);
                if self.zspage(victim).list() != VICTIM {
                    continue;
                }
                let Some(to) = self.roomy(shared).map(|id| self.take_slot(id)) else { break 'scan };
                self.copy(from, to);
                chunk.set(cell, to);
                self.put_slot(from);
                if self.zspage(victim).inuse() == 0 {
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
        let id = match self.vacant {
            NO_REGION => self.vacancy(shared)?,
            place => Id::new(place as usize, usize::from(self.region(place as usize).vacant)),
        };
        if self.region_mut(id.region()).arena.populate(id.index() * pages, pages).is_err() {
            self.drop_empty_region(shared, id.region());
            return Err(MallocError::NoMemory);
        }
        shared.pages.add(pages);
        self.occupy(id);
        self.link(id, EMPTY);
        Ok(id)
    }

    /// One more vacant zspage, in a new arena if need be.
    fn vacancy(&mut self, shared: &Shared) -> Result<Id, MallocError> {
        let place = match self.growing {
            Some(place) => place,
            None => self.new_region(shared)?,
        };
        let per_arena = per_arena(self.shape);
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
        zspages.push(Zspage::new(NO_PLACE, VACANT));
        if zspages.len() == per_arena {
            self.growing = None;
        }
        self.vacate(id);
        Ok(id)
    }

    /// Whether all places that objects could be told apart in are taken.
    pub(super) fn is_at_limit(&self) -> bool {
        self.vacant == NO_REGION
            && self.growing.is_none()
            && self.regions.iter().flatten().count() == self.most_regions
    }

    /// Notes that no zspage is in this place any more, or yet.
    fn vacate(&mut self, id: Id) {
        let region = self.region_mut(id.region());
        let before = region.vacant;
        #[expect(clippy::cast_possible_truncation, reason = "an arena has 512 pages")]
        {
            region.vacant = id.index() as u16;
        }
        region.zspages[id.index()] = Zspage::new(before, VACANT);
        if before == NO_PLACE {
            #[expect(clippy::cast_possible_truncation, reason = "a class has at most 2^16 arenas")]
            let place = id.region() as u32;
            let next = std::mem::replace(&mut self.vacant, place);
            let region = self.region_mut(id.region());
            (region.next, region.prev) = (next, NO_REGION);
            if next != NO_REGION {
                self.region_mut(next as usize).prev = place;
            }
        }
    }

    /// A zspage, empty and on no list yet, is now in the region's first vacant place, which is this.
    fn occupy(&mut self, id: Id) {
        let region = self.region_mut(id.region());
        region.built += 1;
        region.vacant = region.zspages[id.index()].free();
        region.zspages[id.index()] = Zspage::new(0, EMPTY);
        if region.vacant == NO_PLACE {
            self.unlink_region(id.region());
        }
    }

    /// Takes a region off the list of those with vacant places.
    fn unlink_region(&mut self, place: usize) {
        let Region { next, prev, .. } = *self.region(place);
        match prev {
            NO_REGION => self.vacant = next,
            _ => self.region_mut(prev as usize).next = next,
        }
        if next != NO_REGION {
            self.region_mut(next as usize).prev = prev;
        }
    }

    /// Takes an arena from the span; it is the growing one now.
    fn new_region(&mut self, shared: &Shared) -> Result<usize, MallocError> {
        let place = match self.regions.iter().position(Option::is_none) {
            Some(place) => place,
            None if self.regions.len() == self.most_regions => return Err(MallocError::NoMemory),
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
        self.regions[place] = Some(Region {
            arena,
            zspages: Vec::new(),
            built: 0,
            vacant: NO_PLACE,
            next: NO_REGION,
            prev: NO_REGION,
        });
        self.growing = Some(place);
        Ok(place)
    }

    /// Gives an empty zspage that counts as live back to the system. `false`: the system would not have it, and it is
    /// idle now.
    fn release(&mut self, shared: &Shared, id: Id) -> bool {
        let pages = self.shape.pages;
        // While it is there to be read: its place on the list is in it.
        self.unlink(id);
        let region = self.region_mut(id.region());
        if !region.arena.release(id.index() * pages, pages) {
            shared.pages.rest(pages);
            self.link(id, EMPTY);
            return false;
        }
        region.built -= 1;
        shared.pages.remove(pages);
        self.vacate(id);
        self.drop_empty_region(shared, id.region());
        true
    }

    /// Returns an arena without zspages to the span.
    fn drop_empty_region(&mut self, shared: &Shared, place: usize) {
        let region = self.region(place);
        if region.built > 0 {
            return;
        }
        if region.vacant != NO_PLACE {
            self.unlink_region(place);
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
        let (region, object) = self.objects.divide(location.number());
        let (index, slot) = self.slots.divide(object);
        (Id::new(region, index), slot)
    }

    /// The place of a slot in its arena, in bytes.
    fn offset(&self, id: Id, slot: usize) -> usize {
        id.index() * self.shape.pages * PAGE_SIZE + slot * self.shape.size
    }

    /// What the first free slot of a zspage says; it has one.
    fn link_of(&self, id: Id) -> Link {
        let slot = self.zspage(id).free();
        let at = self.offset(id, usize::from(slot));
        Link::read(self.region(id.region()).arena.bytes(at, Link::BYTES), slot)
    }

    /// Writes one neighbour into the first free slot of a zspage, at [`Link::NEXT`] or [`Link::PREV`].
    fn set_link(&mut self, id: Id, bytes: Range<usize>, neighbour: u32) {
        let at = self.offset(id, usize::from(self.zspage(id).free()));
        let slot = self.region_mut(id.region()).arena.bytes_mut(at, Link::BYTES);
        slot[bytes].copy_from_slice(&neighbour.to_ne_bytes());
    }

    /// Writes the zspage's neighbours into its first free slot.
    fn set_neighbours(&mut self, id: Id, next: u32, prev: u32) {
        let at = self.offset(id, usize::from(self.zspage(id).free()));
        let slot = self.region_mut(id.region()).arena.bytes_mut(at, Link::BYTES);
        slot[Link::NEXT].copy_from_slice(&next.to_ne_bytes());
        slot[Link::PREV].copy_from_slice(&prev.to_ne_bytes());
    }

    /// Takes a free slot of a zspage that has one.
    fn take_slot(&mut self, id: Id) -> Location {
        let link = self.link_of(id);
        let mut zspage = *self.zspage(id);
        let slot = zspage.free();
        zspage.set_free(link.free);
        zspage.set_inuse(zspage.inuse() + 1);
        self.regroup(id, zspage, link);
        Location::new(self.objects.times(id.region()) + self.slots.times(id.index()) + usize::from(slot))
    }

    /// Gives a slot up. Returns its zspage.
    fn put_slot(&mut self, location: Location) -> Id {
        let (id, slot) = self.locate(location);
        let mut zspage = *self.zspage(id);
        let link = (zspage.list() != FULL).then(|| self.link_of(id));
        let at = self.offset(id, slot);
        #[expect(clippy::cast_possible_truncation, reason = "a zspage has at most 2048 slots")]
        let slot = slot as u16;
        let after = zspage.free().wrapping_sub(slot + 1);
        self.region_mut(id.region()).arena.bytes_mut(at, Link::BYTES)[..2]
            .copy_from_slice(&after.to_ne_bytes());
        zspage.set_free(slot);
        zspage.set_inuse(zspage.inuse() - 1);
        match link {
            Some(link) => self.regroup(id, zspage, link),
            None => {
                *self.zspage_mut(id) = zspage;
                self.link(id, self.group(zspage.inuse()));
            }
        }
        id
    }

    /// The list for a zspage with that many slots in use.
    fn group(&self, inuse: u16) -> usize {
        match usize::from(inuse) {
            0 => EMPTY,
            inuse if inuse == self.shape.slots => FULL,
            inuse => 1 + self.slots.divide(10 * inuse).0,
        }
    }

    /// The zspage is now as `zspage` says, with another first free slot than the one that said `link`.
    fn regroup(&mut self, id: Id, zspage: Zspage, link: Link) {
        let (list, group) = (zspage.list(), self.group(zspage.inuse()));
        *self.zspage_mut(id) = zspage;
        if list == group || list == VICTIM {
            self.set_neighbours(id, link.next, link.prev);
        } else {
            self.bridge(list, link);
            self.link(id, group);
        }
    }

    fn relist(&mut self, id: Id, list: usize) {
        self.unlink(id);
        self.link(id, list);
    }

    /// Puts a zspage that is on no list at the head of `list`.
    fn link(&mut self, id: Id, list: usize) {
        self.zspage_mut(id).set_list(list);
        if list == FULL {
            return;
        }
        let next = std::mem::replace(&mut self.lists[list], id.0);
        self.set_neighbours(id, next, NO_ZSPAGE);
        if next != NO_ZSPAGE {
            self.set_link(Id(next), Link::PREV, id.0);
        }
    }

    /// Takes a zspage with a free slot off its list.
    fn unlink(&mut self, id: Id) {
        self.bridge(self.zspage(id).list(), self.link_of(id));
    }

    /// Makes neighbours in `list` of those that `link` names.
    fn bridge(&mut self, list: usize, link: Link) {
        match link.prev {
            NO_ZSPAGE => self.lists[list] = link.next,
            prev => self.set_link(Id(prev), Link::NEXT, link.next),
        }
        if link.next != NO_ZSPAGE {
            self.set_link(Id(link.next), Link::PREV, link.prev);
        }
    }

    /// All zspages that hold pages.
    fn all(&self) -> impl Iterator<Item = &Zspage> {
        let zspages = self.regions.iter().flatten().flat_map(|region| &region.zspages);
        zspages.filter(|zspage| zspage.list() != VACANT)
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
