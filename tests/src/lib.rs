//! What the end-to-end tests and the demonstration share: a program that uses more memory than it may have, memory
//! cgroups, running instances of `uzswap`, and a look at what the machine has before and after.
//!
//! Everything made here undoes itself when dropped, also while a test panics, and every wait has a limit. A test cannot
//! undo anything when it is killed with SIGKILL; `uzswap swapoff --all` with the test's `UZSWAP_RUN` does that then.

pub mod cgroup;
pub mod content;
pub mod hog;
pub mod instance;
pub mod machine;
pub mod need;
pub mod programs;
pub mod storage;
pub mod under;
pub mod wait;
