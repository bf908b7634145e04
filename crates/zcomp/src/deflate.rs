//! Raw deflate (RFC 1951), by libdeflate: what the kernel calls `deflate`, several times faster than zlib.

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::NonNull;

use libdeflate_sys as sys;

use crate::registry::full_name;
use crate::{CompressError, Compressor, Context, DecompressError, PAGE_SIZE, Page};

/// The `deflate` compressor.
pub(crate) struct Deflate {
    level: i32,
    name: String,
}

impl Deflate {
    pub(crate) const RANGE: std::ops::RangeInclusive<i32> = 1..=12;
    /// zlib's default, which the kernel uses.
    pub(crate) const DEFAULT: i32 = 6;

    pub(crate) fn new(level: i32) -> Deflate {
        Deflate { level, name: full_name("deflate", "level", level, Self::DEFAULT) }
    }
}

impl Compressor for Deflate {
    fn name(&self) -> &str {
        &self.name
    }

    fn context(&self) -> Option<Box<dyn Context>> {
        let options = sys::libdeflate_options {
            sizeof_options: size_of::<sys::libdeflate_options>(),
            malloc_func: Some(counting_malloc),
            free_func: Some(libc::free),
        };
        ALLOCATED.set(0);
        // SAFETY: `options` is valid for the call; a null result is told apart below.
        let compressor = unsafe { sys::libdeflate_alloc_compressor_ex(self.level, &raw const options) };
        let compressor = Owned::new(compressor, sys::libdeflate_free_compressor)?;
        // SAFETY: as above.
        let decompressor = unsafe { sys::libdeflate_alloc_decompressor_ex(&raw const options) };
        let decompressor = Owned::new(decompressor, sys::libdeflate_free_decompressor)?;
        Some(Box::new(DeflateContext { compressor, decompressor, bytes: ALLOCATED.get() }))
    }
}

thread_local!(static ALLOCATED: Cell<usize> = const { Cell::new(0) });

/// `malloc` that notes how much libdeflate takes: it tells nobody else.
unsafe extern "C" fn counting_malloc(size: usize) -> *mut c_void {
    ALLOCATED.set(ALLOCATED.get() + size);
    // SAFETY: malloc may be called with any size.
    unsafe { libc::malloc(size) }
}

/// An object of libdeflate's, freed with its own function.
struct Owned<T> {
    object: NonNull<T>,
    free: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    fn new(object: *mut T, free: unsafe extern "C" fn(*mut T)) -> Option<Owned<T>> {
        Some(Owned { object: NonNull::new(object)?, free })
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the object came from the matching alloc function and is freed once.
        unsafe { (self.free)(self.object.as_ptr()) }
    }
}

// SAFETY: libdeflate's objects are plain memory without thread affinity, and only their owner reaches them.
unsafe impl<T> Send for Owned<T> {}

struct DeflateContext {
    compressor: Owned<sys::libdeflate_compressor>,
    decompressor: Owned<sys::libdeflate_decompressor>,
    bytes: usize,
}

impl Context for DeflateContext {
    fn compress(&mut self, page: &Page, out: &mut [u8]) -> Result<usize, CompressError> {
        // SAFETY: the compressor is live and ours alone; `page` is readable and `out` writable for the lengths given.
        let len = unsafe {
            sys::libdeflate_deflate_compress(
                self.compressor.object.as_ptr(),
                page.as_ptr().cast(),
                PAGE_SIZE,
                out.as_mut_ptr().cast(),
                out.len(),
            )
        };
        if len == 0 { Err(CompressError::NoRoom) } else { Ok(len) }
    }

    fn decompress(&mut self, data: &[u8], page: &mut Page) -> Result<(), DecompressError> {
        let mut used = 0;
        // SAFETY: the decompressor is live and ours alone; `data` is readable and `page` writable for the lengths given; the
        // decoder stays within both for any content. Without a place for the output length it must be exactly a page.
        let result = unsafe {
            sys::libdeflate_deflate_decompress_ex(
                self.decompressor.object.as_ptr(),
                data.as_ptr().cast(),
                data.len(),
                page.as_mut_ptr().cast(),
                PAGE_SIZE,
                &raw mut used,
                std::ptr::null_mut(),
            )
        };
        if result == sys::libdeflate_result_LIBDEFLATE_SUCCESS && used == data.len() {
            Ok(())
        } else {
            Err(DecompressError)
        }
    }

    fn memory_bytes(&self) -> usize {
        self.bytes
    }
}
