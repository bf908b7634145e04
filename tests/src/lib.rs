//! What the end-to-end tests and the demonstration share: a program that uses more memory than it may have, memory
//! cgroups, running instances of `uzswap`, and a look at what the machine has before and after.
//!
//! Everything made here undoes itself when dropped and when its process is killed, also while a test panics, and every wait
//! has a limit.

pub mod cgroup;
pub mod content;
pub mod hog;
pub mod instance;
pub mod machine;
pub mod need;
pub mod process;
pub mod programs;
pub mod storage;
pub mod under;

pub use undo::wait;
