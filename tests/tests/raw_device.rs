//! The block device without swap on it, the cache behind it: fio writes it in all sizes and orders and verifies what it reads.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use swapdev::{Attach, Errno, Page, PageStore, Via};
use tests::machine::Machine;
use tests::{need, wait};
use zswap::{Counter, Keep, Options, PAGE_SIZE, Profile, SwapEntry, Zswap};

const PAGES: u32 = 16 << 10;

/// A cache, and nothing behind it.
struct Cache(Zswap);

impl Cache {
    fn entry(page: u64) -> Result<SwapEntry, Errno> {
        Ok(SwapEntry { swap_type: 0, offset: u32::try_from(page).map_err(|_| Errno::INVAL)? })
    }
}

impl PageStore for Cache {
    fn pages(&self) -> u64 {
        PAGES.into()
    }

    fn read(&self, page: u64, out: &mut Page) -> Result<(), Errno> {
        match self.0.load(Self::entry(page)?, out, Keep::Always) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => {
                out.fill(0);
                Ok(())
            }
            Err(error) => Err(Errno::from_raw_os_error(error.errno())),
        }
    }

    fn write(&self, page: u64, data: &Page) -> Result<(), Errno> {
        let placed = self.0.swap_out(Self::entry(page)?, data);
        placed.map(drop).map_err(|error| Errno::from_raw_os_error(error.errno()))
    }

    fn discard(&self, first: u64, count: u64) -> Result<(), Errno> {
        let count = u32::try_from(count).map_err(|_| Errno::INVAL)?;
        self.0.invalidate_range(Self::entry(first)?, count);
        Ok(())
    }

    fn flush(&self) -> Result<(), Errno> {
        Ok(())
    }
}

/// Runs a program to its end.
fn ends_well(command: &mut Command) {
    let mut child = command.stdin(Stdio::null()).spawn().expect("it starts");
    let status = wait::exit(&mut child, Duration::from_secs(240)).inspect_err(|_| {
        let _ = child.kill();
    });
    assert!(status.as_ref().is_ok_and(std::process::ExitStatus::success), "{command:?}: {status:?}");
}

#[test]
fn fio_reads_what_it_wrote() {
    const NAME: &str = "fio_reads_what_it_wrote";
    if !need::swap(NAME) {
        return;
    }
    if Command::new("fio").arg("--version").output().is_err() {
        need::skip(NAME, "fio is not installed");
        return;
    }
    let scratch = tempfile::tempdir().expect("a directory for fio's state");
    let nowhere = Path::new("/nonexistent");
    let before = Machine::now(nowhere);
    let cache = Zswap::new(Options::new(Profile::named("default").expect("a profile"))).expect("a cache");
    cache.swapon(0, PAGES, None).expect("slots");
    let store = Arc::new(Cache(cache));
    let attach = Attach {
        store: store.clone(),
        threads: const { std::num::NonZeroUsize::new(2).expect("two is not zero") },
        label: "uzswap:tests:fio",
        record: &mut |_| Ok(()),
    };
    let device = Via::Auto.attach(attach).expect("a device");
    let mut fio = Command::new("fio");
    fio.args(["--name=verify", "--rw=randwrite", "--bsrange=4k-256k", "--verify=crc32c", "--verify_fatal=1"]);
    fio.args(["--direct=1", "--ioengine=psync", "--numjobs=1", "--loops=2", "--size=64m", "--norandommap=0"]);
    // Half of each block is one word repeated: some pages are same-filled, some compress, some do not.
    fio.args([
        "--buffer_compress_percentage=50",
        "--buffer_compress_chunk=4k",
        "--refill_buffers",
        "--output-format=terse",
    ]);
    ends_well(fio.arg(format!("--filename={}", device.path().display())).current_dir(scratch.path()));
    assert!(store.0.counter(Counter::Zswpout) >= u64::from(PAGES), "fio has written all of it");
    assert!(store.0.counter(Counter::Zswpin) >= u64::from(PAGES), "and read it");

    ends_well(Command::new("blkdiscard").arg(device.path()));
    assert_eq!(store.0.counter(Counter::StoredPages), 0, "discard has become invalidate");
    let mut page = vec![1; 2 * PAGE_SIZE];
    // Direct I/O wants an aligned buffer; half of one twice as large is.
    let at = page.as_ptr().align_offset(PAGE_SIZE);
    device.device().read_exact_at(&mut page[at..at + PAGE_SIZE], 0).expect("read");
    assert!(page[at..at + PAGE_SIZE].iter().all(|byte| *byte == 0), "what was discarded reads as zeros");
    device.detach().expect("the device goes");
    before.assert_restored(nowhere);
}
