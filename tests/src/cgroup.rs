//! A memory cgroup of the first or the second version that limits what one program may keep in RAM.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use undo::Undo;

/// Where memory cgroups can be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Root {
    /// `memory.limit_in_bytes` and its kin, in this directory.
    V1(PathBuf),
    /// `memory.max` and its kin.
    V2(PathBuf),
}

/// The place for memory cgroups on this machine, if it has one.
#[must_use]
pub fn memory_root() -> Option<Root> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mut v2 = None;
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(path), Some(kind), Some(options)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        match kind {
            "cgroup" if options.split(',').any(|option| option == "memory") => {
                return Some(Root::V1(path.into()));
            }
            "cgroup2" => {
                let controllers =
                    fs::read_to_string(Path::new(path).join("cgroup.controllers")).unwrap_or_default();
                if controllers.split_whitespace().any(|controller| controller == "memory") {
                    v2 = Some(Root::V2(path.into()));
                }
            }
            _ => {}
        }
    }
    v2
}

/// A memory cgroup. Dropping it kills what is in it and removes it.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    limit_file: &'static str,
    _removed: Undo,
}

/// Kills the members of a cgroup and removes it; the memory of the dead is given back a little later.
const REMOVE: &str = r#"[ -d "$1" ] || exit 0; xargs -r kill -KILL < "$1/cgroup.procs"; rmdir "$1""#;

impl Cgroup {
    /// Makes a cgroup that may keep `limit` bytes in RAM and swap the rest, and sooner swaps than gives up file pages.
    ///
    /// # Errors
    /// As for writing the cgroup's files; `Unsupported` when the machine has no memory cgroups.
    pub fn new(limit: u64) -> io::Result<Cgroup> {
        let cgroup = Cgroup::plain(limit)?;
        let swappiness = cgroup.path.join("memory.swappiness");
        // Version 2 has none.
        if swappiness.exists() {
            fs::write(swappiness, "100")?;
        }
        Ok(cgroup)
    }

    /// The same with the swappiness of the group above it, which is the kernel's default where nobody has changed it.
    ///
    /// # Errors
    /// As [`Cgroup::new`].
    pub fn plain(limit: u64) -> io::Result<Cgroup> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("uzswap-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let Some(root) = memory_root() else { return Err(io::ErrorKind::Unsupported.into()) };
        let (path, limit_file) = match &root {
            Root::V1(dir) => (dir.join(name), "memory.limit_in_bytes"),
            Root::V2(dir) => {
                // Refused where a manager of cgroups has seen to it already; else the limit's own error tells.
                let _ = fs::write(dir.join("cgroup.subtree_control"), "+memory");
                (dir.join(name), "memory.max")
            }
        };
        let removed = Undo::by(&["sh", "-c", REMOVE, "sh", path.to_str().unwrap_or_default()])?;
        fs::create_dir(&path)?;
        let cgroup = Cgroup { path, limit_file, _removed: removed };
        cgroup.set_limit(limit)?;
        Ok(cgroup)
    }

    /// Lets it keep `limit` bytes in RAM from now on.
    ///
    /// # Errors
    /// As for writing the cgroup's file.
    pub fn set_limit(&self, limit: u64) -> io::Result<()> {
        fs::write(self.path.join(self.limit_file), limit.to_string())
    }

    /// The directory; a process joins by writing its number to `cgroup.procs` in it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}
