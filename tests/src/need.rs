//! What a test needs of the machine. Where it is missing the test is skipped and says so; in CI that is a failure.

use std::path::Path;

pub use undo::need::skip;

/// What is missing for a swap device of the real kernel, if anything.
#[must_use]
pub fn missing_for_swap() -> Option<&'static str> {
    if !undo::need::is_root() {
        return Some("only root may turn swap on");
    }
    if !Path::new("/dev/fuse").exists() {
        return Some("no /dev/fuse: the kernel module fuse is missing");
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("no /dev/loop-control: the kernel module loop is missing");
    }
    if undo::kernel_zswap() {
        return Some(
            "the kernel's own zswap is on and takes the pages; cargo xtask test turns it off for its time",
        );
    }
    crate::cgroup::memory_root().is_none().then_some("no memory cgroup")
}

/// Whether the test `name` can use the kernel's swap; if not, it has been said.
#[must_use]
pub fn swap(name: &str) -> bool {
    missing_for_swap().map(|reason| skip(name, reason)).is_none()
}
