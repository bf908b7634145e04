//! Pages in a regular file or on a block device.
//!
//! I/O goes around the page cache (O_DIRECT) where the file system can: a page that was swapped out must not stay in
//! RAM as cache. Pages that are not aligned are copied through a fixed set of buffers, so reading and writing take no
//! memory. What this trades: a copy of 4 KiB for each such page, and waiting when all buffers are in use. Where direct
//! I/O cannot be had, the page cache is used and [`File::is_direct`] says so.
//!
//! It never reads or writes past the pages it counted when it was opened, and never opens what the kernel swaps to, what
//! another uzswap has open, or a block device that somebody claimed.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{
    FallocateFlags, FileType, FlockOperation, Mode, OFlags, SeekFrom, Stat, fallocate, fchmod, fcntl_getfl,
    fcntl_setfl, fdatasync, flock, fstat, ftruncate, open, seek, stat,
};
use rustix::io::{Errno, pread, pwrite, retry_on_intr};

use crate::bounce::{Buffers, RUN};
use crate::space::Space;
use crate::{DeviceError, OpenError, PAGE_SIZE, Page, SwapDevice, check_range, in_use, run_length};

/// What to do when the file to be created is there already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Existing {
    /// [`OpenError::Exists`].
    Refuse,
    /// Empty it, if it is a regular file that nobody uses.
    Replace,
}

/// See the head of this file.
pub struct File {
    fd: OwnedFd,
    kind: Kind,
    pages: u64,
    /// For direct I/O; without it I/O goes through the page cache.
    buffers: Option<Buffers>,
    /// Of a regular file.
    space: Option<Space>,
    /// The device has not said yet that it cannot discard.
    discards: AtomicBool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Regular,
    Block,
}

impl File {
    /// Makes a sparse file of `pages` pages that only its owner may read and write (mode 0600). A symbolic link is not
    /// followed. Where this fails after it made the file, the file is removed again.
    pub fn create(path: &Path, pages: u64, existing: Existing) -> Result<File, OpenError> {
        if pages == 0 {
            return Err(OpenError::Empty);
        }
        let size = byte_offset(pages).ok_or(OpenError::TooBig)?;
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let owner = Mode::RUSR | Mode::WUSR;
        let (fd, new) = match open(path, flags | OFlags::CREATE | OFlags::EXCL, owner) {
            Ok(fd) => (fd, true),
            Err(Errno::EXIST) if existing == Existing::Replace => {
                (open(path, flags | OFlags::NONBLOCK, Mode::empty()).map_err(open_error)?, false)
            }
            Err(errno) => return Err(open_error(errno)),
        };
        let sized = || {
            let it = fstat(&fd)?;
            if kind(&it)? != Kind::Regular {
                return Err(OpenError::Exists);
            }
            claim(&fd, &it)?;
            // The mode given to `open` went through the umask, and an older file has its own.
            fchmod(&fd, owner)?;
            ftruncate(&fd, 0)?;
            Ok(ftruncate(&fd, size)?)
        };
        let file = sized().and_then(|()| File::new(fd, Kind::Regular, pages));
        if file.is_err() && new {
            // The error to tell is the first one.
            let _ = fs::remove_file(path);
        }
        file
    }

    /// Opens a regular file or block device that is there and has at least `needed` pages. Bytes after its last whole
    /// page are left alone. Symbolic links are followed: /dev/disk/by-id is made of them.
    pub fn open(path: &Path, needed: u64) -> Result<File, OpenError> {
        // Looked at before it is opened, because opening some devices already does something.
        let it = stat(path).map_err(open_error)?;
        kind(&it)?;
        // EXCL claims a block device and means nothing for a file.
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::EXCL | OFlags::NONBLOCK;
        let fd = match open(path, flags, Mode::empty()) {
            Err(Errno::BUSY) if in_use::as_swap(&it) => return Err(OpenError::InUseAsSwap),
            opened => opened.map_err(open_error)?,
        };
        let it = fstat(&fd)?;
        let kind = kind(&it)?;
        claim(&fd, &it)?;
        // The kernel opens a read-only block device for writing too, and fails each write then.
        if kind == Kind::Block && block::is_read_only(&fd)? {
            return Err(OpenError::NotWritable(libc::EROFS));
        }
        // The end of a block device is its size, too.
        let pages = seek(&fd, SeekFrom::End(0))? / PAGE_SIZE as u64;
        if pages == 0 {
            return Err(OpenError::Empty);
        }
        if pages < needed {
            return Err(OpenError::TooSmall { pages, needed });
        }
        File::new(fd, kind, pages)
    }

    fn new(fd: OwnedFd, kind: Kind, pages: u64) -> Result<File, OpenError> {
        let space = (kind == Kind::Regular).then(|| Space::new(&fd, pages));
        let mut file = File { fd, kind, pages, buffers: None, space, discards: AtomicBool::new(true) };
        file.go_direct()?;
        Ok(file)
    }

    /// Turns direct I/O on if reading a page that way works: whether it does depends on file system, device and
    /// their block sizes.
    fn go_direct(&mut self) -> Result<(), OpenError> {
        let flags = fcntl_getfl(&self.fd)? - OFlags::NONBLOCK;
        let buffers = Buffers::new()?;
        let direct = fcntl_setfl(&self.fd, flags | OFlags::DIRECT)
            .and_then(|()| retry_on_intr(|| pread(&self.fd, buffers.take().as_flattened_mut(), 0)));
        match direct {
            Ok(_) => self.buffers = Some(buffers),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => fcntl_setfl(&self.fd, flags)?,
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    /// Whether I/O goes around the page cache.
    pub fn is_direct(&self) -> bool {
        self.buffers.is_some()
    }

    /// The buffers, where `at` cannot be used for I/O itself.
    fn bounce(&self, at: *const Page) -> Option<&Buffers> {
        self.buffers.as_ref().filter(|_| !at.addr().is_multiple_of(PAGE_SIZE))
    }

    /// Calls `request(done, offset)` until it has moved `length` bytes from page `first` on. It returns how many bytes
    /// it moved of those after the first `done`.
    fn transfer(
        &self,
        first: u64,
        length: usize,
        mut request: impl FnMut(usize, u64) -> Result<usize, Errno>,
    ) -> Result<(), DeviceError> {
        let start = first.checked_mul(PAGE_SIZE as u64).ok_or(DeviceError::OutOfRange)?;
        let mut done = 0;
        let mut stalls = 0;
        while done < length {
            let moved = retry_on_intr(|| request(done, start + done as u64))?;
            let mut now = done + moved;
            if self.is_direct() && now < length {
                // Direct I/O goes on at a page's start only.
                now -= now % PAGE_SIZE;
            }
            if now == done {
                // Once more, because the kernel says why it stopped only when asked again.
                stalls += 1;
                if stalls > 1 || moved == 0 {
                    return Err(Errno::IO.into());
                }
            }
            done = now;
        }
        Ok(())
    }

    fn read_into(&self, first: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        self.transfer(first, out.len(), |done, offset| {
            pread(&self.fd, out.get_mut(done..).unwrap_or_default(), offset)
        })
    }

    fn write_from(&self, first: u64, data: &[u8]) -> Result<(), DeviceError> {
        self.transfer(first, data.len(), |done, offset| {
            pwrite(&self.fd, data.get(done..).unwrap_or_default(), offset)
        })
    }

    fn punch(&self, first: u64, count: u64) -> Result<(), Errno> {
        let (offset, length) = (first * PAGE_SIZE as u64, count * PAGE_SIZE as u64);
        match self.kind {
            Kind::Regular => {
                fallocate(&self.fd, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length)
            }
            Kind::Block => block::discard(&self.fd, offset, length),
        }
    }
}

impl SwapDevice for File {
    fn pages(&self) -> u64 {
        self.pages
    }

    /// `Io(EIO)` where somebody has cut the file off before the page.
    fn read_page(&self, page: u64, out: &mut Page) -> Result<(), DeviceError> {
        self.read_pages(page, std::slice::from_mut(out))
    }

    /// As [`File::read_page`].
    fn read_pages(&self, first: u64, out: &mut [Page]) -> Result<(), DeviceError> {
        check_range(self.pages, first, run_length(out))?;
        let Some(buffers) = self.bounce(out.as_ptr()) else {
            return self.read_into(first, out.as_flattened_mut());
        };
        let mut buffer = buffers.take();
        for (run, first) in out.chunks_mut(RUN).zip((first..).step_by(RUN)) {
            let aligned = buffer.get_mut(..run.len()).unwrap_or_default();
            self.read_into(first, aligned.as_flattened_mut())?;
            run.copy_from_slice(aligned);
        }
        Ok(())
    }

    fn write_pages(&self, first: u64, data: &[Page]) -> Result<(), DeviceError> {
        check_range(self.pages, first, run_length(data))?;
        if let Some(space) = &self.space {
            space.take_ahead(&self.fd, first, first + run_length(data));
        }
        let Some(buffers) = self.bounce(data.as_ptr()) else {
            return self.write_from(first, data.as_flattened());
        };
        let mut buffer = buffers.take();
        for (run, first) in data.chunks(RUN).zip((first..).step_by(RUN)) {
            for (aligned, page) in buffer.iter_mut().zip(run) {
                aligned.copy_from_slice(page);
            }
            let aligned = buffer.get(..run.len()).unwrap_or_default();
            self.write_from(first, aligned.as_flattened())?;
        }
        Ok(())
    }

    /// Makes a hole in a file, and discards on a block device. That is advice: one that cannot is no error.
    fn discard(&self, first: u64, count: u64) -> Result<(), DeviceError> {
        check_range(self.pages, first, count)?;
        if count == 0 || !self.discards.load(Ordering::Relaxed) {
            return Ok(());
        }
        match retry_on_intr(|| self.punch(first, count)) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.discards.store(false, Ordering::Relaxed);
                Ok(())
            }
            done => Ok(done?),
        }
    }

    fn flush(&self) -> Result<(), DeviceError> {
        Ok(retry_on_intr(|| fdatasync(&self.fd))?)
    }

    fn memory_bytes(&self) -> usize {
        0
    }
}

/// Where page number `page` starts in a file, if a file can reach that far.
fn byte_offset(page: u64) -> Option<u64> {
    page.checked_mul(PAGE_SIZE as u64).filter(|offset| i64::try_from(*offset).is_ok())
}

fn kind(it: &Stat) -> Result<Kind, OpenError> {
    match FileType::from_raw_mode(it.st_mode) {
        FileType::RegularFile => Ok(Kind::Regular),
        FileType::BlockDevice => Ok(Kind::Block),
        FileType::Directory => Err(OpenError::Directory),
        _ => Err(OpenError::NotStorage),
    }
}

/// Makes sure that nobody else uses it, and that no other uzswap will. A lock goes when the file is closed, however that
/// comes about.
fn claim(fd: &OwnedFd, it: &Stat) -> Result<(), OpenError> {
    if in_use::as_swap(it) {
        return Err(OpenError::InUseAsSwap);
    }
    // A block device is claimed by EXCL already, and udev takes passing locks on those.
    if kind(it)? == Kind::Regular {
        flock(fd, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
            Errno::WOULDBLOCK => OpenError::Locked,
            errno => errno.into(),
        })?;
    }
    Ok(())
}

fn open_error(errno: Errno) -> OpenError {
    match errno {
        Errno::NOENT | Errno::NOTDIR => OpenError::Missing,
        Errno::EXIST => OpenError::Exists,
        Errno::LOOP => OpenError::Symlink,
        Errno::ISDIR => OpenError::Directory,
        Errno::NXIO => OpenError::NotStorage,
        Errno::BUSY | Errno::TXTBSY => OpenError::Busy,
        Errno::ROFS | Errno::ACCESS | Errno::PERM => OpenError::NotWritable(errno.raw_os_error()),
        errno => errno.into(),
    }
}

mod block {
    //! The requests that only block devices have.

    use std::os::fd::{AsRawFd, OwnedFd};

    use rustix::io::Errno;

    /// BLKROGET, `_IO(0x12, 94)` in linux/fs.h; gives an int.
    const BLKROGET: libc::c_ulong = 0x125e;

    pub(super) fn is_read_only(fd: &OwnedFd) -> Result<bool, Errno> {
        let mut read_only: libc::c_int = 0;
        // SAFETY: the request writes one int to `read_only`, which lives across the call.
        match unsafe { libc::ioctl(fd.as_raw_fd(), BLKROGET, &raw mut read_only) } {
            0 => Ok(read_only != 0),
            _ => Err(last_errno()),
        }
    }

    /// BLKDISCARD, `_IO(0x12, 119)` in linux/fs.h; takes start and length in bytes.
    const BLKDISCARD: libc::c_ulong = 0x1277;

    pub(super) fn discard(fd: &OwnedFd, offset: u64, length: u64) -> Result<(), Errno> {
        let range = [offset, length];
        // SAFETY: the request reads two u64 from `range`, which lives across the call, and writes no memory of ours.
        match unsafe { libc::ioctl(fd.as_raw_fd(), BLKDISCARD, &raw const range) } {
            0 => Ok(()),
            _ => Err(last_errno()),
        }
    }

    fn last_errno() -> Errno {
        Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
    }
}
