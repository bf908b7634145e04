//! `uzswap run` of this build, measured as the rivals are.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::measure::{Load, Ran, Tries, measured, unlimited};
use crate::proc::{charged, resident, text, uncharged};

/// A run of ours. Its peak is what was seen from outside.
pub struct Own {
    pub ran: Ran,
    /// The peak that it counted itself.
    pub counted: u64,
    /// Faults that waited for a page that was out. Where the kernel's swap counts a major fault; `ran` counts those apart
    /// that were the kernel's with us too.
    pub faults: u64,
    /// The peak by the measure that the rivals' cap is of: what the kernel charges to the group, and what it does not pay for.
    pub charged: u64,
    /// Pages read from the swap file and written to it without the cache; several may be one request.
    pub requests: u64,
}

fn uzswap() -> PathBuf {
    std::env::current_exe().expect("we run").with_file_name("uzswap")
}

/// What it needs.
///
/// # Errors
/// What of it is missing here.
pub fn ready() -> Result<(), String> {
    if uzswap().exists() { Ok(()) } else { Err("the command uzswap is not built beside this one".to_owned()) }
}

fn command(cap: u64, options: &[&OsStr], load: &Load<'_>) -> Command {
    let mut command = Command::new(uzswap());
    command.args(["run", "--memory", &cap.to_string()]).args(options).arg("--").args(&load.words);
    command
}

/// Runs a program under `cap` bytes to see how long it takes, and looks at it as at one that runs alone: to look at the memory of each
/// process is work, too, that a program would have to share two CPUs with. `None`: it did not end well, which has been said.
pub fn timed(cap: u64, load: &Load<'_>) -> Option<Ran> {
    let group = unlimited();
    measured(&mut command(cap, &[], load), &group, load.client, |_| charged(&group))
}

/// Runs a program under `cap` bytes, with a swap file if there is one, and counts in `tries`. `None`: it did not end well,
/// which has been said.
pub fn run(cap: u64, swap: Option<&Path>, load: &Load<'_>, tries: &mut Tries) -> Option<Own> {
    let dir = tempfile::tempdir().expect("a directory");
    let stats = dir.path().join("stats");
    let mut options = vec!["--stats".as_ref(), stats.as_os_str()];
    if let Some(swap) = swap {
        options.extend(["--swap".as_ref(), swap.as_os_str()]);
    }
    let mut command = command(cap, &options, load);
    let group = unlimited();
    let members = group.path().join("cgroup.procs");
    let mut most = 0;
    let ran = measured(&mut command, &group, load.client, |top| {
        let seen = resident(top, &text(&members));
        most = most.max(charged(&group) + uncharged(&group, seen.mapped));
        seen.bytes
    });
    let ran = tries.count(ran)?;
    let written = fs::read_to_string(&stats).expect("uzswap run writes its numbers");
    let numbers: serde_json::Value = serde_json::from_str(&written).expect("they are JSON");
    let number = |name: &str| numbers[name].as_u64().expect("it counts that");
    Some(Own {
        ran,
        counted: number("peak_total_bytes"),
        charged: most,
        requests: number("device_reads") + number("device_writes"),
        faults: number("faults").saturating_sub(number("zero_faults")),
    })
}
