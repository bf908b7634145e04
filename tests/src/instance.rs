//! A running `uzswap swapon`, in a run directory of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use undo::Undo;

use crate::process::{self, Running};
use crate::{programs, wait};

/// How long a command that brings no pages back may take.
pub const COMMAND: Duration = Duration::from_secs(60);
/// How long bringing all pages back may take.
pub const DRAIN: Duration = Duration::from_secs(180);

/// Runs a program to its end.
///
/// # Errors
/// `TimedOut` when it took longer than `limit`; it is killed then, and all that descend from it.
pub fn ended(command: &mut Command, limit: Duration) -> io::Result<Output> {
    // Into files, which a server that stays in the background may keep open: a pipe would have no end.
    let (out, err) = (tempfile::NamedTempFile::new()?, tempfile::NamedTempFile::new()?);
    command.stdin(Stdio::null()).stdout(out.reopen()?).stderr(err.reopen()?);
    let status = Running::start(command)?.exit(limit)?;
    Ok(Output { status, stdout: std::fs::read(out.path())?, stderr: std::fs::read(err.path())? })
}

/// The command, and the directory of instances that it is to use.
#[derive(Debug)]
pub struct Uzswap {
    program: PathBuf,
    // In this order when dropped. An instance that is left is turned off, its server too.
    _cleaned: Undo,
    run: TempDir,
}

impl Uzswap {
    /// Uses `program`, with a new run directory.
    ///
    /// # Errors
    /// As for making a directory.
    pub fn new(program: &Path) -> io::Result<Uzswap> {
        let run = tempfile::Builder::new().prefix("uzswap-run-").tempdir()?;
        let directory = format!("UZSWAP_RUN={}", run.path().display());
        let words = ["env", &directory, program.to_str().unwrap_or_default(), "swapoff", "--all"];
        Ok(Uzswap { program: program.to_owned(), _cleaned: Undo::by(&words)?, run })
    }

    /// Uses the program of this source tree.
    ///
    /// # Panics
    /// When it does not build.
    #[must_use]
    pub fn of_this_tree() -> Uzswap {
        Uzswap::new(&programs::uzswap()).expect("a run directory")
    }

    /// The directory of instances.
    #[must_use]
    pub fn run_dir(&self) -> &Path {
        self.run.path()
    }

    /// The command with these arguments, to be started.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).env("UZSWAP_RUN", self.run.path()).stdin(Stdio::null());
        command
    }

    /// Runs the command with these arguments to its end.
    ///
    /// # Errors
    /// As [`ended`].
    pub fn call_within(&self, args: &[&str], limit: Duration) -> io::Result<Output> {
        ended(&mut self.command(args), limit)
    }

    /// Runs a command that does not bring pages back.
    ///
    /// # Errors
    /// `TimedOut` when it took longer than a minute.
    pub fn call(&self, args: &[&str]) -> io::Result<Output> {
        self.call_within(args, COMMAND)
    }

    /// Runs a command that is to succeed, and gives its stdout. Warnings are passed on.
    ///
    /// # Errors
    /// `Other`, with what it said.
    pub fn done(&self, args: &[&str], limit: Duration) -> io::Result<String> {
        let output = self.call_within(args, limit)?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            eprint!("{said}");
            return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
        }
        Err(io::Error::other(format!("uzswap {}: {}: {said}", args.join(" "), output.status)))
    }

    /// The status of an instance.
    ///
    /// # Errors
    /// As [`Uzswap::done`]; `InvalidData` when it is not JSON.
    pub fn status(&self, name: &str) -> io::Result<Value> {
        let text = self.done(&["status", name, "--json"], COMMAND)?;
        serde_json::from_str(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// A number of the status of an instance.
    ///
    /// # Errors
    /// As [`Uzswap::status`]; `InvalidData` when there is no such number.
    pub fn number(&self, name: &str, key: &str) -> io::Result<u64> {
        let status = self.status(name)?;
        let missing = || io::Error::new(io::ErrorKind::InvalidData, format!("{key} is not in the status"));
        status.get(key).and_then(Value::as_u64).ok_or_else(missing)
    }
}

/// A server in the foreground, as our child. Dropping it takes the device away, in the worst case by SIGKILL, after
/// which dropping the [`Uzswap`] cleans up.
#[derive(Debug)]
pub struct Instance<'a> {
    uzswap: &'a Uzswap,
    name: String,
    device: PathBuf,
    child: Child,
}

impl<'a> Instance<'a> {
    /// Starts `uzswap swapon --foreground --name NAME` with these arguments, and waits until it names its device.
    ///
    /// # Errors
    /// `TimedOut` when that took too long, `Other` when it ended instead.
    pub fn start(uzswap: &'a Uzswap, name: &str, args: &[&str]) -> io::Result<Instance<'a>> {
        let mut command = uzswap.command(&["swapon", "--foreground", "--name", name]);
        let mut child = command.args(args).stdout(Stdio::piped()).spawn()?;
        let lines = process::lines(child.stdout.take());
        let mut instance = Instance { uzswap, name: name.to_owned(), device: PathBuf::new(), child };
        instance.device = lines
            .recv_timeout(COMMAND)
            .map_err(|error| match error {
                RecvTimeoutError::Timeout => {
                    io::Error::new(io::ErrorKind::TimedOut, "uzswap swapon does not name its device")
                }
                RecvTimeoutError::Disconnected => {
                    io::Error::other("uzswap swapon --foreground ended without naming a device")
                }
            })?
            .into();
        Ok(instance)
    }

    /// The block device.
    #[must_use]
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// The server's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The server's process that turns the area off, and the child of that process which is about to, if it is. `None`: the
    /// server has ended.
    #[must_use]
    pub fn swapoff_processes(&self) -> Option<(u32, Option<u32>)> {
        let child = |parent: u32| {
            let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
            children.unwrap_or_default().split_whitespace().filter_map(|child| child.parse().ok()).find(
                |child| {
                    let name = std::fs::read_to_string(format!("/proc/{child}/comm"));
                    name.is_ok_and(|name| name.trim() == "uzswap-swapoff")
                },
            )
        };
        let waiting = child(self.pid())?;
        Some((waiting, child(waiting)))
    }

    /// A number of its status.
    ///
    /// # Errors
    /// As [`Uzswap::number`].
    pub fn number(&self, key: &str) -> io::Result<u64> {
        self.uzswap.number(&self.name, key)
    }

    /// Sends the server a signal.
    pub fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.child.id()).unwrap_or(libc::pid_t::MAX);
        // SAFETY: kill takes numbers only; the child was not waited for, so the number is still its own.
        unsafe { libc::kill(pid, signal) };
    }

    /// Waits for the server's end.
    ///
    /// # Errors
    /// `TimedOut` when it still runs after `limit`.
    pub fn exit(&mut self, limit: Duration) -> io::Result<ExitStatus> {
        wait::exit(&mut self.child, limit)
    }
}

impl Drop for Instance<'_> {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let _ = self.uzswap.call_within(&["swapoff", &self.name], DRAIN);
        if self.exit(Duration::from_secs(10)).is_err() {
            eprintln!("{}: swapoff did not end the server; killing it", self.name);
            let _ = self.child.kill();
            let _ = self.exit(Duration::from_secs(10));
        }
    }
}
