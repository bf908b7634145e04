//! Page compressors behind one trait.
//!
//! A [`Compressor`] is named as in the kernel (`lzo`, `lz4`, `zstd(level=3)`, …) and makes [`Context`]s. A context
//! holds all working memory of one thread, so that compressing a page allocates nothing. Input to
//! [`Context::decompress`] is never trusted: damage gives an error, never a panic, never a wrong length.

mod deflate;
mod lz4;
mod lz4hc;
mod lzo;
mod memory;
mod registry;
mod state;
mod weft;
mod zstd;

pub use registry::{lookup, names};

/// Bytes in a page: the only size of input there is.
pub const PAGE_SIZE: usize = 4096;

/// A page's bytes.
pub type Page = [u8; PAGE_SIZE];

/// Why a page was not compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CompressError {
    /// The result does not fit the output buffer: the page does not compress (the kernel's ENOSPC).
    NoRoom,
    /// The codec failed for another reason.
    Codec,
}

/// The data is not what the compressor makes of a 4096-byte page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DecompressError;

/// Why a name gave no compressor.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LookupError {
    /// No compressor of that name (ENOENT).
    Unknown,
    /// Known by name, but its hardware or library is not here (ENOENT); the text says what is missing.
    Unavailable(&'static str),
    /// The name is known and what stands in the brackets is not (EINVAL); the text says what is allowed.
    BadParameter(String),
}

impl LookupError {
    /// The errno that a write of the name to the `compressor` parameter returns.
    pub fn errno(&self) -> i32 {
        match self {
            LookupError::Unknown | LookupError::Unavailable(_) => libc::ENOENT,
            LookupError::BadParameter(_) => libc::EINVAL,
        }
    }
}

/// A page compressor.
pub trait Compressor: Send + Sync {
    /// The name that [`lookup`] finds this under again, parameters included where they are not the default.
    fn name(&self) -> &str;

    /// Working memory for one thread; `None` where there is no memory.
    fn context(&self) -> Option<Box<dyn Context>>;
}

/// The working memory of one thread for one compressor.
pub trait Context: Send {
    /// Compresses `page` into the start of `out` and returns the length. Writes nothing past `out`.
    fn compress(&mut self, page: &Page, out: &mut [u8]) -> Result<usize, CompressError>;

    /// Fills all of `page` from exactly `data`; on an error the content of `page` is undefined.
    fn decompress(&mut self, data: &[u8], page: &mut Page) -> Result<(), DecompressError>;

    /// Bytes of memory this context holds.
    fn memory_bytes(&self) -> usize;
}
