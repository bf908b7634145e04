//! Calls of the program in front of which the agent stands. Each does what it says in its manual: where the kernel tells nobody what it does to
//! pages that are out, in a way of which it does tell; where the kernel refuses it for the agent, without that (`alone.rs`).
//!
//! What this can never see: what libc does by itself (guards at the ends of thread stacks, which nobody reads), and system calls that
//! go past libc.

use core::ffi::{c_int, c_void};

use linux_raw_sys::general as nr;

use crate::alone::alone;
use crate::protocol::PAGE_SIZE;
use crate::sys;

/// Flags of `shmat`, from the kernel's `linux/shm.h`.
const SHM_RND: c_int = 0o20000;
const SHM_REMAP: c_int = 0o40000;
/// Of `shmctl`.
const IPC_STAT: usize = 2;
/// Words of the structure that this fills (`shmid64_ds`), and which one is the segment's size in bytes.
const STAT_WORDS: usize = 14;
const STAT_SIZE: usize = 6;

unsafe extern "C" {
    /// Where the calling thread has its `errno` (glibc and musl).
    fn __errno_location() -> *mut c_int;
}

fn fail(errno: u32) {
    // SAFETY: libc's own place for it, valid in the thread that calls.
    unsafe { *__errno_location() = errno.cast_signed() };
}

/// As `madvise(2)`.
///
/// `MADV_GUARD_INSTALL` (Linux 6.13) drops what is in a range, as `MADV_DONTNEED` does, but without an event: a page that is out would
/// come back with its old content after `MADV_GUARD_REMOVE`. So the range is dropped once more, with the event, while who touches
/// it gets SIGSEGV. (Whoever handles that, takes the guard away and writes there meanwhile, loses what was written.)
///
/// # Safety
/// As `madvise(2)`.
#[cfg_attr(feature = "preload", unsafe(no_mangle))]
pub unsafe extern "C" fn madvise(start: *mut c_void, bytes: usize, advice: c_int) -> c_int {
    let advise = |advice: u32| sys::plain(nr::__NR_madvise, [start as usize, bytes, advice as usize]);
    told(advise(advice.cast_unsigned()).inspect(|_| {
        if advice.cast_unsigned() == nr::MADV_GUARD_INSTALL {
            let _ = advise(nr::MADV_DONTNEED);
        }
    }))
}

/// As `shmat(2)`.
///
/// `SHM_REMAP` takes away what is mapped at an address without an event. So the segment is attached elsewhere, and moved there. Where that is
/// the place itself in part, a hole, what is mapped there goes first.
///
/// # Safety
/// As `shmat(2)`.
#[cfg_attr(feature = "preload", unsafe(no_mangle))]
pub unsafe extern "C" fn shmat(segment: c_int, address: *const c_void, flags: c_int) -> *mut c_void {
    let attach = |address: usize, flags: c_int| {
        sys::plain(nr::__NR_shmat, [segment as usize, address, flags as usize])
    };
    let wanted = if flags & SHM_RND == 0 { address as usize } else { address as usize & !(PAGE_SIZE - 1) };
    let attached = if flags & SHM_REMAP == 0 || wanted == 0 || !wanted.is_multiple_of(PAGE_SIZE) {
        // Nothing is taken away, or nothing attached.
        attach(address as usize, flags)
    } else {
        attach(0, flags & !(SHM_REMAP | SHM_RND)).and_then(|at| {
            let detach = || sys::plain(nr::__NR_shmdt, [at, 0, 0]);
            let undone = |errno| {
                let _ = detach();
                errno
            };
            let bytes = size(segment).map_err(undone)?;
            if at == wanted {
                Ok(at)
            } else if at < wanted.saturating_add(bytes) && wanted < at.saturating_add(bytes) {
                detach()?;
                sys::map_over(wanted, bytes)?;
                attach(address as usize, flags)
            } else {
                moved(at, bytes, wanted).map_err(undone)
            }
        })
    };
    attached.unwrap_or_else(|errno| {
        fail(errno);
        usize::MAX
    }) as *mut c_void
}

/// As `unshare(2)`.
///
/// # Safety
/// As `unshare(2)`.
#[cfg_attr(feature = "preload", unsafe(no_mangle))]
pub unsafe extern "C" fn unshare(flags: c_int) -> c_int {
    told(alone(|| sys::plain(nr::__NR_unshare, [flags as usize, 0, 0])))
}

/// As `setns(2)`.
///
/// # Safety
/// As `setns(2)`.
#[cfg_attr(feature = "preload", unsafe(no_mangle))]
pub unsafe extern "C" fn setns(fd: c_int, kind: c_int) -> c_int {
    told(alone(|| sys::plain(nr::__NR_setns, [fd as usize, kind as usize, 0])))
}

/// What libc says of a call that returns 0.
fn told(done: Result<usize, u32>) -> c_int {
    done.map_or_else(
        |errno| {
            fail(errno);
            -1
        },
        |_| 0,
    )
}

/// The size of a segment, in whole pages.
fn size(segment: c_int) -> Result<usize, u32> {
    let mut stat = [0usize; STAT_WORDS];
    let args = [segment as usize, IPC_STAT, stat.as_mut_ptr() as usize, 0, 0, 0];
    // SAFETY: the kernel fills the structure, which is as large as these words.
    unsafe { sys::call(nr::__NR_shmctl, args) }?;
    Ok(stat[STAT_SIZE].next_multiple_of(PAGE_SIZE))
}

/// Moves a mapping to an address, in place of what is there.
fn moved(from: usize, bytes: usize, to: usize) -> Result<usize, u32> {
    let flags = (nr::MREMAP_MAYMOVE | nr::MREMAP_FIXED) as usize;
    // SAFETY: what is mapped there goes, as the caller of shmat wants it; what is moved was attached for that just now.
    unsafe { sys::call(nr::__NR_mremap, [from, bytes, bytes, flags, to, 0]) }
}
