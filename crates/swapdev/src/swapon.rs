//! Turning a device on as swap, and finding it in the kernel's list.
//!
//! Always with discard of freed slots (`SWAP_FLAG_DISCARD_PAGES`): a block device learns in no other way that a page
//! is not needed any more. The kernel collects freed slots and discards a cluster (512 slots on x86-64) when all of
//! it is free, so memory comes back late and in clusters. Discard of the whole area at swapon
//! (`SWAP_FLAG_DISCARD_ONCE`) is left out: our area is always new.
//!
//! `vm.page-cluster` is left alone, as it is the whole machine's. It asks for 2^N neighbours with every page that
//! comes back; with a device as fast as memory 0 is best, and [`page_cluster`] reads it so that a user can be told.

use std::ffi::CString;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::Errno;

// From <linux/swap.h>; not in libc.
const SWAP_FLAG_PREFER: libc::c_int = 0x8000;
const SWAP_FLAG_DISCARD: libc::c_int = 0x1_0000;
const SWAP_FLAG_DISCARD_PAGES: libc::c_int = 0x4_0000;

/// An area's place in the order of use: 0 to 32767, higher first; areas of the same priority share.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Priority(u16);

impl Priority {
    /// None above 32767.
    pub const fn new(priority: u16) -> Option<Self> {
        if priority <= 0x7fff { Some(Self(priority)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl Default for Priority {
    /// 100: before any area that the system turned on without a priority (those count down from -2).
    fn default() -> Self {
        Self(100)
    }
}

/// Turns the swap area on the block device `path` on.
///
/// # Errors
/// As swapon(2): `EPERM` without CAP_SYS_ADMIN, `EINVAL` for a bad header, `EBUSY` when it is on already.
pub fn swapon(path: &Path, priority: Priority) -> Result<(), Errno> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)?;
    let flags =
        SWAP_FLAG_PREFER | SWAP_FLAG_DISCARD | SWAP_FLAG_DISCARD_PAGES | libc::c_int::from(priority.0);
    // SAFETY: path is a string that ends in a zero byte.
    match unsafe { libc::swapon(path.as_ptr(), flags) } {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

/// A line of /proc/swaps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SwapArea {
    /// The file or device.
    pub path: PathBuf,
    /// Usable bytes.
    pub size_bytes: u64,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Negative when the kernel chose it.
    pub priority: i32,
}

/// Every swap area that is on.
///
/// # Errors
/// As for reading /proc/swaps; `InvalidData` when it is not what proc(5) describes.
pub fn areas() -> io::Result<Vec<SwapArea>> {
    let text = fs::read("/proc/swaps")?;
    let lines = text.split(|&byte| byte == b'\n').skip(1).filter(|line| !line.is_empty());
    lines.map(|line| area(line).ok_or(io::ErrorKind::InvalidData.into())).collect()
}

/// The area at `path`, when it is on.
///
/// # Errors
/// As [`areas`].
pub fn area_at(path: &Path) -> io::Result<Option<SwapArea>> {
    Ok(areas()?.into_iter().find(|area| area.path == path))
}

fn area(line: &[u8]) -> Option<SwapArea> {
    let mut fields = line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    let path = unescape(fields.next()?);
    let _kind = fields.next()?;
    let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse::<i64>().ok();
    let mut kib = || u64::try_from(number()?).ok()?.checked_mul(1024);
    let (size_bytes, used_bytes) = (kib()?, kib()?);
    let priority = i32::try_from(number()?).ok()?;
    Some(SwapArea { path, size_bytes, used_bytes, priority })
}

/// Undoes the kernel's `\ooo` for space, tab, newline and backslash.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok();
        match (first, tail.get(..3).and_then(octal)) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

/// `vm.page-cluster`: the kernel reads 2 to this power pages around one that is wanted.
///
/// # Errors
/// As for reading it from /proc/sys.
pub fn page_cluster() -> io::Result<u32> {
    fs::read_to_string("/proc/sys/vm/page-cluster")?.trim().parse().map_err(io::Error::other)
}

/// Why a swap area could not be turned on or off.
#[derive(Debug)]
pub struct SwapError {
    /// `swapon` or `swapoff`.
    pub what: &'static str,
    /// The device.
    pub path: PathBuf,
    /// What the kernel said.
    pub errno: Errno,
}

impl fmt::Display for SwapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, path, errno } = self;
        write!(f, "{what} {}: {errno}", path.display())?;
        match *errno {
            Errno::PERM => f.write_str("; run as root"),
            Errno::NOMEM => f.write_str("; what is swapped out does not fit in memory: end a program or raise its cgroup's limit, then try again"),
            Errno::INTR => f.write_str("; it was stopped (the OOM killer may have done so): it is still on, try again"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for SwapError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_swaps_are_read() {
        let line = b"/mnt/a\\040b\\134c    file\t\t1048572\t\t256\t\t-2";
        let want = SwapArea {
            path: "/mnt/a b\\c".into(),
            size_bytes: 1_073_737_728,
            used_bytes: 262_144,
            priority: -2,
        };
        assert_eq!(area(line), Some(want));
        assert_eq!(area(b"/dev/loop0 partition 12"), None);
        assert_eq!(area(b"/dev/loop0 partition -1 0 3"), None);
    }
}
