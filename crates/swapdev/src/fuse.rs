//! A FUSE file system of one file, `swap`, whose bytes are a page store.
//!
//! The mount is never attached anywhere: fsopen(2) and fsmount(2) make it, the file is opened through it, and from
//! then on only open files keep it. No other program can name the file, nothing shows in a mount table, nothing is
//! propagated into containers, and a server that dies leaves no mount behind. Needs Linux 5.4.
//!
//! The file bypasses the page cache (`FOPEN_DIRECT_IO`): a cached copy would double the memory, and would be written
//! back by whoever is short of memory. Requests carry up to [`MAX_IO`] bytes and are cut into pages.
//!
//! What fuser allocates: one 16 MiB receive buffer a thread when the thread starts, of which 1 MiB and a page are
//! ever touched; nothing per request (the requests are parsed in place, the replies are at most two iovecs on the
//! stack). The reply buffers here are made with the session.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, SystemTime};

use fuser::{
    FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite,
    Request, Session, SessionACL, WriteFlags,
};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{self, FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::{ByteStore, Errno, PAGE_SIZE, PageStore, kit};

/// Bytes in the largest request: the kernel's default limit of 256 pages (`fs.fuse.max_pages_limit`).
pub const MAX_IO: usize = 1 << 20;
/// Requests the kernel may have with us at once. The loop device has at most 128; asynchronous direct I/O counts as
/// background work to FUSE, whose default of 12 would stall it.
const MAX_BACKGROUND: u16 = 256;
/// How long the kernel may keep attributes and the name: they never change, and asking a dead server fails.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long a new session may take until every thread serves, and an ended one until every thread is gone.
const PATIENCE: Duration = Duration::from_secs(10);
const NAME: &str = "swap";
const FILE: INodeNo = INodeNo(2);

/// Why the file could not be made, or not ended.
#[derive(Debug)]
pub enum FuseError {
    /// /dev/fuse could not be opened.
    Open(Errno),
    /// The named step of making the mount failed.
    Mount(&'static str, Errno),
    /// The store cannot be a file.
    Size(Errno),
    /// The session did not start or broke off.
    Session(io::Error),
    /// Not every serving thread came up.
    Threads,
    /// The serving thread's part of the deadlock kit failed.
    Kit(kit::KitError),
    /// The file is still held by somebody, so the session goes on.
    Busy,
}

impl FuseError {
    /// The nearest errno.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Open(errno) | Self::Mount(_, errno) | Self::Size(errno) => *errno,
            Self::Session(error) => Errno::from_io_error(error).unwrap_or(Errno::IO),
            Self::Threads => Errno::AGAIN,
            Self::Kit(error) => error.errno(),
            Self::Busy => Errno::BUSY,
        }
    }
}

impl fmt::Display for FuseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(Errno::NOENT | Errno::NXIO | Errno::NODEV) => {
                f.write_str("/dev/fuse: not there; load the kernel module fuse (modprobe fuse)")
            }
            Self::Open(errno) => write!(f, "/dev/fuse: {errno}"),
            Self::Mount(step, Errno::PERM) => write!(f, "mount: {step}: not permitted; run as root"),
            Self::Mount(step, Errno::NOSYS) => write!(f, "mount: {step}: needs Linux 5.4 or newer"),
            Self::Mount(step, errno) => write!(f, "mount: {step}: {errno}"),
            Self::Size(errno) => write!(f, "size: {errno}"),
            Self::Session(error) => write!(f, "FUSE session: {error}"),
            Self::Threads => write!(f, "FUSE session: not every serving thread came up in {PATIENCE:?}"),
            Self::Kit(error) => error.fmt(f),
            Self::Busy => f.write_str("FUSE session: the file is still in use; serving goes on"),
        }
    }
}

impl std::error::Error for FuseError {}

/// Reply buffers, one a serving thread, touched when made. A thread holds at most one, so one is always free.
struct Buffers(Mutex<Vec<Box<[u8]>>>);

impl Buffers {
    fn new(count: usize) -> Self {
        // Not zero, so that every page is really there before memory is short.
        Self(Mutex::new((0..count).map(|_| vec![0xa5; MAX_IO].into_boxed_slice()).collect()))
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut [u8]) -> T) -> Option<T> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = lock().pop()?;
        let result = use_it(&mut buffer);
        lock().push(buffer);
        Some(result)
    }
}

/// Makes sure that every serving thread has run once before the first real request: while `gate` is closed a read
/// waits until all threads are in one.
struct WarmUp {
    threads: usize,
    gate_open: AtomicBool,
    arrived: Mutex<usize>,
    all_in: Condvar,
}

impl WarmUp {
    fn arrive(&self) {
        if self.gate_open.load(Ordering::Acquire) {
            return;
        }
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        *arrived += 1;
        self.all_in.notify_all();
        let waited = self.all_in.wait_timeout_while(arrived, PATIENCE, |arrived| *arrived < self.threads);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn everyone_came(&self) -> bool {
        self.gate_open.store(true, Ordering::Release);
        *self.arrived.lock().unwrap_or_else(PoisonError::into_inner) == self.threads
    }
}

thread_local! {
    static STARTED: Cell<bool> = const { Cell::new(false) };
}

struct SwapFs {
    bytes: Arc<ByteStore>,
    buffers: Buffers,
    warm_up: Arc<WarmUp>,
}

impl SwapFs {
    /// Runs a store operation. A panic in the store must not take the thread with it: with no thread left to answer,
    /// whoever swaps would hang. It becomes an I/O error.
    fn run<T>(&self, operation: impl FnOnce(&ByteStore) -> Result<T, Errno>) -> Result<T, fuser::Errno> {
        let attempt = AssertUnwindSafe(|| {
            if !STARTED.replace(true) {
                kit::touch_stack();
                self.bytes.pages().thread_start();
            }
            operation(&self.bytes)
        });
        catch_unwind(attempt)
            .unwrap_or(Err(Errno::IO))
            .map_err(|errno| fuser::Errno::from_i32(errno.raw_os_error()))
    }

    fn attr(&self, ino: INodeNo) -> FileAttr {
        let file = ino == FILE;
        let when = SystemTime::UNIX_EPOCH;
        FileAttr {
            ino,
            size: if file { self.bytes.size() } else { 0 },
            blocks: if file { self.bytes.size() / 512 } else { 0 },
            atime: when,
            mtime: when,
            ctime: when,
            crtime: when,
            kind: if file { FileType::RegularFile } else { FileType::Directory },
            perm: if file { 0o600 } else { 0o700 },
            nlink: if file { 1 } else { 2 },
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for SwapFs {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // The block layer makes requests of up to 1280 KiB, and the kernel cuts them at what FUSE carries. Written one part
        // after the other, a failure in a later part is a short write, which the loop driver takes for a whole one: the
        // kernel would drop a page that nobody has. Written asynchronously, the first failure is the request's.
        config.add_capabilities(InitFlags::FUSE_ASYNC_DIO).map_err(|_| {
            io::Error::new(io::ErrorKind::Unsupported, "the kernel has no asynchronous direct I/O")
        })?;
        // Each of these is at worst slower when refused.
        let _ = config.set_max_write(u32::try_from(MAX_IO).unwrap_or(u32::MAX));
        let _ = config.set_max_background(MAX_BACKGROUND);
        let _ = config.set_congestion_threshold(MAX_BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == INodeNo::ROOT && name == NAME {
            reply.entry(&FOREVER, &self.attr(FILE), Generation(0));
        } else {
            reply.error(fuser::Errno::ENOENT);
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &self.attr(ino));
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let direct = FopenFlags::FOPEN_DIRECT_IO
            | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES
            | FopenFlags::FOPEN_NOFLUSH;
        reply.opened(FileHandle(0), direct);
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        // The loop driver takes its discard granularity from the block size.
        reply.statfs(self.bytes.size() / 4096, 0, 0, 1, 0, 4096, 255, 4096);
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.warm_up.arrive();
        let mut reply = Some(reply);
        self.buffers.with(|buffer| {
            let len = usize::try_from(size).unwrap_or(MAX_IO).min(MAX_IO);
            let result = self.run(|bytes| bytes.read_at(offset, &mut buffer[..len]));
            match (result, reply.take()) {
                (Ok(len), Some(reply)) => reply.data(&buffer[..len]),
                (Err(errno), Some(reply)) => reply.error(errno),
                (_, None) => {}
            }
        });
        if let Some(reply) = reply {
            reply.error(fuser::Errno::EIO);
        }
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.run(|bytes| bytes.write_at(offset, data)) {
            // A request has at most MAX_IO bytes.
            Ok(len) => reply.written(u32::try_from(len).unwrap_or(u32::MAX)),
            Err(errno) => reply.error(errno),
        }
    }

    fn fallocate(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let what = mode & !libc::FALLOC_FL_KEEP_SIZE;
        let past_end = offset.checked_add(length).is_none_or(|end| end > self.bytes.size());
        let grows = what == libc::FALLOC_FL_ZERO_RANGE && what == mode && past_end;
        let result = match what {
            _ if grows => Err(fuser::Errno::ENOSPC),
            libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE => {
                self.run(|bytes| bytes.zero(offset, length))
            }
            _ => Err(fuser::Errno::EOPNOTSUPP),
        };
        match result {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        match self.run(ByteStore::flush) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }
}

/// A page store served as an open file. Dropping it lets go of the file; the threads end when nobody else holds it.
#[derive(Debug)]
pub struct FuseFile {
    file: File,
    ended: mpsc::Receiver<io::Result<()>>,
}

impl FuseFile {
    /// Mounts and serves `store` on `threads` threads, each a PR_SET_IO_FLUSHER and each started before this returns.
    ///
    /// # Errors
    /// [`FuseError`]; nothing is left then.
    pub fn serve(store: Arc<dyn PageStore>, threads: NonZeroUsize, label: &str) -> Result<Self, FuseError> {
        let threads = threads.get();
        let bytes = Arc::new(ByteStore::new(store).map_err(FuseError::Size)?);
        let warm_up = Arc::new(WarmUp {
            threads,
            gate_open: AtomicBool::new(false),
            arrived: Mutex::new(0),
            all_in: Condvar::new(),
        });
        let fs = SwapFs { bytes, buffers: Buffers::new(threads), warm_up: Arc::clone(&warm_up) };
        let (device, mount) = mount_detached(label)?;
        let mut config = fuser::Config::default();
        config.n_threads = Some(threads);
        // Every thread its own queue of requests it has taken, so that threads do not share a lock in the kernel.
        config.clone_fd = threads > 1;
        let (started, start) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let parent = move || {
            // The threads that fuser starts inherit the flag from this one. Where a capability is missing for it,
            // `kit::engage` has said so already.
            match kit::engage_thread() {
                Err(error) if error.errno() != Errno::PERM => {
                    let _ = started.send(Err(FuseError::Kit(error)));
                    return;
                }
                _ => {}
            }
            match Session::from_fd(fs, device, SessionACL::Owner, config) {
                Ok(session) => {
                    let _ = started.send(Ok(()));
                    let _ = end.send(session.run());
                }
                Err(error) => {
                    let _ = started.send(Err(FuseError::Session(error)));
                }
            }
        };
        thread::Builder::new().name("uzswap-fuse".into()).spawn(parent).map_err(FuseError::Session)?;
        start.recv_timeout(PATIENCE).map_err(|_| FuseError::Threads)??;
        let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&mount, NAME, flags, Mode::empty())
            .map_err(|e| FuseError::Mount("open", e))?;
        let file = Self { file: file.into(), ended };
        // As many reads at once as there are threads: each of them holds one until all have come.
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| file.file.read_at(&mut [0; PAGE_SIZE], 0));
            }
        });
        if warm_up.everyone_came() { Ok(file) } else { Err(FuseError::Threads) }
    }

    /// The file, open for reading and writing with `O_DIRECT`.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Lets go of the file and waits until the session has ended.
    ///
    /// # Errors
    /// [`FuseError::Busy`] when somebody else still holds the file: the threads go on serving it.
    pub fn end(self) -> Result<(), FuseError> {
        drop(self.file);
        match self.ended.recv_timeout(PATIENCE) {
            // Which of these a thread sees depends on what it was doing when the last holder let go.
            Ok(Err(error)) if matches!(error.raw_os_error(), Some(libc::ECONNABORTED | libc::ENODEV)) => {
                Ok(())
            }
            Ok(result) => result.map_err(FuseError::Session),
            Err(mpsc::RecvTimeoutError::Timeout) => Err(FuseError::Busy),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                Err(FuseError::Session(io::Error::other("thread lost")))
            }
        }
    }
}

/// Opens /dev/fuse and makes a mount of it that is attached nowhere: for root, private by nature, without suid
/// programs, devices or programs at all.
fn mount_detached(label: &str) -> Result<(OwnedFd, OwnedFd), FuseError> {
    let at = |step: &'static str| move |errno| FuseError::Mount(step, errno);
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let device = rustix::fs::open("/dev/fuse", flags, Mode::empty()).map_err(FuseError::Open)?;
    let fs = mount::fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC).map_err(at("fsopen"))?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&device).to_string();
    let options = [
        ("source", label),
        ("subtype", "uzswap"),
        ("fd", &fd),
        ("rootmode", "40700"),
        ("user_id", "0"),
        ("group_id", "0"),
    ];
    for (key, value) in options {
        mount::fsconfig_set_string(fs.as_fd(), key, value).map_err(at(key))?;
    }
    mount::fsconfig_create(fs.as_fd()).map_err(at("create"))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount =
        mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(at("fsmount"))?;
    Ok((device, mount))
}
