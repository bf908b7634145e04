//! LZ4 block format with a slow and thorough compressor, by liblz4. The decoder is lz4's.

use std::ffi::{c_char, c_int, c_void};

use crate::registry::full_name;
use crate::state::State;
use crate::{CompressError, Compressor, Context, DecompressError, PAGE_SIZE, Page, lz4};

// Symbols of the liblz4 that lz4-sys builds and does not declare.
unsafe extern "C" {
    fn LZ4_sizeofStateHC() -> c_int;
    fn LZ4_initStreamHC(state: *mut c_void, size: usize) -> *mut c_void;
    fn LZ4_compress_HC_extStateHC_fastReset(
        state: *mut c_void,
        src: *const c_char,
        dst: *mut c_char,
        src_size: c_int,
        dst_capacity: c_int,
        level: c_int,
    ) -> c_int;
}

/// The `lz4hc` compressor.
pub(crate) struct Lz4hc {
    level: i32,
    name: String,
}

impl Lz4hc {
    /// liblz4 knows levels 10 to 12 too, and allocates 64 KiB at every call of them.
    pub(crate) const RANGE: std::ops::RangeInclusive<i32> = 2..=9;
    /// liblz4's own.
    pub(crate) const DEFAULT: i32 = 9;

    pub(crate) fn new(level: i32) -> Lz4hc {
        Lz4hc { level, name: full_name("lz4hc", "level", level, Self::DEFAULT) }
    }
}

impl Compressor for Lz4hc {
    fn name(&self) -> &str {
        &self.name
    }

    fn context(&self) -> Option<Box<dyn Context>> {
        // SAFETY: takes no pointers.
        let size = usize::try_from(unsafe { LZ4_sizeofStateHC() }).ok()?;
        let mut state = State::new(size)?;
        // SAFETY: the state is memory of this many bytes, aligned for any type.
        let initialised = unsafe { LZ4_initStreamHC(state.as_mut_ptr(), size) };
        (!initialised.is_null()).then_some(Box::new(Lz4hcContext { state, level: self.level }))
    }
}

struct Lz4hcContext {
    state: State,
    level: c_int,
}

impl Context for Lz4hcContext {
    fn compress(&mut self, page: &Page, out: &mut [u8]) -> Result<usize, CompressError> {
        let capacity = c_int::try_from(out.len()).map_err(|_| CompressError::Codec)?;
        // SAFETY: the state was initialised when it was made, and liblz4 itself resets it here: only a part where the last
        // compression succeeded, all of it where it did not. `page` is readable for PAGE_SIZE bytes and `out` writable for
        // `capacity`.
        let len = unsafe {
            LZ4_compress_HC_extStateHC_fastReset(
                self.state.as_mut_ptr(),
                page.as_ptr().cast(),
                out.as_mut_ptr().cast(),
                PAGE_SIZE as c_int,
                capacity,
                self.level,
            )
        };
        usize::try_from(len).ok().filter(|&len| len > 0).ok_or(CompressError::NoRoom)
    }

    fn decompress(&mut self, data: &[u8], page: &mut Page) -> Result<(), DecompressError> {
        lz4::decompress(data, page)
    }

    fn memory_bytes(&self) -> usize {
        self.state.len()
    }
}
