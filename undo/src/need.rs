//! What a test needs of the machine. Where it is missing the test is skipped and says so; in CI that is a failure.

use std::fs::File;
use std::path::Path;

/// Prints that the test `name` does not run, and why.
///
/// # Panics
/// When the environment variable CI is set: there, a test that does not run is a failed test.
pub fn skip(name: &str, reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "SKIP {name}: {reason} (a failure, because CI is set)");
    println!("SKIP {name}: {reason}");
}

/// Whether this process may do everything.
#[must_use]
pub fn is_root() -> bool {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Keeps other tests that change the machine waiting until what it gives is dropped: each may look at all of the machine's
/// mounts and devices. `None`: the test `name` needs root or one of `devices`, which is not here, and it has been said.
///
/// # Panics
/// When the file for it cannot be made; as [`skip`].
#[must_use]
pub fn alone(name: &str, devices: &[&str]) -> Option<File> {
    let missing = devices.iter().find(|device| !Path::new(device).exists());
    let reason = match missing {
        _ if !is_root() => "only root may change mounts and block devices".to_owned(),
        Some(device) => format!("no {device}"),
        None => {
            let lock = File::create(std::env::temp_dir().join("uzswap-tests.lock")).expect("a file");
            lock.lock().expect("a lock");
            return Some(lock);
        }
    };
    skip(name, &reason);
    None
}
