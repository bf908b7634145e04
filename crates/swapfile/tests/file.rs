//! `File`: what it makes, what it refuses, and that its pages are where they belong. The files are looked at with the
//! standard library, not through the device.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};

use swapfile::{DeviceError, Existing, File, OpenError, PAGE_SIZE, Page, SwapDevice};

fn page(seed: u8) -> Page {
    let mut page = [seed; PAGE_SIZE];
    for (at, byte) in page.iter_mut().enumerate() {
        *byte = seed.wrapping_mul(31).wrapping_add((at % 251) as u8);
    }
    page
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn a_new_file_is_sparse_and_its_owners_only() {
    let dir = dir();
    let path = dir.path().join("swap");
    // Whatever the mask says.
    let file = File::create(&path, 1 << 18, Existing::Replace).unwrap();
    let it = fs::metadata(&path).unwrap();
    assert_eq!(it.permissions().mode() & 0o7777, 0o600);
    assert_eq!(it.len(), 1 << 30);
    assert!(it.blocks() * 512 < 1 << 20, "{} blocks of a sparse file", it.blocks());
    assert_eq!(file.pages(), 1 << 18);
}

#[test]
fn pages_are_where_they_belong() {
    let dir = dir();
    let path = dir.path().join("swap");
    let file = File::create(&path, 64, Existing::Replace).unwrap();
    // Runs of every length from unaligned memory: bounce buffers, and more than one of them.
    let mut bytes = vec![0u8; 41 * PAGE_SIZE + 8];
    let pages: Vec<Page> = (0..40).map(page).collect();
    for (to, from) in bytes[3..].chunks_exact_mut(PAGE_SIZE).zip(&pages) {
        to.copy_from_slice(from);
    }
    let (unaligned, _) = bytes[3..].as_chunks::<PAGE_SIZE>();
    file.write_pages(0, &pages[..1]).unwrap();
    file.write_pages(1, &unaligned[1..40]).unwrap();
    file.flush().unwrap();
    let raw = fs::File::open(&path).unwrap();
    for (number, expected) in pages.iter().enumerate() {
        let mut seen = [0; PAGE_SIZE];
        raw.read_exact_at(&mut seen, (number * PAGE_SIZE) as u64).unwrap();
        assert!(seen == *expected, "page {number} in the file");
        let mut out = [0; PAGE_SIZE];
        file.read_page(number as u64, &mut out).unwrap();
        assert!(out == *expected, "page {number}");
    }
    // Read as runs, into memory that is aligned to nothing and into what the allocator gives.
    for (first, count) in [(0, 40), (3, 1), (7, 16), (7, 17), (39, 1)] {
        let mut whole = vec![[1; PAGE_SIZE]; count];
        file.read_pages(first as u64, &mut whole).unwrap();
        assert!(whole == pages[first..first + count], "{count} pages from {first}");
        bytes.fill(1);
        let (parts, _) = bytes[5..].as_chunks_mut::<PAGE_SIZE>();
        file.read_pages(first as u64, &mut parts[..count]).unwrap();
        assert!(parts[..count] == pages[first..first + count], "{count} pages from {first}, unaligned");
        assert!(parts[count..].as_flattened().iter().all(|byte| *byte == 1), "more than was asked for");
    }
    let mut out = [1; PAGE_SIZE];
    file.read_page(63, &mut out).unwrap();
    assert!(out == [0; PAGE_SIZE], "a page never written is zeros");
}

/// A write into a hole keeps every reader of the file waiting.
#[test]
fn space_is_taken_ahead_of_a_file_that_grows_from_its_start() {
    const NAME: &str = "space_is_taken_ahead_of_a_file_that_grows_from_its_start";
    const STEP: u64 = 1024;
    // Not where files are memory, as /tmp may be.
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = dir.path().join("swap");
    let probe = fs::File::create(dir.path().join("probe")).unwrap();
    if let Err(why) = rustix::fs::fallocate(probe, rustix::fs::FallocateFlags::KEEP_SIZE, 0, 1 << 20) {
        return undo::need::skip(NAME, &format!("files in /var/tmp get no space ahead: {why}"));
    }
    let file = File::create(&path, 4 * STEP, Existing::Replace).unwrap();
    let pages_taken = || fs::metadata(&path).unwrap().blocks() * 512 / PAGE_SIZE as u64;
    // The file system's own blocks for keeping track count as well.
    let is_about = |pages: u64| (pages..pages + 16).contains(&pages_taken());
    file.write_pages(0, &[page(1)]).unwrap();
    assert!(is_about(STEP + 1), "{} pages", pages_taken());
    file.write_pages(STEP, &[page(2)]).unwrap();
    assert!(is_about(STEP + 1), "{} pages: there is space for this one", pages_taken());
    file.write_pages(3 * STEP, &[page(3)]).unwrap();
    assert!(is_about(STEP + 2), "{} pages: this one lies apart", pages_taken());
    file.write_pages(STEP + 7, &vec![page(4); 2]).unwrap();
    assert!(is_about(2 * STEP + 10), "{} pages", pages_taken());
    file.write_pages(2 * STEP + 9, &vec![page(5); STEP as usize + 100]).unwrap();
    assert!(is_about(4 * STEP), "{} pages: no more than the file has", pages_taken());
    let mut out = [0; PAGE_SIZE];
    for (number, seed) in
        [(0, 1), (STEP, 2), (STEP + 7, 4), (STEP + 8, 4), (2 * STEP + 9, 5), (3 * STEP + 100, 5)]
    {
        file.read_page(number, &mut out).unwrap();
        assert!(out == page(seed), "page {number}");
    }
    file.read_page(4 * STEP - 1, &mut out).unwrap();
    assert!(out == [0; PAGE_SIZE], "space without content is zeros");
    assert_eq!(fs::metadata(&path).unwrap().len(), 4 * STEP * PAGE_SIZE as u64);
}

#[test]
fn a_discard_makes_a_hole() {
    let dir = dir();
    let path = dir.path().join("swap");
    let file = File::create(&path, 512, Existing::Replace).unwrap();
    file.write_pages(0, &vec![page(7); 512]).unwrap();
    file.flush().unwrap();
    let before = fs::metadata(&path).unwrap().blocks();
    file.discard(16, 480).unwrap();
    file.flush().unwrap();
    let after = fs::metadata(&path).unwrap().blocks();
    assert!(after * 4 < before, "{before} blocks before, {after} after");
    let mut out = [1; PAGE_SIZE];
    file.read_page(15, &mut out).unwrap();
    assert!(out == page(7), "the page before the hole");
    file.read_page(100, &mut out).unwrap();
    assert!(out == [0; PAGE_SIZE]);
}

#[test]
fn nothing_beyond_the_end_is_touched() {
    let dir = dir();
    let file = File::create(&dir.path().join("swap"), 8, Existing::Replace).unwrap();
    let mut out = [0; PAGE_SIZE];
    for first in [8, 9, u64::MAX / 4096, u64::MAX] {
        assert_eq!(file.read_page(first, &mut out), Err(DeviceError::OutOfRange));
        assert_eq!(file.write_pages(first, &[out]), Err(DeviceError::OutOfRange));
        assert_eq!(file.discard(first, 1), Err(DeviceError::OutOfRange));
    }
    assert_eq!(file.write_pages(7, &[out, out]), Err(DeviceError::OutOfRange));
    assert_eq!(file.read_pages(7, &mut [out, out]), Err(DeviceError::OutOfRange));
    assert_eq!(file.read_pages(u64::MAX, &mut [out, out]), Err(DeviceError::OutOfRange));
    assert_eq!(file.discard(1, u64::MAX), Err(DeviceError::OutOfRange));
    assert_eq!(fs::metadata(dir.path().join("swap")).unwrap().len(), 8 * 4096);
}

#[test]
fn one_user_at_a_time() {
    let dir = dir();
    let path = dir.path().join("swap");
    let file = File::create(&path, 8, Existing::Replace).unwrap();
    assert!(matches!(File::open(&path, 1), Err(OpenError::Locked)));
    assert!(matches!(File::create(&path, 8, Existing::Replace), Err(OpenError::Locked)));
    assert_eq!(fs::metadata(&path).unwrap().len(), 8 * 4096, "the refused one changed nothing");
    drop(file);
    assert!(File::open(&path, 8).is_ok());
}

#[test]
fn what_cannot_be_a_device_is_refused_and_left_alone() {
    let dir = dir();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("small"), vec![1; 3 * PAGE_SIZE]).unwrap();
    symlink(at("small"), at("link")).unwrap();
    assert!(matches!(File::open(&at("none"), 1), Err(OpenError::Missing)));
    assert!(matches!(File::open(&at("small/under"), 1), Err(OpenError::Missing)));
    assert!(matches!(File::open(dir.path(), 1), Err(OpenError::Directory)));
    assert!(matches!(File::open("/dev/null".as_ref(), 1), Err(OpenError::NotStorage)));
    assert!(File::open(&at("small"), 4).is_err(), "too small");
    assert!(File::open(&at("link"), 3).is_ok(), "links are how disks are named");
    assert!(File::create(&at("link"), 3, Existing::Replace).is_err(), "but nothing is made through one");
    assert!(matches!(File::create(&at("empty"), 0, Existing::Replace), Err(OpenError::Empty)));
    assert!(!at("empty").exists());
    assert!(File::create(&at("huge"), u64::MAX / 4096, Existing::Replace).is_err());
    assert!(!at("huge").exists(), "a failure leaves no file");
    assert_eq!(fs::read(at("small")).unwrap(), vec![1; 3 * PAGE_SIZE]);
}

#[test]
fn a_file_cut_off_is_an_error_and_no_page_of_zeros() {
    let dir = dir();
    let path = dir.path().join("swap");
    let file = File::create(&path, 8, Existing::Replace).unwrap();
    file.write_pages(0, &[page(1); 8]).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(4 * 4096).unwrap();
    let mut out = [0; PAGE_SIZE];
    assert_eq!(file.read_page(3, &mut out), Ok(()));
    assert_eq!(file.read_page(4, &mut out), Err(DeviceError::Io(libc::EIO)));
    // In the middle of a page: what is left of it is not the page.
    fs::File::options().write(true).open(&path).unwrap().set_len(2 * 4096 + 512).unwrap();
    assert_eq!(file.read_page(1, &mut out), Ok(()));
    assert_eq!(file.read_page(2, &mut out), Err(DeviceError::Io(libc::EIO)));
    assert_eq!(file.pages(), 8, "the size is what was counted at the start");
}

#[test]
fn bytes_after_the_last_whole_page_are_left_alone() {
    let dir = dir();
    let path = dir.path().join("swap");
    fs::write(&path, vec![0x5A; 2 * PAGE_SIZE + 100]).unwrap();
    let file = File::open(&path, 2).unwrap();
    assert_eq!(file.pages(), 2);
    file.write_pages(0, &[page(1), page(2)]).unwrap();
    file.discard(0, 2).unwrap();
    file.flush().unwrap();
    drop(file);
    let after = fs::read(&path).unwrap();
    assert!(after.len() == 2 * PAGE_SIZE + 100 && after[2 * PAGE_SIZE..].iter().all(|byte| *byte == 0x5A));
    fs::write(&path, [1; 4095]).unwrap();
    assert_eq!(File::open(&path, 0).err(), Some(OpenError::Empty), "not one page");
}

#[test]
fn a_file_that_is_replaced_keeps_nothing() {
    let dir = dir();
    let path = dir.path().join("swap");
    fs::write(&path, vec![0x5A; 3 * PAGE_SIZE]).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(File::create(&path, 8, Existing::Refuse).err(), Some(OpenError::Exists));
    assert_eq!(fs::metadata(&path).unwrap().len(), 3 * 4096, "the refused one changed nothing");
    let file = File::create(&path, 8, Existing::Replace).unwrap();
    let mut out = [1; PAGE_SIZE];
    for number in 0..8 {
        file.read_page(number, &mut out).unwrap();
        assert!(out == [0; PAGE_SIZE], "page {number}");
    }
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
        0o600,
        "others may not read pages"
    );
}
