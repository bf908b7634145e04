//! Instructions an operation takes, counted by valgrind, against the counts that were recorded in `counts.toml`.
//!
//! Times on a busy machine tell little; a count is the same each time, so a change of a few percent shows. It says nothing of
//! caches and of waiting. One operation is counted in one process: callgrind collects in one function, [`operations::COUNTED`].
//!
//! Only what is compiled from Rust is judged: what a C library takes depends on the C compiler of the machine, and is shown.
//! Another Rust compiler makes other code too, so counts are held against those of the same one alone. Of the CPU's features
//! valgrind shows the program at most AVX2, so a CPU without it gives other counts and any other the same; the C library's choice
//! of `memcpy` is fixed ([`TUNABLES`]).

mod operations;
mod pages;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

pub use operations::count;

/// glibc picks its string functions by the features of the CPU: it is told that there are none beyond SSE.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX2,-AVX512F,-AVX512VL,-ERMS,-FSRM";

/// Counts that were recorded.
#[derive(Serialize, Deserialize)]
struct Recorded {
    /// By this compiler.
    rustc: String,
    /// How much more is too much: 0.02 is two percent.
    tolerance: f64,
    /// Instructions by operation.
    instructions: BTreeMap<String, u64>,
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("counts.toml")
}

fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output().expect("rustc built this");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Instructions of one operation.
fn instructions(operation: &str) -> Result<u64, String> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={}", operations::COUNTED))
        .arg(std::env::current_exe().expect("we run"))
        .args(["count", operation])
        .env("GLIBC_TUNABLES", TUNABLES)
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    collected.filter(|&count| count > 0 && output.status.success()).ok_or_else(|| text.into_owned())
}

/// Counts every operation, and ends the process with an error where one takes more than it did.
pub fn run(record: bool) {
    if cfg!(debug_assertions) {
        fail("instructions of a build without optimisation say nothing: cargo run --release");
    }
    if !Command::new("valgrind").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return skip("valgrind is not installed");
    }
    if !std::arch::is_x86_feature_detected!("avx2") {
        return skip("the counts were recorded where there is AVX2");
    }
    let text = fs::read_to_string(file()).unwrap_or_default();
    let before: Option<Recorded> = toml::from_str(&text).ok();
    let rustc = compiler();
    if !record && before.as_ref().is_some_and(|before| before.rustc != rustc) {
        return skip(&format!("the counts were recorded with another compiler than {rustc}; {AGAIN}"));
    }
    let tolerance = before.as_ref().map_or(0.02, |before| before.tolerance);
    let old = before.map(|before| before.instructions).unwrap_or_default();
    let mut new = BTreeMap::new();
    let mut wrong = Vec::new();
    println!("{:<36} {:>12} {:>12} {:>8}", "instructions a page", "recorded", "now", "change");
    for operation in operations::names() {
        let now = instructions(&operation).unwrap_or_else(|why| fail(&format!("{operation}: {why}")));
        let (now, judged) = (now / operations::PAGES as u64, operations::is_ours(&operation));
        let was = old.get(&operation).copied();
        let change = was.map(|was| now as f64 / was as f64 - 1.0);
        let shown = change.map_or("new".to_owned(), |change| format!("{:+.1}%", change * 100.0));
        let was = was.map_or(String::new(), |was| was.to_string());
        let verdict = if judged { "" } else { "  C library: not judged" };
        println!("{operation:<36} {was:>12} {now:>12} {shown:>8}{verdict}");
        if judged && change.is_none_or(|change| change > tolerance) {
            wrong.push(format!("{operation}: {was} recorded, {now} now ({shown})"));
        }
        new.insert(operation, now);
    }
    if record {
        let recorded = Recorded { rustc, tolerance, instructions: new };
        let text = toml::to_string(&recorded).expect("names and numbers");
        fs::write(file(), format!("{HEAD}{text}")).expect("the source tree can be written");
    } else if !wrong.is_empty() {
        fail(&format!("dearer than recorded, or not recorded:\n  {}\n{AGAIN}", wrong.join("\n  ")));
    }
}

const AGAIN: &str = "where that is meant, record anew: cargo run --release -p compare -- counts --record, and say why in the commit";
const HEAD: &str =
    "# Instructions a page, by operation. Written by: cargo run --release -p compare -- counts --record\n";

fn fail(why: &str) -> ! {
    eprintln!("compare counts: {why}");
    std::process::exit(1);
}

/// In CI what does not run has failed.
fn skip(reason: &str) {
    if std::env::var_os("CI").is_some() {
        fail(reason);
    }
    println!("SKIP counts: {reason}");
}
