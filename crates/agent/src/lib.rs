//! The shared object that `uzswap run` loads into a program.
//!
//! It is hands, not a head: one thread that moves the pages it is told to out of the program's memory into a staging
//! area, atomically, by `UFFDIO_MOVE`; the kernel lets nobody outside the process do that. Everything else (faults,
//! policy, compression) is the supervisor's, in another process; see the crate `pager`.
//!
//! What that trades: a batch of pages costs a round trip between two processes. What it buys: no allocator, no lock and
//! no cache of ours inside the program; the program may fork, exec or be killed at any instruction and nothing of ours
//! is left half done in it.
//!
//! The thread is not one of libc's: it has a stack of a few pages, blocks every signal, has its own table of open files
//! (so a program that closes all of its descriptors does not meet ours, and does not see them in `/proc/self/fd`), is another
//! user where the program began as one with rights (`rights.rs`), and calls the kernel and nothing else. It can never allocate, take a lock of the program's, or touch memory that the
//! supervisor may have moved out.
//!
//! When the supervisor dies, pages that are out are gone. The thread keeps the userfaultfd open, so that a touch of such a
//! page waits instead of reading zeros, and kills the program: an end, never a wrong page.

#![no_std]

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod alone;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod calls;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod hands;
pub mod protocol;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod rights;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod start;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod sys;

#[cfg(feature = "preload")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here can panic; if it does all the same, the program must not go on without the pages that are out.
    sys::kill_own_process()
}
