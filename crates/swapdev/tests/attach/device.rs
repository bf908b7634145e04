//! A whole device: what other programs see of it, and that nothing is left.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use swapdev::{Device, PAGE_SIZE, Via};
use undo::storage::done;

use crate::machine::{Plain, alone, config, traces};

const PAGES: usize = 4096;

#[test]
fn other_tools_see_a_swap_area_and_afterwards_nothing() {
    let Some(_alone) = alone("other_tools_see_a_swap_area_and_afterwards_nothing") else { return };
    let before = traces();
    let root = tempfile::tempdir().unwrap();
    let store = Plain::new(PAGES);
    let mut device = Device::create(store.clone(), &config(root.path(), "seen")).unwrap();
    let path = device.path().unwrap().to_str().unwrap().to_owned();
    let seen = done(&["blkid", "-p", "-o", "export", &path]);
    assert!(seen.contains("TYPE=swap"), "{seen}");
    assert!(seen.contains("LABEL="), "{seen}");
    let uuid = seen.lines().find_map(|line| line.strip_prefix("UUID=")).unwrap();
    assert!(done(&["swaplabel", &path]).contains(uuid));
    let swaps = fs::read_to_string("/proc/swaps").unwrap();
    let line = swaps.lines().find(|line| line.starts_with(&path)).unwrap_or_else(|| panic!("{swaps}"));
    let fields: Vec<_> = line.split_whitespace().collect();
    // One page of it is the header.
    assert_eq!(
        (fields[1], fields[2], fields[4]),
        ("partition", &*((PAGES - 1) * 4).to_string(), "100"),
        "{line}"
    );
    assert_eq!(
        fs::metadata(device.dir().unwrap()).unwrap().mode() & 0o077 & 0o022,
        0,
        "nobody else may write there"
    );
    device.swapoff_and_close().unwrap();
    drop(device);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "no state is left");
    assert_eq!(traces(), before);
}

#[test]
fn a_name_is_taken_once() {
    let Some(_alone) = alone("a_name_is_taken_once") else { return };
    let root = tempfile::tempdir().unwrap();
    let mut first = Device::create(Plain::new(PAGES), &config(root.path(), "once")).unwrap();
    let with_one = traces();
    assert!(Device::create(Plain::new(PAGES), &config(root.path(), "once")).is_err());
    assert_eq!(traces(), with_one, "the refused one left nothing");
    first.swapoff_and_close().unwrap();
}

#[test]
fn a_store_too_small_or_a_transport_not_built_leaves_nothing() {
    let Some(_alone) = alone("a_store_too_small_or_a_transport_not_built_leaves_nothing") else { return };
    let before = traces();
    let root = tempfile::tempdir().unwrap();
    assert!(Device::create(Plain::new(1), &config(root.path(), "small")).is_err());
    let mut other = config(root.path(), "ublk");
    other.via = Via::Ublk;
    assert!(Device::create(Plain::new(PAGES), &other).is_err());
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    assert_eq!(traces(), before);
}

#[test]
fn a_transport_in_use_is_not_taken_away() {
    let Some(_alone) = alone("a_transport_in_use_is_not_taken_away") else { return };
    let before = traces();
    let store = Plain::new(64);
    let mut record = |_: &Path| Ok(());
    let threads = std::num::NonZeroUsize::MIN;
    let attach = swapdev::Attach { store, threads, label: "busy", record: &mut record };
    let transport = Via::Fuse.attach(attach).unwrap();
    let user = fs::File::open(transport.path()).unwrap();
    assert!(transport.detach().is_err(), "somebody has it open");
    let mut page = [1; PAGE_SIZE];
    user.read_exact_at(&mut page, 0).unwrap();
    drop(user);
    let mut after = traces();
    for _ in 0..100 {
        if after == before {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        after = traces();
    }
    assert_eq!(after, before, "once it is closed nothing is left");
}
