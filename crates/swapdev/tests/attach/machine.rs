//! What the tests share: a store that is a vector, and the machine before and after.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

use swapdev::{Config, Errno, PAGE_SIZE, Page, PageStore, Via};
use undo::storage::done;

/// Pages in a vector, and what was asked of them.
pub struct Plain {
    /// The pages.
    pub pages: Vec<Mutex<Page>>,
    /// Pages that were discarded, one discarded twice counted twice.
    pub discarded: AtomicU64,
    /// Flushes.
    pub flushed: AtomicU64,
    /// Pages that can neither be read nor written.
    pub bad: Mutex<BTreeSet<u64>>,
}

impl Plain {
    /// Pages of zeros.
    pub fn new(pages: usize) -> Arc<Plain> {
        let pages = (0..pages).map(|_| Mutex::new([0; PAGE_SIZE])).collect();
        Arc::new(Plain {
            pages,
            discarded: AtomicU64::new(0),
            flushed: AtomicU64::new(0),
            bad: Mutex::default(),
        })
    }

    fn at(&self, page: u64) -> Result<MutexGuard<'_, Page>, Errno> {
        if self.bad.lock().unwrap().contains(&page) {
            return Err(Errno::IO);
        }
        let index = usize::try_from(page).map_err(|_| Errno::INVAL)?;
        Ok(self.pages.get(index).ok_or(Errno::INVAL)?.lock().unwrap())
    }
}

impl PageStore for Plain {
    fn pages(&self) -> u64 {
        self.pages.len() as u64
    }

    fn read(&self, page: u64, out: &mut Page) -> Result<(), Errno> {
        *out = *self.at(page)?;
        Ok(())
    }

    fn write(&self, page: u64, data: &Page) -> Result<(), Errno> {
        *self.at(page)? = *data;
        Ok(())
    }

    fn discard(&self, first: u64, count: u64) -> Result<(), Errno> {
        for page in first..first + count {
            *self.at(page)? = [0; PAGE_SIZE];
        }
        self.discarded.fetch_add(count, Relaxed);
        Ok(())
    }

    fn flush(&self) -> Result<(), Errno> {
        self.flushed.fetch_add(1, Relaxed);
        Ok(())
    }
}

/// One test at a time: each looks at all mounts and loop devices of the machine. `None`: the machine does not have what a
/// device takes, and it has been said.
pub fn alone(name: &str) -> Option<fs::File> {
    undo::need::alone(name, &["/dev/fuse", "/dev/loop-control"])
}

/// FUSE mounts, loop devices and swap areas, by name: what is in use of an area changes by itself.
pub fn traces() -> [Vec<String>; 3] {
    let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let mut fuse = lines(fs::read_to_string("/proc/self/mounts").unwrap());
    fuse.retain(|line| line.contains("fuse"));
    let loops = lines(done(&["losetup", "-l", "-n", "-O", "NAME"]));
    let mut swaps = lines(fs::read_to_string("/proc/swaps").unwrap());
    swaps.iter_mut().for_each(|line| *line = line.split_whitespace().next().unwrap_or_default().to_owned());
    [fuse, loops, swaps]
}

/// An instance in a run directory of its own.
pub fn config(root: &Path, name: &str) -> Config {
    let mut config = Config::new(name);
    config.root = root.to_owned();
    config.via = Via::Fuse;
    config
}
