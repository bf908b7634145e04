//! Waiting, never for ever.

use std::io;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(20);

/// Waits until `done` holds, at most `limit`. Whether it came to hold.
pub fn until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if done() {
            return true;
        }
        if start.elapsed() >= limit {
            return false;
        }
        std::thread::sleep(STEP);
    }
}

/// Waits until `child` has ended.
///
/// # Errors
/// `TimedOut` when it still runs after `limit`; it is left running.
pub fn exit(child: &mut Child, limit: Duration) -> io::Result<ExitStatus> {
    let mut ended = None;
    let mut failed = None;
    until(limit, || match child.try_wait() {
        Ok(status) => {
            ended = status;
            ended.is_some()
        }
        Err(error) => {
            failed = Some(error);
            true
        }
    });
    match (failed, ended) {
        (Some(error), _) => Err(error),
        (None, Some(status)) => Ok(status),
        (None, None) => Err(io::Error::new(io::ErrorKind::TimedOut, "the process still runs")),
    }
}
