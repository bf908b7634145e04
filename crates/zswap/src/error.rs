//! What can go wrong, by operation; every error maps to the errno the kernel uses there.

use std::fmt;

use swapfile::DeviceError;

/// Why a store was refused. The page is the caller's to put elsewhere, and no older copy of the entry is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// No such swap type is on, or the offset is not on it (ENODEV).
    NoArea,
    /// `enabled` is N (ENODEV).
    Disabled,
    /// The pool is at its limit (ENOMEM, `pool_limit_hit`).
    PoolLimit,
    /// The pool was full and is not down to the accept threshold yet (ENOMEM, `reject_hysteresis`).
    Hysteresis,
    /// The pool was full and nothing could be written back to make room (ENOMEM, `reject_reclaim_fail`).
    ReclaimFail,
    /// The page is not same-filled and `non_same_filled_pages_enabled` is N (EINVAL, `reject_non_same_filled`).
    NonSameFilled,
    /// The page compresses less than asked for, or to more than the allocator holds (E2BIG,
    /// `reject_compress_poor`).
    CompressPoor,
    /// The page does not compress, or the compressor failed, and the page may not be kept raw (EINVAL,
    /// `reject_compress_fail`).
    CompressFail,
    /// The allocator or the index has no memory (ENOMEM, `reject_alloc_fail`).
    AllocFail,
    /// No memory for the entry itself (ENOMEM, `reject_kmemcache_fail`).
    KmemcacheFail,
}

impl Refusal {
    /// The errno that the frontswap store returned for this.
    pub fn errno(self) -> i32 {
        match self {
            Refusal::NoArea | Refusal::Disabled => libc::ENODEV,
            Refusal::PoolLimit
            | Refusal::Hysteresis
            | Refusal::ReclaimFail
            | Refusal::AllocFail
            | Refusal::KmemcacheFail => libc::ENOMEM,
            Refusal::NonSameFilled | Refusal::CompressFail => libc::EINVAL,
            Refusal::CompressPoor => libc::E2BIG,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::NoArea => "no such swap slot",
            Refusal::Disabled => "the cache is disabled",
            Refusal::PoolLimit => "the pool is at its limit",
            Refusal::Hysteresis => "the pool is not down to its accept threshold",
            Refusal::ReclaimFail => "the pool is full and nothing could be written back",
            Refusal::NonSameFilled => "only same-filled pages are accepted",
            Refusal::CompressPoor => "the page compresses too little",
            Refusal::CompressFail => "the page does not compress",
            Refusal::AllocFail => "the pool has no memory",
            Refusal::KmemcacheFail => "no memory for the entry",
        })
    }
}

impl std::error::Error for Refusal {}

/// Why a load failed. The entry is kept: another load fails the same way or, if the cause went, succeeds.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LoadError {
    /// The stored data or its index entry is damaged (EIO, `decompress_fail`).
    Damaged,
    /// No memory for the working buffers of the compressor (ENOMEM).
    NoMemory,
    /// The page is on the swap device and could not be read (EIO).
    Device(DeviceError),
}

impl LoadError {
    /// The errno for a block request or a fault.
    pub fn errno(&self) -> i32 {
        match self {
            LoadError::Damaged | LoadError::Device(_) => libc::EIO,
            LoadError::NoMemory => libc::ENOMEM,
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Damaged => f.write_str("the stored page is damaged"),
            LoadError::NoMemory => f.write_str("no memory for the compressor"),
            LoadError::Device(error) => write!(f, "the swap device: {error:?}"),
        }
    }
}

impl std::error::Error for LoadError {}

/// Why a page could be put nowhere. Neither this page nor an older copy of the entry is held.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SwapOutError {
    /// The cache refused it and there is no swap device (ENOMEM past the limit, else the refusal's own errno).
    NoDevice(Refusal),
    /// The cache refused it and the swap device failed (EIO).
    Device(Refusal, DeviceError),
}

impl SwapOutError {
    /// The errno for a block request. Everything is EIO to the kernel's block layer in the end.
    pub fn errno(&self) -> i32 {
        libc::EIO
    }
}

impl fmt::Display for SwapOutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SwapOutError::NoDevice(refusal) => write!(f, "{refusal}, and there is no swap device"),
            SwapOutError::Device(refusal, error) => write!(f, "{refusal}, and the swap device: {error:?}"),
        }
    }
}

impl std::error::Error for SwapOutError {}

/// Why a parameter was not changed. Nothing else changed either.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ParamError {
    /// No such parameter, in this profile at least (ENOENT).
    Unknown,
    /// The parameter is set at start only (EPERM).
    StartOnly,
    /// The text is no value for it, or the value is out of its range (EINVAL); what would be one.
    Invalid(String),
    /// The number does not fit 32 bits, as the kernel says it (ERANGE); for 64-bit parameters, 64.
    Overflow,
    /// No compressor or allocator of that name (ENOENT); the ones there are.
    NoSuchName(String),
    /// Old pools still drain and every pool slot is taken (EBUSY).
    TooManyPools,
    /// No memory for the new pool (ENOMEM).
    NoMemory,
}

impl ParamError {
    /// The errno that a write to the parameter's file returns.
    pub fn errno(&self) -> i32 {
        match self {
            ParamError::Unknown | ParamError::NoSuchName(_) => libc::ENOENT,
            ParamError::StartOnly => libc::EPERM,
            ParamError::Invalid(_) => libc::EINVAL,
            ParamError::Overflow => libc::ERANGE,
            ParamError::TooManyPools => libc::EBUSY,
            ParamError::NoMemory => libc::ENOMEM,
        }
    }
}

impl fmt::Display for ParamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParamError::Unknown => f.write_str("no such parameter in this profile"),
            ParamError::StartOnly => f.write_str("it can be set at start only"),
            ParamError::Invalid(expected) => write!(f, "invalid value; expected {expected}"),
            ParamError::Overflow => f.write_str("the number is too large"),
            ParamError::NoSuchName(names) => write!(f, "no such name; there are: {names}"),
            ParamError::TooManyPools => f.write_str("too many old pools still hold pages; try again later"),
            ParamError::NoMemory => f.write_str("no memory for a new pool"),
        }
    }
}

impl std::error::Error for ParamError {}
