//! Memory for the indexes that may be refused.
//!
//! A store must fail with an error where the system has no memory, and `Box::new` aborts there. A `Vec` can say so
//! (`try_reserve`), and a `Vec` of one element becomes a thin box without another allocation.

use std::ops::{Deref, DerefMut};

/// The system gave no memory (ENOMEM).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoMemory;

/// A `Box` that can be refused.
pub(super) struct TryBox<T>(Box<[T; 1]>);

impl<T> TryBox<T> {
    /// Moves `value` to the heap.
    pub(super) fn new(value: T) -> Result<TryBox<T>, NoMemory> {
        let mut vec = Vec::new();
        reserve(&mut vec, 1)?;
        vec.push(value);
        Box::try_from(vec).map(TryBox).map_err(|_| NoMemory)
    }
}

impl<T> Deref for TryBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        let [value] = &*self.0;
        value
    }
}

impl<T> DerefMut for TryBox<T> {
    fn deref_mut(&mut self) -> &mut T {
        let [value] = &mut *self.0;
        value
    }
}

/// Room for `more` elements in `vec`, exactly when it has none yet.
pub(super) fn reserve<T>(vec: &mut Vec<T>, more: usize) -> Result<(), NoMemory> {
    #[cfg(test)]
    if refusal::now() {
        return Err(NoMemory);
    }
    if vec.capacity() == 0 {
        return vec.try_reserve_exact(more).map_err(|_| NoMemory);
    }
    vec.try_reserve(more).map_err(|_| NoMemory)
}

/// Makes allocations of this thread fail, for tests.
#[cfg(test)]
pub(crate) mod refusal {
    use std::cell::Cell;

    thread_local! {
        static COUNTDOWN: Cell<Option<u32>> = const { Cell::new(None) };
    }

    /// The allocation after `n` more ones fails, once; `None` takes that back. Returns what was left to go: `None`
    /// where the failure has happened or none was asked for.
    pub(crate) fn after(n: Option<u32>) -> Option<u32> {
        COUNTDOWN.replace(n)
    }

    pub(super) fn now() -> bool {
        let left = COUNTDOWN.get();
        COUNTDOWN.set(left.and_then(|n| n.checked_sub(1)));
        left == Some(0)
    }
}
