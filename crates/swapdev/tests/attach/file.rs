//! The file and the block device as whoever has them open meets them: other users, requests of every size and place, pages
//! that fail.

use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rustix::fs::FallocateFlags;
use swapdev::fuse::FuseFile;
use swapdev::{Attach, Errno, PAGE_SIZE, Page, PageStore, Transport, Via};
use undo::storage::done;

use crate::machine::{Plain, alone};

const PAGE: u64 = PAGE_SIZE as u64;
const TWO: NonZeroUsize = const { NonZeroUsize::new(2).unwrap() };

fn attach(store: Arc<dyn PageStore>) -> Box<dyn Transport> {
    Via::Fuse.attach(Attach { store, threads: TWO, label: "test", record: &mut |_| Ok(()) }).unwrap()
}

/// The block device, without the page cache.
fn open_direct(path: &Path) -> File {
    File::options().read(true).write(true).custom_flags(libc::O_DIRECT).open(path).unwrap()
}

/// Bytes in a huge page.
const HUGE: usize = 2 << 20;

/// `pages` pages of memory that direct I/O can use, no two the same. In huge pages where the kernel has them: the kernel makes
/// its longest requests only of memory that lies together, as it does for a huge page that it swaps out.
struct Aligned {
    bytes: Vec<u8>,
    skip: usize,
}

impl Aligned {
    fn new(pages: usize, seed: u64) -> Aligned {
        let mut bytes = vec![0; pages * PAGE_SIZE + HUGE];
        let skip = bytes.as_ptr().align_offset(HUGE);
        // SAFETY: the range lies in `bytes`; the advice changes no content. A kernel without huge pages refuses it.
        let _ = unsafe {
            let start = bytes.as_mut_ptr().add(skip).cast();
            rustix::mm::madvise(start, pages * PAGE_SIZE, rustix::mm::Advice::LinuxHugepage)
        };
        for (at, word) in bytes[skip..][..pages * PAGE_SIZE].chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&(seed << 32 | at as u64).to_le_bytes());
        }
        bytes.truncate(skip + pages * PAGE_SIZE);
        Aligned { bytes, skip }
    }

    fn get(&mut self) -> &mut [u8] {
        &mut self.bytes[self.skip..]
    }
}

#[test]
fn the_file_behind_is_roots_and_a_discard_frees() {
    let Some(_alone) = alone("the_file_behind_is_roots_and_a_discard_frees") else { return };
    let store = Plain::new(256);
    let transport = attach(store.clone());
    let path = transport.path().to_owned();
    // Other users meet no file: the mount admits the one who made it, and the device node is root's.
    let mode = fs::metadata(&path).unwrap().mode();
    assert_eq!(mode & 0o007, 0, "{mode:o}: the device is not everybody's");
    let refused = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "dd", "count=1", "of=/dev/null"])
        .arg(format!("if={}", path.display()))
        .output()
        .unwrap();
    assert!(!refused.status.success(), "another user reads swapped pages");

    let device = open_direct(&path);
    let mut memory = Aligned::new(32, 1);
    let buffer = memory.get();
    // Requests of many pages, at an offset that is none of their size.
    device.write_all_at(buffer, 3 * 4096).unwrap();
    device.sync_all().unwrap();
    assert!(store.flushed.load(Relaxed) > 0, "a flush reaches the store");
    for (at, page) in buffer.chunks(PAGE_SIZE).enumerate() {
        assert!(store.pages[at + 3].lock().unwrap().as_slice() == page, "page {at}");
    }
    let written = buffer.to_vec();
    buffer.fill(0);
    device.read_exact_at(buffer, 3 * 4096).unwrap();
    assert!(buffer == written);
    // Part of a page: through the block layer's own buffers.
    let small = File::options().read(true).write(true).open(&path).unwrap();
    small.write_all_at(b"odd", 5 * 4096 + 101).unwrap();
    small.sync_all().unwrap();
    assert_eq!(&store.pages[5].lock().unwrap()[101..104], b"odd");
    assert_eq!(small.write_at(b"beyond", 256 * 4096).unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    assert_eq!(small.read_at(&mut [0; 16], 256 * 4096).unwrap(), 0, "the end");
    drop(small);
    done(&[
        "blkdiscard",
        "-o",
        &(8 * 4096).to_string(),
        "-l",
        &(16 * 4096).to_string(),
        path.to_str().unwrap(),
    ]);
    assert_eq!(store.discarded.load(Relaxed), 16);
    assert!(*store.pages[8].lock().unwrap() == [0; PAGE_SIZE]);
    assert!(*store.pages[7].lock().unwrap() != [0; PAGE_SIZE]);
    drop(device);
    transport.detach().unwrap();
}

/// The kernel makes requests of up to 1280 KiB, FUSE cuts them at 1 MiB, and the loop driver takes a short write for a whole
/// one: a failure in the second part must not pass for success.
#[test]
fn a_page_that_fails_is_never_called_done() {
    let Some(_alone) = alone("a_page_that_fails_is_never_called_done") else { return };
    const LEN: usize = 1024;
    let store = Plain::new(2048);
    let transport = attach(store.clone());
    let device = open_direct(transport.path());
    for (round, bad) in
        [0, 1, 100, 255, 256, 300, 319, 320, 511, 575, 576, 639, 640, 1023].into_iter().enumerate()
    {
        let first = 8 * round;
        let mut memory = Aligned::new(LEN, round as u64 + 2);
        let offset = first as u64 * PAGE;
        store.bad.lock().unwrap().insert((first + bad) as u64);
        let done = device.write_at(memory.get(), offset).unwrap_or(0);
        assert!(done <= bad * PAGE_SIZE, "page {bad} cannot be written, and {done} bytes are said to be");
        let seen = |page: usize| store.pages[first + page].lock().unwrap().to_vec();
        for (page, content) in memory.get()[..done].chunks(PAGE_SIZE).enumerate() {
            assert!(seen(page) == content, "page {page} was said to be written");
        }
        store.bad.lock().unwrap().clear();
        device.write_all_at(memory.get(), offset).unwrap();
        assert!((0..LEN).all(|page| seen(page) == memory.get()[page * PAGE_SIZE..][..PAGE_SIZE]));

        store.bad.lock().unwrap().insert((first + bad) as u64);
        let mut back = Aligned::new(LEN, 0);
        let done = device.read_at(back.get(), offset).unwrap_or(0);
        assert!(done <= bad * PAGE_SIZE, "page {bad} cannot be read, and {done} bytes are said to be");
        assert!(back.get()[..done] == memory.get()[..done]);
        store.bad.lock().unwrap().clear();
        device.read_exact_at(back.get(), offset).unwrap();
        assert!(back.get() == memory.get());
    }
    drop(device);
    transport.detach().unwrap();
}

#[test]
fn the_file_is_roots_and_of_one_size() {
    let Some(_alone) = alone("the_file_is_roots_and_of_one_size") else { return };
    let fuse = FuseFile::serve(Plain::new(64), TWO, "test").unwrap();
    let file = File::from(fuse.file().try_clone_to_owned().unwrap());
    let it = file.metadata().unwrap();
    assert_eq!((it.mode(), it.uid(), it.gid()), (libc::S_IFREG | 0o600, 0, 0));
    assert_eq!((it.len(), it.nlink(), it.blksize()), (64 * PAGE, 1, PAGE));
    // It has no name; the only way from outside is through the descriptors of whoever has it open.
    let number = std::os::fd::AsRawFd::as_raw_fd(&file);
    let refused = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "dd", "count=1", "of=/dev/null"])
        .arg(format!("if=/proc/{}/fd/{number}", std::process::id()))
        .output()
        .unwrap();
    assert!(!refused.status.success(), "another user opens the file");
    assert!(file.set_len(PAGE).is_err() && file.set_len(65 * PAGE).is_err(), "its size never changes");
    assert_eq!(file.metadata().unwrap().len(), 64 * PAGE);
    drop(file);
    fuse.end().unwrap();
}

#[test]
fn the_file_takes_every_request_or_says_why_not() {
    let Some(_alone) = alone("the_file_takes_every_request_or_says_why_not") else { return };
    const PAGES: usize = 1024;
    const SIZE: usize = PAGES * PAGE_SIZE;
    let store = Plain::new(PAGES);
    let fuse = FuseFile::serve(store.clone(), TWO, "test").unwrap();
    let file = File::from(fuse.file().try_clone_to_owned().unwrap());
    let mut model = vec![0; SIZE];
    let mut seed = 7u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % below
    };
    for step in 0..400u64 {
        // Any alignment, up to three times what one request carries, sometimes over the end.
        let most = [100, 5000, 3 << 20][random(3)];
        let (offset, len) = (random(SIZE), 1 + random(most));
        let fits = len.min(SIZE - offset);
        if random(2) == 0 {
            let mut data = Aligned::new(len.div_ceil(PAGE_SIZE), step);
            let done = file.write_at(&data.get()[..len], offset as u64).unwrap();
            assert_eq!(done, fits, "{len} bytes at {offset}");
            model[offset..][..done].copy_from_slice(&data.get()[..done]);
        } else {
            let mut out = vec![0xEE; len];
            assert_eq!(file.read_at(&mut out, offset as u64).unwrap(), fits, "{len} bytes at {offset}");
            assert!(out[..fits] == model[offset..][..fits], "step {step}");
        }
    }
    let all: Vec<u8> = store.pages.iter().flat_map(|page| *page.lock().unwrap()).collect();
    assert!(all == model);

    for offset in [SIZE as u64, SIZE as u64 + 1, 1 << 40, i64::MAX as u64 - 16] {
        assert_eq!(file.read_at(&mut [0; 16], offset).unwrap(), 0, "the end");
        let errno = file.write_at(&[1; 16], offset).unwrap_err().raw_os_error();
        assert!(matches!(errno, Some(libc::ENOSPC | libc::EFBIG)), "{errno:?} at {offset}");
    }
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let hole = |flags, offset, len| rustix::fs::fallocate(&file, flags, offset, len);
    // A hole of a page and parts of its neighbours, and one that goes over the end.
    hole(punch, 5 * PAGE - 10, PAGE + 20).unwrap();
    model[5 * PAGE_SIZE - 10..][..PAGE_SIZE + 20].fill(0);
    hole(punch, SIZE as u64 - 5, 1 << 30).unwrap();
    model[SIZE - 5..].fill(0);
    hole(punch, 1 << 40, 1 << 20).unwrap();
    let all: Vec<u8> = store.pages.iter().flat_map(|page| *page.lock().unwrap()).collect();
    assert!(all == model);
    assert_eq!(hole(FallocateFlags::empty(), 0, PAGE), Err(Errno::OPNOTSUPP));
    assert_eq!(hole(FallocateFlags::COLLAPSE_RANGE, 0, PAGE), Err(Errno::OPNOTSUPP));
    assert_eq!(hole(FallocateFlags::ZERO_RANGE, SIZE as u64 - 1, PAGE), Err(Errno::NOSPC));
    drop(file);
    fuse.end().unwrap();
}

/// A panic without the message that a real one prints.
fn defect() -> ! {
    std::panic::resume_unwind(Box::new("a defect on purpose"))
}

/// A store with a defect.
struct Defect;

impl PageStore for Defect {
    fn pages(&self) -> u64 {
        16
    }

    fn read(&self, page: u64, out: &mut Page) -> Result<(), Errno> {
        if page == 3 {
            defect();
        }
        out.fill(7);
        Ok(())
    }

    fn write(&self, page: u64, _: &Page) -> Result<(), Errno> {
        if page == 3 {
            defect();
        }
        Ok(())
    }

    fn discard(&self, _: u64, _: u64) -> Result<(), Errno> {
        defect()
    }

    fn flush(&self) -> Result<(), Errno> {
        defect()
    }
}

/// With no thread left to answer, whoever swaps would wait for ever.
#[test]
fn a_panic_is_an_error_of_one_request_and_serving_goes_on() {
    let Some(_alone) = alone("a_panic_is_an_error_of_one_request_and_serving_goes_on") else { return };
    let fuse = FuseFile::serve(Arc::new(Defect), TWO, "test").unwrap();
    let file = File::from(fuse.file().try_clone_to_owned().unwrap());
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let mut page = [0; PAGE_SIZE];
    // More often than there are threads.
    for _ in 0..5 {
        let errno = |result: std::io::Result<usize>| result.unwrap_err().raw_os_error();
        assert_eq!(errno(file.read_at(&mut page, 3 * PAGE)), Some(libc::EIO));
        assert_eq!(errno(file.write_at(&page, 3 * PAGE)), Some(libc::EIO));
        assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(libc::EIO));
        assert_eq!(rustix::fs::fallocate(&file, punch, 0, PAGE), Err(Errno::IO));
        file.read_exact_at(&mut page, 4 * PAGE).unwrap();
        assert!(page == [7; PAGE_SIZE]);
        file.write_all_at(&page, 5 * PAGE).unwrap();
    }
    drop(file);
    fuse.end().unwrap();
}
