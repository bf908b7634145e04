//! What a dead server left is undone, and what is not its own is never touched.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use swapdev::header::{Uuid, swap_header};
use swapdev::loopdev::LoopDevice;
use swapdev::swapon::{Priority, areas, swapon};
use swapdev::{Device, Instance, PAGE_SIZE, Page, Record, cleanup};

use crate::machine::{Plain, alone, config, traces};

const LIMIT: Duration = Duration::from_secs(60);
const PAGES: u64 = 1024;

#[repr(align(4096))]
struct Aligned(Page);

/// What a server leaves that dies while the kernel swaps to its device: the device, its record, no lock.
fn die(root: &Path, name: &str, backing: &Path) {
    let token = format!("uzswap:{name}:01234567");
    let file = File::options().read(true).write(true).create_new(true).open(backing).unwrap();
    file.set_len(PAGES * PAGE_SIZE as u64).unwrap();
    let instance = Instance::claim(root, name).unwrap();
    let mut record = |path: &Path| instance.record(&Record { path: path.to_owned(), token: token.clone() });
    let device = LoopDevice::attach(file.as_fd(), &token, &mut record).unwrap();
    let header = swap_header(PAGES, Uuid::random().unwrap(), name).unwrap();
    device.device().write_all_at(&Aligned(header).0, 0).unwrap();
    swapon(device.path(), Priority::new(0).unwrap()).unwrap();
}

/// Takes away what a failed test leaves.
struct Cleaned<'a>(&'a Path);

impl Drop for Cleaned<'_> {
    fn drop(&mut self) {
        if let Err(error) = cleanup::clean(self.0, "dead", LIMIT) {
            eprintln!("{error}");
        }
    }
}

#[test]
fn a_dead_servers_device_is_turned_off_and_taken_away() {
    let Some(_alone) = alone("a_dead_servers_device_is_turned_off_and_taken_away") else { return };
    let before = traces();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("run");
    let _cleaned = Cleaned(&root);
    // By a cleanup, and by the next device of that name.
    for round in 0..2 {
        let backing = dir.path().join(format!("backing {round}"));
        // Where the test is killed: nobody else knows of that run directory.
        let _detached = undo::storage::detached(&backing);
        die(&root, "dead", &backing);
        assert_ne!(traces(), before, "it left something");
        assert_eq!(cleanup::leftovers(&root).unwrap(), ["dead"]);
        if round == 0 {
            let undone = cleanup::clean(&root, "dead", LIMIT).unwrap().unwrap();
            assert_eq!(undone.name, "dead");
            assert!(undone.device.is_some());
            assert!(cleanup::clean(&root, "dead", LIMIT).unwrap().is_none(), "there is nothing more");
        } else {
            let mut next = Device::create(Plain::new(4096), &config(&root, "dead")).unwrap();
            assert_eq!(areas().unwrap().len(), before[2].len(), "the old one is gone");
            assert!(cleanup::leftovers(&root).unwrap().is_empty(), "the living are no leftovers");
            next.swapoff_and_close().unwrap();
        }
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
        assert_eq!(traces(), before);
    }
}

/// The number of a loop device may have been used again, by somebody else or by another instance.
#[test]
fn a_device_of_somebody_elses_is_left_alone() {
    let Some(_alone) = alone("a_device_of_somebody_elses_is_left_alone") else { return };
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("run");
    let backing =
        File::options().read(true).write(true).create(true).truncate(true).open(dir.path().join("disk"));
    let backing = backing.unwrap();
    backing.set_len(PAGES * PAGE_SIZE as u64).unwrap();
    let theirs = LoopDevice::attach(backing.as_fd(), "somebody:else", &mut |_| Ok(())).unwrap();
    let with_theirs = traces();
    for path in [theirs.path().to_owned(), "/dev/no such device".into()] {
        let instance = Instance::claim(&root, "stale").unwrap();
        instance.record(&Record { path, token: "uzswap:stale:89abcdef".to_owned() }).unwrap();
        drop(instance);
        let undone = cleanup::clean(&root, "stale", LIMIT).unwrap().unwrap();
        assert_eq!(undone.device, None);
        assert_eq!(traces(), with_theirs);
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "the directory goes");
    }
    theirs.detach().unwrap();
}

#[test]
fn a_record_that_is_none_is_an_error_and_stays() {
    let root = tempfile::tempdir().unwrap();
    let long = "x".repeat(5000);
    for text in
        ["", "/dev/loop0", "/dev/loop0\nuzswap:a:b\nmore", "loop0\nuzswap:a:b", "/dev/sda\nsomething", &long]
    {
        drop(Instance::claim(root.path(), "odd").unwrap());
        fs::write(root.path().join("odd/device"), text).unwrap();
        assert!(cleanup::clean(root.path(), "odd", LIMIT).is_err(), "{text:?}");
        assert_eq!(
            fs::read_to_string(root.path().join("odd/device")).unwrap(),
            text,
            "for somebody to look at"
        );
    }
    fs::write(root.path().join("odd/device"), [0xFF, 0xFE, b'\n']).unwrap();
    assert!(cleanup::clean(root.path(), "odd", LIMIT).is_err(), "not text");
}

#[test]
fn the_living_are_left_alone() {
    let Some(_alone) = alone("the_living_are_left_alone") else { return };
    let root = tempfile::tempdir().unwrap();
    let mut device = Device::create(Plain::new(4096), &config(root.path(), "alive")).unwrap();
    let with_it = traces();
    assert!(cleanup::leftovers(root.path()).unwrap().is_empty());
    assert!(cleanup::clean(root.path(), "alive", LIMIT).unwrap().is_none());
    assert_eq!(traces(), with_it);
    device.swapoff_and_close().unwrap();
}
