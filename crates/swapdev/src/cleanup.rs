//! What a server that died left behind, and undoing it.
//!
//! The FUSE mount goes by itself, and so does a loop device nobody swaps to (autoclear). Left are a device that is
//! swapped on, and the instance's directory. The pages are lost: whoever touches one gets SIGBUS, and turning the
//! area off marks them so for good. An instance whose lock is held is alive and is never touched, nor is a loop
//! device whose name does not carry the token of the record: the number may have been used again by others.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{self, FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::Errno;
use crate::loopdev::{self, LoopError};
use crate::state::{Instance, StateError, instances};
use crate::swapoff::Swapoff;
use crate::swapon::{SwapError, area_at};

/// What was found and undone.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Undone {
    /// The instance's name.
    pub name: String,
    /// The device that was still there.
    pub device: Option<PathBuf>,
    /// Bytes that were swapped out to it, and are lost.
    pub lost_bytes: u64,
}

/// Why something is still there.
#[derive(Debug)]
pub enum CleanupError {
    /// The instance's directory.
    State(StateError),
    /// The loop device.
    Loop(LoopError),
    /// /proc/swaps could not be read.
    Swaps(io::Error),
    /// The process for swapoff could not be made.
    Helper(Errno),
    /// The area is still on. The device and the directory stay, so that it can be tried again.
    Swapoff(SwapError),
}

impl CleanupError {
    /// The nearest errno.
    pub fn errno(&self) -> Errno {
        match self {
            Self::State(error) => error.errno(),
            Self::Loop(error) => error.errno(),
            Self::Swaps(error) => Errno::from_io_error(error).unwrap_or(Errno::IO),
            Self::Helper(errno) => *errno,
            Self::Swapoff(error) => error.errno,
        }
    }
}

impl fmt::Display for CleanupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(error) => error.fmt(f),
            Self::Loop(error) => error.fmt(f),
            Self::Swaps(error) => write!(f, "/proc/swaps: {error}"),
            Self::Helper(errno) => write!(f, "swapoff: cannot start a process: {errno}"),
            Self::Swapoff(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CleanupError {}

/// The names under `root` whose server is dead.
///
/// # Errors
/// [`CleanupError::State`].
pub fn leftovers(root: &Path) -> Result<Vec<String>, CleanupError> {
    let mut dead = Vec::new();
    for name in instances(root).map_err(CleanupError::State)? {
        if Instance::claim_dead(root, &name).map_err(CleanupError::State)?.is_some() {
            dead.push(name);
        }
    }
    Ok(dead)
}

/// Undoes what the dead server of `root/name` left, its directory included; none when it is alive or not there.
/// A swapoff gets `limit`.
///
/// # Errors
/// [`CleanupError`] says what is still there; what could be undone before that is.
pub fn clean(root: &Path, name: &str, limit: Duration) -> Result<Option<Undone>, CleanupError> {
    let Some(instance) = Instance::claim_dead(root, name).map_err(CleanupError::State)? else {
        return Ok(None);
    };
    let undone = undo(&instance, limit)?;
    instance.remove().map_err(CleanupError::State)?;
    Ok(Some(undone))
}

/// As [`clean`], for a directory that the caller has taken and keeps.
///
/// # Errors
/// As [`clean`].
pub fn undo(instance: &Instance, limit: Duration) -> Result<Undone, CleanupError> {
    let mut undone = Undone { name: instance.name().to_owned(), ..Undone::default() };
    let Some(record) = instance.recorded().map_err(CleanupError::State)? else { return Ok(undone) };
    let status = loopdev::status(&record.path).map_err(CleanupError::Loop)?;
    let Some(status) = status.filter(|status| status.name == record.token.as_bytes()) else {
        return Ok(undone);
    };
    undone.device = Some(record.path.clone());
    // With the server gone the kernel has done this already, unless something holds its /dev/fuse open; then every
    // read would wait for an answer that never comes.
    abort_connection(rustix::fs::minor(status.backing_dev));
    if let Some(area) = area_at(&record.path).map_err(CleanupError::Swaps)? {
        let swapoff = Swapoff::new().map_err(CleanupError::Helper)?;
        let off = swapoff.swapoff(&record.path, Some(limit));
        off.map_err(|errno| {
            CleanupError::Swapoff(SwapError { what: "swapoff", path: record.path.clone(), errno })
        })?;
        undone.lost_bytes = area.used_bytes;
    }
    match loopdev::status(&record.path).map_err(CleanupError::Loop)? {
        Some(status) if status.name == record.token.as_bytes() => {
            loopdev::clear(&record.path).map_err(CleanupError::Loop)?;
        }
        _ => {}
    }
    Ok(undone)
}

/// Ends a FUSE connection from outside: every request in it fails from now on. The control file system need not be
/// mounted; it is reached through a mount of our own that is attached nowhere. Best effort: without it the kernel's
/// own end of the connection must do.
fn abort_connection(number: u32) {
    let abort = || -> io::Result<()> {
        let fs = mount::fsopen("fusectl", FsOpenFlags::FSOPEN_CLOEXEC)?;
        mount::fsconfig_create(&fs)?;
        let root = mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&root, format!("{number}/abort"), flags, Mode::empty())?;
        std::fs::File::from(file).write_all(b"1")
    };
    let _ = abort();
}
