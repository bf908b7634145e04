//! Allocators for compressed memory behind one trait, as the kernel's zpool was (3.17 to 6.17).
//!
//! A pool hands out *handles*, never addresses: objects may move under a handle when the pool is compacted,
//! so memory is reached only inside [`Zpool::obj_read`] and [`Zpool::obj_write`]. Pool memory comes from
//! `mmap`, grows on demand, is never preallocated, and goes back to the system as objects leave.
//!
//! | driver | density | what it trades |
//! | --- | --- | --- |
//! | `zsmalloc` | about 1.02 bytes of pool a byte of payload | compaction work for density |
//! | `zbud` | at best two objects a page | density for simple, predictable page reclaim |
//!
//! What a pool can never do: hand one byte to two live handles, give back memory that a live handle covers,
//! or grow when its [`Config::grow`] gate says no.

mod registry;
mod span;
mod sync;
mod zbud;
mod zsmalloc;

pub use registry::{CreateError, Driver, RegisterError, create, drivers, register, unregister};

use std::sync::Arc;

/// Bytes in a page. Swap slots and the x86-64 kernel's pages have this size too.
pub const PAGE_SIZE: usize = 4096;

/// Names one object for as long as it lives, across compaction.
///
/// Handles are small and dense: a pool never gives out a value of [`Handle::LIMIT`] or more and prefers values
/// that were freed, so a caller may pack one into 27 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Handle(u32);

impl Handle {
    /// One more than the largest value a pool may give out: 2^27 objects a pool.
    pub const LIMIT: u32 = 1 << 27;

    /// The handle with this value, if a pool could give it out.
    pub fn from_raw(raw: u32) -> Option<Handle> {
        (raw < Self::LIMIT).then_some(Handle(raw))
    }

    /// The value, below [`Handle::LIMIT`].
    pub fn raw(self) -> u32 {
        self.0
    }
}

/// Why [`Zpool::malloc`] gave no object; [`MallocError::errno`] is what the kernel's zpool returns there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum MallocError {
    /// A size of 0 was asked for (EINVAL).
    ZeroSize,
    /// The size is above [`Zpool::max_object`] (ENOSPC).
    TooBig {
        /// The largest size this pool holds, in bytes.
        max: usize,
    },
    /// The system, the growth gate or the space of handles has no room (ENOMEM).
    NoMemory,
}

impl MallocError {
    /// The errno that the kernel's zpool returns there.
    pub fn errno(self) -> i32 {
        match self {
            MallocError::ZeroSize => libc::EINVAL,
            MallocError::TooBig { .. } => libc::ENOSPC,
            MallocError::NoMemory => libc::ENOMEM,
        }
    }
}

/// The handle names no live object of this pool, or the object is smaller than the bytes written to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadHandle(pub Handle);

/// Asked before a pool takes this many more pages from the system; `false` makes the `malloc` fail with
/// [`MallocError::NoMemory`]. May be called under the pool's locks: it must not call back into the pool.
pub type GrowGate = Arc<dyn Fn(usize) -> bool + Send + Sync>;

/// How a pool is made. `Config::default()` is the kernel's configuration.
#[derive(Clone)]
pub struct Config {
    /// zsmalloc: the most pages a zspage may chain, 4 to 16 (the kernel's ZSMALLOC_CHAIN_SIZE; default 8).
    pub chain_size: usize,
    /// See [`GrowGate`]; `None` always allows.
    pub grow: Option<GrowGate>,
}

impl Default for Config {
    fn default() -> Config {
        Config { chain_size: 8, grow: None }
    }
}

impl Config {
    /// Asks the gate.
    pub(crate) fn may_grow(&self, pages: usize) -> bool {
        self.grow.as_ref().is_none_or(|gate| gate(pages))
    }
}

/// One row of a pool's statistics, the columns of ZSMALLOC_STAT's `classes` file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClassStats {
    /// Class number.
    pub class: usize,
    /// Bytes in an object slot of this class.
    pub size: usize,
    /// zspages by share of their slots in use: empty, ten bands of ten percent (the last below 100 %), full.
    pub fullness: [usize; 12],
    /// Object slots in all zspages of the class.
    pub obj_allocated: usize,
    /// Object slots in use.
    pub obj_used: usize,
    /// Pages in all zspages of the class.
    pub pages_used: usize,
    /// Pages in one zspage.
    pub pages_per_zspage: usize,
    /// Pages that compaction could free.
    pub freeable: usize,
}

/// An allocator of compressed memory. All methods may be called from many threads at once.
pub trait Zpool: Send + Sync {
    /// The driver's registered name.
    fn driver(&self) -> &'static str;

    /// The largest object, in bytes.
    fn max_object(&self) -> usize;

    /// Takes room for `size` bytes. The content is undefined until written.
    fn malloc(&self, size: usize) -> Result<Handle, MallocError>;

    /// Gives an object back. A handle that is not live changes nothing and is told.
    fn free(&self, handle: Handle) -> Result<(), BadHandle>;

    /// Calls `read` once with the object's whole slot, at least as long as the size asked for (the kernel's
    /// `obj_read_begin` and `obj_read_end` around it). A lock of the pool may be held meanwhile: `read` is to be
    /// quick and must not call the pool.
    fn obj_read(&self, handle: Handle, read: &mut dyn FnMut(&[u8])) -> Result<(), BadHandle>;

    /// Copies `bytes` to the start of the object.
    fn obj_write(&self, handle: Handle, bytes: &[u8]) -> Result<(), BadHandle>;

    /// Takes an object and writes it, as [`Zpool::malloc`] and [`Zpool::obj_write`] do one after the other; a driver may do it
    /// in one step.
    fn put(&self, bytes: &[u8]) -> Result<Handle, MallocError> {
        let handle = self.malloc(bytes.len())?;
        match self.obj_write(handle, bytes) {
            Ok(()) => Ok(handle),
            Err(BadHandle(handle)) => {
                let _ = self.free(handle);
                Err(MallocError::NoMemory)
            }
        }
    }

    /// Pages of memory the pool holds for objects now, resident and empty ones kept for reuse included.
    fn total_pages(&self) -> usize;

    /// Bytes the pool holds beside those pages: handle table, page descriptors, free lists.
    fn metadata_bytes(&self) -> usize;

    /// Moves objects together and gives the emptied pages back. Returns how many pages that freed. One run at a
    /// time; a second returns 0 at once.
    fn compact(&self) -> usize;

    /// The handles in the page that was allocated longest ago, for drivers that keep pages in order of age (zbud, as
    /// in 3.11, where the allocator drives eviction); `None` where the pool is empty or the driver keeps no order.
    fn oldest_page(&self) -> Option<Vec<Handle>>;

    /// Puts the page that holds `handle` at the young end of that order: its reclaim failed or it was used.
    fn rotate_page(&self, handle: Handle);

    /// A row a class.
    fn class_stats(&self) -> Vec<ClassStats>;
}
