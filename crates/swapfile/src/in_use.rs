//! Whether the kernel swaps to a file: /proc/swaps, compared by identity and not by name.
//!
//! The first column of a line is the path, with space, tab, newline and backslash as three octal digits after a
//! backslash (proc(5)). An area whose path cannot be looked up any more (deleted, another mount namespace) is not
//! found; for block devices the kernel's own exclusive claim stands behind this.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{FileType, Stat, stat};

/// Whether the file or block device with this `stat` is an active swap area.
pub(crate) fn as_swap(it: &Stat) -> bool {
    // Without /proc nobody can tell.
    let Ok(swaps) = fs::read("/proc/swaps") else { return false };
    swaps
        .split(|byte| *byte == b'\n')
        .skip(1)
        .filter_map(|line| line.split(|byte| matches!(byte, b' ' | b'\t')).next())
        .filter(|path| !path.is_empty())
        .filter_map(|path| stat(OsString::from_vec(unescape(path))).ok())
        .any(|area| same(&area, it))
}

fn same(one: &Stat, other: &Stat) -> bool {
    let kind = |it: &Stat| FileType::from_raw_mode(it.st_mode);
    if kind(one) == FileType::BlockDevice && kind(other) == FileType::BlockDevice {
        return one.st_rdev == other.st_rdev;
    }
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

fn unescape(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if let (b'\\', [high @ b'0'..=b'3', middle @ b'0'..=b'7', low @ b'0'..=b'7', tail @ ..]) =
            (first, tail)
        {
            out.push((high - b'0') << 6 | (middle - b'0') << 3 | (low - b'0'));
            rest = tail;
        } else {
            out.push(*first);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::unescape;

    #[test]
    fn octal_escapes() {
        for (escaped, path) in [
            (r"/dev/loop0", "/dev/loop0"),
            (r"/a\040b\011c\012d\134e", "/a b\tc\nd\\e"),
            (r"\04", r"\04"),
            (r"\400\08", r"\400\08"),
            ("", ""),
        ] {
            assert_eq!(unescape(escaped.as_bytes()), path.as_bytes(), "{escaped}");
        }
    }
}
