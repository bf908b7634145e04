//! One run of a program: how long it took, what it cost, and the most memory that was seen.
//!
//! Processor time and faults are the kernel's for the program and every process below it that was waited for; a supervisor
//! of ours is the child here, so all of its work counts. What kernel threads do for a program counts for nobody.

use std::ffi::CString;
use std::fmt;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tests::cgroup::Cgroup;

use crate::proc::text;

/// No run takes this long.
const LIMIT: Duration = Duration::from_secs(300);
/// Nor does what it printed take this long to come, once it has ended: somebody who did not end keeps the pipe.
const PRINTED: Duration = Duration::from_secs(10);
/// Between two looks at its memory.
const LOOK: Duration = Duration::from_millis(2);

/// What drives a server from outside of its cap. Returns what it was told, the same each time.
pub type Client<'a> = &'a (dyn Fn() -> io::Result<String> + Sync);

/// A program, and what drives it if it does not end by itself.
pub struct Load<'a> {
    pub words: Vec<String>,
    pub client: Option<Client<'a>>,
}

impl Load<'_> {
    /// A script for the shell.
    pub fn script(text: &str) -> Load<'static> {
        Load { words: ["/bin/sh", "-c", text].map(str::to_owned).to_vec(), client: None }
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]);
        command
    }
}

/// What a run was.
pub struct Ran {
    /// What it printed, or what its client was told.
    pub text: String,
    pub seconds: f64,
    /// User and system, in seconds.
    pub processor: f64,
    pub major_faults: u64,
    /// The most memory that was seen, in bytes.
    pub peak: u64,
}

/// Runs of one side, and those of them that did not end well.
#[derive(Clone, Copy, Default)]
pub struct Tries {
    made: usize,
    failed: usize,
}

impl Tries {
    /// Counts one, of which this came.
    pub fn count<T>(&mut self, ran: Option<T>) -> Option<T> {
        self.made += 1;
        self.failed += usize::from(ran.is_none());
        ran
    }
}

/// Both sides' tries, of which some failed: theirs, and ours.
pub fn failures(theirs: Tries, own: Tries) -> Option<String> {
    (theirs.failed + own.failed > 0).then(|| format!("theirs failed {theirs}, ours {own}"))
}

impl fmt::Display for Tries {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} of {}", self.failed, self.made)
    }
}

/// A group that limits nothing: it tells who belongs to a program, and has all of them charged to one, as in the rivals'.
pub fn unlimited() -> Cgroup {
    Cgroup::plain(1 << 40).expect("a memory cgroup")
}

/// Kills who is in a group.
fn kill_members(group: &Cgroup) {
    let members = text(group.path().join("cgroup.procs"));
    // A member that our namespace does not show is a 0 there, and to kill that would be to kill us.
    for pid in members.lines().filter_map(|pid| pid.parse().ok()).filter(|pid| *pid > 0) {
        // SAFETY: numbers only; whoever it was may have ended.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}

/// Reads all of it in a thread of its own: whoever keeps the pipe open keeps that thread, and not us.
fn reading(mut out: ChildStdout) -> Receiver<String> {
    let (send, text) = channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).expect("it prints text");
        // Nobody may wait for it any more.
        let _ = send.send(text);
    });
    text
}

/// Runs a command in a cgroup, and has `memory` look at its process every two milliseconds. Who it leaves behind is killed.
/// `None`: it failed or was killed, which has been said.
pub fn measured(
    command: &mut Command,
    group: &Cgroup,
    client: Option<Client<'_>>,
    mut memory: impl FnMut(u32) -> u64,
) -> Option<Ran> {
    let procs = group.path().join("cgroup.procs").into_os_string().into_encoded_bytes();
    let procs = CString::new(procs).expect("no zero in it");
    // SAFETY: system calls only, and of strings made before the fork.
    unsafe {
        command.pre_exec(move || {
            // What is measured does not go on when nobody measures any more.
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            let fd = libc::open(procs.as_ptr(), libc::O_WRONLY);
            let written = libc::write(fd, c"0".as_ptr().cast(), 1);
            libc::close(fd);
            if written == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
        });
    }
    let begun = Instant::now();
    let spawned = command.stdout(Stdio::piped()).spawn();
    let mut child =
        spawned.map_err(|error| eprintln!("{}: {error}", command.get_program().display())).ok()?;
    let printed = reading(child.stdout.take().expect("it has a pipe"));
    std::thread::scope(|scope| {
        let told = client.map(|client| scope.spawn(client));
        let (mut peak, mut is_late) = (0, false);
        let ended = loop {
            if let Some(ended) = ended(child.id()) {
                break ended;
            }
            if begun.elapsed() > LIMIT {
                if !std::mem::replace(&mut is_late, true) {
                    eprintln!("{command:?} did not end in {LIMIT:?}");
                }
                kill_members(group);
            }
            peak = peak.max(memory(child.id()));
            std::thread::sleep(LOOK);
        };
        let (status, processor, major_faults) = ended;
        let seconds = begun.elapsed().as_secs_f64();
        let text = printed.recv_timeout(PRINTED);
        kill_members(group);
        if !status.success() {
            eprintln!("{}: {status}", command.get_program().display());
            return None;
        }
        let text = match told {
            Some(told) => told
                .join()
                .expect("a client does not panic")
                .map_err(|error| eprintln!("client: {error}"))
                .ok()?,
            None => {
                text.map_err(|_| eprintln!("{command:?} left somebody who keeps its output open")).ok()?
            }
        };
        Some(Ran { text, seconds, processor, major_faults, peak })
    })
}

/// The status of a child that has ended, with the processor time and the major faults of it and its own.
fn ended(pid: u32) -> Option<(ExitStatus, f64, u64)> {
    let mut status = 0;
    // SAFETY: numbers only, of which zero is one.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: writes one number and one rusage. Nobody else waits for our child.
    let pid = unsafe { libc::wait4(pid.cast_signed(), &raw mut status, libc::WNOHANG, &raw mut usage) };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    (pid > 0).then(|| {
        (
            std::os::unix::process::ExitStatusExt::from_raw(status),
            seconds(usage.ru_utime) + seconds(usage.ru_stime),
            usage.ru_majflt.unsigned_abs(),
        )
    })
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn who_keeps_the_pipe_open_is_killed_and_not_waited_for() {
        if let Err(why) = crate::rival::ready() {
            return tests::need::skip("who_keeps_the_pipe_open_is_killed_and_not_waited_for", &why);
        }
        let group = unlimited();
        let begun = Instant::now();
        let ran = measured(&mut Load::script("sleep 100 & echo begun").command(), &group, None, |_| 0);
        assert!(ran.is_none() && begun.elapsed() < 2 * PRINTED);
        let empty = || text(group.path().join("cgroup.procs")).is_empty();
        assert!(tests::wait::until(PRINTED, empty), "somebody is left");
    }
}
