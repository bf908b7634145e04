//! A disk of 3000 requests and 125 MB a second, as clouds rent them: a loop device over a file, past the page cache, limited
//! by the block cgroup. What the kernel swaps is charged to the root group there, whatever memory cgroup it comes from, and so
//! is what we do; so the limit is the root group's, which it can be in version 1 only.
//!
//! The limits are in each direction: a disk that is read and written at the same time may do twice as much as one that is
//! rented.

use std::path::{Path, PathBuf};
use std::time::Instant;

use tests::storage::{Directory, LoopDevice, done};
use undo::Undo;

use crate::Scale;
use crate::proc::text;
use crate::rival::stat_of_disk;

pub const REQUESTS: u64 = 3000;
pub const BYTES: u64 = 125_000_000;
/// Bytes of the disk.
const SIZE: u64 = 4 << 30;
const GROUP: &str = "/sys/fs/cgroup/blkio";

/// The disk, with a file system on it. All of it goes when this is dropped, or we are killed.
pub struct Throttled {
    // In this order when dropped.
    mounted: Directory,
    pub stat: PathBuf,
    /// What it was seen to do in a second before anything was on it: requests of 4 KiB, and bytes in requests of 1 MiB.
    pub seen: (f64, f64),
    _limits: Vec<Undo>,
    _device: LoopDevice,
    _removed: Undo,
    _dir: Directory,
}

impl Throttled {
    /// Makes it, as root.
    ///
    /// # Errors
    /// What is missing here.
    pub fn start(scale: Scale) -> Result<Throttled, String> {
        let groups = text("/proc/self/cgroup");
        let root = |line: &str| {
            let mut fields = line.split(':').skip(1);
            fields.next().is_some_and(|all| all.split(',').any(|it| it == "blkio"))
                && fields.next() == Some("/")
        };
        if !groups.lines().any(root) || !Path::new(GROUP).join("blkio.throttle.read_iops_device").exists() {
            return Err(
                "the root group of a block cgroup of version 1, with us in it, is what limits it".to_owned()
            );
        }
        let dir = Directory::plain();
        let file = dir.path().join("disk");
        // Gigabytes, which are not to stay when we are killed.
        let removed = undo::storage::removed(&file);
        done(&[
            "fallocate",
            "--length",
            &SIZE.to_string(),
            file.to_str().expect("a temporary path is ASCII"),
        ]);
        let device = LoopDevice::on(&file);
        let node = device.path().to_str().expect("its name is ASCII");
        done(&["losetup", "--direct-io=on", node]);
        let number = done(&["lsblk", "--nodeps", "--noheadings", "--raw", "--output", "MAJ:MIN", node]);
        let limit = |(name, value): (&str, u64)| {
            let path = format!("{GROUP}/blkio.throttle.{name}_device");
            let free =
                Undo::by(&["sh", "-c", r#"echo "$1 0" > "$2""#, "sh", &number, &path]).expect("a shell");
            std::fs::write(&path, format!("{number} {value}")).expect("the group takes a limit");
            free
        };
        let all =
            [("read_iops", REQUESTS), ("write_iops", REQUESTS), ("read_bps", BYTES), ("write_bps", BYTES)];
        let limits = all.map(limit).into();
        let second = |words: &[&str], amount: u64| {
            let begun = Instant::now();
            done(words);
            amount as f64 / begun.elapsed().as_secs_f64()
        };
        let (from, to) = (format!("if={node}"), format!("of={node}"));
        let (requests, mib) = scale.of((2 * REQUESTS, 256), (REQUESTS / 5, 32));
        let (some, much) = (format!("count={requests}"), format!("count={mib}"));
        let seen = (
            second(&["dd", &from, "of=/dev/null", "bs=4k", &some, "iflag=direct"], requests),
            second(&["dd", "if=/dev/zero", &to, "bs=1M", &much, "oflag=direct"], mib << 20),
        );
        // Without a journal: it would write what nobody asked about.
        done(&["mkfs.ext4", "-q", "-O", "^has_journal", node]);
        let mounted = device.mount();
        let stat = stat_of_disk(mounted.path())?;
        Ok(Throttled { mounted, stat, seen, _limits: limits, _device: device, _removed: removed, _dir: dir })
    }

    /// A directory on it.
    pub fn dir(&self) -> &Path {
        self.mounted.path()
    }
}
