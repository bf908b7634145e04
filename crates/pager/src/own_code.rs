//! This process's own code: mapped no further than it is used.
//!
//! The kernel maps a file's pages in runs of 64 KiB around the one that is touched, and what a program needs to start (its
//! arguments, its linker, its checks) it never needs again. All of it counts as resident, and what is resident here is taken from the
//! programs: 2 of 4 MiB. Unmapped, it is still in the page cache, like everything that nobody uses at the moment.
//!
//! It trades a few hundred minor faults, once. What it can never do: lose anything. Only mappings of files are touched, in which
//! nothing was ever written, which can be read and cannot be written; what is there is in the file.

use std::fs;

/// A mapping, as far as it matters here.
#[derive(Default)]
struct Mapping {
    start: usize,
    end: usize,
    /// Of a file, and nobody can write to it.
    is_constant: bool,
}

/// Unmaps what may be; the next use maps it again.
pub(crate) fn unmap() {
    let Ok(text) = fs::read_to_string("/proc/self/smaps") else { return };
    for (start, end) in untouched(&text) {
        let address = std::ptr::without_provenance_mut(start);
        // SAFETY: advice for a mapping of ours that no one can write to, and in which no page is other than the file's
        // (`untouched`): whoever reads or executes it gets the same bytes from the file. Where it is gone or another by now, it was
        // a library that was unloaded, and this process unloads none.
        unsafe { libc::madvise(address, end - start, libc::MADV_DONTNEED) };
    }
}

/// The mappings of `smaps` of which every page is the file's.
fn untouched(smaps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut mapping = Mapping::default();
    for line in smaps.lines() {
        if let Some(next) = header(line) {
            mapping = next;
        } else if line.split_ascii_whitespace().eq(["Anonymous:", "0", "kB"]) && mapping.is_constant {
            found.push((mapping.start, mapping.end));
        }
    }
    found
}

/// A line that begins a mapping: addresses, rights, offset, device, inode, name.
fn header(line: &str) -> Option<Mapping> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    let rights = fields.next()?;
    let inode = fields.nth(2)?;
    let is_constant = rights.starts_with("r-") && rights.ends_with('p') && inode != "0";
    Some(Mapping { start, end, is_constant })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_the_files_is_unmapped() {
        let smaps = "\
55a0-55b0 r--p 00000000 fe:00 1 /bin/a file with spaces
Rss:                   4 kB
Anonymous:             0 kB
55b0-55c0 r-xp 00000000 fe:00 1 /bin/file
Anonymous:             4 kB
55c0-55d0 rw-p 00000000 fe:00 1 /bin/file
Anonymous:             0 kB
55d0-55e0 r--s 00000000 fe:00 1 /shared
Anonymous:             0 kB
55e0-55f0 r-xp 00000000 00:00 0 [vdso]
Anonymous:             0 kB
55f0-5600 r-xp 00000000 fe:00 1 /bin/file
AnonHugePages:         0 kB
Anonymous:             0 kB
";
        assert_eq!(untouched(smaps), [(0x55a0, 0x55b0), (0x55f0, 0x5600)]);
    }

    #[test]
    fn this_goes_on_and_has_less_mapped() {
        let files = || {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
            line.split_ascii_whitespace().next().unwrap().parse::<u64>().unwrap()
        };
        let before = files();
        assert!(!untouched(&fs::read_to_string("/proc/self/smaps").unwrap()).is_empty());
        unmap();
        assert!(files() < before);
    }
}
