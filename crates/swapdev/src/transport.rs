//! Ways to make a block device of a page store.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use crate::fuse::{FuseError, FuseFile};
use crate::loopdev::{LoopDevice, LoopError};
use crate::{Errno, PageStore};

/// The transports known by name.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Via {
    /// The best one that this build and this kernel have.
    #[default]
    Auto,
    /// A ublk device. Not built yet.
    Ublk,
    /// A network block device. Not built yet.
    Nbd,
    /// A FUSE file and a loop device.
    Fuse,
}

impl Via {
    const NAMES: [(&'static str, Self); 4] =
        [("auto", Self::Auto), ("ublk", Self::Ublk), ("nbd", Self::Nbd), ("fuse", Self::Fuse)];

    /// Makes a device, through whatever `self` says.
    ///
    /// # Errors
    /// [`AttachError`]; nothing is left then.
    pub fn attach(self, what: Attach<'_>) -> Result<Box<dyn Transport>, AttachError> {
        match self {
            Self::Auto | Self::Fuse => Ok(Box::new(FuseLoop::attach(what)?)),
            Self::Ublk | Self::Nbd => Err(AttachError::NotBuilt(self)),
        }
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(_, via)| via == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

impl FromStr for Via {
    type Err = AttachError;

    fn from_str(name: &str) -> Result<Self, AttachError> {
        let known = Self::NAMES.iter().find(|(known, _)| *known == name);
        known.map(|(_, via)| *via).ok_or_else(|| AttachError::Unknown(name.to_owned()))
    }
}

/// What a transport is to attach.
pub struct Attach<'a> {
    /// The pages to serve.
    pub store: Arc<dyn PageStore>,
    /// Serving threads.
    pub threads: NonZeroUsize,
    /// What the device is called where it has a name, at most 63 bytes.
    pub label: &'a str,
    /// Told of each device node before the device is made.
    pub record: &'a mut dyn FnMut(&Path) -> io::Result<()>,
}

/// A block device that is being served. Dropping it lets go of the device; if the kernel swaps to it, that goes on.
pub trait Transport: Send + fmt::Debug {
    /// Which one this is; never [`Via::Auto`].
    fn via(&self) -> Via;

    /// The device node.
    fn path(&self) -> &Path;

    /// Reads or writes at the start of the device go through this, with buffers aligned to 4096 bytes.
    fn device(&self) -> &std::fs::File;

    /// Takes the device away and stops serving.
    ///
    /// # Errors
    /// [`DetachError`] when somebody still has the device open: it is served until they close it.
    fn detach(self: Box<Self>) -> Result<(), DetachError>;
}

/// Why there is no device.
#[derive(Debug)]
pub enum AttachError {
    /// No transport has this name.
    Unknown(String),
    /// This one is only a name so far.
    NotBuilt(Via),
    /// The FUSE file.
    Fuse(FuseError),
    /// The loop device.
    Loop(LoopError),
}

impl AttachError {
    /// The nearest errno.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Unknown(_) => Errno::INVAL,
            Self::NotBuilt(_) => Errno::OPNOTSUPP,
            Self::Fuse(error) => error.errno(),
            Self::Loop(error) => error.errno(),
        }
    }
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "{name}: no such transport; there are auto, ublk, nbd and fuse"),
            Self::NotBuilt(via) => write!(f, "{via}: not built yet; use fuse"),
            Self::Fuse(error) => error.fmt(f),
            Self::Loop(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for AttachError {}

/// Why a device is still there.
#[derive(Debug)]
pub enum DetachError {
    /// The loop device.
    Loop(LoopError),
    /// The FUSE file.
    Fuse(FuseError),
}

impl DetachError {
    /// The nearest errno.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Loop(error) => error.errno(),
            Self::Fuse(error) => error.errno(),
        }
    }
}

impl fmt::Display for DetachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loop(error) => error.fmt(f),
            Self::Fuse(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DetachError {}

/// A FUSE file with a loop device on it.
#[derive(Debug)]
struct FuseLoop {
    // In this order when dropped: the device holds the file.
    device: LoopDevice,
    file: FuseFile,
}

impl FuseLoop {
    fn attach(what: Attach<'_>) -> Result<Self, AttachError> {
        let file = FuseFile::serve(what.store, what.threads, what.label).map_err(AttachError::Fuse)?;
        let device = LoopDevice::attach(file.file(), what.label, what.record).map_err(AttachError::Loop)?;
        Ok(Self { device, file })
    }
}

impl Transport for FuseLoop {
    fn via(&self) -> Via {
        Via::Fuse
    }

    fn path(&self) -> &Path {
        self.device.path()
    }

    fn device(&self) -> &std::fs::File {
        self.device.device()
    }

    fn detach(self: Box<Self>) -> Result<(), DetachError> {
        let Self { device, file } = *self;
        device.detach().map_err(DetachError::Loop)?;
        file.end().map_err(DetachError::Fuse)
    }
}
