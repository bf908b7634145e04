//! One run of a program: how long it took, what it cost, and the most memory that was seen.
//!
//! Processor time and faults are the kernel's for the program and every process below it that was waited for; a supervisor
//! of ours is the child here, so all of its work counts. What kernel threads do for a program counts for nobody.

use std::ffi::CString;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tests::cgroup::Cgroup;

/// No run takes this long.
const LIMIT: Duration = Duration::from_secs(300);
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

/// Runs a command, in a cgroup if there is one, and has `memory` look at its process every two milliseconds. `None`: it
/// failed or was killed, which has been said.
pub fn measured(
    command: &mut Command,
    group: Option<&Cgroup>,
    client: Option<Client<'_>>,
    mut memory: impl FnMut(u32) -> u64,
) -> Option<Ran> {
    let group = group.map(|group| {
        let procs = group.path().join("cgroup.procs").into_os_string().into_encoded_bytes();
        CString::new(procs).expect("no zero in it")
    });
    // SAFETY: system calls only, and of strings made before the fork.
    unsafe {
        command.pre_exec(move || {
            // What is measured does not go on when nobody measures any more.
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            let Some(procs) = &group else { return Ok(()) };
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
    std::thread::scope(|scope| {
        let told = client.map(|client| scope.spawn(client));
        let mut peak = 0;
        let ended = loop {
            if let Some(ended) = ended(child.id()) {
                break ended;
            }
            if begun.elapsed() > LIMIT {
                eprintln!("{command:?} did not end in {LIMIT:?}");
                child.kill().expect("it is not waited for yet");
            }
            peak = peak.max(memory(child.id()));
            std::thread::sleep(LOOK);
        };
        let (status, processor, major_faults) = ended;
        let seconds = begun.elapsed().as_secs_f64();
        let mut text = String::new();
        let mut out = child.stdout.take().expect("it has a pipe");
        out.read_to_string(&mut text).expect("it prints text");
        if !status.success() {
            eprintln!("{}: {status}", command.get_program().display());
            return None;
        }
        if let Some(told) = told {
            text = told
                .join()
                .expect("a client does not panic")
                .map_err(|error| eprintln!("client: {error}"))
                .ok()?;
        }
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
