//! A stand-in for a codec, to measure what is around it: it reads a page as a codec must and writes as many bytes as one
//! did, by copying them. Its pages say themselves how many that is.

use std::sync::Arc;

use zcomp::{CompressError, Compressor, Context, DecompressError, LookupError};
use zswap::{PAGE_SIZE, Page};

/// A page that this "compresses" to `len` bytes, 2 to 4095: the length, then the content of `page`, then zeros.
pub fn page_of(page: &Page, len: usize) -> Page {
    let mut made = [0; PAGE_SIZE];
    made[..len].copy_from_slice(&page[..len]);
    made[..2].copy_from_slice(&u16::try_from(len).expect("a page is short").to_le_bytes());
    made
}

/// Finds it, whatever the name.
pub fn lookup(_name: &str) -> Result<Arc<dyn Compressor>, LookupError> {
    Ok(Arc::new(Copies))
}

struct Copies;

impl Compressor for Copies {
    fn name(&self) -> &str {
        "copies"
    }

    fn context(&self) -> Option<Box<dyn Context>> {
        Some(Box::new(Copies))
    }
}

impl Context for Copies {
    fn compress(&mut self, page: &Page, out: &mut [u8]) -> Result<usize, CompressError> {
        // A codec has read all of the page by then, and what follows finds it in the cache.
        const LINE: usize = 64;
        std::hint::black_box(page.iter().step_by(LINE).fold(0u8, |sum, byte| sum.wrapping_add(*byte)));
        let len = usize::from(u16::from_le_bytes([page[0], page[1]]));
        out.get_mut(..len).ok_or(CompressError::NoRoom)?.copy_from_slice(&page[..len]);
        Ok(len)
    }

    fn decompress(&mut self, data: &[u8], page: &mut Page) -> Result<(), DecompressError> {
        page.get_mut(..data.len()).ok_or(DecompressError)?.copy_from_slice(data);
        page[data.len()..].fill(0);
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        0
    }
}
