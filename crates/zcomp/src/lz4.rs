//! LZ4 block format, by liblz4: fast both ways. `acceleration` trades ratio for compression speed.
//!
//! liblz4 is faster than the pure Rust `lz4_flex` on pages in both directions (docs/compressors.md); its decoder checks
//! every bound and is fuzzed upstream. Its `fastReset`, which keeps the hash table from page to page, gains nothing: what the
//! reset saves, telling old entries from new ones costs.

use std::ffi::{c_char, c_int, c_void};

use crate::registry::full_name;
use crate::state::State;
use crate::{CompressError, Compressor, Context, DecompressError, PAGE_SIZE, Page};

// Symbols of the liblz4 that lz4-sys builds and does not declare.
unsafe extern "C" {
    fn LZ4_sizeofState() -> c_int;
    fn LZ4_compress_fast_extState(
        state: *mut c_void,
        src: *const c_char,
        dst: *mut c_char,
        src_size: c_int,
        dst_capacity: c_int,
        acceleration: c_int,
    ) -> c_int;
}

/// The `lz4` compressor.
pub(crate) struct Lz4 {
    acceleration: i32,
    name: String,
}

impl Lz4 {
    pub(crate) const RANGE: std::ops::RangeInclusive<i32> = 1..=65537;
    pub(crate) const DEFAULT: i32 = 1;

    pub(crate) fn new(acceleration: i32) -> Lz4 {
        Lz4 { acceleration, name: full_name("lz4", "acceleration", acceleration, Self::DEFAULT) }
    }
}

impl Compressor for Lz4 {
    fn name(&self) -> &str {
        &self.name
    }

    fn context(&self) -> Option<Box<dyn Context>> {
        // SAFETY: takes no pointers.
        let size = usize::try_from(unsafe { LZ4_sizeofState() }).ok()?;
        Some(Box::new(Lz4Context { state: State::new(size)?, acceleration: self.acceleration }))
    }
}

struct Lz4Context {
    state: State,
    acceleration: c_int,
}

impl Context for Lz4Context {
    fn compress(&mut self, page: &Page, out: &mut [u8]) -> Result<usize, CompressError> {
        let capacity = c_int::try_from(out.len()).map_err(|_| CompressError::Codec)?;
        // SAFETY: the state is memory of the size asked for, aligned for any type, and this call resets it itself; `page` is
        // readable for PAGE_SIZE bytes and `out` writable for `capacity`.
        let len = unsafe {
            LZ4_compress_fast_extState(
                self.state.as_mut_ptr(),
                page.as_ptr().cast(),
                out.as_mut_ptr().cast(),
                PAGE_SIZE as c_int,
                capacity,
                self.acceleration,
            )
        };
        usize::try_from(len).ok().filter(|&len| len > 0).ok_or(CompressError::NoRoom)
    }

    fn decompress(&mut self, data: &[u8], page: &mut Page) -> Result<(), DecompressError> {
        decompress(data, page)
    }

    fn memory_bytes(&self) -> usize {
        self.state.len()
    }
}

/// Decodes a block of exactly a page.
pub(crate) fn decompress(data: &[u8], page: &mut Page) -> Result<(), DecompressError> {
    let size = c_int::try_from(data.len()).map_err(|_| DecompressError)?;
    // SAFETY: `data` is readable for `size` bytes and `page` writable for PAGE_SIZE; the decoder stays within both for any
    // content.
    let len = unsafe {
        lz4_sys::LZ4_decompress_safe(data.as_ptr().cast(), page.as_mut_ptr().cast(), size, PAGE_SIZE as c_int)
    };
    if usize::try_from(len) == Ok(PAGE_SIZE) { Ok(()) } else { Err(DecompressError) }
}
