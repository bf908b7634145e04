//! Which pages a program used of late: the accessed bits of its page tables, where the kernel lets us see them.
//!
//! The processor sets the bit of a page's entry when it uses the page; the kernel's own reclaim decides by it. No interface
//! of a stock kernel tells it of a page (idle page tracking and DAMON for virtual addresses are seldom built in). Where BPF
//! is allowed (CAP_BPF and CAP_PERFMON: root, on most systems) and the kernel describes itself (BTF), a small program reads the
//! tables; `/proc/PID/clear_refs` clears the bits of a whole process.
//!
//! What it trades: a read of a page table that is being taken apart gives garbage, so this is a hint for the choice of what
//! to evict and for nothing else. Clearing does not make the processor forget what it has of the tables: a page in steady use may look
//! unused until it does, which eviction itself brings about every few hundred pages. The kernel can clear the bits of single ranges
//! too (`process_madvise`, `MADV_COLD`), with a flush and a change of its own lists for each; this was not tried.
//!
//! What it can never do: change a page or the kernel's tables but for accessed bits (and what the kernel counts as referenced), or
//! stay behind when this process has ended.

mod bpf;
mod btf;

use std::io;
use std::os::unix::fs::FileExt;

use zswap::PAGE_SIZE;

use crate::table::{Page, address_of};
use bpf::{ACCESSED, FRAME, Kernel, LOOKUPS, PRESENT, Walker};

const BTF: &str = "/sys/kernel/btf/vmlinux";
const TASK_MM: btf::Member = ("task_struct", "mm");
const MM_PGD: btf::Member = ("mm_struct", "pgd");
const TASK_FROM_VPID: &str = "bpf_task_from_vpid";
const TASK_RELEASE: &str = "bpf_task_release";

/// The kernel maps physical memory somewhere at a multiple of this (x86, `kernel_randomize_memory`).
const GRAIN: u64 = 1 << 30;
/// Physical addresses may have holes of so many bytes, and as much again as there is memory.
const HOLES: u64 = 64 << 30;
/// Pages whose places are known from elsewhere, to try it out on.
const SAMPLES: usize = 8;

/// The bits of a process's pages can be seen.
pub(crate) struct Accessed {
    walker: Walker,
}

impl Accessed {
    /// Finds out how to, and tries it on this process's own pages.
    ///
    /// # Errors
    /// Not here: this user may not, or this kernel cannot, or is unlike those that are known.
    pub(crate) fn open() -> io::Result<Accessed> {
        let unlike = || io::Error::from(io::ErrorKind::Unsupported);
        if !cfg!(target_arch = "x86_64") {
            return Err(unlike());
        }
        let found = btf::find(BTF, &[TASK_MM, MM_PGD], &[TASK_FROM_VPID, TASK_RELEASE])?;
        let member = |member| found.members.get(&member).copied().ok_or_else(unlike);
        let function = |name| found.functions.get(name).copied().ok_or_else(unlike);
        for levels in [4, 5] {
            let walker = Walker::load(Kernel {
                task_from_vpid: function(TASK_FROM_VPID)?,
                task_release: function(TASK_RELEASE)?,
                mm: member(TASK_MM)?,
                pgd: member(MM_PGD)?,
                levels,
            })?;
            if is_found(&walker)? {
                return Ok(Accessed { walker });
            }
        }
        Err(unlike())
    }

    /// Calls `each` with the number of each page, by its place in the list, that was used since the bits were cleared or it came.
    pub(crate) fn used(&self, pid: u32, pages: &[Page], mut each: impl FnMut(usize)) {
        for (piece, pages) in pages.chunks(LOOKUPS).enumerate() {
            let addresses = pages.iter().map(|&page| address_of(page));
            let is_used = |entry: u64| entry & (PRESENT | ACCESSED) == PRESENT | ACCESSED;
            // Who cannot be looked at any more used nothing.
            let _ = self.walker.walk(pid, addresses, |at, entry| {
                if is_used(entry) {
                    each(piece * LOOKUPS + at);
                }
            });
        }
    }
}

/// Finds out where physical memory is mapped: there, the tables tell the same of our own pages as `/proc/self/pagemap` does.
fn is_found(walker: &Walker) -> io::Result<bool> {
    let pages = vec![[1u8; PAGE_SIZE]; SAMPLES + 1];
    let pagemap = std::fs::File::open("/proc/self/pagemap")?;
    let page_size = PAGE_SIZE as u64;
    let first = (pages.as_ptr() as u64).next_multiple_of(page_size);
    let addresses = || (0..SAMPLES as u64).map(|at| first + at * page_size);
    let mut expected = Vec::new();
    for address in addresses() {
        let mut entry = [0; 8];
        pagemap.read_exact_at(&mut entry, address / page_size * 8)?;
        // Bit 63: it is present. Bits 0 to 54 are the frame; 0: we may not know.
        let entry = u64::from_ne_bytes(entry);
        let frame = (entry & ((1 << 55) - 1)).checked_mul(page_size).filter(|_| entry >> 63 == 1);
        match frame {
            Some(0) => return Err(io::ErrorKind::PermissionDenied.into()),
            frame => expected.push(frame.unwrap_or_default()),
        }
    }
    let pid = std::process::id();
    walker.walk(pid, std::iter::empty(), |_, _| {})?;
    let root = walker.root();
    // The tables are in physical memory themselves. From the lowest place on: what a wrong try reads is of physical memory then,
    // or below its mapping, where nothing is.
    let span = 2 * rustix::system::sysinfo().totalram + HOLES;
    for below in (0..span / GRAIN).rev() {
        let Some(base) = (root & !(GRAIN - 1)).checked_sub(below * GRAIN) else { continue };
        walker.set_physical(base);
        let mut same = 0;
        walker.walk(pid, addresses(), |at, entry| {
            same += usize::from(entry & PRESENT != 0 && expected.get(at) == Some(&(entry & FRAME)));
        })?;
        if same == SAMPLES {
            drop(pages);
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGES: usize = 1000;

    /// Of the mapping that begins at `address`, in pages.
    fn referenced(address: u64) -> usize {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let rest = smaps.split_once(&format!("{address:x}-")).unwrap().1;
        let line = rest.lines().find_map(|line| line.strip_prefix("Referenced:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024 / PAGE_SIZE
    }

    #[test]
    fn what_was_used_is_seen() {
        let accessed = match Accessed::open() {
            Ok(accessed) => accessed,
            Err(error) => return undo::need::skip("what_was_used_is_seen", &error.to_string()),
        };
        let (len, rights) = (PAGES * PAGE_SIZE, libc::PROT_READ | libc::PROT_WRITE);
        // With a border on each side it is a mapping of its own, and not in large pages.
        // SAFETY: a new mapping, and changes of its rights; nobody else knows of it.
        let start = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let all = libc::mmap(std::ptr::null_mut(), len + 2 * PAGE_SIZE, libc::PROT_NONE, flags, -1, 0);
            assert_ne!(all, libc::MAP_FAILED);
            let start = all.cast::<u8>().add(PAGE_SIZE);
            assert_eq!(libc::mprotect(start.cast(), len, rights), 0);
            assert_eq!(libc::madvise(start.cast(), len, libc::MADV_NOHUGEPAGE), 0);
            start
        };
        // SAFETY: within the mapping.
        let touch = |at: usize| unsafe { start.add(at * PAGE_SIZE).write_volatile(1) };
        // The last ones are never there.
        (0..PAGES - 100).for_each(touch);
        let proc = crate::proc::Proc::open(std::process::id()).unwrap();
        let first = crate::table::page_of(start as u64);
        let pages: Vec<Page> = (first..first + PAGES as Page).collect();
        let used = || {
            let mut used = Vec::new();
            accessed.used(std::process::id(), &pages, |at| used.push(at));
            used.sort_unstable();
            used
        };
        for step in [1, 3, 7, 899] {
            assert!(!proc.is_cleared() || step > 1);
            proc.clear_accessed();
            assert!(proc.is_cleared());
            // The kernel leaves it to the processor which of its copies of the entries it still has; this drops them.
            // SAFETY: the mapping, whose rights are as before afterwards.
            unsafe {
                assert_eq!(libc::mprotect(start.cast(), len, libc::PROT_READ), 0);
                assert_eq!(libc::mprotect(start.cast(), len, rights), 0);
            }
            assert_eq!(used(), [], "no bit is set");
            let touched: Vec<usize> = (0..PAGES - 100).step_by(step).collect();
            touched.iter().copied().for_each(touch);
            assert_eq!(used(), touched);
            assert_eq!(referenced(start as u64), touched.len(), "the kernel's own count");
        }
        accessed.used(u32::MAX, &pages, |_| panic!("there is no such process"));
        // SAFETY: what was mapped above.
        unsafe { libc::munmap(start.sub(PAGE_SIZE).cast(), len + 2 * PAGE_SIZE) };
    }
}
