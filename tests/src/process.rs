//! Processes that a test or a measurement starts, and looks at from outside.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::wait;

/// A program that we started. Dropping it kills it and all that descend from it, and waits for its end, not for ever.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    /// Starts it.
    ///
    /// # Errors
    /// Of starting a program.
    pub fn start(command: &mut Command) -> io::Result<Running> {
        let mut child = command.spawn()?;
        let lines = lines(child.stdout.take());
        Ok(Running { child, lines })
    }

    /// The number of its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to its input, where that is a pipe.
    ///
    /// # Errors
    /// As for writing: one that has died reads nothing.
    pub fn tell(&mut self, line: &str) -> io::Result<()> {
        self.child.stdin.as_mut().map_or(Ok(()), |input| writeln!(input, "{line}"))
    }

    /// Ends its input.
    pub fn end_input(&mut self) {
        drop(self.child.stdin.take());
    }

    /// The next line of its output, where that is a pipe.
    ///
    /// # Errors
    /// `UnexpectedEof` when there is none, `TimedOut` when none comes within `limit`.
    pub fn line(&mut self, limit: Duration) -> io::Result<String> {
        self.lines.recv_timeout(limit).map_err(|error| match error {
            RecvTimeoutError::Timeout => io::Error::new(io::ErrorKind::TimedOut, "no line comes"),
            RecvTimeoutError::Disconnected => io::ErrorKind::UnexpectedEof.into(),
        })
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// `TimedOut` when it still runs after `limit`.
    pub fn exit(&mut self, limit: Duration) -> io::Result<ExitStatus> {
        wait::exit(&mut self.child, limit)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        for pid in tree(self.id()) {
            let pid = libc::pid_t::try_from(pid).unwrap_or(libc::pid_t::MAX);
            // SAFETY: takes numbers only; the tree was looked up just now.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        // One that waits for a swap device that answers nobody cannot be waited for either.
        let _ = self.exit(Duration::from_secs(20));
    }
}

/// The lines that come from `out`, by a thread of their own: reading a pipe has no limit.
pub fn lines(out: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (send, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in out.into_iter().flat_map(|out| BufReader::new(out).lines().map_while(Result::ok)) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

/// A process and all that descend from it.
pub fn tree(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().filter_map(Result::ok);
    let lists = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    let children: Vec<u32> = lists
        .flat_map(|list| list.split(' ').filter_map(|child| child.parse().ok()).collect::<Vec<_>>())
        .collect();
    std::iter::once(pid).chain(children.into_iter().flat_map(tree)).collect()
}

/// Those of `pids` that have memory of their own. Between vfork and exec a child is in its parent's memory, and what the kernel
/// says of each of them is the same memory.
pub fn with_own_memory(pids: impl IntoIterator<Item = u32>) -> Vec<u32> {
    let mut own: Vec<u32> = Vec::new();
    for pid in pids {
        if !own.iter().any(|&other| is_one_memory(pid, other)) {
            own.push(pid);
        }
    }
    own
}

/// `kcmp(2)`. A kernel that has it not says no.
fn is_one_memory(pid: u32, other: u32) -> bool {
    const KCMP_VM: i32 = 1;
    // SAFETY: compares two processes by their numbers; no memory of ours is involved.
    unsafe { libc::syscall(libc::SYS_kcmp, pid, other, KCMP_VM, 0, 0) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_of_vfork_counts_with_its_parent() {
        let own = std::process::id();
        assert!(is_one_memory(own, own));
        let child = Running::start(Command::new("sleep").arg("30")).expect("it starts");
        // spawn() returns after exec.
        let found = with_own_memory(tree(own));
        assert!([own, child.id()].iter().all(|pid| found.contains(pid)), "{found:?}");
        assert_eq!(with_own_memory([own, own]), [own]);
    }

    #[test]
    fn nothing_that_was_started_is_left() {
        let script = "sleep 1000 & echo $!; wait";
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(std::process::Stdio::piped());
        let mut shell = Running::start(&mut command).expect("it starts");
        let child = shell.line(Duration::from_secs(60)).expect("a number");
        let late = shell.line(Duration::from_millis(10)).expect_err("there is no other line");
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        drop(shell);
        // Who takes it over may never wait for it.
        let gone = || {
            let stat = fs::read_to_string(format!("/proc/{child}/stat"));
            stat.map_or(true, |stat| stat.contains(") Z "))
        };
        assert!(wait::until(Duration::from_secs(60), gone), "{child} runs on");
    }
}
