//! Loop devices: a block device on an open file.
//!
//! Devices are made with `LOOP_CONFIGURE` (Linux 5.8), which sets file, block size and flags in one step, so that no
//! half-made device is ever seen. Always with direct I/O (no page cache between the kernel and us) and autoclear: the
//! device goes away with its last opener, and while it is swapped on, the kernel is that opener.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::Dev;

use crate::{Errno, PAGE_SIZE};

// From <linux/loop.h>; not in libc.
const LOOP_CLR_FD: libc::c_ulong = 0x4C01;
const LOOP_GET_STATUS64: libc::c_ulong = 0x4C05;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;
const LO_NAME_SIZE: usize = 64;

#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; LO_NAME_SIZE],
    crypt_name: [u8; LO_NAME_SIZE],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopInfo64>() == 232 && size_of::<LoopConfig>() == 304);

impl LoopInfo64 {
    const ZERO: Self = Self {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        sizelimit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: 0,
        file_name: [0; LO_NAME_SIZE],
        crypt_name: [0; LO_NAME_SIZE],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
}

/// How often another program may take the free device that we were told of before we give up.
const ATTEMPTS: usize = 32;
/// How long a device may stay after its last close; another program (udev) may have it open for a moment.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a loop device could not be made, asked or cleared.
#[derive(Debug)]
pub enum LoopError {
    /// /dev/loop-control could not be opened or has no free device.
    Control(Errno),
    /// The device node could not be opened.
    Open(PathBuf, Errno),
    /// The caller could not write down which device is about to be made.
    Record(io::Error),
    /// Every free device was taken by somebody else first.
    Taken,
    /// `LOOP_CONFIGURE` failed.
    Configure(PathBuf, Errno),
    /// The kernel would go through the page cache.
    NotDirect(PathBuf),
    /// The kernel does not pass discards on, so freed pages would never come back.
    NoDiscard(PathBuf),
    /// The device is still there.
    Busy(PathBuf),
    /// `LOOP_GET_STATUS64` or `LOOP_CLR_FD` failed.
    Control2(PathBuf, Errno),
}

impl LoopError {
    /// The nearest errno.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Control(errno)
            | Self::Open(_, errno)
            | Self::Configure(_, errno)
            | Self::Control2(_, errno) => *errno,
            Self::Record(error) => Errno::from_io_error(error).unwrap_or(Errno::IO),
            Self::Taken | Self::Busy(_) => Errno::BUSY,
            Self::NotDirect(_) | Self::NoDiscard(_) => Errno::OPNOTSUPP,
        }
    }
}

impl fmt::Display for LoopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control(Errno::NOENT | Errno::NXIO | Errno::NODEV) => {
                f.write_str("/dev/loop-control: not there; load the kernel module loop (modprobe loop)")
            }
            Self::Control(errno) => write!(f, "/dev/loop-control: {errno}"),
            Self::Open(path, errno) => write!(f, "{}: {errno}", path.display()),
            Self::Record(error) => write!(f, "loop device: cannot record it: {error}"),
            Self::Taken => write!(f, "loop device: others took the free one {ATTEMPTS} times; try again"),
            Self::Configure(path, Errno::INVAL | Errno::NOTTY) => {
                write!(f, "{}: LOOP_CONFIGURE refused; needs Linux 5.8 or newer", path.display())
            }
            Self::Configure(path, errno) => write!(f, "{}: LOOP_CONFIGURE: {errno}", path.display()),
            Self::NotDirect(path) => write!(f, "{}: the kernel refuses direct I/O on it", path.display()),
            Self::NoDiscard(path) => write!(f, "{}: the kernel does not pass discards on", path.display()),
            Self::Busy(path) => {
                write!(f, "{}: still open elsewhere; it goes away when that is closed", path.display())
            }
            Self::Control2(path, errno) => write!(f, "{}: {errno}", path.display()),
        }
    }
}

impl std::error::Error for LoopError {}

/// A loop device of ours, held open with `O_DIRECT`.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    device: File,
}

impl LoopDevice {
    /// Makes a loop device on `backing`, called `name` (at most 63 bytes) in its status. `record` is told the path of
    /// each device before it is tried, so that a crash right after leaves no device nobody knows of.
    ///
    /// # Errors
    /// [`LoopError`]; nothing is left then.
    pub fn attach(
        backing: BorrowedFd<'_>,
        name: &str,
        record: &mut dyn FnMut(&Path) -> io::Result<()>,
    ) -> Result<Self, LoopError> {
        let control = open("/dev/loop-control".as_ref(), 0).map_err(LoopError::Control)?;
        let mut info = LoopInfo64 { flags: LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO, ..LoopInfo64::ZERO };
        // The kernel wants the last byte zero.
        for (to, from) in info.file_name[..LO_NAME_SIZE - 1].iter_mut().zip(name.bytes()) {
            *to = from;
        }
        for _ in 0..ATTEMPTS {
            // SAFETY: this request takes no argument.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
            if number < 0 {
                return Err(LoopError::Control(last_errno()));
            }
            let path = PathBuf::from(format!("/dev/loop{number}"));
            record(&path).map_err(LoopError::Record)?;
            let device = match open(&path, libc::O_DIRECT) {
                Ok(device) => device,
                Err(Errno::NXIO | Errno::BUSY) => continue,
                Err(errno) => return Err(LoopError::Open(path, errno)),
            };
            let config = LoopConfig {
                // An open descriptor is not negative.
                fd: backing.as_raw_fd().unsigned_abs(),
                block_size: 4096,
                info,
                reserved: [0; 8],
            };
            // SAFETY: LOOP_CONFIGURE reads one struct loop_config, whose size is asserted above.
            if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) } == 0 {
                let device = Self { path, device };
                device.check()?;
                return Ok(device);
            }
            match last_errno() {
                Errno::BUSY => {}
                errno => return Err(LoopError::Configure(path, errno)),
            }
        }
        Err(LoopError::Taken)
    }

    /// The device node.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The device, open for reading and writing with `O_DIRECT`: buffers must be aligned to 4096 bytes.
    pub fn device(&self) -> &File {
        &self.device
    }

    fn check(&self) -> Result<(), LoopError> {
        let attribute = |what: &str| read_attribute(&self.path, what).unwrap_or_default();
        if attribute("loop/dio") != "1" {
            return Err(LoopError::NotDirect(self.path.clone()));
        }
        let granularity = attribute("queue/discard_granularity");
        if attribute("queue/discard_max_bytes").parse().unwrap_or(0_u64) < PAGE_SIZE as u64
            || granularity != "4096"
        {
            return Err(LoopError::NoDiscard(self.path.clone()));
        }
        Ok(())
    }

    /// Closes the device and waits until the kernel has let go of the file under it.
    ///
    /// # Errors
    /// [`LoopError::Busy`] when somebody else has it open; it goes away with them.
    pub fn detach(self) -> Result<(), LoopError> {
        let path = self.path;
        // The name is ours alone, so a device that somebody made in our place meanwhile is not taken for ours.
        let ours = status_of(&self.device, &path)?;
        drop(self.device);
        let until = Instant::now() + PATIENCE;
        while status(&path)?.is_some_and(|now| now.name == ours.name) {
            if Instant::now() > until {
                return Err(LoopError::Busy(path));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

/// What the kernel says of a loop device in use.
pub struct Status {
    /// The name given when it was made.
    pub name: Vec<u8>,
    /// The device number of the file system its file is on.
    pub backing_dev: Dev,
}

/// Asks for the state of the device at `path`; none when it is free or not there.
///
/// # Errors
/// [`LoopError`] for anything else.
pub fn status(path: &Path) -> Result<Option<Status>, LoopError> {
    // Opening a free device does nothing; autoclear makes closing ours harmless too, as it is open elsewhere or gone.
    let device = match OpenOptions::new().read(true).custom_flags(libc::O_CLOEXEC).open(path) {
        Ok(device) => device,
        Err(error) => match Errno::from_io_error(&error).unwrap_or(Errno::IO) {
            Errno::NOENT | Errno::NXIO | Errno::NODEV => return Ok(None),
            errno => return Err(LoopError::Open(path.into(), errno)),
        },
    };
    match status_of(&device, path) {
        Ok(status) => Ok(Some(status)),
        Err(LoopError::Control2(_, Errno::NXIO)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn status_of(device: &File, path: &Path) -> Result<Status, LoopError> {
    let mut info = LoopInfo64::ZERO;
    // SAFETY: LOOP_GET_STATUS64 writes one struct loop_info64, whose size is asserted above.
    if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) } != 0 {
        return Err(LoopError::Control2(path.into(), last_errno()));
    }
    let name = info.file_name.iter().take_while(|&&byte| byte != 0).copied().collect();
    Ok(Status { name, backing_dev: info.device })
}

/// Takes the file from the device at `path` (at its last close, when others have it open).
///
/// # Errors
/// [`LoopError`]; a device that has no file is none.
pub fn clear(path: &Path) -> Result<(), LoopError> {
    let device = open(path, 0).map_err(|errno| LoopError::Open(path.into(), errno))?;
    // SAFETY: this request takes no argument.
    match unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD) } {
        0 => Ok(()),
        _ => match last_errno() {
            Errno::NXIO => Ok(()),
            errno => Err(LoopError::Control2(path.into(), errno)),
        },
    }
}

/// Reads a file under the device's directory in /sys/block.
///
/// # Errors
/// As for reading a file.
pub fn read_attribute(path: &Path, what: &str) -> io::Result<String> {
    let name = path.file_name().unwrap_or_default();
    let file = Path::new("/sys/block").join(name).join(what);
    Ok(std::fs::read_to_string(file)?.trim_end().to_owned())
}

fn open(path: &Path, flags: libc::c_int) -> Result<File, Errno> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags | libc::O_CLOEXEC).open(path);
    file.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}
