//! A backing that fails while it is in use, in every way that a machine without a test device for it has. The kernel hears of
//! it; every page comes back right or its program hears of it; nothing hangs, and the cache serves on without its device.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use tests::hog::{ANSWER, Answer, Hog, assert_right, small};
use tests::instance::{Instance, Uzswap};
use tests::machine::Machine;
use tests::storage::{Directory, LoopDevice, POOL, behind};
use tests::{need, programs};

/// What is broken about a backing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Broken {
    /// It takes no more pages; what it has can be read.
    Writing,
    /// What it has is gone.
    Content,
}

/// Lets a program live on a device behind `backing`, calls `breaks`, and sees what becomes of the program's pages.
fn survives(uzswap: &Uzswap, backing: &Path, broken: Broken, breaks: impl FnOnce()) {
    let instance = Instance::start(uzswap, "failing", &behind(backing)).expect("swapon");
    let mut hog = small();
    assert!(instance.number("on_device_bytes").expect("status") > 8 << 20, "much of it is on the device");
    assert_eq!(instance.number("device_errors").expect("status"), 0);
    breaks();
    let first = hog.ask("churn", ANSWER);
    match broken {
        Broken::Content => assert_eq!(first, Answer::Gone, "not told"),
        Broken::Writing => {
            right_or_out_of_memory(&mut hog, &first);
            churns(&mut hog);
        }
    }
    let number = |key| instance.number(key).expect(key);
    assert!(number("device_errors") + number("decompress_fail") > 0, "the failure is counted");
    drop(hog);
    serves_on(uzswap, instance);
}

/// The kernel keeps the pages that it cannot write, and kills a program when it has no room for them. A page that was lost ends
/// a program too, but by SIGBUS.
fn right_or_out_of_memory(hog: &mut Hog, answer: &Answer) {
    match answer {
        Answer::Right(..) => {}
        Answer::Gone => {
            let death = hog.exit(ANSWER).expect("the program ends").signal();
            assert_eq!(death, Some(libc::SIGKILL), "killed for want of memory, and for nothing else");
        }
        Answer::Wrong(_) | Answer::Late => panic!("{answer:?}: not right, not told"),
    }
}

/// One that is dead already stays so.
fn churns(hog: &mut Hog) {
    let answer = hog.ask("churn", ANSWER);
    right_or_out_of_memory(hog, &answer);
}

/// More than there may be room for.
fn filled() -> Hog {
    let mut hog = Hog::start(&programs::sibling("hog"), 64, 16).expect("a hog in a cgroup");
    let answer = hog.answer(ANSWER);
    right_or_out_of_memory(&mut hog, &answer);
    hog
}

/// With room in the pool, a program that lives on the cache alone stays right.
fn serves_on(uzswap: &Uzswap, instance: Instance) {
    uzswap.done(&["set", "failing", "max_pool_bytes", "134217728"], ANSWER).expect("a larger pool");
    let mut next = small();
    assert_right(&next.ask("churn", ANSWER));
    drop(next);
    uzswap.done(&["swapoff", "failing"], ANSWER).expect("swapoff");
    drop(instance);
}

fn alone(name: &str, test: impl FnOnce(&Uzswap)) {
    if !need::swap(name) {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let before = Machine::now(uzswap.run_dir());
    test(&uzswap);
    before.assert_restored(uzswap.run_dir());
}

/// Nothing to fail: past the limit the kernel gets an error for that write and keeps the page.
#[test]
fn no_backing_and_a_full_pool() {
    alone("no_backing_and_a_full_pool", |uzswap| {
        let arguments = ["--size", "128M", "-o", POOL];
        let instance = Instance::start(uzswap, "failing", &arguments).expect("swapon");
        let mut hog = filled();
        churns(&mut hog);
        let number = |key| instance.number(key).expect(key);
        assert!(number("swap_out_fail") > 0, "the kernel was told");
        assert_eq!(number("device_errors") + number("decompress_fail"), 0);
        drop(hog);
        serves_on(uzswap, instance);
    });
}

#[test]
fn a_file_system_that_is_full() {
    alone("a_file_system_that_is_full", |uzswap| {
        // Sparse: writes fail with ENOSPC after 8 MiB, while the program is still filling its memory. It does not fit into
        // what it may keep, the pool and the file together: the kernel keeps the pages whose write failed, and when that does
        // not do either it kills the program. Until then no page is wrong.
        let tiny = Directory::tmpfs(8);
        let backing = tiny.file("backing", 128 << 20);
        let instance = Instance::start(uzswap, "failing", &behind(&backing)).expect("swapon");
        let mut hog = filled();
        churns(&mut hog);
        assert!(instance.number("device_errors").expect("status") > 0, "the file has failed");
        assert!(instance.number("swap_out_fail").expect("status") > 0, "and the kernel was told");
        drop(hog);
        serves_on(uzswap, instance);
    });
}

#[test]
fn a_file_system_that_shrinks() {
    alone("a_file_system_that_shrinks", |uzswap| {
        let tmpfs = Directory::tmpfs(128);
        survives(uzswap, &tmpfs.file("backing", 128 << 20), Broken::Writing, || tmpfs.shrink());
    });
}

#[test]
fn a_file_that_is_cut_off() {
    alone("a_file_that_is_cut_off", |uzswap| {
        let dir = Directory::plain();
        let backing = dir.file("backing", 128 << 20);
        survives(uzswap, &backing, Broken::Content, || {
            // Pages written later make it grow again, with zeros where the lost pages were.
            File::options().write(true).open(&backing).and_then(|file| file.set_len(0)).expect("cut off");
        });
    });
}

#[test]
fn a_file_that_somebody_writes_over() {
    alone("a_file_that_somebody_writes_over", |uzswap| {
        let dir = Directory::plain();
        let backing = dir.file("backing", 128 << 20);
        survives(uzswap, &backing, Broken::Content, || {
            let junk = vec![0xA5; 1 << 20];
            let mut file = File::options().write(true).open(&backing).expect("open");
            for _ in 0..128 {
                std::io::Write::write_all(&mut file, &junk).expect("written over");
            }
            file.sync_all().expect("on the disk");
        });
    });
}

#[test]
fn a_block_device_that_cannot_read() {
    alone("a_block_device_that_cannot_read", |uzswap| {
        let dir = Directory::plain();
        let below = dir.file("disk", 128 << 20);
        let disk = LoopDevice::on(&below);
        survives(uzswap, disk.path(), Broken::Content, || {
            File::options().write(true).open(&below).and_then(|file| file.set_len(0)).expect("cut off");
        });
    });
}

#[test]
fn a_block_device_that_cannot_write() {
    alone("a_block_device_that_cannot_write", |uzswap| {
        let dir = Directory::plain();
        let disk = LoopDevice::on(&dir.file("disk", 128 << 20));
        survives(uzswap, disk.path(), Broken::Writing, || disk.make_read_only());
    });
}

/// A limit on the size of files ends a program by a signal unless it is ignored, and with the server every page would go.
#[test]
fn a_limit_on_the_size_of_files() {
    alone("a_limit_on_the_size_of_files", |_| {
        let dir = Directory::plain();
        let backing = dir.file("backing", 128 << 20);
        let script = dir.file("limited", 0);
        let program = programs::uzswap();
        // In units of 512 bytes or of 1 KiB, as the shell has it.
        let limited = format!("#!/bin/sh\nulimit -f 8192 && exec {} \"$@\"\n", program.display());
        fs::write(&script, limited).expect("a script");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).expect("to be run");
        let uzswap = Uzswap::new(&script).expect("a run directory");
        let instance = Instance::start(&uzswap, "failing", &behind(&backing)).expect("swapon");
        let hog = filled();
        assert!(instance.number("device_errors").expect("the server lives") > 0, "the file has failed");
        drop(hog);
        serves_on(&uzswap, instance);
    });
}
