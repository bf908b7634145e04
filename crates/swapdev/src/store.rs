//! What a device serves: a row of pages.

use crate::Errno;

/// Bytes in a page of a device, and its logical block size.
pub const PAGE_SIZE: usize = 4096;

/// A page's bytes.
pub type Page = [u8; PAGE_SIZE];

/// A row of pages behind a block device. A page never written, or discarded since, reads as zeros.
///
/// Every method is called from many serving threads at once. The block layer does not overlap a write of a page
/// with another request for it, but a program that opens the device may: each call must then take effect as a whole.
/// A call that fails becomes an I/O error of that one request; after a failed write the page must not read back as
/// anything but its old or its new content, or an error.
///
/// The methods run while the kernel waits for memory: they should not allocate, and must not touch anything that may
/// itself be swapped to this device.
pub trait PageStore: Send + Sync {
    /// Pages in the store; constant. Page numbers are below this.
    fn pages(&self) -> u64;

    /// Called once in each serving thread before the device exists, while memory can still be waited for: the place
    /// to make whatever the thread will need.
    fn thread_start(&self) {}

    /// Fills all of `out` with the content of `page`.
    fn read(&self, page: u64, out: &mut Page) -> Result<(), Errno>;

    /// Replaces the content of `page`.
    fn write(&self, page: u64, data: &Page) -> Result<(), Errno>;

    /// Forgets `count` pages from `first` on; they read as zeros.
    fn discard(&self, first: u64, count: u64) -> Result<(), Errno>;

    /// Returns when every earlier write is as safe as the store makes it.
    fn flush(&self) -> Result<(), Errno>;
}
