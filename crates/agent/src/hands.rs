//! The agent's thread: it says who it is, waits to be called, and moves pages.

use core::cell::Cell;
use core::mem::MaybeUninit;
use core::sync::atomic::Ordering;

use linux_raw_sys::general as nr;
use linux_raw_sys::general::{uffdio_move, uffdio_range};
use linux_raw_sys::ioctl::UFFDIO_UNREGISTER;
use linux_raw_sys::{net, prctl};

use crate::protocol::{Action, BATCH, Command, Hello, Leave, Means, PAGE_SIZE, Ready, Reply, Welcome};
use crate::start::Place;
use crate::{rights, sys};

const UFFDIO_MOVE: u32 = sys::iowr::<uffdio_move>(nr::UFFDIO, nr::_UFFDIO_MOVE);
/// What the staging area is.
const WRITABLE: u32 = nr::PROT_READ | nr::PROT_WRITE;
/// `_IO(USERFAULTFD_IOC, 0)`: makes a userfaultfd from the device.
const USERFAULTFD_IOC_NEW: u32 = nr::USERFAULTFD_IOC << 8;

/// The thread's body; `place` is where everything of this process's agent is.
pub extern "C" fn run(place: usize) {
    // SAFETY: start() passes the address of a Place in memory that stays mapped and is written no more.
    let place = unsafe { &*(place as *const Place) };
    // The table of open files is this thread's own, a copy so far: without this, pipes and sockets that the program closes
    // would stay open here.
    if sys::plain(nr::__NR_close_range, [0, u32::MAX as usize, 0]).is_err() {
        return;
    }
    let _ = sys::plain(nr::__NR_prctl, [prctl::PR_SET_NAME as usize, c"uzswap-agent".as_ptr() as usize, 0]);
    // With what rights there are: others may be kept from where the socket is.
    let Ok(socket) = connect(place) else { return };
    // Where the program began may be unmounted.
    let _ = sys::plain(nr::__NR_chdir, [c"/".as_ptr() as usize, 0, 0]);
    if sys::send(socket, bytes_of(&hello(place)), None).is_err() {
        return;
    }
    let made = place.has_rights.then(|| {
        // That takes rights, and may be wanted; nothing comes of it before.
        let made = userfaultfd();
        rights::give_up();
        // Elsewhere nobody waits, and this says nothing but that the thread has ended.
        place.is_starting.store(0, Ordering::Release);
        sys::wake(&place.is_starting);
        made
    });
    let Some(uffd) = welcome(socket, made) else { return };
    let hands = Hands { socket, uffd, staging: place.staging, is_executable: Cell::new(false) };
    // From here on pages may be out, and the program cannot live without the supervisor.
    hands.serve();
    sys::kill_own_process();
}

/// What the agent of a place says first.
pub(crate) fn hello(place: &Place) -> Hello {
    Hello {
        version: crate::protocol::VERSION,
        forked: u32::from(place.forked),
        probe: place.probe as u64,
        staging: place.staging as u64,
        own_start: place.own.0 as u64,
        own_end: place.own.1 as u64,
        password: place.supervisor.password,
        leave: if place.is_back { Leave::Over } else { Leave::No } as u32,
        reserved: 0,
    }
}

pub(crate) fn bytes_of<T: Copy>(value: &T) -> &[u8] {
    // SAFETY: the packets are repr(C) structures of integers without padding, valid as bytes for their size.
    unsafe { core::slice::from_raw_parts(core::ptr::from_ref(value).cast(), size_of::<T>()) }
}

pub(crate) fn connect(place: &Place) -> Result<i32, u32> {
    let kind = net::SOCK_SEQPACKET | nr::O_CLOEXEC;
    let socket = sys::plain(nr::__NR_socket, [net::AF_UNIX as usize, kind as usize, 0])?;
    let address = &place.supervisor.address;
    let args = [socket, core::ptr::from_ref(address) as usize, address.len, 0, 0, 0];
    // SAFETY: the address is len bytes of a sockaddr_un, which fit the structure (start() checked).
    unsafe { sys::call(nr::__NR_connect, args) }?;
    i32::try_from(socket).map_err(|_| 0)
}

/// Waits until the supervisor wants this process, and gets the userfaultfd. `made`: what came of making one, if that was tried.
fn welcome(socket: i32, made: Option<Result<usize, u32>>) -> Option<i32> {
    let mut packet = MaybeUninit::<Welcome>::uninit();
    let (len, fd) = receive(socket, &mut packet)?;
    if len != size_of::<Welcome>() {
        return None;
    }
    // SAFETY: the whole packet was written, and any integers are a valid one.
    let welcome = unsafe { packet.assume_init() };
    let made = match fd {
        Some(fd) if welcome.means == Means::Given as u32 => {
            let _ = sys::send(socket, bytes_of(&Ready::default()), None);
            return Some(fd);
        }
        Some(fd) if welcome.means == Means::Device as u32 => {
            let made = sys::plain(nr::__NR_ioctl, [fd as usize, USERFAULTFD_IOC_NEW as usize, flags()]);
            let _ = sys::plain(nr::__NR_close, [fd as usize, 0, 0]);
            made
        }
        _ if welcome.means == Action::Release as u32 => sys::end_thread(welcome.status),
        _ if welcome.means == Means::Call as u32 => made.unwrap_or_else(userfaultfd),
        _ => return None,
    };
    // The supervisor says what it is to report: only somebody with CAP_SYS_PTRACE may ask for fork events, and the program
    // may have given that up.
    let ready = made.and_then(|fd| i32::try_from(fd).map_err(|_| linux_raw_sys::errno::EBADF));
    let answer = Ready { errno: ready.err().unwrap_or(0), reserved: 0 };
    sys::send(socket, bytes_of(&answer), ready.ok()).ok()?;
    ready.ok()
}

fn userfaultfd() -> Result<usize, u32> {
    sys::plain(nr::__NR_userfaultfd, [flags(), 0, 0])
}

fn flags() -> usize {
    (nr::O_CLOEXEC | nr::O_NONBLOCK) as usize
}

/// [`sys::receive`], not to be disturbed. `None`: the other side is gone.
fn receive<T: Copy>(socket: i32, packet: &mut MaybeUninit<T>) -> Option<(usize, Option<i32>)> {
    loop {
        match sys::receive(socket, packet) {
            Ok((0, _)) => return None,
            Err(linux_raw_sys::errno::EINTR) => {}
            other => return other.ok(),
        }
    }
}

struct Hands {
    socket: i32,
    uffd: i32,
    staging: usize,
    /// Some of the staging area is, at the moment.
    is_executable: Cell<bool>,
}

impl Hands {
    /// Does what it is told, until the supervisor is gone.
    fn serve(&self) {
        loop {
            // All zeros is a valid command, so that a short packet leaves nothing uninitialised.
            let mut packet = MaybeUninit::<Command>::zeroed();
            let len = match sys::read(self.socket, &mut packet) {
                Ok(0) => return,
                Ok(len) => len,
                // The other side closed with something of ours unread. That is said once, before what it sent last.
                Err(linux_raw_sys::errno::EINTR | linux_raw_sys::errno::ECONNRESET) => continue,
                Err(_) => return,
            };
            // SAFETY: zeroed above and written by the kernel since; any integers are a valid command.
            let command = unsafe { packet.assume_init_ref() };
            let runs = &command.runs[..core::cmp::min(command.runs_len as usize, BATCH)];
            let mut reply = Reply { errno: 0, sequence: command.sequence, pages: [0; BATCH] };
            if len < command.len() {
                reply.errno = linux_raw_sys::errno::EINVAL;
            } else if command.action == Action::Move as u32 {
                self.take(runs, &mut reply.pages);
            } else if command.action == Action::Empty as u32 {
                reply.errno = self.empty().err().unwrap_or(0);
            } else if command.action == Action::Unshare as u32 {
                for run in runs {
                    let bytes = run.pages as usize * PAGE_SIZE;
                    // A write fault without a write: breaks sharing, changes nothing.
                    let done = sys::madvise(run.start as usize, bytes, nr::MADV_POPULATE_WRITE);
                    reply.errno = done.err().unwrap_or(reply.errno);
                }
            } else if command.action == Action::Release as u32 {
                let _ = sys::write(self.socket, bytes_of(&reply));
                sys::end_thread(command.status);
            } else {
                reply.errno = linux_raw_sys::errno::ENOSYS;
            }
            // Whether nobody reads it any more, the next order tells, or that there is none: this process may have been stopped since
            // before it was let go.
            let _ = sys::write(self.socket, bytes_of(&reply));
        }
    }

    /// Gives the pages of the last batch back to the system. The area is not registered meanwhile: dropping registered
    /// pages would be an event, and every fault of the program would wait until it is read.
    fn empty(&self) -> Result<(), u32> {
        let bytes = BATCH * PAGE_SIZE;
        let mut range = uffdio_range { start: self.staging as u64, len: bytes as u64 };
        sys::ioctl(self.uffd, UFFDIO_UNREGISTER, &mut range)?;
        sys::madvise(self.staging, bytes, nr::MADV_DONTNEED)?;
        if self.is_executable.get() {
            self.protect(0, BATCH, WRITABLE)?;
            self.is_executable.set(false);
        }
        Ok(())
    }

    /// What may be done in a part of the staging area.
    fn protect(&self, at: usize, pages: usize, protection: u32) -> Result<usize, u32> {
        let start = self.staging + at * PAGE_SIZE;
        sys::plain(nr::__NR_mprotect, [start, pages * PAGE_SIZE, protection as usize])
    }

    /// Moves pages to a place in the staging area: how many, and why not all.
    fn move_to(&self, at: usize, from: u64, pages: usize) -> (usize, u32) {
        let mut arg = uffdio_move {
            dst: (self.staging + at * PAGE_SIZE) as u64,
            src: from,
            len: (pages * PAGE_SIZE) as u64,
            mode: 0,
            move_: 0,
        };
        match sys::ioctl(self.uffd, UFFDIO_MOVE, &mut arg) {
            Ok(_) => (pages, 0),
            // Bytes that were moved before a failure, else a negative errno.
            Err(errno) => (usize::try_from(arg.move_).unwrap_or(0) / PAGE_SIZE, errno),
        }
    }

    /// Moves what can be moved; page `n` of the batch goes to page `n` of the staging area.
    fn take(&self, runs: &[crate::protocol::Run], results: &mut [u8; BATCH]) {
        let mut at = 0;
        for run in runs {
            let pages = core::cmp::min(run.pages as usize, BATCH - at);
            let (mut done, mut step) = (0, pages);
            while done < pages {
                let from = run.start + (done * PAGE_SIZE) as u64;
                let (mut moved, mut errno) = self.move_to(at + done, from, step);
                if moved == 0 && errno == linux_raw_sys::errno::EINVAL {
                    // The kernel moves between mappings in which the same may be done. These may hold code that the program makes.
                    let is_executable = self.protect(at + done, step, WRITABLE | nr::PROT_EXEC).is_ok();
                    self.is_executable.set(self.is_executable.get() | is_executable);
                    if is_executable {
                        (moved, errno) = self.move_to(at + done, from, step);
                    }
                    if moved < step {
                        let _ = self.protect(at + done + moved, step - moved, WRITABLE);
                    }
                }
                done += moved;
                if moved == 0 && errno == linux_raw_sys::errno::EAGAIN {
                    // An event is unread, and will be for as long as this order lasts.
                    for result in results.iter_mut().skip(at + done) {
                        *result = errno as u8;
                    }
                    return;
                }
                if moved == 0 && step > 1 {
                    // One page of these, or a border between two mappings: half of them may go.
                    step /= 2;
                    continue;
                }
                if moved == 0 {
                    if let Some(result) = results.get_mut(at + done) {
                        *result = errno as u8;
                    }
                    done += 1;
                }
                step = core::cmp::min(step * 2, pages - done);
            }
            at += pages;
        }
    }
}
