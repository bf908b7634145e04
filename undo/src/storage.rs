//! Mounts, loop devices and swap areas, each with what undoes it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::{Undo, wait};

/// How long a program may take that changes something in the machine: turning a swap area off brings its pages back.
const LIMIT: Duration = Duration::from_secs(180);

/// Each undoes only what is there: its `Undo` is older than what it undoes.
const UNMOUNT: &str = r#"! mountpoint -q "$1" || umount "$1""#;
const SWAPOFF: &str = r#"! swapon --noheadings --show=NAME | grep -qxF -- "$1" || swapoff "$1""#;
/// By the file. That a device is read-only would outlive what is on it.
const DETACH: &str = r#"
devices=$(losetup --noheadings --output NAME --associated "$1") || exit 1
for device in $devices; do
    ! swapon --noheadings --show=NAME | grep -qxF -- "$device" || swapoff "$device" || exit 1
    blockdev --setrw "$device"
    losetup --detach "$device" || exit 1
done"#;

/// Runs a program that is to succeed, and gives what it printed, which must be little.
///
/// # Panics
/// When it does not succeed, or takes for ever.
pub fn done(words: &[&str]) -> String {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect(words[0]);
    if let Err(error) = wait::exit(&mut child, LIMIT) {
        let _ = child.kill();
        panic!("{words:?}: {error}");
    }
    let output = child.wait_with_output().expect(words[0]);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is ASCII")
}

fn undo(script: &str, path: &Path) -> Undo {
    Undo::by(&["sh", "-c", script, "sh", text(path)]).expect("a shell")
}

/// Mounts at a directory, with these arguments of `mount`.
///
/// # Panics
/// When that fails.
#[must_use]
pub fn mount(arguments: &[&str], at: &Path) -> Undo {
    let mounted = undo(UNMOUNT, at);
    done(&[&["mount"], arguments, &[text(at)]].concat());
    mounted
}

/// Has the kernel swap to a device or file, after everything else.
///
/// # Panics
/// When that fails.
#[must_use]
pub fn swapon(area: &Path) -> Undo {
    let on = undo(SWAPOFF, area);
    done(&["swapon", "--priority", "0", text(area)]);
    on
}

/// What takes every loop device on a file away, and turns swap to it off.
///
/// # Panics
/// When there is no shell.
#[must_use]
pub fn detached(file: &Path) -> Undo {
    undo(DETACH, file)
}

/// As [`detached`], and removes the file then.
///
/// # Panics
/// When there is no shell.
#[must_use]
pub fn removed(file: &Path) -> Undo {
    undo(&format!("{DETACH}\nrm -f -- \"$1\""), file)
}

/// A loop device on a file.
///
/// # Panics
/// When that fails.
#[must_use]
pub fn attach(file: &Path) -> (PathBuf, Undo) {
    let attached = detached(file);
    (done(&["losetup", "--find", "--show", text(file)]).into(), attached)
}
