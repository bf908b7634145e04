//! `File` on what a machine has: full, read-only and simple file systems, block devices that fail, areas that are swapped
//! to. Needs root, and changes mounts, loop devices and swap areas; each is put back when its guard is dropped.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use swapfile::{DeviceError, Existing, File, Latched, OpenError, PAGE_SIZE, Page, SwapDevice};
use tempfile::TempDir;
use undo::storage::{self, done};
use undo::{Undo, need};

fn page(seed: u8) -> Page {
    std::array::from_fn(|at| seed.wrapping_mul(31).wrapping_add((at % 251) as u8))
}

/// One test at a time: each changes what is the machine's. `None`: it cannot run here, and has said so.
fn alone(name: &str) -> Option<fs::File> {
    need::alone(name, &["/dev/loop-control"])
}

/// A file system of its own, of a kind that lives in RAM.
struct Mount {
    // In this order when dropped.
    _mounted: Undo,
    dir: TempDir,
}

impl Mount {
    fn new(kind: &str, options: &str) -> Mount {
        let dir = tempfile::tempdir().unwrap();
        Mount { _mounted: storage::mount(&["-t", kind, "-o", options, "none"], dir.path()), dir }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn again(&self, options: &str) {
        done(&["mount", "-o", &format!("remount,{options}"), self.dir.path().to_str().unwrap()]);
    }
}

/// A loop device on a new file of `pages` pages.
struct Loop {
    _attached: Undo,
    path: PathBuf,
    backing: PathBuf,
}

impl Loop {
    fn on(backing: PathBuf, pages: u64) -> Loop {
        fs::File::create(&backing).unwrap().set_len(pages * 4096).unwrap();
        let (path, attached) = storage::attach(&backing);
        Loop { _attached: attached, path, backing }
    }
}

fn read(device: &dyn SwapDevice, number: u64) -> Result<Page, DeviceError> {
    let mut out = [0xEE; PAGE_SIZE];
    device.read_page(number, &mut out).map(|()| out)
}

#[test]
fn a_full_file_system_is_an_error() {
    let Some(_alone) = alone("a_full_file_system_is_an_error") else { return };
    let mount = Mount::new("tmpfs", "size=1m");
    let file = File::create(&mount.at("one by one"), 1024, Existing::Refuse).unwrap();
    let taken = (0..1024).take_while(|number| file.write_pages(*number, &[page(3)]).is_ok()).count() as u64;
    assert!((200..=256).contains(&taken), "{taken} pages in 1 MiB");
    assert_eq!(file.write_pages(taken, &[page(3)]), Err(DeviceError::Io(libc::ENOSPC)));
    for number in 0..taken {
        assert!(read(&file, number).unwrap() == page(3), "page {number} was written before");
    }
    // What a discard gives back can be written again.
    file.discard(0, 16).unwrap();
    file.write_pages(600, &[page(4); 16]).unwrap();
    assert!(read(&file, 615).unwrap() == page(4));
    drop(file);
    fs::remove_file(mount.at("one by one")).unwrap();
    // A run of which a part finds room: the error says why it stopped, not only that it did.
    let file = File::create(&mount.at("in runs"), 1024, Existing::Refuse).unwrap();
    assert_eq!(file.write_pages(0, &vec![page(5); 1024]), Err(DeviceError::Io(libc::ENOSPC)));
    assert!(read(&file, 0).unwrap() == page(5), "the run's beginning");
}

#[test]
fn a_file_system_that_shrank_is_an_error() {
    let Some(_alone) = alone("a_file_system_that_shrank_is_an_error") else { return };
    let mount = Mount::new("tmpfs", "size=4m");
    let file = File::create(&mount.at("swap"), 512, Existing::Refuse).unwrap();
    file.write_pages(0, &[page(1); 64]).unwrap();
    mount.again("size=256k");
    assert_eq!(file.write_pages(64, &[page(2)]), Err(DeviceError::Io(libc::ENOSPC)));
    file.write_pages(0, &[page(3)]).unwrap();
    assert!(read(&file, 0).unwrap() == page(3) && read(&file, 63).unwrap() == page(1));
}

#[test]
fn a_read_only_file_system_is_refused() {
    let Some(_alone) = alone("a_read_only_file_system_is_refused") else { return };
    let mount = Mount::new("tmpfs", "size=1m");
    fs::write(mount.at("swap"), vec![7; 16 * PAGE_SIZE]).unwrap();
    mount.again("ro");
    assert_eq!(File::open(&mount.at("swap"), 1).err(), Some(OpenError::NotWritable(libc::EROFS)));
    let created = File::create(&mount.at("new"), 1, Existing::Refuse).err();
    assert_eq!(created, Some(OpenError::NotWritable(libc::EROFS)));
    assert_eq!(fs::read(mount.at("swap")).unwrap(), vec![7; 16 * PAGE_SIZE]);
}

/// ramfs has neither direct I/O nor holes. Discard is advice, so that a device cannot take it is no failure of the device.
#[test]
fn without_direct_io_and_discard_it_works() {
    let Some(_alone) = alone("without_direct_io_and_discard_it_works") else { return };
    let mount = Mount::new("ramfs", "mode=700");
    let file = File::create(&mount.at("swap"), 64, Existing::Refuse).unwrap();
    assert!(!file.is_direct(), "ramfs has learned direct I/O: this test needs another file system");
    let device = Latched::new(file);
    for round in 0..3 {
        device.write_pages(3, &[page(1 + round); 40]).unwrap();
        assert_eq!(device.discard(8, 4), Ok(()), "advice that cannot be taken");
        assert!((3..43).all(|number| number / 4 == 2 || read(&device, number).unwrap() == page(1 + round)));
        assert_eq!(device.flush(), Ok(()));
    }
    assert_eq!(device.error(), None, "the device has not failed");
    // A block device that cannot discard, because the file under it cannot.
    let below = Loop::on(mount.at("disk"), 64);
    let device = Latched::new(File::open(&below.path, 64).unwrap());
    for round in 0..3 {
        device.write_pages(0, &[page(round); 64]).unwrap();
        assert_eq!(device.discard(0, 8), Ok(()));
        assert!(read(&device, 63).unwrap() == page(round));
    }
    assert_eq!(device.error(), None);
    drop(device);
}

#[test]
fn a_block_device() {
    let Some(_alone) = alone("a_block_device") else { return };
    let dir = tempfile::tempdir().unwrap();
    let below = Loop::on(dir.path().join("disk"), 64);
    let file = File::open(&below.path, 64).unwrap();
    assert!(file.is_direct());
    assert_eq!(file.pages(), 64);
    assert_eq!(File::open(&below.path, 1).err(), Some(OpenError::Busy), "claimed");
    file.write_pages(5, &[page(9), page(10)]).unwrap();
    file.flush().unwrap();
    let mut seen = [0; PAGE_SIZE];
    fs::File::open(&below.backing).unwrap().read_exact_at(&mut seen, 6 * 4096).unwrap();
    assert!(seen == page(10));
    assert!(fs::metadata(&below.backing).unwrap().blocks() > 0);
    file.discard(0, 64).unwrap();
    assert!(read(&file, 5).unwrap() == [0; PAGE_SIZE]);
    assert_eq!(fs::metadata(&below.backing).unwrap().blocks(), 0, "a discard goes through to the file");
    drop(file);
    assert!(
        matches!(File::open(&below.path, 65), Err(OpenError::TooSmall { pages: 64, needed: 65 })),
        "too small"
    );
}

/// The file under a loop device is cut off: what lay beyond is an I/O error of the block device, and no page of zeros.
#[test]
fn a_block_device_that_cannot_read_says_so() {
    let Some(_alone) = alone("a_block_device_that_cannot_read_says_so") else { return };
    let dir = tempfile::tempdir().unwrap();
    let below = Loop::on(dir.path().join("disk"), 64);
    let device = Latched::new(File::open(&below.path, 64).unwrap());
    device.write_pages(0, &[page(6); 64]).unwrap();
    device.flush().unwrap();
    fs::File::options().write(true).open(&below.backing).unwrap().set_len(16 * 4096).unwrap();
    assert!(read(&device, 15).unwrap() == page(6));
    assert_eq!(read(&device, 16), Err(DeviceError::Io(libc::EIO)));
    drop(device);
}

#[test]
fn a_block_device_that_cannot_write_is_latched() {
    let Some(_alone) = alone("a_block_device_that_cannot_write_is_latched") else { return };
    let mount = Mount::new("tmpfs", "size=1m");
    let below = Loop::on(mount.at("disk"), 1024);
    let device = Latched::new(File::open(&below.path, 1024).unwrap());
    device.write_pages(0, &[page(1); 32]).unwrap();
    let failed = (1..32).find_map(|run| device.write_pages(run * 32, &[page(2); 32]).err());
    // The file below found no room; which errno the block layer makes of it is the kernel's.
    let Some(DeviceError::Io(errno)) = failed else { panic!("{failed:?}") };
    assert_eq!(device.error(), Some(errno));
    assert_eq!(device.write_pages(0, &[page(3)]), Err(DeviceError::Latched(errno)), "though there is room");
    assert_eq!(device.flush(), Err(DeviceError::Latched(errno)));
    assert!(read(&device, 31).unwrap() == page(1), "what was written before can be read");
    drop(device);
    // Read-only from one moment to the next, as disks are that the kernel gave up on.
    let small = Loop::on(mount.at("small"), 16);
    let file = File::open(&small.path, 16).unwrap();
    file.discard(0, 16).unwrap();
    done(&["blockdev", "--setro", small.path.to_str().unwrap()]);
    assert!(matches!(file.write_pages(0, &[page(1)]), Err(DeviceError::Io(_))));
    assert!(read(&file, 0).unwrap() == [0; PAGE_SIZE]);
    drop(file);
    assert_eq!(File::open(&small.path, 16).err(), Some(OpenError::NotWritable(libc::EROFS)));
}

#[test]
fn what_the_kernel_swaps_to_is_refused() {
    let Some(_alone) = alone("what_the_kernel_swaps_to_is_refused") else { return };
    let dir = tempfile::tempdir().unwrap();
    let below = Loop::on(dir.path().join("disk"), 256);
    done(&["mkswap", below.path.to_str().unwrap()]);
    let before = fs::read(&below.backing).unwrap();
    let on = storage::swapon(&below.path);
    assert_eq!(File::open(&below.path, 1).err(), Some(OpenError::InUseAsSwap));
    drop(on);
    // Behind the header the kernel may have put anybody's pages meanwhile.
    let after = fs::read(&below.backing).unwrap();
    assert!(after[..PAGE_SIZE] == before[..PAGE_SIZE], "nothing was written");
    assert!(File::open(&below.path, 256).is_ok(), "swapped off, it is free");
    // A file; the kernel wants one without holes.
    let file = dir.path().join("file with a space");
    fs::write(&file, vec![0; 64 * PAGE_SIZE]).unwrap();
    done(&["chmod", "600", file.to_str().unwrap()]);
    done(&["mkswap", file.to_str().unwrap()]);
    let on = storage::swapon(&file);
    assert_eq!(File::open(&file, 1).err(), Some(OpenError::InUseAsSwap));
    assert!(File::create(&file, 1, Existing::Replace).is_err());
    assert_eq!(fs::metadata(&file).unwrap().len(), 64 * 4096);
    drop(on);
    assert!(File::open(&file, 64).is_ok());
}
