//! `File`: what it makes, what it refuses, and that its pages are where they belong. The files are looked at with the
//! standard library, not through the device.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::process::Command;

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
    let mut out = [1; PAGE_SIZE];
    file.read_page(63, &mut out).unwrap();
    assert!(out == [0; PAGE_SIZE], "a page never written is zeros");
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
    assert!(matches!(file.read_page(4, &mut out), Err(DeviceError::Io(_))));
}

/// Prints why a test cannot run here; a failure where everything must run.
fn skip(name: &str, why: &str) {
    println!("SKIP {name}: {why}");
    assert!(std::env::var_os("CI").is_none(), "{name} must not be skipped here: {why}");
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

struct Undo(Vec<Vec<String>>);

impl Drop for Undo {
    fn drop(&mut self) {
        for command in self.0.iter().rev() {
            let _ = Command::new(&command[0]).args(&command[1..]).output();
        }
    }
}

fn sh(words: &[&str]) -> String {
    let out = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_full_file_system_is_an_error() {
    if !is_root() {
        return skip("a_full_file_system_is_an_error", "mounting takes root");
    }
    let dir = dir();
    let mount = dir.path().to_str().unwrap();
    sh(&["mount", "-t", "tmpfs", "-o", "size=1m", "none", mount]);
    let _undo = Undo(vec![vec!["umount".into(), mount.into()]]);
    let file = File::create(&dir.path().join("swap"), 1024, Existing::Replace).unwrap();
    let refused = (0..1024).find_map(|number| file.write_pages(number, &[page(3)]).err());
    assert_eq!(refused, Some(DeviceError::Io(libc::ENOSPC)));
    let mut out = [0; PAGE_SIZE];
    file.read_page(0, &mut out).unwrap();
    assert!(out == page(3), "what was written before is there");
    drop(file);
}

#[test]
fn a_block_device() {
    if !is_root() {
        return skip("a_block_device", "loop devices take root");
    }
    let dir = dir();
    let backing = dir.path().join("disk");
    fs::File::create(&backing).unwrap().set_len(64 * 4096).unwrap();
    let device = sh(&["losetup", "--find", "--show", backing.to_str().unwrap()]);
    let undo = Undo(vec![vec!["losetup".into(), "-d".into(), device.clone()]]);
    let file = File::open(device.as_ref(), 64).unwrap();
    assert_eq!(file.pages(), 64);
    assert!(File::open(device.as_ref(), 1).is_err(), "claimed");
    file.write_pages(5, &[page(9), page(10)]).unwrap();
    file.flush().unwrap();
    let mut seen = [0; PAGE_SIZE];
    fs::File::open(&backing).unwrap().read_exact_at(&mut seen, 6 * 4096).unwrap();
    assert!(seen == page(10));
    file.discard(0, 64).unwrap();
    file.read_page(5, &mut seen).unwrap();
    assert!(seen == [0; PAGE_SIZE]);
    drop(file);
    drop(undo);
}
