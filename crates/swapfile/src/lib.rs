//! The backing swap device: where the cache writes its oldest pages.
//!
//! [`SwapDevice`] is a row of 4096-byte pages. Devices may be slow and may fail; [`Latched`] makes the first failure
//! final, so that nobody trusts half a device.

/// Bytes in a page of a device.
pub const PAGE_SIZE: usize = 4096;

/// A page's bytes.
pub type Page = [u8; PAGE_SIZE];

/// A row of pages. All methods may be called from many threads at once; calls that overlap in pages are the
/// caller's to order.
pub trait SwapDevice: Send + Sync {
    /// Pages on the device; page numbers are below this.
    fn pages(&self) -> u64;

    /// Reads one page. A page never written reads as zeros or as the device left it.
    fn read_page(&self, page: u64, out: &mut Page) -> Result<(), DeviceError>;

    /// Writes `data.len()` pages from page `first` on, in one request where the device can.
    fn write_pages(&self, first: u64, data: &[Page]) -> Result<(), DeviceError>;

    /// Tells the device that `count` pages from `first` on are not needed any more. Their content is then undefined.
    fn discard(&self, first: u64, count: u64) -> Result<(), DeviceError>;

    /// Returns when everything written before is as safe as the device makes it.
    fn flush(&self) -> Result<(), DeviceError>;

    /// Bytes of RAM that hold page content (0 for a file or block device).
    fn memory_bytes(&self) -> usize;
}

mod error;
pub use error::DeviceError;
