//! Storage for a test, and ways to break it while it is in use. What was mounted or attached goes when it is dropped.

use std::fs::File;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use undo::Undo;
use undo::storage;
pub use undo::storage::done;

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

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is ASCII")
}

/// A directory for files, on the disk or on a file system of its own.
#[derive(Debug)]
pub struct Directory {
    // In this order when dropped.
    mounted: Option<Undo>,
    dir: TempDir,
}

impl Directory {
    /// On the disk.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn plain() -> Directory {
        Directory { mounted: None, dir: tempfile::tempdir().expect("a directory") }
    }

    /// A tmpfs of `mib` MiB.
    ///
    /// # Panics
    /// When it cannot be mounted.
    #[must_use]
    pub fn tmpfs(mib: u32) -> Directory {
        Directory::mounted(&["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
    }

    /// With a file system of its own: `arguments` of `mount`.
    fn mounted(arguments: &[&str]) -> Directory {
        let mut made = Directory::plain();
        made.mounted = Some(storage::mount(arguments, made.dir.path()));
        made
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
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

/// A loop device on a file.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    _detached: Undo,
}

impl LoopDevice {
    /// Attaches one.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn on(file: &Path) -> LoopDevice {
        let (path, detached) = storage::attach(file);
        LoopDevice { path, _detached: detached }
    }

    /// The device node.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Mounts what is on it, until the guard is dropped.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn mount(&self) -> Directory {
        Directory::mounted(&[text(&self.path)])
    }

    /// Has the kernel swap to it, after everything else, until the guard is dropped.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn swapon(&self) -> Undo {
        storage::swapon(&self.path)
    }

    /// Makes every write to it fail from now on.
    ///
    /// # Panics
    /// When that fails.
    pub fn make_read_only(&self) {
        done(&["blockdev", "--setro", text(&self.path)]);
    }
}
