//! This process's own code: mapped no further than it is used.
//!
//! The kernel maps a file's pages in runs of 64 KiB around the one that is touched, and what a program needs to start (its
//! arguments, its linker, its checks) it never needs again, nor most of what lies around what it needs. All of it counts as resident, and
//! what is resident here is taken from the programs: 2.6 of 3.6 MiB (2026-11-23). Unmapped, it is still in the page cache, like
//! everything that nobody uses at the moment.
//!
//! There is no other way to tell the kernel to map page by page than a userfaultfd. Where there is none to be had, the runs come back,
//! without those that are not needed any more.
//!
//! It trades a few hundred minor faults, once, and a descriptor. What it can never do: lose anything. Only segments are touched that
//! the linker made without the right to be written, so that what is there is what is in the file; where addresses had to be filled
//! in, that is not so.

use std::ffi::{CStr, c_int, c_void};
use std::sync::OnceLock;

use crate::uffd::Uffd;

/// The kernel's own, which is no file.
const VDSO: &CStr = c"linux-vdso.so.1";

/// Unmaps what may be; the next use of a page maps it again.
pub(crate) fn unmap() {
    // SAFETY: the callback has the type that is asked for, and uses nothing of ours.
    unsafe { libc::dl_iterate_phdr(Some(unmap_object), std::ptr::null_mut()) };
}

/// Held until the end of the process.
fn singly() -> Option<&'static Uffd> {
    static SINGLY: OnceLock<Option<Uffd>> = OnceLock::new();
    SINGLY.get_or_init(|| Uffd::silent().ok()).as_ref()
}

/// Unmaps the constant segments of the program or of a library. It is loaded while this runs: the linker's lock is held.
unsafe extern "C" fn unmap_object(object: *mut libc::dl_phdr_info, _: usize, _: *mut c_void) -> c_int {
    // SAFETY: the linker passes a description that is valid until this returns.
    let object = unsafe { &*object };
    // SAFETY: its name is a C string, or null.
    let is_vdso = !object.dlpi_name.is_null() && unsafe { CStr::from_ptr(object.dlpi_name) } == VDSO;
    if is_vdso || object.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: there are so many headers at that place.
    let segments = unsafe { std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()) };
    for segment in segments {
        if let Some((start, len)) = constant(object.dlpi_addr, segment) {
            let _ = singly().map(|uffd| uffd.map_singly(start as u64, (start + len) as u64));
            // SAFETY: advice for a whole segment that is loaded, and that nobody could write to (`constant`): whoever reads or
            // executes it gets the same bytes from the file. The linker writes to such segments only for code that is not
            // position-independent, which nothing is that this is linked with: a test
            // finds no page of code that differs from its file.
            unsafe { libc::madvise(std::ptr::without_provenance_mut(start), len, libc::MADV_DONTNEED) };
        }
    }
    0
}

/// The pages of a segment that is loaded and has no right to be written: where they start, and how many bytes they are.
fn constant(base: libc::Elf64_Addr, segment: &libc::Elf64_Phdr) -> Option<(usize, usize)> {
    if segment.p_type != libc::PT_LOAD || segment.p_flags & libc::PF_W != 0 {
        return None;
    }
    let page = zswap::PAGE_SIZE;
    let start = usize::try_from(base.checked_add(segment.p_vaddr)?).ok()?;
    let end = start.checked_add(usize::try_from(segment.p_filesz).ok()?)?.next_multiple_of(page);
    let start = start / page * page;
    Some((start, end - start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::fs;
    use std::os::fd::AsRawFd;

    /// Kilobytes of each mapping of a file that cannot be written: resident, and other than the file's.
    fn constants() -> HashMap<String, (u64, u64)> {
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let mut found = HashMap::new();
        let mut range = String::new();
        for line in smaps.lines() {
            let fields: Vec<_> = line.split_ascii_whitespace().collect();
            match fields[..] {
                [at, rights, _, _, inode, ..] if at.contains('-') && !line.contains(": ") => {
                    let is_constant = rights == "r-xp" && inode != "0";
                    range = if is_constant { at.to_owned() } else { String::new() };
                }
                ["Rss:", number, "kB"] if !range.is_empty() => {
                    found.entry(range.clone()).or_insert((0, 0)).0 = number.parse().unwrap();
                }
                ["Anonymous:" | "Swap:", number, "kB"] if !range.is_empty() => {
                    found.entry(range.clone()).or_insert((0, 0)).1 += number.parse::<u64>().unwrap();
                }
                _ => {}
            }
        }
        found
    }

    #[test]
    fn this_goes_on_and_has_less_mapped() {
        let before = constants();
        assert!(before.values().all(|(_, changed)| *changed == 0), "code that was written to: {before:?}");
        unmap();
        let after = constants();
        let resident =
            |all: &HashMap<String, (u64, u64)>| all.values().map(|(resident, _)| resident).sum::<u64>();
        assert!(!before.is_empty() && resident(&after) < resident(&before), "{before:?} {after:?}");
    }

    #[test]
    fn a_page_that_is_touched_comes_alone() {
        const PAGES: usize = 64;
        let Some(singly) = singly() else {
            let why = Uffd::silent().expect_err("there was none");
            assert!(
                std::env::var_os("CI").is_none(),
                "SKIP a_page_that_is_touched_comes_alone: userfaultfd: {why}"
            );
            return println!("SKIP a_page_that_is_touched_comes_alone: userfaultfd: {why}");
        };
        let file = fs::File::open("/proc/self/exe").unwrap();
        let len = PAGES * zswap::PAGE_SIZE;
        // SAFETY: a new mapping.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
        };
        assert_ne!(at, libc::MAP_FAILED);
        let own = crate::proc::Proc::open(std::process::id()).unwrap();
        let start = at as u64;
        let mapped_after = |page: usize| {
            // SAFETY: a byte of the mapping.
            let byte = unsafe { at.cast::<u8>().add(page * zswap::PAGE_SIZE).read_volatile() };
            let mut mapped = 0;
            own.mapped(start, start + len as u64, |_, pages| mapped += pages).unwrap();
            (byte, mapped)
        };
        let (first, with_others) = mapped_after(0);
        assert_eq!(first, 0x7f, "an ELF file");
        assert!(with_others > 1, "the kernel maps pages around it");
        // SAFETY: what is there is the file's.
        assert_eq!(unsafe { libc::madvise(at, len, libc::MADV_DONTNEED) }, 0);
        singly.map_singly(start, start + len as u64).unwrap();
        assert_eq!(mapped_after(0), (first, 1));
        assert_eq!(mapped_after(5).1, 2);
        assert_eq!(mapped_after(6).1, 3);
        // SAFETY: the mapping made above, which nobody uses any more.
        unsafe { libc::munmap(at, len) };
    }

    #[test]
    fn what_can_be_written_is_left_alone() {
        let segment = |p_type, p_flags| libc::Elf64_Phdr {
            p_type,
            p_flags,
            p_offset: 0,
            p_vaddr: 0x1234,
            p_paddr: 0,
            p_filesz: 0x2000,
            p_memsz: 0x2000,
            p_align: 0x1000,
        };
        let base = 0x10_0000;
        assert_eq!(
            constant(base, &segment(libc::PT_LOAD, libc::PF_R | libc::PF_X)),
            Some((0x10_1000, 0x3000))
        );
        assert_eq!(constant(base, &segment(libc::PT_LOAD, libc::PF_R | libc::PF_W)), None);
        assert_eq!(constant(base, &segment(libc::PT_DYNAMIC, libc::PF_R)), None);
        assert_eq!(constant(u64::MAX, &segment(libc::PT_LOAD, libc::PF_R)), None);
    }
}
