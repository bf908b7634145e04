//! Numbers that the kernel shows as text.

use std::fs;
use std::path::Path;

use tests::cgroup::Cgroup;
use tests::process::with_own_memory;

/// The text of a file of the kernel's; empty where there is none, as when its process is gone.
pub fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The first number behind `name` in lines of names and numbers.
pub fn number(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Bytes of mapped files of a process.
pub fn mapped_files(pid: &str) -> u64 {
    number(&text(format!("/proc/{pid}/status")), "RssFile:") << 10
}

/// What the kernel charges to a group: its processes' memory, their page tables, and the file pages that they read first.
pub fn charged(group: &Cgroup) -> u64 {
    number(&text(group.path().join("memory.usage_in_bytes")), "")
}

/// Bytes of mapped files that the group does not pay for, where `most` are those of its process with most: somebody else read
/// them first.
pub fn uncharged(group: &Cgroup, most: u64) -> u64 {
    most.saturating_sub(number(&text(group.path().join("memory.stat")), "mapped_file "))
}

/// What some processes keep in RAM.
pub struct Resident {
    /// Bytes as our own cap counts them: anonymous and shared memory of each, and of mapped files those of the one that has
    /// most. The supervisor counts whole.
    pub bytes: u64,
    /// Mapped files of the process that has most, the supervisor among them.
    pub mapped: u64,
}

/// Looks at `members`, of which `top` is the supervisor.
pub fn resident(top: u32, members: &str) -> Resident {
    let (mut memory, mut files, mut mapped) = (0, 0, 0);
    for pid in with_own_memory(members.lines().filter_map(|pid| pid.parse().ok())) {
        let status = text(format!("/proc/{pid}/status"));
        let own = number(&status, "RssFile:") << 10;
        mapped = mapped.max(own);
        if pid == top {
            memory += number(&status, "VmRSS:") << 10;
        } else {
            memory += (number(&status, "RssAnon:") + number(&status, "RssShmem:")) << 10;
            files = files.max(own);
        }
    }
    Resident { bytes: memory + files, mapped }
}

/// What a block device and the kernel's swap have done since the machine started.
#[derive(Clone, Copy, Default)]
pub struct Traffic {
    /// Of the device, in either direction.
    pub requests: u64,
    /// Of the device, in either direction.
    pub bytes: u64,
    /// Pages that the kernel swapped in and out, wherever.
    pub swapped: u64,
}

impl Traffic {
    /// By a device's `stat` file.
    pub fn of(stat: &Path) -> Traffic {
        let fields: Vec<u64> = text(stat).split_whitespace().filter_map(|field| field.parse().ok()).collect();
        let sum = |one: usize, other: usize| {
            fields.get(one).copied().unwrap_or(0) + fields.get(other).copied().unwrap_or(0)
        };
        let swap = text("/proc/vmstat");
        Traffic {
            requests: sum(0, 4),
            bytes: sum(2, 6) * 512,
            swapped: number(&swap, "pswpin ") + number(&swap, "pswpout "),
        }
    }

    pub fn since(self, before: Traffic) -> Traffic {
        Traffic {
            requests: self.requests - before.requests,
            bytes: self.bytes - before.bytes,
            swapped: self.swapped - before.swapped,
        }
    }
}
