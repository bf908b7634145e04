//! Rights that the thread came with and has no use for.
//!
//! A program that gives up root's rights does so in each of libc's threads, and this one is none of them. Its memory is the
//! program's, so whoever has got hold of the program afterwards could make it do what root may. Therefore it is nobody from
//! the start, before the program runs. What it trades: in lists of threads it is another user's.
//!
//! What it can never do: change what others may do with the process. The kernel takes a thread that changes its user for a reason
//! to keep others out (`PR_SET_DUMPABLE`), so that is put back, while nothing else of the process runs.

use linux_raw_sys::general as nr;
use linux_raw_sys::general::{__user_cap_data_struct, __user_cap_header_struct};
use linux_raw_sys::prctl::{PR_GET_DUMPABLE, PR_SET_DUMPABLE};

use crate::sys;

/// A user and a group that own nothing; so is the kernel's `overflowuid`.
const NOBODY: usize = 65534;

const HEADER: __user_cap_header_struct =
    __user_cap_header_struct { version: nr::_LINUX_CAPABILITY_VERSION_3, pid: 0 };

/// Capabilities, in two words of 32.
type Capabilities = [__user_cap_data_struct; 2];
const NONE: Capabilities = [__user_cap_data_struct { effective: 0, permitted: 0, inheritable: 0 }; 2];

/// Whether this thread may do what other users may not.
pub fn are_any() -> bool {
    let mut users = [0u32; 3];
    let [real, effective, saved] = users.each_mut().map(|user| core::ptr::from_mut(user) as usize);
    // SAFETY: the kernel writes three numbers of 32 bits where these are.
    let told = unsafe { sys::call(nr::__NR_getresuid, [real, effective, saved, 0, 0, 0]) };
    if told.is_err() || users.contains(&0) {
        return true;
    }
    let (mut header, mut data) = (HEADER, NONE);
    let args = [core::ptr::from_mut(&mut header) as usize, data.as_mut_ptr() as usize, 0, 0, 0, 0];
    // SAFETY: this version of the call reads and writes a header, and writes two structures of data.
    let told = unsafe { sys::call(nr::__NR_capget, args) };
    told.is_err() || data.iter().any(|word| word.permitted != 0)
}

/// Gives up what can be: a user namespace without such a user has no other to give root's place to.
pub fn give_up() {
    let dumpable = sys::plain(nr::__NR_prctl, [PR_GET_DUMPABLE as usize, 0, 0]);
    let _ = sys::plain(nr::__NR_setgroups, [0; 3]);
    let _ = sys::plain(nr::__NR_setresgid, [NOBODY; 3]);
    let _ = sys::plain(nr::__NR_setresuid, [NOBODY; 3]);
    let (mut header, data) = (HEADER, NONE);
    let args = [core::ptr::from_mut(&mut header) as usize, data.as_ptr() as usize, 0, 0, 0, 0];
    // SAFETY: the call reads a header and two structures of data, and may write the header.
    let _ = unsafe { sys::call(nr::__NR_capset, args) };
    if let Ok(dumpable @ 0..=1) = dumpable {
        let _ = sys::plain(nr::__NR_prctl, [PR_SET_DUMPABLE as usize, dumpable, 0]);
    }
}
