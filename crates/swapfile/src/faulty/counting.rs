//! Counts calls and pages.

use parking_lot::Mutex;

use crate::{DeviceError, Page, SwapDevice, run_length};

/// What a device was asked so far, failed calls included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Calls of `read_page`, which are pages too.
    pub reads: u64,
    /// Calls of `write_pages`.
    pub writes: u64,
    /// Pages in them.
    pub pages_written: u64,
    /// Calls of `discard`.
    pub discards: u64,
    /// Pages in them.
    pub pages_discarded: u64,
    /// Calls of `flush`.
    pub flushes: u64,
}

/// A device that counts.
pub struct Counting<D> {
    device: D,
    counts: Mutex<Counts>,
}

impl<D: SwapDevice> Counting<D> {
    /// Counts from 0.
    pub fn new(device: D) -> Counting<D> {
        Counting { device, counts: Mutex::new(Counts::default()) }
    }

    /// The counts now.
    pub fn counts(&self) -> Counts {
        *self.counts.lock()
    }

    /// The device behind.
    pub fn inner(&self) -> &D {
        &self.device
    }
}

impl<D: SwapDevice> SwapDevice for Counting<D> {
    fn pages(&self) -> u64 {
        self.device.pages()
    }

    fn read_page(&self, page: u64, out: &mut Page) -> Result<(), DeviceError> {
        self.counts.lock().reads += 1;
        self.device.read_page(page, out)
    }

    fn write_pages(&self, first: u64, data: &[Page]) -> Result<(), DeviceError> {
        {
            let mut counts = self.counts.lock();
            counts.writes += 1;
            counts.pages_written += run_length(data);
        }
        self.device.write_pages(first, data)
    }

    fn discard(&self, first: u64, count: u64) -> Result<(), DeviceError> {
        {
            let mut counts = self.counts.lock();
            counts.discards += 1;
            counts.pages_discarded = counts.pages_discarded.saturating_add(count);
        }
        self.device.discard(first, count)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.counts.lock().flushes += 1;
        self.device.flush()
    }

    fn memory_bytes(&self) -> usize {
        self.device.memory_bytes()
    }
}
