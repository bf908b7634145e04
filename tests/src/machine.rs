//! What the machine has that a failed or ended `uzswap` might have left behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::wait;

/// Mounts, loop devices, swap areas and instances. Two are equal when nothing was left behind between them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Machine {
    /// Lines of `/proc/self/mountinfo`.
    mounts: BTreeSet<String>,
    /// Loop devices that are bound, and to what.
    loops: BTreeSet<String>,
    /// Devices and files in `/proc/swaps`.
    swaps: BTreeSet<String>,
    /// Names in the run directory.
    instances: BTreeSet<String>,
}

impl Machine {
    /// As it is now. `run` is the directory of instances.
    #[must_use]
    pub fn now(run: &Path) -> Machine {
        let lines = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let names = |path: &Path| {
            let entries = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<BTreeSet<_>>()
        };
        let bound = |name: &String| {
            let file = fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")).ok()?;
            Some(format!("{name} {}", file.trim_end()))
        };
        Machine {
            mounts: lines("/proc/self/mountinfo").lines().map(str::to_owned).collect(),
            loops: names(Path::new("/sys/block")).iter().filter_map(bound).collect(),
            swaps: lines("/proc/swaps")
                .lines()
                .skip(1)
                .filter_map(|line| line.split(' ').next())
                .map(str::to_owned)
                .collect(),
            instances: names(run),
        }
    }

    /// Waits a little for the machine to be as it was: the kernel takes some things away later.
    ///
    /// # Panics
    /// When it does not come to be so.
    pub fn assert_restored(&self, run: &Path) {
        let mut now = Machine::now(run);
        let same = wait::until(Duration::from_secs(10), || {
            now = Machine::now(run);
            now == *self
        });
        assert!(same, "left behind: before {self:#?}, after {now:#?}");
    }
}
