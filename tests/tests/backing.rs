//! A backing file behind the cache: pages go to it when the pool is full, and come back right; and when it fails, the kernel
//! hears of it and no page is wrong.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use tests::hog::{ANSWER, Answer, Hog, assert_right, small};
use tests::instance::{Instance, Uzswap};
use tests::machine::Machine;
use tests::{need, programs, wait};

/// Pool bytes that a quarter of the pages of a hog fit in.
const POOL: &str = "max_pool_bytes=4194304";

fn arguments(backing: &Path) -> Vec<String> {
    let backing = backing.to_str().expect("a temporary path is ASCII");
    ["--size", "128M", "--backing", backing, "-o", POOL].map(str::to_owned).into()
}

#[test]
fn a_full_pool_writes_back_and_every_page_is_right() {
    if !need::swap("a_full_pool_writes_back_and_every_page_is_right") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let before = Machine::now(uzswap.run_dir());
    let dir = tempfile::tempdir().expect("a directory");
    let backing = dir.path().join("backing");
    File::create(&backing).and_then(|file| file.set_len(128 << 20)).expect("a sparse file");
    let arguments = arguments(&backing);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let instance = Instance::start(&uzswap, "backed", &arguments).expect("swapon");
    let mut hog = small();
    for _ in 0..2 {
        assert_right(&hog.ask("churn", ANSWER));
    }
    let number = |key| instance.number(key).expect(key);
    assert!(number("written_back_pages") > 0, "the shrink worker has written back");
    assert!(number("device_reads") > 0, "and pages came back from the file");
    assert!(number("pool_limit_hit") > 0);
    assert_eq!(number("device_errors"), 0);
    let held = number("pool_total_size") + number("metadata_bytes");
    // What every thread keeps for itself, and the pages stored while the limit is being found out.
    assert!(held < 2 * 4_194_304, "{held} bytes are held");
    drop(hog);
    drop(instance);
    before.assert_restored(uzswap.run_dir());
}

/// A tmpfs of a few MiB. Dropping it unmounts it.
struct Tiny(TempDir);

impl Tiny {
    fn mount(mib: u32) -> Tiny {
        let tiny = Tiny(tempfile::tempdir().expect("a directory"));
        let size = format!("size={mib}m");
        let done =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(tiny.0.path()).status();
        assert!(done.expect("mount runs").success());
        tiny
    }

    fn file(&self, len: u64) -> PathBuf {
        let path = self.0.path().join("backing");
        File::create(&path).and_then(|file| file.set_len(len)).expect("a sparse file");
        path
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let done = wait::until(ANSWER, || {
            Command::new("umount").arg(self.0.path()).status().is_ok_and(|status| status.success())
        });
        if !done {
            eprintln!("{}: could not be unmounted", self.0.path().display());
        }
    }
}

#[test]
fn a_backing_file_that_fails_loses_no_page() {
    if !need::swap("a_backing_file_that_fails_loses_no_page") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let before = Machine::now(uzswap.run_dir());
    // Sparse, and the file system is full after 8 MiB of it: writes fail with ENOSPC from then on.
    let tiny = Tiny::mount(8);
    let arguments = arguments(&tiny.file(128 << 20));
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let instance = Instance::start(&uzswap, "failing", &arguments).expect("swapon");
    // It does not fit into what it may keep, the pool, and the file together: the kernel keeps the pages whose write
    // failed, and when that does not do either it kills the program. Until then no page is wrong.
    let mut hog = Hog::start(&programs::sibling("hog"), 64, 16).expect("a hog in a cgroup");
    match hog.answer(ANSWER) {
        Answer::Right(..) => assert!(!matches!(hog.ask("churn", ANSWER), Answer::Wrong(_) | Answer::Late)),
        answer => assert_eq!(answer, Answer::Gone, "killed, never wrong, never waiting"),
    }
    assert!(instance.number("device_errors").expect("status") > 0, "the file has failed");
    assert!(instance.number("swap_out_fail").expect("status") > 0, "and the kernel was told");
    drop(hog);
    // The cache serves on without its file: with room in the pool, a program that lives on it stays right.
    uzswap.done(&["set", "failing", "max_pool_bytes", "134217728"], ANSWER).expect("a larger pool");
    let mut next = small();
    assert_right(&next.ask("churn", ANSWER));
    drop(next);
    drop(instance);
    drop(tiny);
    before.assert_restored(uzswap.run_dir());
}
