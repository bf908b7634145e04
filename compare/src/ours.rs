//! `uzswap run` of this build, measured as the rivals are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::cgroup::Cgroup;

use crate::measure::{Load, Ran, measured};
use crate::proc::{resident, text};

/// A run of ours. Its peak is what was seen from outside.
pub struct Own {
    pub ran: Ran,
    /// The peak that it counted itself.
    pub counted: u64,
    /// Faults that waited for a page that was out. Where the kernel's swap counts a major fault; `ran` counts those apart
    /// that were the kernel's with us too.
    pub faults: u64,
    /// Reads and writes of the swap file.
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

/// Runs a program under `cap` bytes, with a swap file if there is one. `None`: it did not end well, which has been said.
pub fn run(cap: u64, swap: Option<&Path>, load: &Load<'_>) -> Option<Own> {
    let dir = tempfile::tempdir().expect("a directory");
    let stats = dir.path().join("stats");
    let mut command = Command::new(uzswap());
    command.args(["run", "--memory", &cap.to_string(), "--stats"]).arg(&stats);
    if let Some(swap) = swap {
        command.arg("--swap").arg(swap);
    }
    command.arg("--").args(&load.words);
    // The group limits nothing: it is there so that both sides are charged to one, and tells who belongs to the program.
    let group = Cgroup::new(1 << 40).expect("a memory cgroup");
    let members = group.path().join("cgroup.procs");
    let ran = measured(&mut command, Some(&group), load.client, |top| resident(top, &text(&members)))?;
    let written = fs::read_to_string(&stats).expect("uzswap run writes its numbers");
    let numbers: serde_json::Value = serde_json::from_str(&written).expect("they are JSON");
    let number = |name: &str| numbers[name].as_u64().expect("it counts that");
    Some(Own {
        ran,
        counted: number("peak_total_bytes"),
        requests: number("device_reads") + number("device_writes"),
        faults: number("faults").saturating_sub(number("zero_faults")),
    })
}
