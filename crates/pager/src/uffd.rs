//! Userfaultfd, as another process's supervisor uses it.
//!
//! Constants and structures are those that bindgen made of the kernel's headers (`linux-raw-sys`); what is typed here is
//! the arithmetic of `_IOWR` for the ioctls that crate does not list, held against the sizes it gives.
//!
//! Every call acts on the memory of the process that made the descriptor. `UFFDIO_COPY` and `UFFDIO_REGISTER` work from
//! outside; `UFFDIO_MOVE` does not (kernel 6.8: "no cross-mm moves"), which is what the agent is for.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use linux_raw_sys::general as nr;
use linux_raw_sys::general::{
    uffd_msg, uffdio_copy, uffdio_move, uffdio_poison, uffdio_range, uffdio_register, uffdio_writeprotect,
    uffdio_zeropage,
};
use linux_raw_sys::ioctl;
use zswap::PAGE_SIZE;

// The kernel's own numbers, from the headers' comments: a struct of another size would be another ioctl.
const _: () = assert!(
    size_of::<uffd_msg>() == 32
        && size_of::<uffdio_move>() == 40
        && size_of::<uffdio_copy>() == 40
        && size_of::<uffdio_register>() == 32
);

/// What a userfaultfd must be able to do: report every change of the memory and the thread that faults, poison, and move.
pub const FEATURES: u64 = (nr::UFFD_FEATURE_EVENT_FORK
    | nr::UFFD_FEATURE_EVENT_REMAP
    | nr::UFFD_FEATURE_EVENT_REMOVE
    | nr::UFFD_FEATURE_EVENT_UNMAP
    | nr::UFFD_FEATURE_THREAD_ID
    | nr::UFFD_FEATURE_POISON
    | nr::UFFD_FEATURE_MOVE) as u64;

/// Messages taken in one read.
pub(crate) const MESSAGES: usize = 16;

/// Something that happened to the memory.
#[derive(Debug)]
pub enum Message {
    /// A thread waits for an absent page.
    Fault {
        /// The address, rounded down to its page.
        address: u64,
        /// It wants to write.
        write: bool,
        /// The thread.
        thread: u32,
    },
    /// The process was forked; the child's memory is this descriptor's.
    Fork(OwnedFd),
    /// Memory moved.
    Remap {
        /// From here,
        from: u64,
        /// to here,
        to: u64,
        /// this many bytes.
        len: u64,
    },
    /// Content is about to be dropped (`MADV_DONTNEED`) or may be (`MADV_FREE`).
    Remove {
        /// First byte.
        start: u64,
        /// First byte behind.
        end: u64,
    },
    /// The mapping is gone.
    Unmap {
        /// First byte.
        start: u64,
        /// First byte behind.
        end: u64,
    },
}

/// When threads that wait for a page are woken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wake {
    /// As soon as it is there.
    Now,
    /// By [`Uffd::wake`].
    Later,
}

impl Wake {
    /// The same for all that put pages somewhere.
    fn mode(self) -> u64 {
        const _: () = assert!(nr::UFFDIO_COPY_MODE_DONTWAKE == nr::UFFDIO_ZEROPAGE_MODE_DONTWAKE);
        if self == Wake::Later { u64::from(nr::UFFDIO_COPY_MODE_DONTWAKE) } else { 0 }
    }
}

/// What came of putting pages somewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Put {
    /// All are there now.
    Done,
    /// The first `n` are; at the next one something is present already.
    Exists(usize),
    /// Nothing more than the first `n`: an event must be read first.
    Again(usize),
    /// The memory is not registered, or not mapped any more.
    Gone,
    /// The process has ended or has another program's memory now.
    Dead,
    /// The kernel has no memory for a page; it may have later.
    NoMemory,
}

/// A userfaultfd.
#[derive(Debug)]
pub struct Uffd(OwnedFd);

impl From<OwnedFd> for Uffd {
    fn from(fd: OwnedFd) -> Uffd {
        Uffd(fd)
    }
}

impl AsFd for Uffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Uffd {
    fn ioctl<T>(&self, request: u32, arg: &mut T) -> io::Result<()> {
        // SAFETY: every caller passes the structure that the request is defined with; it lives until the call returns. What
        // the request does to memory of this process (reading the source of a copy) is named by each caller.
        let result = unsafe {
            libc::ioctl(self.0.as_raw_fd(), u64::from(request) as libc::Ioctl, std::ptr::from_mut(arg))
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// A request about a mapping, made again where it finds none. A request that waits while the mapping is moved away finds nothing at
    /// the old address, and its event is unread: asked again, the kernel says so (EAGAIN; it looks for unread events before it
    /// looks for mappings). As long as the caller keeps events from being read, ENOENT of the second means that nothing is
    /// there which an unread event would tell of.
    fn ioctl_again<T>(&self, request: u32, mut make: impl FnMut() -> T) -> (io::Result<()>, T) {
        let mut arg = make();
        let mut result = self.ioctl(request, &mut arg);
        if result.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::ENOENT)) {
            arg = make();
            result = self.ioctl(request, &mut arg);
        }
        (result, arg)
    }

    /// Says what it is to report and do ([`FEATURES`]); the first call on a new one.
    ///
    /// # Errors
    /// EPERM: fork events take CAP_SYS_PTRACE of the caller; EINVAL: the kernel lacks a feature.
    pub fn begin(&self) -> io::Result<()> {
        let mut api = nr::uffdio_api { api: u64::from(nr::UFFD_API), features: FEATURES, ioctls: 0 };
        self.ioctl(ioctl::UFFDIO_API, &mut api)
    }

    /// Faults on absent pages of this range are ours from now on.
    ///
    /// # Errors
    /// EINVAL: something there cannot be registered; EBUSY: another userfaultfd has it; ESRCH: the process ended.
    pub fn register(&self, start: u64, end: u64) -> io::Result<()> {
        let range = uffdio_range { start, len: end - start };
        let mode = u64::from(nr::UFFDIO_REGISTER_MODE_MISSING);
        self.ioctl(ioctl::UFFDIO_REGISTER, &mut uffdio_register { range, mode, ioctls: 0 })
    }

    /// One that reports nothing and takes no right. What is registered with it ([`Uffd::map_singly`]) is mapped page by page as long as
    /// this is open.
    ///
    /// # Errors
    /// ENOSYS, or what a seccomp filter says: there is no userfaultfd; EINVAL: the kernel lacks a feature.
    pub fn silent() -> io::Result<Uffd> {
        let flags = libc::O_CLOEXEC.cast_unsigned() | nr::UFFD_USER_MODE_ONLY;
        // SAFETY: makes a descriptor.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: just made, and nobody else's.
        let uffd = Uffd(unsafe { OwnedFd::from_raw_fd(fd) });
        let features = u64::from(nr::UFFD_FEATURE_WP_ASYNC);
        uffd.ioctl(
            ioctl::UFFDIO_API,
            &mut nr::uffdio_api { api: u64::from(nr::UFFD_API), features, ioctls: 0 },
        )?;
        Ok(uffd)
    }

    /// Of this range, the kernel maps the page that is touched and none around it. It could be protected from writes, which the kernel would
    /// note for each page by itself (Linux 6.7, `uffd_disable_fault_around`); nobody ever does that.
    ///
    /// # Errors
    /// EBUSY: another userfaultfd has it; EPERM: it is a file that is mapped to be shared, and not to be written.
    pub fn map_singly(&self, start: u64, end: u64) -> io::Result<()> {
        let range = uffdio_range { start, len: end - start };
        let mode = u64::from(nr::UFFDIO_REGISTER_MODE_WP);
        self.ioctl(ioctl::UFFDIO_REGISTER, &mut uffdio_register { range, mode, ioctls: 0 })
    }

    /// Faults there are the kernel's again.
    ///
    /// # Errors
    /// As [`Uffd::register`].
    pub fn unregister(&self, start: u64, end: u64) -> io::Result<()> {
        self.ioctl(ioctl::UFFDIO_UNREGISTER, &mut uffdio_range { start, len: end - start })
    }

    /// Lets threads that wait for a page of the range look again.
    pub fn wake(&self, start: u64, pages: usize) {
        let mut range = uffdio_range { start, len: (pages * PAGE_SIZE) as u64 };
        // ESRCH: nobody is left to wake.
        let _ = self.ioctl(ioctl::UFFDIO_WAKE, &mut range);
    }

    /// Puts `pages`, one behind the other, at `start`, and wakes who waits for them. [`Put::Gone`] is sure as long as nobody reads
    /// events meanwhile.
    pub fn copy(&self, start: u64, pages: &[[u8; PAGE_SIZE]]) -> Put {
        self.copy_and(Wake::Now, start, pages)
    }

    /// [`Uffd::copy`], but who waits may be left to be woken by [`Uffd::wake`].
    pub fn copy_and(&self, wake: Wake, start: u64, pages: &[[u8; PAGE_SIZE]]) -> Put {
        let (result, arg) = self.ioctl_again(ioctl::UFFDIO_COPY, || uffdio_copy {
            dst: start,
            src: pages.as_ptr() as u64,
            len: size_of_val(pages) as u64,
            mode: wake.mode(),
            copy: 0,
        });
        put(result, arg.copy)
    }

    /// Maps the zero page; as [`Uffd::copy_and`].
    pub fn zeropage(&self, wake: Wake, start: u64, pages: usize) -> Put {
        let range = uffdio_range { start, len: (pages * PAGE_SIZE) as u64 };
        let mut arg = uffdio_zeropage { range, mode: wake.mode(), zeropage: 0 };
        let result = self.ioctl(ioctl::UFFDIO_ZEROPAGE, &mut arg);
        put(result, arg.zeropage)
    }

    /// Whether the page's mapping is registered here, as long as nobody reads events meanwhile. `None`: nobody can say now, because
    /// an event is unread or the kernel has no memory to answer.
    pub fn is_registered(&self, page: u64) -> Option<bool> {
        // The kernel looks for the mapping first and for the source then: a copy from where nothing can be read fails in
        // the one way or in the other, and changes nothing.
        let nothing =
            || uffdio_copy { dst: page, src: unreadable(), len: PAGE_SIZE as u64, mode: 0, copy: 0 };
        match self.ioctl_again(ioctl::UFFDIO_COPY, nothing).0 {
            // Something is there already, or there is nothing to copy: the mapping is ours.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EFAULT | libc::EEXIST)) => Some(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Some(false),
            _ => None,
        }
    }

    /// Whether the memory behind it is gone: the process ended or executed another program. `page` is any mapped page.
    pub fn is_dead(&self, page: u64) -> bool {
        // Nothing is registered for write protection, so a live process answers ENOENT, or EAGAIN while an event waits.
        let range = uffdio_range { start: page, len: PAGE_SIZE as u64 };
        let result = self.ioctl(ioctl::UFFDIO_WRITEPROTECT, &mut uffdio_writeprotect { range, mode: 0 });
        result.is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH))
    }

    /// Whoever touches this page gets SIGBUS, as for memory that the hardware lost (kernel 6.6).
    ///
    /// # Errors
    /// EAGAIN: an event is unread; EEXIST: something is present; ENOENT: nothing is mapped or registered there, for certain as with
    /// [`Uffd::copy`]; ESRCH: the process ended; ENOMEM.
    pub fn poison(&self, page: u64) -> io::Result<()> {
        const UFFDIO_POISON: u32 =
            3 << 30 | (size_of::<uffdio_poison>() as u32) << 16 | nr::UFFDIO << 8 | nr::_UFFDIO_POISON;
        let range = || uffdio_range { start: page, len: PAGE_SIZE as u64 };
        self.ioctl_again(UFFDIO_POISON, || uffdio_poison { range: range(), mode: 0, updated: 0 }).0
    }

    /// Takes the messages that are there, in their order, and none if there are none.
    ///
    /// # Errors
    /// Any but EAGAIN.
    pub fn read(&self, mut each: impl FnMut(Message)) -> io::Result<usize> {
        let mut messages = [const { MaybeUninit::<uffd_msg>::uninit() }; MESSAGES];
        // SAFETY: the kernel writes whole messages into the array, and tells how many bytes.
        let len =
            unsafe { libc::read(self.0.as_raw_fd(), messages.as_mut_ptr().cast(), size_of_val(&messages)) };
        let Ok(len) = usize::try_from(len) else {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock { Ok(0) } else { Err(error) };
        };
        let count = len / size_of::<uffd_msg>();
        for message in messages.iter().take(count) {
            // SAFETY: the kernel filled the first `count` messages.
            let message = unsafe { message.assume_init_ref() };
            if let Some(message) = decode(message) {
                each(message);
            }
        }
        Ok(count)
    }
}

/// The address of a page of our own that nobody can read. 0, which the kernel refuses, where there is none to be had.
fn unreadable() -> u64 {
    static PAGE: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *PAGE.get_or_init(|| {
        // SAFETY: a new mapping at an address of the kernel's choosing.
        let page = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            libc::mmap(std::ptr::null_mut(), PAGE_SIZE, libc::PROT_NONE, flags, -1, 0)
        };
        if page == libc::MAP_FAILED { 0 } else { page as u64 }
    })
}

/// Whether this kernel and this user can do all that is needed.
///
/// # Errors
/// EPERM, ENOSYS, or what a seccomp filter says: there is no userfaultfd for us; EINVAL: the kernel lacks a feature.
pub fn try_out(device: Option<&OwnedFd>) -> io::Result<()> {
    let fd = match device {
        // SAFETY: makes a descriptor; `_IO(USERFAULTFD_IOC, 0)` takes its flags as the argument.
        Some(device) => unsafe {
            let request = u64::from(nr::USERFAULTFD_IOC << 8) as libc::Ioctl;
            libc::ioctl(device.as_raw_fd(), request, libc::O_CLOEXEC)
        },
        // SAFETY: makes a descriptor.
        None => i32::try_from(unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) }).unwrap_or(-1),
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and nobody else's.
    Uffd(unsafe { OwnedFd::from_raw_fd(fd) }).begin()
}

fn decode(message: &uffd_msg) -> Option<Message> {
    // SAFETY: `event` says which member of the union the kernel wrote; every member is integers.
    unsafe {
        Some(match u32::from(message.event) {
            nr::UFFD_EVENT_PAGEFAULT => Message::Fault {
                address: message.arg.pagefault.address & !(PAGE_SIZE as u64 - 1),
                write: message.arg.pagefault.flags & u64::from(nr::UFFD_PAGEFAULT_FLAG_WRITE) != 0,
                thread: message.arg.pagefault.feat.ptid,
            },
            nr::UFFD_EVENT_FORK => {
                Message::Fork(OwnedFd::from_raw_fd(i32::try_from(message.arg.fork.ufd).ok()?))
            }
            nr::UFFD_EVENT_REMAP => Message::Remap {
                from: message.arg.remap.from,
                to: message.arg.remap.to,
                len: message.arg.remap.len,
            },
            nr::UFFD_EVENT_REMOVE => {
                Message::Remove { start: message.arg.remove.start, end: message.arg.remove.end }
            }
            nr::UFFD_EVENT_UNMAP => {
                Message::Unmap { start: message.arg.remove.start, end: message.arg.remove.end }
            }
            _ => return None,
        })
    }
}

/// `done` is what the kernel left in the structure: bytes, or a negative errno when there was none.
fn put(result: io::Result<()>, done: i64) -> Put {
    let Err(error) = result else { return Put::Done };
    let pages = usize::try_from(done).unwrap_or(0) / PAGE_SIZE;
    match error.raw_os_error().unwrap_or(0) {
        libc::EEXIST => Put::Exists(pages),
        libc::EAGAIN => Put::Again(pages),
        libc::ESRCH | libc::ENOSPC => Put::Dead,
        libc::ENOENT => Put::Gone,
        // Whatever it is: nothing was done, and nothing is taken for gone.
        _ => Put::NoMemory,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_registered_is_known_and_nothing_changes_by_asking() {
        const NAME: &str = "what_is_registered_is_known_and_nothing_changes_by_asking";
        // SAFETY: makes a descriptor.
        let fd = i32::try_from(unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) }).unwrap();
        if fd < 0 {
            let why = io::Error::last_os_error();
            assert!(
                std::env::var_os("CI").is_none(),
                "SKIP {NAME}: userfaultfd: {why} (a failure, because CI is set)"
            );
            println!("SKIP {NAME}: userfaultfd: {why}");
            return;
        }
        // SAFETY: just made.
        let uffd = Uffd(unsafe { OwnedFd::from_raw_fd(fd) });
        let mut api = nr::uffdio_api { api: u64::from(nr::UFFD_API), features: 0, ioctls: 0 };
        uffd.ioctl(ioctl::UFFDIO_API, &mut api).unwrap();
        let map = |pages: usize| {
            // SAFETY: a new mapping.
            let at = unsafe {
                let (prot, flags) =
                    (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
                libc::mmap(std::ptr::null_mut(), pages * PAGE_SIZE, prot, flags, -1, 0)
            };
            assert_ne!(at, libc::MAP_FAILED);
            at as u64
        };
        let page = PAGE_SIZE as u64;
        let (ours, other) = (map(3), map(1));
        uffd.register(ours, ours + 3 * page).unwrap();
        assert_eq!(uffd.copy(ours, &[[7; PAGE_SIZE]]), Put::Done);
        let absent = |at: u64| {
            let mut vector = [0u8];
            // SAFETY: tells of one page, in one byte.
            assert_eq!(unsafe { libc::mincore(at as *mut _, PAGE_SIZE, vector.as_mut_ptr()) }, 0);
            vector[0] & 1 == 0
        };
        for _ in 0..2 {
            assert_eq!(uffd.is_registered(ours), Some(true), "a page that is there");
            assert_eq!(uffd.is_registered(ours + 2 * page), Some(true), "one that is not");
            assert_eq!(uffd.is_registered(other), Some(false));
            assert_eq!(uffd.is_registered(unreadable()), Some(false));
        }
        assert!(absent(ours + 2 * page) && absent(other), "asking brings nothing");
        // SAFETY: the page was filled above.
        assert_eq!(unsafe { *(ours as *const u8) }, 7);
        uffd.unregister(ours, ours + 3 * page).unwrap();
        assert_eq!(uffd.is_registered(ours), Some(false));
    }

    /// A mapping is moved back and forth while pages are put into it.
    #[test]
    fn a_mapping_that_moves_is_not_taken_for_gone() {
        const NAME: &str = "a_mapping_that_moves_is_not_taken_for_gone";
        const MOVES: usize = 60_000;
        let page = PAGE_SIZE as u64;
        // SAFETY: makes a descriptor.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK) };
        let fd = i32::try_from(fd).unwrap();
        // SAFETY: where it was made, it was just made.
        let uffd = (fd >= 0).then(|| Uffd(unsafe { OwnedFd::from_raw_fd(fd) }));
        let begun = uffd.ok_or_else(io::Error::last_os_error).and_then(|uffd| uffd.begin().map(|()| uffd));
        let uffd = match begun {
            Ok(uffd) => uffd,
            Err(why) => {
                assert!(
                    std::env::var_os("CI").is_none(),
                    "SKIP {NAME}: {why} (a failure, because CI is set)"
                );
                println!("SKIP {NAME}: {why}");
                return;
            }
        };
        // One place behind the other, so that no other mapping of this process ever lies where this one was.
        // All of them are there, so that a move takes its time.
        const PAGES: usize = 256;
        let len = PAGES * PAGE_SIZE;
        // SAFETY: a new mapping, and access to the first part of it.
        let start = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            let at = libc::mmap(std::ptr::null_mut(), (MOVES + 1) * len, libc::PROT_NONE, flags, -1, 0);
            assert_ne!(at, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(at, len, libc::PROT_READ | libc::PROT_WRITE), 0);
            at as u64
        };
        uffd.register(start, start + len as u64).unwrap();
        assert_eq!(uffd.copy(start, &vec![[7; PAGE_SIZE]; PAGES]), Put::Done);
        let mover = std::thread::spawn(move || {
            for round in 0..MOVES {
                let from = start + (round * len) as u64;
                let to = from + len as u64;
                let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
                // SAFETY: moves a mapping of this test to the next place of its own.
                let moved = unsafe { libc::mremap(from as *mut _, len, len, flags, to as *mut libc::c_void) };
                assert_eq!(moved as u64, to);
            }
        });
        let mut here = start;
        let mut moves = 0;
        let mut at = 0;
        while !mover.is_finished() {
            at = (at + 1) % PAGES as u64;
            match uffd.copy(here + at * page, &[[7; PAGE_SIZE]]) {
                Put::Exists(_) => assert_ne!(uffd.is_registered(here), Some(false)),
                Put::Again(_) => {
                    uffd.read(|message| {
                        if let Message::Remap { to, .. } = message {
                            here = to;
                            moves += 1;
                        }
                    })
                    .unwrap();
                }
                other => panic!("{other:?} after {moves} moves"),
            }
        }
        mover.join().unwrap();
        assert_eq!(moves, MOVES);
    }
}
