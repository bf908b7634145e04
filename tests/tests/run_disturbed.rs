//! `uzswap run` while the kernel does things to the same pages: swaps them to a device of its own, and moves them about in
//! memory. A page that is in the kernel's swap, or on its way from one place to another, is not "present", and is there
//! all the same.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tests::cgroup::{Cgroup, Root, memory_root};
use tests::instance::Uzswap;
use tests::storage::{Directory, LoopDevice, done};
use tests::{need, programs, under};

/// The cases of `hazards` that move most pages in and out.
const CASES: [&str; 4] = ["forks", "moved", "given-up", "signals"];
/// Pages that the kernel has to have swapped out, in all, for the test to be worth anything.
const SWAPPED: u64 = 20_000;

/// A number of `/proc/vmstat`.
fn vmstat(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/vmstat").expect("the kernel's counters");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Runs the cases, each by way of `before`, a line for a shell, and does `disturb` again and again meanwhile.
fn disturbed(before: &str, disturb: impl Fn() + Sync) {
    let uzswap = Uzswap::of_this_tree();
    let program = programs::sibling("hazards");
    let script = format!("{before}\nexec \"$@\"");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                disturb();
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        for case in CASES {
            let command = ["sh", "-c", &script, "sh", program.to_str().expect("a name"), case];
            // A panic here would leave the other thread at work for ever.
            let ran = std::panic::catch_unwind(|| under::run(&uzswap, "48M", &[], &command));
            if ran.is_err() || CASES.last() == Some(&case) {
                over.store(true, Relaxed);
            }
            let right = ran.map(|ran| (ran.output.status.success(), ran.number("lost_pages"), ran));
            if !matches!(right, Ok((true, 0, _))) {
                over.store(true, Relaxed);
                panic!("{case}: {right:?}");
            }
        }
    });
}

#[test]
fn while_the_kernel_swaps_the_program_out() {
    const NAME: &str = "while_the_kernel_swaps_the_program_out";
    if !under::possible(NAME) || !need::swap(NAME) {
        return;
    }
    let dir = Directory::plain();
    let disk = LoopDevice::on(&dir.file("swap", 1 << 30));
    done(&["mkswap", disk.path().to_str().expect("ASCII")]);
    let _on = disk.swapon();
    let cgroup = Cgroup::new(1 << 30).expect("a cgroup");
    let (file, order) = match memory_root() {
        Some(Root::V2(_)) => (cgroup.path().join("memory.reclaim"), "64M"),
        _ => (cgroup.path().join("memory.force_empty"), "0"),
    };
    let before = vmstat("pswpout");
    let join = format!("echo 0 > {}/cgroup.procs", cgroup.path().display());
    // Less than was asked for is an error to say so.
    disturbed(&join, || drop(fs::write(&file, order)));
    let swapped = vmstat("pswpout") - before;
    assert!(swapped > SWAPPED, "the kernel swapped only {swapped} pages");
}

#[test]
fn while_the_kernel_moves_pages_in_memory() {
    const NAME: &str = "while_the_kernel_moves_pages_in_memory";
    if !under::possible(NAME) {
        return;
    }
    if !std::path::Path::new("/proc/sys/vm/compact_memory").exists() {
        need::skip(NAME, "this kernel does not compact memory");
        return;
    }
    let before = vmstat("pgmigrate_success");
    disturbed("", || fs::write("/proc/sys/vm/compact_memory", "1").expect("root may"));
    let moved = vmstat("pgmigrate_success") - before;
    assert!(moved > 0, "the kernel moved no page");
}
