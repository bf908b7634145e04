//! A backing file or block device behind the cache: pages go to it when the pool is full, and come back right.

use std::os::unix::process::ExitStatusExt;

use tests::hog::{ANSWER, assert_right, small};
use tests::instance::{Instance, Uzswap};
use tests::machine::Machine;
use tests::need;
use tests::storage::{Directory, LoopDevice, behind};

#[test]
fn a_full_pool_writes_back_and_every_page_is_right() {
    if !need::swap("a_full_pool_writes_back_and_every_page_is_right") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let before = Machine::now(uzswap.run_dir());
    let dir = Directory::plain();
    let file = dir.file("backing", 128 << 20);
    let disk = LoopDevice::on(&dir.file("disk", 128 << 20));
    for backing in [file.as_path(), disk.path()] {
        let instance = Instance::start(&uzswap, "backed", &behind(backing)).expect("swapon");
        let mut hog = small();
        for _ in 0..2 {
            assert_right(&hog.ask("churn", ANSWER));
        }
        let number = |key| instance.number(key).expect(key);
        assert!(number("written_back_pages") > 0, "the shrink worker has written back");
        assert!(number("device_reads") > 0, "and pages came back from the device");
        assert!(number("pool_limit_hit") > 0);
        assert_eq!(number("device_errors"), 0);
        let held = number("pool_total_size") + number("metadata_bytes");
        // What every thread keeps for itself, and the pages stored while the limit is being found out.
        assert!(held < 2 * 4_194_304, "{held} bytes are held");
        drop(hog);
        drop(instance);
    }
    drop(disk);
    before.assert_restored(uzswap.run_dir());
}

/// What a killed server had on its backing is lost with the index; the file itself is free at once.
#[test]
fn the_backing_of_a_killed_server_serves_the_next() {
    if !need::swap("the_backing_of_a_killed_server_serves_the_next") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let before = Machine::now(uzswap.run_dir());
    let dir = Directory::plain();
    let backing = dir.file("backing", 128 << 20);
    let mut killed = Instance::start(&uzswap, "again", &behind(&backing)).expect("swapon");
    let hog = small();
    assert!(killed.number("on_device_bytes").expect("status") > 0);
    killed.signal(libc::SIGKILL);
    assert_eq!(killed.exit(ANSWER).expect("it dies").signal(), Some(libc::SIGKILL));
    drop(hog);
    let next = Instance::start(&uzswap, "again", &behind(&backing)).expect("the next swapon cleans up");
    let mut hog = small();
    assert_right(&hog.ask("churn", ANSWER));
    assert!(next.number("on_device_bytes").expect("status") > 0);
    drop(hog);
    drop(next);
    before.assert_restored(uzswap.run_dir());
}
