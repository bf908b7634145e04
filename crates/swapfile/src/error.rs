//! What can go wrong on a device, and on the way to one.

use std::fmt;

use rustix::io::Errno;

/// Why a device call failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DeviceError {
    /// The pages asked for are not all on the device (EINVAL). The device was not asked.
    OutOfRange,
    /// The device answered with this errno. Of pages that were to be written, any may hold old or new content.
    Io(i32),
    /// An earlier call failed with this errno; the device is not asked any more (EIO).
    Latched(i32),
}

impl DeviceError {
    /// The errno for whoever asked.
    pub fn errno(self) -> i32 {
        match self {
            DeviceError::OutOfRange => libc::EINVAL,
            DeviceError::Io(errno) => errno,
            DeviceError::Latched(_) => libc::EIO,
        }
    }
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            DeviceError::OutOfRange => f.write_str("beyond the end of the device"),
            DeviceError::Io(errno) => write!(f, "{}", Reason(errno)),
            DeviceError::Latched(errno) => write!(f, "the device failed before: {}", Reason(errno)),
        }
    }
}

impl std::error::Error for DeviceError {}

impl From<Errno> for DeviceError {
    fn from(errno: Errno) -> DeviceError {
        DeviceError::Io(errno.raw_os_error())
    }
}

/// Why a file or block device cannot serve as a backing device. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// There is nothing of this name (ENOENT).
    Missing,
    /// A new file was asked for and the name is taken (EEXIST).
    Exists,
    /// The name of a new file is a symbolic link (ELOOP).
    Symlink,
    /// A directory (EISDIR).
    Directory,
    /// Neither a regular file nor a block device (EINVAL).
    NotStorage,
    /// It cannot be opened for reading and writing; the errno says why (EROFS, EACCES, EPERM).
    NotWritable(i32),
    /// It has no whole page (EINVAL).
    Empty,
    /// It has fewer pages than are needed (ENOSPC).
    TooSmall {
        /// Whole pages that it has.
        pages: u64,
        /// Pages that it needs.
        needed: u64,
    },
    /// More pages than a file can have (EFBIG).
    TooBig,
    /// The kernel swaps to it (EBUSY).
    InUseAsSwap,
    /// Another uzswap uses it (EBUSY).
    Locked,
    /// A block device that somebody else has claimed: it is mounted, or part of another device (EBUSY).
    Busy,
    /// The system answered with this errno.
    Io(i32),
}

impl OpenError {
    /// The errno for whoever asked.
    pub fn errno(self) -> i32 {
        match self {
            OpenError::Missing => libc::ENOENT,
            OpenError::Exists => libc::EEXIST,
            OpenError::Symlink => libc::ELOOP,
            OpenError::Directory => libc::EISDIR,
            OpenError::NotStorage | OpenError::Empty => libc::EINVAL,
            OpenError::TooSmall { .. } => libc::ENOSPC,
            OpenError::TooBig => libc::EFBIG,
            OpenError::InUseAsSwap | OpenError::Locked | OpenError::Busy => libc::EBUSY,
            OpenError::NotWritable(errno) | OpenError::Io(errno) => errno,
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            OpenError::Missing => f.write_str("no such file or block device"),
            OpenError::Exists => f.write_str("exists already"),
            OpenError::Symlink => f.write_str("is a symbolic link"),
            OpenError::Directory => f.write_str("is a directory"),
            OpenError::NotStorage => f.write_str("is neither a regular file nor a block device"),
            OpenError::NotWritable(errno) => write!(f, "cannot be written: {}", Reason(errno)),
            OpenError::Empty => f.write_str("holds not even one page of 4096 bytes"),
            OpenError::TooSmall { pages, needed } => {
                write!(f, "too small: holds {pages} pages of 4096 bytes, {needed} are needed")
            }
            OpenError::TooBig => f.write_str("more pages than a file can have"),
            OpenError::InUseAsSwap => f.write_str("in use as swap (see /proc/swaps)"),
            OpenError::Locked => f.write_str("in use by another uzswap"),
            OpenError::Busy => f.write_str("in use: mounted, or part of another device"),
            OpenError::Io(errno) => write!(f, "{}", Reason(errno)),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<Errno> for OpenError {
    fn from(errno: Errno) -> OpenError {
        OpenError::Io(errno.raw_os_error())
    }
}

/// An errno in words.
struct Reason(i32);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::io::Error::from_raw_os_error(self.0).fmt(f)
    }
}
