//! liblzo2, opened at run time where it is installed (Debian: `liblzo2-2`). It is under the GPL, so nothing links to it: it is
//! only asked whether it understands our streams and we its.

use std::ffi::{c_int, c_ulong, c_void};

type Compress = unsafe extern "C" fn(*const u8, c_ulong, *mut u8, *mut c_ulong, *mut c_void) -> c_int;

/// Working memory of `lzo1x_1_compress`: 2^14 pointers.
const WORK_WORDS: usize = 1 << 14;

/// The opened library and its working memory.
pub struct Liblzo2 {
    compress: Compress,
    decompress: Compress,
    work: Vec<u64>,
}

impl Liblzo2 {
    /// `None` where the library is not installed.
    pub fn open() -> Option<Liblzo2> {
        // SAFETY: the names are NUL-terminated; the library runs no code of ours when it is loaded, and stays loaded.
        let library = unsafe { libc::dlopen(c"liblzo2.so.2".as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            return None;
        }
        // SAFETY: as above; both functions have exactly this signature in lzo/lzo1x.h, and null is told apart.
        let symbol = |name: &std::ffi::CStr| unsafe {
            let symbol = libc::dlsym(library, name.as_ptr());
            (!symbol.is_null()).then(|| std::mem::transmute::<*mut c_void, Compress>(symbol))
        };
        Some(Liblzo2 {
            compress: symbol(c"lzo1x_1_compress")?,
            decompress: symbol(c"lzo1x_decompress_safe")?,
            work: vec![0; WORK_WORDS],
        })
    }

    /// Compresses with LZO1X-1; `out` must hold the worst case, `len + len / 16 + 67`.
    pub fn compress(&mut self, data: &[u8], out: &mut [u8]) -> usize {
        assert!(out.len() >= data.len() + data.len() / 16 + 67);
        let mut len = 0;
        // SAFETY: `data` is readable for its length, `out` holds the worst case (asserted), `work` is as big as asked for.
        let result = unsafe {
            (self.compress)(
                data.as_ptr(),
                data.len() as c_ulong,
                out.as_mut_ptr(),
                &raw mut len,
                self.work.as_mut_ptr().cast(),
            )
        };
        assert_eq!(result, 0);
        usize::try_from(len).unwrap()
    }

    /// Decompresses with every check on; the length, or the library's error code.
    pub fn decompress(&self, data: &[u8], out: &mut [u8]) -> Result<usize, i32> {
        let mut len = out.len() as c_ulong;
        // SAFETY: `data` is readable for its length and `out` writable for `len`; the safe decoder takes no working memory.
        let result = unsafe {
            (self.decompress)(
                data.as_ptr(),
                data.len() as c_ulong,
                out.as_mut_ptr(),
                &raw mut len,
                std::ptr::null_mut(),
            )
        };
        if result == 0 { Ok(usize::try_from(len).unwrap()) } else { Err(result) }
    }
}
