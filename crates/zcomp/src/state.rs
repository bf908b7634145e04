//! Working memory that a C library initialises itself.

use std::ffi::c_void;

/// Zeroed memory of a size known at run time, aligned for any type.
pub(crate) struct State {
    words: Vec<u128>,
    len: usize,
}

impl State {
    /// `len` bytes, or `None` where there is no memory.
    pub(crate) fn new(len: usize) -> Option<State> {
        let count = len.div_ceil(size_of::<u128>());
        let mut words = Vec::new();
        words.try_reserve_exact(count).ok()?;
        words.resize(count, 0);
        Some(State { words, len })
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut c_void {
        self.words.as_mut_ptr().cast()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}
