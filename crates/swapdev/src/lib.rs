//! Block devices the kernel can swap to, served from this process.
//!
//! A [`PageStore`] holds pages. A [`Transport`] makes a block device of it; [`Device`] adds the swap header, turns
//! the device on with swapon(2) and takes everything down again in the right order. The one transport built so far
//! is [`fuse`]: a FUSE file with a loop device in direct I/O mode on it.
//!
//! The kernel swaps to us to get memory, so nothing between its request and our answer may wait for memory that
//! only swapping can free. [`kit`] holds the measures for that; [`cleanup`] undoes what a dead server left.
//!
//! What this can never do: keep pages alive past the death of the serving process, or learn that a swap slot was
//! freed before the kernel discards its whole cluster.

pub mod cleanup;
pub mod fuse;
pub mod header;
pub mod kit;
pub mod loopdev;
pub mod swapoff;
pub mod swapon;

mod bytes;
mod device;
mod state;
mod store;
mod transport;

pub use bytes::ByteStore;
pub use device::{Config, Device, DeviceError};
pub use rustix::io::Errno;
pub use state::{Instance, Record, StateError, check_name, instances};
pub use store::{PAGE_SIZE, Page, PageStore};
pub use transport::{Attach, AttachError, DetachError, Transport, Via};
