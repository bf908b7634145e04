//! A device whose first failure to take something is final.
//!
//! After a failed write, flush or discard nobody can tell which pages the device holds (Linux drops the error of a lost
//! write-back once it was reported), so a retry that works proves nothing: nothing is given to it any more. What this
//! trades: one passing error takes the device away until it is opened anew. A call that was already under way when another
//! failed may still succeed.
//!
//! Reading goes on. A page that was written before may well be there, its reader holds a checksum that tells, and not to
//! look would lose it for certain. A failed read says nothing about other pages and latches nothing.

use std::sync::atomic::{AtomicI32, Ordering};

use crate::{DeviceError, Page, SwapDevice};

/// A device that, after one failed write, flush or discard, answers every later one with [`DeviceError::Latched`]. Pages out
/// of range are the caller's mistake and latch nothing.
pub struct Latched<D> {
    device: D,
    /// The errno of the first failure; 0 before.
    errno: AtomicI32,
}

impl<D: SwapDevice> Latched<D> {
    /// Latches from now on.
    pub fn new(device: D) -> Latched<D> {
        Latched { device, errno: AtomicI32::new(0) }
    }

    /// The errno of the first failure, if there was one.
    pub fn error(&self) -> Option<i32> {
        match self.errno.load(Ordering::Acquire) {
            0 => None,
            errno => Some(errno),
        }
    }

    /// The device behind.
    pub fn inner(&self) -> &D {
        &self.device
    }

    fn ask(&self, call: impl FnOnce(&D) -> Result<(), DeviceError>) -> Result<(), DeviceError> {
        if let Some(errno) = self.error() {
            return Err(DeviceError::Latched(errno));
        }
        let answer = call(&self.device);
        if let Err(DeviceError::Io(errno) | DeviceError::Latched(errno)) = answer {
            // A device that fails without a reason still failed.
            let errno = if errno == 0 { libc::EIO } else { errno };
            // Whoever was first stays.
            let _ = self.errno.compare_exchange(0, errno, Ordering::AcqRel, Ordering::Acquire);
        }
        answer
    }
}

impl<D: SwapDevice> SwapDevice for Latched<D> {
    fn pages(&self) -> u64 {
        self.device.pages()
    }

    fn read_page(&self, page: u64, out: &mut Page) -> Result<(), DeviceError> {
        self.device.read_page(page, out)
    }

    fn read_pages(&self, first: u64, out: &mut [Page]) -> Result<(), DeviceError> {
        self.device.read_pages(first, out)
    }

    fn write_pages(&self, first: u64, data: &[Page]) -> Result<(), DeviceError> {
        self.ask(|device| device.write_pages(first, data))
    }

    fn discard(&self, first: u64, count: u64) -> Result<(), DeviceError> {
        self.ask(|device| device.discard(first, count))
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.ask(SwapDevice::flush)
    }

    fn memory_bytes(&self) -> usize {
        self.device.memory_bytes()
    }
}
