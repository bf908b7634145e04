//! A running `hog` in a memory cgroup.

use std::io;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::cgroup::Cgroup;
use crate::process::Running;
use crate::programs;

/// What a hog answered, or why it did not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Every page is right: pages, and rounds of rewriting so far.
    Right(u64, u64),
    /// A page is wrong; the line says which.
    Wrong(String),
    /// It died, or ended.
    Gone,
    /// Nothing came within the limit.
    Late,
}

/// A hog. Dropping it kills it and removes its cgroup.
#[derive(Debug)]
pub struct Hog {
    program: Running,
    // After the program: the cgroup can go only when it is empty.
    cgroup: Cgroup,
}

impl Hog {
    /// Starts `program` to touch `mib` MiB in a cgroup that may keep `limit_mib` MiB in RAM. It answers when it has
    /// filled them.
    ///
    /// # Errors
    /// As for making the cgroup and starting a program.
    pub fn start(program: &Path, mib: u64, limit_mib: u64) -> io::Result<Hog> {
        let cgroup = Cgroup::new(limit_mib << 20)?;
        let mut command = Command::new(program);
        command.arg(mib.to_string()).arg(cgroup.path());
        let program = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        Ok(Hog { program, cgroup })
    }

    /// Tells it what to do: `check`, `churn` or `run`. One that has died is found out by [`Hog::answer`].
    pub fn tell(&mut self, what: &str) {
        let _ = self.program.tell(what);
    }

    /// Its next answer, waited for at most `limit`.
    pub fn answer(&mut self, limit: Duration) -> Answer {
        let line = match self.program.line(limit) {
            Ok(line) => line,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Answer::Late,
            Err(_) => return Answer::Gone,
        };
        let mut words = line.split(' ');
        let ok = words.next() == Some("ok");
        let mut number = || words.next().and_then(|word| word.parse().ok());
        match (ok, number(), number()) {
            (true, Some(pages), Some(rounds)) => Answer::Right(pages, rounds),
            _ => Answer::Wrong(line),
        }
    }

    /// Tells it and waits for the answer.
    pub fn ask(&mut self, what: &str, limit: Duration) -> Answer {
        self.tell(what);
        self.answer(limit)
    }

    /// Lets it keep `mib` MiB in RAM from now on.
    ///
    /// # Errors
    /// As for writing the cgroup's file.
    pub fn set_limit(&self, mib: u64) -> io::Result<()> {
        self.cgroup.set_limit(mib << 20)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// `TimedOut` when it still runs after `limit`.
    pub fn exit(&mut self, limit: Duration) -> io::Result<ExitStatus> {
        self.program.exit(limit)
    }
}

/// How long a hog may take for one answer: a machine may be slow and busy, a hang is for ever.
pub const ANSWER: Duration = Duration::from_secs(120);
/// Pages of a [`small`] hog that cannot stay: three quarters, less a margin for what the kernel reads back.
pub const SWAPPED: u64 = 10_000;

/// A hog for a test: 64 MiB, of which it may keep a quarter, filled.
///
/// # Panics
/// When it cannot be had.
#[must_use]
pub fn small() -> Hog {
    let mut hog = Hog::start(&programs::sibling("hog"), 64, 16).expect("a hog in a cgroup");
    assert_right(&hog.answer(ANSWER));
    hog
}

/// Fails unless every page of a [`small`] hog was right.
///
/// # Panics
/// When it was not.
pub fn assert_right(answer: &Answer) {
    assert!(matches!(answer, Answer::Right(16384, _)), "{answer:?}");
}
