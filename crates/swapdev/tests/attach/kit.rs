//! The deadlock kit: what this machine allows of it is engaged, in the threads that serve too. What it refuses is skipped.

use rustix::thread::CapabilitySet;
use swapdev::{Device, Errno, kit};

use crate::machine::{Plain, alone, config};

const NAME: &str = "what_the_kernel_allows_is_engaged_in_every_serving_thread";

/// Says that a part is not looked at. Without the right to it nothing can be done about that, and it is no failure in CI either.
fn refused(part: &impl std::fmt::Display) {
    let rights = rustix::thread::capabilities(None).unwrap().effective;
    if rights.contains(CapabilitySet::SYS_RESOURCE) {
        undo::need::skip(NAME, &format!("this machine refuses: {part}"));
    } else {
        println!("SKIP {NAME}: without CAP_SYS_RESOURCE this machine refuses: {part}");
    }
}

#[test]
fn what_the_kernel_allows_is_engaged_in_every_serving_thread() {
    let Some(_alone) = alone(NAME) else { return };
    // Asked of the kernel without our code: these two need CAP_SYS_RESOURCE, which containers seldom have.
    let may_flush = rustix::process::configure_io_flusher_behavior(true).is_ok();
    let may_score = std::fs::write("/proc/self/oom_score_adj", "-1000").is_ok();
    let root = tempfile::tempdir().unwrap();
    let mut device = Device::create(Plain::new(4096), &config(root.path(), "kit")).unwrap();

    let missing = device.missing_kit();
    for part in missing {
        refused(part);
        assert!(matches!(part.errno(), Errno::PERM | Errno::ACCESS), "{part}");
    }
    assert_eq!(
        missing.len(),
        usize::from(!may_flush) + usize::from(!may_score),
        "each is told, and nothing else"
    );

    let report = kit::report().unwrap();
    // Guard pages of stacks cannot be locked and hold nothing.
    assert!(report.unlocked_bytes <= 64 * 4096, "{} bytes are not locked", report.unlocked_bytes);
    println!("verified: memory is locked ({} bytes of guard pages are not)", report.unlocked_bytes);
    if may_score {
        assert_eq!(report.oom_score_adj, -1000);
        println!("verified: oom_score_adj is -1000");
    }
    let serving: Vec<_> = report
        .threads
        .iter()
        .filter(|it| it.name.starts_with("uzswap") || it.name.starts_with("fuse"))
        .collect();
    assert!(serving.len() >= 2, "serving threads: {:?}", report.threads);
    for thread in &serving {
        assert_eq!(thread.io_flusher, may_flush, "{}", thread.name);
    }
    if may_flush {
        println!("verified: {} serving threads are I/O flushers", serving.len());
    }
    device.swapoff_and_close().unwrap();
}
