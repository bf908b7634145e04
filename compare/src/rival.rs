//! The kernel's own answers to too little memory: zswap, zram, and a swap file with nothing before it. A rival is turned on,
//! runs programs in a memory cgroup, and is taken back when dropped or when we are killed.
//!
//! What a rival takes beyond the cgroup's cap is measured with it and is part of our cap: its pool, and mapped file pages that
//! somebody else read first. Its metadata (an entry for each page of zswap, the table of zram) is not counted: the kernel
//! shows it nowhere.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};
use std::{fmt, fs, io};

use tests::cgroup::{Cgroup, Root, memory_root};
use tests::storage::done;
use undo::Undo;

use crate::measure::{Load, Ran, Tries, measured};
use crate::proc::{Traffic, charged, mapped_files, number, text, uncharged};

/// Attempts at a run: the kernel may kill it for want of memory although there is swap; tried again, it lets it live.
pub const TRIES: usize = 4;
/// Nothing is tried again after this: it would take too long rather than too much memory.
const TRYING: Duration = Duration::from_secs(100);
/// Bytes of a swap area: as good as unlimited for what is run here.
const AREA: u64 = 1 << 30;
const SWAP_FILE: &str = "compare.swap";
const ZSWAP: &str = "/sys/module/zswap/parameters";
const ZRAM: &str = "/sys/class/zram-control";

/// Turns a swap file off, where it is on, and removes it.
const SWAPOFF: &str = r#"if grep -q "^$1 " /proc/swaps; then swapoff "$1"; fi && rm -f "$1""#;
/// The same for the zram device of a number.
const ZRAM_OFF: &str = r#"
if grep -q "^/dev/zram$1 " /proc/swaps; then swapoff "/dev/zram$1"; fi &&
echo 1 > "/sys/block/zram$1/reset" && echo "$1" > /sys/class/zram-control/hot_remove"#;

/// One of them.
#[derive(Clone, PartialEq, Eq)]
pub enum Rival {
    /// With this compressor, before a swap file.
    Zswap(String),
    /// With this compressor, as the swap device.
    Zram(String),
    /// A swap file.
    Disk,
}

/// All that are there to be compared with.
pub const ALL: &str = "zswap-lzo,zswap-lzo-rle,zram-lz4,disk";
/// The one that the goals are set against.
pub const GOALS: &str = "zswap-lzo";

impl FromStr for Rival {
    type Err = String;

    fn from_str(name: &str) -> Result<Rival, String> {
        match name.split_once('-') {
            Some(("zswap", compressor)) => Ok(Rival::Zswap(compressor.to_owned())),
            Some(("zram", compressor)) => Ok(Rival::Zram(compressor.to_owned())),
            None if name == "disk" => Ok(Rival::Disk),
            _ => Err(format!("{name}: no such rival; there are {ALL}, with any compressor of the kernel's")),
        }
    }
}

impl fmt::Display for Rival {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rival::Zswap(compressor) => write!(out, "zswap-{compressor}"),
            Rival::Zram(compressor) => write!(out, "zram-{compressor}"),
            Rival::Disk => out.write_str("disk"),
        }
    }
}

/// A rival that is on.
pub struct Started {
    pool: Pool,
    /// The counters of the block device that is swapped to: of zram itself, or of the disk that holds the swap file.
    stat: PathBuf,
    cgroup: Cgroup,
    _undone: Vec<Undo>,
}

/// Where its pool's size is to be read.
enum Pool {
    Zswap,
    /// Of the device with this directory.
    Zram(PathBuf),
    None,
}

/// A run under a rival.
pub struct Theirs {
    pub ran: Ran,
    /// The peak of what it took beyond the cgroup's cap, in bytes.
    pub beyond: u64,
    pub traffic: Traffic,
}

impl Rival {
    /// Whether it is the one that the goals are set against.
    pub fn has_goals(&self) -> bool {
        self.to_string() == GOALS
    }

    /// Turns it on, where [`ready`] says that rivals can be; a swap file is made in `dir`.
    ///
    /// # Errors
    /// What is missing here.
    pub fn start(&self, dir: &Path) -> Result<Started, String> {
        let mut undone: Vec<Undo> = Vec::new();
        let (pool, stat) = match self {
            Rival::Zram(compressor) => {
                let number = text(Path::new(ZRAM).join("hot_add")).trim().to_owned();
                if number.is_empty() {
                    return Err("this kernel has no zram".to_owned());
                }
                undone.push(Undo::by(&["sh", "-c", ZRAM_OFF, "sh", &number]).map_err(said)?);
                let device = PathBuf::from(format!("/sys/block/zram{number}"));
                write(&device.join("comp_algorithm"), compressor)?;
                write(&device.join("disksize"), &AREA.to_string())?;
                swapon(&format!("/dev/zram{number}"))?;
                (Pool::Zram(device.clone()), device.join("stat"))
            }
            Rival::Zswap(_) | Rival::Disk => {
                let file = dir.join(SWAP_FILE);
                let name = file.to_str().ok_or("the directory's name is no text")?;
                undone.push(Undo::by(&["sh", "-c", SWAPOFF, "sh", name]).map_err(said)?);
                done(&["fallocate", "--length", &AREA.to_string(), name]);
                done(&["chmod", "600", name]);
                let pool = if let Rival::Zswap(compressor) = self {
                    for (parameter, value) in [("compressor", compressor.as_str()), ("enabled", "Y")] {
                        let path = Path::new(ZSWAP).join(parameter);
                        let written = Undo::write(&path, value);
                        undone
                            .push(written.map_err(|error| format!("{}: {value}: {error}", path.display()))?);
                    }
                    Pool::Zswap
                } else {
                    Pool::None
                };
                swapon(name)?;
                (pool, stat_of_disk(dir)?)
            }
        };
        if !matches!(self, Rival::Zswap(_)) {
            // The kernel's own zswap would take pages before the others. With the zswap rival its file has an undo already, and
            // of two nobody knows which would be the last to write.
            undone.extend(Undo::kernel_zswap_off().map_err(|error| format!("{ZSWAP}: {error}"))?);
        }
        let cgroup = Cgroup::plain(AREA).map_err(|error| format!("a memory cgroup: {error}"))?;
        Ok(Started { pool, stat, cgroup, _undone: undone })
    }
}

/// What all of them need.
///
/// # Errors
/// What of it is missing here.
pub fn ready() -> Result<(), String> {
    // SAFETY: geteuid takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Err("only root may turn swap on".to_owned());
    }
    if !matches!(memory_root(), Some(Root::V1(_))) {
        // Version 2 charges zswap's pool to the group: what is equal memory there would have to be found out.
        return Err("there is no memory cgroup of version 1".to_owned());
    }
    if text("/proc/swaps").lines().count() > 1 {
        return Err("the machine swaps already, and would to that as well".to_owned());
    }
    Ok(())
}

fn said(error: io::Error) -> String {
    error.to_string()
}

fn write(path: &Path, value: &str) -> Result<(), String> {
    fs::write(path, value).map_err(|error| format!("{}: {value}: {error}", path.display()))
}

fn swapon(name: &str) -> Result<(), String> {
    for program in ["mkswap", "swapon"] {
        let out = std::process::Command::new(program).arg(name).output().map_err(said)?;
        if !out.status.success() {
            return Err(String::from_utf8_lossy(&out.stderr).trim().to_owned());
        }
    }
    Ok(())
}

/// The counters of the disk under a directory.
pub fn stat_of_disk(dir: &Path) -> Result<PathBuf, String> {
    let device = fs::metadata(dir).map_err(said)?.dev();
    let path = format!("/sys/dev/block/{}:{}/stat", libc::major(device), libc::minor(device));
    Path::new(&path).exists().then(|| path.into()).ok_or(format!("{} is on no disk", dir.display()))
}

impl Started {
    /// Runs a program under `cap` bytes, and counts in `tries`. `None`: it did not end well, which has been said.
    pub fn run(&self, cap: u64, load: &Load<'_>, tries: &mut Tries) -> Option<Theirs> {
        self.cgroup.set_limit(cap).expect("the limit can be set");
        let begun = Instant::now();
        (0..TRIES).take_while(|_| begun.elapsed() < TRYING).find_map(|_| {
            let before = Traffic::of(&self.stat);
            let mut beyond = 0;
            let ran = measured(&mut load.command(), &self.cgroup, load.client, |_| {
                let members = text(self.cgroup.path().join("cgroup.procs"));
                let files = members.lines().map(mapped_files).max().unwrap_or(0);
                let extra = self.pool() + uncharged(&self.cgroup, files);
                beyond = beyond.max(extra);
                charged(&self.cgroup) + extra
            });
            let ran = tries.count(ran)?;
            Some(Theirs { ran, beyond, traffic: Traffic::of(&self.stat).since(before) })
        })
    }

    /// Bytes of its pool.
    fn pool(&self) -> u64 {
        match &self.pool {
            Pool::Zswap => number(&text("/proc/meminfo"), "Zswap:") << 10,
            // The third number is all the memory that it takes.
            Pool::Zram(device) => {
                let all = text(device.join("mm_stat"));
                all.split_whitespace().nth(2).and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
            }
            Pool::None => 0,
        }
    }
}
