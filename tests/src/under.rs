//! A program under `uzswap run`, and what its `--stats` say.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::instance::{Uzswap, ended};

/// How long a program may take: it does a second's work, on a machine that may be slow and busy.
pub const LIMIT: Duration = Duration::from_secs(150);

/// What came of it.
#[derive(Debug)]
pub struct Under {
    /// Output and exit status.
    pub output: Output,
    /// The object of `--stats`.
    pub stats: Value,
}

impl Under {
    /// A counter.
    ///
    /// # Panics
    /// When there is no such counter.
    #[must_use]
    pub fn number(&self, name: &str) -> u64 {
        self.stats[name].as_u64().unwrap_or_else(|| panic!("no {name} in {}", self.stats))
    }

    /// What it printed.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }
}

/// Runs `command` under `memory`, with more arguments for `run` in between.
///
/// # Panics
/// When it does not end in time, or there are no stats.
#[must_use]
pub fn run(uzswap: &Uzswap, memory: &str, more: &[&str], command: &[&str]) -> Under {
    let stats = tempfile::NamedTempFile::new().expect("a file");
    let path = stats.path().to_str().expect("a name").to_owned();
    let mut args = vec!["run", "--memory", memory, "--stats", &path];
    args.extend(more);
    args.push("--");
    args.extend(command);
    let output =
        ended(&mut uzswap.command(&args), LIMIT).unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = std::fs::read_to_string(stats.path()).unwrap_or_default();
    let stats = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{command:?}: {error}: {text}; {output:?}"));
    Under { output, stats }
}

/// Runs `command` as it is.
///
/// # Panics
/// When it does not end in time.
#[must_use]
pub fn alone(command: &[&str]) -> Output {
    ended(Command::new(command[0]).args(&command[1..]), LIMIT)
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Whether programs can be paged here; if not, it has been said.
#[must_use]
pub fn possible(name: &str) -> bool {
    let reason = if !cfg!(target_arch = "x86_64") {
        "it is for x86-64"
    } else if !Path::new("/proc/sys/vm/unprivileged_userfaultfd").exists() {
        "this kernel has no userfaultfd"
    } else if !undo::need::is_root() {
        "fork events of userfaultfd take CAP_SYS_PTRACE"
    } else {
        return true;
    };
    crate::need::skip(name, reason);
    false
}
