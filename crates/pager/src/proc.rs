//! What `/proc` tells about a process: its mappings, its resident pages, its size.
//!
//! All of it is true for the moment it was read in; nothing that must be right rests on it. The state of a page is known
//! from faults and events, and a move is refused by the kernel if memory changed.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use linux_raw_sys::general as nr;
use linux_raw_sys::general::{pm_scan_arg, procmap_query, procmap_query_flags};
use zswap::PAGE_SIZE;

const FS_MAGIC: u32 = b'f' as u32;
/// `_IOWR('f', 16, struct pm_scan_arg)`, kernel 6.7.
const PAGEMAP_SCAN: u32 = iowr::<pm_scan_arg>(16);
/// `_IOWR('f', 17, struct procmap_query)`, kernel 6.11.
const PROCMAP_QUERY: u32 = iowr::<procmap_query>(17);

/// Resident anonymous pages but the kernel's page of zeros: what they are, and what they are not.
const PRESENT: (u32, u32) = (nr::PAGE_IS_PRESENT, nr::PAGE_IS_PFNZERO | nr::PAGE_IS_FILE);
/// Room for one that the kernel finds.
const REGION: nr::page_region = nr::page_region { start: 0, end: 0, categories: 0 };

const fn iowr<T>(number: u32) -> u32 {
    3 << 30 | (size_of::<T>() as u32) << 16 | FS_MAGIC << 8 | number
}

const _: () = assert!(size_of::<pm_scan_arg>() == 96 && size_of::<procmap_query>() == 104);

fn ioctl<T>(file: &File, request: u32, arg: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: the request is defined with this structure, which lives until the call returns; a vector it names is the
    // caller's, of the length told.
    let result =
        unsafe { libc::ioctl(file.as_raw_fd(), u64::from(request) as libc::Ioctl, std::ptr::from_mut(arg)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// For `/proc/PID/clear_refs`: the accessed bits of anonymous pages (`Documentation/filesystems/proc.rst`).
const CLEAR_ANONYMOUS: &[u8] = b"2";

/// A mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// First byte.
    pub start: u64,
    /// First byte behind.
    pub end: u64,
}

/// The open files of a process.
#[derive(Debug)]
pub struct Proc {
    pid: u32,
    pagemap: File,
    maps: File,
    statm: File,
    /// Of the memory, whatever becomes of the process's first thread.
    mem: File,
    is_cleared: AtomicBool,
    /// The same as `statm`, by another thread than the first, which may end before the others.
    other_statm: OnceLock<File>,
    /// Of [`Proc::is_only_agent`], the last time.
    was_only_agent: AtomicBool,
}

/// `arg_start` and `exit_code`: which fields of `/proc/PID/stat` they are (proc(5)).
const ARGUMENTS: usize = 48;
const STATUS: usize = 52;

/// A process's clock of all the time that it ran, in the lowest bits of the clock's number (`linux/posix-timers.h`).
const CLOCK_ALL: i32 = 2;

/// The name of the agent's thread, which is there as long as any of its process.
const AGENT: &str = "uzswap-agent";

/// Resident bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Resident {
    /// Anonymous.
    pub anonymous: u64,
    /// Of files and shared memory.
    pub shared: u64,
}

impl Proc {
    /// Opens them.
    ///
    /// # Errors
    /// The process is gone, or it may not be looked at.
    pub fn open(pid: u32) -> io::Result<Proc> {
        let first = Path::new("/proc").join(pid.to_string());
        // Where the first thread has ended, there is nothing by the process's number.
        Proc::open_in(pid, &first).or_else(|error| {
            let proc = Proc::open_in(pid, &agents(pid).ok_or(error)?)?;
            proc.other_statm();
            Ok(proc)
        })
    }

    fn open_in(pid: u32, dir: &Path) -> io::Result<Proc> {
        let open = |name| File::open(dir.join(name));
        Ok(Proc {
            pid,
            pagemap: open("pagemap")?,
            maps: open("maps")?,
            statm: open("statm")?,
            mem: open("mem")?,
            is_cleared: AtomicBool::new(false),
            other_statm: OnceLock::new(),
            was_only_agent: AtomicBool::new(false),
        })
    }

    /// Clears the accessed bits of all its anonymous pages.
    pub fn clear_accessed(&self) {
        // No descriptor is kept for it: there may be many processes, and who is short of descriptors cannot take in a fork.
        let file = File::options().write(true).open(format!("/proc/{}/clear_refs", self.pid));
        // While the process is there nobody else has its number, so the file is its.
        let file = file.ok().filter(|_| self.resident().is_some());
        let is_cleared = file.is_some_and(|file| file.write_at(CLEAR_ANONYMOUS, 0).is_ok());
        self.is_cleared.store(is_cleared, Relaxed);
    }

    /// Whether they were, the last time that it was tried: if not, a set bit means nothing.
    pub fn is_cleared(&self) -> bool {
        self.is_cleared.load(Relaxed)
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How much of it is in memory. `None`: it has none any more.
    pub fn resident(&self) -> Option<Resident> {
        resident_by(&self.statm).or_else(|| resident_by(self.other_statm()?))
    }

    /// Processor time of all its threads, the agent's included. `None`: it has ended.
    pub fn processor_time(&self) -> Option<Duration> {
        // By the number of the process the kernel makes that of its clock.
        let clock = !i32::try_from(self.pid).ok()? << 3 | CLOCK_ALL;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the structure lives until the call returns.
        let got = unsafe { libc::clock_gettime(clock, &raw mut time) };
        let (seconds, nanos) = (u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?);
        (got == 0).then(|| Duration::new(seconds, nanos))
    }

    /// By the agent's thread.
    fn other_statm(&self) -> Option<&File> {
        if self.other_statm.get().is_none() {
            let _ = self.other_statm.set(File::open(agents(self.pid)?.join("statm")).ok()?);
        }
        self.other_statm.get()
    }

    /// Whether all of its own threads have ended, one by one (`exit`, and not `exit_group`), and the agent's keeps it from being over. Asked
    /// twice: a list of threads may miss some while others end.
    pub fn is_only_agent(&self) -> bool {
        let is_only_agent = self.seems_only_agent();
        self.was_only_agent.swap(is_only_agent, Relaxed) && is_only_agent
    }

    fn seems_only_agent(&self) -> bool {
        /// The first one, which stays as a zombie until the others have ended, and the agent.
        const LEFT: usize = 2;
        let of = |name: &str| format!("/proc/{}/{name}", self.pid);
        // Only where the first thread has ended was the other's number wanted.
        self.other_statm.get().is_some()
            && std::fs::read_dir(of("task")).is_ok_and(|threads| threads.count() == LEFT)
            // The first one is over, and has no memory.
            && std::fs::read_to_string(of("statm")).is_ok_and(|text| text.starts_with("0 "))
            && agents(self.pid).is_some()
    }

    /// Where the program's arguments and its environment are.
    pub fn arguments(&self) -> Option<[Range<u64>; 2]> {
        let [start, end, environment, environment_end] = self.stat(ARGUMENTS)?;
        Some([start..end, environment..environment_end].map(|it| it.start..it.end.max(it.start)))
    }

    /// What the first thread ended with, as it told the kernel. Of the others nothing is left; without an agent it would be what the last one ended
    /// with (since Linux 5.17), which most often is the first.
    pub fn first_status(&self) -> Option<u32> {
        let [status] = self.stat(STATUS)?;
        // As wait(2) has it.
        u32::try_from(status >> 8 & 0xff).ok()
    }

    /// Fields of `/proc/PID/stat`, from one on.
    fn stat<const N: usize>(&self, first: usize) -> Option<[u64; N]> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        // The name, the second, may have spaces in it.
        let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace().skip(first - 3);
        let mut numbers = [0; N];
        for number in &mut numbers {
            *number = fields.next()?.parse().ok()?;
        }
        Some(numbers)
    }

    /// A text about its memory, which is empty by the number of a process whose first thread has ended.
    fn text(&self, name: &str) -> io::Result<String> {
        let text = std::fs::read_to_string(format!("/proc/{}/{name}", self.pid)).unwrap_or_default();
        if !text.is_empty() {
            return Ok(text);
        }
        std::fs::read_to_string(agents(self.pid).ok_or(io::ErrorKind::NotFound)?.join(name))
    }

    /// Its anonymous memory, with each page that it shares with others (since a fork) divided among them. The kernel walks
    /// all of it for that. `None`: it has none any more.
    pub fn proportional(&self) -> Option<u64> {
        let text = self.text("smaps_rollup").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss_Anon:"))?;
        Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
    }

    /// The first mapping at or behind an address that may hold pages we can move: private, anonymous, writable, of small
    /// pages. `None` at the end.
    ///
    /// # Errors
    /// ENOTTY before kernel 6.11; ESRCH when the process has ended.
    pub fn mapping_at(&self, address: u64) -> io::Result<Option<Mapping>> {
        let flags = procmap_query_flags::PROCMAP_QUERY_COVERING_OR_NEXT_VMA as u64
            | procmap_query_flags::PROCMAP_QUERY_VMA_WRITABLE as u64;
        let mut address = address;
        loop {
            // SAFETY: all zeros is a valid structure of integers.
            let mut query: procmap_query = unsafe { std::mem::zeroed() };
            query.size = size_of::<procmap_query>() as u64;
            query.query_flags = flags;
            query.query_addr = address;
            match ioctl(&self.maps, PROCMAP_QUERY, &mut query) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
                Err(error) => return Err(error),
            }
            let shared = query.vma_flags & procmap_query_flags::PROCMAP_QUERY_VMA_SHARED as u64 != 0;
            let is_file = query.inode != 0 || query.dev_major != 0 || query.dev_minor != 0;
            if !shared && !is_file && query.vma_page_size == PAGE_SIZE as u64 {
                return Ok(Some(Mapping { start: query.vma_start, end: query.vma_end }));
            }
            address = query.vma_end;
        }
    }

    /// Calls `each` with every mapping that may hold pages we can move.
    ///
    /// # Errors
    /// The process has ended.
    pub fn mappings(&self, mut each: impl FnMut(Mapping)) -> io::Result<()> {
        let mut address = 0;
        loop {
            match self.mapping_at(address) {
                Ok(Some(mapping)) => {
                    each(mapping);
                    address = mapping.end;
                }
                Ok(None) => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => {
                    return self.mappings_by_text(each);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The same from the text file, for kernels before 6.11.
    fn mappings_by_text(&self, mut each: impl FnMut(Mapping)) -> io::Result<()> {
        for line in self.text("maps")?.lines() {
            let mut fields = line.split_ascii_whitespace();
            let (Some(range), Some(rights), Some(_), Some(device)) =
                (fields.next(), fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let Some((start, end)) = range.split_once('-') else { continue };
            let parse = |text| u64::from_str_radix(text, 16).ok();
            if rights.as_bytes().get(1) == Some(&b'w')
                && rights.ends_with('p')
                && device == "00:00"
                && let (Some(start), Some(end)) = (parse(start), parse(end))
            {
                each(Mapping { start, end });
            }
        }
        Ok(())
    }

    /// Ranges that `mlock` holds in memory; they are to stay there.
    pub fn locked(&self) -> Vec<Mapping> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
        if locked.is_none_or(|text| text.trim() == "0 kB") {
            return Vec::new();
        }
        self.flagged(["lo"]).map(|[locked]| locked).unwrap_or_default()
    }

    /// Ranges that a forked child finds empty, whatever is in them here (`MADV_WIPEONFORK`), and those that it does not have
    /// (`MADV_DONTFORK`).
    ///
    /// # Errors
    /// The process has ended, or there is no descriptor left.
    pub fn not_inherited(&self) -> io::Result<[Vec<Mapping>; 2]> {
        self.flagged(["wf", "dc"])
    }

    /// Mappings with each of some flags of `smaps`, for which the kernel walks all of the memory.
    fn flagged<const N: usize>(&self, wanted: [&str; N]) -> io::Result<[Vec<Mapping>; N]> {
        let text = self.text("smaps")?;
        let mut flagged = wanted.map(|_| Vec::new());
        let mut current = None;
        for line in text.lines() {
            if let Some((start, rest)) = line.split_once('-')
                && let Ok(start) = u64::from_str_radix(start, 16)
                && let Some(Ok(end)) = rest.split(' ').next().map(|end| u64::from_str_radix(end, 16))
            {
                current = Some(Mapping { start, end });
            } else if let Some(flags) = line.strip_prefix("VmFlags:") {
                for (wanted, flagged) in wanted.iter().zip(&mut flagged) {
                    if flags.split_ascii_whitespace().any(|flag| flag == *wanted) {
                        flagged.extend(current);
                    }
                }
            }
        }
        Ok(flagged)
    }

    /// Calls `each` with the runs of resident anonymous pages in a range: address and number of pages. The kernel's page of
    /// zeros is none.
    pub fn present(&self, start: u64, end: u64, each: impl FnMut(u64, u64)) -> io::Result<()> {
        self.scan(start, end, PRESENT, each)
    }

    /// Address of the first page in a range that [`Proc::present`] would tell of.
    pub fn first_present(&self, start: u64, end: u64) -> io::Result<Option<u64>> {
        let mut first = [REGION];
        let (found, _) = self.scan_part(start, end, PRESENT, &mut first, 1)?;
        Ok(first.get(..found).and_then(<[_]>::first).map(|region| region.start))
    }

    /// Calls `each` with the runs of pages that have content of any kind: present, in the kernel's own swap, or on their
    /// way from one place in memory to another, which the kernel tells as in swap.
    pub fn mapped(&self, start: u64, end: u64, each: impl FnMut(u64, u64)) -> io::Result<()> {
        self.scan(start, end, (nr::PAGE_IS_PRESENT | nr::PAGE_IS_SWAPPED, 0), each)
    }

    /// Pages that are of any of the first categories of `which` and of none of the second.
    fn scan(
        &self,
        start: u64,
        end: u64,
        which: (u32, u32),
        mut each: impl FnMut(u64, u64),
    ) -> io::Result<()> {
        /// Found in one call, during which nobody may change the mappings.
        const MOST_PAGES: u64 = 1 << 14;
        let mut regions = [REGION; 256];
        let mut from = start;
        while from < end {
            let (found, walk_end) = self.scan_part(from, end, which, &mut regions, MOST_PAGES)?;
            for region in regions.iter().take(found) {
                each(region.start, (region.end - region.start) / PAGE_SIZE as u64);
            }
            if walk_end <= from {
                break;
            }
            from = walk_end;
        }
        Ok(())
    }

    /// The first of them, as many regions as fit and up to `most` pages: how many regions, and where that ended.
    fn scan_part(
        &self,
        start: u64,
        end: u64,
        (with, without): (u32, u32),
        regions: &mut [nr::page_region],
        most: u64,
    ) -> io::Result<(usize, u64)> {
        let mut arg = pm_scan_arg {
            size: size_of::<pm_scan_arg>() as u64,
            flags: 0,
            start,
            end,
            walk_end: 0,
            vec: regions.as_mut_ptr() as u64,
            vec_len: regions.len() as u64,
            max_pages: most,
            category_inverted: u64::from(without),
            category_mask: u64::from(without),
            category_anyof_mask: u64::from(with),
            return_mask: u64::from(with),
        };
        let found = ioctl(&self.pagemap, PAGEMAP_SCAN, &mut arg)?;
        Ok((usize::try_from(found).unwrap_or(0), arg.walk_end))
    }

    /// Reads whole pages of the process, each run behind the other, into `to`. Returns how many; stops at the first page
    /// that cannot be read. Only for pages that are present for certain: an absent one would wait for its fault.
    pub fn read_pages(&self, start: u64, to: &mut [[u8; PAGE_SIZE]]) -> usize {
        let bytes = size_of_val(to);
        let local = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: bytes };
        let remote = libc::iovec { iov_base: start as *mut libc::c_void, iov_len: bytes };
        let Ok(pid) = i32::try_from(self.pid) else { return 0 };
        // SAFETY: the local vector is `to`, exclusively borrowed; the remote one is in another process.
        let read = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
        let pages = usize::try_from(read).unwrap_or(0) / PAGE_SIZE;
        if pages == to.len() {
            return pages;
        }
        // A process whose first thread has ended has no memory by its number any more; the file has it still.
        let from = start + (pages * PAGE_SIZE) as u64;
        pages + self.read_old_pages(from, to.get_mut(pages..).unwrap_or_default())
    }

    /// [`Proc::read_pages`], all or none, from the memory that the process had when this was opened, whatever it executed since.
    pub fn read_old_pages(&self, start: u64, to: &mut [[u8; PAGE_SIZE]]) -> usize {
        if self.mem.read_exact_at(to.as_flattened_mut(), start).is_ok() { to.len() } else { 0 }
    }

    /// Its threads.
    pub fn threads(&self) -> Vec<u32> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid)).into_iter().flatten();
        threads.filter_map(|thread| thread.ok()?.file_name().to_str()?.parse().ok()).collect()
    }

    /// The CPU that a thread of it was last on.
    pub fn cpu_of(&self, thread: u32) -> Option<usize> {
        let text = std::fs::read_to_string(format!("/proc/{}/task/{thread}/stat", self.pid)).ok()?;
        // Behind the name, which may hold anything but ends at the last parenthesis: field 39, and the third is first here.
        text.rsplit_once(')')?.1.split_ascii_whitespace().nth(36)?.parse().ok()
    }
}

/// What `/proc` has of the agent's thread in a process.
fn agents(pid: u32) -> Option<PathBuf> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let is_agent = |thread: &PathBuf| {
        std::fs::read_to_string(thread.join("comm")).is_ok_and(|name| name.trim_end() == AGENT)
    };
    threads.filter_map(|it| Some(it.ok()?.path())).find(is_agent)
}

fn resident_by(statm: &File) -> Option<Resident> {
    let mut text = [0; 128];
    let len = statm.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(text.get(..len)?).ok()?;
    let mut fields = text.split(' ').skip(1).map_while(|field| field.parse::<u64>().ok());
    let (all, shared) = (fields.next()?, fields.next()?);
    let page = PAGE_SIZE as u64;
    (all > 0).then(|| Resident { anonymous: all.saturating_sub(shared) * page, shared: shared * page })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    struct Killed(Child);

    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn old_pages_are_never_those_of_what_was_executed_since() {
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo begun; read x; exec sleep 60"])
            // It lies behind the arguments, and may be longer than a page.
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        // SAFETY: one system call, on numbers. Both programs have their stack at the same place then.
        unsafe {
            command.pre_exec(|| {
                libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong);
                Ok(())
            });
        }
        let mut child = Killed(command.spawn().unwrap());
        let mut line = String::new();
        BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = child.0.id();
        let proc = Proc::open(pid).unwrap();
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let stack = maps.lines().find(|line| line.ends_with("[stack]")).unwrap();
        let end = stack.split(['-', ' ']).nth(1).unwrap();
        let last = u64::from_str_radix(end, 16).unwrap() - PAGE_SIZE as u64;
        // Its arguments are there.
        let has =
            |page: &[u8; PAGE_SIZE], words: &[u8]| page.windows(words.len()).any(|found| found == words);
        let (mut now, mut old) = ([[0; PAGE_SIZE]], [[0; PAGE_SIZE]]);
        assert_eq!(proc.read_pages(last, &mut now), 1);
        assert_eq!(proc.read_old_pages(last, &mut old), 1);
        assert!(now == old && has(&old[0], b"echo begun"));
        child.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        let begun = Instant::now();
        while std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap() != "sleep\n" {
            assert!(begun.elapsed() < Duration::from_secs(60), "it executes nothing");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(proc.read_pages(last, &mut now), 1);
        assert!(has(&now[0], b"sleep\x0060\0"), "by its number the new program is read");
        assert_eq!(proc.read_old_pages(last, &mut old), 0, "its memory is gone, and says so");
    }
}
