//! The block device without swap on it, the cache behind it, with and without a file behind that: fio writes it in all sizes
//! and orders and verifies what it reads.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use swapdev::{Attach, Errno, Page, PageStore, Transport, Via};
use tests::machine::Machine;
use tests::need;
use tests::process::Running;
use zswap::{Counter, Keep, Options, PAGE_SIZE, Profile, SwapEntry, Zswap};

const PAGES: u32 = 16 << 10;

/// A cache as a page store.
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
        self.0.flush(0).map_err(|error| Errno::from_raw_os_error(error.errno()))
    }
}

/// Runs a program to its end.
fn ends_well(command: &mut Command) {
    let mut program = Running::start(command.stdin(Stdio::null())).expect("it starts");
    let status = program.exit(Duration::from_secs(240));
    assert!(status.as_ref().is_ok_and(std::process::ExitStatus::success), "{command:?}: {status:?}");
}

/// Whether this machine can run the test `name`; if not, it has been said.
fn can(name: &str) -> bool {
    if !need::swap(name) {
        return false;
    }
    let has_fio = Command::new("fio").arg("--version").output().is_ok();
    if !has_fio {
        need::skip(name, "fio is not installed");
    }
    has_fio
}

fn cache(params: &[(&str, &str)]) -> Zswap {
    let mut options = Options::new(Profile::named("default").expect("a profile"));
    options.params = params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Zswap::new(options).expect("a cache")
}

/// Makes a device of the store, and has fio write and verify all of it.
fn fio_verifies(store: &Arc<Cache>) -> Box<dyn Transport> {
    let scratch = tempfile::tempdir().expect("a directory for fio's state");
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
    device
}

#[test]
fn fio_reads_what_it_wrote() {
    if !can("fio_reads_what_it_wrote") {
        return;
    }
    let nowhere = Path::new("/nonexistent");
    let before = Machine::now(nowhere);
    let cache = cache(&[]);
    cache.swapon(0, PAGES, None).expect("slots");
    let store = Arc::new(Cache(cache));
    let device = fio_verifies(&store);
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

#[test]
fn fio_reads_what_went_to_a_file() {
    if !can("fio_reads_what_went_to_a_file") {
        return;
    }
    let nowhere = Path::new("/nonexistent");
    let before = Machine::now(nowhere);
    let dir = tempfile::tempdir().expect("a directory");
    let file = swapfile::File::create(&dir.path().join("backing"), PAGES.into(), swapfile::Existing::Refuse);
    let cache = cache(&[("max_pool_bytes", "4194304")]);
    cache.swapon(0, PAGES, Some(Arc::new(file.expect("a file")))).expect("slots");
    let store = Arc::new(Cache(cache));
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| store.0.run_shrink_worker());
        // Ends the worker on every way out, or the scope would wait for it for ever.
        let _stop = Stop(&store.0);
        let device = fio_verifies(&store);
        device.detach().expect("the device goes");
        assert!(!worker.is_finished());
    });
    let count = |counter| store.0.counter(counter);
    assert!(count(Counter::WrittenBackPages) + count(Counter::DeviceWrites) > u64::from(PAGES) / 2);
    assert!(count(Counter::DeviceReads) > u64::from(PAGES) / 2, "fio has read what only the file had");
    assert_eq!(count(Counter::DeviceErrors) + count(Counter::DecompressFail), 0);
    before.assert_restored(nowhere);
}

struct Stop<'a>(&'a Zswap);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop_shrink_worker();
    }
}
