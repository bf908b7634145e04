//! The control block: a file of one layout, mapped by the server for writing and by others for reading.
//!
//! ```text
//! magic and layout (8 + 8 bytes) | sequence | facts, 256 bytes of text each | counters | own counters, with their names
//! ```
//!
//! Counters are the engine's own atomics, placed here. What else an instance counts is its own affair: it writes numbers
//! beside their names, so that this layout does not follow from who counts what. Facts are short texts (parameters, device, profile): a writer makes
//! the sequence number odd, writes, and makes it even again; a reader that saw it change reads again. Whatever a reader
//! finds in the file, it takes for data: a file of another layout is refused, and text is never trusted to be UTF-8.
//!
//! The writer holds a lock on the file for as long as it lives, however it ends. A reader only asks whether there is a lock,
//! which needs no permission and disturbs nobody: the numbers of a dead server still look like those of a live one.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::mm::{MapFlags, ProtFlags};
use zswap::{Param, Stats, StatsBlock};

const MAGIC: u64 = u64::from_le_bytes(*b"uzswap\x00\x01");
const FACT_BYTES: usize = 256;
/// Facts beside the parameters.
const PLAIN_FACTS: usize = 6;
/// Own counters, and the bytes of a name: more than the pager needs, which a test of the command holds it to.
const OWN: usize = 32;
const OWN_NAME_BYTES: usize = 24;

/// A text in the block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fact {
    /// The profile's name.
    Profile,
    /// The block device.
    Device,
    /// The transport behind it.
    Via,
    /// The backing file or device; empty without one.
    Backing,
    /// Slots of the swap device, in pages.
    Pages,
    /// Whether accessed bits are seen, where pages are chosen by them.
    AccessedBits,
    /// A parameter as its file shows it; empty where the profile has none.
    Param(Param),
}

impl Fact {
    fn index(self) -> usize {
        match self {
            Fact::Profile => 0,
            Fact::Device => 1,
            Fact::Via => 2,
            Fact::Backing => 3,
            Fact::Pages => 4,
            Fact::AccessedBits => 5,
            Fact::Param(param) => {
                PLAIN_FACTS + Param::ALL.iter().position(|it| *it == param).unwrap_or(Param::ALL.len())
            }
        }
    }

    fn count() -> usize {
        PLAIN_FACTS + Param::ALL.len() + 1
    }
}

#[repr(C, align(128))]
struct Head {
    magic: AtomicU64,
    /// Bytes of the whole block: another build with other counters has another size.
    bytes: AtomicU64,
    sequence: AtomicU32,
}

/// A counter of the instance's own; without a name there is none.
#[repr(C)]
struct Own {
    name: [AtomicU8; OWN_NAME_BYTES],
    value: AtomicU64,
}

/// Why a block cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum BlockError {
    /// The file, or the mapping.
    Io(io::Error),
    /// The file is not a control block of this version.
    Layout,
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlockError::Io(error) => error.fmt(f),
            BlockError::Layout => f.write_str("not a control block of this version of uzswap"),
        }
    }
}

impl std::error::Error for BlockError {}

impl From<io::Error> for BlockError {
    fn from(error: io::Error) -> Self {
        BlockError::Io(error)
    }
}

/// The layout, in mapped memory.
struct Mapped {
    base: NonNull<u8>,
}

// SAFETY: everything in the mapping is an atomic.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    fn facts_at() -> usize {
        size_of::<Head>()
    }

    fn stats_at() -> usize {
        (Self::facts_at() + Fact::count() * FACT_BYTES).next_multiple_of(align_of::<Stats>())
    }

    fn own_at() -> usize {
        (Self::stats_at() + size_of::<Stats>()).next_multiple_of(align_of::<Own>())
    }

    fn bytes() -> usize {
        Self::own_at() + OWN * size_of::<Own>()
    }

    fn map(file: &File, protection: ProtFlags) -> io::Result<Mapped> {
        if file.metadata()?.len() != Self::bytes() as u64 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // SAFETY: a new mapping at an address of the kernel's choosing; the file has the length mapped, checked above.
        let base = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), Self::bytes(), protection, MapFlags::SHARED, file, 0)?
        };
        NonNull::new(base.cast()).map(|base| Mapped { base }).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn head(&self) -> &Head {
        // SAFETY: the mapping is page-aligned, starts with a Head, lives as long as self, and any bytes are a valid Head.
        unsafe { self.base.cast::<Head>().as_ref() }
    }

    fn fact(&self, fact: Fact) -> &[AtomicU8] {
        let at = Self::facts_at() + fact.index() * FACT_BYTES;
        // SAFETY: index() is below count(), so the range lies in the mapping, and any bytes are valid AtomicU8s.
        unsafe { std::slice::from_raw_parts(self.base.add(at).cast().as_ptr(), FACT_BYTES) }
    }

    fn stats(&self) -> &Stats {
        // SAFETY: stats_at() is aligned for Stats and the mapping is long enough; any bytes are valid atomics.
        unsafe { self.base.add(Self::stats_at()).cast::<Stats>().as_ref() }
    }

    fn own(&self) -> &[Own; OWN] {
        // SAFETY: own_at() is aligned for Own and the mapping ends behind OWN of them; any bytes are valid atomics.
        unsafe { self.base.add(Self::own_at()).cast::<[Own; OWN]>().as_ref() }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this length and ends with its owner.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), Self::bytes()) };
    }
}

/// A lock on all of a file. It belongs to the open file and not to the process, so that closing another descriptor of the
/// same file does not let go of it.
fn whole_file() -> libc::flock {
    // SAFETY: a flock is plain numbers; length 0 is all of the file, and these locks want 0 for the process.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = WRITE;
    lock
}

/// `F_WRLCK` and `F_UNLCK`, in the width that they have in a lock.
#[expect(clippy::cast_possible_truncation, reason = "1 and 2")]
const WRITE: libc::c_short = libc::F_WRLCK as libc::c_short;
#[expect(clippy::cast_possible_truncation, reason = "1 and 2")]
const UNLOCKED: libc::c_short = libc::F_UNLCK as libc::c_short;

fn lock(file: &File) -> io::Result<()> {
    let lock = whole_file();
    // SAFETY: the request reads one flock, which lives across the call.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn is_locked(file: &File) -> io::Result<bool> {
    let mut lock = whole_file();
    // SAFETY: the request reads and writes one flock, which lives across the call.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) } {
        0 => Ok(lock.l_type != UNLOCKED),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The server's side of a block.
pub struct Writer {
    mapped: Mapped,
    file: File,
    writing: Mutex<()>,
}

impl Writer {
    /// Makes a block in the file system of `dir`, without a name yet: nobody finds one of an instance that never came up.
    ///
    /// # Errors
    /// As for making a file of some 20 KiB.
    pub fn new(dir: &Path) -> io::Result<Writer> {
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
        let file: File =
            rustix::fs::open(dir, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode)?.into();
        file.set_len(Mapped::bytes() as u64)?;
        lock(&file)?;
        let mapped = Mapped::map(&file, ProtFlags::READ | ProtFlags::WRITE)?;
        mapped.head().bytes.store(Mapped::bytes() as u64, Ordering::Relaxed);
        mapped.head().magic.store(MAGIC, Ordering::Release);
        Ok(Writer { mapped, file, writing: Mutex::new(()) })
    }

    /// Gives the block its name, in the file system it was made in. An older file of that name goes.
    ///
    /// # Errors
    /// As for linking a file.
    pub fn publish(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let unnamed = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        Ok(rustix::fs::linkat(CWD, unnamed, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
    }

    /// Sets facts, all of them at once for a reader. A text is cut at 256 bytes.
    pub fn set(&self, facts: &[(Fact, &str)]) {
        // A panic under this lock is impossible, so poison means nothing.
        let _one = self.writing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let sequence = &self.mapped.head().sequence;
        sequence.fetch_add(1, Ordering::AcqRel);
        for (fact, text) in facts {
            let bytes = text.bytes().chain(std::iter::repeat(0));
            for (cell, byte) in self.mapped.fact(*fact).iter().zip(bytes) {
                cell.store(byte, Ordering::Relaxed);
            }
        }
        sequence.fetch_add(1, Ordering::AcqRel);
    }

    /// Sets the instance's own counters: the same names in the same order each time, and for the first time before
    /// anybody can find the block. A name is cut at 24 bytes, and there is room for 32.
    pub fn set_own<'a>(&self, counters: impl IntoIterator<Item = (&'a str, u64)>) {
        for (own, (name, value)) in self.mapped.own().iter().zip(counters) {
            for (cell, byte) in own.name.iter().zip(name.bytes()) {
                cell.store(byte, Ordering::Relaxed);
            }
            own.value.store(value, Ordering::Relaxed);
        }
    }
}

impl StatsBlock for Writer {
    fn stats(&self) -> &Stats {
        self.mapped.stats()
    }
}

/// Anybody's view of an instance.
pub struct Block {
    mapped: Mapped,
    file: File,
}

impl Block {
    /// Opens the block of an instance.
    ///
    /// # Errors
    /// [`BlockError`].
    pub fn open(path: &Path) -> Result<Block, BlockError> {
        let file = File::open(path)?;
        if file.metadata()?.len() != Mapped::bytes() as u64 {
            return Err(BlockError::Layout);
        }
        let mapped = Mapped::map(&file, ProtFlags::READ)?;
        let head = mapped.head();
        let ours = head.magic.load(Ordering::Acquire) == MAGIC
            && head.bytes.load(Ordering::Relaxed) == Mapped::bytes() as u64;
        if ours { Ok(Block { mapped, file }) } else { Err(BlockError::Layout) }
    }

    /// Whether the writer lives.
    ///
    /// # Errors
    /// As for asking for a lock.
    pub fn is_alive(&self) -> io::Result<bool> {
        is_locked(&self.file)
    }

    /// The counters. Gauges are at most about a second old.
    pub fn stats(&self) -> &Stats {
        self.mapped.stats()
    }

    /// The instance's own counters by their names; a fraction of a second old.
    pub fn own(&self) -> Vec<(String, u64)> {
        let text = |own: &Own| {
            let bytes = own.name.iter().map(|cell| cell.load(Ordering::Relaxed));
            let bytes: Vec<_> = bytes.take_while(|byte| *byte != 0).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let all = self.mapped.own().iter().map(|own| (text(own), own.value.load(Ordering::Relaxed)));
        all.filter(|(name, _)| !name.is_empty()).collect()
    }

    /// A fact; empty where the instance has none.
    pub fn fact(&self, fact: Fact) -> String {
        /// A writer is done in microseconds; one that died in the middle must not hold readers for ever.
        const LIMIT: Duration = Duration::from_millis(250);
        let mut bytes = [0; FACT_BYTES];
        let begun = Instant::now();
        while begun.elapsed() < LIMIT {
            let before = self.mapped.head().sequence.load(Ordering::Acquire);
            for (byte, cell) in bytes.iter_mut().zip(self.mapped.fact(fact)) {
                *byte = cell.load(Ordering::Relaxed);
            }
            std::sync::atomic::fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.mapped.head().sequence.load(Ordering::Relaxed) == before {
                break;
            }
            std::thread::yield_now();
        }
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_by_name_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control");
        let writer = Writer::new(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        writer.set(&[(Fact::Device, "/dev/loop7"), (Fact::Param(Param::Tree), "radix")]);
        writer.publish(&path).unwrap();
        let block = Block::open(&path).unwrap();
        assert_eq!(block.fact(Fact::Device), "/dev/loop7");
        assert_eq!(block.fact(Fact::Param(Param::Tree)), "radix");
        assert_eq!(block.fact(Fact::Backing), "");
        writer.set(&[(Fact::Device, &"x".repeat(1000))]);
        assert_eq!(block.fact(Fact::Device).len(), FACT_BYTES);
        assert_eq!(block.fact(Fact::Param(Param::Tree)), "radix", "a long text stays in its place");
    }

    #[test]
    fn own_counters_have_the_names_they_were_given() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control");
        let writer = Writer::new(dir.path()).unwrap();
        writer.publish(&path).unwrap();
        let block = Block::open(&path).unwrap();
        assert!(block.own().is_empty());
        let long = "n".repeat(100);
        writer.set_own([("faults", 1), (&*long, 2)]);
        writer.set_own([("faults", 3), (&*long, 4)]);
        let cut = "n".repeat(OWN_NAME_BYTES);
        assert_eq!(block.own(), [("faults".to_owned(), 3), (cut, 4)]);
        let many: Vec<_> = (0..100).map(|number| (number.to_string(), number)).collect();
        writer.set_own(many.iter().map(|(name, number)| (name.as_str(), *number)));
        assert_eq!(block.own().len(), OWN, "no more than there is room for");
        writer.set(&[(Fact::Device, "/dev/loop7")]);
        assert_eq!(block.fact(Fact::Device), "/dev/loop7");
    }

    #[test]
    fn whether_the_writer_lives_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control");
        let writer = Writer::new(dir.path()).unwrap();
        writer.publish(&path).unwrap();
        let (block, other) = (Block::open(&path).unwrap(), Block::open(&path).unwrap());
        assert!(block.is_alive().unwrap());
        drop(other);
        assert!(block.is_alive().unwrap(), "a reader that goes takes no lock along");
        drop(writer);
        assert!(!block.is_alive().unwrap());
        assert!(!Block::open(&path).unwrap().is_alive().unwrap(), "what is left is a file");
    }

    #[test]
    fn other_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control");
        for bytes in [vec![], vec![7; 100], vec![0; Mapped::bytes()], vec![255; Mapped::bytes()]] {
            std::fs::write(&path, bytes).unwrap();
            assert!(matches!(Block::open(&path), Err(BlockError::Layout)));
        }
        assert!(matches!(Block::open(&dir.path().join("none")), Err(BlockError::Io(_))));
    }

    #[test]
    fn a_reader_never_sees_half_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control");
        let writer = Writer::new(dir.path()).unwrap();
        writer.publish(&path).unwrap();
        let (a, b) = ("a".repeat(200), "b".repeat(200));
        writer.set(&[(Fact::Device, &a)]);
        let block = Block::open(&path).unwrap();
        std::thread::scope(|scope| {
            let writes = scope.spawn(|| {
                for round in 0..20_000 {
                    writer.set(&[(Fact::Device, if round % 2 == 0 { &b } else { &a })]);
                    std::hint::spin_loop();
                }
            });
            while !writes.is_finished() {
                let seen = block.fact(Fact::Device);
                assert!(seen == a || seen == b, "{seen}");
            }
        });
    }
}
