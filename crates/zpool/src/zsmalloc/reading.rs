//! Which objects of a class are being read outside of its lock.
//!
//! There are more places than threads are likely to read in one class at a time; who finds none reads under the lock.

use super::handles::Location;

const PLACES: usize = 16;

/// The places of objects that are being read; one that several threads read is there several times. Under the class's lock.
pub(super) struct Reading {
    places: [Location; PLACES],
    used: usize,
}

impl Reading {
    pub(super) fn new() -> Reading {
        Reading { places: [Location::new(0); PLACES], used: 0 }
    }

    /// Notes one more reader of the object there. `false`: there is no room for the note.
    pub(super) fn begin(&mut self, location: Location) -> bool {
        let Some(free) = self.places.get_mut(self.used) else { return false };
        *free = location;
        self.used += 1;
        true
    }

    /// A reader of the object there has ended.
    pub(super) fn end(&mut self, location: Location) {
        let place = self.all().position(|it| it == location);
        if let Some(place) = place {
            self.used -= 1;
            self.places[place] = self.places[self.used];
        }
    }

    /// Whether the object there is being read.
    pub(super) fn has(&self, location: Location) -> bool {
        self.all().any(|it| it == location)
    }

    /// The objects that are being read.
    pub(super) fn all(&self) -> impl Iterator<Item = Location> {
        self.places[..self.used].iter().copied()
    }
}
