//! A comparison that is killed leaves the kernel as it was.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tests::machine::Machine;
use tests::{need, wait};

/// Until it swaps: the founding comparison makes a disk and builds something first.
const UNTIL_SWAP: Duration = Duration::from_secs(100);
const UNTIL_UNDONE: Duration = Duration::from_secs(60);

/// What a comparison changes: mounts, loop devices and swap areas, and of zswap, zram and cgroups the files and their content.
#[derive(PartialEq, Debug)]
struct State(Machine, BTreeMap<String, String>);

const MEMORY: &str = "/sys/fs/cgroup/memory";

fn names(dir: &str, begin: &str) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let paths = entries.map(|entry| format!("{dir}/{}", entry.file_name().display()));
    paths.filter(|path| path.starts_with(&format!("{dir}/{begin}"))).collect()
}

/// Whether something is swapped out to an area, and a program runs in a group of the comparison's.
fn swaps(compare: u32) -> bool {
    let areas = fs::read_to_string("/proc/swaps").expect("there is /proc");
    let used = |line: &str| line.split_whitespace().nth(3).is_some_and(|used| used != "0");
    let members = |group: String| fs::read_to_string(group + "/cgroup.procs").unwrap_or_default();
    areas.lines().skip(1).any(used)
        && names(MEMORY, &format!("uzswap-{compare}-")).into_iter().any(|group| !members(group).is_empty())
}

impl State {
    fn now(nowhere: &Path) -> State {
        let zswap = names("/sys/module/zswap/parameters", "");
        let zram = names("/sys/block", "zram").into_iter().map(|device| device + "/disksize");
        let limits = names("/sys/fs/cgroup/blkio", "blkio.throttle.").into_iter();
        let limits = limits.filter(|path| path.ends_with("_device"));
        let groups = names(MEMORY, "uzswap-");
        let all = zswap.into_iter().chain(zram).chain(limits).chain(groups);
        let read = |path: String| {
            let text = fs::read_to_string(&path).unwrap_or_default();
            (path, text)
        };
        State(Machine::now(nowhere), all.map(read).collect())
    }
}

fn killed_while_it_swaps(args: &[&str], nowhere: &Path) {
    let before = State::now(nowhere);
    let mut compare = Command::new(env!("CARGO_BIN_EXE_compare"))
        .args(args)
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let swaps = wait::until(UNTIL_SWAP, || swaps(compare.id()));
    compare.kill().expect("it still runs");
    compare.wait().expect("it is our child");
    assert!(swaps, "{args:?} does not swap");
    let mut after = State::now(nowhere);
    let same = wait::until(UNTIL_UNDONE, || {
        after = State::now(nowhere);
        after == before
    });
    assert!(same, "{args:?}: before {before:#?}, after {after:#?}");
}

#[test]
fn killed() {
    if !need::swap("killed") {
        return;
    }
    // Without it nothing is compared.
    let _ = tests::programs::uzswap();
    let nowhere = tempfile::tempdir().expect("a directory");
    let pages = nowhere.path().join("pages");
    let text: Vec<u8> =
        (0..1u32 << 18).flat_map(|number| (number.wrapping_mul(number)).to_le_bytes()).collect();
    fs::write(&pages, text).expect("a file");
    let pages = pages.to_str().expect("a temporary path is ASCII");
    killed_while_it_swaps(&["run", pages, "--against", "zswap-lzo"], nowhere.path());
    killed_while_it_swaps(&["run", pages, "--against", "disk"], nowhere.path());
    if Path::new("/sys/class/zram-control").exists() {
        killed_while_it_swaps(&["run", pages, "--against", "zram-lzo"], nowhere.path());
    } else {
        need::skip("killed, zram", "this kernel has none");
    }
    if Path::new("/sys/fs/cgroup/blkio/blkio.throttle.read_iops_device").exists() {
        killed_while_it_swaps(&["--quick", "founding"], nowhere.path());
    } else {
        need::skip("killed, founding", "no block cgroup of version 1");
    }
}
