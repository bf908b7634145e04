//! `madvise` of the program, for the one advice of which the kernel tells nobody.
//!
//! `MADV_GUARD_INSTALL` (Linux 6.13) drops what is in a range, as `MADV_DONTNEED` does, but without an event: a page that is out would
//! come back with its old content after `MADV_GUARD_REMOVE`. So the range is dropped once more, with the event, while nothing can touch
//! it. What this can never see: the advice given by libc itself (for the ends of thread stacks, which nobody reads), or by a
//! system call that goes past libc.

use core::ffi::{c_int, c_void};

use linux_raw_sys::general as nr;

use crate::sys;

unsafe extern "C" {
    /// Where the calling thread has its `errno` (glibc and musl).
    fn __errno_location() -> *mut c_int;
}

/// As `madvise(2)`.
///
/// # Safety
/// As `madvise(2)`.
#[cfg_attr(feature = "preload", unsafe(no_mangle))]
pub unsafe extern "C" fn madvise(start: *mut c_void, bytes: usize, advice: c_int) -> c_int {
    let advise = |advice: u32| sys::plain(nr::__NR_madvise, [start as usize, bytes, advice as usize]);
    match advise(advice.cast_unsigned()) {
        Ok(_) => {
            if advice.cast_unsigned() == nr::MADV_GUARD_INSTALL {
                let _ = advise(nr::MADV_DONTNEED);
            }
            0
        }
        Err(errno) => {
            // SAFETY: libc's own place for it, valid in the thread that calls.
            unsafe { *__errno_location() = errno.cast_signed() };
            -1
        }
    }
}
