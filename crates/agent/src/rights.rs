//! Rights that the thread came with and has no use for.
//!
//! A program that gives up root's rights does so in each of libc's threads, and this one is none of them. Its memory is the
//! program's, so whoever has got hold of the program afterwards could make it do what root may. Therefore it is another user from
//! the start, before the program's own code runs: one that nobody is, since whoever has the same number may look into this thread,
//! and so into the program. What it trades: in lists of threads it is a user without a name.
//!
//! What it can never do: change what others may do with the process. The kernel takes a thread that changes its user for a reason
//! to keep others out (`PR_SET_DUMPABLE`), so that is put back.

use linux_raw_sys::general as nr;
use linux_raw_sys::general::{__user_cap_data_struct, __user_cap_header_struct};
use linux_raw_sys::prctl::{PR_GET_DUMPABLE, PR_SET_DUMPABLE};

use crate::sys;

/// Users and groups above what anybody gives out, one for each process.
const UNUSED: usize = 0x9000_0000;
/// Where there are no such (a user namespace has those that it was given): one that owns nothing, the kernel's `overflowuid`.
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
    capabilities().is_none_or(|words| words.iter().any(|word| word.permitted != 0))
}

fn capabilities() -> Option<Capabilities> {
    let (mut header, mut data) = (HEADER, NONE);
    let args = [core::ptr::from_mut(&mut header) as usize, data.as_mut_ptr() as usize, 0, 0, 0, 0];
    // SAFETY: this version of the call reads and writes a header, and writes two structures of data.
    unsafe { sys::call(nr::__NR_capget, args) }.ok().map(|_| data)
}

fn set_capabilities(data: &Capabilities) {
    let mut header = HEADER;
    let args = [core::ptr::from_mut(&mut header) as usize, data.as_ptr() as usize, 0, 0, 0, 0];
    // SAFETY: the call reads a header and two structures of data, and may write the header.
    let _ = unsafe { sys::call(nr::__NR_capset, args) };
}

/// Gives up what can be: a user namespace without any other user has nobody to be in root's place.
pub fn give_up() {
    let dumpable = sys::plain(nr::__NR_prctl, [PR_GET_DUMPABLE as usize, 0, 0]);
    // A program that is another user for now (seteuid) has them, and they are not in effect.
    if let Some(words) = capabilities() {
        set_capabilities(&words.map(|word| __user_cap_data_struct { effective: word.permitted, ..word }));
    }
    let own = UNUSED + sys::plain(nr::__NR_getpid, [0; 3]).unwrap_or(0);
    let _ = sys::plain(nr::__NR_setgroups, [0; 3]);
    for call in [nr::__NR_setresgid, nr::__NR_setresuid] {
        let _ = sys::plain(call, [own; 3]).or_else(|_| sys::plain(call, [NOBODY; 3]));
    }
    set_capabilities(&NONE);
    if let Ok(dumpable @ 0..=1) = dumpable {
        let _ = sys::plain(nr::__NR_prctl, [PR_SET_DUMPABLE as usize, dumpable, 0]);
    }
}
