//! One size class: its zspages by fullness, and its handles.
//!
//! Everything here is reached with the class's lock held; that lock covers the class's zspages and their memory too.

use super::arenas::{ARENA_PAGES, Arenas, Home, Location};
use super::handles::{Chunk, Handles};
use super::sizes::Shape;
use crate::{BadHandle, ClassStats, Config, Handle, MallocError, PAGE_SIZE};

/// Fullness groups: empty, ten bands of ten percent, full.
pub(super) const GROUPS: usize = 12;
const FULL: usize = GROUPS - 1;
/// Victims of one step of compaction: bounds how long a step holds the lock.
const VICTIMS: usize = 64;

/// A zspage of the class: arena by position in the class's list, and number within it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    arena: u16,
    zspage: u16,
}

impl Place {
    const NONE: u32 = u32::MAX;

    fn pack(self) -> u32 {
        u32::from(self.arena) << 16 | u32::from(self.zspage)
    }

    fn unpack(packed: u32) -> Option<Place> {
        let place = Place { arena: (packed >> 16) as u16, zspage: (packed & 0xffff) as u16 };
        (packed != Place::NONE).then_some(place)
    }
}

/// What a zspage is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Addresses without pages.
    Absent,
    /// Empty, resident, kept for reuse.
    Cached,
    /// On the list of its fullness group.
    Listed,
    /// Being emptied by compaction.
    Victim,
}

#[derive(Clone, Copy)]
struct Zspage {
    /// Slots in use.
    used: u16,
    /// First freed slot; a freed slot holds the number of the next in its first two bytes.
    free: u16,
    /// Slots from here on were never used since the zspage was made.
    fresh: u16,
    group: u8,
    state: State,
    prev: u32,
    next: u32,
}

const NO_SLOT: u16 = u16::MAX;

impl Zspage {
    const ABSENT: Zspage = Zspage {
        used: 0,
        free: NO_SLOT,
        fresh: 0,
        group: 0,
        state: State::Absent,
        prev: Place::NONE,
        next: Place::NONE,
    };
}

/// An arena that the class has.
struct Arena {
    number: u16,
    /// Zspages that are not absent.
    resident: u16,
    zspages: Box<[Zspage]>,
}

pub(super) struct Class {
    shape: Shape,
    number: u8,
    arenas: Vec<Arena>,
    /// First zspage of each fullness group.
    lists: [u32; GROUPS],
    /// Zspages on the lists, by group.
    counts: [usize; GROUPS],
    /// Empty zspages kept for reuse.
    cached: Vec<u32>,
    chunks: Vec<Chunk>,
    /// Positions in `chunks` of some that are not full; the last is used first.
    open_chunks: Vec<u32>,
    used: usize,
}

/// What the class works on.
#[derive(Clone, Copy)]
pub(super) struct Pool<'a> {
    pub arenas: &'a Arenas,
    pub handles: &'a Handles,
    pub config: &'a Config,
}

impl Class {
    pub(super) fn new(number: u8, shape: Shape) -> Class {
        Class {
            shape,
            number,
            arenas: Vec::new(),
            lists: [Place::NONE; GROUPS],
            counts: [0; GROUPS],
            cached: Vec::new(),
            chunks: Vec::new(),
            open_chunks: Vec::new(),
            used: 0,
        }
    }

    pub(super) fn size(&self) -> usize {
        self.shape.size
    }

    fn at(&mut self, place: Place) -> &mut Zspage {
        &mut self.arenas[usize::from(place.arena)].zspages[usize::from(place.zspage)]
    }

    fn group_of(&self, used: u16) -> usize {
        match usize::from(used) {
            0 => 0,
            used if used == self.shape.slots => FULL,
            used => 1 + used * (GROUPS - 2) / self.shape.slots,
        }
    }

    fn link(&mut self, place: Place) {
        let used = self.at(place).used;
        let group = self.group_of(used);
        let first = self.lists[group];
        if let Some(first) = Place::unpack(first) {
            self.at(first).prev = place.pack();
        }
        let zspage = self.at(place);
        zspage.state = State::Listed;
        zspage.group = group as u8;
        (zspage.prev, zspage.next) = (Place::NONE, first);
        self.lists[group] = place.pack();
        self.counts[group] += 1;
    }

    fn unlink(&mut self, place: Place) {
        let Zspage { prev, next, group, .. } = *self.at(place);
        match Place::unpack(prev) {
            Some(prev) => self.at(prev).next = next,
            None => self.lists[usize::from(group)] = next,
        }
        if let Some(next) = Place::unpack(next) {
            self.at(next).prev = prev;
        }
        self.counts[usize::from(group)] -= 1;
    }

    /// Puts a listed zspage on the list that its use now asks for.
    fn regroup(&mut self, place: Place) {
        let zspage = *self.at(place);
        if usize::from(zspage.group) != self.group_of(zspage.used) {
            self.unlink(place);
            self.link(place);
        }
    }

    /// The zspage to allocate from: of the fullest band that has a free slot.
    fn fullest_open(&self) -> Option<Place> {
        (1..FULL).rev().find_map(|group| Place::unpack(self.lists[group]))
    }

    /// The offset of a slot's bytes in the span.
    fn offset(&self, place: Place, slot: u16) -> usize {
        let within =
            usize::from(place.zspage) * self.shape.pages * PAGE_SIZE + usize::from(slot) * self.shape.size;
        Arenas::offset(self.arenas[usize::from(place.arena)].number, within)
    }

    fn location(&self, place: Place, slot: u16) -> Location {
        Location {
            arena: self.arenas[usize::from(place.arena)].number,
            // Slots of an arena: at most 2 MiB / 32.
            slot: (usize::from(place.zspage) * self.shape.slots + usize::from(slot)) as u16,
        }
    }

    /// The zspage and slot at a location in the arena at `position`, if there is a live object's place.
    fn resolve(&self, location: Location, position: u16) -> Option<(Place, u16)> {
        let (zspage, slot) =
            (usize::from(location.slot) / self.shape.slots, usize::from(location.slot) % self.shape.slots);
        let place = Place { arena: position, zspage: zspage as u16 };
        let arena = self.arenas.get(usize::from(position)).filter(|arena| arena.number == location.arena)?;
        arena.zspages.get(zspage).filter(|it| it.used > 0)?;
        Some((place, slot as u16))
    }

    /// Where the bytes of a live object are, in the span.
    pub(super) fn bytes_at(&self, location: Location, position: u16) -> Option<usize> {
        self.resolve(location, position).map(|(place, slot)| self.offset(place, slot))
    }

    pub(super) fn malloc(&mut self, pool: Pool<'_>) -> Result<Handle, MallocError> {
        let place = match self.fullest_open() {
            Some(place) => place,
            None => self.new_zspage(pool)?,
        };
        let slot = self.take_slot(pool.arenas, place);
        let handle = self.take_handle(pool.handles, self.location(place, slot));
        if handle.is_none() {
            self.give_slot(pool.arenas, place, slot);
            self.settle(pool.arenas, place);
            return Err(MallocError::NoMemory);
        }
        self.regroup(place);
        self.used += 1;
        handle.ok_or(MallocError::NoMemory)
    }

    /// Frees a live object.
    pub(super) fn free(
        &mut self,
        pool: Pool<'_>,
        handle: Handle,
        location: Location,
        position: u16,
    ) -> Result<(), BadHandle> {
        let (place, slot) = self.resolve(location, position).ok_or(BadHandle(handle))?;
        let at = self.chunk_of(handle).ok_or(BadHandle(handle))?;
        self.give_handle(pool.handles, at, handle);
        self.give_slot(pool.arenas, place, slot);
        self.used -= 1;
        self.settle(pool.arenas, place);
        Ok(())
    }

    /// Takes a free slot of a zspage that has one.
    fn take_slot(&mut self, arenas: &Arenas, place: Place) -> u16 {
        let free = self.at(place).free;
        let slot = if free == NO_SLOT {
            let zspage = self.at(place);
            zspage.fresh += 1;
            zspage.fresh - 1
        } else {
            // SAFETY: the slot is free, so no object's bytes are there, and this class's lock is held.
            let bytes = unsafe { arenas.span.bytes(self.offset(place, free), size_of::<u16>()) };
            let next = bytes.first_chunk().map_or(NO_SLOT, |bytes| u16::from_ne_bytes(*bytes));
            self.at(place).free = next;
            free
        };
        self.at(place).used += 1;
        slot
    }

    fn give_slot(&mut self, arenas: &Arenas, place: Place, slot: u16) {
        let next = self.at(place).free;
        // SAFETY: the slot's object is gone, and this class's lock is held, so nobody reads or writes there.
        let bytes = unsafe { arenas.span.bytes_mut(self.offset(place, slot), size_of::<u16>()) };
        bytes.copy_from_slice(&next.to_ne_bytes());
        let zspage = self.at(place);
        zspage.free = slot;
        zspage.used -= 1;
    }

    /// After slots were freed: another list, or away with an empty zspage.
    fn settle(&mut self, arenas: &Arenas, place: Place) {
        if self.at(place).used > 0 {
            self.regroup(place);
            return;
        }
        self.unlink(place);
        if arenas.may_cache(self.shape.pages) {
            *self.at(place) = Zspage { state: State::Cached, ..Zspage::ABSENT };
            self.cached.push(place.pack());
        } else {
            self.drop_zspage(arenas, place);
        }
    }

    /// A zspage with all slots free, on no list but its own group's.
    fn new_zspage(&mut self, pool: Pool<'_>) -> Result<Place, MallocError> {
        let place = if let Some(place) = self.cached.pop().and_then(Place::unpack) {
            pool.arenas.uncache(self.shape.pages);
            place
        } else {
            self.make_zspage(pool)?
        };
        *self.at(place) = Zspage::ABSENT;
        self.link(place);
        Ok(place)
    }

    /// Backs an absent zspage with pages.
    fn make_zspage(&mut self, pool: Pool<'_>) -> Result<Place, MallocError> {
        let pages = self.shape.pages;
        if !pool.config.may_grow(pages) {
            return Err(MallocError::NoMemory);
        }
        let place = match self.absent_place() {
            Some(place) => place,
            None => self.add_arena(pool.arenas)?,
        };
        if pool.arenas.span.populate(self.offset(place, 0), pages * PAGE_SIZE).is_err() {
            pool.arenas.span.release(self.offset(place, 0), pages * PAGE_SIZE);
            self.drop_arena_if_empty(pool.arenas, place.arena);
            return Err(MallocError::NoMemory);
        }
        pool.arenas.add_pages(pages);
        self.arenas[usize::from(place.arena)].resident += 1;
        Ok(place)
    }

    /// An absent zspage, in the arena that was taken last of those with one: older arenas get a chance to empty.
    fn absent_place(&self) -> Option<Place> {
        let whole = |arena: &Arena| usize::from(arena.resident) == arena.zspages.len();
        let at = self.arenas.iter().rposition(|arena| !whole(arena))?;
        let zspage = self.arenas[at].zspages.iter().position(|zspage| zspage.state == State::Absent)?;
        Some(Place { arena: at as u16, zspage: zspage as u16 })
    }

    fn add_arena(&mut self, arenas: &Arenas) -> Result<Place, MallocError> {
        let count = ARENA_PAGES / self.shape.pages;
        let mut zspages = Vec::new();
        zspages.try_reserve_exact(count).map_err(|_| MallocError::NoMemory)?;
        zspages.resize(count, Zspage::ABSENT);
        self.arenas.try_reserve(1).map_err(|_| MallocError::NoMemory)?;
        let position = u16::try_from(self.arenas.len()).map_err(|_| MallocError::NoMemory)?;
        let number = arenas.take().map_err(|_| MallocError::NoMemory)?;
        arenas.set_home(number, Home { class: self.number, position });
        self.arenas.push(Arena { number, resident: 0, zspages: zspages.into() });
        Ok(Place { arena: position, zspage: 0 })
    }

    /// Gives the pages of an unlinked empty zspage back.
    fn drop_zspage(&mut self, arenas: &Arenas, place: Place) {
        let pages = self.shape.pages;
        arenas.span.release(self.offset(place, 0), pages * PAGE_SIZE);
        arenas.remove_pages(pages);
        *self.at(place) = Zspage::ABSENT;
        self.arenas[usize::from(place.arena)].resident -= 1;
        self.drop_arena_if_empty(arenas, place.arena);
    }

    /// Gives an arena without resident zspages back. The last of the list takes its position, so everything that names
    /// that one's zspages is named anew.
    fn drop_arena_if_empty(&mut self, arenas: &Arenas, at: u16) {
        if self.arenas[usize::from(at)].resident > 0 {
            return;
        }
        let last = (self.arenas.len() - 1) as u16;
        let gone = self.arenas.swap_remove(usize::from(at));
        arenas.give(gone.number);
        if at == last {
            return;
        }
        let moved = self.arenas[usize::from(at)].number;
        arenas.set_home(moved, Home { class: self.number, position: at });
        for zspage in 0..self.arenas[usize::from(at)].zspages.len() as u16 {
            let (old, new) = (Place { arena: last, zspage }, Place { arena: at, zspage });
            let Zspage { state, prev, next, group, .. } = *self.at(new);
            match state {
                State::Listed => {
                    match Place::unpack(prev) {
                        Some(prev) => self.at(renamed(prev, last, at)).next = new.pack(),
                        None => self.lists[usize::from(group)] = new.pack(),
                    }
                    if let Some(next) = Place::unpack(next) {
                        self.at(renamed(next, last, at)).prev = new.pack();
                    }
                }
                State::Cached => {
                    if let Some(cached) = self.cached.iter_mut().find(|cached| **cached == old.pack()) {
                        *cached = new.pack();
                    }
                }
                State::Absent | State::Victim => {}
            }
        }
    }

    /// Gives back the empty zspages that were kept.
    pub(super) fn drop_cached(&mut self, arenas: &Arenas) {
        while let Some(place) = self.cached.pop().and_then(Place::unpack) {
            arenas.uncache(self.shape.pages);
            self.drop_zspage(arenas, place);
        }
    }

    fn take_handle(&mut self, handles: &Handles, location: Location) -> Option<Handle> {
        if self.open_chunks.is_empty() {
            self.chunks.try_reserve(1).ok()?;
            self.open_chunks.try_reserve(1).ok()?;
            let chunk = handles.take_chunk().ok()?;
            // Chunks are kept in order of their numbers, so that a handle's is found by bisection.
            let at = self.chunks.partition_point(|it| it.number() < chunk.number());
            self.chunks.insert(at, chunk);
            self.shift_open_chunks(at, 1);
            self.open_chunks.push(at as u32);
        }
        let at = *self.open_chunks.last()? as usize;
        let handle = handles.take(&mut self.chunks[at], location);
        if self.chunks[at].is_full() {
            self.open_chunks.pop();
        }
        handle
    }

    fn chunk_of(&self, handle: Handle) -> Option<usize> {
        let number = Chunk::number_of(handle);
        self.chunks.binary_search_by_key(&number, Chunk::number).ok()
    }

    fn give_handle(&mut self, handles: &Handles, at: usize, handle: Handle) {
        let was_full = self.chunks[at].is_full();
        handles.give(&mut self.chunks[at], handle);
        if self.chunks[at].is_empty() {
            self.open_chunks.retain(|open| *open as usize != at);
            let chunk = self.chunks.remove(at);
            self.shift_open_chunks(at, -1);
            handles.give_chunk(chunk);
        } else if was_full {
            self.open_chunks.push(at as u32);
        }
    }

    /// Names the chunks from position `from` on anew, after one was inserted or removed there.
    fn shift_open_chunks(&mut self, from: usize, by: i32) {
        for open in &mut self.open_chunks {
            if *open as usize >= from {
                *open = open.wrapping_add_signed(by);
            }
        }
    }

    /// Pages that compaction could free: what would be left over if all zspages but one were full (the kernel's formula).
    fn freeable(&self) -> usize {
        let zspages: usize = self.counts.iter().sum();
        let unused = zspages * self.shape.slots - self.used;
        unused / self.shape.slots * self.shape.pages
    }

    /// One step of compaction: empties up to [`VICTIMS`] of the emptiest zspages into the fuller ones. Returns the pages
    /// that this gave back; 0 when there is nothing left to gain.
    ///
    /// Objects have no pointer back to their handle, which would cost each of them 8 bytes in the kernel and 4 here.
    /// Instead all handles of the class are looked at once a step, 4 bytes each in order of memory.
    pub(super) fn compact(&mut self, pool: Pool<'_>) -> usize {
        if self.freeable() == 0 {
            return 0;
        }
        let victims = self.choose_victims();
        if victims == 0 {
            return 0;
        }
        let before = pool.arenas.total_pages();
        for chunk in 0..self.chunks.len() {
            for handle in self.chunks[chunk].handles() {
                let Some(location) = pool.handles.location(handle) else { continue };
                let Some(home) = pool.arenas.home(location.arena) else { continue };
                let Some((from, slot)) = self.resolve(location, home.position) else { continue };
                if self.at(from).state == State::Victim {
                    let Some(to) = self.fullest_open() else { continue };
                    let target = self.take_slot(pool.arenas, to);
                    self.copy_object(pool.arenas, (from, slot), (to, target));
                    pool.handles.set_location(handle, self.location(to, target));
                    self.regroup(to);
                    self.at(from).used -= 1;
                }
            }
        }
        // From the last arena down: giving one back moves the last into its position.
        for arena in (0..self.arenas.len()).rev() {
            for zspage in (0..self.arenas[arena].zspages.len()).rev() {
                let place = Place { arena: arena as u16, zspage: zspage as u16 };
                let Some(it) = self.arenas.get(arena).and_then(|arena| arena.zspages.get(zspage)) else {
                    break;
                };
                if it.state == State::Victim {
                    if it.used == 0 {
                        self.drop_zspage(pool.arenas, place);
                    } else {
                        // Only a damaged table of handles hides an object: it stays where it is.
                        self.link(place);
                    }
                }
            }
        }
        before.saturating_sub(pool.arenas.total_pages())
    }

    /// Takes the emptiest zspages off their lists, as many as have their objects fit into free slots of the others.
    fn choose_victims(&mut self) -> usize {
        let slots = self.shape.slots;
        let zspages: usize = self.counts.iter().sum();
        let mut free_elsewhere = zspages * slots - self.used;
        let mut to_move = 0;
        let mut victims = 0;
        for group in 1..FULL {
            while let Some(place) = Place::unpack(self.lists[group]) {
                let used = usize::from(self.at(place).used);
                if victims == VICTIMS || to_move + used > free_elsewhere - (slots - used) {
                    return victims;
                }
                free_elsewhere -= slots - used;
                to_move += used;
                self.unlink(place);
                self.at(place).state = State::Victim;
                victims += 1;
            }
        }
        victims
    }

    fn copy_object(&self, arenas: &Arenas, from: (Place, u16), to: (Place, u16)) {
        let (from, to) = (self.offset(from.0, from.1), self.offset(to.0, to.1));
        // SAFETY: `from` is a live object's slot and `to` was free a moment ago, in different zspages, so the two do not
        // overlap; this class's lock is held, so nobody else reads or writes either.
        let (source, target) =
            unsafe { (arenas.span.bytes(from, self.shape.size), arenas.span.bytes_mut(to, self.shape.size)) };
        target.copy_from_slice(source);
    }

    pub(super) fn stats(&self) -> ClassStats {
        let zspages: usize = self.counts.iter().sum();
        ClassStats {
            class: usize::from(self.number),
            size: self.shape.size,
            fullness: self.counts,
            obj_allocated: zspages * self.shape.slots,
            obj_used: self.used,
            pages_used: zspages * self.shape.pages,
            pages_per_zspage: self.shape.pages,
            freeable: self.freeable(),
        }
    }

    /// Bytes of zspage descriptors in one arena of the class.
    pub(super) fn descriptor_bytes(&self) -> usize {
        ARENA_PAGES / self.shape.pages * size_of::<Zspage>() + size_of::<Arena>()
    }

    /// Arenas of the class.
    pub(super) fn arenas(&self) -> usize {
        self.arenas.len()
    }
}

/// The name of a zspage whose arena moves from position `last` to `at`.
fn renamed(place: Place, last: u16, at: u16) -> Place {
    if place.arena == last { Place { arena: at, ..place } } else { place }
}
