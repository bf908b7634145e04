//! Loses or tears writes that were not flushed.

use parking_lot::Mutex;

use crate::{DeviceError, PAGE_SIZE, Page, SwapDevice, check_range, run_length};

/// Bytes that a real device writes whole or not at all.
const SECTOR: usize = 512;

/// A device with a volatile write cache: reads see what was written, the device behind sees it at the next flush, and a
/// [`crash`](Crash::crash) lets an arbitrary part of what was not flushed come through, in pieces of a sector.
pub struct Crash<D> {
    device: D,
    /// What was done since the last flush, oldest first. The lock is held across calls to the device behind.
    unflushed: Mutex<Vec<Change>>,
}

enum Change {
    Write(u64, Box<Page>),
    Discard(u64, u64),
}

impl<D: SwapDevice> Crash<D> {
    /// Everything that `device` holds counts as flushed.
    pub fn new(device: D) -> Crash<D> {
        Crash { device, unflushed: Mutex::new(Vec::new()) }
    }

    /// Power fails. Each change that was not flushed is, as `seed` has it, done, lost, or (a write) done in some of its
    /// sectors. Changes of a page stay in order. The device goes on as it is after the restart.
    pub fn crash(&self, seed: u64) -> Result<(), DeviceError> {
        let mut random = Random(seed);
        for change in self.unflushed.lock().drain(..) {
            match (random.next() % 3, change) {
                (0, _) => {}
                (1, Change::Write(page, new)) => {
                    let mut content = [0; PAGE_SIZE];
                    self.device.read_page(page, &mut content)?;
                    for (old, new) in content.chunks_mut(SECTOR).zip(new.chunks(SECTOR)) {
                        if random.next().is_multiple_of(2) {
                            old.copy_from_slice(new);
                        }
                    }
                    self.device.write_pages(page, &[content])?;
                }
                (_, change) => self.apply(&change)?,
            }
        }
        self.device.flush()
    }

    /// Changes since the last flush.
    pub fn unflushed(&self) -> usize {
        self.unflushed.lock().len()
    }

    /// The device behind: what a crash that loses everything would leave.
    pub fn inner(&self) -> &D {
        &self.device
    }

    fn apply(&self, change: &Change) -> Result<(), DeviceError> {
        match change {
            Change::Write(page, content) => self.device.write_pages(*page, std::slice::from_ref(content)),
            Change::Discard(first, count) => self.device.discard(*first, *count),
        }
    }
}

impl<D: SwapDevice> SwapDevice for Crash<D> {
    fn pages(&self) -> u64 {
        self.device.pages()
    }

    fn read_page(&self, page: u64, out: &mut Page) -> Result<(), DeviceError> {
        check_range(self.pages(), page, 1)?;
        let unflushed = self.unflushed.lock();
        let written = unflushed.iter().rev().find_map(|change| match change {
            Change::Write(at, content) if *at == page => Some(content),
            _ => None,
        });
        match written {
            Some(content) => out.copy_from_slice(&content[..]),
            None => self.device.read_page(page, out)?,
        }
        Ok(())
    }

    fn write_pages(&self, first: u64, data: &[Page]) -> Result<(), DeviceError> {
        check_range(self.pages(), first, run_length(data))?;
        let writes = (first..).zip(data).map(|(page, content)| Change::Write(page, Box::new(*content)));
        self.unflushed.lock().extend(writes);
        Ok(())
    }

    fn discard(&self, first: u64, count: u64) -> Result<(), DeviceError> {
        check_range(self.pages(), first, count)?;
        self.unflushed.lock().push(Change::Discard(first, count));
        Ok(())
    }

    fn flush(&self) -> Result<(), DeviceError> {
        let mut unflushed = self.unflushed.lock();
        // Doing them twice, after a failure in the middle, does no harm.
        unflushed.iter().try_for_each(|change| self.apply(change))?;
        self.device.flush()?;
        unflushed.clear();
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        let writes = |change: &&Change| matches!(change, Change::Write(..));
        self.device.memory_bytes() + self.unflushed.lock().iter().filter(writes).count() * PAGE_SIZE
    }
}

/// splitmix64: any seed will do.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
