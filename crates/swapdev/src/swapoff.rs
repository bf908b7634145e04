//! Turning swap off from a process of its own.
//!
//! While swapoff(2) runs, the kernel marks the calling process as the first one to kill when memory runs out, before
//! any `oom_score_adj`: it is the one asking for all that memory. Called by the process that serves the device, that
//! would kill the server and every page it still holds. So a small process is forked while the server is still
//! small; it waits on a socket, and does each swapoff in a child of its own, which may be killed: the kernel then
//! turns the area on again and nothing is lost.
//!
//! The processes run with all signals blocked, so that Ctrl-C in a terminal does not break a swapoff off half way.
//! They hold no file but the socket, and end when the server does.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::Errno;
use crate::swapon::area_at;

/// Bytes of a device's path, with the zero byte at its end.
const PATH_MAX: usize = 256;
/// How often an area that somebody else is turning off is looked at.
const STEP: Duration = Duration::from_millis(20);

/// The process that calls swapoff(2) for this one.
#[derive(Debug)]
pub struct Swapoff {
    socket: Mutex<OwnedFd>,
    pid: libc::pid_t,
}

impl Swapoff {
    /// Forks the process. Best done early: it keeps a copy of whatever memory this process has now and changes later.
    ///
    /// # Errors
    /// As socketpair(2) and fork(2).
    pub fn new() -> Result<Self, Errno> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        // SAFETY: a sigset_t is plain data that sigfillset fills in.
        let (mut all, mut before) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        // SAFETY: both sets live here; the mask of this thread is put back below.
        unsafe {
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        }
        // SAFETY: the child calls serve, which makes system calls on its own stack and never returns: other threads'
        // locks, which it may have copied in any state, are not touched.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            serve(theirs.as_raw_fd());
        }
        let failed = io::Error::last_os_error();
        // SAFETY: before was filled in above.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()) };
        match pid {
            1.. => Ok(Self { socket: Mutex::new(ours), pid }),
            _ => Err(Errno::from_io_error(&failed).unwrap_or(Errno::AGAIN)),
        }
    }

    /// Sees to it that the area at `path` is off, which brings every page on it back into memory, and waits for that up
    /// to `limit`. An area that somebody else is turning off, such as the process of a server that was killed meanwhile,
    /// is waited for, and turned off here if they fail.
    ///
    /// # Errors
    /// As swapoff(2). `EINTR`: the process that did it was killed, the area is still on. `EPIPE`: the process that
    /// waits was killed. `ETIMEDOUT`: `limit` is over; it goes on, and whoever asks next waits for it.
    pub fn swapoff(&self, path: &Path, limit: Option<Duration>) -> Result<(), Errno> {
        let start = Instant::now();
        loop {
            let left = limit.map(|limit| limit.saturating_sub(start.elapsed()));
            match self.ask(path, left) {
                // An area that is being turned off is not found by the kernel, though still in its list.
                Err(Errno::INVAL) => {}
                done => return done,
            }
            match area_at(path) {
                Ok(None) => return Ok(()),
                Ok(Some(_)) if left.is_none_or(|left| !left.is_zero()) => std::thread::sleep(STEP),
                Ok(Some(_)) => return Err(Errno::TIMEDOUT),
                Err(_) => return Err(Errno::INVAL),
            }
        }
    }

    /// One swapoff(2).
    fn ask(&self, path: &Path, limit: Option<Duration>) -> Result<(), Errno> {
        let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)?;
        let request = path.as_bytes_with_nul();
        if request.len() > PATH_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        // An answer that came after its limit belongs to an earlier call.
        let mut answer = [0_u8; 4];
        while let Ok((4, _)) = rustix::net::recv(&*socket, &mut answer, RecvFlags::DONTWAIT) {}
        rustix::net::send(&*socket, request, SendFlags::NOSIGNAL)?;
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let mut ready = [PollFd::new(&*socket, PollFlags::IN)];
        loop {
            match rustix::event::poll(&mut ready, limit.as_ref()) {
                Ok(0) => return Err(Errno::TIMEDOUT),
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        match rustix::net::recv(&*socket, &mut answer, RecvFlags::empty())? {
            (4, _) => match i32::from_ne_bytes(answer) {
                0 => Ok(()),
                errno => Err(Errno::from_raw_os_error(errno)),
            },
            _ => Err(Errno::PIPE),
        }
    }
}

impl Drop for Swapoff {
    fn drop(&mut self) {
        let socket = self.socket.get_mut().unwrap_or_else(PoisonError::into_inner);
        // The process ends when this side is shut, and closing comes only after this function.
        let _ = rustix::net::shutdown(&*socket, rustix::net::Shutdown::Both);
        // A swapoff that is past its limit may still run: do not wait for it, init will.
        // SAFETY: pid is our child and was not waited for.
        unsafe {
            for _ in 0..100 {
                if libc::waitpid(self.pid, std::ptr::null_mut(), libc::WNOHANG) != 0 {
                    break;
                }
                libc::usleep(1000);
            }
        }
    }
}

/// The forked process. Only system calls: no allocation, no lock, no panic.
fn serve(socket: libc::c_int) -> ! {
    let mut path = [0_u8; PATH_MAX];
    // SAFETY: plain system calls on numbers and on buffers of the lengths given.
    unsafe {
        let keep = socket.unsigned_abs();
        if keep > 0 {
            libc::syscall(libc::SYS_close_range, 0, keep - 1, 0);
        }
        libc::syscall(libc::SYS_close_range, keep + 1, u32::MAX, 0);
        libc::prctl(libc::PR_SET_NAME, c"uzswap-swapoff".as_ptr());
        loop {
            let len = libc::recv(socket, path.as_mut_ptr().cast(), PATH_MAX, 0);
            if len <= 0 {
                libc::_exit(0);
            }
            let child = libc::fork();
            if child == 0 {
                let failed = libc::swapoff(path.as_ptr().cast()) != 0;
                libc::_exit(if failed { *libc::__errno_location() } else { 0 });
            }
            let mut status = 0;
            let answer: i32 = if child < 0 || libc::waitpid(child, &raw mut status, 0) != child {
                libc::EAGAIN
            } else if libc::WIFEXITED(status) {
                libc::WEXITSTATUS(status)
            } else {
                libc::EINTR
            };
            libc::send(socket, (&raw const answer).cast(), size_of_val(&answer), libc::MSG_NOSIGNAL);
        }
    }
}
