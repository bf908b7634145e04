//! Pages that stay because the kernel reads or writes them itself where it serves no userfault.
//!
//! When a thread ends, the kernel clears the thread's number for whoever joins it (`CLONE_CHILD_CLEARTID`), and walks its robust futexes. By
//! then it serves no userfault of that thread any more (`PF_EXITING`): a page that is out is taken for none, nothing is
//! cleared, and who joins waits for ever. The C library has both in the thread's descriptor, beside each other, and touches that
//! right before; but what was touched last may still be what came first, and leave in between.
//!
//! Where a program's arguments and environment are, others look (`ps`, `/proc/PID/cmdline`), and would find nothing.
//!
//! What it can never do: know where a thread's number is that does not lie beside the head of its robust futexes (musl's, or threads made
//! without a library), or keep the futexes themselves.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use zswap::PAGE_SIZE;

use crate::Shared;
use crate::memory::Memory;
use crate::table::{Page, page_of};

/// How far before the head of its robust futexes a thread's number is (glibc, x86-64).
const NUMBER_BEFORE: u64 = 16;
/// The largest part of the cap that stays for this.
const MOST: u64 = 16;
/// How long what children find empty is taken for true, at least, and of the time that looking may take the part: the kernel walks all of
/// a memory for it.
const LOOK_ANEW: Duration = Duration::from_secs(1);
const LOOKS_SHARE: u32 = 100;
/// Pages of arguments and environment, from the first argument on.
const MOST_ARGUMENTS: usize = 16;

impl Shared {
    /// Looks at which pages these are, in every managed memory.
    pub(crate) fn keep_for_the_kernel(&self) {
        let mut room = self.budget.cap() / MOST / PAGE_SIZE as u64;
        let memories = self.books.lock().memories();
        for memory in memories {
            let Some(proc) = memory.proc.get() else { continue };
            let heads = proc.threads().into_iter().filter_map(robust_futexes);
            let mut kept: HashSet<Page> =
                heads.flat_map(|head| [head - NUMBER_BEFORE, head]).map(page_of).collect();
            let arguments = proc.arguments().into_iter().flatten();
            kept.extend(
                arguments
                    .flat_map(|it| page_of(it.start)..page_of(it.end + PAGE_SIZE as u64 - 1))
                    .take(MOST_ARGUMENTS),
            );
            let fits = room.checked_sub(kept.len() as u64);
            memory.inner.lock().kept = Some(fits.map(|_| kept).unwrap_or_default());
            room = fits.unwrap_or(room);
        }
    }
}

/// Looks at what children of a memory find empty, for the case that it is not there to be asked any more when its fork is heard of.
pub(crate) fn remember_wiped(memory: &Memory) {
    let Some(proc) = memory.proc.get() else { return };
    let begun = Instant::now();
    let is_soon = |(at, took): (Instant, Duration)| begun - at < LOOK_ANEW.max(took * LOOKS_SHARE);
    if memory.inner.lock().looked_at.is_some_and(is_soon) {
        return;
    }
    let Ok([wiped, _]) = proc.not_inherited() else { return };
    let mut inner = memory.inner.lock();
    inner.wiped = wiped;
    inner.looked_at = Some((begun, begun.elapsed()));
}

/// The head of a thread's robust futexes, if it told the kernel of it.
fn robust_futexes(thread: u32) -> Option<u64> {
    let (mut head, mut len) = (0u64, 0usize);
    // SAFETY: the kernel writes an address and a length, which live until the call returns.
    let done = unsafe { libc::syscall(libc::SYS_get_robust_list, thread, &raw mut head, &raw mut len) };
    (done == 0 && head > NUMBER_BEFORE).then_some(head)
}
