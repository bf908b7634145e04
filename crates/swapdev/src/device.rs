//! A swap device from beginning to end.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::cleanup::{self, CleanupError};
use crate::header::{MIN_PAGES, Uuid, swap_header};
use crate::kit::{self, KitError};
use crate::state::{Instance, ROOT, Record, StateError};
use crate::swapoff::Swapoff;
use crate::swapon::{Priority, SwapError, area_at, swapon};
use crate::transport::{Attach, AttachError, DetachError, Transport, Via};
use crate::{Errno, Page, PageStore};

/// How long what a dead server of the same name left may take to be undone.
const CLEANUP_LIMIT: Duration = Duration::from_secs(120);

/// What kind of device to make.
#[derive(Clone, Debug)]
pub struct Config {
    /// The instance's name; see [`crate::check_name`].
    pub name: String,
    /// The directory of all instances.
    pub root: PathBuf,
    /// How to make the device.
    pub via: Via,
    /// Serving threads.
    pub threads: NonZeroUsize,
    /// The swap area's priority.
    pub priority: Priority,
}

impl Config {
    /// Everything by default: under /run/uzswap, any transport, two threads, priority 100.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            root: ROOT.into(),
            via: Via::Auto,
            threads: const { NonZeroUsize::new(2).expect("two is not zero") },
            priority: Priority::default(),
        }
    }
}

/// Why a device could not be made, or is still there.
#[derive(Debug)]
pub enum DeviceError {
    /// The store has too few or too many pages for a swap area.
    Size(u64, Errno),
    /// The instance's directory.
    State(StateError),
    /// What a dead server of the same name left could not be undone.
    Leftover(CleanupError),
    /// The process for swapoff could not be made.
    Helper(Errno),
    /// The deadlock kit.
    Kit(KitError),
    /// The device.
    Attach(AttachError),
    /// The header could not be written.
    Header(PathBuf, io::Error),
    /// The area could not be turned on; or off, and then it is still on, served and whole.
    Swap(SwapError),
    /// /proc/swaps could not be read.
    Swaps(io::Error),
    /// The area is off, but somebody still has the device open. It is served until they close it.
    Detach(DetachError),
}

impl DeviceError {
    /// The nearest errno.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Size(_, errno) | Self::Helper(errno) => *errno,
            Self::State(error) => error.errno(),
            Self::Leftover(error) => error.errno(),
            Self::Kit(error) => error.errno(),
            Self::Attach(error) => error.errno(),
            Self::Header(_, error) | Self::Swaps(error) => Errno::from_io_error(error).unwrap_or(Errno::IO),
            Self::Swap(error) => error.errno,
            Self::Detach(error) => error.errno(),
        }
    }
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(pages, Errno::INVAL) => {
                write!(f, "size: {pages} pages are too few; a swap area has at least {MIN_PAGES}")
            }
            Self::Size(pages, errno) => write!(f, "size: {pages} pages: {errno}"),
            Self::State(error) => error.fmt(f),
            Self::Leftover(error) => write!(f, "left by an earlier server: {error}"),
            Self::Helper(errno) => write!(f, "swapoff: cannot start a process: {errno}"),
            Self::Kit(error) => error.fmt(f),
            Self::Attach(error) => error.fmt(f),
            Self::Header(path, error) => {
                write!(f, "{}: cannot write the swap header: {error}", path.display())
            }
            Self::Swap(error) => error.fmt(f),
            Self::Swaps(error) => write!(f, "/proc/swaps: {error}"),
            Self::Detach(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DeviceError {}

/// A block device that is swapped on and served by this process.
///
/// Dropping it turns it off as [`Device::swapoff_and_close`] does. If that fails the device stays on and served until
/// the process ends: a live page is never dropped.
#[derive(Debug)]
pub struct Device {
    // None once closed.
    parts: Option<Parts>,
    missing: Vec<KitError>,
}

#[derive(Debug)]
struct Parts {
    transport: Box<dyn Transport>,
    swapoff: Swapoff,
    instance: Instance,
}

/// What a device is made of before it has its parts, and what is missing of the kit.
type Built = (Box<dyn Transport>, Swapoff, Vec<KitError>);

#[repr(C, align(4096))]
struct Aligned(Page);

impl Device {
    /// Makes the device, writes the header and turns it on. What a dead server of the same name left is undone first.
    /// Each step is undone when a later one fails, except the deadlock kit, which stays with the process.
    ///
    /// # Errors
    /// [`DeviceError`]; nothing is left then.
    pub fn create(store: Arc<dyn PageStore>, config: &Config) -> Result<Self, DeviceError> {
        let pages = store.pages();
        let uuid = Uuid::random().map_err(|errno| DeviceError::Size(pages, errno))?;
        let header =
            swap_header(pages, uuid, &config.name).map_err(|errno| DeviceError::Size(pages, errno))?;
        let instance = Instance::claim(&config.root, &config.name).map_err(DeviceError::State)?;
        match Self::build(store, config, &instance, uuid, header) {
            Ok((transport, swapoff, missing)) => {
                Ok(Self { parts: Some(Parts { transport, swapoff, instance }), missing })
            }
            Err(error @ DeviceError::Leftover(_)) => Err(error),
            Err(error) => {
                // The first failure is the one to tell.
                let _ = instance.remove();
                Err(error)
            }
        }
    }

    fn build(
        store: Arc<dyn PageStore>,
        config: &Config,
        instance: &Instance,
        uuid: Uuid,
        header: Page,
    ) -> Result<Built, DeviceError> {
        cleanup::undo(instance, CLEANUP_LIMIT).map_err(DeviceError::Leftover)?;
        // Before the kit: the process must not be a copy of a large one, nor unkillable.
        let swapoff = Swapoff::new().map_err(DeviceError::Helper)?;
        let missing = kit::engage().map_err(DeviceError::Kit)?;
        // Eight digits of the UUID tell this device from any other of the same name, now or after a crash.
        let token = format!("uzswap:{}:{}", config.name, &uuid.to_string()[..8]);
        let mut record =
            |path: &Path| instance.record(&Record { path: path.to_owned(), token: token.clone() });
        let attach = Attach { store, threads: config.threads, label: &token, record: &mut record };
        let transport = config.via.attach(attach).map_err(DeviceError::Attach)?;
        let path = transport.path().to_owned();
        let on = transport
            .device()
            .write_all_at(&Aligned(header).0, 0)
            .map_err(|error| DeviceError::Header(path.clone(), error))
            .and_then(|()| {
                let swap = |errno| DeviceError::Swap(SwapError { what: "swapon", path, errno });
                swapon(transport.path(), config.priority).map_err(swap)
            });
        match on {
            Ok(()) => Ok((transport, swapoff, missing)),
            Err(error) => {
                let _ = transport.detach();
                Err(error)
            }
        }
    }

    /// The parts of the deadlock kit that a missing capability kept from being engaged.
    pub fn missing_kit(&self) -> &[KitError] {
        &self.missing
    }

    /// The block device; none once closed.
    pub fn path(&self) -> Option<&Path> {
        self.parts.as_ref().map(|parts| parts.transport.path())
    }

    /// The instance's directory; none once closed.
    pub fn dir(&self) -> Option<&Path> {
        self.parts.as_ref().map(|parts| parts.instance.dir())
    }

    /// Which transport serves it; none once closed.
    pub fn via(&self) -> Option<Via> {
        self.parts.as_ref().map(|parts| parts.transport.via())
    }

    /// Turns the area off, which brings every page back into memory, then takes the device away. May take minutes.
    /// An area that somebody else has turned off already is only taken away. Done again, it does nothing.
    ///
    /// # Errors
    /// [`DeviceError::Swap`]: everything is still up and may be tried again. `ENOMEM`: the pages do not fit in
    /// memory. `EINTR`: the process that brought them back was killed for want of memory. [`DeviceError::Detach`]:
    /// the area is off.
    pub fn swapoff_and_close(&mut self) -> Result<(), DeviceError> {
        let Some(parts) = &self.parts else { return Ok(()) };
        let path = parts.transport.path();
        if area_at(path).map_err(DeviceError::Swaps)?.is_some() {
            let swap = |errno| DeviceError::Swap(SwapError { what: "swapoff", path: path.to_owned(), errno });
            parts.swapoff.swapoff(path, None).map_err(swap)?;
        }
        let Some(parts) = self.parts.take() else { return Ok(()) };
        parts.transport.detach().map_err(DeviceError::Detach)?;
        parts.instance.remove().map_err(DeviceError::State)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if self.swapoff_and_close().is_err() {
            // What is left serves on, and its lock stays held, until the process ends.
            std::mem::forget(self.parts.take());
        }
    }
}
