//! The directory of an instance: who lives there, and what they made.
//!
//! `ROOT/NAME/lock` is locked with flock(2) by the process that serves, for as long as it lives: the kernel lets go
//! of the lock when the process dies, whatever way, and a process number that was used again cannot mislead.
//! `ROOT/NAME/device` says which device is being made, and is written before it is made. The rest of the directory
//! belongs to whoever puts it there, and goes with it.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::Errno;

/// Where instances live unless told otherwise.
pub const ROOT: &str = "/run/uzswap";
const LOCK: &str = "lock";
const DEVICE: &str = "device";
/// Bytes in a name: with our prefix and the token it must fit the 63 bytes of a loop device's name.
const NAME_MAX: usize = 47;

/// Why an instance's directory could not be had or changed.
#[derive(Debug)]
pub enum StateError {
    /// Not a name an instance can have.
    Name(String),
    /// An instance of this name is alive.
    Running(String),
    /// The file system said no.
    Io(PathBuf, io::Error),
    /// The record of a dead instance is not one.
    Damaged(PathBuf),
}

impl StateError {
    /// The nearest errno.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Name(_) => Errno::INVAL,
            Self::Running(_) => Errno::BUSY,
            Self::Io(_, error) => Errno::from_io_error(error).unwrap_or(Errno::IO),
            Self::Damaged(_) => Errno::UCLEAN,
        }
    }
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => {
                write!(
                    f,
                    "{name:?}: a name has 1 to {NAME_MAX} letters, digits and -_. and does not begin with . or -"
                )
            }
            Self::Running(name) => {
                write!(f, "{name}: already running; choose another name or turn it off first")
            }
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Damaged(path) => {
                write!(
                    f,
                    "{}: not a device record; look for its loop device with losetup and remove it",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for StateError {}

/// Checks that `name` can name an instance: it becomes a directory and part of a loop device's name.
///
/// # Errors
/// [`StateError::Name`].
pub fn check_name(name: &str) -> Result<(), StateError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let good = !name.is_empty()
        && name.len() <= NAME_MAX
        && name.bytes().all(allowed)
        && !name.starts_with(['.', '-']);
    if good { Ok(()) } else { Err(StateError::Name(name.to_owned())) }
}

/// A device that is being made or in use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The device node.
    pub path: PathBuf,
    /// The name in its status that makes it ours: `uzswap:NAME:TOKEN`.
    pub token: String,
}

/// An instance's directory, locked by this process. Dropping it unlocks and leaves the files.
#[derive(Debug)]
pub struct Instance {
    name: String,
    dir: PathBuf,
    _lock: File,
}

impl Instance {
    /// Takes the directory `root/name`, making it if it is not there.
    ///
    /// # Errors
    /// [`StateError`]: a bad name, an instance that is alive, or no access.
    pub fn claim(root: &Path, name: &str) -> Result<Self, StateError> {
        check_name(name)?;
        let dir = root.join(name);
        loop {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(&dir)
                .map_err(|e| StateError::Io(dir.clone(), e))?;
            match Self::lock(&dir, true)? {
                Lock::Taken(lock) => return Ok(Self { name: name.to_owned(), dir, _lock: lock }),
                Lock::Held => return Err(StateError::Running(name.to_owned())),
                // Removed between our steps by the one who had it; make it again.
                Lock::Gone => {}
            }
        }
    }

    /// Takes a directory that is there; none when it is not, or when its owner is alive.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn claim_dead(root: &Path, name: &str) -> Result<Option<Self>, StateError> {
        check_name(name)?;
        let dir = root.join(name);
        match Self::lock(&dir, false)? {
            Lock::Taken(lock) => Ok(Some(Self { name: name.to_owned(), dir, _lock: lock })),
            Lock::Held | Lock::Gone => Ok(None),
        }
    }

    fn lock(dir: &Path, create: bool) -> Result<Lock, StateError> {
        let path = dir.join(LOCK);
        let io = |error| StateError::Io(path.clone(), error);
        let file = match OpenOptions::new().read(true).write(true).create(create).mode(0o600).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Lock::Gone),
            Err(error) => return Err(io(error)),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(Lock::Held),
            Err(errno) => return Err(io(errno.into())),
        }
        // The file may have been removed between opening and locking it; then the lock is on nothing.
        let ours = file.metadata().map_err(io)?.ino();
        match fs::metadata(&path) {
            Ok(now) if now.ino() == ours => Ok(Lock::Taken(file)),
            Ok(_) => Ok(Lock::Gone),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Lock::Gone),
            Err(error) => Err(io(error)),
        }
    }

    /// The instance's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes down the device that is about to be made, in place of any other.
    ///
    /// # Errors
    /// As for writing a file.
    pub fn record(&self, device: &Record) -> io::Result<()> {
        let new = self.dir.join("device.new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&new)?;
        writeln!(file, "{}\n{}", device.path.display(), device.token)?;
        fs::rename(new, self.dir.join(DEVICE))
    }

    /// Reads the record back; none when there is none.
    ///
    /// # Errors
    /// [`StateError::Io`], or [`StateError::Damaged`] when it is not two lines.
    pub fn recorded(&self) -> Result<Option<Record>, StateError> {
        let path = self.dir.join(DEVICE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StateError::Io(path, error)),
        };
        let mut lines = text.lines();
        match (lines.next(), lines.next(), lines.next()) {
            (Some(device), Some(token), None)
                if device.starts_with("/dev/") && token.starts_with("uzswap:") =>
            {
                Ok(Some(Record { path: device.into(), token: token.to_owned() }))
            }
            _ => Err(StateError::Damaged(path)),
        }
    }

    /// Removes the directory and all in it.
    ///
    /// # Errors
    /// [`StateError::Io`]; what could not be removed stays.
    pub fn remove(self) -> Result<(), StateError> {
        // The lock goes last and by closing, so nobody finds a directory that is half there and free.
        fs::remove_dir_all(&self.dir).map_err(|error| StateError::Io(self.dir, error))
    }
}

enum Lock {
    Taken(File),
    Held,
    Gone,
}

/// The names of all instances under `root`, dead or alive, in order.
///
/// # Errors
/// [`StateError::Io`]; a root that is not there has none.
pub fn instances(root: &Path) -> Result<Vec<String>, StateError> {
    let io = |error| StateError::Io(root.to_owned(), error);
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io)?;
        let name = entry.file_name().into_string().ok().filter(|name| check_name(name).is_ok());
        names.extend(name.filter(|_| entry.path().join(LOCK).exists()));
    }
    names.sort();
    Ok(names)
}
