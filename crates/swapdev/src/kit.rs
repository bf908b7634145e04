//! The deadlock kit: what keeps a process that the kernel swaps to from waiting for that swap.
//!
//! | measure | the failure it prevents |
//! | --- | --- |
//! | `mlockall` | a page of the server itself is swapped out, and only the server could bring it back |
//! | mapped files read in beforehand | code that runs for the first time under pressure waits for the disk and for memory |
//! | `PR_SET_IO_FLUSHER` in serving threads | an allocation in a serving thread enters reclaim, which waits for a swap write that this thread should serve; and the writer is throttled behind its own dirty pages |
//! | `oom_score_adj` -1000 | the OOM killer takes the server, and with it every page it holds |
//! | malloc keeps what it has | a free gives memory back, and the next allocation must wait for the kernel again |
//! | stacks touched | a deep call on a serving thread needs a new stack page just when there is none |
//!
//! Engage it in the process that serves (a fork loses the locks) and before the first page comes. It cannot help
//! against memory that drivers or the kernel allocate for us.

use std::fmt;
use std::fs;
use std::hint::black_box;
use std::io;

use rustix::mm::{Advice, MlockAllFlags};

use crate::Errno;

/// `PF_MEMALLOC_NOIO` and `PF_LOCAL_THROTTLE` in a task's flags: what `PR_SET_IO_FLUSHER` sets.
const IO_FLUSHER_FLAGS: u64 = 0x0008_0000 | 0x0010_0000;
/// Bytes of a serving thread's stack to have there; the deepest path uses a few pages.
const STACK: usize = 256 << 10;

/// Which part of the kit could not be engaged.
#[derive(Debug)]
pub enum KitError {
    /// `mlockall`.
    Lock(Errno),
    /// Writing `oom_score_adj`.
    OomScore(Errno),
    /// `PR_SET_IO_FLUSHER`.
    IoFlusher(Errno),
    /// Reading the state back from /proc.
    Proc(io::Error),
}

impl KitError {
    /// The nearest errno.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Lock(errno) | Self::OomScore(errno) | Self::IoFlusher(errno) => *errno,
            Self::Proc(error) => Errno::from_io_error(error).unwrap_or(Errno::IO),
        }
    }
}

impl fmt::Display for KitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lock(errno) => write!(f, "mlockall: {errno}; needs CAP_IPC_LOCK, or LimitMEMLOCK=infinity"),
            Self::OomScore(errno) => write!(f, "oom_score_adj -1000: {errno}; needs CAP_SYS_RESOURCE"),
            Self::IoFlusher(Errno::INVAL) => f.write_str("PR_SET_IO_FLUSHER: needs Linux 5.6 or newer"),
            Self::IoFlusher(errno) => write!(f, "PR_SET_IO_FLUSHER: {errno}; needs CAP_SYS_RESOURCE"),
            Self::Proc(error) => write!(f, "/proc/self: {error}"),
        }
    }
}

impl std::error::Error for KitError {}

/// Engages everything that holds for the whole process, and what threads inherit. Returns the parts that a missing
/// capability keeps from being engaged: the server works without them, and can hang or be killed when the whole machine
/// is out of memory, so the user is to be told.
///
/// # Errors
/// The first part that fails for another reason; the ones before it stay.
pub fn engage() -> Result<Vec<KitError>, KitError> {
    tune_malloc();
    // ONFAULT: pages are locked as they come. Without it every reservation, however large, would be filled at once.
    rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
        .map_err(KitError::Lock)?;
    read_in_files().map_err(KitError::Proc)?;
    let oom_score = fs::write("/proc/self/oom_score_adj", "-1000")
        .map_err(|error| KitError::OomScore(Errno::from_io_error(&error).unwrap_or(Errno::IO)));
    let mut missing = Vec::new();
    for part in [oom_score, engage_thread()] {
        match part {
            Ok(()) => {}
            Err(error) if matches!(error.errno(), Errno::PERM | Errno::ACCESS) => missing.push(error),
            Err(error) => return Err(error),
        }
    }
    Ok(missing)
}

/// Engages what holds for the calling thread, and for threads it starts from now on.
///
/// # Errors
/// [`KitError::IoFlusher`].
pub fn engage_thread() -> Result<(), KitError> {
    rustix::process::configure_io_flusher_behavior(true).map_err(KitError::IoFlusher)
}

/// Makes sure that the next 256 KiB of the calling thread's stack are there.
#[inline(never)]
pub fn touch_stack() {
    let mut stack = [0_u8; STACK];
    for byte in stack.iter_mut().step_by(4096) {
        *byte = 1;
    }
    black_box(&stack);
}

#[cfg(target_env = "gnu")]
fn tune_malloc() {
    // SAFETY: mallopt only sets numbers, under malloc's own lock.
    unsafe {
        // One heap for all threads instead of one each that can run dry alone.
        libc::mallopt(libc::M_ARENA_MAX, 1);
        // Freed memory stays with us.
        libc::mallopt(libc::M_TRIM_THRESHOLD, 256 << 20);
        // Blocks of up to 1 MiB come from the heap and are used again, instead of a new mapping each.
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
    }
}

/// Other C libraries have nothing to tune here.
#[cfg(not(target_env = "gnu"))]
fn tune_malloc() {}

/// Brings the pages of all mapped files (program and libraries) into memory, where the lock keeps them.
fn read_in_files() -> io::Result<()> {
    for line in fs::read_to_string("/proc/self/maps")?.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (Some(range), Some(access), Some(path)) = (fields.next(), fields.next(), fields.nth(3)) else {
            continue;
        };
        let Some((start, end)) = range.split_once('-') else { continue };
        let (Ok(start), Ok(end)) = (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16)) else {
            continue;
        };
        if path.starts_with('/') && access.starts_with('r') && access.ends_with('p') {
            let start: *mut libc::c_void = std::ptr::with_exposed_provenance_mut(start);
            // SAFETY: populating for reading changes no content, and no mapping of a program file goes away here.
            let populated =
                unsafe { rustix::mm::madvise(start, end - start.addr(), Advice::LinuxPopulateRead) };
            match populated {
                // Before 5.14 there is no such advice: the pages then come as they are used, and stay.
                Ok(()) | Err(Errno::INVAL) => {}
                // A file shorter than its mapping; those pages can never be used.
                Err(Errno::FAULT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    Ok(())
}

/// A thread of this process, and whether it is safe to serve from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Thread {
    /// Its name.
    pub name: String,
    /// Whether the kernel has it as an I/O flusher.
    pub io_flusher: bool,
}

/// What is engaged, read back from the kernel.
#[derive(Debug)]
pub struct Report {
    /// Bytes mapped but not locked, without the kernel's own special mappings.
    pub unlocked_bytes: u64,
    /// The process's adjustment; -1000 is never killed.
    pub oom_score_adj: i32,
    /// Every thread of the process.
    pub threads: Vec<Thread>,
}

/// Reads the state of the kit back from the kernel.
///
/// # Errors
/// [`KitError::Proc`].
pub fn report() -> Result<Report, KitError> {
    read_report().map_err(KitError::Proc)
}

fn read_report() -> io::Result<Report> {
    let unlocked_bytes = unlocked_bytes(&fs::read_to_string("/proc/self/smaps")?);
    let oom_score_adj =
        fs::read_to_string("/proc/self/oom_score_adj")?.trim().parse().map_err(io::Error::other)?;
    let mut threads = Vec::new();
    for task in fs::read_dir("/proc/self/task")? {
        // A thread may end between the two reads.
        let Ok(stat) = fs::read_to_string(task?.path().join("stat")) else { continue };
        threads.extend(thread(&stat));
    }
    Ok(Report { unlocked_bytes, oom_score_adj, threads })
}

/// Reads a line of /proc/PID/task/TID/stat: number, (name), state, and the flags as the sixth field after that.
fn thread(stat: &str) -> Option<Thread> {
    let (head, tail) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let flags: u64 = tail.split_ascii_whitespace().nth(6)?.parse().ok()?;
    Some(Thread { name: name.to_owned(), io_flusher: flags & IO_FLUSHER_FLAGS == IO_FLUSHER_FLAGS })
}

/// Adds up the mappings in /proc/PID/smaps that the kernel neither locks ("lo") nor manages itself ("pf", "io").
fn unlocked_bytes(smaps: &str) -> u64 {
    let (mut total, mut size) = (0, 0);
    for line in smaps.lines() {
        if let Some(kib) = line.strip_prefix("Size:") {
            size = kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10;
        } else if let Some(flags) = line.strip_prefix("VmFlags:") {
            let special = |flag| matches!(flag, "lo" | "pf" | "io" | "de");
            if !flags.split_ascii_whitespace().any(special) {
                total += size;
            }
        }
    }
    total
}
