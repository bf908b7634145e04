//! Which objects of a class are being read outside of its lock.
//!
//! There are more places than threads are likely to read in one class at a time; who finds none reads under the lock.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::handles::Location;
use crate::sync::{AtomicU32, AtomicUsize};

const PLACES: usize = 16;
/// In a place where no reading is noted. No location is as large.
const NONE: u32 = u32::MAX;
const _: () = assert!(Location::LIMIT <= NONE as usize);

/// The places of objects that are being read; one that several threads read is there several times. Notes are made and looked
/// at under the class's lock. They are taken back without it: it would be one more lock for each object that is read.
pub(super) struct Reading {
    places: [AtomicU32; PLACES],
    /// There is no note from this place on. Under the lock.
    end: AtomicUsize,
}

/// The note of a reading, which ends with it.
pub(super) struct Noted<'a>(&'a AtomicU32);

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        // What was read was read before this, for whoever finds the place empty (`all`).
        self.0.store(NONE, Release);
    }
}

impl Reading {
    pub(super) fn new() -> Reading {
        Reading { places: std::array::from_fn(|_| AtomicU32::new(NONE)), end: AtomicUsize::new(0) }
    }

    /// Notes one more reader of the object there. `None`: there is no room for the note.
    pub(super) fn begin(&self, location: Location) -> Option<Noted<'_>> {
        let at = self.places.iter().position(|place| place.load(Acquire) == NONE)?;
        self.end.store(self.end.load(Relaxed).max(at + 1), Relaxed);
        self.places[at].store(location.raw(), Relaxed);
        Some(Noted(&self.places[at]))
    }

    /// Whether the object there is being read.
    pub(super) fn has(&self, location: Location) -> bool {
        self.all().any(|it| it == location)
    }

    /// The objects that are being read.
    pub(super) fn all(&self) -> impl Iterator<Item = Location> {
        let noted = |place: &AtomicU32| Location::from_raw(place.load(Acquire));
        let places = &self.places[..self.end.load(Relaxed)];
        // Most often there was one reader, who is gone.
        let end = places.iter().rposition(|place| noted(place).is_some()).map_or(0, |last| last + 1);
        self.end.store(end, Relaxed);
        self.places[..end].iter().filter_map(noted)
    }
}
