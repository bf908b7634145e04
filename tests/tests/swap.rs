//! The real kernel swaps to uzswap: a program touches four times the memory that it may keep, and every page is checked.

use std::time::Duration;

use tests::hog::{ANSWER, SWAPPED, assert_right, small};
use tests::instance::{DRAIN, Instance, Uzswap};
use tests::machine::Machine;
use tests::need;

#[test]
fn every_compressor_keeps_every_page() {
    if !need::swap("every_compressor_keeps_every_page") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let before = Machine::now(uzswap.run_dir());
    for compressor in zcomp::names() {
        let option = format!("compressor={compressor}");
        let instance =
            Instance::start(&uzswap, "codec", &["--size", "128M", "-o", &option]).expect(compressor);
        let mut hog = small();
        for _ in 0..2 {
            assert_right(&hog.ask("check", ANSWER));
            assert_right(&hog.ask("churn", ANSWER));
        }
        let number = |key| instance.number(key).expect(key);
        assert!(number("zswpout") > SWAPPED, "{compressor}: the kernel has swapped");
        assert!(number("zswpin") > SWAPPED, "{compressor}: and has read back");
        let (stored, pool) = (number("stored_pages"), number("pool_total_size") + number("metadata_bytes"));
        assert!(stored * 4096 > pool, "{compressor}: {stored} pages take {pool} bytes");
        assert_eq!(number("decompress_fail"), 0, "{compressor}");
        assert_eq!(number("swap_out_fail"), 0, "{compressor}");
        drop(hog);
        drop(instance);
        before.assert_restored(uzswap.run_dir());
    }
}

#[test]
fn swapoff_under_load_loses_nothing() {
    if !need::swap("swapoff_under_load_loses_nothing") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let before = Machine::now(uzswap.run_dir());
    let mut instance = Instance::start(&uzswap, "off", &["--size", "128M"]).expect("swapon");
    let mut hogs = [small(), small()];
    hogs.iter_mut().for_each(|hog| hog.tell("run"));
    std::thread::sleep(Duration::from_millis(500));
    assert!(instance.number("stored_pages").expect("status") > SWAPPED);
    for hog in &hogs {
        // Without swap a cgroup cannot hold more than its limit, and the kernel would kill the program.
        hog.set_limit(128).expect("a higher limit");
    }
    // While the programs run on, the kernel may find no memory for a page at some moment and give up; the device then stays
    // on with every page, and the next try goes on from there.
    let off = tests::wait::until(DRAIN, || match uzswap.done(&["swapoff", "off"], DRAIN) {
        Ok(_) => true,
        Err(error) => {
            assert!(error.to_string().contains("Cannot allocate memory"), "swapoff under load: {error}");
            false
        }
    });
    assert!(off, "swapoff under load");
    assert!(instance.exit(ANSWER).expect("the server ends").success());
    for hog in &mut hogs {
        hog.tell("check");
        assert_right(&hog.answer(ANSWER));
        assert_right(&hog.answer(ANSWER));
    }
    before.assert_restored(uzswap.run_dir());
}

#[test]
fn the_compressor_changes_under_load() {
    if !need::swap("the_compressor_changes_under_load") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let instance = Instance::start(&uzswap, "switch", &["--size", "128M"]).expect("swapon");
    let mut hog = small();
    hog.tell("run");
    for compressor in zcomp::names().iter().copied().chain(["zstd"]) {
        uzswap.done(&["set", "switch", "compressor", compressor], ANSWER).expect(compressor);
        let now = uzswap.done(&["get", "switch", "compressor"], ANSWER).expect("get");
        assert_eq!(now, compressor);
        let out = instance.number("zswpout").expect("status");
        let more =
            tests::wait::until(ANSWER, || instance.number("zswpout").is_ok_and(|now| now > out + 1000));
        assert!(more, "{compressor}: the kernel goes on swapping");
    }
    for zpool in ["zbud", "zsmalloc"] {
        uzswap.done(&["set", "switch", "zpool", zpool], ANSWER).expect(zpool);
    }
    hog.tell("check");
    assert_right(&hog.answer(ANSWER));
    assert_right(&hog.answer(ANSWER));
    assert_eq!(instance.number("decompress_fail").expect("status"), 0);
}
