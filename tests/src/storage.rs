//! Storage for a test, and ways to break it while it is in use. What was mounted or attached goes when it is dropped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::wait;

/// How long storage may stay busy after its last user has gone.
const BUSY: Duration = Duration::from_secs(60);
/// An option: pool bytes that a quarter of the pages of a hog fit in.
pub const POOL: &str = "max_pool_bytes=4194304";

/// Arguments of a `uzswap swapon` of 128 MiB with a small pool, so that most pages go to `backing`.
///
/// # Panics
/// When the path is no text.
#[must_use]
pub fn behind(backing: &Path) -> [&str; 6] {
    ["--size", "128M", "--backing", backing.to_str().expect("a temporary path is ASCII"), "-o", POOL]
}

/// Runs a program that is to succeed, and gives what it printed.
///
/// # Panics
/// When it does not.
pub fn done(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().expect(words[0]);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

fn undo(words: &[&str]) {
    let again = || Command::new(words[0]).args(&words[1..]).output().is_ok_and(|it| it.status.success());
    if !wait::until(BUSY, again) {
        eprintln!("not undone: {words:?}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is ASCII")
}

/// A directory for files, on the disk or on a file system of its own.
#[derive(Debug)]
pub struct Directory {
    dir: TempDir,
    mounted: bool,
}

impl Directory {
    /// On the disk.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn plain() -> Directory {
        Directory { dir: tempfile::tempdir().expect("a directory"), mounted: false }
    }

    /// A tmpfs of `mib` MiB.
    ///
    /// # Panics
    /// When it cannot be mounted.
    #[must_use]
    pub fn tmpfs(mib: u32) -> Directory {
        let mut made = Directory::plain();
        done(&["mount", "-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs", text(made.dir.path())]);
        made.mounted = true;
        made
    }

    /// Makes a sparse file of `len` bytes.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn file(&self, name: &str, len: u64) -> PathBuf {
        let path = self.dir.path().join(name);
        File::create(&path).and_then(|file| file.set_len(len)).expect("a sparse file");
        path
    }

    /// Leaves no room for more than is in it, less than a MiB aside.
    ///
    /// # Panics
    /// When it is no file system of its own.
    pub fn shrink(&self) {
        let used: u64 = done(&["df", "--output=used", "-B1M", text(self.dir.path())])
            .lines()
            .last()
            .and_then(|line| line.trim().parse().ok())
            .expect("df prints a number");
        done(&["mount", "-o", &format!("remount,size={}m", used.max(1)), text(self.dir.path())]);
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.mounted {
            undo(&["umount", text(self.dir.path())]);
        }
    }
}

/// What undoes a change when it is dropped.
#[derive(Debug)]
pub struct Guard {
    command: Vec<String>,
    /// The place of a mount, which goes after it.
    _at: Option<Directory>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        undo(&self.command.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

/// A loop device on a file.
#[derive(Debug)]
pub struct LoopDevice(PathBuf);

impl LoopDevice {
    /// Attaches one.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn on(file: &Path) -> LoopDevice {
        LoopDevice(done(&["losetup", "--find", "--show", text(file)]).into())
    }

    /// The device node.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Mounts what is on it, until the guard is dropped.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn mount(&self) -> Guard {
        let at = Directory::plain();
        done(&["mount", text(&self.0), text(at.dir.path())]);
        Guard { command: vec!["umount".into(), text(at.dir.path()).into()], _at: Some(at) }
    }

    /// Has the kernel swap to it, after everything else, until the guard is dropped.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn swapon(&self) -> Guard {
        done(&["swapon", "--priority", "0", text(&self.0)]);
        Guard { command: vec!["swapoff".into(), text(&self.0).into()], _at: None }
    }

    /// Makes every write to it fail from now on.
    ///
    /// # Panics
    /// When that fails.
    pub fn make_read_only(&self) {
        done(&["blockdev", "--setro", text(&self.0)]);
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // That would outlive what is on the device.
        undo(&["blockdev", "--setrw", text(&self.0)]);
        undo(&["losetup", "--detach", text(&self.0)]);
    }
}
