//! The backing swap device: where the cache writes its oldest pages.
//!
//! [`SwapDevice`] is a row of 4096-byte pages. Devices may be slow and may fail; [`Latched`] makes the first failure
//! final, so that nobody trusts half a device.
//!
//! | device | pages are |
//! | --- | --- |
//! | [`File`] | in a regular file or on a block device |
//! | [`Memory`] | in anonymous memory |
//! | [`faulty`] | on another device, with faults that a test asks for |
//!
//! What a device can never do: touch anything outside its pages, or call a page written or flushed that is not. It
//! does not notice content that changes while it lies there; the cache keeps a checksum for that.

use std::sync::Arc;

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

    /// Reads `out.len()` pages from page `first` on, in one request where the device can. After an error the content of `out` is
    /// undefined.
    fn read_pages(&self, first: u64, out: &mut [Page]) -> Result<(), DeviceError> {
        out.iter_mut().zip(first..).try_for_each(|(out, page)| self.read_page(page, out))
    }

    /// Writes `data.len()` pages from page `first` on, in one request where the device can.
    fn write_pages(&self, first: u64, data: &[Page]) -> Result<(), DeviceError>;

    /// Tells the device that `count` pages from `first` on are not needed any more. Their content is then undefined.
    fn discard(&self, first: u64, count: u64) -> Result<(), DeviceError>;

    /// Returns when everything written before is as safe as the device makes it.
    fn flush(&self) -> Result<(), DeviceError>;

    /// Bytes of RAM that hold page content (0 for a file or block device).
    fn memory_bytes(&self) -> usize;
}

mod bounce;
mod error;
pub mod faulty;
mod file;
mod in_use;
mod latched;
mod memory;
mod space;

pub use error::{DeviceError, OpenError};
pub use file::{Existing, File};
pub use latched::Latched;
pub use memory::Memory;

/// Whether `count` pages from `first` on are all on a device of `pages`.
fn check_range(pages: u64, first: u64, count: u64) -> Result<(), DeviceError> {
    match first.checked_add(count) {
        Some(end) if end <= pages => Ok(()),
        _ => Err(DeviceError::OutOfRange),
    }
}

/// The length of a run of pages, in the width that page numbers have.
fn run_length(data: &[Page]) -> u64 {
    data.len() as u64
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<D: SwapDevice + ?Sized> SwapDevice for $pointer {
            fn pages(&self) -> u64 {
                (**self).pages()
            }

            fn read_page(&self, page: u64, out: &mut Page) -> Result<(), DeviceError> {
                (**self).read_page(page, out)
            }

            fn read_pages(&self, first: u64, out: &mut [Page]) -> Result<(), DeviceError> {
                (**self).read_pages(first, out)
            }

            fn write_pages(&self, first: u64, data: &[Page]) -> Result<(), DeviceError> {
                (**self).write_pages(first, data)
            }

            fn discard(&self, first: u64, count: u64) -> Result<(), DeviceError> {
                (**self).discard(first, count)
            }

            fn flush(&self) -> Result<(), DeviceError> {
                (**self).flush()
            }

            fn memory_bytes(&self) -> usize {
                (**self).memory_bytes()
            }
        }
    )*};
}

forward!(Box<D>, Arc<D>);
